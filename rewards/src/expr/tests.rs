use proptest::prelude::*;

use super::*;
use crate::{
    facts::{Facts, Fixed},
    testing::record,
};

/// Evaluates on a record with 3 of 4 must-pass tests and 10 of 10 must-keep tests.
fn eval(text: &str) -> Result<f64, String> {
    let expr = parse(text).map_err(|error| format!("{}: {}", error.at, error.message))?;
    check(&expr).map_err(|errors| format!("{}: {}", errors[0].at, errors[0].message))?;
    let mut record = record((3, 4), (10, 10));
    record.patch.added = 30;
    record.patch.removed = 20;
    record.usage.instructions = Some(1234);
    record.generation.finish_reason = "length".into();
    record.external.insert("judge".into(), 0.5);
    record.external.insert("huge".into(), 1e300);
    record.external.insert("odd-name".into(), 2.0);
    let worth = expr.worth(&Facts::of(&record));
    worth.map_err(|stuck| format!("{stuck:?}"))
}

#[test]
fn values() {
    let cases = [
        ("1 + 2 * 3", 7.0),
        ("(1 + 2) * 3", 9.0),
        ("7 - 2 - 1", 4.0),
        ("8 / 2 / 2", 2.0),
        ("-2 * -3", 6.0),
        ("--1", 1.0),
        ("2 - -1", 3.0),
        ("1_000.5e-1", 100.05),
        ("must_pass.fraction", 0.75),
        ("run.instructions", 1234.0),
        ("must_pass.all", 0.0),
        ("must_keep.all", 1.0),
        ("not must_pass.all and must_keep.all", 1.0),
        ("not (must_pass.all and must_keep.all)", 1.0),
        ("true or false and false", 1.0),
        ("not false == true", 1.0), // not (false == true)
        ("1 < 2 and 2 <= 2 and 3 > 2 and 3 >= 3 and 1 != 2 and 1 == 1", 1.0),
        ("min(3, 1, 2) + max(3, 1, 2)", 4.0),
        ("clamp(7, 0, 5) + clamp(-7, 0, 5) + clamp(3, 0, 5)", 8.0),
        ("log2(1 + patch.changed_lines / 50)", 1.0),
        ("abs(-3) + abs(2)", 5.0),
        ("if(must_pass.all, 1, 0.25)", 0.25),
        ("gen.finish_reason == 'length'", 1.0),
        ("gen.finish_reason != \"length\"", 0.0),
        ("gen.truncated", 1.0),
        ("external.judge", 0.5),
        ("external.\"odd-name\"", 2.0),
        ("external.'odd-name' * 2", 4.0),
        ("check.unit.passed + check.\"unit\".must_pass.fraction", 13.75),
        ("check.unit.must_keep.all", 1.0),
        ("known(external.judge) and not known(external.other)", 1.0),
        ("if(known(external.other), external.other, -1)", -1.0),
        // What is absent may not matter.
        ("must_pass.all and external.other > 0", 0.0),
        ("external.other > 0 and must_pass.all", 0.0),
        ("external.other > 0 or must_keep.all", 1.0),
        ("\n  1 +\t1 ", 2.0),
    ];
    for (text, expected) in cases {
        assert_eq!(eval(text), Ok(expected), "{text}");
    }
}

#[test]
fn absent_facts_have_no_value() {
    for text in [
        "external.other",
        "external.huge", // beyond the range that is promised of external facts
        "task.flaky_rate",
        "task.difficulty",
        "gen.tokens",
        "check.lint.passed",
        "external.other > 0 and must_keep.all",
        "external.other > 0 or must_pass.all",
        "not (external.other > 0)",
        "min(1, external.other)",
    ] {
        let error = eval(text).unwrap_err();
        assert!(error.starts_with("Absent"), "{text}: {error}");
    }
}

