//! The usual spaces: words, numbers and parentheses stay as they were written.

use super::{
    ExprError, Op,
    lexer::{Token, lex},
};

/// Returns `text` with one space around operators and after commas, and none elsewhere.
///
/// # Errors
///
/// When it is no sequence of tokens.
pub(crate) fn format(text: &str) -> Result<String, ExprError> {
    let tokens = lex(text)?;
    let ends = tokens.iter().skip(1).map(|(at, _)| *at).chain([text.len()]);
    let mut out = String::with_capacity(text.len());
    let mut before: Option<&Token> = None;
    let mut after_sign = false;
    for ((at, token), end) in tokens.iter().zip(ends) {
        let tight = after_sign
            || matches!(before, None | Some(Token::Open | Token::Dot))
            || matches!(token, Token::Comma | Token::Close | Token::Dot)
            || *token == Token::Open && before.is_some_and(is_function);
        if !tight {
            out.push(' ');
        }
        out.push_str(text[*at..end].trim_end());
        // A minus where an operand has to come is a part of it.
        after_sign = *token == Token::Op(Op::Subtract)
            && match before {
                None | Some(Token::Op(_) | Token::Open | Token::Comma) => true,
                Some(Token::Word(word)) => word == "not",
                _ => false,
            };
        before = Some(token);
    }
    Ok(out)
}

fn is_function(token: &Token) -> bool {
    matches!(token, Token::Word(word) if word != "not")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{super::parse, *};

    #[test]
    fn spaces() {
        for (text, expected) in [
            ("must_pass.all", "must_pass.all"),
            ("  must_pass . all and( not must_keep.all)", "must_pass.all and (not must_keep.all)"),
            (
                "-0.02*log2( 1+patch.changed_lines/50 )",
                "-0.02 * log2(1 + patch.changed_lines / 50)",
            ),
            ("1-2", "1 - 2"),
            ("1--2", "1 - -2"),
            ("- - 1", "--1"),
            ("max(-1,-(2))", "max(-1, -(2))"),
            ("not(a)", "not (a)"),
            ("not -1<2", "not -1 < 2"),
            ("gen.finish_reason=='a  b'", "gen.finish_reason == 'a  b'"),
            ("check.\"unit-2\" .ran", "check.\"unit-2\".ran"),
            ("1_000+1.50", "1_000 + 1.50"),
            ("if(run.oom,1,0)", "if(run.oom, 1, 0)"),
            ("", ""),
        ] {
            assert_eq!(format(text).as_deref(), Ok(expected), "{text}");
            assert_eq!(format(expected).as_deref(), Ok(expected), "again");
        }
        assert!(format("a ? b").is_err());
    }

    proptest! {
        /// What an expression says stays.
        #[test]
        fn nothing_changes_but_spaces(
            words in prop::collection::vec(prop_oneof![
                Just("must_pass.all"), Just("tests.passed"), Just("not"), Just("-"), Just("+"),
                Just("and"), Just("("), Just(")"), Just("1.5"), Just("max("), Just(","), Just("<"),
                Just("'x  y'"), Just("=="),
            ], 0..12),
        ) {
            let text = words.join(" ");
            let formatted = format(&text).unwrap();
            match (parse(&text), parse(&formatted)) {
                (Ok(left), Ok(right)) => prop_assert_eq!(left, right),
                (left, right) => prop_assert_eq!(left.is_ok(), right.is_ok(), "{}", formatted),
            }
            prop_assert_eq!(format(&formatted).unwrap(), formatted);
        }
    }
}
