//! The sessions that this node holds: attach, supersede, refresh. Used by the server and by in-process clients.

use std::collections::HashMap;
use std::ops::Deref;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Semaphore;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::attachment::{Attachment, End, Limits};
use super::committer::Committer;
use crate::engine::{
    Attach, AttachRequest, Claim, Control, ControlKind, EndedSession, Engine, EngineError, Epoch, Link, LinkKind,
    SessionId, Store, Version,
};
use crate::hub::{ControlSink, Hub, Receiver, Told};
use crate::metrics::Metrics;

/// Attachments that are brought up to date at the same time.
const REFRESHES: usize = 512;
/// Supersedes of one session within [`CONTENTION_WINDOW`] after which the loser is answered late.
const CONTENTION_LIMIT: u32 = 3;
const CONTENTION_WINDOW: Duration = Duration::from_secs(10);
/// Sessions whose supersedes are counted at the same time.
const CONTENTION_ENTRIES: usize = 4096;

/// The sessions of one node. Cheap to clone.
#[derive(Clone)]
pub struct Sessions(Arc<Inner>);

struct Inner {
    store: Arc<Store>,
    hub: Arc<Hub>,
    limits: Limits,
    metrics: Arc<Metrics>,
    committer: Committer,
    registry: Mutex<Registry>,
    /// Places for refreshes under way.
    refreshing: Semaphore,
    /// To be reported by the next round of housekeeping; each was a session that this node held.
    ended_by_gap: Mutex<Vec<EndedSession>>,
    /// Fires when the node stops.
    stopping: CancellationToken,
    /// Small engine calls that outlive the request that caused them. The node waits for them when it stops.
    tasks: TaskTracker,
}

#[derive(Default)]
struct Registry {
    slots: HashMap<SessionId, Slot>,
    contention: HashMap<SessionId, (Instant, u32)>,
    /// Polls that come now are answered at once: their clients shall go elsewhere.
    leaving: bool,
    stopping: bool,
}

/// What the node knows of one session.
#[derive(Default)]
struct Slot {
    current: Option<Arc<Attachment>>,
    /// Attaches under way. What the feed tells meanwhile is kept for them.
    attaching: usize,
    pending: PendingControls,
}

/// The feed may tell of events that came after an attach before the attach's own reply is here.
#[derive(Default)]
struct PendingControls {
    superseded: Option<(Epoch, Option<Box<str>>)>,
    resubscribed: Option<Version>,
    company: bool,
    doubtful: bool,
    ended: Option<crate::engine::Ended>,
    broken: bool,
}

/// An attachment with its place in hub and registry. The transport that owns it owns the session on this node.
pub struct Held {
    attachment: Arc<Attachment>,
    sessions: Sessions,
    first: bool,
    acks: bool,
}

impl Held {
    pub(super) fn sessions(&self) -> &Sessions {
        &self.sessions
    }

    /// Whether it answers the session's first connect.
    pub fn first(&self) -> bool {
        self.first
    }

    /// Whether its connect acknowledged by number: nothing else confirms then.
    pub fn acks(&self) -> bool {
        self.acks
    }

    /// The attachment itself, for those who outlive the holding.
    pub fn attachment(&self) -> &Arc<Attachment> {
        &self.attachment
    }
}

impl Deref for Held {
    type Target = Attachment;

    fn deref(&self) -> &Attachment {
        &self.attachment
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        // Others may keep the attachment for a while: not the socket, too.
        self.attachment.set_outlet(None);
        self.sessions.leave(&self.attachment);
    }
}

/// Outcome of [`Sessions::attach`].
pub enum AttachOutcome {
    /// This node holds the session.
    Held(Held),
    /// A late copy of an older connect: answer it empty.
    Late,
    /// A stream that shall stay closed.
    Closed,
    /// There is no such session.
    Unknown,
}

impl Sessions {
    /// The sessions of a node, none yet.
    pub fn new(store: Arc<Store>, hub: Arc<Hub>, limits: Limits, metrics: Arc<Metrics>, tasks: TaskTracker) -> Self {
        let (committer, registry, ended_by_gap) = (Committer::default(), Mutex::default(), Mutex::default());
        let (stopping, refreshing) = (CancellationToken::new(), Semaphore::new(REFRESHES));
        Self(Arc::new(Inner {
            store,
            hub,
            limits,
            metrics,
            committer,
            registry,
            refreshing,
            ended_by_gap,
            stopping,
            tasks,
        }))
    }

    /// Runs an engine call that nobody waits for; its deadline is the store's.
    pub(super) fn spawn(
        &self,
        what: &'static str,
        call: impl Future<Output = Result<(), EngineError>> + Send + 'static,
    ) {
        self.0.tasks.spawn(async move {
            if let Err(error) = call.await {
                tracing::debug!(%error, "could not {what}");
            }
        });
    }

    /// The engine.
    pub fn store(&self) -> &Arc<Store> {
        &self.0.store
    }

    pub(super) fn hub(&self) -> &Hub {
        &self.0.hub
    }

