//! Samples a round while it runs: once a second for the one who watches, and exactly at both ends of the measured time.

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::process::{self, OwnTime};
use super::results::Moment;
use super::shared::{Shared, histogram};
use super::{Observer, Snapshot};

/// All counters at one moment.
#[derive(Clone)]
struct Sample {
    at: Instant,
    published: u64,
    delivered: u64,
    server: Option<Duration>,
    redis: Option<Duration>,
    own: OwnTime,
}

/// What was used between two samples.
#[derive(Debug, Default)]
pub(super) struct Used {
    pub seconds: f64,
    pub published: u64,
    pub delivered: u64,
    /// CPU seconds of the server.
    pub server: Option<f64>,
    /// CPU seconds of Redis.
    pub redis: Option<f64>,
    /// CPU seconds of this program: of all threads, of the busiest.
    pub own: (f64, f64),
}

/// See the module.
pub(super) struct Meter<'a> {
    shared: Arc<Shared>,
    observer: &'a dyn Observer,
    round: u32,
    last: Sample,
    from: Option<Sample>,
    to: Option<Sample>,
    series: Vec<Moment>,
}

impl<'a> Meter<'a> {
    pub(super) fn new(shared: Arc<Shared>, round: u32, observer: &'a dyn Observer) -> Self {
        let last = sample(&shared);
        Self { shared, observer, round, last, from: None, to: None, series: Vec::new() }
    }

    /// The measured time begins.
    pub(super) fn begin(&mut self) {
        self.tick("measuring");
        self.from = Some(self.last.clone());
    }

    /// The measured time is over.
    pub(super) fn end(&mut self) {
        self.tick("measured");
        self.to = Some(self.last.clone());
    }

    /// Looks once a second while something goes on.
    pub(super) async fn during<T>(&mut self, phase: &'static str, something: impl Future<Output = T>) -> T {
        let mut something = pin!(something);
        let mut clock = tokio::time::interval(Duration::from_secs(1));
        clock.tick().await;
        loop {
            tokio::select! {
                biased;
                done = &mut something => return done,
                _ = clock.tick() => self.tick(phase),
            }
        }
    }

    fn tick(&mut self, phase: &'static str) {
        let mut latencies = histogram();
        for live in &self.shared.live {
            let mut interval = live.interval.lock();
            // Fails only for values beyond the bounds, which are the same.
            let _ = latencies.add(&*interval);
            interval.reset();
        }
        let now = sample(&self.shared);
        let used = now.since(&self.last);
        let at = |quantile| (!latencies.is_empty()).then(|| latencies.value_at_quantile(quantile) as f64);
        // What is left behind the last whole second is too short for a rate.
        if let (Some(from), None, true) = (&self.from, &self.to, used.seconds > 0.5) {
            self.series.push(Moment {
                at_seconds: (now.at - from.at).as_secs_f64(),
                published: used.published,
                delivered: used.delivered,
                server_cpu_seconds: used.server,
                redis_cpu_seconds: used.redis,
                p50_us: at(0.5),
                p99_us: at(0.99),
            });
        }
        let unique = self.shared.sum(|live| &live.unique);
        let count = |of: &dyn Fn(&super::shared::Live) -> u32| self.shared.live.iter().map(of).sum::<u32>();
        self.observer.progress(&Snapshot {
            target: &self.shared.target.name,
            round: self.round,
            phase,
            seconds: used.seconds,
            published: used.published,
            delivered: used.delivered,
            missing: self.shared.expected().saturating_sub(unique),
            standing: count(&|live| live.standing.load(Ordering::Relaxed)),
            failed: count(&|live| live.failed.load(Ordering::Relaxed)),
            p99_us: at(0.99),
            busiest: used.own.1 / used.seconds.max(1e-9),
        });
        self.last = now;
    }

    /// What was used in the measured time.
    pub(super) fn measured(&self) -> Used {
        match (&self.from, &self.to) {
            (Some(from), Some(to)) => to.since(from),
            _ => Used::default(),
        }
    }

    pub(super) fn into_series(self) -> Vec<Moment> {
        self.series
    }
}

fn sample(shared: &Shared) -> Sample {
    let cpu = |pids: &[u32]| if pids.is_empty() { None } else { process::cpu(pids).ok() };
    Sample {
        at: Instant::now(),
        published: shared.sum(|live| &live.published),
        delivered: shared.sum(|live| &live.delivered),
        server: cpu(&shared.target.pids),
        redis: cpu(&shared.target.redis_pids),
        own: OwnTime::now(),
    }
}

impl Sample {
    fn since(&self, before: &Self) -> Used {
        let between =
            |now: Option<Duration>, before: Option<Duration>| Some(now?.saturating_sub(before?).as_secs_f64());
        Used {
            seconds: (self.at - before.at).as_secs_f64(),
            published: self.published - before.published,
            delivered: self.delivered - before.delivered,
            server: between(self.server, before.server),
            redis: between(self.redis, before.redis),
            own: self.own.since(&before.own),
        }
    }
}
