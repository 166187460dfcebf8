//! One attachment: what a transport holds of a session, and what the feed offers to.
//!
//! While it is [`Mode::Joining`] nothing leaves it; what the feed brings is kept aside and merged after the read. One that
//! cannot keep up is [`Mode::Behind`]: it leaves the live path and reads the logs again once its outbox is empty. While a
//! replay is due it is [`Mode::Replaying`]: the outbox holds a chunk of it, and everything live stays in the logs.

use std::collections::VecDeque;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::Notify;

pub use super::outbox::{End, Gap, Limits};
use super::outbox::{Mode, State};
use crate::bayeux::Pattern;
use crate::engine::Subscription;
use crate::engine::{
    Attached, Commit, Cursor, Delivery, Epoch, Form, LinkKind, Position, Progress, Reach, Replayed, SessionId, Traits,
    Version,
};
use crate::hub::{MemberId, Receiver};

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

/// What a transport has taken, to send it in this order.
#[derive(Debug, Default)]
pub struct Batch {
    /// The messages.
    pub deliveries: Vec<Arc<Delivery>>,
    /// In which form.
    pub form: Form,
    /// They belong to a replay: they lie below what came before, and have a confirmation of their own.
    pub replayed: bool,
    /// To be told first.
    pub gap: Option<Gap>,
}

impl Batch {
    /// Whether there is nothing to say.
    pub fn is_empty(&self) -> bool {
        self.deliveries.is_empty() && self.gap.is_none()
    }
}

/// Where the messages of an attachment can leave at once, without waking its transport.
pub trait Outlet: Send + Sync {
    /// Writes what waits in the outbox of `source`, by [`Attachment::take_live`], or leaves it to the transport. Called
    /// from the fan-out: must not block. `scratch` is room to encode in.
    fn push(&self, source: &Attachment, scratch: &mut Vec<u8>);
}

/// A session held by a poll, socket, stream or local client of this node.
pub struct Attachment {
    session: SessionId,
    epoch: Epoch,
    kind: LinkKind,
    connect_id: Option<Box<str>>,
    /// A repeated poll delivers nothing past this.
    pub(super) ceiling: Option<Reach>,
    traits: Traits,
    member: MemberId,
    pub(super) limits: Limits,
    pub(super) state: Mutex<State>,
    pub(super) changed: Notify,
}

impl Attachment {
    pub(super) fn new(
        session: SessionId,
        attached: Attached,
        kind: LinkKind,
        connect_id: Option<&str>,
        member: MemberId,
        limits: Limits,
    ) -> Self {
        let Attached { epoch, version, subscriptions, cursor, ceiling, traits, .. } = attached;
        let state = State {
            mode: Mode::Joining,
            due: true,
            resync: false,
            alone: false,
            company: false,
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
            lost_replays: Vec::new(),
            version,
            subscriptions,
            end: None,
            outlet: None,
        };
        let connect_id = connect_id.map(Into::into);
        let (state, changed) = (Mutex::new(state), Notify::new());
        Self { session, epoch, kind, connect_id, ceiling, traits, member, limits, state, changed }
    }

    /// The session.
    pub fn session(&self) -> &SessionId {
        &self.session
    }