    pub(super) fn refreshing(&self) -> &Semaphore {
        &self.0.refreshing
    }

    pub(super) fn limits(&self) -> &Limits {
        &self.0.limits
    }

    pub(super) fn metrics(&self) -> &Metrics {
        &self.0.metrics
    }

    pub(super) fn note_gap(&self, ended: EndedSession) {
        self.0.ended_by_gap.lock().push(ended);
    }

    /// The committer of confirmed positions.
    pub(super) fn committer(&self) -> &Committer {
        &self.0.committer
    }

    /// Fires when the node stops.
    pub fn stopping(&self) -> &CancellationToken {
        &self.0.stopping
    }

    /// The sessions that ended since the last call because the logs no longer held what they missed.
    pub fn take_ended_by_gap(&self) -> Vec<EndedSession> {
        std::mem::take(&mut *self.0.ended_by_gap.lock())
    }

    /// Tasks that belong to the node: it waits for them when it stops.
    pub fn tasks(&self) -> &TaskTracker {
        &self.0.tasks
    }

    /// How many sessions this node holds now.
    pub fn held(&self) -> usize {
        self.0.registry.lock().slots.len()
    }

    /// Attaches a session to this node. The caller drives the [`Held`]: first of all, its first step is a refresh.
    ///
    /// # Errors
    /// Those of the engine; the session may be attached then, and the next attach sorts it out.
    pub async fn attach(&self, session: &SessionId, link: Link<'_>) -> Result<AttachOutcome, EngineError> {
        let attaching = Attaching::begin(self, session);
        self.commit_before_attach(session).await?;
        let moment = self.0.hub.moment();
        let mut attached = match self.0.store.attach(AttachRequest { session, link }).await? {
            Attach::Attached(attached) => attached,
            Attach::Late => return Ok(AttachOutcome::Late),
            Attach::Closed => return Ok(AttachOutcome::Closed),
            Attach::Unknown => return Ok(AttachOutcome::Unknown),
        };
        let (connect_id, claim) = match link {
            Link::Poll { connect_id, claim, .. } | Link::Socket { connect_id, claim, .. } => (connect_id, claim),
            Link::Stream { .. } | Link::Local => (None, None),
        };
        let first = attached.first;
        let acks = attached.traits.ack && matches!(claim, Some(Claim::Ack(_)));
        let (heads, unread) = (std::mem::take(&mut attached.heads), attached.unread.take());
        let clock = attached.clock.clone();
        let member = self.0.hub.member_id();
        let attachment =
            Arc::new(Attachment::new(session.clone(), attached, link.kind(), connect_id, member, self.0.limits));
        let receiver: Arc<dyn Receiver> = attachment.clone();
        for pattern in attachment.patterns() {
            self.0.hub.join(member, &receiver, &pattern);
        }
        // A node that is told already, and was given all that there is to read, need not ask.
        if let Some(unread) = unread {
            let plan = attachment.reading_plan();
            let logs =
                plan.iter().zip(&heads).map(|((pattern, from), head)| Told { pattern, head: *head, from: *from });
            if plan.len() == heads.len() && self.0.hub.start_warm(moment, logs) {
                attachment.start_warm(unread, clock, heads.iter().any(|head| head.alone));
            }
        }
        attaching.install(&attachment);
        Ok(AttachOutcome::Held(Held { attachment, sessions: self.clone(), first, acks }))
    }

    /// Ends all attachments: the node stops. Later attaches end at once.
    pub fn stop(&self) {
        self.0.stopping.cancel();
        let mut registry = self.0.registry.lock();
        registry.stopping = true;
        for slot in registry.slots.values() {
            if let Some(attachment) = &slot.current {
                attachment.end(End::Stopping);
            }
        }
    }

    /// From now on polls end as soon as they begin.
    pub(super) fn start_leaving(&self) {
        self.0.registry.lock().leaving = true;
    }

    /// Looks at everything that holds a session on this node, under the lock.
    pub(super) fn with_attachments<T>(&self, look: impl FnOnce(&mut dyn Iterator<Item = &Arc<Attachment>>) -> T) -> T {
        look(&mut self.0.registry.lock().slots.values().filter_map(|slot| slot.current.as_ref()))
    }

    /// Forgets an attachment that its transport is done with.
    pub(super) fn leave(&self, attachment: &Arc<Attachment>) {
        for pattern in attachment.patterns() {
            self.0.hub.leave(attachment.member(), &pattern);
        }
        let mut registry = self.0.registry.lock();
        let Some(slot) = registry.slots.get_mut(attachment.session()) else { return };
        if slot.current.as_ref().is_some_and(|current| Arc::ptr_eq(current, attachment)) {
            slot.current = None;
        }
        registry.tidy(attachment.session());
    }
}

impl Registry {
    /// Removes a slot that holds nothing.
    fn tidy(&mut self, session: &SessionId) {
        if self.slots.get(session).is_some_and(|slot| slot.current.is_none() && slot.attaching == 0) {
            self.slots.remove(session);
        }
    }

