//! How a measurement goes: one living line on a terminal, otherwise a line every few seconds.

use std::cell::Cell;
use std::io::IsTerminal;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

use super::table::time;
use crate::bench::{Observer, Plan, Snapshot};

/// Without a terminal, lines are at least so far apart.
const PAUSE: Duration = Duration::from_secs(5);

/// Shows it.
pub(super) struct Progress {
    kind: Kind,
    rounds: u32,
    several: bool,
}

enum Kind {
    Silent,
    Line(ProgressBar),
    Lines(Cell<Option<Instant>>),
}

impl Progress {
    pub(super) fn new(plan: &Plan, quiet: bool) -> Self {
        let kind = if quiet {
            Kind::Silent
        } else if std::io::stderr().is_terminal() {
            let bar = ProgressBar::new_spinner();
            // A template that cannot be read is one without colours.
            if let Ok(style) = ProgressStyle::with_template("{spinner:.cyan} {elapsed:>4} {prefix:.bold} {msg}") {
                bar.set_style(style);
            }
            bar.enable_steady_tick(Duration::from_millis(120));
            Kind::Line(bar)
        } else {
            Kind::Lines(Cell::new(None))
        };
        Self { kind, rounds: plan.rounds, several: plan.targets.len() > 1 || plan.rounds > 1 }
    }

    /// Clears what is not to stay.
    pub(super) fn finish(&self) {
        if let Kind::Line(bar) = &self.kind {
            bar.finish_and_clear();
        }
    }
}

impl Observer for Progress {
    fn progress(&self, snapshot: &Snapshot<'_>) {
        let mut prefix = snapshot.phase.to_owned();
        if self.several {
            prefix = format!("{} {}/{} {prefix}", snapshot.target, snapshot.round, self.rounds);
        }
        let text = describe(snapshot);
        match &self.kind {
            Kind::Silent => {}
            Kind::Line(bar) => {
                bar.set_prefix(prefix);
                bar.set_message(text);
            }
            Kind::Lines(last) => {
                if last.get().is_none_or(|last| last.elapsed() >= PAUSE) {
                    last.set(Some(Instant::now()));
                    eprintln!("{prefix}: {text}");
                }
            }
        }
    }
}

fn describe(snapshot: &Snapshot<'_>) -> String {
    let Snapshot { seconds, published, delivered, missing, standing, failed, p99_us, busiest, .. } = snapshot;
    // Rates of a moment are rounded.
    let rate = |count: &u64| *count as f64 / seconds.max(1e-9);
    let mut text = format!("{standing} connected");
    if *failed > 0 {
        text += &format!(", {failed} failed");
    }
    if *published > 0 || *delivered > 0 {
        text +=
            &format!(" | published {:.0}/s, delivered {:.0}/s, {missing} under way", rate(published), rate(delivered));
    }
    if let Some(p99) = p99_us {
        text += &format!(" | p99 {}", time(*p99));
    }
    text + &format!(" | generator {:.0} % busy", busiest * 100.0)
}
