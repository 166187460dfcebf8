//! The load generator behind `weft bench`: drives any Bayeux server (and Socket.IO's, for comparison) from outside and
//! measures what that costs it. Called by the command line alone; knows nothing of the server in this crate.
//!
//! A [`Plan`] goes in, a [`Report`] comes out; an [`Observer`] may watch. Each round of each target has threads of its
//! own (`worker`), which a coordinator (`round`) leads through the phases.

mod churn;
mod client;
mod comeback;
mod figures;
mod frames;
mod http;
mod inflight;
mod local;
mod meter;
mod pacer;
mod page;
mod plan;
mod plot;
mod polling;
mod pool;
mod process;
mod publisher;
mod results;
mod round;
mod shared;
mod socket;
mod stamp;
mod summary;
mod tracker;
mod words;
mod worker;

use std::sync::Arc;

use thiserror::Error;
use tokio_util::sync::CancellationToken;

pub use figures::{rows, time};
pub use page::page;
pub use plan::{Endpoint, Load, Plan, Protocol, Rate, Scenario, Target, Transport};
pub use process::Machine;
pub use results::{Connects, Generator, Measured, Moment, Ratios, Redis, Report, Round, Server, Times};
pub use stamp::SHORTEST;

/// Why there is no measurement.
#[derive(Debug, Error)]
pub enum BenchError {
    /// The plan makes no sense; the text says why.
    #[error("{0}")]
    Usage(String),
    /// Not one client could connect.
    #[error("{target} could not be reached: {why} (by {url})")]
    Unreachable {
        /// Name of the target.
        target: String,
        /// Its addresses.
        url: String,
        /// What happened to the last client that tried.
        why: String,
    },
    /// A process whose id was given cannot be looked at.
    #[error("process {pid} cannot be looked at (is it running?): {error}")]
    Process {
        /// Its id.
        pid: u32,
        /// Why.
        error: std::io::Error,
    },
    /// A thread of the generator could not start.
    #[error("cannot start a thread: {0}")]
    Thread(std::io::Error),
    /// A defect of the generator.
    #[error("a thread of the generator panicked")]
    Panicked,
}

/// A look at a round under way; counts are since the last look.
#[derive(Debug, Clone)]
pub struct Snapshot<'a> {
    /// Name of the target.
    pub target: &'a str,
    /// Number of the round, from 1.
    pub round: u32,
    /// What is going on.
    pub phase: &'static str,
    /// Since the last look.
    pub seconds: f64,
    /// Messages published.
    pub published: u64,
    /// Messages delivered.
    pub delivered: u64,
    /// Deliveries still due, of all that was published.
    pub missing: u64,
    /// Clients connected.
    pub standing: u32,
    /// Clients that failed, since the round began.
    pub failed: u32,
    /// Latency, in microseconds.
    pub p99_us: Option<f64>,
    /// Share of the time that the generator's busiest thread was at work, from 0 to 1.
    pub busiest: f64,
}

/// Watches.
pub trait Observer {
    /// Called about once a second, and where a phase begins or ends.
    fn progress(&self, snapshot: &Snapshot<'_>);
}

/// Measures all targets, in turn, as often as the plan says. Ends early, with what there is, when `stop` is cancelled.
///
/// # Errors
/// When the plan makes no sense, or a target cannot be reached.
pub async fn run(
    plan: &Plan,
    command: String,
    observer: &dyn Observer,
    stop: &CancellationToken,
) -> Result<Report, BenchError> {
    plan.load.check()?;
    let Some(_) = plan.targets.first() else { return Err(BenchError::Usage("no target".to_owned())) };
    for target in &plan.targets {
        target.check(&plan.load)?;
    }
    let date = humantime::format_rfc3339_seconds(std::time::SystemTime::now()).to_string();
    let targets: Vec<_> = plan.targets.iter().cloned().map(Arc::new).collect();
    let mut measured: Vec<_> = plan.targets.iter().map(Measured::new).collect();
    let mut random = fastrand::Rng::with_seed(plan.load.seed);
    'rounds: for number in 1..=plan.rounds {
        // Each round begins with another target: what is first may find a quieter machine.
        for turn in 0..targets.len() {
            let at = (turn + number as usize - 1) % targets.len();
            // Messages of an earlier round, also of an earlier run, are not taken for this one's.
            let run = random.u32(..) ^ std::process::id();
            let round = round::run(&plan.load, &targets[at], number, run, observer, stop).await?;
            measured[at].rounds.push(round);
            if stop.is_cancelled() {
                break 'rounds;
            }
        }
    }
    for target in &mut measured {
        target.median = summary::medians(&target.rounds);
    }
    let ratios = measured.iter().skip(1).map(|other| summary::ratios(&measured[0], other)).collect();
    Ok(Report {
        weft: env!("CARGO_PKG_VERSION"),
        date,
        machine: Machine::read(),
        command,
        scenario: plan.load.scenario.name(),
        seed: plan.load.seed,
        settings: plan.load.clone(),
        warnings: summary::warnings(&measured),
        targets: measured,
        ratios,
        interrupted: stop.is_cancelled(),
    })
}
