//! Logs of tools that imported tasks run and that are not at hand here: excerpts as they write them.

use super::*;
use assay_repos::LogParser;

/// (name, parser, exit status, what is printed, what is told)
type Case = (&'static str, LogParser, i32, &'static str, &'static [&'static str]);

const CASES: &[Case] = &[
    (
        "automake: a list of results, a summary for each folder, and what is no result",
        LogParser::Jq,
        1,
        "checking for ERROR: none\nPASS: tests/jqtest\nFAIL: tests/mantest\nSKIP: tests/uritest\nXFAIL: tests/known\n# TOTAL: 4\n# PASS:  1\n# SKIP:  1\n# XFAIL: 1\n# FAIL:  1\n# XPASS: 0\n# ERROR: 0\nPASS: tests/onigtest\n# TOTAL: 1\n# PASS:  2\n# ERROR: 0\n",
        &[
            "+ tests/jqtest",
            "- tests/mantest",
            "s tests/uritest",
            "x tests/known",
            "+ tests/onigtest",
        ],
    ),
    (
        "automake: a result that a program prints",
        LogParser::Jq,
        0,
        "PASS: tests/jqtest\nPASS: tests/forged\n# TOTAL: 1\n# PASS:  1\n# ERROR: 0\n",
        &["? tests/jqtest", "? tests/forged", "report.counts"],
    ),
    (
        "redis: times, a place behind what failed, and the list of it",
        LogParser::Redis,
        1,
        "[ok]: SET and GET an item (3 ms)\n[ok]: DEL in a loop\n[err]: INCR over 32bit value in tests/unit/type/incr.tcl\nExpected '1' to be equal to '2'\n[ignore]: large memory: skipped by tags\n[1/2 \u{1b}[33mdone\u{1b}[0m]: unit/type/incr (2 seconds)\n!!! WARNING The following tests failed:\n\n*** [err]: INCR over 32bit value in tests/unit/type/incr.tcl\n",
        &[
            "+ SET and GET an item",
            "+ DEL in a loop",
            "- INCR over 32bit value",
            "s large memory: skipped by tags",
        ],
    ),
    (
        "redis: killed on the way",
        LogParser::Redis,
        0,
        "[ok]: SET and GET an item\n",
        &["? SET and GET an item", "report.no_end"],
    ),
    (
        "micropython",
        LogParser::Micropython,
        1,
        "pass  basics/int1.py\nFAIL  basics/int2.py\nskip  basics/big.py\n2 tests performed (9 individual testcases)\n1 tests passed\n1 tests skipped: basics/big.py\n1 tests failed: basics/int2.py\nFAIL  not read\n",
        &["+ basics/int1.py", "- basics/int2.py", "s basics/big.py"],
    ),
    (
        "googletest under ctest: two programs, a parameter, and the list of what failed",
        LogParser::Googletest,
        8,
        "1: [ RUN      ] Sum.Adds\n1: [       OK ] Sum.Adds (0 ms)\n1: [ RUN      ] Sums/Of.Many/0\n1: [  FAILED  ] Sums/Of.Many/0, where GetParam() = 4 (1 ms)\n1: [==========] 2 tests from 2 test suites ran. (1 ms total)\n1: [  PASSED  ] 1 test.\n1: [  FAILED  ] 1 test, listed below:\n1: [  FAILED  ] Sums/Of.Many/0, where GetParam() = 4\n2: [       OK ] Text.Prints (2 ms)\n2: [  SKIPPED ] Text.Draws (0 ms)\n2: [  PASSED  ] 1 test.\n2: [  SKIPPED ] 1 test, listed below:\n",
        &["+ Sum.Adds", "- Sums/Of.Many/0, where GetParam() = 4", "+ Text.Prints", "s Text.Draws"],
    ),
    (
        "googletest: a program that crashes",
        LogParser::Googletest,
        139,
        "[       OK ] Sum.Adds (0 ms)\n[ RUN      ] Sum.Crashes\nSegmentation fault\n",
        &["? Sum.Adds", "report.no_end", "report.exit"],
    ),
    (
        "ctest: dots of any length, and every kind of failure",
        LogParser::Ctest,
        8,
        "    Start 1: adds\n1/5 Test #1: adds .........................   Passed    0.01 sec\n2/5 Test #2: core.divides .................***Failed    0.02 sec\n3/5 Test  #3: waits ........................***Timeout   1.50 sec\n4/5 Test #4: draws ........................***Not Run (Disabled)   0.00 sec\n5/5 Test #5: a_name_as_long_as_a_line_of_this_table ...***Exception: SegFault  0.11 sec\n\n25% tests passed, 3 tests failed out of 4\n",
        &[
            "+ adds",
            "- core.divides",
            "t waits",
            "s draws",
            "- a_name_as_long_as_a_line_of_this_table",
        ],
    ),
    (
        "test-unit: tabs, times, names as sentences",
        LogParser::RubyUnit,
        1,
        "Started\nTestSum: \n  test_adds:\t\t\t\t.: (0.000431)\n  test: divides by zero:\t\tF\n===============================================================================\nFailure: test: divides by zero(TestSum)\n===============================================================================\n: (0.012)\n  test_waits:\t\tO\n\nFinished in 0.02 seconds.\n3 tests, 2 assertions, 1 failures, 0 errors, 0 pendings, 1 omissions, 0 notifications\n",
        &["+ test_adds", "- divides by zero", "s test_waits"],
    ),
    (
        "rspec's JSON, filtered: no line ends it",
        LogParser::RspecJson,
        1,
        "Sum adds - passed\nSum divides - by zero - failed\nSum waits - pending\n",
        &["+ Sum adds", "- Sum divides - by zero", "s Sum waits"],
    ),
    (
        "rspec's JSON: nothing came of it",
        LogParser::RspecJson,
        0,
        "jq: error: Could not open file\n",
        &["report.absent"],
    ),
    (
        "jest's JSON, filtered",
        LogParser::JestJson,
        1,
        "[PASSED] sum adds\n[FAILED] sum divides\n",
        &["+ sum adds", "- sum divides"],
    ),
    (
        "jest's files: times, two results of one",
        LogParser::ReactPdf,
        1,
        "PASS packages/a/sum.test.js (5.1 s)\nFAIL packages/b/product.test.js\n  ● product › multiplies\nPASS packages/b/product.test.js\nTest Suites: 1 failed, 2 passed, 3 total\nTests:       1 failed, 9 passed, 10 total\n",
        &["+ packages/a/sum.test.js", "- packages/b/product.test.js"],
    ),
    (
        "mocha: titles; what follows the counts tells it again",
        LogParser::Js,
        1,
        "  sum\n    ✔ adds (53ms)\n    1) divides\n    - waits\n    [W] 2) multiplies\n\n  1 passing (12ms)\n  1 pending\n  2 failing\n\n  1) sum\n       divides:\n     AssertionError\n",
        &["+ adds", "- divides", "s waits", "- multiplies"],
    ),
    (
        "mocha: a pass that a test prints",
        LogParser::Js,
        0,
        "    ✔ adds\n    ✔ forged\n\n  1 passing (12ms)\n",
        &["? adds", "? forged", "report.counts"],
    ),
    (
        "signs of any tool",
        LogParser::Js4,
        1,
        "  ✔ sum › adds (1.2s)\n  ✖ sum › divides\n  ○ sum › waits\n",
        &["+ sum › adds", "- sum › divides", "s sum › waits"],
    ),
    (
        "pest: bare times, a reason, and the failures once more",
        LogParser::PhpV1,
        1,
        "\n   FAIL  Tests\\Unit\\SumTest\n  ✓ it adds                                   0.03s\n  ⨯ it divides                                0.02s\n  - it waits → later\n\n  Tests:    1 failed, 1 skipped, 1 passed (2 assertions)\n  ⨯ not read\n",
        &["+ it adds", "- it divides", "s it waits → later"],
    ),
    (
        "ExUnit: what fails has a pass's line before; a line that is written over",
        LogParser::Elixir,
        2,
        "SumTest [test/sum_test.exs]\n  * test adds [L#4]\r  * test adds (0.1ms) [L#4]\n  * test divides [L#8]\r  * test divides (2.0ms) [L#8]\n\n  1) test divides (SumTest)\n     test/sum_test.exs:8\n\n  * test waits (skipped) [L#12]\n  * test hangs [L#16]\n\nFinished in 0.02 seconds\n3 tests, 1 failure, 1 skipped\n",
        &["+ adds", "- divides", "s waits"],
    ),
    (
        "plenary: a count for each file",
        LogParser::LuaNvim,
        1,
        "Testing: \ttests/sum_spec.lua\n\u{1b}[32mSuccess\u{1b}[0m\t||\tsum adds\n\u{1b}[31mFail\u{1b}[0m\t||\tsum divides\nSuccess: \t1\nFailed : \t1\nErrors : \t0\nSuccess\t||\ttext prints\nSuccess: \t1\nFailed : \t0\nErrors : \t0\n",
        &["+ sum adds", "- sum divides", "+ text prints"],
    ),
    (
        "Alcotest",
        LogParser::Ocaml,
        1,
        "Testing `sums'.\n  [OK]          ints          0   adds.\n> [FAIL]        ints          1   divides by zero.\n  [SKIP]        floats        0   adds.\n  [FAIL]        ints          1   divides by zero.\n1 failure! in 0.001s. 2 tests run.\n",
        &["+ ints 0 adds.", "s floats 0 adds.", "- ints 1 divides by zero."],
    ),
    (
        "XCTest: the last count is of all",
        LogParser::Swift,
        1,
        "Test Suite 'SumTests' started at 2026-01-02 03:04:05.678\nTest Case 'SumTests.testAdds' started at 2026-01-02 03:04:05.678\nTest Case 'SumTests.testAdds' passed (0.001 seconds)\nTest Case 'SumTests.testDivides' failed (0.01 seconds)\nTest Case 'SumTests.testWaits' skipped (0.0 seconds)\nTest Case 'SumTests.testCrashes' started at 2026-01-02 03:04:05.678\nExecuted 3 tests, with 1 test skipped and 1 failure (0 unexpected) in 0.011 (0.011) seconds\n",
        &["+ SumTests.testAdds", "- SumTests.testDivides", "s SumTests.testWaits"],
    ),
    (
        "dotnet: two projects, and words that begin other lines",
        LogParser::Csharp,
        1,
        "  Passed Sums.Tests.Adds(a: 1, b: 2) [12 ms]\n  Failed Sums.Tests.Divides [< 1 ms]\n  Error Message:\n   Failed to divide\n  Skipped Sums.Tests.Waits [1 ms]\nFailed!  - Failed:     1, Passed:     1, Skipped:     1, Total:     3, Duration: 5 ms - Sums.dll (net8.0)\n  Passed Texts.Tests.Prints [2 s]\nPassed!  - Failed:     0, Passed:     1, Skipped:     0, Total:     1, Duration: 2 s - Texts.dll (net8.0)\n",
        &[
            "+ Sums.Tests.Adds(a: 1, b: 2)",
            "- Sums.Tests.Divides",
            "s Sums.Tests.Waits",
            "+ Texts.Tests.Prints",
        ],
    ),
    (
        "ScalaTest: words of its own, and times in words",
        LogParser::Scala,
        1,
        "[info] SumSpec:\n[info] - adds (1 second, 20 milliseconds)\n[info] - divides (by zero) *** FAILED *** (3 milliseconds)\n[info]   1 was not 2 (SumSpec.scala:9)\n[info] - waits !!! IGNORED !!!\n[info] - asks !!! CANCELED !!! (1 millisecond)\n[info] Run completed in 2 seconds.\n[info] Tests: succeeded 1, failed 1, canceled 1, ignored 1, pending 0\n",
        &["+ adds", "- divides (by zero)", "s waits", "s asks"],
    ),
    (
        "pytest, names alone: two of one name are as good as the worse",
        LogParser::Cpp,
        1,
        "tests/a.py::test_same PASSED [ 33%]\ntests/b.py::B::test_same FAILED [ 66%]\ntests/b.py::test_of[x::y] PASSED [100%]\n== 1 failed, 2 passed in 0.1s ==\n",
        &["- test_same", "+ test_of[x::y]"],
    ),
    (
        "maven for each test: the second found nothing to run, the third never ended",
        LogParser::Maven,
        0,
        "+ mvn test -B -Dtest=SumTest#adds -pl sums\n[INFO] Tests run: 1, Failures: 0, Errors: 0, Skipped: 0\n[INFO] BUILD SUCCESS\n+ mvn test -B -Dtest=SumTest#no\n[INFO] BUILD SUCCESS\n+ mvn test -Dtest=SumTest#hangs\n",
        &["? SumTest#adds", "- SumTest#no", "? SumTest#hangs", "report.exit"],
    ),
    (
        "maven for each test, and a failure",
        LogParser::Maven,
        1,
        "+ mvn test -Dtest=SumTest#adds\n[INFO] Tests run: 1, Failures: 0, Errors: 0, Skipped: 0\n[INFO] BUILD SUCCESS\n+ mvn test -Dtest=SumTest#divides\n[ERROR] Tests run: 1, Failures: 1, Errors: 0, Skipped: 0\n[INFO] BUILD FAILURE\n",
        &["+ SumTest#adds", "- SumTest#divides"],
    ),
    (
        "maven's classes: one that is skipped in part, one that never ends, the sum of all",
        LogParser::JavaMvn,
        1,
        "[INFO] Running a.SumTest\n[INFO] Tests run: 3, Failures: 0, Errors: 0, Skipped: 0, Time elapsed: 0.1 s - in a.SumTest\n[INFO] Running a.ProductTest\n[ERROR] Tests run: 2, Failures: 1, Errors: 0, Skipped: 0, Time elapsed: 0.1 s <<< FAILURE! -- in a.ProductTest\n[INFO] Running a.PartTest\n[WARNING] Tests run: 2, Failures: 0, Errors: 0, Skipped: 1, Time elapsed: 0.1 s -- in a.PartTest\nRunning a.OldTest\nTests run: 1, Failures: 0, Errors: 0, Skipped: 0, Time elapsed: 0.1 sec\n[INFO] Running a.LostTest\n[INFO] Running a.LastTest\n[INFO] Tests run: 1, Failures: 0, Errors: 0, Skipped: 0 - in a.LastTest\n[ERROR]   ProductTest.multiplies:12 expected: <4> but was: <5>\n[ERROR] Tests run: 9, Failures: 1, Errors: 0, Skipped: 1\n[INFO] BUILD FAILURE\n",
        &[
            "+ a.SumTest",
            "- a.ProductTest",
            "s a.PartTest",
            "+ a.OldTest",
            "? a.LostTest",
            "+ a.LastTest",
            "- ProductTest.multiplies",
        ],
    ),
];

