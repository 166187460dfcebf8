//! The table for the terminal.

use std::fmt::Write;

use crate::bench::{Report, rows};

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
