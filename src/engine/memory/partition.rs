//! The memory engine's state behind its lock: sessions, logs, deadlines, the clock. Every method is one atomic step.

mod reading;

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::time::Instant;

use self::reading::replay_start;
use super::log::Log;
use super::seen::Seen;
use super::session::{Session, Settled, Start};
use super::{Announcer, MemoryLimits};
use crate::bayeux::Pattern;
use crate::engine::sweep_pause;
use crate::engine::*;

/// The engine's only partition.
const PARTITION: PartitionId = PartitionId(0);

/// The wall clock when the engine started; afterwards only the monotonic clock counts.
struct Time {
    started_millis: u64,
    started: Instant,
}

impl Time {
    fn starting_now() -> Self {
        let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let started_millis = u64::try_from(since_epoch.as_millis()).unwrap_or(u64::MAX / 2048);
        Self { started_millis, started: Instant::now() }
    }

    fn millis(&self) -> u64 {
        // Half a billion years of uptime fit.
        self.started_millis + self.started.elapsed().as_millis() as u64
    }
}

pub(super) struct Partition {
    limits: MemoryLimits,
    clock: Position,
    time: Time,
    sessions: HashMap<SessionId, Session>,
    /// The sessions by deadline.
    deadlines: BTreeSet<(Instant, SessionId)>,
    logs: HashMap<Pattern, Log>,
    /// Logs by the time at which something in them may go.
    aging: BTreeSet<(u64, Pattern)>,
    /// Logs that are retained.
    retained: usize,
    seen: Seen,
    /// Bytes of payload in all logs.
    bytes: usize,
    /// When the last sweep was.
    swept: Option<Instant>,
    /// No session expires before.
    spared_until: Option<Instant>,
    longest_lifetime: Duration,
}

impl Partition {
    pub(super) fn new(limits: MemoryLimits) -> Self {
        Self {
            limits,
            clock: Position::default(),
            time: Time::starting_now(),
            sessions: HashMap::new(),
            deadlines: BTreeSet::new(),
            logs: HashMap::new(),
            aging: BTreeSet::new(),
            retained: 0,
            seen: Seen::new(limits.idempotency_window, limits.fingerprints),
            bytes: 0,
            swept: None,
            spared_until: None,
            longest_lifetime: Duration::ZERO,
        }
    }

    fn now_millis(&self) -> u64 {
        self.time.millis()
    }

    fn tick(&mut self) -> Position {
        self.clock = Position::after(self.clock, self.now_millis());
        self.clock
    }

    pub(super) fn sessions(&self) -> usize {
        self.sessions.len()
    }

    pub(super) fn create(&mut self, creation: &Creation<'_>) -> Create {
        if self.sessions.len() >= creation.max {
            return Create::TooMany;
        }
        self.longest_lifetime = self.longest_lifetime.max(creation.lifetime);
        // Whoever tries again after an answer that was lost starts anew.
        if let Some(before) = self.sessions.remove(creation.session) {
            self.deadlines.remove(&(before.deadline, creation.session.clone()));
            before.subscriptions.keys().for_each(|pattern| self.leave(pattern, false));
        }
        let now = self.tick();
        let start = creation.resumed.map_or(now, |(at, _)| at.get(PARTITION).min(now));
        let mut session = Session::new(creation.lifetime, creation.traits, start);
        for one in creation.resumed.map(|(_, subscriptions)| subscriptions).unwrap_or_default() {
            if session.subscriptions.contains_key(&one.pattern) {
                continue;
            }
            let since = one.since.clamp(start, now);
            let replay = one.replay.filter(|from| *from < since);
            session.subscriptions.insert(one.pattern.clone(), Start { since, replay, gap: false });
            // What is new begins now, so that it has a gap to tell of.
            self.enter(&one.pattern, now);
            session.version.0 += 1;
        }
        self.deadlines.insert((session.deadline, creation.session.clone()));
        self.sessions.insert(creation.session.clone(), session);
        Create::Created(Cursor::single(start))
    }

    /// The session, with its life extended.
    fn heard_of(&mut self, id: &SessionId) -> Option<&mut Session> {
        let session = self.sessions.get_mut(id)?;
        self.deadlines.remove(&(session.deadline, id.clone()));
        session.deadline = Instant::now() + session.lifetime;
        self.deadlines.insert((session.deadline, id.clone()));
        Some(session)
    }

