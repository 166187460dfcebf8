//! The table for the terminal: a line for each figure, a column for each target, and ratios to the first target.

use std::fmt::Write;

use serde_json::Value;

use crate::bench::Report;

/// A line of the table: what it is called, where it is in a round, and how it is written.
struct Line {
    name: &'static str,
    path: &'static str,
    form: Form,
    /// The ratio in the report that belongs to it.
    ratio: Option<&'static str>,
}

#[derive(Clone, Copy)]
enum Form {
    Count,
    /// Shown only if it is not 0.
    Fault,
    Rate,
    Micros,
    Cpu,
    Seconds,
    Share,
    Bytes,
}

const fn line(name: &'static str, path: &'static str, form: Form, ratio: Option<&'static str>) -> Line {
    Line { name, path, form, ratio }
}

const LINES: &[Line] = &[
    line("published", "/published", Form::Count, None),
    line("refused", "/refused", Form::Fault, None),
    line("unanswered", "/unanswered", Form::Fault, None),
    line("not sent", "/unsent", Form::Fault, None),
    line("delivered", "/delivered", Form::Count, None),
    line("expected", "/expected", Form::Count, None),
    line("lost", "/lost", Form::Count, None),
    line("duplicate", "/duplicate", Form::Count, None),
    line("out of order", "/out_of_order", Form::Count, None),
    line("not asked for", "/unexpected", Form::Fault, None),
    line("came and went", "/churned", Form::Fault, None),
    line("  delivered to them", "/churn_delivered", Form::Fault, None),
    line("  lost by them", "/churn_lost", Form::Fault, None),
    line("connections failed", "/connection_failures", Form::Fault, None),
    line("requests repeated", "/request_failures", Form::Fault, None),
    line("published per second", "/publish_rate", Form::Rate, None),
    line("delivered per second", "/delivery_rate", Form::Rate, Some("/rate")),
    line("latency p50", "/latency_us/p50", Form::Micros, None),
    line("        p90", "/latency_us/p90", Form::Micros, None),
    line("        p99", "/latency_us/p99", Form::Micros, Some("/latency_p99")),
    line("        p99.9", "/latency_us/p999", Form::Micros, None),
    line("        max", "/latency_us/max", Form::Micros, None),
    line("publish answered p50", "/publish_latency_us/p50", Form::Micros, None),
    line("                 p99", "/publish_latency_us/p99", Form::Micros, None),
    line("server CPU per delivery", "/server/cpu_us_per_delivery", Form::Cpu, Some("/server_cpu_per_delivery")),
    line("Redis CPU per delivery", "/redis/cpu_us_per_delivery", Form::Cpu, Some("/redis_cpu_per_delivery")),
    line("Redis CPU per publish", "/redis/cpu_us_per_publish", Form::Cpu, None),
    line("server memory", "/server/rss_bytes", Form::Bytes, None),
    line("  per connection", "/server/bytes_per_connection", Form::Bytes, Some("/memory")),
    line("  anonymous", "/server/anonymous_bytes_per_connection", Form::Bytes, None),
    line("connects", "/connects/count", Form::Count, None),
    line("  failed", "/connects/failed", Form::Fault, None),
    line("  sessions refused", "/connects/refused", Form::Fault, None),
    line("  per second", "/connects/per_second", Form::Rate, Some("/connect_rate")),
    line("  p50", "/connects/latency_us/p50", Form::Micros, None),
    line("  p99", "/connects/latency_us/p99", Form::Micros, None),
    line("  server CPU each", "/connects/cpu_us_per_connect", Form::Cpu, Some("/connect_cpu")),
    line("  Redis CPU each", "/connects/redis_cpu_us_per_connect", Form::Cpu, None),
    line("  all back after", "/connects/back_seconds", Form::Seconds, None),
    line("  since the break", "/connects/back_from_break_seconds", Form::Seconds, None),
    line("generator CPU", "/generator/cpu_seconds", Form::Seconds, None),
    line("  busiest thread", "/generator/busiest_thread", Form::Share, None),
    line("  late p99", "/generator/lag_us/p99", Form::Micros, None),
];

