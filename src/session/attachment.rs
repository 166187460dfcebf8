//! One attachment: the state that merges what the log held with what the feed brings, and the bounded outbox.
//!
//! Deliveries rise strictly in position: the `queued` frontier is the only duplicate check. While the attachment is
//! [`Mode::Joining`] nothing leaves it; what the feed brings is kept aside and merged after the read. One that cannot
//! keep up is [`Mode::Behind`]: it leaves the live path and reads the logs again once its outbox is empty. While a replay
//! is due it is [`Mode::Replaying`]: the outbox holds a chunk of it, and everything live stays in the logs.

use std::collections::VecDeque;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::bayeux::Pattern;
use crate::engine::{
    Attached, Commit, Cursor, Delivery, Ended, Epoch, Form, Position, Progress, Reach, Replayed, SessionId, Snapshot,
    Subscription, Traits, Version,
};
use crate::hub::{MemberId, Receiver};

/// Bounds of an attachment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Messages that may wait in the outbox.
    pub outbox_messages: usize,
    /// Bytes that may wait in the outbox (one message may exceed it).
    pub outbox_bytes: usize,
}

/// Why an attachment is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// A newer attachment took the session.
    Superseded {
        /// By a copy of the same connect: the client waits for the other reply.
        same_id: bool,
        /// It happens again and again (two tabs with one session): answer late.
        contended: bool,
    },
    /// The engine says that a newer attachment holds the session.
    Stale,
    /// The session is no more.
    Session(Ended),
    /// The node stops.
    Stopping,
}

/// What a transport has to do next for its attachment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Stop.
    Ended(End),
    /// Call [`super::Sessions::refresh`].
    Refresh,
    /// Take and send what waits.
    Ready,
}

/// Names one run of a refresh: whatever happens meanwhile makes it void.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Ticket {
    generation: u32,
    /// The subscriptions have to be read first.
    pub(super) resync: bool,
    /// The outbox had been full.
    pub(super) behind: bool,
}

/// What a transport has taken, to send it in this order.
#[derive(Debug, Default)]
pub struct Batch {
    /// The messages.
    pub deliveries: Vec<Arc<Delivery>>,
    /// In which form.
    pub form: Form,
    /// To be told first: messages are missing. Nothing more comes of what lies up to here.
    pub gap: Option<Cursor>,
}

impl Batch {
    /// Whether there is nothing to say.
    pub fn is_empty(&self) -> bool {
        self.deliveries.is_empty() && self.gap.is_none()
    }
}

/// The part of a replay that is to be read next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ReplayPlan {
    pub(super) pattern: Pattern,
    pub(super) since: Position,
    pub(super) from: Position,
}

/// A session held by a poll, socket, stream or local client of this node.
pub struct Attachment {
    session: SessionId,
    epoch: Epoch,
    connect_id: Option<Box<str>>,
    /// A repeated poll delivers nothing past this.
    ceiling: Option<Reach>,
    traits: Traits,
    member: MemberId,
    limits: Limits,
    state: Mutex<State>,
    changed: Notify,
}

struct State {
    mode: Mode,
    /// A refresh is due and nobody runs it yet.
    due: bool,
    /// The due refresh has to read the subscriptions too.
    resync: bool,
    generation: u32,
    /// From the feed, while joining.
    held: Vec<Arc<Delivery>>,
    held_bytes: usize,
    /// More came from the feed while joining than may be kept: read on from the log.
    overflowed: bool,
    outbox: VecDeque<Arc<Delivery>>,
    outbox_bytes: usize,
    /// Everything up to here is in the outbox, was taken, or is not for this session.
    queued: Cursor,
    /// Everything up to here was taken by the transport. Replays move only here.
    sent: Reach,
    /// Everything up to here has arrived at the client.
    confirmed: Reach,
    /// The chunk of a replay that is in the outbox, and whether nothing comes after it.
    replaying: Option<(Pattern, Position, bool)>,
    /// Not told yet: messages are missing.
    gap: Option<Cursor>,
    version: Version,
    subscriptions: Vec<Subscription>,
    end: Option<End>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    Joining,
    Live,
    Behind,
    Replaying,
}