#[test]
fn mistakes() {
    let cases = [
        ("", 0, "expected a fact"),
        ("1 +", 3, "expected a fact"),
        ("1 2", 2, "expected the end or an operator, found `2`"),
        ("(1", 2, "expected `)`, found the end"),
        ("1)", 1, "found `)`"),
        ("1 + $", 4, "unexpected character '$'"),
        ("1 + é", 4, "unexpected character 'é'"),
        ("a\0b", 1, "unexpected character '\\0'"),
        ("1 < 2 < 3", 6, "don't chain"),
        ("1 == 1 == true", 7, "don't chain"),
        ("must_pass.all && must_keep.all", 14, "write `and`"),
        ("must_pass.all || must_keep.all", 14, "write `or`"),
        ("!must_pass.all", 0, "write `not`"),
        ("gen.tokens = 1", 11, "write `==`"),
        ("gen.tokens ^ 2", 11, "powers"),
        ("gen.tokens ** 2", 11, "powers"),
        ("gen.tokens % 2", 11, "remainders"),
        ("1 + not true", 4, "in parentheses"),
        ("must_pas.all", 0, "did you mean `must_pass.all`?"),
        ("tests.pass", 0, "did you mean `tests.passed`?"),
        ("1 + patch.lines", 4, "unknown fact `patch.lines`"),
        ("zebra", 0, "unknown fact `zebra`"),
        ("min", 0, "unknown fact `min`"),
        ("external", 0, "takes one name"),
        ("external.a.b", 0, "takes one name"),
        ("external.", 9, "expected a name"),
        ("check.unit", 0, "takes an id and a fact"),
        ("check.unit.pased", 0, "did you mean `check.unit.passed`?"),
        ("plugin.x.y", 0, "`plugin` takes one name"),
        ("mim(1, 2)", 0, "did you mean `min`?"),
        ("min(1)", 0, "takes two or more values, found 1"),
        ("log2(1, 2)", 0, "takes one value, found 2"),
        ("clamp(1, 2)", 0, "found 2"),
        ("if(true, 1)", 0, "found 2"),
        ("min(1,)", 6, "expected a fact"),
        ("known(1)", 6, "takes a fact"),
        ("known(min(1, 2))", 6, "unknown fact `min`"),
        ("'open", 0, "has no end"),
        ("1e999", 0, "too large"),
        ("12abc", 0, "ends where a word begins"),
        ("1.5.2", 3, "found `.`"),
        ("1 + must_pass.all", 4, "write `if(must_pass.all, 1, 0)`"),
        ("-must_pass.all", 1, "needs a number"),
        ("not gen.tokens", 4, "needs a condition"),
        ("must_pass.all and gen.tokens", 18, "needs a condition"),
        ("gen.finish_reason == 1", 18, "compares text with a number"),
        ("gen.finish_reason < 'a'", 0, "is text"),
        ("must_pass.all == 1", 14, "compares true or false with a number"),
        ("if(gen.tokens, 1, 2)", 3, "needs a condition"),
        ("if(must_pass.all, 1, true)", 21, "of one type"),
        ("if(true, 1, 2)", 3, "always true"),
        ("if(must_pass.all or not must_pass.all, 1, 2)", 17, "always true"),
        ("1 / 0", 4, "may divide by zero"),
        ("1 / tests.passed", 4, "write `max(1, tests.passed)`"),
        ("tests.passed / (tests.passed - tests.failed)", 29, "may divide by zero"),
        ("log2(patch.changed_lines)", 5, "logarithm of zero or less"),
        ("log2(external.judge)", 5, "logarithm"),
        ("log2(-1)", 5, "logarithm"),
        ("1e300 * 1e300", 6, "too large for a number"),
        ("gen.tokens * gen.tokens * 1e300", 24, "too large for a number"),
        ("1 / 1e-320", 2, "too large for a number"),
        ("clamp(1, tests.passed, 3)", 0, "lower bound"),
        ("clamp(1, 3, 2)", 0, "lower bound"),
    ];
    for (text, at, expected) in cases {
        let error = eval(text).expect_err(text);
        let (place, message) = error.split_once(": ").unwrap();
        assert!(message.contains(expected), "{text}: {error}");
        assert_eq!(place, at.to_string(), "{text}: {error}");
    }
}

