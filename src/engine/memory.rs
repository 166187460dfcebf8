//! The engine inside one process: the embedded default, and the model that every other engine is held against.
//!
//! One lock guards the partition; it is never held across an await. Room in the feeds is reserved before the lock is
//! taken, so that storing and announcing is one step and a full feed slows publishers down instead of losing anything.
//! Several nodes may share one engine (tests do): each gets a [`MemoryNode`] and a feed.

mod log;
mod partition;
mod seen;
mod session;

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::{Mutex, RwLock};
use tokio::sync::mpsc;

use self::partition::Partition;
use super::*;

/// The least room of a feed: more than the patterns of the deepest channel that a configuration allows.
const MIN_FEED_EVENTS: usize = 2048;

/// Bounds of the memory engine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MemoryLimits {
    /// Entries that one log keeps. A session that falls further behind is told of a gap.
    pub log_entries: usize,
    /// Bytes that one log keeps.
    pub log_bytes: usize,
    /// How long an entry is kept.
    pub log_age: Duration,
    /// Bytes in all logs together; publishes are refused above.
    pub total_bytes: usize,
    /// Events that may wait in a node's feed before publishers are slowed down.
    pub feed_events: usize,
    /// Channels that are retained; publishes to more are refused.
    pub retained: usize,
    /// For so long a repeated publish is recognised, at least; zero for not at all.
    pub idempotency_window: Duration,
    /// Publishes that are remembered for it, in each of two generations.
    pub fingerprints: usize,
}

impl Default for MemoryLimits {
    fn default() -> Self {
        Self {
            log_entries: 10_000,
            log_bytes: 64 << 20,
            log_age: Duration::from_secs(195),
            total_bytes: 1 << 30,
            feed_events: 16_384,
            retained: 100_000,
            idempotency_window: Duration::from_secs(60),
            fingerprints: 500_000,
        }
    }
}

/// The state that all nodes of the engine share.
#[derive(Clone)]
pub struct MemoryEngine(Arc<Shared>);

struct Shared {
    limits: MemoryLimits,
    partition: Mutex<Partition>,
    /// Replaced, never changed: operations take a snapshot and reserve room without the lock.
    nodes: RwLock<Arc<Vec<Arc<NodeLink>>>>,
}

/// A node as the engine sees it.
struct NodeLink {
    id: NodeId,
    feed: mpsc::Sender<FeedEvent>,
    /// Logs that the node listens to. Taken only while the partition's lock is held.
    listening: Mutex<HashSet<Pattern>>,
}

/// One node's connection to a [`MemoryEngine`].
pub struct MemoryNode {
    engine: MemoryEngine,
    link: Arc<NodeLink>,
}

impl Default for MemoryEngine {
    fn default() -> Self {
        Self::new(MemoryLimits::default())
    }
}

impl MemoryEngine {
    /// An empty engine.
    pub fn new(limits: MemoryLimits) -> Self {
        // A channel's patterns have to fit at once.
        let limits = MemoryLimits { feed_events: limits.feed_events.max(MIN_FEED_EVENTS), ..limits };
        let nodes = RwLock::new(Arc::new(Vec::new()));
        Self(Arc::new(Shared { limits, partition: Mutex::new(Partition::new(limits)), nodes }))
    }

    /// Connects a node; gives its connection and its feed. The node is forgotten when its feed is dropped.
    pub fn connect(&self, id: NodeId) -> (MemoryNode, Feed) {
        let (sender, feed) = mpsc::channel(self.0.limits.feed_events);
        let link = Arc::new(NodeLink { id, feed: sender, listening: Mutex::default() });
        let mut nodes = self.0.nodes.write();
        let alive = nodes.iter().filter(|node| !node.feed.is_closed()).cloned();
        *nodes = Arc::new(alive.chain([link.clone()]).collect());
        (MemoryNode { engine: self.clone(), link }, feed)
    }