/// Rows of cells; the first row is the head.
pub(super) fn rows(report: &Report) -> Vec<Vec<String>> {
    let rounds = report.targets.iter().map(|target| target.rounds.len()).max().unwrap_or(0);
    let title = if rounds > 1 { format!("median of {rounds} rounds") } else { String::new() };
    let mut head = vec![title];
    for (at, target) in report.targets.iter().enumerate() {
        head.push(target.name.clone());
        if at > 0 {
            head.push("ratio".to_owned());
        }
    }
    let ratios: Vec<Value> =
        report.ratios.iter().map(|ratio| serde_json::to_value(ratio).unwrap_or_default()).collect();
    let figure = |value: &Value, path: &str| value.pointer(path).and_then(Value::as_f64);
    let mut rows = vec![head];
    for Line { name, path, form, ratio } in LINES {
        let figures: Vec<_> = report.targets.iter().map(|target| figure(&target.median, path)).collect();
        let worth = |figure: &Option<f64>| figure.is_some_and(|value| value != 0.0 || !matches!(form, Form::Fault));
        let measures =
            matches!(*path, "/published" | "/delivered" | "/expected" | "/lost" | "/duplicate" | "/out_of_order");
        if !figures.iter().any(worth) || (measures && !report.publishes()) {
            continue;
        }
        let mut row = vec![(*name).to_owned()];
        for (at, value) in figures.into_iter().enumerate() {
            row.push(value.map_or_else(|| "-".to_owned(), |value| write_figure(value, *form)));
            if at > 0 {
                let ratio = ratio.and_then(|path| figure(ratios.get(at - 1)?, path));
                row.push(ratio.map_or_else(String::new, |ratio| format!("{} x", significant(ratio))));
            }
        }
        rows.push(row);
    }
    rows
}

/// The table as text.
pub(super) fn table(report: &Report, colour: bool) -> String {
    let rows = rows(report);
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let widths: Vec<usize> = (0..columns)
        .map(|at| rows.iter().filter_map(|row| row.get(at)).map(|cell| cell.chars().count()).max().unwrap_or(0))
        .collect();
    let mut text = String::new();
    // Writing to a string cannot fail.
    let _ = writeln!(text, "{}: {}", report.scenario, report.load_in_words());
    for (number, row) in rows.iter().enumerate() {
        let mut line = String::new();
        for (at, cell) in row.iter().enumerate() {
            let width = widths[at];
            let _ = if at == 0 { write!(line, "  {cell:width$}") } else { write!(line, "  {cell:>width$}") };
        }
        let line = line.trim_end();
        let bad = matches!(row[0].trim(), "lost" | "lost by them" | "connections failed" | "failed")
            && row[1..].iter().any(|cell| !matches!(cell.as_str(), "0" | "-" | ""));
        let _ = match (colour, number, bad) {
            (true, 0, _) => writeln!(text, "\x1b[1m{line}\x1b[0m"),
            (true, _, true) => writeln!(text, "\x1b[31m{line}\x1b[0m"),
            _ => writeln!(text, "{line}"),
        };
    }
    text
}

fn write_figure(value: f64, form: Form) -> String {
    match form {
        Form::Count | Form::Fault => grouped(value),
        Form::Rate if value >= 100.0 => grouped(value),
        Form::Rate => significant(value),
        Form::Micros => time(value),
        Form::Cpu => format!("{} µs", significant(value)),
        Form::Seconds => format!("{value:.2} s"),
        Form::Share => format!("{:.0} %", value * 100.0),
        Form::Bytes => bytes(value),
    }
}

/// A time given in microseconds.
pub(super) fn time(microseconds: f64) -> String {
    match microseconds {
        ..1e3 => format!("{microseconds:.0} µs"),
        1e3..1e6 => format!("{} ms", significant(microseconds / 1e3)),
        _ => format!("{} s", significant(microseconds / 1e6)),
    }
}

fn bytes(value: f64) -> String {
    match value {
        ..1024.0 => format!("{value:.0} B"),
        1024.0..1_048_576.0 => format!("{} KiB", significant(value / 1024.0)),
        _ => format!("{} MiB", significant(value / 1_048_576.0)),
    }
}

/// About three digits.
fn significant(value: f64) -> String {
    match value.abs() {
        ..0.1 => format!("{value:.4}"),
        0.1..10.0 => format!("{value:.2}"),
        10.0..100.0 => format!("{value:.1}"),
        _ => grouped(value),
    }
}

/// A whole number with commas.
fn grouped(value: f64) -> String {
    let digits = format!("{:.0}", value.abs());
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at) % 3 == 0 {
            text.push(',');
        }
        text.push(digit);
    }
    if value < 0.0 { format!("-{text}") } else { text }
}