#[test]
fn conditions_that_never_change_are_found() {
    let always = |text: &str| check(&parse(text).unwrap()).unwrap().always;
    let cases = [
        ("must_pass.all", None),
        ("true", Some(true)),
        ("tests.passed >= 0", Some(true)),
        ("tests.passed < 0", Some(false)),
        ("must_pass.fraction <= 1", Some(true)),
        ("must_pass.fraction > 2 or must_pass.all", None),
        ("must_pass.fraction > 2 and must_pass.all", Some(false)),
        ("must_pass.all and not must_pass.all", Some(false)),
        ("(tests.passed > 3) or not (tests.passed > 3)", Some(true)),
        ("must_pass.all or must_keep.all", None),
        ("gen.finish_reason == 'stop'", None),
        ("1", None), // no condition
        ("min(tests.passed, 3) == 4", Some(false)),
        ("tests.passed > 5 and tests.passed < 3", Some(false)),
        ("tests.passed > 5 and 3 > tests.passed", Some(false)),
        ("tests.passed > 5 and tests.failed < 3", None),
        ("tests.passed > 3 or tests.passed <= 3", Some(true)),
        ("tests.passed >= 3 and tests.passed <= 3", None),
        ("tests.passed >= 3 and tests.passed <= 3 and tests.passed != 3", Some(false)),
        ("tests.passed == 1 and tests.passed == 2", Some(false)),
        ("tests.passed > 0 or tests.passed == 0", Some(true)),
        ("must_pass.fraction < 1 or must_pass.fraction == 1", Some(true)),
        ("tests.passed > 8 / 4 and tests.passed < 2", Some(false)),
        ("tests.passed > tests.failed and tests.failed > tests.passed", Some(false)),
        ("tests.passed > tests.failed or tests.failed >= tests.passed", Some(true)),
        ("tests.passed > tests.failed and tests.failed > 3", None),
        ("tests.passed == tests.passed", Some(true)),
        ("tests.passed + 1 < tests.passed + 1", Some(false)),
        ("gen.finish_reason == 'stop' and gen.finish_reason == 'length'", Some(false)),
        ("gen.finish_reason != 'stop' or gen.finish_reason != 'length'", Some(true)),
        ("gen.finish_reason == 'stop' or gen.finish_reason == 'length'", None),
        ("gen.finish_reason == ''", Some(false)),
        ("'a' == 'b'", Some(false)),
        ("'a' != 'b'", Some(true)),
        ("true == false", Some(false)),
        ("must_pass.all == (tests.passed >= 0)", None),
        ("known(patch.files)", Some(true)),
        ("known(integrity.ok)", Some(true)),
        ("known(tests.passed)", None),
    ];
    for (text, expected) in cases {
        assert_eq!(always(text), expected, "{text}");
    }
}

#[test]
fn what_is_taken_from_itself_is_known() {
    let range = |text: &str| check(&parse(text).unwrap()).map(|checked| checked.range);
    let exactly = |number| Ok(Range::Number { lo: number, hi: number });
    assert_eq!(range("tests.passed - tests.passed"), exactly(0.0));
    assert_eq!(range("(1 + tests.passed) / (1 + tests.passed)"), exactly(1.0));
    assert!(range("tests.passed / tests.passed").is_err(), "0 / 0");
}

#[test]
fn conditions_that_never_meet_are_found() {
    let cases = [
        (&[("must_pass.all", true), ("must_pass.all", false)][..], true),
        (&[("must_pass.all", true), ("must_keep.all", false)], false),
        (&[("must_pass.fraction > 0.5", false), ("must_pass.fraction > 0.75", true)], true),
        (&[("must_pass.fraction > 0.75", false), ("must_pass.fraction > 0.5", true)], false),
        (&[("run.oom or run.timed_out", false), ("run.oom", true)], true),
        (&[("external.a < 0", false), ("external.a >= 0", false)], true),
        (&[("true", false)], true),
        (&[], false),
        // More than can be tried, or no condition: nothing is known.
        (&[("1", true)], false),
    ];
    for (conditions, expected) in cases {
        let parsed: Vec<_> =
            conditions.iter().map(|(text, value)| (parse(text).unwrap(), *value)).collect();
        let given: Vec<_> = parsed.iter().map(|(expr, value)| (expr, *value)).collect();
        assert_eq!(exclude(&given), expected, "{conditions:?}");
    }
}

#[test]
fn hostile_texts_end_quickly() {
    let started = std::time::Instant::now();
    let nested_if = |depth: usize| {
        format!(
            "{}must_pass.all{}",
            "if(".repeat(depth),
            ", must_keep.all, tests.ran)".repeat(depth)
        )
    };
    let texts = [
        "(".repeat(100_000),
        "(".repeat(2000),
        "-".repeat(2000),
        "not ".repeat(1000),
        "1+".repeat(2000),
        vec!["1"; 1000].join("+"),
        format!("min({})", vec!["1"; 1000].join(",")),
        nested_if(45),
        vec!["must_pass.all"; 200].join(" and "),
        (0..300).map(|i| format!("external.a{i} > 0")).collect::<Vec<_>>().join(" or "),
        "a".repeat(4000),
        "'".repeat(4000),
        "\u{10ffff}".repeat(1000),
        "1.".repeat(2000),
    ];
    for text in texts {
        if let Ok(expr) = parse(&text) {
            let _ = check(&expr);
            assert_eq!(parse(&expr.to_string()), Ok(expr));
        }
    }
    assert!(started.elapsed().as_secs() < 5, "took {:?}", started.elapsed());
}

