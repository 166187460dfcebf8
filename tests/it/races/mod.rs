//! Races that lose or repeat messages, each forced with pause points: two nodes of one process share an engine, and a gate
//! holds an engine call just before or just after it happens. Each runs on the memory engine, where time is paused, and on
//! a real Redis.

mod alone;
mod confirm;
mod delivery;
mod feed;
mod polls;
mod rounds;
mod simulation;
mod subscriptions;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::task::JoinHandle;
use tokio_util::task::TaskTracker;
use weft::bayeux::{Channel, Fingerprint, Pattern};
use weft::engine::gates::{Gate, Gates, Point};
use weft::engine::memory::MemoryEngine;
use weft::engine::redis::RedisNode;
use weft::engine::*;
use weft::hub::{ControlSink, Hub};
use weft::metrics::Metrics;
use weft::session::{AttachOutcome, Held, Limits, PollOutcome, Receipt, Sessions, Step};

use crate::support::redis::Redis;
use crate::support::soon;

/// How long a poll is held.
const HOLD: Duration = Duration::from_secs(30);
const LIFETIME: Duration = Duration::from_secs(90);
/// What is still under way after this time waits for something that does not come by itself.
const QUIET: Duration = Duration::from_secs(2);

/// The session layer of a node, without transports.
struct TestNode {
    id: NodeId,
    backend: Backend,
    feed_is_broken: Arc<AtomicBool>,
    store: Arc<Store>,
    sessions: Sessions,
    hub: Arc<Hub>,
    gates: Gates,
    tasks: TaskTracker,
    feed: JoinHandle<()>,
}

/// A node's own view of the engine.
#[derive(Clone)]
enum Backend {
    Memory(MemoryEngine),
    Redis(RedisNode),
}

impl Drop for TestNode {
    fn drop(&mut self) {
        self.feed.abort();
    }
}

/// An engine and the nodes on it.
pub struct World {
    engine: SharedEngine,
    nodes: Mutex<Vec<Inside>>,
}

/// What the world knows of a node.
#[derive(Clone)]
struct Inside {
    gates: Gates,
    backend: Backend,
    /// A test has broken its feed.
    feed_is_broken: Arc<AtomicBool>,
}

enum SharedEngine {
    Memory(MemoryEngine),
    Redis(Box<Redis>),
}

impl World {
    fn on_memory() -> Self {
        Self { engine: SharedEngine::Memory(MemoryEngine::default()), nodes: Mutex::default() }
    }

    async fn on_redis() -> Self {
        Self { engine: SharedEngine::Redis(Box::new(Redis::start().await)), nodes: Mutex::default() }
    }

    async fn node(&self) -> TestNode {
        self.node_with(roomy(), Gates::default()).await
    }

    async fn two_nodes(&self) -> (TestNode, TestNode) {
        (self.node().await, self.node().await)
    }

    async fn node_with(&self, limits: Limits, gates: Gates) -> TestNode {
        self.start(limits, gates, Duration::from_secs(30)).await
    }

    async fn node_lingering(&self, linger: Duration) -> TestNode {
        self.start(roomy(), Gates::default(), linger).await
    }

    async fn start(&self, limits: Limits, gates: Gates, linger: Duration) -> TestNode {
        let id = NodeId::random();
        let deadline = Duration::from_secs(5);
        let (store, backend, feed) = match &self.engine {
            SharedEngine::Memory(engine) => {
                let (node, feed) = engine.connect(id.clone());
                (Store::memory(node, deadline), Backend::Memory(engine.clone()), feed)
            }
            SharedEngine::Redis(redis) => {
                let (node, feed) = redis.node_named(id.clone(), |_| {}).await;
                (Store::redis(node.clone(), deadline), Backend::Redis(node), feed)
            }
        };
        let feed_is_broken = Arc::new(AtomicBool::new(false));
        let inside = Inside { gates: gates.clone(), backend: backend.clone(), feed_is_broken: feed_is_broken.clone() };
        self.nodes.lock().push(inside);
        let store = Arc::new(store.with_gates(gates.clone()));
        let metrics = Arc::new(Metrics::new().expect("names are distinct"));
        let hub = Arc::new(Hub::new(store.clone(), linger, metrics.clone()));
        let tasks = TaskTracker::new();
        let sessions = Sessions::new(store.clone(), hub.clone(), limits, metrics, tasks.clone());
        let controls: Arc<dyn ControlSink> = Arc::new(sessions.clone());
        let reader = hub.clone();
        let feed = tokio::spawn(async move { reader.run(feed, controls).await });
        let node = TestNode { id, backend, feed_is_broken, store, sessions, hub, gates, tasks, feed };
        self.quiesce().await;
        node
    }