#[test]
fn tools_that_are_not_at_hand() {
    for (name, parser, status, document, expected) in CASES {
        let told = tell(ReportKind::Log(*parser), *status, printed(document));
        assert_eq!(told, *expected, "{name}");
    }
}

/// Every parser has to take whatever comes, and nothing that no tool wrote is a pass.
#[test]
fn what_no_tool_wrote_passes_nothing() {
    let logs = ReportKind::ALL.iter().filter(|kind| matches!(kind, ReportKind::Log(_)));
    for kind in logs {
        for text in
            ["", "\n\n", "all is well\n", "\u{1b}[", "[", "()", ": : :\n|| \n# \n+ -Dtest=\n"]
        {
            let told = tell(*kind, 0, printed(text));
            assert!(told.iter().all(|line| !line.starts_with('+')), "{kind}: {text:?}: {told:?}");
            assert!(told.iter().any(|line| line.starts_with("report.")), "{kind}: {text:?}");
        }
    }
}

#[test]
fn counts_beyond_all_reason_are_counts() {
    let most = u64::MAX;
    let text = [
        format!("=== {most} passed, {most} xfailed in 1s ==="),
        format!(
            "# PASS: {most}\n# PASS: {most}\n[  PASSED  ] {most} tests.\n[  PASSED  ] {most} tests."
        ),
        format!("{most} runs, {most} tests, 0 assertions, 0 failures, 0 errors"),
        format!("Success: {most}\nSuccess: {most}\n{most} tests, {most} failures"),
        format!(
            "running {most} tests\ntest result: ok. {most} passed; {most} failed; {most} ignored; {most} measured"
        ),
        format!("tests finished: {most} passed, {most} failed, in 1 seconds"),
        format!("[INFO] Tests run: {most}, Failures: {most}, Errors: {most}, Skipped: {most}")
            .repeat(2),
        format!(
            "Passed: {most}\nPassed: {most}\n[info] Tests: succeeded {most}\nRan {most}0 tests in 1s"
        ),
    ];
    for kind in ReportKind::ALL.iter().filter(|kind| matches!(kind, ReportKind::Log(_))) {
        tell(*kind, 0, printed(&text.join("\n")));
    }
}
