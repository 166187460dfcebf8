//! A node inside this process, for the micro benches: memory engine, hub and sessions of the product.
#![allow(dead_code, reason = "not every bench uses all of it")]

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::runtime::Runtime;
use tokio_util::task::TaskTracker;
use weft::bayeux::{Channel, Pattern};
use weft::engine::memory::MemoryEngine;
use weft::engine::{
    Create, Creation, Delivery, Engine, Feed, Link, NodeId, PartitionId, Position, SessionId, Store, Subscribe,
};
use weft::hub::Hub;
use weft::metrics::Metrics;
use weft::session::{AttachOutcome, Held, Limits, Sessions};

/// Messages that wait in an outbox.
pub const OUTBOX: usize = 1000;
/// Larger than any number of sessions or subscriptions here.
const MANY: usize = 1 << 30;

/// A runtime on this thread alone: no wake-up crosses threads.
pub fn runtime() -> Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime")
}

/// A session with these subscriptions.
pub async fn session(engine: &impl Engine, patterns: &[Pattern]) -> SessionId {
    let session = SessionId::random();
    let created = engine.create(Creation::new(&session, Duration::from_secs(3600), MANY)).await;
    assert!(matches!(created, Ok(Create::Created(_))), "{created:?}");
    for pattern in patterns {
        let outcome = engine.subscribe(&session, pattern, MANY, None).await;
        assert!(matches!(outcome, Ok(Subscribe::Added { .. })), "{outcome:?}");
    }
    session
}

/// Stored messages that no engine has stored: at positions far past those of today's clocks.
pub struct Stored {
    channel: Channel,
    pub array: Bytes,
    last: Position,
}

impl Stored {
    pub fn new(channel: &str, array: Bytes) -> Self {
        Self { channel: Channel::parse(channel).expect("a channel"), array, last: Position(1 << 52) }
    }

    /// The position of the newest one.
    pub fn last(&self) -> Position {
        self.last
    }
}

impl Iterator for Stored {
    type Item = Arc<Delivery>;

    fn next(&mut self) -> Option<Arc<Delivery>> {
        self.last.0 += 1;
        Some(Arc::new(Delivery::new(PartitionId(0), self.last, self.channel.clone(), self.array.clone())))
    }
}

/// Hub and sessions. Nobody reads the engine's feed: benches hand the hub a feed of their own.
pub struct Node {
    pub hub: Arc<Hub>,
    pub sessions: Sessions,
    _feed: Feed,
}

impl Node {
    pub fn new() -> Self {
        let (engine, feed) = MemoryEngine::default().connect(NodeId::random());
        let store = Arc::new(Store::memory(engine, Duration::from_secs(5)));
        let metrics = Arc::new(Metrics::new().expect("counters"));
        let hub = Arc::new(Hub::new(store.clone(), Duration::from_secs(30), metrics.clone()));
        let limits = Limits { outbox_messages: OUTBOX, outbox_bytes: 1 << 20 };
        let sessions = Sessions::new(store, hub.clone(), limits, metrics, TaskTracker::new());
        Self { hub, sessions, _feed: feed }
    }

    /// A session with these subscriptions, live on this node as a socket holds it.
    pub async fn subscriber(&self, patterns: &[Pattern]) -> Held {
        let session = session(&**self.sessions.store(), patterns).await;
        let link = Link::Socket { connect_id: None, retry: false, claim: None };
        match self.sessions.attach(&session, link).await {
            Ok(AttachOutcome::Held(held)) => {
                self.sessions.refresh(held.attachment()).await.expect("a refresh");
                assert_eq!(held.step(), None, "live, with nothing to do");
                held
            }
            _ => panic!("not attached"),
        }
    }
}