impl Attachment {
    pub(super) fn new(
        session: SessionId,
        attached: Attached,
        connect_id: Option<&str>,
        member: MemberId,
        limits: Limits,
    ) -> Self {
        let Attached { epoch, version, subscriptions, cursor, ceiling, traits, .. } = attached;
        let state = State {
            mode: Mode::Joining,
            due: true,
            resync: false,
            generation: 0,
            held: Vec::new(),
            held_bytes: 0,
            overflowed: false,
            outbox: VecDeque::new(),
            outbox_bytes: 0,
            queued: cursor.clone(),
            sent: cursor.clone().into(),
            confirmed: cursor.into(),
            replaying: None,
            gap: None,
            version,
            subscriptions,
            end: None,
        };
        let connect_id = connect_id.map(Into::into);
        let (state, changed) = (Mutex::new(state), Notify::new());
        Self { session, epoch, connect_id, ceiling, traits, member, limits, state, changed }
    }

    /// The session.
    pub fn session(&self) -> &SessionId {
        &self.session
    }

    /// The epoch under which it writes.
    pub fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// The connect that made it.
    pub fn connect_id(&self) -> Option<&str> {
        self.connect_id.as_deref()
    }

    pub(super) fn member(&self) -> MemberId {
        self.member
    }

    /// What the session asked for when it was made.
    pub fn traits(&self) -> Traits {
        self.traits
    }

    pub(super) fn ceiling(&self) -> Option<&Reach> {
        self.ceiling.as_ref()
    }

    /// Waits until there is something to do. Cancel-safe. One waiter at a time.
    pub async fn next(&self) -> Step {
        loop {
            let changed = self.changed.notified();
            if let Some(step) = self.step() {
                return step;
            }
            changed.await;
        }
    }

    /// As [`Attachment::next`] for a transport that must not send now.
    pub async fn next_but_ready(&self) -> Step {
        loop {
            let changed = self.changed.notified();
            if let Some(step) = self.step().filter(|step| *step != Step::Ready) {
                return step;
            }
            changed.await;
        }
    }

    /// What there is to do, if anything.
    pub fn step(&self) -> Option<Step> {
        let state = self.state.lock();
        match (state.end, state.mode) {
            (Some(end), _) => Some(Step::Ended(end)),
            (None, Mode::Joining) => state.due.then_some(Step::Refresh),
            (None, Mode::Live) => state.has_news().then_some(Step::Ready),
            (None, Mode::Behind | Mode::Replaying) => Some(if state.has_news() { Step::Ready } else { Step::Refresh }),
        }
    }

    /// Why it is over, if it is.
    pub fn ended(&self) -> Option<End> {
        self.state.lock().end
    }

    /// Ends it. The first reason stays.
    pub(super) fn end(&self, end: End) {
        let mut state = self.state.lock();
        if state.end.is_none() {
            state.end = Some(end);
            state.outbox = VecDeque::new();
            state.outbox_bytes = 0;
            state.held = Vec::new();
        }
        drop(state);
        self.changed.notify_one();
    }

    /// Everything not sent yet is in doubt: hold all, read again from the last position sent.
    pub(super) fn hold(&self, resync: bool) {
        let mut state = self.state.lock();
        state.mode = Mode::Joining;
        state.due = true;
        state.resync |= resync;
        state.generation = state.generation.wrapping_add(1);
        state.rewind();
        drop(state);
        self.changed.notify_one();
    }

    /// As `hold(true)`, unless this version is known already.
    pub(super) fn resubscribed(&self, version: Version) {
        if self.state.lock().version < version {
            self.hold(true);
        }
    }

