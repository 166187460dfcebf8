//! One measurement of one target: starts the threads, leads them through the phases, and samples what they and the
//! server need meanwhile.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use tokio_util::sync::CancellationToken;

use super::client::Role;
use super::meter::Meter;
use super::plan::{Load, Scenario, Target};
use super::process;
use super::results::{Connects, Generator, Redis, Round, Server, Times};
use super::shared::{Phase, Shared, histogram};
use super::worker::{self, Outcome};
use super::{BenchError, Observer};

/// How long after the last connect the memory of the server is read.
const SETTLE: Duration = Duration::from_secs(2);
/// How often the end of a drain is looked for.
const LOOK: Duration = Duration::from_millis(5);
/// How long the clients may take to be back after a restart.
const BACK: Duration = Duration::from_secs(120);

/// What the server's processes held before the first client came.
struct Before {
    memory: Option<process::Memory>,
    cpu: Option<Duration>,
    redis: Option<Duration>,
}

/// Measures a target once.
pub(super) async fn run(
    load: &Load,
    target: &Arc<Target>,
    number: u32,
    run: u32,
    observer: &dyn Observer,
    stop: &CancellationToken,
) -> Result<Round, BenchError> {
    let before = Before {
        memory: optional(&target.pids, process::memory),
        cpu: optional(&target.pids, process::cpu),
        redis: optional(&target.redis_pids, process::cpu),
    };
    let shared = Arc::new(Shared::new(load, target.clone(), run, stop.child_token()));
    let mut meter = Meter::new(shared.clone(), number, observer);
    if load.scenario == Scenario::Storm {
        meter.begin();
    }
    let begun = Instant::now();
    let threads = start(&shared)?;
    meter.during("connecting", shared.stepped(1)).await;
    let connecting = begun.elapsed();
    let mut connects = connects(&shared, &before, connecting);
    let stands = connects.count > 0;
    let mut memory = None;
    if stands {
        match load.scenario {
            Scenario::Storm => {
                if load.until_back {
                    until_back(&shared, &mut meter).await;
                }
                meter.end();
            }
            Scenario::Idle => {
                meter.during("settling", pause(&shared, SETTLE)).await;
                memory = optional(&target.pids, process::memory);
                meter.begin();
                shared.enter(Phase::Running);
                meter.during("holding", pause(&shared, load.duration)).await;
                meter.end();
            }
            _ => publish(&shared, &mut meter).await,
        }
    }
    // Nobody is kept waiting.
    shared.measure_to.fetch_min(shared.now(), Ordering::Relaxed);
    shared.enter(Phase::Draining);
    shared.stepped(2).await;
    if stands && load.scenario.publishes() {
        meter.during("draining", drained(&shared)).await;
    }
    let end = optional(&target.pids, process::memory);
    shared.enter(Phase::Judging);
    shared.stepped(3).await;
    shared.enter(Phase::Leaving);
    let outcomes = meter.during("leaving", finished(threads)).await?;
    if !stands && !stop.is_cancelled() {
        let why = last_failure(&shared).unwrap_or_else(|| "nobody could connect".to_owned());
        let urls: Vec<_> = target.endpoints.iter().map(|endpoint| endpoint.url.as_str()).collect();
        return Err(BenchError::Unreachable { target: target.name.clone(), url: urls.join(", "), why });
    }
    if let Some(first) = outcomes.iter().filter_map(|outcome| outcome.counts.first_break).min() {
        let last = outcomes.iter().filter_map(|outcome| outcome.counts.last_back).max();
        let again = outcomes.iter().filter_map(|outcome| outcome.counts.accepted_again).min();
        let between = |from: Option<u64>| Some(last?.saturating_sub(from?) as f64 / 1e6);
        connects.back_seconds = between(again);
        connects.back_from_break_seconds = between(Some(first));
    }
    Ok(result(&shared, meter, outcomes, connects, [before.memory, memory, end]))
}

fn optional<T>(pids: &[u32], read: impl Fn(&[u32]) -> Result<T, BenchError>) -> Option<T> {
    // A server that was restarted has another id: then there is no figure.
    if pids.is_empty() { None } else { read(pids).ok() }
}