    pub(super) fn touch(&mut self, id: &SessionId, epoch: Option<Epoch>) -> Touch {
        match self.heard_of(id) {
            None => Touch::Unknown,
            Some(session) if epoch.is_some_and(|epoch| epoch != session.epoch) => Touch::Stale,
            Some(_) => Touch::Alive,
        }
    }

    pub(super) fn heartbeat(&mut self, id: &SessionId, claim: Option<&Cursor>) -> Touch {
        let clock = self.clock;
        match self.heard_of(id) {
            None => Touch::Unknown,
            Some(session) => {
                session.heartbeat(claim, clock);
                Touch::Alive
            }
        }
    }

    pub(super) fn end(&mut self, id: &SessionId, why: Ended, announcer: &mut Announcer<'_>) -> Option<EndedSession> {
        let session = self.sessions.remove(id)?;
        self.deadlines.remove(&(session.deadline, id.clone()));
        let patterns: Vec<_> = session.subscriptions.into_keys().collect();
        let may_return = session.traits.resume && !why.is_final();
        for pattern in &patterns {
            self.leave(pattern, may_return);
        }
        announcer.control(session.node.as_ref(), id, ControlKind::Ended(why));
        Some(EndedSession { session: id.clone(), patterns })
    }

    pub(super) fn expire(&mut self, id: &SessionId, announcer: &mut Announcer<'_>) -> Option<EndedSession> {
        let overdue = self.sessions.get(id).is_some_and(|session| session.deadline <= Instant::now());
        if overdue { self.end(id, Ended::Expired, announcer) } else { None }
    }

    pub(super) fn note_activity(&mut self, id: &SessionId) {
        if let Some(session) = self.sessions.get_mut(id) {
            session.active = Instant::now();
        }
    }

    pub(super) fn end_inactive(
        &mut self,
        id: &SessionId,
        limit: Duration,
        announcer: &mut Announcer<'_>,
    ) -> Option<EndedSession> {
        let inactive = self.sessions.get(id).is_some_and(|session| session.active.elapsed() >= limit);
        if inactive { self.end(id, Ended::Inactive, announcer) } else { None }
    }

    /// Sessions to be ended. After a pause of the sweeper (the process stood still) they get one time-out to come back:
    /// they could not be heard of either.
    pub(super) fn overdue(&mut self, limit: usize) -> Vec<SessionId> {
        let now = Instant::now();
        let paused = self.swept.replace(now).is_some_and(|last| now - last > sweep_pause(self.longest_lifetime / 2));
        if paused {
            let timeout = self.longest_lifetime / 2;
            self.spared_until = Some(now + timeout.mul_f64(1.0 + fastrand::f64() / 10.0));
        }
        if self.spared_until.is_some_and(|until| now < until) {
            return Vec::new();
        }
        self.deadlines
            .iter()
            .take_while(|(deadline, _)| *deadline <= now)
            .take(limit)
            .map(|(_, id)| id.clone())
            .collect()
    }

    /// Changes a log, and does what follows from it: trims it, forgets it when nobody wants it any more, and keeps the
    /// books.
    fn change<T>(&mut self, pattern: &Pattern, change: impl FnOnce(&mut Log) -> T) -> Option<T> {
        let log = self.logs.get_mut(pattern)?;
        // Only now: most patterns that cover a channel have no log.
        let now = self.time.millis();
        let (due, bytes, retained) = (log.due(&self.limits), log.bytes(), log.retention.is_some());
        let outcome = change(log);
        log.trim(&self.limits, now);
        let wanted = log.is_wanted();
        let after = log.due(&self.limits).filter(|_| wanted);
        if due != after {
            if let Some(due) = due {
                self.aging.remove(&(due, pattern.clone()));
            }
            if let Some(after) = after {
                self.aging.insert((after, pattern.clone()));
            }
        }
        self.bytes = self.bytes + log.bytes() - bytes;
        self.retained = self.retained + usize::from(log.retention.is_some()) - usize::from(retained);
        if !wanted {
            self.bytes -= log.bytes();
            self.retained -= usize::from(log.retention.is_some());
            self.logs.remove(pattern);
        }
        Some(outcome)
    }

    /// One subscriber more; the first one makes the log.
    fn enter(&mut self, pattern: &Pattern, now: Position) {
        self.logs.entry(pattern.clone()).or_insert_with(|| Log::starting_at(now));
        self.change(pattern, |log| log.subscribers += 1);
    }

    /// One subscriber less. `may_return`: with another session, for what it has missed.
    fn leave(&mut self, pattern: &Pattern, may_return: bool) {
        let until = self.now_millis() + self.limits.log_age.as_millis() as u64;
        self.change(pattern, |log| {
            log.subscribers -= 1;
            if may_return {
                log.lingers_until = Some(until);
            }
        });
    }

