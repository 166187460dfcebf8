//! `weft bench`: reads what is to be measured, shows how it goes, and prints what came of it.

mod arguments;
mod progress;
mod table;

use std::io::{IsTerminal, Write};
use std::path::Path;
use std::process::ExitCode;

use anyhow::Context;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

pub(super) use arguments::BenchArguments;

use super::{FAILED, MISUSED, complain};
use crate::bench::{self, BenchError, Plan, Report};

pub(super) fn run(arguments: &BenchArguments) -> ExitCode {
    let files = rlimit::increase_nofile_limit(u64::MAX).unwrap_or(u64::MAX);
    let plan = match arguments.plan(files) {
        Ok(plan) => plan,
        Err(error) => {
            complain(&error);
            return ExitCode::from(MISUSED);
        }
    };
    let files = arguments.json.iter().filter(|path| *path != Path::new("-")).chain(&arguments.report);
    if let Some(error) = files.map(|path| writable(path)).find_map(Result::err) {
        complain(&error);
        return ExitCode::from(MISUSED);
    }
    match measure(arguments, &plan) {
        Ok(report) => verdict(&report),
        Err(error) => {
            complain(&error);
            let misused = matches!(error.downcast_ref(), Some(BenchError::Usage(_) | BenchError::Process { .. }));
            ExitCode::from(if misused { MISUSED } else { FAILED })
        }
    }
}

/// A file that cannot be written is told before the run, not after it.
fn writable(path: &Path) -> anyhow::Result<()> {
    let opened = std::fs::OpenOptions::new().append(true).create(true).open(path);
    opened.map(drop).with_context(|| format!("cannot write {}", path.display()))
}

fn measure(arguments: &BenchArguments, plan: &Plan) -> anyhow::Result<Report> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let stop = CancellationToken::new();
    let command = std::env::args().collect::<Vec<_>>().join(" ");
    let observer = progress::Progress::new(plan, arguments.quiet);
    let report = runtime.block_on(async {
        let interrupted = stop.clone();
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut terminate = signal(SignalKind::terminate())?;
        tokio::spawn(async move {
            tokio::select! { _ = interrupt.recv() => {} _ = terminate.recv() => {} }
            interrupted.cancel();
            // A second signal ends it at once.
            tokio::select! { _ = interrupt.recv() => {} _ = terminate.recv() => {} }
            std::process::exit(i32::from(FAILED));
        });
        anyhow::Ok(bench::run(plan, command, &observer, &stop).await?)
    });
    observer.finish();
    let report = report?;
    let json = arguments.json.as_deref();
    if json != Some(Path::new("-")) {
        print!("{}", table::table(&report, std::io::stdout().is_terminal()));
    }
    if let Some(path) = json {
        let text = serde_json::to_string_pretty(&report)? + "\n";
        if path == Path::new("-") {
            std::io::stdout().write_all(text.as_bytes())?;
        } else {
            std::fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))?;
        }
    }
    if let Some(path) = &arguments.report {
        std::fs::write(path, bench::page(&report)).with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(report)
}

/// Says what went wrong, if anything did.
fn verdict(report: &Report) -> ExitCode {
    if report.interrupted {
        eprintln!("weft: ended early: the figures are of what was measured until then");
    }
    for warning in &report.warnings {
        eprintln!("weft: {warning}");
    }
    let mut clean = true;
    for target in &report.targets {
        for (number, round) in target.rounds.iter().enumerate().filter(|(_, round)| !round.is_clean()) {
            clean = false;
            let mut faults = Vec::new();
            if round.lost + round.churn_lost > 0 {
                faults.push(format!("{} messages lost", round.lost + round.churn_lost));
            }
            if round.unanswered > 0 {
                faults.push(format!("{} publishes never answered", round.unanswered));
            }
            if round.connection_failures > 0 {
                faults.push(format!("{} connections failed", round.connection_failures));
            }
            if let Some(failure) = &round.failure {
                faults.push(format!("the last failure was: {failure}"));
            }
            eprintln!("weft: {}, round {}: {}", target.name, number + 1, faults.join(", "));
        }
    }
    if clean { ExitCode::SUCCESS } else { ExitCode::from(FAILED) }
}