fn fact() -> impl Strategy<Value = Fact> {
    prop_oneof![
        4 => prop::sample::select(Fixed::ALL).prop_map(Fact::Fixed),
        1 => "[a-z0-9 .'-]{1,8}".prop_map(|name| Fact::External(name.into())),
        1 => ("[a-zA-Z_-]{1,5}", prop::sample::select(crate::facts::CheckFact::ALL))
            .prop_map(|(id, (_, fact))| Fact::Check { id: id.into(), fact }),
    ]
}

/// Any tree, well-typed or not.
fn expr() -> impl Strategy<Value = Expr> {
    let leaf = prop_oneof![
        (0.0_f64..1e6).prop_map(Kind::Number),
        prop::sample::select(&[0.0, 1e-300, 1e300, 0.1][..]).prop_map(Kind::Number),
        any::<bool>().prop_map(Kind::Bool),
        "[a-z\"(é ]{0,5}".prop_map(|text| Kind::Text(text.into())),
        fact().prop_map(Kind::Fact),
        fact().prop_map(Kind::Known),
    ];
    let node = |kind| Expr { at: 0, kind };
    leaf.prop_map(node).prop_recursive(6, 60, 3, move |inner| {
        let ops = [
            Op::Or,
            Op::And,
            Op::Less,
            Op::LessEqual,
            Op::Greater,
            Op::GreaterEqual,
            Op::Equal,
            Op::NotEqual,
            Op::Add,
            Op::Subtract,
            Op::Multiply,
            Op::Divide,
        ];
        let pair = (inner.clone(), inner.clone());
        prop_oneof![
            inner.clone().prop_map(|inner| Kind::Not(Box::new(inner))),
            inner.clone().prop_map(|inner| Kind::Neg(Box::new(inner))),
            (prop::sample::select(ops.to_vec()), pair).prop_map(|(op, (l, r))| Kind::Binary(
                op,
                Box::new(l),
                Box::new(r)
            )),
            (prop::sample::select(Function::ALL), prop::collection::vec(inner, 3)).prop_map(
                |((_, function), mut args)| {
                    if matches!(function, Function::Log2 | Function::Abs) {
                        args.truncate(1);
                    }
                    Kind::Call(function, args)
                }
            ),
        ]
        .prop_map(node)
    })
}

/// A well-typed number, most of the time without a possible overflow or division by zero.
fn number() -> impl Strategy<Value = Expr> {
    let node = |kind| Expr { at: 0, kind };
    let named = |names: &'static [&'static str]| {
        prop::sample::select(names).prop_map(|name| parse(name).unwrap())
    };
    let leaf = prop_oneof![
        (-3.0_f64..3.0).prop_map(move |number| node(Kind::Number(number))),
        named(&["must_pass.fraction", "tests.passed", "patch.changed_lines", "gen.tokens"]),
        named(&["external.a", "run.wall_s", "check.unit.failed", "must_keep.fraction"]),
    ];
    leaf.prop_recursive(5, 40, 4, move |inner| {
        let two = (inner.clone(), inner.clone());
        let call = move |function, args| node(Kind::Call(function, args));
        let binary = move |op, l, r| node(Kind::Binary(op, Box::new(l), Box::new(r)));
        let one = move || node(Kind::Number(1.0));
        let facts = named(&["must_pass.all", "tests.ran", "gen.truncated", "not run.oom"]);
        prop_oneof![
            two.clone().prop_map(move |(l, r)| binary(Op::Add, l, r)),
            two.clone().prop_map(move |(l, r)| binary(Op::Subtract, l, r)),
            two.clone().prop_map(move |(l, r)| binary(Op::Multiply, l, r)),
            two.clone().prop_map(move |(l, r)| call(Function::Min, vec![l, r])),
            two.clone().prop_map(move |(l, r)| call(Function::Max, vec![l, r])),
            two.clone().prop_map(move |(l, r)| {
                binary(Op::Divide, l, call(Function::Max, vec![one(), r]))
            }),
            inner.clone().prop_map(move |x| {
                call(Function::Log2, vec![binary(Op::Add, one(), call(Function::Abs, vec![x]))])
            }),
            inner.clone().prop_map(move |x| {
                let bound = |number| node(Kind::Number(number));
                call(Function::Clamp, vec![x, bound(-0.5), bound(2.0)])
            }),
            (two.clone(), facts).prop_map(move |((l, r), c)| call(Function::If, vec![c, l, r])),
            (two.clone(), two).prop_map(move |((l, r), (a, b))| {
                call(Function::If, vec![binary(Op::Less, a, b), l, r])
            }),
        ]
    })
}