    /// Takes what waits, in order, up to about `max_bytes` (but at least one message, if any).
    pub fn take(&self, max_bytes: usize) -> Batch {
        let mut state = self.state.lock();
        if state.mode == Mode::Joining {
            return Batch::default();
        }
        let (mut count, mut bytes) = (0, 0);
        let top = self.ceiling.as_ref().map(|ceiling| match &state.replaying {
            Some((pattern, since, _)) => Cursor::single(ceiling.replayed(pattern, *since).unwrap_or_default()),
            None => ceiling.cursor.clone(),
        });
        for delivery in &state.outbox {
            let beyond = top.as_ref().is_some_and(|top| delivery.position > top.get(delivery.partition));
            if beyond || (count > 0 && bytes + delivery.array.len() > max_bytes) {
                break;
            }
            bytes += delivery.array.len();
            count += 1;
        }
        let deliveries: Vec<_> = state.outbox.drain(..count).collect();
        state.outbox_bytes -= bytes;
        let replayed = state.note_taken(&deliveries);
        let gap = state.gap.take();
        if let Some(told) = &gap {
            state.sent.cursor.raise_all(told);
        }
        if state.outbox.is_empty() && state.outbox.capacity() > 64 {
            state.outbox = VecDeque::new();
        }
        let form = match self.traits.positions() {
            false => Form::Plain,
            true if replayed => Form::Replayed,
            true => Form::Positioned,
        };
        Batch { deliveries, form, gap }
    }

    /// Nothing of what was taken since `sent` left the node after all: all of it is due again.
    pub(super) fn untake(&self, sent: Reach) {
        self.state.lock().sent = sent;
        self.hold(true);
    }

    /// The client has less than was sent: everything past what it has is due again.
    pub fn rewind(&self, cursor: &Cursor) {
        {
            let mut state = self.state.lock();
            let mut sent = state.confirmed.cursor.clone();
            sent.raise_all(cursor);
            state.sent.cursor = sent;
        }
        self.hold(false);
    }

    /// How far the transport has taken.
    pub fn sent(&self) -> Reach {
        self.state.lock().sent.clone()
    }

    /// Everything up to `cursor` has arrived (or, for a stream, was written). Clamped to what was sent.
    pub(super) fn confirm(&self, upto: &Reach) {
        let mut state = self.state.lock();
        let clamped: Cursor = {
            let sent = state.sent.cursor.positions().iter();
            let asked = upto.cursor.positions().iter().copied().chain(std::iter::repeat(Position::default()));
            sent.zip(asked).map(|(sent, asked)| asked.min(*sent)).collect()
        };
        state.confirmed.cursor.raise_all(&clamped);
        for moved in &upto.replays {
            let Some(sent) = state.sent.replayed(&moved.pattern, moved.since) else { continue };
            state.confirmed.raise_replay(&Replayed { upto: moved.upto.min(sent), ..moved.clone() });
        }
    }

    /// What a commit or detach reports.
    pub(super) fn progress(&self, progress: Progress) -> Commit {
        let state = self.state.lock();
        Commit {
            session: self.session.clone(),
            epoch: self.epoch,
            version: state.version,
            upto: state.confirmed.clone(),
            progress,
        }
    }

    pub(super) fn version(&self) -> Version {
        self.state.lock().version
    }

    pub(super) fn patterns(&self) -> Vec<Pattern> {
        self.state.lock().subscriptions.iter().map(|subscription| subscription.pattern.clone()).collect()
    }

    /// Starts a refresh; `None` when it is over.
    pub(super) fn begin_refresh(&self) -> Option<Ticket> {
        let mut state = self.state.lock();
        if state.end.is_some() {
            return None;
        }
        let behind = state.mode == Mode::Behind;
        if behind || state.mode == Mode::Replaying {
            state.generation = state.generation.wrapping_add(1);
        }
        state.mode = Mode::Joining;
        state.due = false;
        state.held = Vec::new();
        state.held_bytes = 0;
        state.overflowed = false;
        Some(Ticket { generation: state.generation, resync: state.resync, behind })
    }

    /// The refresh failed: another one is due.
    pub(super) fn abandon_refresh(&self) {
        self.state.lock().due = true;
        self.changed.notify_one();
    }

