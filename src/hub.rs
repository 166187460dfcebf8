//! Local fan-out: which receivers of this node want which log, and the task that reads the engine's feed for them.
//!
//! The hub knows neither sessions nor transports: members are [`Receiver`]s, and news about sessions goes to a
//! [`ControlSink`]. The feed's reader never waits for a receiver, so one slow session delays nobody.

mod crew;
mod run;
mod strays;

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use indexmap::IndexMap;
use parking_lot::{Mutex, RwLock};
use tokio::sync::Notify;
use tokio::time::Instant;

use self::crew::Crew;
use self::run::Run;
use self::strays::Strays;
use crate::bayeux::Pattern;
use crate::engine::{Control, Delivery, Engine, EngineError, Feed, FeedEvent, Head, Position, Store};
use crate::metrics::{Metrics, now_millis};

const SHARDS: usize = 32;
/// Logs that may stay on the feed although nobody wants them now.
const MAX_LINGERING: usize = 10_000;
/// Receivers that are served under one read lock.
const CHUNK: usize = 256;
/// Receivers after which the feed's reader lets other tasks run.
const YIELD_AFTER: usize = 1024;
/// Events that are taken from the feed together. With more than that still waiting, writing is left to the receivers' own
/// tasks: the feed's reader must not fall behind.
const EVENTS: usize = 128;

/// Somebody who wants the messages of a log. Called by the feed's reader: must not block.
pub trait Receiver: Send + Sync {
    /// Messages of `log`, in the log's order. `Arc` is cloned only by who keeps it. True: they wait for [`Receiver::push`]
    /// or [`Receiver::wake`], one of which follows soon, after all that the feed has brought so far.
    fn offer(&self, log: &Pattern, deliveries: &[Arc<Delivery>]) -> bool;

    /// Lets what waits leave now, as far as that is possible without waiting. Called from any task.
    /// `scratch` is room to encode in.
    fn push(&self, scratch: &mut Vec<u8>);

    /// Leaves that to the receiver's own task.
    fn wake(&self);

    /// The feed has a hole before the next message of one of its logs: read the logs again. With `all`, what is known
    /// of the subscriptions is in doubt too.
    fn missed(&self, all: bool);
}

/// Takes what the feed tells about sessions. Called by the feed's reader: must not block.
pub trait ControlSink: Send + Sync {
    /// News about a session.
    fn control(&self, control: Control);
    /// Announcements were lost: everything that this node knows of its sessions is in doubt.
    fn feed_broken(&self);
}

/// Identity of a receiver within its hub.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, Hash)]
pub struct MemberId(u64);

/// A moment in the life of a hub.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Moment {
    era: u64,
    arrivals: u64,
    strays: u64,
}

/// What an attach tells of a log.
#[derive(Debug, Clone, Copy)]
pub struct Told<'a> {
    /// The log.
    pub pattern: &'a Pattern,
    /// Where it ended; and if no other session is on it, this node is told of it without listening.
    pub head: Head,
    /// The receiver has what it holds past this, up to the head.
    pub from: Position,
}

/// The fan-out of one node.
pub struct Hub {
    store: Arc<Store>,
    metrics: Arc<Metrics>,
    shards: [RwLock<HashMap<Pattern, Arc<Log>>>; SHARDS],
    hasher: RandomState,
    next_member: AtomicU64,
    /// Counts the breaks of the feed: what was listened to before one is not live after it.
    era: AtomicU64,
    /// Counts the logs that came onto the feed.
    arrivals: AtomicU64,
    /// The messages that came when nobody here wanted them.
    strays: Strays,
    /// Woken when logs were dropped from the feed, for those who wait to listen to them again.
    dropped: Notify,
    /// How long a log stays on the feed after its last receiver left: polls come and go.
    linger: Duration,
}

/// One log as this node sees it.
struct Log {
    members: RwLock<IndexMap<MemberId, Arc<dyn Receiver>>>,
    /// The newest position that was seen on the feed, or read; 0 when unknown.
    tail: AtomicU64,
    phase: Mutex<Phase>,
    /// The engine was asked for it since it was silent for certain: it may be on the feed although nobody waited for that.
    asked: AtomicBool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// Not on the feed.
    Silent,
    /// On the feed. With the time since when nobody wants it, and its number in the order of arrival.
    Live { idle_since: Option<Instant>, arrival: u64 },
    /// Being taken off the feed: wait for the end of it, then listen again.
    Dropping,
}