    /// Moves the engine's clock on.
    async fn advance(&self, time: Duration) {
        let redis = self.nodes.lock().iter().find_map(|node| match &node.backend {
            Backend::Memory(_) => None,
            Backend::Redis(node) => Some(node.clone()),
        });
        match redis {
            Some(node) => node.advance(time).await.expect("Redis answers"),
            None => tokio::time::advance(time).await,
        }
    }

    /// Lets everything run that can run: no engine call is under way that no gate holds, and what was announced has been
    /// taken in. (A call that waits for a feed that a test has broken is left waiting.)
    async fn quiesce(&self) {
        let (mut before, start) = (None, std::time::Instant::now());
        loop {
            for _ in 0..100 {
                tokio::task::yield_now().await;
            }
            let nodes = self.nodes.lock().clone();
            for Inside { backend, feed_is_broken, .. } in &nodes {
                let patience = match feed_is_broken.load(Ordering::Acquire) {
                    true => Duration::from_millis(20),
                    false => QUIET,
                };
                if let Backend::Redis(node) = backend {
                    // An error or a time-out means that the feed is down.
                    let _ = tokio::time::timeout(patience, node.fence()).await;
                }
            }
            let progress: Vec<_> = nodes.iter().map(|node| node.gates.progress()).collect();
            let is_idle =
                |(node, (running, _)): (&Inside, &(_, _))| *running == 0 || node.feed_is_broken.load(Ordering::Acquire);
            let idle = nodes.iter().zip(&progress).all(is_idle) || start.elapsed() > QUIET;
            if matches!(self.engine, SharedEngine::Memory(_)) || (idle && before.as_ref() == Some(&progress)) {
                return;
            }
            before = Some(progress);
        }
    }
}

fn roomy() -> Limits {
    Limits { outbox_messages: 1000, outbox_bytes: 1 << 20 }
}

impl TestNode {
    async fn session(&self, patterns: &[&str]) -> SessionId {
        self.session_with(Traits::default(), patterns).await
    }

    async fn session_with(&self, traits: Traits, patterns: &[&str]) -> SessionId {
        let session = SessionId::random();
        let creation = Creation { traits, ..Creation::new(&session, LIFETIME, 100) };
        self.store.create(creation).await.expect("created");
        for pattern in patterns {
            Box::pin(self.subscribe(&session, pattern)).await;
        }
        session
    }

    /// A session that is the only one on its logs: on Redis its node need not listen to them.
    async fn lone_session(&self, patterns: &[&str]) -> SessionId {
        let session = self.session(&[]).await;
        for pattern in patterns {
            self.subscribe_alone(&session, pattern).await;
        }
        session
    }

    /// Beside somebody else, who never connects: so a node has to listen to the log.
    async fn subscribe(&self, session: &SessionId, pattern: &str) {
        if matches!(self.backend, Backend::Redis(_)) {
            self.subscribe_alone(&self.session(&[]).await, pattern).await;
        }
        self.subscribe_alone(session, pattern).await;
    }

    async fn subscribe_alone(&self, session: &SessionId, pattern: &str) {
        let pattern = Pattern::parse(pattern).expect("valid");
        self.store.subscribe(session, &pattern, 100, None).await.expect("subscribed");
    }

    async fn unsubscribe(&self, session: &SessionId, pattern: &str) {
        let pattern = Pattern::parse(pattern).expect("valid");
        self.store.unsubscribe(session, &pattern).await.expect("unsubscribed");
    }

    async fn publish(&self, channel: &str, number: u64) {
        let channel = Channel::parse(channel).expect("valid");
        let array = format!("[{{\"channel\":\"{channel}\",\"data\":{number}}}]").into();
        self.store.publish(Publication::new(channel, array)).await.expect("stored");
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
        self.poll_with(session, id, hold, false, None)
    }