    pub(super) fn subscribe(
        &mut self,
        id: &SessionId,
        pattern: &Pattern,
        max: usize,
        replay: Option<ReplayWish>,
        announcer: &mut Announcer<'_>,
    ) -> Subscribe {
        let (since, now) = (self.tick(), self.now_millis());
        let Some(session) = self.sessions.get_mut(id) else { return Subscribe::Unknown };
        if let Some(start) = session.subscriptions.get(pattern) {
            let replay = start.replay.map(|from| ReplayStart { from, gap: start.gap });
            return Subscribe::Kept { since: start.since, replay };
        }
        if session.subscriptions.len() >= max {
            return Subscribe::TooMany;
        }
        let replay = replay.map(|wish| replay_start(self.logs.get(pattern), wish, since, now));
        let due = replay.filter(|start| self.logs.contains_key(pattern) && start.from < since).map(|start| start.from);
        session
            .subscriptions
            .insert(pattern.clone(), Start { since, replay: due, gap: replay.is_some_and(|start| start.gap) });
        session.version.0 += 1;
        announcer.control(session.node.as_ref(), id, ControlKind::Resubscribed { version: session.version });
        self.enter(pattern, since);
        Subscribe::Added { since, replay }
    }

    pub(super) fn unsubscribe(
        &mut self,
        id: &SessionId,
        pattern: &Pattern,
        announcer: &mut Announcer<'_>,
    ) -> Unsubscribe {
        let Some(session) = self.sessions.get_mut(id) else { return Unsubscribe::Unknown };
        if session.subscriptions.remove(pattern).is_none() {
            return Unsubscribe::Absent;
        }
        session.version.0 += 1;
        announcer.control(session.node.as_ref(), id, ControlKind::Resubscribed { version: session.version });
        self.leave(pattern, false);
        Unsubscribe::Removed
    }

    pub(super) fn attach(
        &mut self,
        node: &NodeId,
        request: &AttachRequest<'_>,
        announcer: &mut Announcer<'_>,
    ) -> Attach {
        let clock = self.clock;
        let Some(session) = self.heard_of(request.session) else { return Attach::Unknown };
        let (start, ceiling) = match session.settle(&request.link, clock) {
            Settled::Deliver { start, ceiling } => (start, ceiling),
            Settled::Late => return Attach::Late,
            Settled::Closed => return Attach::Closed,
        };
        let (first, before) = session.take_over(node, &request.link);
        if before.as_ref() != Some(node) {
            let connect_id = match request.link {
                Link::Poll { connect_id, .. } | Link::Socket { connect_id, .. } => connect_id.map(Into::into),
                Link::Stream { .. } | Link::Local => None,
            };
            let what = ControlKind::Superseded { epoch: session.epoch, connect_id };
            announcer.control(before.as_ref(), request.session, what);
        }
        // Borrowed anew: the logs are looked at beside it.
        let Some(session) = self.sessions.get(request.session) else { return Attach::Unknown };
        // Who is alone is not told: to listen costs nothing here.
        let position = |pattern: &Pattern| self.logs.get(pattern).map(Log::head).unwrap_or_default();
        let head = |pattern: &Pattern| Head { position: position(pattern), alone: false };
        let mut subscriptions = subscriptions_of(session);
        if matches!(request.link, Link::Stream { .. }) && !session.traits.resume {
            // Behind what a poll's reply may just be carrying, as with live messages.
            for moved in session.carried() {
                let of = |one: &&mut Subscription| one.pattern == moved.pattern && one.since == moved.since;
                if let Some(one) = subscriptions.iter_mut().find(of) {
                    one.replay = one.replay.map(|from| from.max(moved.upto)).filter(|from| *from < one.since);
                }
            }
        }
        let unread = self.unread(&subscriptions, start).filter(|_| ceiling.is_none());
        Attach::Attached(Attached {
            epoch: session.epoch,
            version: session.version,
            subscriptions,
            heads: session.subscriptions.keys().map(head).collect(),
            unread,
            clock: Cursor::single(clock),
            cursor: Cursor::single(start),
            ceiling,
            first,
            traits: session.traits,
        })
    }

    pub(super) fn subscriptions(&self, id: &SessionId, epoch: Epoch) -> Subscriptions {
        match self.sessions.get(id) {
            None => Subscriptions::Unknown,
            Some(session) if session.epoch != epoch => Subscriptions::Stale,
            Some(session) => Subscriptions::Current(session.version, subscriptions_of(session)),
        }
    }