    /// Counts a supersede; true when this session is fought over.
    fn contended(&mut self, session: &SessionId) -> bool {
        let now = Instant::now();
        if self.contention.len() >= CONTENTION_ENTRIES {
            self.contention.retain(|_, (since, _)| now - *since < CONTENTION_WINDOW);
            if self.contention.len() >= CONTENTION_ENTRIES {
                return false;
            }
        }
        let (since, count) = self.contention.entry(session.clone()).or_insert((now, 0));
        if now - *since >= CONTENTION_WINDOW {
            (*since, *count) = (now, 0);
        }
        *count += 1;
        *count > CONTENTION_LIMIT
    }

    fn supersede(&mut self, old: &Attachment, by: Option<&str>) {
        let same_id = by.is_some() && old.connect_id() == by;
        let contended = old.ended().is_none() && self.contended(old.session());
        old.end(End::Superseded { same_id, contended });
    }
}

/// An attach under way: its slot keeps what the feed tells until the reply is here.
struct Attaching<'a> {
    sessions: &'a Sessions,
    session: &'a SessionId,
}

impl<'a> Attaching<'a> {
    fn begin(sessions: &'a Sessions, session: &'a SessionId) -> Self {
        sessions.0.registry.lock().slots.entry(session.clone()).or_default().attaching += 1;
        Self { sessions, session }
    }

    /// Puts the new attachment in place, and applies what was told while the reply was on its way.
    fn install(&self, attachment: &Arc<Attachment>) {
        let mut guard = self.sessions.0.registry.lock();
        let registry = &mut *guard;
        if registry.stopping || (registry.leaving && attachment.kind() == LinkKind::Poll) {
            attachment.end(End::Stopping);
        }
        // `begin` made the slot, and it stays while an attach is under way.
        let Some(slot) = registry.slots.get_mut(self.session) else { return };
        match slot.pending.superseded.clone() {
            Some((epoch, by)) if epoch > attachment.epoch() => registry.supersede(attachment, by.as_deref()),
            _ => {}
        }
        let Some(slot) = registry.slots.get_mut(self.session) else { return };
        if let Some(version) = slot.pending.resubscribed {
            attachment.resubscribed(version);
        }
        if let Some(why) = slot.pending.ended {
            attachment.end(End::Session(why));
        }
        if slot.pending.company {
            attachment.has_company();
        }
        if slot.pending.doubtful {
            attachment.hold(false);
        }
        if slot.pending.broken {
            attachment.hold(true);
        }
        match slot.current.clone() {
            Some(newer) if newer.epoch() > attachment.epoch() => registry.supersede(attachment, newer.connect_id()),
            older => {
                slot.current = Some(attachment.clone());
                if let Some(older) = older {
                    registry.supersede(&older, attachment.connect_id());
                }
            }
        }
    }
}

impl Drop for Attaching<'_> {
    fn drop(&mut self) {
        let mut registry = self.sessions.0.registry.lock();
        let Some(slot) = registry.slots.get_mut(self.session) else { return };
        slot.attaching -= 1;
        if slot.attaching == 0 {
            slot.pending = PendingControls::default();
        }
        registry.tidy(self.session);
    }
}

impl ControlSink for Sessions {
    fn control(&self, control: Control) {
        let mut guard = self.0.registry.lock();
        let registry = &mut *guard;
        let Some(slot) = registry.slots.get_mut(&control.session) else { return };
        let current = slot.current.clone();
        match control.what {
            ControlKind::Superseded { epoch, connect_id } => {
                if slot.attaching > 0 && slot.pending.superseded.as_ref().is_none_or(|(known, _)| *known < epoch) {
                    slot.pending.superseded = Some((epoch, connect_id.clone()));
                }
                if let Some(current) = current.filter(|current| current.epoch() < epoch) {
                    registry.supersede(&current, connect_id.as_deref());
                }
            }
            ControlKind::Resubscribed { version } => {
                if slot.attaching > 0 {
                    slot.pending.resubscribed = slot.pending.resubscribed.max(Some(version));
                }
                if let Some(current) = current {
                    current.resubscribed(version);
                }
            }
            ControlKind::Company => {
                slot.pending.company |= slot.attaching > 0;
                if let Some(current) = current {
                    current.has_company();
                }
            }
            ControlKind::Doubtful => {
                slot.pending.doubtful |= slot.attaching > 0;
                if let Some(current) = current {
                    current.hold(false);
                }
            }
            ControlKind::Ended(why) => {
                if slot.attaching > 0 {
                    slot.pending.ended = Some(why);
                }
                if let Some(current) = current {
                    current.end(End::Session(why));
                }
            }
        }
    }

    fn feed_broken(&self) {
        let mut registry = self.0.registry.lock();
        for slot in registry.slots.values_mut() {
            slot.pending.broken |= slot.attaching > 0;
            if let Some(current) = &slot.current {
                current.hold(true);
            }
        }
    }
}
