//! Words, numbers and signs of an expression.

use super::{ExprError, Op};

#[derive(Clone, Debug, PartialEq)]
pub(super) enum Token {
    Number(f64),
    Text(String),
    Word(String),
    Op(Op),
    Dot,
    Comma,
    Open,
    Close,
}

impl Token {
    pub(super) fn describe(&self) -> String {
        match self {
            Self::Number(number) => format!("`{number}`"),
            Self::Text(text) => format!("\"{text}\""),
            Self::Word(word) => format!("`{word}`"),
            Self::Op(op) => format!("`{}`", op.as_str()),
            Self::Dot => "`.`".into(),
            Self::Comma => "`,`".into(),
            Self::Open => "`(`".into(),
            Self::Close => "`)`".into(),
        }
    }
}

/// Splits `text` into tokens, each with its byte offset.
pub(super) fn lex(text: &str) -> Result<Vec<(usize, Token)>, ExprError> {
    let mut tokens = Vec::new();
    let mut at = 0;
    while let Some(c) = text[at..].chars().next() {
        if c.is_whitespace() {
            at += c.len_utf8();
            continue;
        }
        let rest = &text[at..];
        let after_dot = matches!(tokens.last(), Some((_, Token::Dot)));
        let (token, length) = if c.is_ascii_digit() && !after_dot {
            number(rest).map_err(|message| ExprError::new(at, message))?
        } else if c.is_ascii_alphanumeric() || c == '_' {
            let end = rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '_');
            let word = &rest[..end.unwrap_or(rest.len())];
            let token = match word {
                "and" => Token::Op(Op::And),
                "or" => Token::Op(Op::Or),
                _ => Token::Word(word.to_owned()),
            };
            (token, word.len())
        } else if c == '"' || c == '\'' {
            let end =
                rest[1..].find(c).ok_or_else(|| ExprError::new(at, "this text has no end"))?;
            (Token::Text(rest[1..=end].to_owned()), end + 2)
        } else {
            sign(rest).map_err(|message| ExprError::new(at, message))?
        };
        tokens.push((at, token));
        at += length;
    }
    Ok(tokens)
}

fn number(rest: &str) -> Result<(Token, usize), String> {
    let bytes = rest.as_bytes();
    let digits = |from: usize| {
        let digit = |b: &&u8| b.is_ascii_digit() || **b == b'_';
        from + bytes[from..].iter().take_while(digit).count()
    };
    let mut end = digits(0);
    if bytes.get(end) == Some(&b'.') && bytes.get(end + 1).is_some_and(u8::is_ascii_digit) {
        end = digits(end + 1);
    }
    if matches!(bytes.get(end), Some(b'e' | b'E')) {
        let sign = usize::from(matches!(bytes.get(end + 1), Some(b'+' | b'-')));
        if bytes.get(end + 1 + sign).is_some_and(u8::is_ascii_digit) {
            end = digits(end + 1 + sign);
        }
    }
    let written = &rest[..end];
    if rest[end..].starts_with(|c: char| c.is_ascii_alphanumeric() || c == '_') {
        return Err(format!("a number ends where a word begins, after `{written}`"));
    }
    match written.replace('_', "").parse::<f64>() {
        Ok(number) if number.is_finite() => Ok((Token::Number(number), end)),
        _ => Err(format!("`{written}` is too large a number")),
    }
}

fn sign(rest: &str) -> Result<(Token, usize), String> {
    const SIGNS: &[(&str, Token)] = &[
        ("<=", Token::Op(Op::LessEqual)),
        (">=", Token::Op(Op::GreaterEqual)),
        ("==", Token::Op(Op::Equal)),
        ("!=", Token::Op(Op::NotEqual)),
        ("<", Token::Op(Op::Less)),
        (">", Token::Op(Op::Greater)),
        ("+", Token::Op(Op::Add)),
        ("-", Token::Op(Op::Subtract)),
        ("*", Token::Op(Op::Multiply)),
        ("/", Token::Op(Op::Divide)),
        (".", Token::Dot),
        (",", Token::Comma),
        ("(", Token::Open),
        (")", Token::Close),
    ];
    const MEANT: &[(&str, &str)] = &[
        ("&&", "write `and`"),
        ("||", "write `or`"),
        ("!", "write `not`"),
        ("=", "write `==`"),
        ("**", "powers are not supported; write a product"),
        ("^", "powers are not supported; write a product"),
        ("%", "remainders are not supported"),
        ("?", "write `if(condition, then, else)`"),
    ];
    let not_equal = rest.starts_with("!=");
    let meant = MEANT.iter().find(|(sign, _)| rest.starts_with(sign));
    if let Some((sign, hint)) =
        meant.filter(|(sign, _)| !(not_equal || *sign == "=" && rest.starts_with("==")))
    {
        return Err(format!("`{sign}` is no operator here; {hint}"));
    }
    let known = SIGNS.iter().find(|(sign, _)| rest.starts_with(sign));
    known.map(|(sign, token)| (token.clone(), sign.len())).ok_or_else(|| {
        let c = rest.chars().next().unwrap_or_default();
        format!("unexpected character {c:?}")
    })
}
