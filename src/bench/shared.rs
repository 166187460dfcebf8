//! What the threads of one round share: the clock, the phases, the streams of messages, and live counts.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::time::Instant;

use hdrhistogram::Histogram;
use parking_lot::Mutex;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::inflight::InFlight;
use super::plan::{Load, Rate, Scenario, Target};
use super::stamp::Stamps;
use super::words::Words;

/// Where a round stands. Threads wait for the next one, never back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Phase {
    /// Clients connect.
    Connecting,
    /// Publishers publish, or idle clients wait.
    Running,
    /// The last messages arrive.
    Draining,
    /// Receivers are asked what is missing.
    Judging,
    /// Clients say goodbye.
    Leaving,
}

/// One stream of messages: what one publisher says on one channel.
#[derive(Debug, Default)]
pub(super) struct StreamState {
    /// How many were sent.
    pub published: AtomicU64,
    /// The numbers of those that were refused or never answered: nobody expects them.
    pub excluded: Mutex<Vec<u64>>,
}

/// Counts of one thread, readable by others at any time.
#[derive(Debug)]
pub(super) struct Live {
    /// Messages sent.
    pub published: AtomicU64,
    /// Messages refused.
    pub refused: AtomicU64,
    /// Publishes whose answer has not come.
    pub unanswered: AtomicU64,
    /// Messages that came, also those that came again.
    pub delivered: AtomicU64,
    /// Messages that came to stable receivers for the first time.
    pub unique: AtomicU64,
    /// Clients that are connected.
    pub standing: AtomicU32,
    /// Clients that could not connect, or broke.
    pub failed: AtomicU32,
    /// The last failure.
    pub failure: Mutex<Option<String>>,
    /// Latencies since somebody last looked, in microseconds.
    pub interval: Mutex<Histogram<u64>>,
}

/// Latencies up to ten minutes, three digits, in microseconds.
pub(super) fn histogram() -> Histogram<u64> {
    let made = Histogram::new_with_bounds(1, 600_000_000, 3);
    // Fails only where the least is 0, the most is below twice the least, or there are more than five digits.
    made.expect("sound bounds")
}

impl Default for Live {
    fn default() -> Self {
        Self {
            published: AtomicU64::new(0),
            refused: AtomicU64::new(0),
            unanswered: AtomicU64::new(0),
            delivered: AtomicU64::new(0),
            unique: AtomicU64::new(0),
            standing: AtomicU32::new(0),
            failed: AtomicU32::new(0),
            failure: Mutex::new(None),
            interval: Mutex::new(histogram()),
        }
    }
}

/// See the module.
pub(super) struct Shared {
    pub load: Load,
    pub target: Arc<Target>,
    pub words: Words,
    pub stamps: Stamps,
    /// Names this run; also in the names of its channels.
    pub run: u32,
    epoch: Instant,
    /// The times between which a due message is measured, and publishing ends; in microseconds since the epoch.
    pub start: AtomicU64,
    pub measure_from: AtomicU64,
    pub measure_to: AtomicU64,
    pub streams: Vec<StreamState>,
    /// Stable subscribers of each channel.
    pub receivers: Vec<AtomicU32>,
    /// Messages under way of each publisher, at the rate `max`.
    pub in_flight: Vec<InFlight>,
    pub live: Vec<Live>,
    /// Clients that lost their connection may come back.
    pub comes_back: AtomicBool,
    /// The user wants to see what there is so far.
    pub stop: CancellationToken,
    phase: watch::Sender<Phase>,
    /// Steps that threads have finished.
    steps: watch::Sender<usize>,
}

