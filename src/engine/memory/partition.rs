//! The memory engine's state behind its lock: sessions, logs, deadlines, the clock. Every method is one atomic step.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::time::Instant;

use super::log::Log;
use super::session::{Session, Settled};
use super::{Announcer, MemoryLimits};
use crate::bayeux::Pattern;
use crate::engine::sweep_pause;
use crate::engine::*;

/// The engine's only partition.
const PARTITION: PartitionId = PartitionId(0);

pub(super) struct Partition {
    limits: MemoryLimits,
    clock: Position,
    /// The wall clock when the engine started; afterwards only the monotonic clock counts.
    started_millis: u64,
    started: Instant,
    sessions: HashMap<SessionId, Session>,
    /// The sessions by deadline.
    deadlines: BTreeSet<(Instant, SessionId)>,
    logs: HashMap<Pattern, Log>,
    /// Logs that hold something, by the time at which their oldest entry may go.
    aging: BTreeSet<(u64, Pattern)>,
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
        let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self {
            limits,
            clock: Position::default(),
            started_millis: u64::try_from(since_epoch.as_millis()).unwrap_or(u64::MAX / 2048),
            started: Instant::now(),
            sessions: HashMap::new(),
            deadlines: BTreeSet::new(),
            logs: HashMap::new(),
            aging: BTreeSet::new(),
            bytes: 0,
            swept: None,
            spared_until: None,
            longest_lifetime: Duration::ZERO,
        }
    }

    fn now_millis(&self) -> u64 {
        // Half a billion years of uptime fit.
        self.started_millis + self.started.elapsed().as_millis() as u64
    }

    fn tick(&mut self) -> Position {
        self.clock = Position::after(self.clock, self.now_millis());
        self.clock
    }

    pub(super) fn sessions(&self) -> usize {
        self.sessions.len()
    }

    pub(super) fn create(&mut self, id: &SessionId, lifetime: Duration, max: usize) -> Create {
        if self.sessions.len() >= max {
            return Create::TooMany;
        }
        self.longest_lifetime = self.longest_lifetime.max(lifetime);
        let session = Session::new(lifetime, self.tick());
        self.deadlines.insert((session.deadline, id.clone()));
        self.sessions.insert(id.clone(), session);
        Create::Created
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

    pub(super) fn heartbeat(&mut self, id: &SessionId) -> Touch {
        match self.heard_of(id) {
            None => Touch::Unknown,
            Some(session) => {
                session.heartbeat();
                Touch::Alive
            }
        }
    }

    pub(super) fn end(&mut self, id: &SessionId, why: Ended, announcer: &mut Announcer<'_>) -> Option<EndedSession> {
        let session = self.sessions.remove(id)?;
        self.deadlines.remove(&(session.deadline, id.clone()));
        let patterns: Vec<_> = session.subscriptions.into_keys().collect();
        for pattern in &patterns {
            self.leave(pattern);
        }
        announcer.control(session.node.as_ref(), id, ControlKind::Ended(why));
        Some(EndedSession { session: id.clone(), patterns })
    }

    pub(super) fn expire(&mut self, id: &SessionId, announcer: &mut Announcer<'_>) -> Option<EndedSession> {
        let overdue = self.sessions.get(id).is_some_and(|session| session.deadline <= Instant::now());
        if overdue { self.end(id, Ended::Expired, announcer) } else { None }
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

    /// One subscriber less; the log goes with the last one.
    fn leave(&mut self, pattern: &Pattern) {
        let Some(log) = self.logs.get_mut(pattern) else { return };
        log.subscribers -= 1;
        if log.subscribers == 0 {
            self.bytes -= log.bytes();
            if let Some(oldest) = log.oldest_millis() {
                self.aging.remove(&(oldest, pattern.clone()));
            }
            self.logs.remove(pattern);
        }
    }

    pub(super) fn subscribe(
        &mut self,
        id: &SessionId,
        pattern: &Pattern,
        max: usize,
        announcer: &mut Announcer<'_>,
    ) -> Subscribe {
        let since = self.tick();
        let Some(session) = self.sessions.get_mut(id) else { return Subscribe::Unknown };
        if session.subscriptions.contains_key(pattern) {
            return Subscribe::Kept;
        }
        if session.subscriptions.len() >= max {
            return Subscribe::TooMany;
        }
        session.subscriptions.insert(pattern.clone(), since);
        session.version.0 += 1;
        self.logs.entry(pattern.clone()).or_insert_with(|| Log::starting_at(since)).subscribers += 1;
        announcer.control(session.node.as_ref(), id, ControlKind::Resubscribed { version: session.version });
        Subscribe::Added
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
        self.leave(pattern);
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
        let head = |pattern: &Pattern| self.logs.get(pattern).map(Log::head).unwrap_or_default();
        Attach::Attached(Attached {
            epoch: session.epoch,
            version: session.version,
            subscriptions: subscriptions_of(session),
            heads: session.subscriptions.keys().map(head).collect(),
            clock: Cursor::single(clock),
            cursor: Cursor::single(start),
            ceiling: ceiling.map(Cursor::single),
            first,
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
        session.record(request.connect_id, request.upto.get(PARTITION));
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
        let upto = item.cursor.get(PARTITION).min(self.clock);
        let Some(session) = self.sessions.get_mut(&item.session) else { return CommitOutcome::Unknown };
        if session.epoch != item.epoch {
            return CommitOutcome::Stale;
        }
        if session.version != item.version {
            return CommitOutcome::Outdated;
        }
        match item.progress {
            Progress::Confirmed => session.confirm(upto),
            Progress::Flushed => session.flush(upto),
        }
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
    ) -> Result<Position, EngineError> {
        if self.bytes + publication.array.len() > self.limits.total_bytes {
            return Err(EngineError::Full(self.limits.total_bytes));
        }
        let position = self.tick();
        let Publication { channel, array } = publication;
        let delivery = Arc::new(Delivery { partition: PARTITION, position, channel, array });
        let age = self.limits.log_age.as_millis() as u64;
        let oldest = Position::at_millis(position.millis().saturating_sub(age));
        for pattern in expansion {
            let Some(log) = self.logs.get_mut(pattern) else { continue };
            let aged_before = log.oldest_millis();
            let previous = log.append(delivery.clone());
            self.bytes += delivery.array.len();
            self.bytes -= log.trim(&self.limits, oldest);
            Self::note_age(&mut self.aging, pattern, aged_before, log.oldest_millis());
            announcer.message(pattern, previous, &delivery);
        }
        Ok(position)
    }

    fn note_age(aging: &mut BTreeSet<(u64, Pattern)>, pattern: &Pattern, before: Option<u64>, now: Option<u64>) {
        if before == now {
            return;
        }
        if let Some(before) = before {
            aging.remove(&(before, pattern.clone()));
        }
        if let Some(now) = now {
            aging.insert((now, pattern.clone()));
        }
    }

    /// Drops entries that are too old, from at most `limit` logs.
    pub(super) fn trim(&mut self, limit: usize) {
        let oldest = self.now_millis().saturating_sub(self.limits.log_age.as_millis() as u64);
        for _ in 0..limit {
            let Some((stored, pattern)) = self.aging.first().filter(|(stored, _)| *stored < oldest).cloned() else {
                return;
            };
            self.aging.pop_first();
            let Some(log) = self.logs.get_mut(&pattern) else { continue };
            self.bytes -= log.trim(&self.limits, Position::at_millis(oldest));
            Self::note_age(&mut self.aging, &pattern, Some(stored), log.oldest_millis());
        }
    }

    pub(super) fn read(&mut self, request: &ReadRequest<'_>, announcer: &mut Announcer<'_>) -> Read {
        let Some(session) = self.sessions.get(request.session) else { return Read::Unknown };
        if session.epoch != request.epoch {
            return Read::Stale;
        }
        if session.version != request.version {
            return Read::Outdated;
        }
        match self.snapshot(request) {
            Some(snapshot) => Read::Snapshot(snapshot),
            None => self.end(request.session, Ended::Gap, announcer).map_or(Read::Unknown, Read::Gap),
        }
    }

    /// All logs of the request at this moment; `None` when one of them no longer reaches back far enough.
    fn snapshot(&self, request: &ReadRequest<'_>) -> Option<Snapshot> {
        let mut found: Vec<&Arc<Delivery>> = Vec::new();
        for (pattern, from) in request.from {
            let tail = self.logs.get(pattern)?.past(*from);
            if tail.gap {
                return None;
            }
            // One more than may be given tells that there is more. What lies past a log's cut lies past the cut of all
            // logs together, because that many messages lie before it.
            found.extend(tail.deliveries.take(request.max_messages + 1));
        }
        found.sort_unstable_by_key(|delivery| delivery.position);
        found.dedup_by_key(|delivery| delivery.position);
        let mut bytes = 0;
        let mut fits = |index: usize, delivery: &Arc<Delivery>| {
            bytes += delivery.array.len();
            index < request.max_messages && (index == 0 || bytes <= request.max_bytes)
        };
        let count = found.iter().enumerate().take_while(|(index, delivery)| fits(*index, delivery)).count();
        let truncated = count < found.len();
        let deliveries: Vec<_> = found[..count].iter().map(|delivery| Arc::clone(delivery)).collect();
        let last = deliveries.last().map(|delivery| delivery.position);
        let upto = if truncated { last.unwrap_or_default() } else { self.clock };
        Some(Snapshot { deliveries, upto: Cursor::single(upto), truncated })
    }
}

fn subscriptions_of(session: &Session) -> Vec<Subscription> {
    let subscription =
        |(pattern, since): (&Pattern, &Position)| Subscription { pattern: pattern.clone(), since: *since };
    session.subscriptions.iter().map(subscription).collect()
}