    /// A poll that is not held and claims something.
    fn poll_claiming(&self, session: &SessionId, id: &str, word: Word) -> JoinHandle<Answer> {
        self.poll_with(session, id, Duration::ZERO, false, Some(word))
    }

    /// As above; `retry`: the client says that its last connect failed.
    fn poll_with(
        &self,
        session: &SessionId,
        id: &str,
        hold: Duration,
        retry: bool,
        word: Option<Word>,
    ) -> JoinHandle<Answer> {
        let (sessions, session, id) = (self.sessions.clone(), session.clone(), id.to_owned());
        tokio::spawn(async move {
            let claim = word.as_ref().map(Word::claim);
            match sessions.attach(&session, Link::Poll { connect_id: Some(&id), retry, claim }).await {
                Ok(AttachOutcome::Held(held)) => held.poll(hold, 1 << 20).await.map_or(Answer::Unavailable, Answer::of),
                Ok(AttachOutcome::Late) => Answer::Empty,
                Ok(AttachOutcome::Closed) => Answer::Hangup,
                Ok(AttachOutcome::Unknown) => Answer::Unknown,
                Err(_) => Answer::Unavailable,
            }
        })
    }

    /// A poll that is not held, with its reply written.
    async fn poll_now(&self, session: &SessionId, id: &str) -> Vec<u64> {
        match soon("a poll that is not held", self.poll_for(session, id, Duration::ZERO)).await.expect("no panic") {
            Answer::Messages(numbers, receipt, _) => {
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
        self.feed_is_broken.store(true, Ordering::Release);
        match &self.backend {
            Backend::Memory(engine) => engine.break_feed(&self.id).await,
            Backend::Redis(node) => node.break_feed().await,
        }
    }

    async fn restore_feed(&self) {
        match &self.backend {
            Backend::Memory(engine) => engine.restore_feed(&self.id).await,
            Backend::Redis(node) => node.restore_feed().await,
        }
        self.feed_is_broken.store(false, Ordering::Release);
    }
}

/// What a client says that it has.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Word {
    Ack(Position),
    At(Cursor),
}

impl Word {
    fn claim(&self) -> Claim<'_> {
        match self {
            Self::Ack(upto) => Claim::Ack(*upto),
            Self::At(cursor) => Claim::Position(cursor),
        }
    }
}

/// What a poll's answer says besides its messages.
struct Told {
    /// Of the messages.
    positions: Vec<Position>,
    /// How far it reaches.
    upto: Cursor,
    gap: Option<Cursor>,
    form: Form,
    /// They belong to a replay.
    replayed: bool,
}

/// How a poll was answered.
enum Answer {
    Messages(Vec<u64>, Receipt, Told),
    Empty,
    Released,
    Unknown,
    Hangup,
    /// The engine did not answer: status 503.
    Unavailable,
}

impl Answer {
    fn of(outcome: PollOutcome) -> Self {
        match outcome {
            PollOutcome::Deliver { batch, upto, receipt } => {
                let (positions, form) = (positions(&batch.deliveries), batch.form);
                let told = Told { positions, upto, gap: batch.gap.map(|gap| gap.upto), form, replayed: batch.replayed };
                Self::Messages(numbers(&batch.deliveries), receipt, told)
            }
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
            Self::Unavailable => "unavailable",
        }
    }

    /// The numbers of an answer that was written.
    fn delivered(self) -> Vec<u64> {
        match self {
            Self::Messages(numbers, receipt, _) => {
                receipt.written();
                numbers
            }
            other => panic!("expected messages, got {}", other.name()),
        }
    }
}

/// The payloads, which are numbers in these tests.
fn numbers(deliveries: &[Arc<Delivery>]) -> Vec<u64> {
    deliveries.iter().map(|delivery| number(delivery)).collect()
}

fn number(delivery: &Delivery) -> u64 {
    let message = weft::Message::from_delivery(delivery.json()).expect("our own JSON");
    message.data.expect("data").get().parse().expect("a number")
}

