//! The language of reward files: total expressions over facts.
//!
//! No loops, no I/O, no partial function: what loads can be evaluated on every record that has its
//! facts, and gives a finite number or a truth value. From loosest to tightest:
//!
//! ```text
//! or      and      not      < <= > >= == !=  (don't chain)      + -      * /      unary -
//! ```
//!
//! Functions: `min(a, b, ...)`, `max(a, b, ...)`, `clamp(x, lo, hi)`, `log2(x)`, `abs(x)`,
//! `if(condition, then, else)`, `known(fact)`.

mod canonical;
mod check;
mod eval;
mod format;
mod lexer;
mod logic;
mod parser;

use std::fmt;

pub(crate) use check::{Checked, Range, check, exclude};
pub(crate) use eval::Stuck;
pub(crate) use format::format;
pub(crate) use parser::parse;

use crate::facts::Fact;

/// What is wrong with an expression, and where in its text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ExprError {
    /// Byte offset in the expression.
    pub(crate) at: usize,
    pub(crate) message: String,
}

impl ExprError {
    pub(crate) fn new(at: usize, message: impl Into<String>) -> Self {
        Self { at, message: message.into() }
    }
}

/// An expression. Equal to another of the same shape, wherever it stands.
#[derive(Clone, Debug)]
pub(crate) struct Expr {
    /// Byte offset in the text.
    pub(crate) at: usize,
    pub(crate) kind: Kind,
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Kind {
    Number(f64),
    Bool(bool),
    Text(Box<str>),
    Fact(Fact),
    Known(Fact),
    Not(Box<Expr>),
    Neg(Box<Expr>),
    Binary(Op, Box<Expr>, Box<Expr>),
    Call(Function, Vec<Expr>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Op {
    Or,
    And,
    Less,
    LessEqual,
    Greater,
    GreaterEqual,
    Equal,
    NotEqual,
    Add,
    Subtract,
    Multiply,
    Divide,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Function {
    Min,
    Max,
    Clamp,
    Log2,
    Abs,
    If,
}

impl Op {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Or => "or",
            Self::And => "and",
            Self::Less => "<",
            Self::LessEqual => "<=",
            Self::Greater => ">",
            Self::GreaterEqual => ">=",
            Self::Equal => "==",
            Self::NotEqual => "!=",
            Self::Add => "+",
            Self::Subtract => "-",
            Self::Multiply => "*",
            Self::Divide => "/",
        }
    }

    pub(crate) fn precedence(self) -> u8 {
        match self {
            Self::Or => 1,
            Self::And => 2,
            Self::Less
            | Self::LessEqual
            | Self::Greater
            | Self::GreaterEqual
            | Self::Equal
            | Self::NotEqual => COMPARISON,
            Self::Add | Self::Subtract => 5,
            Self::Multiply | Self::Divide => 6,
        }
    }
}

pub(crate) const NOT: u8 = 3;
pub(crate) const COMPARISON: u8 = 4;
pub(crate) const NEG: u8 = 7;
const PRIMARY: u8 = 8;

impl Function {
    pub(crate) const ALL: &[(&str, Self)] = &[
        ("min", Self::Min),
        ("max", Self::Max),
        ("clamp", Self::Clamp),
        ("log2", Self::Log2),
        ("abs", Self::Abs),
        ("if", Self::If),
    ];

    pub(crate) fn as_str(self) -> &'static str {
        Self::ALL.iter().find(|(_, function)| *function == self).map_or("", |(name, _)| name)
    }
}

impl Expr {
    /// Returns the facts that it speaks of, each once, in the order of the text.
    pub(crate) fn facts(&self) -> Vec<&Fact> {
        self.facts_at().into_iter().map(|(_, fact)| fact).collect()
    }

    /// The same, with the place of the first expression that speaks of it.
    pub(crate) fn facts_at(&self) -> Vec<(usize, &Fact)> {
        fn walk<'e>(expr: &'e Expr, found: &mut Vec<(usize, &'e Fact)>) {
            match &expr.kind {
                Kind::Fact(fact) | Kind::Known(fact) => {
                    if !found.iter().any(|(_, known)| *known == fact) {
                        found.push((expr.at, fact));
                    }
                }
                Kind::Not(inner) | Kind::Neg(inner) => walk(inner, found),
                Kind::Binary(_, left, right) => {
                    walk(left, found);
                    walk(right, found);
                }
                Kind::Call(_, args) => args.iter().for_each(|arg| walk(arg, found)),
                Kind::Number(_) | Kind::Bool(_) | Kind::Text(_) => {}
            }
        }
        let mut found = Vec::new();
        walk(self, &mut found);
        found
    }
}

impl PartialEq for Expr {
    fn eq(&self, other: &Self) -> bool {
        self.kind == other.kind
    }
}

/// Writes the expression with no more parentheses than it needs; parsing that gives it back.
impl fmt::Display for Expr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.kind {
            Kind::Number(number) => write!(f, "{number:?}"),
            Kind::Bool(value) => write!(f, "{value}"),
            Kind::Text(text) => write!(f, "{}", Quoted(text)),
            Kind::Fact(fact) => write!(f, "{fact}"),
            Kind::Known(fact) => write!(f, "known({fact})"),
            Kind::Not(inner) => write!(f, "not {}", Operand(inner, NOT)),
            Kind::Neg(inner) => write!(f, "-{}", Operand(inner, NEG)),
            Kind::Binary(op, left, right) => {
                let level = op.precedence();
                let left = Operand(left, if level == COMPARISON { level + 1 } else { level });
                write!(f, "{left} {} {}", op.as_str(), Operand(right, level + 1))
            }
            Kind::Call(function, args) => {
                write!(f, "{}(", function.as_str())?;
                for (i, arg) in args.iter().enumerate() {
                    let comma = if i > 0 { ", " } else { "" };
                    write!(f, "{comma}{arg}")?;
                }
                f.write_str(")")
            }
        }
    }
}

/// Text as the language writes it: without escapes, in the quotes that are not in it.
pub(crate) struct Quoted<'a>(pub(crate) &'a str);

impl fmt::Display for Quoted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let quote = if self.0.contains('"') { '\'' } else { '"' };
        write!(f, "{quote}{}{quote}", self.0)
    }
}

/// An expression that has to bind at least as tightly as a level.
struct Operand<'a>(&'a Expr, u8);

impl fmt::Display for Operand<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let level = match &self.0.kind {
            Kind::Binary(op, ..) => op.precedence(),
            Kind::Not(_) => NOT,
            Kind::Neg(_) => NEG,
            _ => PRIMARY,
        };
        if level < self.1 { write!(f, "({})", self.0) } else { write!(f, "{}", self.0) }
    }
}

#[cfg(test)]
mod tests;