    /// A node's announcements are lost from here on until [`MemoryEngine::restore_feed`]: for tests of repair.
    pub async fn break_feed(&self, node: &NodeId) {
        let Some(link) = self.link(node) else { return };
        {
            let _partition = self.0.partition.lock();
            link.listening.lock().clear();
        }
        // An error means that the node is gone.
        let _ = link.feed.send(FeedEvent::Broken).await;
    }

    /// Ends [`MemoryEngine::break_feed`].
    pub async fn restore_feed(&self, node: &NodeId) {
        let Some(link) = self.link(node) else { return };
        let _ = link.feed.send(FeedEvent::Restored).await;
    }

    fn link(&self, node: &NodeId) -> Option<Arc<NodeLink>> {
        self.0.nodes.read().iter().find(|link| link.id == *node).cloned()
    }

    /// Runs one step on the partition with room for `events` announcements on every node's feed.
    async fn step<T>(&self, events: usize, step: impl FnOnce(&mut Partition, &mut Announcer<'_>) -> T) -> T {
        loop {
            let nodes = self.0.nodes.read().clone();
            let mut rooms = Vec::with_capacity(nodes.len());
            for node in nodes.iter() {
                // An error means that the node is gone.
                if let Ok(permits) = node.feed.reserve_many(events).await {
                    rooms.push((&**node, permits));
                }
            }
            let mut partition = self.0.partition.lock();
            // A node that has come meanwhile may listen already: it must not miss this step.
            if Arc::ptr_eq(&nodes, &self.0.nodes.read()) {
                return step(&mut partition, &mut Announcer { rooms });
            }
        }
    }
}

/// Puts events into the reserved room of the feeds.
struct Announcer<'a> {
    rooms: Vec<(&'a NodeLink, mpsc::PermitIterator<'a, FeedEvent>)>,
}

impl Announcer<'_> {
    /// Announces a message to the nodes that listen to `log`.
    fn message(&mut self, log: &Pattern, previous: Position, delivery: &Arc<Delivery>) {
        for (node, room) in &mut self.rooms {
            if !node.listening.lock().contains(log) {
                continue;
            }
            debug_assert!(room.len() > 0, "a step announces no more than it reserved");
            if let Some(permit) = room.next() {
                permit.send(FeedEvent::Message { log: log.clone(), previous, delivery: delivery.clone(), room: None });
            }
        }
    }

    /// Tells `target` about a session.
    fn control(&mut self, target: Option<&NodeId>, session: &SessionId, what: ControlKind) {
        let Some(target) = target else { return };
        if let Some((_, room)) = self.rooms.iter_mut().find(|(node, _)| node.id == *target)
            && let Some(permit) = room.next()
        {
            permit.send(FeedEvent::Control(Control { session: session.clone(), what }));
        }
    }
}

impl Engine for MemoryNode {
    async fn create(&self, creation: Creation<'_>) -> Result<Create, EngineError> {
        Ok(self.engine.0.partition.lock().create(&creation))
    }

    async fn touch(&self, session: &SessionId, epoch: Option<Epoch>) -> Result<Touch, EngineError> {
        Ok(self.engine.0.partition.lock().touch(session, epoch))
    }

    async fn heartbeat(&self, session: &SessionId, claim: Option<&Cursor>) -> Result<Touch, EngineError> {
        Ok(self.engine.0.partition.lock().heartbeat(session, claim))
    }

    async fn end(&self, session: &SessionId, why: Ended) -> Result<Option<EndedSession>, EngineError> {
        Ok(self.engine.step(1, |partition, announcer| partition.end(session, why, announcer)).await)
    }

    async fn note_activity(&self, session: &SessionId) -> Result<(), EngineError> {
        self.engine.0.partition.lock().note_activity(session);
        Ok(())
    }

    async fn end_inactive(&self, session: &SessionId, limit: Duration) -> Result<Option<EndedSession>, EngineError> {
        Ok(self.engine.step(1, |partition, announcer| partition.end_inactive(session, limit, announcer)).await)
    }

