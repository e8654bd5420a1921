//! The demo's report: one HTML file that needs nothing else, its charts drawn here as SVG.
//!
//! Whatever a model or a sandbox wrote is escaped; the page runs no script and loads nothing.

use std::fmt::Write;

use crate::config::Config;
use crate::evaluate::{Comparison, Evaluation, Shown, TaskEvaluation};
use crate::metrics::StepMetrics;
use crate::rng::Rng;
use crate::run::Ended;
use crate::stats::Paired;

/// Submissions that are shown before and after.
const SHOWN: usize = 10;
/// Characters of a submission that are shown.
const LONGEST: usize = 4000;
/// Steps that the curve's mean goes back.
const WINDOW: usize = 5;
/// Size of a chart's drawing area and its margins: left, top, right, bottom.
const CHART: (f64, f64) = (560.0, 180.0);
const MARGIN: (f64, f64, f64, f64) = (46.0, 12.0, 12.0, 28.0);

/// What the page tells.
#[derive(Clone, Copy, Debug)]
pub struct Report<'a> {
    /// The run's configuration.
    pub config: &'a Config,
    /// The measurement before.
    pub before: &'a Evaluation,
    /// The measurement after.
    pub after: &'a Evaluation,
    /// What changed.
    pub comparison: &'a Comparison,
    /// Every step.
    pub steps: &'a [StepMetrics],
    /// How the run ended.
    pub run: &'a Ended,
    /// Seconds of the whole demo.
    pub seconds: f64,
}

/// The page.
pub fn html(report: &Report<'_>) -> String {
    let Report { config, before, steps, run, .. } = report;
    let control = if config.loss.shuffle_rewards {
        " The control: rewards were dealt out at random."
    } else {
        ""
    };
    let mut page = String::from(HEAD);
    let _ = write!(
        page,
        "<h1>What training changed</h1>\n<p>{} tasks of <b>{}/{}</b> that were never trained on, {} samples each. \
         Policy {}, seed {}, {} steps ({}), {:.1} minutes in all.{control}</p>\n",
        before.tasks.len(),
        escape(&before.set),
        escape(&before.split),
        before.samples,
        escape(&before.policy),
        config.seed,
        run.step,
        run.reason,
        report.seconds / 60.0,
    );
    page += &figures(report.comparison);
    page += "<h2>The run</h2>\n<div class=charts>\n";
    let series = |name: &str, value: &dyn Fn(&StepMetrics) -> Option<f64>| {
        let points: Vec<(f64, f64)> =
            steps.iter().filter_map(|step| Some((step.step as f64, value(step)?))).collect();
        chart(name, &points)
    };
    page += &series("mean reward of the step's samples", &|step| step.reward_mean);
    page += &series("entropy of the policy, nats per token", &|step| Some(step.entropy));
    page += &series("tokens per sample", &|step| Some(step.tokens_mean));
    page += &series("sampler and trainer apart (mismatch KL)", &|step| Some(step.mismatch_kl));
    page += "</div>\n<h2>Task by task</h2>\n";
    page += &tasks(report);
    let _ = writeln!(page, "<h2>{SHOWN} submissions, before and after</h2>");
    page += &submissions(report);
    let text = toml::to_string(config).unwrap_or_default();
    let _ = write!(
        page,
        "<h2>Configuration</h2>\n<details><summary>train.toml</summary><pre>{}</pre></details>\n",
        escape(&text)
    );
    page + "</main></body></html>\n"
}

fn figures(comparison: &Comparison) -> String {
    let mut table = String::from(
        "<table class=figures><tr><th></th><th>before</th><th>after</th><th>gain, points</th><th>95% interval (t)</th><th>95% interval (bootstrap)</th></tr>\n",
    );
    let mut row = |name: &str, paired: &Paired| {
        let interval =
            |[low, high]: [f64; 2]| format!("{:+.1} to {:+.1}", low * 100.0, high * 100.0);
        let _ = writeln!(
            table,
            "<tr><td>{name}</td><td>{:.1}%</td><td><b>{:.1}%</b></td><td>{:+.1}</td><td>{}</td><td>{}</td></tr>",
            paired.before * 100.0,
            paired.after * 100.0,
            paired.gain * 100.0,
            interval(paired.t95),
            interval(paired.bootstrap95),
        );
    };
    if let Some(paired) = &comparison.pass_at_1 {
        row("pass@1 at temperature 1", paired);
    }
    if let Some(paired) = &comparison.greedy {
        row("pass@1 greedy", paired);
    }
    for (k, paired) in &comparison.pass_at {
        row(&format!("pass@{k} at temperature 1"), paired);
    }
    table + "</table>\n"
}