    pub(super) fn record(&mut self, request: &RecordRequest<'_>) -> Record {
        let Some(session) = self.sessions.get_mut(request.session) else { return Record::Unknown };
        if session.epoch != request.epoch {
            return Record::Stale { same_id: session.is_answered_elsewhere(request.connect_id) };
        }
        if session.version != request.version {
            return Record::Outdated;
        }
        session.record(request.connect_id, request.upto.clone());
        Record::Recorded
    }

    pub(super) fn conclude(&mut self, id: &SessionId, epoch: Epoch, connect_id: Option<&str>, vain: bool) -> Conclude {
        let Some(session) = self.sessions.get_mut(id) else { return Conclude::Unknown };
        let may_be_empty = match session.epoch == epoch {
            true => session.conclude(connect_id, vain),
            false => !session.is_answered_elsewhere(connect_id),
        };
        if may_be_empty { Conclude::Empty } else { Conclude::Hangup }
    }

    pub(super) fn release(&mut self, id: &SessionId, epoch: Epoch, connect_id: Option<&str>) {
        if let Some(session) = self.sessions.get_mut(id).filter(|session| session.epoch == epoch) {
            session.release(connect_id);
        }
    }

    pub(super) fn written(&mut self, id: &SessionId, epoch: Epoch) {
        if let Some(session) = self.sessions.get_mut(id).filter(|session| session.epoch == epoch) {
            session.written();
        }
    }

    pub(super) fn commit(&mut self, item: &Commit) -> CommitOutcome {
        let upto = item.upto.cursor.get(PARTITION).min(self.clock);
        let Some(session) = self.sessions.get_mut(&item.session) else { return CommitOutcome::Unknown };
        if session.epoch != item.epoch {
            return CommitOutcome::Stale;
        }
        if session.version != item.version {
            return CommitOutcome::Outdated;
        }
        session.progress(item.progress, upto, &item.upto.replays);
        CommitOutcome::Committed
    }

    pub(super) fn detach(&mut self, item: &Commit) {
        if matches!(self.commit(item), CommitOutcome::Committed | CommitOutcome::Outdated)
            && let Some(session) = self.sessions.get_mut(&item.session)
        {
            session.epoch.0 += 1;
            session.node = None;
        }
    }

    pub(super) fn publish(
        &mut self,
        publication: Publication,
        expansion: &[Pattern],
        announcer: &mut Announcer<'_>,
    ) -> Result<Published, EngineError> {
        if self.bytes + publication.array.len() > self.limits.total_bytes {
            return Err(EngineError::Full(self.limits.total_bytes));
        }
        let Publication { channel, array, retention, fingerprint } = publication;
        // The channel itself comes first.
        let retained = expansion.first().filter(|_| retention.is_some());
        let fresh = retained.filter(|pattern| self.logs.get(*pattern).is_none_or(|log| log.retention.is_none()));
        if fresh.is_some() && self.retained >= self.limits.retained {
            return Err(EngineError::TooManyRetained(self.limits.retained));
        }
        if fingerprint.is_some_and(|fingerprint| self.seen.again(fingerprint)) {
            return Ok(Published::Repeated);
        }
        if let Some(pattern) = fresh {
            // What was before it is not known any more.
            let before = self.clock;
            self.logs.entry(pattern.clone()).or_insert_with(|| Log::starting_at(before));
        }
        let position = self.tick();
        let delivery = Arc::new(Delivery::new(PARTITION, position, channel, array));
        for pattern in expansion {
            let previous = self.change(pattern, |log| {
                if retained == Some(pattern) {
                    log.retention = retention;
                }
                log.append(delivery.clone())
            });
            if let Some(previous) = previous {
                announcer.message(pattern, previous, &delivery);
            }
        }
        Ok(Published::Stored(position))
    }

    /// Drops what is too old, from at most `limit` logs.
    pub(super) fn trim(&mut self, limit: usize) {
        let now = self.now_millis();
        for _ in 0..limit {
            let Some((_, pattern)) = self.aging.first().filter(|(due, _)| *due < now).cloned() else { return };
            self.change(&pattern, |_| ());
        }
    }
}

fn subscriptions_of(session: &Session) -> Vec<Subscription> {
    let subscription = |(pattern, start): (&Pattern, &Start)| Subscription {
        pattern: pattern.clone(),
        since: start.since,
        replay: start.replay,
    };
    session.subscriptions.iter().map(subscription).collect()
}