    async fn subscribe(
        &self,
        session: &SessionId,
        pattern: &Pattern,
        max: usize,
        replay: Option<ReplayWish>,
    ) -> Result<Subscribe, EngineError> {
        let step = |partition: &mut Partition, announcer: &mut Announcer<'_>| {
            partition.subscribe(session, pattern, max, replay, announcer)
        };
        Ok(self.engine.step(1, step).await)
    }

    async fn unsubscribe(&self, session: &SessionId, pattern: &Pattern) -> Result<Unsubscribe, EngineError> {
        Ok(self.engine.step(1, |partition, announcer| partition.unsubscribe(session, pattern, announcer)).await)
    }

    async fn attach(&self, request: AttachRequest<'_>) -> Result<Attach, EngineError> {
        let node = &self.link.id;
        Ok(self.engine.step(1, |partition, announcer| partition.attach(node, &request, announcer)).await)
    }

    async fn subscriptions(&self, session: &SessionId, epoch: Epoch) -> Result<Subscriptions, EngineError> {
        Ok(self.engine.0.partition.lock().subscriptions(session, epoch))
    }

    async fn record(&self, request: RecordRequest<'_>) -> Result<Record, EngineError> {
        Ok(self.engine.0.partition.lock().record(&request))
    }

    async fn conclude(
        &self,
        session: &SessionId,
        epoch: Epoch,
        connect_id: Option<&str>,
        vain: bool,
    ) -> Result<Conclude, EngineError> {
        Ok(self.engine.0.partition.lock().conclude(session, epoch, connect_id, vain))
    }

    async fn release(&self, session: &SessionId, epoch: Epoch, connect_id: Option<&str>) -> Result<(), EngineError> {
        self.engine.0.partition.lock().release(session, epoch, connect_id);
        Ok(())
    }

    async fn written(&self, session: &SessionId, epoch: Epoch) -> Result<(), EngineError> {
        self.engine.0.partition.lock().written(session, epoch);
        Ok(())
    }

    async fn commit(&self, items: &[Commit]) -> Result<Vec<CommitOutcome>, EngineError> {
        let mut partition = self.engine.0.partition.lock();
        Ok(items.iter().map(|item| partition.commit(item)).collect())
    }

    async fn detach(&self, item: &Commit) -> Result<(), EngineError> {
        self.engine.0.partition.lock().detach(item);
        Ok(())
    }

    async fn publish(&self, publication: Publication) -> Result<Published, EngineError> {
        let expansion = publication.channel.expand();
        let room = expansion.len();
        self.engine.step(room, |partition, announcer| partition.publish(publication, &expansion, announcer)).await
    }

    async fn read(&self, request: ReadRequest<'_>) -> Result<Read, EngineError> {
        Ok(self.engine.step(1, |partition, announcer| partition.read(&request, announcer)).await)
    }

    async fn replay(&self, request: ReplayRequest<'_>) -> Result<Replay, EngineError> {
        Ok(self.engine.step(1, |partition, announcer| partition.replay(&request, announcer)).await)
    }

    async fn listen(&self, logs: &[Pattern]) -> Result<(), EngineError> {
        let _partition = self.engine.0.partition.lock();
        self.link.listening.lock().extend(logs.iter().cloned());
        Ok(())
    }

    async fn unlisten(&self, logs: &[Pattern]) -> Result<(), EngineError> {
        let _partition = self.engine.0.partition.lock();
        let mut listening = self.link.listening.lock();
        for log in logs {
            listening.remove(log);
        }
        Ok(())
    }

    async fn sweep(&self, limit: usize) -> Result<Vec<EndedSession>, EngineError> {
        let mut ended = Vec::new();
        let overdue = self.engine.0.partition.lock().overdue(limit);
        for session in overdue {
            // The session may have come back since: ending it checks the deadline again in the same step.
            let step = |partition: &mut Partition, announcer: &mut Announcer<'_>| partition.expire(&session, announcer);
            ended.extend(self.engine.step(1, step).await);
        }
        self.engine.0.partition.lock().trim(limit);
        Ok(ended)
    }

    async fn sessions(&self) -> Result<usize, EngineError> {
        Ok(self.engine.0.partition.lock().sessions())
    }
}