    /// The epoch under which it writes.
    pub fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// What holds it.
    pub fn kind(&self) -> LinkKind {
        self.kind
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

    /// Whether it reads from the logs because its outbox was full, and how many messages and bytes wait in that.
    pub(super) fn load(&self) -> (bool, usize, usize) {
        let state = self.state.lock();
        (state.mode == Mode::Behind, state.outbox.len(), state.outbox_bytes)
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

    /// Somebody else came: once, as it listens from then on. A stranger who comes and goes must not hold it up again.
    pub(super) fn has_company(&self) {
        let mut state = self.state.lock();
        if !std::mem::take(&mut state.alone) {
            return;
        }
        state.company = true;
        drop(state);
        self.hold(false);
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
            state.sent.cursor.raise_all(&told.upto);
        }
        for through in std::mem::take(&mut state.lost_replays) {
            state.sent.raise_replay(&through);
        }
        if state.outbox.is_empty() && state.outbox.capacity() > 64 {
            state.outbox = VecDeque::new();
        }
        let form = match self.traits.positions() {
            false => Form::Plain,
            true if replayed => Form::Replayed,
            true => Form::Positioned,
        };
        Batch { deliveries, form, replayed, gap }
    }

    /// Lets messages leave by `outlet` as they come, from now on; or by [`Attachment::take`] alone. When this returns
    /// nothing more is taken for the outlet before.
    pub fn set_outlet(&self, outlet: Option<Arc<dyn Outlet>>) {
        self.state.lock().outlet = outlet;
    }

    /// Takes what waits, in order, up to about `max_bytes` (but at least one message, if any), and hands each to `put` with
    /// the form that the session gets; then `sent` is told how far that goes, if anything was taken. Nothing, where the
    /// transport has to do something first. For an [`Outlet`], which takes its lock before: what is taken leaves in that order.
    /// Gives how many.
    pub fn take_live(&self, max_bytes: usize, mut put: impl FnMut(&Delivery, Form), sent: impl FnOnce(&Reach)) -> u64 {
        let mut guard = self.state.lock();
        let state = &mut *guard;
        let busy = state.end.is_some() || state.gap.is_some() || state.replaying.is_some();
        if busy
            || state.outlet.is_none()
            || self.ceiling.is_some()
            || matches!(state.mode, Mode::Joining | Mode::Replaying)
        {
            return 0;
        }
        let form = if self.traits.positions() { Form::Positioned } else { Form::Plain };
        let (mut count, mut bytes) = (0, 0);
        while let Some(next) = state.outbox.front()
            && (count == 0 || bytes + next.array.len() <= max_bytes)
            && let Some(delivery) = state.outbox.pop_front()
        {
            bytes += delivery.array.len();
            count += 1;
            state.sent.cursor.raise(delivery.partition, delivery.position);
            put(&delivery, form);
        }
        if count > 0 {
            // Under the lock: what the transport takes next is not on its way yet.
            sent(&state.sent);
        }
        state.outbox_bytes -= bytes;
        if state.outbox.is_empty() && state.outbox.capacity() > 64 {
            state.outbox = VecDeque::new();
        }
        count
    }

    /// Whether the client has to be told that messages are missing, before any other comes.
    pub fn has_gap(&self) -> bool {
        self.state.lock().gap.is_some()
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

    /// The engine has written this progress.
    pub(super) fn committed(&self, upto: &Reach) {
        if upto.replays.is_empty() {
            return;
        }
        let mut state = self.state.lock();
        for moved in upto.replays.iter().filter(|moved| moved.upto >= moved.since) {
            let of = |one: &&mut Subscription| one.pattern == moved.pattern && one.since == moved.since;
            if let Some(one) = state.subscriptions.iter_mut().find(of) {
                one.replay = None;
            }
        }
        state.forget_replays();
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
}

impl Receiver for Attachment {
    fn offer(&self, log: &Pattern, deliveries: &[Arc<Delivery>]) -> bool {
        let mut guard = self.state.lock();
        let state = &mut *guard;
        let Some(subscription) = state.subscriptions.iter().find(|subscription| subscription.pattern == *log) else {
            return false;
        };
        if state.end.is_some() {
            return false;
        }
        let since = subscription.since;
        let was_empty = state.outbox.is_empty();
        for delivery in deliveries {
            if delivery.position > since && delivery.position > state.queued.get(delivery.partition) {
                state.accept(delivery, &self.limits);
            }
        }
        if !was_empty || state.outbox.is_empty() {
            return false;
        }
        if state.outlet.is_some() {
            return true;
        }
        drop(guard);
        self.changed.notify_one();
        false
    }

    fn push(&self, scratch: &mut Vec<u8>) {
        let outlet = self.state.lock().outlet.clone();
        if let Some(outlet) = outlet {
            outlet.push(self, scratch);
        }
        // What the outlet did not take, and a read of the logs that is due, are the transport's.
        if self.step().is_some() {
            self.changed.notify_one();
        }
    }

    fn wake(&self) {
        self.changed.notify_one();
    }

    fn missed(&self, all: bool) {
        self.hold(all);
    }
}