/// Gives every client a thread, in turn, and starts the threads.
fn start(shared: &Arc<Shared>) -> Result<Vec<JoinHandle<std::io::Result<Outcome>>>, BenchError> {
    let load = &shared.load;
    let everybody = load.scenario == Scenario::ManyToMany;
    let subscribers = (0..load.clients).map(|index| Role {
        subscriber: Some(index),
        publisher: (everybody && index < load.publishers).then_some(index),
        passing: false,
    });
    let publishers = if everybody || !load.scenario.publishes() { 0 } else { load.publishers };
    let publishers = (0..publishers).map(|index| Role { subscriber: None, publisher: Some(index), passing: false });
    let passing = (0..load.churners()).map(|index| Role { subscriber: Some(index), publisher: None, passing: true });
    let mut roles: Vec<Vec<Role>> = (0..load.threads).map(|_| Vec::new()).collect();
    for (at, role) in subscribers.chain(publishers).chain(passing).enumerate() {
        roles[at % load.threads as usize].push(role);
    }
    let threads = roles.into_iter().enumerate().map(|(index, roles)| {
        let shared = shared.clone();
        std::thread::Builder::new().name(format!("weft-load-{index}")).spawn(move || worker::run(shared, index, roles))
    });
    threads.collect::<Result<_, _>>().map_err(BenchError::Thread)
}

fn connects(shared: &Shared, before: &Before, seconds: Duration) -> Connects {
    let count = u64::from(standing(shared));
    let failed: u64 = shared.live.iter().map(|live| u64::from(live.failed.load(Ordering::Relaxed))).sum();
    let per = |before: Option<Duration>, pids: &[u32]| {
        let used = optional(pids, process::cpu)?.saturating_sub(before?);
        (count > 0).then(|| used.as_secs_f64() * 1e6 / count as f64)
    };
    Connects {
        count,
        failed,
        refused: 0,
        seconds: seconds.as_secs_f64(),
        per_second: count as f64 / seconds.as_secs_f64().max(1e-9),
        cpu_us_per_connect: per(before.cpu, &shared.target.pids),
        redis_cpu_us_per_connect: per(before.redis, &shared.target.redis_pids),
        latency_us: None,
        steps_us: std::collections::BTreeMap::new(),
        back_seconds: None,
        back_from_break_seconds: None,
    }
}

/// Warm-up and measured time.
async fn publish(shared: &Arc<Shared>, meter: &mut Meter<'_>) {
    let start = shared.now() + 10_000;
    // Years of microseconds fit.
    let from = start + shared.load.warm_up.as_micros() as u64;
    let to = from + shared.load.duration.as_micros() as u64;
    shared.start.store(start, Ordering::Relaxed);
    shared.measure_from.store(from, Ordering::Relaxed);
    shared.measure_to.store(to, Ordering::Relaxed);
    shared.enter(Phase::Running);
    meter.during("warming up", until(shared, from)).await;
    meter.begin();
    meter.during("measuring", until(shared, to)).await;
    meter.end();
}

async fn until(shared: &Shared, time: u64) {
    tokio::select! {
        () = tokio::time::sleep_until(shared.instant(time).into()) => {}
        () = nobody_stands(shared) => {}
        () = shared.stop.cancelled() => {}
    }
}