    /// New subscriptions; gives those to join and those to leave.
    pub(super) fn resubscribe(
        &self,
        version: Version,
        subscriptions: Vec<Subscription>,
    ) -> (Vec<Pattern>, Vec<Pattern>) {
        let missing = |from: &[Subscription], other: &[Subscription]| {
            let known = |pattern: &Pattern| other.iter().any(|subscription| subscription.pattern == *pattern);
            from.iter().map(|subscription| &subscription.pattern).filter(|pattern| !known(pattern)).cloned().collect()
        };
        let mut state = self.state.lock();
        let joined = missing(&subscriptions, &state.subscriptions);
        let left = missing(&state.subscriptions, &subscriptions);
        state.version = version;
        state.subscriptions = subscriptions;
        state.resync = false;
        (joined, left)
    }

    /// The replay that is due next, if any: before anything live. A repeated poll replays only what it did before.
    pub(super) fn next_replay(&self) -> Option<ReplayPlan> {
        let state = self.state.lock();
        state.subscriptions.iter().find_map(|one| {
            let from = one.replay?.max(state.sent.replayed(&one.pattern, one.since).unwrap_or_default());
            let upto = match &self.ceiling {
                Some(ceiling) => ceiling.replayed(&one.pattern, one.since).unwrap_or_default(),
                None => one.since,
            };
            (from < upto).then(|| ReplayPlan { pattern: one.pattern.clone(), since: one.since, from })
        })
    }

    /// Puts a chunk of a replay into the outbox. False when there is more to do: the refresh is void, or the replay is
    /// through.
    pub(super) fn finish_replay(
        &self,
        ticket: Ticket,
        plan: ReplayPlan,
        deliveries: Vec<Arc<Delivery>>,
        through: bool,
    ) -> bool {
        let mut state = self.state.lock();
        if state.end.is_some() {
            return true;
        }
        if state.generation != ticket.generation || state.resync {
            return false;
        }
        let ReplayPlan { pattern, since, .. } = plan;
        if deliveries.is_empty() {
            state.sent.raise_replay(&Replayed { pattern, since, upto: since });
            return false;
        }
        state.mode = Mode::Replaying;
        state.held = Vec::new();
        state.held_bytes = 0;
        state.overflowed = false;
        state.outbox_bytes = deliveries.iter().map(|delivery| delivery.array.len()).sum();
        state.outbox = deliveries.into();
        state.replaying = Some((pattern, since, through));
        drop(state);
        self.changed.notify_one();
        true
    }

    /// Each log with the position after which it has to be read.
    pub(super) fn reading_plan(&self) -> Vec<(Pattern, Position)> {
        let state = self.state.lock();
        // Position is per partition; with one partition its frontier is the first.
        let frontier = state.queued.positions().first().copied().unwrap_or_default();
        state.subscriptions.iter().map(|one| (one.pattern.clone(), one.since.max(frontier))).collect()
    }

    /// Starts without reading: the logs hold nothing for the session up to `clock`, and what came since was offered.
    pub(super) fn start_warm(&self, clock: Cursor) {
        if let Some(ticket) = self.begin_warm() {
            self.finish_refresh(
                ticket,
                Some(&Snapshot { deliveries: Vec::new(), upto: clock, truncated: false, gap: false }),
            );
        }
    }

    /// As [`Attachment::begin_refresh`], keeping what the feed has brought since the attachment joined.
    fn begin_warm(&self) -> Option<Ticket> {
        let mut state = self.state.lock();
        // Whatever was told since it joined wants a read.
        if state.end.is_some() || state.generation != 0 || state.resync || !state.due {
            return None;
        }
        state.due = false;
        Some(Ticket { generation: 0, resync: false, behind: false })
    }