fn positions(deliveries: &[Arc<Delivery>]) -> Vec<Position> {
    deliveries.iter().map(|delivery| delivery.position).collect()
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
            Step::Ready => taken.extend(numbers(&held.take(1 << 20).deliveries)),
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

macro_rules! races {
    (memory: $($alone:ident :: $only:ident),* ; redis: $($counter:ident :: $counted:ident),* ; both: $($module:ident :: $test:ident),* $(,)?) => {
        mod memory {
            use super::*;
            $(
                #[tokio::test(start_paused = true)]
                async fn $only() {
                    $alone::$only(World::on_memory()).await;
                }
            )*
            $(
                #[tokio::test(start_paused = true)]
                async fn $test() {
                    $module::$test(World::on_memory()).await;
                }
            )*
        }

        mod redis {
            use super::*;
            $(
                #[tokio::test]
                async fn $counted() {
                    $counter::$counted(World::on_redis().await).await;
                }
            )*
            $(
                #[tokio::test]
                async fn $test() {
                    $module::$test(World::on_redis().await).await;
                }
            )*
        }
    };
}

races!(
    // Of the session layer alone, and long.
    memory: polls::two_tabs_no_storm;
    redis: rounds::idle_polls_cost_two_round_trips, rounds::polls_answered_on_many_nodes_read_nothing,
        alone::who_is_alone_listens_to_nothing, alone::the_only_subscriber_is_not_read_for_on_many_nodes,
        alone::what_redis_forgot_of_a_subscriber_is_read_again,
        alone::company_that_comes_and_goes_holds_nobody_up;
    both:
    alone::message_stored_during_a_lone_attach_wakes_poll,
    alone::what_came_too_early_is_not_forgotten,
    alone::company_arrives_during_the_attach,
    alone::company_arrives_while_held,
    alone::company_leaves_again,
    alone::company_arrives_as_a_socket_leaves,
    alone::the_feed_breaks_around_a_lone_attach,
    polls::message_stored_during_attach_wakes_poll,
    polls::message_stored_during_warm_attach_wakes_poll,
    polls::what_waits_comes_with_a_warm_attach,
    polls::warmth_does_not_outlive_the_feed,
    polls::message_stored_after_the_read_wakes_poll,
    polls::overlapping_connect_answers_the_older,
    polls::stream_answers_the_older_poll,
    polls::same_id_copy_supersedes,
    polls::same_id_copy_after_reply,
    polls::superseded_after_record,
    polls::superseded_before_record,
    polls::record_outcome_unknown,
    polls::unwritten_reply_is_due_again,
    polls::old_id_copy_after_new_poll,
    polls::retry_after_unsubscribe_answers_empty,
    polls::retry_superseded_while_due_is_closed,
    polls::constant_connect_id_ends,
    polls::disconnect_while_attached_elsewhere,
    polls::supersede_before_attach_reply,
    polls::disconnect_before_attach_reply,
    confirm::what_no_pong_confirmed_is_due_again,
    confirm::confirmed_positions_are_committed_in_batches,
    confirm::detach_writes_exactly_what_was_confirmed,
    confirm::confirmation_is_clamped_to_what_was_sent,
    confirm::late_pong_after_reattach,
    confirm::stale_epoch_closes_socket,
    confirm::old_socket_close_keeps_new,
    confirm::commit_waits_for_unknown_subscriptions,
    confirm::poll_to_stream_upgrade_one_copy,
    confirm::eventsource_post_never_supersedes,
    delivery::unacknowledged_replies_come_again,
    delivery::replay_below_cursor,
    delivery::gap_told_once,
    delivery::replay_broken_midway_resumes,
    delivery::a_replay_and_the_live_feed_do_not_overlap,
    delivery::feed_breaks_within_a_replay,
    delivery::a_rewound_socket_sends_again,
    delivery::the_transport_sends_what_the_outlet_leaves,
    feed::attach_spans_feed_break,
    feed::feed_breaks_while_listening,
    feed::feed_breaks_during_the_read,
    feed::hole_is_seen_during_the_read,
    feed::feed_cut_other_channel_moves_on,
    feed::repair_of_one_channel_holds_the_others,
    feed::slow_reader_rejoins,
    feed::slow_reader_on_bytes_rejoins,
    feed::more_than_fits_while_joining,
    feed::logs_leave_the_feed_and_return,
    subscriptions::subscribe_elsewhere_while_poll_ready,
    subscriptions::control_before_attach_reply,
    subscriptions::subscribe_while_held,
    subscriptions::unsubscribe_one_of_two_overlapping,
    subscriptions::one_copy_with_overlapping_patterns,
);