impl Shared {
    pub(super) fn new(load: &Load, target: Arc<Target>, run: u32, stop: CancellationToken) -> Self {
        let publishes = load.scenario.publishes();
        let windows = if publishes && load.rate == Rate::Max { load.publishers } else { 0 };
        let streams = if publishes { load.streams() } else { 0 };
        Self {
            words: Words::new(target.protocol, load.transport),
            stamps: Stamps::new(run, load.size),
            run,
            epoch: Instant::now(),
            start: AtomicU64::new(u64::MAX),
            measure_from: AtomicU64::new(u64::MAX),
            measure_to: AtomicU64::new(u64::MAX),
            streams: (0..streams).map(|_| StreamState::default()).collect(),
            receivers: (0..load.channels).map(|_| AtomicU32::new(0)).collect(),
            in_flight: (0..windows).map(|_| InFlight::new(load.in_flight)).collect(),
            live: (0..load.threads).map(|_| Live::default()).collect(),
            comes_back: AtomicBool::new(load.scenario == Scenario::Storm && load.until_back),
            stop,
            phase: watch::Sender::new(Phase::Connecting),
            steps: watch::Sender::new(0),
            load: load.clone(),
            target,
        }
    }

    /// Microseconds since the epoch.
    pub(super) fn now(&self) -> u64 {
        // Half a million years fit.
        self.epoch.elapsed().as_micros() as u64
    }

    /// The moment of a time since the epoch.
    pub(super) fn instant(&self, microseconds: u64) -> Instant {
        self.epoch + std::time::Duration::from_micros(microseconds)
    }

    /// The name of a channel.
    pub(super) fn channel(&self, index: u32) -> String {
        match &self.load.channel {
            Some(name) => format!("{name}/{index}"),
            None => format!("/bench/{:08x}/{index}", self.run),
        }
    }

    /// Whether a message that was due then is measured.
    pub(super) fn measures(&self, due: u64) -> bool {
        due >= self.measure_from.load(Ordering::Relaxed) && due < self.measure_to.load(Ordering::Relaxed)
    }

    pub(super) fn phase(&self) -> Phase {
        *self.phase.borrow()
    }

    /// Goes on to a phase.
    pub(super) fn enter(&self, phase: Phase) {
        self.phase.send_replace(phase);
    }

    /// Waits until the round is in `phase` or past it.
    pub(super) async fn reached(&self, phase: Phase) {
        // The sender lives in `self`: it cannot be gone.
        let _ = self.phase.subscribe().wait_for(|now| *now >= phase).await;
    }

    /// A thread has finished a step.
    pub(super) fn step(&self) {
        self.steps.send_modify(|steps| *steps += 1);
    }

    /// Waits until every thread has finished this many steps.
    pub(super) async fn stepped(&self, steps: usize) {
        let all = steps * self.live.len();
        // The sender lives in `self`: it cannot be gone.
        let _ = self.steps.subscribe().wait_for(|now| *now >= all).await;
    }

    /// The publisher of a stream, and the place of a message among all of that publisher.
    pub(super) fn place(&self, stream: u32, number: u64) -> (usize, u64) {
        let (publishers, streams) = (self.load.publishers, self.load.streams());
        let publisher = stream % publishers;
        let own = (streams - publisher).div_ceil(publishers);
        (publisher as usize, number * u64::from(own) + u64::from(stream / publishers))
    }

    /// Who expects a message of this stream.
    pub(super) fn expecting(&self, stream: u32) -> u32 {
        self.receivers[(stream % self.load.channels) as usize].load(Ordering::Relaxed)
    }

    /// Deliveries that are due when all that was published so far has arrived.
    pub(super) fn expected(&self) -> u64 {
        let of = |(stream, state): (usize, &StreamState)| {
            let wanted = state.published.load(Ordering::Relaxed).saturating_sub(state.excluded.lock().len() as u64);
            wanted * u64::from(self.expecting(stream as u32))
        };
        self.streams.iter().enumerate().map(of).sum()
    }

    /// Sums a count over all threads.
    pub(super) fn sum(&self, of: impl Fn(&Live) -> &AtomicU64) -> u64 {
        self.live.iter().map(|live| of(live).load(Ordering::Relaxed)).sum()
    }
}
