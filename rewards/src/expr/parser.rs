//! From text to [`Expr`], by precedence.

use super::{
    COMPARISON, Expr, ExprError, Function, Kind, Op,
    lexer::{Token, lex},
};
use crate::facts::{Fact, nearest};

/// Longest text of an expression, in bytes.
const MAX_LENGTH: usize = 4096;
/// Deepest nesting.
const MAX_DEPTH: usize = 50;
/// Most nodes: a chain of operators is as deep as it is long.
const MAX_NODES: usize = 500;

/// Reads an expression.
///
/// # Errors
///
/// The first thing that is wrong.
pub(crate) fn parse(text: &str) -> Result<Expr, ExprError> {
    if text.len() > MAX_LENGTH {
        return Err(ExprError::new(0, format!("longer than {MAX_LENGTH} bytes")));
    }
    let mut parser = Parser { tokens: lex(text)?, next: 0, end: text.len(), depth: 0, nodes: 0 };
    let expr = parser.expression()?;
    match parser.peek() {
        None => Ok(expr),
        Some(token) => {
            let message = format!("expected the end or an operator, found {}", token.describe());
            Err(ExprError::new(parser.at(), message))
        }
    }
}

struct Parser {
    tokens: Vec<(usize, Token)>,
    next: usize,
    end: usize,
    depth: usize,
    nodes: usize,
}

type Parsed = Result<Expr, ExprError>;

impl Parser {
    fn expression(&mut self) -> Parsed {
        self.nested(|parser| parser.chain(Op::Or.precedence()))
    }

    /// A chain of operators of one level, each operand of a tighter one.
    fn chain(&mut self, level: u8) -> Parsed {
        if level == super::NOT {
            return self.not();
        }
        if level == super::NEG {
            return self.unary();
        }
        let mut left = self.chain(level + 1)?;
        let mut compared = false;
        while let Some(Token::Op(op)) = self.peek().cloned()
            && op.precedence() == level
        {
            let at = self.at();
            if compared {
                let hint = "comparisons don't chain; write `a < b and b < c`";
                return Err(ExprError::new(at, hint));
            }
            self.next += 1;
            let right = self.chain(level + 1)?;
            left = self.node(at, Kind::Binary(op, Box::new(left), Box::new(right)))?;
            compared = level == COMPARISON;
        }
        Ok(left)
    }

    fn not(&mut self) -> Parsed {
        let at = self.at();
        if self.word("not") {
            let inner = self.nested(Self::not)?;
            return self.node(at, Kind::Not(Box::new(inner)));
        }
        self.chain(COMPARISON)
    }

    fn unary(&mut self) -> Parsed {
        let at = self.at();
        if self.take(&Token::Op(Op::Subtract)) {
            let inner = self.nested(Self::unary)?;
            return self.node(at, Kind::Neg(Box::new(inner)));
        }
        self.primary()
    }

    fn primary(&mut self) -> Parsed {
        let at = self.at();
        match self.advance() {
            Some(Token::Number(number)) => self.node(at, Kind::Number(number)),
            Some(Token::Text(text)) => self.node(at, Kind::Text(text.into())),
            Some(Token::Open) => {
                let inner = self.expression()?;
                self.expect(&Token::Close)?;
                Ok(inner)
            }
            Some(Token::Word(word)) => match word.as_str() {
                "true" => self.node(at, Kind::Bool(true)),
                "false" => self.node(at, Kind::Bool(false)),
                "not" => Err(ExprError::new(at, "put `not ...` in parentheses here")),
                _ if self.take(&Token::Open) => self.call(at, &word),
                _ => {
                    let fact = self.fact(at, word)?;
                    self.node(at, Kind::Fact(fact))
                }
            },
            found => {
                let found = found.map_or("the end".into(), |token| token.describe());
                Err(ExprError::new(at, format!("expected a fact, a number or `(`, found {found}")))
            }
        }
    }

