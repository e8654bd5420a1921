//! One form for expressions that have the same value on every record.

use super::{Expr, Function, Kind, Op};

impl Expr {
    /// Returns it with operands in one order where their order says nothing: of `and`, `or`, `==`,
    /// `!=`, `min`, `max`, and of one `+` or `*`. Longer sums stay as they are: they round in their
    /// order. `a > b` is `b < a`.
    #[must_use]
    pub(crate) fn canonical(&self) -> Self {
        let kind = match &self.kind {
            Kind::Not(inner) => Kind::Not(Box::new(inner.canonical())),
            Kind::Neg(inner) => Kind::Neg(Box::new(inner.canonical())),
            Kind::Binary(op @ (Op::And | Op::Or), ..) => return self.junction(*op),
            Kind::Binary(op, left, right) => {
                let (left, right) = (left.canonical(), right.canonical());
                match op {
                    Op::Greater => binary(Op::Less, right, left),
                    Op::GreaterEqual => binary(Op::LessEqual, right, left),
                    Op::Equal | Op::NotEqual | Op::Add | Op::Multiply
                        if right.to_string() < left.to_string() =>
                    {
                        binary(*op, right, left)
                    }
                    _ => binary(*op, left, right),
                }
            }
            Kind::Call(function, args) => {
                let mut args: Vec<_> = args.iter().map(Self::canonical).collect();
                if matches!(function, Function::Min | Function::Max) {
                    sort(&mut args);
                }
                Kind::Call(*function, args)
            }
            other => other.clone(),
        };
        Self { at: self.at, kind }
    }

    /// A chain of `and`, or of `or`.
    fn junction(&self, op: Op) -> Self {
        fn operands(expr: &Expr, op: Op, found: &mut Vec<Expr>) {
            match &expr.kind {
                Kind::Binary(other, left, right) if *other == op => {
                    operands(left, op, found);
                    operands(right, op, found);
                }
                _ => found.push(expr.canonical()),
            }
        }
        let mut all = Vec::new();
        operands(self, op, &mut all);
        sort(&mut all);
        let join = |left: Self, right| Self { at: self.at, kind: binary(op, left, right) };
        all.into_iter().reduce(join).unwrap_or_else(|| self.clone())
    }
}

fn binary(op: Op, left: Expr, right: Expr) -> Kind {
    Kind::Binary(op, Box::new(left), Box::new(right))
}

/// Sorts operands; one that is there twice says what it says once.
fn sort(operands: &mut Vec<Expr>) {
    operands.sort_by_cached_key(ToString::to_string);
    operands.dedup();
}

#[cfg(test)]
mod tests {
    use super::super::parse;

    #[test]
    fn order_counts_where_it_says_something() {
        let same = [
            ("must_pass.all and must_keep.all", "must_keep.all and must_pass.all"),
            ("run.oom or (tests.ran or not run.oom)", "not run.oom or run.oom or tests.ran"),
            ("tests.ran and tests.ran", "tests.ran and (tests.ran)"),
            ("tests.passed > 5", "5 < tests.passed"),
            ("tests.passed >= 5 and run.oom", "run.oom and 5.0 <= tests.passed"),
            ("0.2 * must_pass.fraction + 1", "1 + must_pass.fraction * 0.2"),
            ("max(1, tests.passed, run.cpu_s)", "max(run.cpu_s, 1, tests.passed, 1)"),
            ("gen.finish_reason == 'stop'", "\"stop\" == gen.finish_reason"),
            ("if(a_b == 1, 1, 0)", "if(1 == a_b, 1, 0)"),
        ];
        for (one, other) in same {
            let (one, other) =
                (one.replace("a_b", "external.a"), other.replace("a_b", "external.a"));
            let form = |text: &str| parse(text).unwrap().canonical();
            assert_eq!(form(&one), form(&other), "{one}");
            assert_eq!(form(&one).canonical(), form(&one), "{one}");
        }
        let differ = [
            ("tests.passed - 1", "1 - tests.passed"),
            ("tests.passed / 2", "2 / tests.passed"),
            ("tests.passed < 5", "5 < tests.passed"),
            ("tests.passed < 5", "tests.passed <= 5"),
            ("clamp(run.cpu_s, 0, 1)", "clamp(run.cpu_s, 1, 0)"),
            ("run.cpu_s + run.wall_s + 0.1", "0.1 + run.cpu_s + run.wall_s"),
            ("tests.ran and run.oom", "tests.ran or run.oom"),
            ("known(gen.tokens)", "known(gen.turns)"),
        ];
        for (one, other) in differ {
            let form = |text: &str| parse(text).unwrap().canonical();
            assert_ne!(form(one), form(other), "{one}");
        }
    }
}