/// Until there is nobody left to be measured.
async fn nobody_stands(shared: &Shared) {
    while standing(shared) > 0 {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// Clients that are connected.
fn standing(shared: &Shared) -> u32 {
    shared.live.iter().map(|live| live.standing.load(Ordering::Relaxed)).sum()
}

async fn pause(shared: &Shared, time: Duration) {
    tokio::select! {
        () = tokio::time::sleep(time) => {}
        () = shared.stop.cancelled() => {}
    }
}

/// Until everything has arrived and every publish is answered, or it took too long.
async fn drained(shared: &Shared) {
    let begun = Instant::now();
    while begun.elapsed() < shared.load.drain && !shared.stop.is_cancelled() {
        let arrived = shared.sum(|live| &live.unique);
        if shared.sum(|live| &live.unanswered) == 0 && arrived >= shared.expected() {
            return;
        }
        pause(shared, LOOK).await;
    }
}

/// Until the server has gone and all clients are back.
async fn until_back(shared: &Shared, meter: &mut Meter<'_>) {
    let all = standing(shared);
    let broke = async {
        while standing(shared) == all && !shared.stop.is_cancelled() {
            pause(shared, LOOK).await;
        }
    };
    meter.during("waiting for a restart", async { tokio::time::timeout(shared.load.duration, broke).await.ok() }).await;
    let back = async {
        while standing(shared) < all && !shared.stop.is_cancelled() {
            pause(shared, LOOK).await;
        }
    };
    meter.during("coming back", async { tokio::time::timeout(BACK, back).await.ok() }).await;
}

/// Waits until the threads have ended.
async fn finished(threads: Vec<JoinHandle<std::io::Result<Outcome>>>) -> Result<Vec<Outcome>, BenchError> {
    while threads.iter().any(|thread| !thread.is_finished()) {
        tokio::time::sleep(LOOK).await;
    }
    let joined = threads.into_iter().map(|thread| match thread.join() {
        Ok(outcome) => outcome.map_err(BenchError::Thread),
        Err(_) => Err(BenchError::Panicked),
    });
    joined.collect()
}

fn last_failure(shared: &Shared) -> Option<String> {
    shared.live.iter().find_map(|live| live.failure.lock().clone())
}

fn merged(outcomes: &[Outcome], of: impl Fn(&Outcome) -> &Histogram<u64>) -> Histogram<u64> {
    let mut all = histogram();
    for outcome in outcomes {
        // Fails only for values beyond the bounds, which are the same everywhere.
        let _ = all.add(of(outcome));
    }
    all
}

fn result(
    shared: &Shared,
    meter: Meter<'_>,
    mut outcomes: Vec<Outcome>,
    mut connects: Connects,
    [before, after, end]: [Option<process::Memory>; 3],
) -> Round {
    let sum = |of: &dyn Fn(&Outcome) -> u64| outcomes.iter().map(of).sum::<u64>();
    let measured = meter.measured();
    let per = |seconds: Option<f64>, count: u64| (count > 0).then_some(seconds? * 1e6 / count as f64);
    let growth = |of: fn(&process::Memory) -> u64| {
        let grown = of(&after?).saturating_sub(of(&before?));
        (connects.count > 0).then(|| grown as f64 / connects.count as f64)
    };
    let server = measured.server.map(|cpu| Server {
        cpu_seconds: cpu,
        cpu_us_per_delivery: per(Some(cpu), measured.delivered),
        rss_bytes: end.map_or(0, |memory| memory.resident),
        anonymous_bytes: end.map_or(0, |memory| memory.anonymous),
        bytes_per_connection: growth(|memory| memory.resident),
        anonymous_bytes_per_connection: growth(|memory| memory.anonymous),
    });
    let redis = measured.redis.map(|cpu| Redis {
        cpu_seconds: cpu,
        cpu_us_per_delivery: per(Some(cpu), measured.delivered),
        cpu_us_per_publish: per(Some(cpu), measured.published),
    });
    connects.refused = sum(&|outcome| outcome.counts.refused_sessions);
    let publishes = shared.load.scenario.publishes();
    let rate = |count: u64| (publishes && measured.seconds > 0.0).then(|| count as f64 / measured.seconds);
    let round = Round {
        seconds: measured.seconds,
        published: shared.sum(|live| &live.published),
        refused: shared.sum(|live| &live.refused),
        unanswered: sum(&|outcome| outcome.counts.unanswered),
        unsent: sum(&|outcome| outcome.counts.unsent),
        delivered: shared.sum(|live| &live.unique),
        expected: shared.expected(),
        lost: sum(&|outcome| outcome.lost),
        duplicate: sum(&|outcome| outcome.counts.duplicate),
        out_of_order: sum(&|outcome| outcome.counts.out_of_order),
        unexpected: sum(&|outcome| outcome.counts.unexpected),
        connection_failures: shared.live.iter().map(|live| u64::from(live.failed.load(Ordering::Relaxed))).sum(),
        failure: last_failure(shared),
        request_failures: sum(&|outcome| outcome.counts.request_failures),
        churned: sum(&|outcome| outcome.counts.churned),
        churn_delivered: sum(&|outcome| outcome.counts.churn_delivered),
        churn_lost: sum(&|outcome| outcome.counts.churn_lost),
        publish_rate: rate(measured.published),
        delivery_rate: rate(measured.delivered),
        latency_us: Times::of(&merged(&outcomes, |outcome| &outcome.counts.latency)),
        publish_latency_us: Times::of(&merged(&outcomes, |outcome| &outcome.counts.publish_latency)),
        server,
        redis,
        generator: Generator {
            cpu_seconds: measured.own.0,
            busiest_thread: measured.own.1 / measured.seconds.max(1e-9),
            lag_us: Times::of(&merged(&outcomes, |outcome| &outcome.counts.lag)),
        },
        series: meter.into_series(),
        connects,
    };
    with_steps(round, &mut outcomes)
}

fn with_steps(mut round: Round, outcomes: &mut [Outcome]) -> Round {
    let names = super::local::Opening::new().each().map(|(name, _)| name);
    for (at, name) in names.into_iter().enumerate() {
        let mut all = histogram();
        for outcome in outcomes.iter_mut() {
            // As above.
            let _ = all.add(&*outcome.counts.opening.each()[at].1);
        }
        match (Times::of(&all), name) {
            (times, "whole") => round.connects.latency_us = times,
            (Some(times), name) => drop(round.connects.steps_us.insert(name, times)),
            (None, _) => {}
        }
    }
    round
}