impl Hub {
    /// A hub without members on `store`.
    pub fn new(store: Arc<Store>, linger: Duration, metrics: Arc<Metrics>) -> Self {
        Self {
            store,
            metrics,
            shards: std::array::from_fn(|_| RwLock::default()),
            hasher: RandomState::new(),
            next_member: AtomicU64::new(1),
            era: AtomicU64::new(0),
            arrivals: AtomicU64::new(0),
            strays: Strays::default(),
            dropped: Notify::new(),
            linger,
        }
    }

    /// An identity for a receiver to come.
    pub fn member_id(&self) -> MemberId {
        MemberId(self.next_member.fetch_add(1, Ordering::Relaxed))
    }

    fn shard(&self, pattern: &Pattern) -> &RwLock<HashMap<Pattern, Arc<Log>>> {
        // The remainder is below the number of shards.
        &self.shards[(self.hasher.hash_one(pattern) as usize) % SHARDS]
    }

    fn log(&self, pattern: &Pattern) -> Option<Arc<Log>> {
        self.shard(pattern).read().get(pattern).cloned()
    }

    /// Adds a receiver to the log of `pattern`. It is offered messages from now on, but only [`Hub::listen`] makes
    /// sure that none is missing.
    pub fn join(&self, id: MemberId, receiver: &Arc<dyn Receiver>, pattern: &Pattern) {
        // Under the shard's lock, so that the log cannot be removed between being found and being joined.
        let mut shard = self.shard(pattern).write();
        let log = shard.entry(pattern.clone()).or_insert_with(|| Arc::new(Log::new()));
        log.members.write().insert(id, receiver.clone());
        if let Phase::Live { idle_since, .. } = &mut *log.phase.lock() {
            *idle_since = None;
        }
    }

    /// Removes a receiver from the log of `pattern`.
    pub fn leave(&self, id: MemberId, pattern: &Pattern) {
        let Some(log) = self.log(pattern) else { return };
        let mut members = log.members.write();
        members.swap_remove(&id);
        if members.is_empty() {
            members.shrink_to_fit();
            if let Phase::Live { idle_since, .. } = &mut *log.phase.lock() {
                *idle_since = Some(Instant::now());
            }
        }
    }

    /// The present, for [`Hub::start_warm`].
    pub fn moment(&self) -> Moment {
        Moment {
            era: self.era.load(Ordering::Acquire),
            arrivals: self.arrivals.load(Ordering::Acquire),
            strays: self.strays.count(),
        }
    }