    /// Merges the logs as read with what the feed brought meanwhile. False when the refresh is void and must run again.
    pub(super) fn finish_refresh(&self, ticket: Ticket, snapshot: Option<&Snapshot>) -> bool {
        let mut state = self.state.lock();
        if state.end.is_some() {
            return true;
        }
        if state.generation != ticket.generation || state.resync {
            return false;
        }
        state.mode = Mode::Live;
        state.replaying = None;
        if let Some(snapshot) = snapshot {
            if snapshot.gap {
                // Up to the first message that is left: whoever is told so must not take that one for old.
                let before_first = |first: &Arc<Delivery>| Cursor::single(Position(first.position.0.saturating_sub(1)));
                state.gap = Some(snapshot.deliveries.first().map_or_else(|| snapshot.upto.clone(), before_first));
            }
            for delivery in &snapshot.deliveries {
                state.enqueue(delivery, &self.limits);
            }
            if state.mode == Mode::Live {
                state.queued.raise_all(&snapshot.upto);
                if snapshot.truncated || state.overflowed {
                    state.mode = Mode::Behind;
                }
            }
        }
        let mut held = std::mem::take(&mut state.held);
        // The feed is in order per log; logs of one partition come in order too, but a repaired one may not.
        held.sort_by_key(|delivery| (delivery.partition, delivery.position));
        for delivery in &held {
            state.enqueue(delivery, &self.limits);
        }
        drop(state);
        self.changed.notify_one();
        true
    }
}

impl State {
    /// Whether there is something to take.
    fn has_news(&self) -> bool {
        !self.outbox.is_empty() || self.gap.is_some()
    }

    /// Notes that these were taken; gives whether they belong to a replay.
    fn note_taken(&mut self, deliveries: &[Arc<Delivery>]) -> bool {
        let Some((pattern, since, through)) = &self.replaying else {
            for delivery in deliveries {
                self.sent.cursor.raise(delivery.partition, delivery.position);
            }
            return false;
        };
        let last = deliveries.last().map(|delivery| delivery.position);
        let upto = if *through && self.outbox.is_empty() { Some(*since) } else { last };
        if let Some(upto) = upto {
            self.sent.raise_replay(&Replayed { pattern: pattern.clone(), since: *since, upto });
        }
        true
    }

    /// Forgets what was not sent.
    fn rewind(&mut self) {
        self.queued = self.sent.cursor.clone();
        self.replaying = None;
        // Found again by the next read.
        self.gap = None;
        self.outbox.clear();
        self.outbox_bytes = 0;
        self.held.clear();
        self.held_bytes = 0;
    }

    /// Puts a message into the outbox if it is due and there is room; without room the session falls behind.
    fn enqueue(&mut self, delivery: &Arc<Delivery>, limits: &Limits) {
        if self.mode != Mode::Live || delivery.position <= self.queued.get(delivery.partition) {
            return;
        }
        let full = self.outbox.len() >= limits.outbox_messages
            || (self.outbox_bytes + delivery.array.len() > limits.outbox_bytes && !self.outbox.is_empty());
        if full {
            self.mode = Mode::Behind;
            return;
        }
        self.queued.raise(delivery.partition, delivery.position);
        self.outbox_bytes += delivery.array.len();
        self.outbox.push_back(delivery.clone());
    }
}

impl Receiver for Attachment {
    fn offer(&self, log: &Pattern, delivery: &Arc<Delivery>) {
        let mut state = self.state.lock();
        let Some(subscription) = state.subscriptions.iter().find(|subscription| subscription.pattern == *log) else {
            return;
        };
        if state.end.is_some()
            || delivery.position <= subscription.since
            || delivery.position <= state.queued.get(delivery.partition)
        {
            return;
        }
        match state.mode {
            Mode::Live => {
                let was_empty = state.outbox.is_empty();
                state.enqueue(delivery, &self.limits);
                drop(state);
                if was_empty {
                    self.changed.notify_one();
                }
            }
            Mode::Joining
                if state.held.len() >= self.limits.outbox_messages || state.held_bytes > self.limits.outbox_bytes =>
            {
                state.held = Vec::new();
                state.overflowed = true;
            }
            Mode::Joining if state.overflowed => {}
            Mode::Joining => {
                state.held_bytes += delivery.array.len();
                state.held.push(delivery.clone());
            }
            Mode::Behind | Mode::Replaying => {}
        }
    }

    fn missed(&self, all: bool) {
        self.hold(all);
    }
}
