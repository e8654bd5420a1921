//! Names of log parsers that rows of SWE-bench and its kin carry, and that have another name here.

/// Returns what a file should say instead of the name, if there is anything.
pub(super) fn advice(name: &str) -> Option<&'static str> {
    Some(match name {
        "parse_log_astroid"
        | "parse_log_flask"
        | "parse_log_marshmallow"
        | "parse_log_pvlib"
        | "parse_log_pyvista"
        | "parse_log_sqlfluff"
        | "parse_log_xarray"
        | "parse_log_pydantic"
        | "parse_log_dvc" => "is `log:parse_log_pytest` here",
        "parse_log_pydicom" | "parse_log_requests" | "parse_log_pylint" => {
            "is `log:parse_log_pytest_options` here"
        }
        "parse_log_astropy" | "parse_log_scikit" | "parse_log_sphinx" => {
            "is `log:parse_log_pytest_v2` here"
        }
        "parse_log_ruby_v2" => "is `log:parse_log_minitest` here",
        "parse_log_js_2" | "parse_log_npx" => "is `log:parse_log_js` here",
        "parse_java_mvn" | "parse_log_kotlin_junit" | "parse_logs_kotlin_junit" => {
            "is `log:parse_log_java_mvn` here"
        }
        "parse_lue_nvim" | "parse_lua_nvim" => "is `log:parse_log_lua_nvim` here",
        "parse_log_tap" | "parse_log_js_3" => "is `tap` here",
        "parse_log_immutable_js" => {
            "stands for `log:parse_log_jest` or `log:parse_log_jest_json`, as the row needs it"
        }
        "parse_log_junit"
        | "parse_log_sbt"
        | "parse_log_gradlew_v1"
        | "parse_log_r_junit"
        | "parse_logs_r_junit"
        | "parse_combined_test_reports" => "is `junit` here, with the files as `report_path`",
        "parse_log_chart_js" | "parse_log_marked" | "parse_log_p5js" | "parse_log_eslint" => {
            "is not read: such a log tells what failed alone, and nothing shows that a test passed"
        }
        _ => return None,
    })
}
