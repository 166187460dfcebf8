//! Races that lose or repeat messages, each forced with pause points: two nodes of one process share a memory engine,
//! and a gate holds an engine call just before or just after it happens. Time is paused.

mod confirm;
mod feed;
mod polls;
mod simulation;
mod subscriptions;

use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio_util::task::TaskTracker;
use weft::bayeux::{Channel, Pattern};
use weft::engine::gates::{Gate, Gates, Point};
use weft::engine::memory::MemoryEngine;
use weft::engine::*;
use weft::hub::{ControlSink, Hub};
use weft::metrics::Metrics;
use weft::session::{AttachOutcome, Held, Limits, PollOutcome, Receipt, Sessions, Step};

use crate::support::soon;

/// How long a poll is held.
const HOLD: Duration = Duration::from_secs(30);
const LIFETIME: Duration = Duration::from_secs(90);

/// The session layer of a node, without transports.
struct TestNode {
    id: NodeId,
    engine: MemoryEngine,
    store: Arc<Store>,
    sessions: Sessions,
    hub: Arc<Hub>,
    gates: Gates,
    tasks: TaskTracker,
    feed: JoinHandle<()>,
}

impl Drop for TestNode {
    fn drop(&mut self) {
        self.feed.abort();
    }
}

fn roomy() -> Limits {
    Limits { outbox_messages: 1000, outbox_bytes: 1 << 20 }
}

fn node_on(engine: &MemoryEngine, limits: Limits) -> TestNode {
    node_with(engine, limits, Gates::default())
}

fn node_with(engine: &MemoryEngine, limits: Limits, gates: Gates) -> TestNode {
    let id = NodeId::random();
    let (memory, feed) = engine.connect(id.clone());
    let store = Arc::new(Store::memory(memory, Duration::from_secs(5)).with_gates(gates.clone()));
    let hub = Arc::new(Hub::new(store.clone(), Duration::from_secs(30)));
    let tasks = TaskTracker::new();
    let metrics = Arc::new(Metrics::new().expect("names are distinct"));
    let sessions = Sessions::new(store.clone(), hub.clone(), limits, metrics, tasks.clone());
    let controls: Arc<dyn ControlSink> = Arc::new(sessions.clone());
    let reader = hub.clone();
    let feed = tokio::spawn(async move { reader.run(feed, controls).await });
    TestNode { id, engine: engine.clone(), store, sessions, hub, gates, tasks, feed }
}

fn node() -> TestNode {
    node_on(&MemoryEngine::default(), roomy())
}

fn two_nodes() -> (TestNode, TestNode) {
    let engine = MemoryEngine::default();
    (node_on(&engine, roomy()), node_on(&engine, roomy()))
}

impl TestNode {
    async fn session(&self, patterns: &[&str]) -> SessionId {
        let session = SessionId::random();
        self.store.create(&session, LIFETIME, 100).await.expect("created");
        for pattern in patterns {
            self.subscribe(&session, pattern).await;
        }
        session
    }

    async fn subscribe(&self, session: &SessionId, pattern: &str) {
        let pattern = Pattern::parse(pattern).expect("valid");
        self.store.subscribe(session, &pattern, 100).await.expect("subscribed");
    }

    async fn unsubscribe(&self, session: &SessionId, pattern: &str) {
        let pattern = Pattern::parse(pattern).expect("valid");
        self.store.unsubscribe(session, &pattern).await.expect("unsubscribed");
    }

    async fn publish(&self, channel: &str, number: u64) {
        let channel = Channel::parse(channel).expect("valid");
        let array = format!("[{{\"channel\":\"{channel}\",\"data\":{number}}}]").into();
        self.store.publish(Publication { channel, array }).await.expect("stored");
    }

    async fn attach(&self, session: &SessionId, link: Link<'_>) -> Held {
        match self.sessions.attach(session, link).await {
            Ok(AttachOutcome::Held(held)) => held,
            _ => panic!("expected to hold the session"),
        }
    }

    /// A poll that runs by itself.
    fn poll(&self, session: &SessionId, id: &str) -> JoinHandle<Answer> {
        self.poll_for(session, id, HOLD)
    }