/// A line of points with its moving mean; an empty string for no points.
fn chart(name: &str, points: &[(f64, f64)]) -> String {
    let finite: Vec<(f64, f64)> = points.iter().copied().filter(|(_, y)| y.is_finite()).collect();
    let (Some(first), Some(last)) = (finite.first(), finite.last()) else { return String::new() };
    let (left, top, right, bottom) = MARGIN;
    let highest = finite.iter().map(|point| point.1).fold(f64::NEG_INFINITY, f64::max);
    let lowest = finite.iter().map(|point| point.1).fold(0.0, f64::min);
    let (low, high, unit) = scale(lowest, highest);
    let x = |step: f64| left + (step - first.0) / (last.0 - first.0).max(1.0) * CHART.0;
    let y = |value: f64| top + (high - value) / (high - low) * CHART.1;
    let path = |points: &mut dyn Iterator<Item = (f64, f64)>| {
        points
            .map(|(step, value)| format!("{:.1},{:.1}", x(step), y(value)))
            .collect::<Vec<_>>()
            .join(" ")
    };
    let mut mean = finite.iter().enumerate().map(|(i, point)| {
        let window = &finite[i.saturating_sub(WINDOW - 1)..=i];
        (point.0, window.iter().map(|point| point.1).sum::<f64>() / window.len() as f64)
    });
    let (width, height) = (left + CHART.0 + right, top + CHART.1 + bottom);
    let mut svg = format!(
        "<figure><figcaption>{}</figcaption><svg viewBox='0 0 {width} {height}' role=img aria-label='{}'>\n",
        escape(name),
        escape(name)
    );
    let mut line = low;
    while line <= high + unit * 0.01 {
        let at = y(line);
        let _ = writeln!(
            svg,
            "<line class=grid x1={left} x2={} y1={at:.1} y2={at:.1} /><text x={} y={:.1} text-anchor=end>{}</text>",
            left + CHART.0,
            left - 6.0,
            at + 4.0,
            number(line)
        );
        line += unit;
    }
    for step in [first.0, ((first.0 + last.0) / 2.0).round(), last.0] {
        let _ = writeln!(
            svg,
            "<text x={:.1} y={} text-anchor=middle>{step}</text>",
            x(step),
            height - 8.0
        );
    }
    let _ = writeln!(
        svg,
        "<polyline class=raw points='{}'/><polyline class=mean points='{}'/></svg></figure>",
        path(&mut finite.iter().copied()),
        path(&mut mean)
    );
    svg
}

/// Round bounds around a range, and the distance of the lines between them.
fn scale(lowest: f64, highest: f64) -> (f64, f64, f64) {
    let range = (highest - lowest).max(1e-12);
    let power = 10f64.powf((range / 4.0).log10().floor());
    let unit =
        [1.0, 2.0, 5.0, 10.0].map(|step| step * power).into_iter().find(|unit| range / unit <= 4.0);
    let unit = unit.unwrap_or(power * 10.0);
    ((lowest / unit).floor() * unit, ((highest / unit).ceil() * unit).max(unit), unit)
}

fn number(value: f64) -> String {
    if value == 0.0 {
        "0".into()
    } else if value.abs() < 1e-2 {
        format!("{value:.0e}")
    } else {
        let text = format!("{value:.2}");
        text.trim_end_matches('0').trim_end_matches('.').to_owned()
    }
}

/// The two sides of a task, in the order of the later measurement.
fn pairs<'a>(report: &Report<'a>) -> Vec<(&'a TaskEvaluation, &'a TaskEvaluation)> {
    let (before, after) = (report.before, report.after);
    let find = |id: &str| before.tasks.iter().find(|task| task.task == id);
    after.tasks.iter().filter_map(|task| Some((find(&task.task)?, task))).collect()
}

fn tasks(report: &Report<'_>) -> String {
    let mut table = String::from(
        "<table><tr><th>task</th><th>passed before</th><th>passed after</th><th>greedy</th></tr>\n",
    );
    for (before, after) in pairs(report) {
        let bar = |task: &TaskEvaluation| {
            let share = task.passed as f64 / task.valid.max(1) as f64 * 100.0;
            format!(
                "<span class=bar><span style='width:{share:.0}%'></span></span> {}/{}",
                task.passed, task.valid
            )
        };
        let mark = |task: &TaskEvaluation| match task.greedy {
            Some(true) => "&#10003;",
            Some(false) => "&#10007;",
            None => "-",
        };
        let _ = writeln!(
            table,
            "<tr><td title='{}'><code>{}</code></td><td>{}</td><td>{}</td><td>{} &rarr; {}</td></tr>",
            escape(&after.question),
            escape(&after.task),
            bar(before),
            bar(after),
            mark(before),
            mark(after),
        );
    }
    table + "</table>\n"
}

