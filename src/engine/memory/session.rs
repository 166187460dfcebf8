//! One session in the memory engine, and the rules by which an attach settles what was delivered before
//! (`docs/design.md`, "Confirming delivery").

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use tokio::time::Instant;

use crate::bayeux::Pattern;
use crate::engine::*;

/// How many connect ids are remembered, to know late copies of old connects.
const REMEMBERED_IDS: usize = 8;
/// For how long a remembered id counts.
const REMEMBERED_FOR: Duration = Duration::from_secs(60);
/// Complete writes after which a repeated reply counts as received: the client has a constant id.
const WRITES_THAT_CONFIRM: u8 = 3;

/// How long after a stream opened a poll may still come that was sent before.
const CROSSING: Duration = Duration::from_secs(2);
/// Streams that take a session from each other this often within [`FIGHT_WINDOW`] are two tabs, not one that reconnects.
const FIGHT: u32 = 3;
const FIGHT_WINDOW: Duration = Duration::from_secs(10);

/// A session's durable state.
pub(super) struct Session {
    pub(super) lifetime: Duration,
    /// When it ends unless it is heard of.
    pub(super) deadline: Instant,
    pub(super) epoch: Epoch,
    pub(super) version: Version,
    /// Who attached it last; `None` after an orderly detach.
    pub(super) node: Option<NodeId>,
    /// The newest attachment is an event stream.
    stream: bool,
    /// The connect that made the newest attachment.
    attached_by: Option<Box<str>>,
    /// All up to here was received, or published before the session.
    pub(super) cursor: Position,
    pub(super) subscriptions: BTreeMap<Pattern, Start>,
    pub(super) traits: Traits,
    /// When the client last did something of its own accord.
    pub(super) active: Instant,
    /// What the last poll's reply carried and nobody confirmed yet.
    pending: Option<Pending>,
    /// The newest connect ids, newest last.
    recent: VecDeque<(Box<str>, Instant)>,
    /// The newest connect was answered without messages.
    concluded: bool,
    /// The last connect was taken for a late copy; the next one is not.
    late_before: bool,
    /// By its client's word that one was a retry. So it may have been no copy, but a client that started its ids again (a
    /// page that was loaded again): the next connect confirms nothing.
    late_retry: bool,
    attached_before: bool,
    /// When the newest stream opened; taken by the first poll that comes after it.
    stream_opened: Option<Instant>,
    /// Streams that took the session from a stream: since when, and how many.
    streams: Option<(Instant, u32)>,
    /// Heartbeats that come sooner confirm nothing: what was written must have had time to arrive, or to fail visibly.
    heartbeat_after: Option<Instant>,
    /// Written to an event stream since the last heartbeat.
    flushed: Option<Flushed>,
    /// Written before the last heartbeat: the next one confirms it.
    flushed_before: Option<Flushed>,
}

/// Where a subscription starts.
#[derive(Clone, Copy)]
pub(super) struct Start {
    pub(super) since: Position,
    /// A replay is due, of what lies past this.
    pub(super) replay: Option<Position>,
    /// Its beginning was not kept.
    pub(super) gap: bool,
}

/// What was written to an event stream.
struct Flushed {
    upto: Position,
    replays: Vec<Replayed>,
}

struct Pending {
    connect_id: Option<Box<str>>,
    upto: Reach,
    /// Complete writes of repetitions.
    writes: u8,
}

/// What settling said.
pub(super) enum Settled {
    /// Deliver what lies past `start`, and nothing past `ceiling`.
    Deliver {
        start: Position,
        ceiling: Option<Reach>,
    },
    Late,
    Closed,
}

impl Session {
    pub(super) fn new(lifetime: Duration, traits: Traits, start: Position) -> Self {
        Self {
            traits,
            active: Instant::now(),
            lifetime,
            deadline: Instant::now() + lifetime,
            epoch: Epoch(0),
            version: Version(0),
            node: None,
            stream: false,
            attached_by: None,
            cursor: start,
            subscriptions: BTreeMap::new(),
            pending: None,
            recent: VecDeque::new(),
            concluded: false,
            late_before: false,
            late_retry: false,
            attached_before: false,
            stream_opened: None,
            streams: None,
            heartbeat_after: None,
            flushed: None,
            flushed_before: None,
        }
    }