    fn call(&mut self, at: usize, name: &str) -> Parsed {
        if name == "known" {
            let fact_at = self.at();
            let Some(Token::Word(word)) = self.advance() else {
                return Err(ExprError::new(
                    fact_at,
                    "`known` takes a fact: `known(external.judge)`",
                ));
            };
            let fact = self.fact(fact_at, word)?;
            self.expect(&Token::Close)?;
            return self.node(at, Kind::Known(fact));
        }
        let Some((_, function)) = Function::ALL.iter().find(|(known, _)| *known == name) else {
            let names = Function::ALL.iter().map(|(name, _)| *name).chain(["known"]);
            let near = nearest(name, names).map(|near| format!("; did you mean `{near}`?"));
            let message = format!("unknown function `{name}`{}", near.unwrap_or_default());
            return Err(ExprError::new(at, message));
        };
        let mut args = Vec::new();
        if !self.take(&Token::Close) {
            loop {
                args.push(self.expression()?);
                if !self.take(&Token::Comma) {
                    break;
                }
            }
            self.expect(&Token::Close)?;
        }
        let (fits, takes) = match function {
            Function::Min | Function::Max => (args.len() >= 2, "two or more values"),
            Function::Clamp => (args.len() == 3, "a value, a lower and an upper bound"),
            Function::Log2 | Function::Abs => (args.len() == 1, "one value"),
            Function::If => (args.len() == 3, "a condition and two values"),
        };
        if !fits {
            let message = format!("`{name}` takes {takes}, found {} arguments", args.len());
            return Err(ExprError::new(at, message));
        }
        self.node(at, Kind::Call(*function, args))
    }

    fn fact(&mut self, at: usize, first: String) -> Result<Fact, ExprError> {
        let mut segments = vec![first];
        while self.take(&Token::Dot) {
            let at = self.at();
            match self.advance() {
                Some(Token::Word(word) | Token::Text(word)) => segments.push(word),
                // Names of facts, too, though words of the language.
                Some(Token::Op(op @ (Op::And | Op::Or))) => segments.push(op.as_str().into()),
                _ => return Err(ExprError::new(at, "expected a name after `.`")),
            }
        }
        Fact::resolve(&segments).map_err(|message| ExprError::new(at, message))
    }

    fn nested(&mut self, inner: impl FnOnce(&mut Self) -> Parsed) -> Parsed {
        if self.depth == MAX_DEPTH {
            return Err(ExprError::new(
                self.at(),
                format!("nested deeper than {MAX_DEPTH} levels"),
            ));
        }
        self.depth += 1;
        let parsed = inner(self);
        self.depth -= 1;
        parsed
    }

    fn node(&mut self, at: usize, kind: Kind) -> Parsed {
        self.nodes += 1;
        if self.nodes > MAX_NODES {
            return Err(ExprError::new(at, format!("more than {MAX_NODES} parts")));
        }
        Ok(Expr { at, kind })
    }

    fn peek(&self) -> Option<&Token> {
        self.tokens.get(self.next).map(|(_, token)| token)
    }

    /// The offset of the next token, or of the end.
    fn at(&self) -> usize {
        self.tokens.get(self.next).map_or(self.end, |(at, _)| *at)
    }

    fn advance(&mut self) -> Option<Token> {
        let token = self.peek().cloned();
        self.next += usize::from(token.is_some());
        token
    }

    fn take(&mut self, token: &Token) -> bool {
        let found = self.peek() == Some(token);
        self.next += usize::from(found);
        found
    }

    fn word(&mut self, word: &str) -> bool {
        let found = matches!(self.peek(), Some(Token::Word(next)) if next == word);
        self.next += usize::from(found);
        found
    }

    fn expect(&mut self, token: &Token) -> Result<(), ExprError> {
        if self.take(token) {
            return Ok(());
        }
        let found = self.peek().map_or("the end".into(), Token::describe);
        Err(ExprError::new(self.at(), format!("expected {}, found {found}", token.describe())))
    }
}