    /// Whether a receiver that has joined these logs, and has what each holds between `from` and `head`, misses nothing
    /// although nobody reads them: this node is told of each since before `moment`, because it is on the feed or because the
    /// engine said so after that; it ended at `head` some time later, and the feed has brought nothing past that yet which
    /// the receiver could have missed. If so, what the feed brings of them counts from their heads on.
    pub fn start_warm<'a>(&self, moment: Moment, logs: impl Iterator<Item = Told<'a>> + Clone) -> bool {
        let warm = |Told { pattern, head, from }: Told<'_>| {
            let Some(log) = self.log(pattern) else { return false };
            // Looked at after joining: what comes later is offered.
            let told = match *log.phase.lock() {
                Phase::Live { arrival, .. } if arrival < moment.arrivals => true,
                // What the feed brought before it joined may be known no more.
                _ => head.alone && self.strays.last(pattern) <= moment.strays,
            };
            told && head.position != Position::default()
                && log.tail.load(Ordering::Acquire) <= head.position.max(from).0
        };
        if !logs.clone().all(warm) || self.era.load(Ordering::Acquire) != moment.era {
            return false;
        }
        for Told { pattern, head, .. } in logs {
            if let Some(log) = self.log(pattern)
                && log.members.read().len() == 1
            {
                // The feed need not have brought what came while nobody here wanted it: what follows is no hole.
                log.tail.fetch_max(head.position.0, Ordering::AcqRel);
            }
        }
        true
    }

    /// Returns when the feed carries all of these logs.
    ///
    /// # Errors
    /// Those of [`Engine::listen`].
    pub async fn listen(&self, patterns: impl Iterator<Item = &Pattern> + Clone) -> Result<(), EngineError> {
        loop {
            // Registered before the look, so that no wake-up is missed.
            let dropped = self.dropped.notified();
            let era = self.era.load(Ordering::Acquire);
            let (mut silent, mut dropping) = (Vec::new(), false);
            for pattern in patterns.clone() {
                match self.log(pattern).map(|log| *log.phase.lock()) {
                    None | Some(Phase::Silent) => silent.push(pattern.clone()),
                    Some(Phase::Dropping) => dropping = true,
                    Some(Phase::Live { .. }) => {}
                }
            }
            if dropping {
                dropped.await;
                continue;
            }
            if silent.is_empty() {
                return Ok(());
            }
            for pattern in &silent {
                if let Some(log) = self.log(pattern) {
                    log.asked.store(true, Ordering::Release);
                }
            }
            self.store.listen(&silent).await?;
            for pattern in &silent {
                if let Some(log) = self.log(pattern) {
                    let mut phase = log.phase.lock();
                    // Under the phase's lock: a break that comes now silences the log again.
                    if *phase == Phase::Silent && self.era.load(Ordering::Acquire) == era {
                        let arrival = self.arrivals.fetch_add(1, Ordering::AcqRel);
                        *phase = Phase::Live { idle_since: None, arrival };
                    }
                }
            }
            if self.era.load(Ordering::Acquire) == era {
                return Ok(());
            }
        }
    }

    /// Takes logs off the feed that nobody wanted for a while. Called about once a second.
    pub async fn tidy(&self) {
        let idle = self.start_dropping();
        if idle.is_empty() {
            return;
        }
        // Whatever the outcome: who wants a log from now on listens again, which the engine takes twice.
        if let Err(error) = self.store.unlisten(&idle).await {
            tracing::warn!(%error, logs = idle.len(), "could not take idle logs off the feed");
        }
        for pattern in &idle {
            let mut shard = self.shard(pattern).write();
            let Some(log) = shard.get(pattern) else { continue };
            *log.phase.lock() = Phase::Silent;
            log.asked.store(false, Ordering::Release);
            self.forget_tail(pattern, log);
            if log.members.read().is_empty() {
                shard.remove(pattern);
            }
        }
        self.dropped.notify_waiters();
    }

    fn start_dropping(&self) -> Vec<Pattern> {
        // Clients choose the names: many that were wanted for a moment must not pile up for as long as a few may linger.
        let linger = if self.logs() > MAX_LINGERING + self.wanted() { Duration::ZERO } else { self.linger };
        let mut idle = Vec::new();
        for shard in &self.shards {
            let mut shard = shard.write();
            shard.retain(|pattern, log| {
                let unwanted = log.members.read().is_empty();
                let mut phase = log.phase.lock();
                match *phase {
                    Phase::Silent if unwanted && log.asked.load(Ordering::Acquire) => {
                        *phase = Phase::Dropping;
                        idle.push(pattern.clone());
                    }
                    Phase::Silent if unwanted => {
                        self.forget_tail(pattern, log);
                        return false;
                    }
                    Phase::Silent => {}
                    Phase::Live { idle_since: Some(since), .. } if unwanted && since.elapsed() >= linger => {
                        *phase = Phase::Dropping;
                        idle.push(pattern.clone());
                    }
                    _ => {}
                }
                true
            });
            if shard.len() * 4 < shard.capacity() {
                let keep = shard.len() * 2;
                shard.shrink_to(keep);
            }
        }
        idle
    }

    /// How many logs this node knows.
    fn logs(&self) -> usize {
        self.shards.iter().map(|shard| shard.read().len()).sum()
    }

    /// How many of them have a receiver.
    fn wanted(&self) -> usize {
        let wanted = |log: &&Arc<Log>| !log.members.read().is_empty();
        self.shards.iter().map(|shard| shard.read().values().filter(wanted).count()).sum()
    }

    /// Reads the feed until it ends. All that waits there is put into the outboxes first, and then written: what comes
    /// together leaves together.
    pub async fn run(&self, mut feed: Feed, controls: Arc<dyn ControlSink>) {
        let mut crew = Crew::new();
        let mut events = Vec::with_capacity(EVENTS);
        let mut stored_at = Vec::with_capacity(EVENTS);
        while feed.recv_many(&mut events, EVENTS).await > 0 {
            let start = Instant::now();
            let arrived_at = now_millis();
            let mut due = Vec::new();
            let mut coming = events.drain(..).peekable();
            while let Some(event) = coming.next() {
                match event {
                    FeedEvent::Message { log, previous, delivery, room } => {
                        let mut run = Run { log, previous, deliveries: vec![delivery], unbroken: true };
                        // What they took of the feed's room is free once they have been handed on.
                        let mut rooms: Vec<_> = room.into_iter().collect();
                        while let Some(next) = coming.next_if(|next| run.goes_on_with(next)) {
                            rooms.extend(run.add(next));
                        }
                        for delivery in &run.deliveries {
                            self.metrics.arrived(arrived_at, delivery.position.millis());
                            stored_at.push(delivery.position.millis());
                        }
                        self.fan_out(&run, &mut due).await;
                    }
                    FeedEvent::Control(control) => controls.control(control),
                    FeedEvent::Broken => {
                        self.forget_feed();
                        controls.feed_broken();
                    }
                    FeedEvent::Restored => controls.feed_broken(),
                }
            }
            drop(coming);
            if feed.len() >= EVENTS {
                due.iter().for_each(|receiver| receiver.wake());
            } else {
                crew.push(due).await;
            }
            let handed_on_at = now_millis();
            stored_at.drain(..).for_each(|millis| self.metrics.handed_on(handed_on_at, millis));
            self.metrics.fanout.observe(start.elapsed().as_secs_f64());
        }
        crew.leave().await;
    }

    /// The feed broke: nothing is live and no tail is known.
    fn forget_feed(&self) {
        self.era.fetch_add(1, Ordering::AcqRel);
        for shard in &self.shards {
            for log in shard.read().values() {
                let mut phase = log.phase.lock();
                // One that is being dropped stays so until that is done.
                if matches!(*phase, Phase::Live { .. }) {
                    *phase = Phase::Silent;
                }
                log.tail.store(0, Ordering::Relaxed);
            }
        }
    }

    /// Called under the shard's lock: whoever joins later is told that there was something.
    fn forget_tail(&self, pattern: &Pattern, log: &Log) {
        if log.tail.swap(0, Ordering::AcqRel) != 0 {
            self.strays.note(pattern);
        }
    }

    /// Offers messages to all receivers of their log; those that want to be pushed are added to `due`.
    async fn fan_out(&self, run: &Run, due: &mut Vec<Arc<dyn Receiver>>) {
        loop {
            if let Some(log) = self.log(&run.log)
                && self.offer(&log, run, due).await
            {
                return;
            }
            // Nobody wants it: that is noted for who is about to, and seen by whoever joins after the look that follows.
            self.strays.note(&run.log);
            if self.log(&run.log).is_none_or(|log| log.members.read().is_empty()) {
                return;
            }
        }
    }

    /// False when nobody was there.
    async fn offer(&self, log: &Log, run: &Run, due: &mut Vec<Arc<dyn Receiver>>) -> bool {
        let Some(last) = run.deliveries.last() else { return true };
        let tail = log.tail.fetch_max(last.position.0, Ordering::AcqRel);
        // Who joined later was given what lies before the tail, of which the run may bring some.
        let broken = !run.unbroken || (tail != 0 && tail < run.previous.0);
        // From the end to the start: a member that leaves meanwhile is replaced by the last one, which then is seen
        // twice (and drops the copy by its position) but never left out.
        let mut next = log.members.read().len();
        self.metrics.fanout_receivers.observe(next as f64);
        let (mut served, mut found) = (0, false);
        while next > 0 {
            {
                let members = log.members.read();
                next = next.min(members.len());
                let first = next.saturating_sub(CHUNK);
                for index in (first..next).rev() {
                    if let Some((_, member)) = members.get_index(index) {
                        found = true;
                        if broken {
                            member.missed(false);
                        }
                        if member.offer(&run.log, &run.deliveries) {
                            due.push(member.clone());
                        }
                    }
                }
                served += next - first;
                next = first;
            }
            if served >= YIELD_AFTER {
                served = 0;
                tokio::task::yield_now().await;
            }
        }
        found
    }
}

impl Log {
    fn new() -> Self {
        Self {
            members: RwLock::default(),
            tail: AtomicU64::new(0),
            phase: Mutex::new(Phase::Silent),
            asked: AtomicBool::new(false),
        }
    }
}

#[cfg(test)]
mod tests;