    /// Decides what an attach confirms and where it starts. `clock` bounds positions that come from a client.
    pub(super) fn settle(&mut self, link: &Link<'_>, clock: Position) -> Settled {
        match *link {
            Link::Poll { connect_id, retry, claim } => {
                if connect_id.is_some_and(|id| self.is_late(id)) {
                    (self.late_before, self.late_retry) = (true, retry);
                    return Settled::Late;
                }
                self.late_before = false;
                let retry = std::mem::take(&mut self.late_retry) | retry;
                if self.left_before_the_stream(connect_id, retry) {
                    // Answered empty: a copy of it is late too.
                    self.remember(connect_id);
                    self.concluded = true;
                    return Settled::Late;
                }
                match self.counts(claim) {
                    Some(claim) => self.settle_claim(connect_id, retry, claim, clock),
                    None => self.settle_poll(connect_id, retry),
                }
            }
            Link::Socket { connect_id, retry, claim } => {
                self.late_before = false;
                let retry = std::mem::take(&mut self.late_retry) | retry;
                if let Some(claim) = self.counts(claim) {
                    self.settle_claim(connect_id, retry, claim, clock);
                } else if !self.repeats(connect_id, retry) {
                    self.confirm_pending();
                }
                // A repetition clears the record: the socket's own pongs confirm from here.
                self.pending = None;
                self.remember(connect_id);
                Settled::Deliver { start: self.cursor, ceiling: None }
            }
            Link::Stream { last_event } => self.settle_stream(last_event, clock),
            Link::Local => {
                self.confirm_pending();
                Settled::Deliver { start: self.cursor, ceiling: None }
            }
        }
    }

    /// Whether a poll was sent before the client knew that its stream is open: once, right after the stream opened. It
    /// must not take the session from the stream; its client turns to the stream by itself.
    fn left_before_the_stream(&mut self, connect_id: Option<&str>, retry: bool) -> bool {
        let opened = self.stream_opened.take();
        let just_opened = opened.is_some_and(|opened| opened.elapsed() < CROSSING);
        just_opened && self.stream && self.node.is_some() && connect_id.is_some() && !self.repeats(connect_id, retry)
    }

    fn settle_poll(&mut self, connect_id: Option<&str>, retry: bool) -> Settled {
        let repeats = self.repeats(connect_id, retry);
        self.remember(connect_id);
        if !repeats {
            self.confirm_pending();
            return Settled::Deliver { start: self.cursor, ceiling: None };
        }
        let ceiling = self.pending.as_mut().map(|pending| {
            if pending.connect_id.as_deref() != connect_id {
                // A client that changes its ids has no constant one.
                pending.writes = 0;
                pending.connect_id = connect_id.map(Into::into);
            }
            pending.upto.clone()
        });
        Settled::Deliver { start: self.cursor, ceiling }
    }