proptest! {
    #[test]
    fn written_expressions_read_back(expr in expr()) {
        let text = expr.to_string();
        prop_assert_eq!(parse(&text), Ok(expr), "{}", text);
    }

    #[test]
    fn no_text_panics(text in "\\PC{0,40}") {
        if let Ok(expr) = parse(&text) {
            let _ = check(&expr);
        }
    }

    #[test]
    fn no_soup_of_words_panics(words in prop::collection::vec(prop::sample::select(
        &["(", ")", ",", "and", "or", "not", "1", "0", "<", "==", "+", "-", "/", "must_pass.all",
          "tests.passed", "log2", "min", "if", "known", "external.x", ".", "'a'", "1e308", "*"][..]
    ), 0..25)) {
        if let Ok(expr) = parse(&words.join(" ")) {
            let _ = check(&expr);
        }
    }

    /// What is said never to change does not, and what is said never to meet does not.
    #[test]
    fn logic_holds_on_records(
        words in prop::collection::vec((0..12_usize, any::<bool>(), any::<bool>()), 1..6),
        counts in [0_u32..4, 0..4],
        finish in prop::sample::select(&["", "stop", "length"][..]),
    ) {
        const ATOMS: &[&str] = &[
            "tests.passed > 1", "tests.passed >= 2", "2 > tests.passed", "tests.passed == 1",
            "tests.passed != 3", "tests.passed < tests.failed", "tests.failed <= tests.passed",
            "gen.finish_reason == 'stop'", "gen.finish_reason != 'length'", "must_pass.all",
            "known(gen.finish_reason)", "tests.passed + tests.failed == 4",
        ];
        let mut text = String::new();
        for (i, (atom, not, and)) in words.iter().enumerate() {
            let op = if i == 0 { "" } else if *and { " and " } else { " or " };
            text += &format!("{op}{}({})", if *not { "not " } else { "" }, ATOMS[*atom]);
        }
        let expr = parse(&text).unwrap();
        let mut record = record((counts[0], counts[0] + counts[1]), (0, 0));
        record.generation.finish_reason = finish.into();
        let facts = Facts::of(&record);
        if let (Some(always), Ok(holds)) = (check(&expr).unwrap().always, expr.holds(&facts)) {
            prop_assert_eq!(always, holds, "{}", text);
        }
        let parts: Vec<_> = words.iter().map(|(atom, ..)| parse(ATOMS[*atom]).unwrap()).collect();
        let held: Result<Vec<_>, _> = parts.iter().map(|part| part.holds(&facts)).collect();
        if let Ok(held) = held {
            let given: Vec<_> = parts.iter().zip(held).collect();
            prop_assert!(!exclude(&given), "{}", text);
        }
    }

    /// What `check` promises holds on every record: the type, the range, and no NaN.
    #[test]
    fn checked_expressions_keep_their_promise(
        expr in prop_oneof![expr(), number()],
        counts in [0_u32..3, 0..5, 0..100, 0..u32::MAX],
        external in any::<f64>(),
    ) {
        let Ok(checked) = check(&expr) else { return Ok(()) };
        let mut record = record((counts[0], counts[0] + counts[1]), (counts[1], counts[1]));
        record.patch.added = counts[3];
        record.generation.tokens = u64::from(counts[2]);
        record.usage.wall_s = external;
        for name in ["a", "b", "-"] {
            record.external.insert(name.into(), external);
        }
        let facts = Facts::of(&record);
        let canonical = expr.canonical();
        prop_assert_eq!(canonical.worth(&facts).ok(), expr.worth(&facts).ok(), "{}", canonical);
        prop_assert_eq!(canonical.canonical(), canonical);
        match checked.range {
            Range::Text => {}
            Range::Number { .. } | Range::Bool { .. } => {
                let (lo, hi) = checked.range.as_number().unwrap();
                match expr.worth(&facts) {
                    Ok(worth) => prop_assert!(lo <= worth && worth <= hi, "{lo} {worth} {hi}"),
                    Err(stuck) => prop_assert!(matches!(stuck, Stuck::Absent(_)), "{stuck:?}"),
                }
            }
        }
        if let (Some(always), Ok(holds)) = (checked.always, expr.holds(&facts)) {
            prop_assert_eq!(always, holds);
        }
    }
}