/// Ten tasks drawn by the seed, and of each the first sample: none is picked for its looks.
fn submissions(report: &Report<'_>) -> String {
    let mut pairs = pairs(report);
    Rng::derive(report.config.seed, 0, "report").shuffle(&mut pairs);
    let mut text = String::new();
    for (before, after) in pairs.into_iter().take(SHOWN) {
        let _ = writeln!(
            text,
            "<section><h3><code>{}</code></h3><p>{}</p><div class=pair>",
            escape(&after.task),
            escape(&after.question)
        );
        for (when, task) in [("before", before), ("after", after)] {
            text +=
                &task.samples.first().map_or_else(String::new, |sample| submission(when, sample));
        }
        text += "</div></section>\n";
    }
    text
}

fn submission(when: &str, sample: &Shown) -> String {
    let verdict = &sample.verdict;
    let class = match verdict.reward {
        _ if verdict.passed() => "pass",
        Some(_) => "fail",
        None => "none",
    };
    let reward = verdict
        .reward
        .map_or("no reward".to_owned(), |reward| format!("reward {}", number(reward)));
    let tests =
        verdict.tests.map_or(String::new(), |[passed, all]| format!(", {passed}/{all} tests"));
    let failure =
        verdict.failure.as_ref().map_or(String::new(), |failure| format!(", {}", escape(failure)));
    let cut = if sample.truncated { ", cut at the token limit" } else { "" };
    let mut shown: String = sample.text.chars().take(LONGEST).collect();
    if shown.len() < sample.text.len() {
        shown += " ...";
    }
    format!(
        "<div><p class={class}><b>{when}</b>: {}, {reward}{tests}{failure}{cut}</p><pre>{}</pre></div>\n",
        escape(&verdict.outcome),
        escape(&shown)
    )
}

/// Makes text safe between tags and inside quoted attributes; control characters become visible.
fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => escaped += "&amp;",
            '<' => escaped += "&lt;",
            '>' => escaped += "&gt;",
            '"' => escaped += "&quot;",
            '\'' => escaped += "&#39;",
            '\n' | '\t' => escaped.push(character),
            // Bidirectional overrides would show code in another order than it has.
            '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => escaped.push('\u{fffd}'),
            control if control.is_control() => escaped.push('\u{fffd}'),
            other => escaped.push(other),
        }
    }
    escaped
}

const HEAD: &str = "<!doctype html>
<html lang=en><head><meta charset=utf-8><meta name=viewport content='width=device-width'>
<meta http-equiv=Content-Security-Policy content=\"default-src 'none'; style-src 'unsafe-inline'\">
<title>Assay: what training changed</title>
<style>
:root { color-scheme: light dark; --ink: #1c1f24; --soft: #6b7280; --line: #e2e5ea; --paper: #fff; --box: #f6f7f9; --good: #15803d; --bad: #b42318; --blue: #2563eb; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6e8eb; --soft: #9aa3ae; --line: #2c323a; --paper: #14171b; --box: #1c2026; --good: #4ade80; --bad: #f87171; --blue: #60a5fa; } }
body { margin: 0; background: var(--paper); color: var(--ink); font: 15px/1.5 system-ui, sans-serif; }
main { max-width: 1180px; margin: 0 auto; padding: 24px 20px 60px; }
h1 { font-size: 26px; margin: 8px 0; } h2 { font-size: 19px; margin: 36px 0 8px; } h3 { font-size: 15px; margin: 24px 0 0; }
table { border-collapse: collapse; } td, th { padding: 5px 14px 5px 0; text-align: left; border-bottom: 1px solid var(--line); font-variant-numeric: tabular-nums; }
th { color: var(--soft); font-weight: 500; } .figures { font-size: 16px; }
.charts, .pair { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(440px, 100%), 1fr)); gap: 14px 24px; }
figure { margin: 0; } figcaption { color: var(--soft); font-size: 13px; } svg { width: 100%; }
svg text { font-size: 11px; fill: var(--soft); } .grid { stroke: var(--line); }
.raw { fill: none; stroke: var(--blue); stroke-opacity: .35; } .mean { fill: none; stroke: var(--blue); stroke-width: 2.5; }
.bar { display: inline-block; width: 120px; height: 9px; background: var(--line); border-radius: 3px; overflow: hidden; } .bar span { display: block; height: 100%; background: var(--blue); }
pre { background: var(--box); padding: 10px 12px; border-radius: 6px; overflow: auto; max-height: 320px; margin: 4px 0; font-size: 13px; }
.pass { color: var(--good); } .fail { color: var(--bad); } .none { color: var(--soft); } .pair p { margin: 6px 0 0; }
</style></head><body><main>
";

#[cfg(test)]
#[path = "../tests/unit/report.rs"]
mod tests;