    /// The claim, if the session asked for it when it was made.
    fn counts<'a>(&self, claim: Option<Claim<'a>>) -> Option<Claim<'a>> {
        claim.filter(|claim| match claim {
            Claim::Ack(_) => self.traits.ack,
            Claim::Position(_) => self.traits.resume,
        })
    }

    /// The client says itself what it has; of replays, which it does not speak about, another id speaks.
    fn settle_claim(&mut self, connect_id: Option<&str>, retry: bool, claim: Claim<'_>, clock: Position) -> Settled {
        let repeats = self.repeats(connect_id, retry);
        self.remember(connect_id);
        match claim {
            Claim::Ack(upto) => self.cursor = self.cursor.max(upto.min(clock)),
            Claim::Position(at) => self.cursor = at.get(PartitionId::default()).min(clock),
        }
        let ceiling = match self.pending.take() {
            Some(pending) if repeats && !pending.upto.replays.is_empty() => {
                let ceiling = pending.upto.clone();
                self.pending = Some(Pending { connect_id: connect_id.map(Into::into), ..pending });
                Some(ceiling)
            }
            Some(pending) if !repeats => {
                self.replayed(&pending.upto.replays);
                None
            }
            _ => None,
        };
        Settled::Deliver { start: self.cursor, ceiling }
    }

    /// Notes how far replays were received.
    fn replayed(&mut self, replays: &[Replayed]) {
        for moved in replays {
            let Some(start) = self.subscriptions.get_mut(&moved.pattern) else { continue };
            // Of an older subscription to the channel it says nothing about this one.
            if start.since == moved.since && start.replay.is_some_and(|from| from < moved.upto) {
                start.replay = Some(moved.upto).filter(|upto| *upto < start.since);
            }
        }
    }

    /// The replays that a reply carries which nobody confirmed yet: a stream goes on behind them.
    pub(super) fn carried(&self) -> &[Replayed] {
        self.pending.as_ref().map_or(&[], |pending| &pending.upto.replays)
    }

    /// Opening a stream confirms nothing; it starts after what a poll's reply may just be carrying. Not so where the client
    /// remembers its position: that must not pass anything that may not have arrived, and what comes again it knows.
    fn settle_stream(&mut self, last_event: Option<&LastEvent>, clock: Position) -> Settled {
        if let Some(last) = last_event {
            // A browser whose last answer was lost comes with an old epoch too: only where streams fight over the
            // session, the loser stays closed.
            let fought_over =
                self.streams.is_some_and(|(since, count)| since.elapsed() < FIGHT_WINDOW && count >= FIGHT);
            if fought_over && last.epoch < self.epoch {
                return Settled::Closed;
            }
        }
        if self.traits.resume {
            return Settled::Deliver { start: self.cursor, ceiling: None };
        }
        let last = last_event.map(|last| last.cursor.get(PartitionId::default()).min(clock)).unwrap_or_default();
        match &self.pending {
            // What a poll's reply carries lies below the events of the stream, and may not have arrived.
            Some(pending) => {
                let carried = pending.upto.cursor.get(PartitionId::default());
                Settled::Deliver { start: carried.max(self.cursor).max(last), ceiling: None }
            }
            None => {
                self.cursor = self.cursor.max(last);
                Settled::Deliver { start: self.cursor, ceiling: None }
            }
        }
    }

    /// Whether a connect asks again for what the last reply carried.
    fn repeats(&self, connect_id: Option<&str>, retry: bool) -> bool {
        let Some(pending) = &self.pending else { return false };
        if pending.writes >= WRITES_THAT_CONFIRM {
            return false;
        }
        (connect_id.is_some() && pending.connect_id.as_deref() == connect_id) || (retry && self.attached_before)
    }

    /// Whether the id belongs to a connect that is over: an older one than the newest, or the newest itself once it was
    /// answered empty (messages under its id would be confirmed by a client that has moved on). Never twice in a row: a
    /// client that starts its ids again must get on.
    fn is_late(&self, connect_id: &str) -> bool {
        let newest = self.recent.back().is_some_and(|(id, _)| **id == *connect_id);
        let known = self.recent.iter().any(|(id, seen)| **id == *connect_id && seen.elapsed() < REMEMBERED_FOR);
        known && (!newest || self.concluded) && !self.late_before
    }

    fn remember(&mut self, connect_id: Option<&str>) {
        self.concluded = false;
        let Some(connect_id) = connect_id else { return };
        self.recent.retain(|(id, _)| **id != *connect_id);
        if self.recent.len() == REMEMBERED_IDS {
            self.recent.pop_front();
        }
        self.recent.push_back((connect_id.into(), Instant::now()));
    }

    fn confirm_pending(&mut self) {
        if let Some(pending) = self.pending.take() {
            self.cursor = self.cursor.max(pending.upto.cursor.get(PartitionId::default()));
            self.replayed(&pending.upto.replays);
        }
    }

    /// A new attachment by `node`; gives whether it is the first one, and the node that held the session before.
    pub(super) fn take_over(&mut self, node: &NodeId, link: &Link<'_>) -> (bool, Option<NodeId>) {
        let first = !std::mem::replace(&mut self.attached_before, true);
        self.epoch.0 += 1;
        let stream = matches!(link, Link::Stream { .. });
        if stream && self.stream && self.node.is_some() {
            let (since, count) = self.streams.unwrap_or((Instant::now(), 0));
            let fresh = since.elapsed() < FIGHT_WINDOW;
            self.streams = Some(if fresh { (since, count + 1) } else { (Instant::now(), 1) });
        }
        self.stream = stream;
        self.stream_opened = stream.then(Instant::now);
        self.attached_by = match link {
            Link::Poll { connect_id, .. } | Link::Socket { connect_id, .. } => connect_id.map(Into::into),
            Link::Stream { .. } | Link::Local => None,
        };
        self.heartbeat_after = None;
        self.flushed = None;
        self.flushed_before = None;
        (first, self.node.replace(node.clone()))
    }

    /// Whether a copy of this connect carries messages, or may still come to: it must get no empty answer.
    pub(super) fn is_answered_elsewhere(&self, connect_id: Option<&str>) -> bool {
        let recorded = self.pending.as_ref().is_some_and(|pending| pending.connect_id.as_deref() == connect_id);
        connect_id.is_some() && (recorded || self.attached_by.as_deref() == connect_id)
    }

    pub(super) fn record(&mut self, connect_id: Option<&str>, upto: Reach) {
        let writes = match &self.pending {
            Some(pending) if pending.connect_id.as_deref() == connect_id => pending.writes,
            _ => 0,
        };
        self.pending = Some(Pending { connect_id: connect_id.map(Into::into), upto, writes });
    }

    /// Whether the poll may be answered empty; if so, it is over.
    pub(super) fn conclude(&mut self, connect_id: Option<&str>, vain: bool) -> bool {
        let recorded = self.pending.as_ref().is_some_and(|pending| pending.connect_id.as_deref() == connect_id);
        let may_be_empty = vain || connect_id.is_none() || !recorded;
        self.concluded = may_be_empty;
        may_be_empty
    }

    /// The poll is over, and a record of it that comes even later is stale.
    pub(super) fn release(&mut self, connect_id: Option<&str>) {
        if self.attached_by.as_deref() != connect_id {
            return;
        }
        self.epoch.0 += 1;
        self.node = None;
        if self.pending.as_ref().is_some_and(|pending| pending.connect_id.as_deref() == connect_id) {
            self.pending = None;
        }
    }

    pub(super) fn written(&mut self) {
        if let Some(pending) = &mut self.pending {
            pending.writes = pending.writes.saturating_add(1);
        }
    }

    /// Moves the cursor; what a poll carried below it needs no confirmation any more.
    fn confirm(&mut self, upto: Position) {
        self.cursor = self.cursor.max(upto);
        let carried = |pending: &Pending| {
            pending.upto.cursor.get(PartitionId::default()) <= self.cursor && pending.upto.replays.is_empty()
        };
        if self.pending.as_ref().is_some_and(carried) {
            self.pending = None;
        }
    }

    /// Progress of a socket or stream, up to `upto` with the live messages.
    pub(super) fn progress(&mut self, progress: Progress, upto: Position, replays: &[Replayed]) {
        match progress {
            Progress::Confirmed => {
                self.confirm(upto);
                self.replayed(replays);
            }
            Progress::Flushed => {
                let upto = self.flushed.as_ref().map_or(upto, |flushed| flushed.upto.max(upto));
                // Each report holds all before it.
                self.flushed = Some(Flushed { upto, replays: replays.to_vec() });
            }
        }
    }

    /// A stream's heartbeat: what was written one heartbeat ago has had time to arrive, or to fail visibly. Of live messages
    /// a client that remembers its position speaks for itself.
    pub(super) fn heartbeat(&mut self, claim: Option<&Cursor>, clock: Position) {
        let now = Instant::now();
        let claim = claim.filter(|_| self.traits.resume);
        if let Some(at) = claim {
            self.confirm(at.get(PartitionId::default()).min(clock));
        }
        if !self.stream || self.node.is_none() || self.heartbeat_after.is_some_and(|due| now < due) {
            return;
        }
        // A quarter of the lifetime is half a time-out.
        self.heartbeat_after = Some(now + self.lifetime / 4);
        if let Some(Flushed { upto, replays }) = self.flushed_before.take() {
            if !self.traits.resume {
                self.confirm(upto);
            }
            self.replayed(&replays);
            self.flushed_before = Some(Flushed { upto, replays });
        }
        if let Some(flushed) = self.flushed.take() {
            self.flushed_before = Some(flushed);
        }
    }
}