    fn poll_for(&self, session: &SessionId, id: &str, hold: Duration) -> JoinHandle<Answer> {
        let (sessions, session, id) = (self.sessions.clone(), session.clone(), id.to_owned());
        tokio::spawn(async move {
            let link = Link::Poll { connect_id: Some(&id), retry: false };
            match sessions.attach(&session, link).await.expect("the engine answers") {
                AttachOutcome::Held(held) => Answer::of(held.poll(hold, 1 << 20).await.expect("the engine answers")),
                AttachOutcome::Late => Answer::Empty,
                AttachOutcome::Closed => Answer::Hangup,
                AttachOutcome::Unknown => Answer::Unknown,
            }
        })
    }

    /// A poll that is not held, with its reply written.
    async fn poll_now(&self, session: &SessionId, id: &str) -> Vec<u64> {
        match soon("a poll that is not held", self.poll_for(session, id, Duration::ZERO)).await.expect("no panic") {
            Answer::Messages(numbers, receipt) => {
                receipt.written();
                numbers
            }
            Answer::Empty => Vec::new(),
            other => panic!("expected an answer, got {}", other.name()),
        }
    }

    fn gate(&self, point: Point) -> Gate {
        self.gates.close(point)
    }

    async fn break_feed(&self) {
        self.engine.break_feed(&self.id).await;
    }

    async fn restore_feed(&self) {
        self.engine.restore_feed(&self.id).await;
    }
}

/// How a poll was answered.
enum Answer {
    Messages(Vec<u64>, Receipt),
    Empty,
    Released,
    Unknown,
    Hangup,
}

impl Answer {
    fn of(outcome: PollOutcome) -> Self {
        match outcome {
            PollOutcome::Deliver(deliveries, receipt) => Self::Messages(numbers(&deliveries), receipt),
            PollOutcome::Empty => Self::Empty,
            PollOutcome::Released => Self::Released,
            PollOutcome::Unknown => Self::Unknown,
            PollOutcome::Hangup => Self::Hangup,
        }
    }

    fn name(&self) -> &'static str {
        match self {
            Self::Messages(..) => "messages",
            Self::Empty => "empty",
            Self::Released => "released",
            Self::Unknown => "unknown",
            Self::Hangup => "hangup",
        }
    }

    /// The numbers of an answer that was written.
    fn delivered(self) -> Vec<u64> {
        match self {
            Self::Messages(numbers, receipt) => {
                receipt.written();
                numbers
            }
            other => panic!("expected messages, got {}", other.name()),
        }
    }
}

/// The payloads, which are numbers in these tests.
fn numbers(deliveries: &[Arc<Delivery>]) -> Vec<u64> {
    let number = |delivery: &Arc<Delivery>| {
        let message = weft::Message::from_delivery(delivery.json()).expect("our own JSON");
        message.data.expect("data").get().parse().expect("a number")
    };
    deliveries.iter().map(number).collect()
}

/// Waits for a poll to be answered.
async fn answer(poll: JoinHandle<Answer>) -> Answer {
    soon("the poll is answered", poll).await.expect("no panic")
}

/// Drives a socket until `count` messages were taken, or its attachment ends.
async fn take(node: &TestNode, held: &Held, count: usize) -> Vec<u64> {
    let mut taken = Vec::new();
    while taken.len() < count {
        match soon("a step of the socket", held.next()).await {
            Step::Ready => taken.extend(numbers(&held.take(1 << 20))),
            Step::Refresh => node.sessions.refresh(held.attachment()).await.expect("the engine answers"),
            Step::Ended(end) => panic!("ended after {taken:?}: {end:?}"),
        }
    }
    taken
}

/// Brings a fresh attachment up to date without waiting for messages.
async fn settle(node: &TestNode, held: &Held) {
    while held.step() == Some(Step::Refresh) {
        node.sessions.refresh(held.attachment()).await.expect("the engine answers");
    }
}

/// Lets everything run that can run.
async fn quiesce() {
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
}
