//! Acknowledgements, positions, gaps and replays, where nodes and connections fail.

use std::sync::atomic::{AtomicBool, Ordering};

use weft::session::{Attachment, Outlet, Step};

use super::*;

const KEPT: Retention = Retention { age: Duration::from_secs(3600), length: 1000 };
const ACK: Traits = Traits { ack: true, resume: false, replay: false };
const RESUME: Traits = Traits { ack: false, resume: true, replay: false };

impl TestNode {
    async fn publish_kept(&self, channel: &str, number: u64) {
        let channel = Channel::parse(channel).expect("valid");
        let array = format!("[{{\"channel\":\"{channel}\",\"data\":{number}}}]").into();
        let publication = Publication { retention: Some(KEPT), ..Publication::new(channel, array) };
        self.store.publish(publication).await.expect("stored");
    }

    async fn subscribe_replaying(&self, session: &SessionId, channel: &str) {
        let wish = ReplayWish { after: None, retention: KEPT };
        let pattern = Pattern::parse(channel).expect("valid");
        self.store.subscribe(session, &pattern, 100, Some(wish)).await.expect("subscribed");
    }
}

/// An answer with its reply written: what it brought, and what it said.
fn read(answer: Answer) -> (Vec<u64>, Told) {
    match answer {
        Answer::Messages(numbers, receipt, told) => {
            receipt.written();
            (numbers, told)
        }
        other => panic!("expected messages, got {}", other.name()),
    }
}

fn number_of(told: &Told) -> Word {
    Word::Ack(told.upto.get(PartitionId::default()))
}

/// The reply is written completely, and never arrives; the next connect reaches another node under a new id.
pub(super) async fn unacknowledged_replies_come_again(world: World) {
    let (here, there) = world.two_nodes().await;
    let session = here.session_with(ACK, &["/a"]).await;
    here.publish("/a", 1).await;
    let (first, told) = read(answer(here.poll_claiming(&session, "1", Word::Ack(Position(0)))).await);
    there.publish("/a", 2).await;
    let (again, _) = read(answer(there.poll_claiming(&session, "2", Word::Ack(Position(0)))).await);
    assert_eq!((first, again), (vec![1], vec![1, 2]));
    let (rest, told) = read(answer(here.poll_claiming(&session, "3", number_of(&told))).await);
    assert_eq!(rest, [2]);
    assert_eq!(answer(there.poll_claiming(&session, "4", number_of(&told))).await.name(), "empty");
}

/// A node is killed with what a socket was sent; the client says what it has.
pub(super) async fn replay_below_cursor(world: World) {
    let (here, there) = world.two_nodes().await;
    let session = here.session_with(RESUME, &["/a"]).await;
    let link = Link::Socket { connect_id: Some("1"), retry: false, claim: None };
    let socket = here.attach(&session, link).await;
    for number in 1..=3 {
        here.publish("/a", number).await;
    }
    assert_eq!(take(&here, &socket, 3).await, [1, 2, 3]);
    // Its stack has answered a ping, but the page has processed the first message only.
    socket.confirm(&socket.sent());
    here.sessions.commit().await;
    let processed = first_position(&there, &session).await;
    let (numbers, told) = read(answer(there.poll_claiming(&session, "2", Word::At(processed))).await);
    assert_eq!((numbers, told.form), (vec![2, 3], Form::Positioned));
}

/// Where the first message of the session's log lies, as its client knows it.
async fn first_position(node: &TestNode, session: &SessionId) -> Cursor {
    let start = Word::At(Cursor::single(Position(1)));
    let (_, told) = read(answer(node.poll_claiming(session, "look", start)).await);
    Cursor::single(told.positions[0])
}

/// The reply that tells it is lost: told again. It arrives: never again.
pub(super) async fn gap_told_once(world: World) {
    let (here, there) = world.two_nodes().await;
    let session = here.session_with(RESUME, &[]).await;
    for name in ["/a", "/b"] {
        here.subscribe_alone(&session, name).await;
    }
    here.publish("/a", 1).await;
    // A position from before the log: what was there is not known.
    let start = Word::At(Cursor::single(Position(1)));
    let forget = Pattern::parse("/b").expect("valid");
    here.store.unsubscribe(&session, &forget).await.expect("unsubscribed");
    here.publish("/a", 2).await;
    let resumed = SessionId::random();
    let patterns = ["/a", "/b"].map(|name| Subscription {
        pattern: Pattern::parse(name).expect("valid"),
        since: Position(0),
        replay: None,
    });
    let Word::At(at) = &start else { unreachable!("it was made so") };
    let creation =
        Creation { traits: RESUME, resumed: Some((at, &patterns)), ..Creation::new(&resumed, LIFETIME, 100) };
    here.store.create(creation).await.expect("created");
    let (lost, told) = read(answer(there.poll_claiming(&resumed, "1", start.clone())).await);
    assert_eq!((lost.clone(), told.gap.is_some()), (vec![1, 2], true), "what is left comes all the same");
    let (again, told) = read(answer(here.poll_claiming(&resumed, "2", start)).await);
    assert_eq!((again, told.gap.is_some()), (vec![1, 2], true));
    let told_up_to = told.gap.expect("checked");
    assert!(told_up_to.get(PartitionId::default()) < told.positions[0], "nothing of it is taken for old");
    let Some(last) = told.positions.last() else { panic!("it brought messages") };
    let after = Word::At(Cursor::single(*last));
    // /b has nothing past its beginning; its gap is told until the client is past that.
    let next = answer(there.poll_claiming(&resumed, "3", after)).await;
    let (numbers, told) = read(next);
    assert_eq!((numbers, told.gap.is_some()), (vec![], true));
    let past = Word::At(told.upto.clone());
    assert_eq!(answer(here.poll_claiming(&resumed, "4", past.clone())).await.name(), "empty");
    here.publish("/b", 3).await;
    let (numbers, told) = read(answer(there.poll_claiming(&resumed, "5", past)).await);
    assert_eq!((numbers, told.gap), (vec![3], None));
}

/// Replies are lost, the session changes nodes, a node dies: the replay goes on from what was confirmed.
pub(super) async fn replay_broken_midway_resumes(world: World) {
    let limits = Limits { outbox_messages: 3, outbox_bytes: 1 << 20 };
    let here = world.node_with(limits, Gates::default()).await;
    let there = world.node_with(limits, Gates::default()).await;
    for number in 1..=10 {
        here.publish_kept("/a", number).await;
    }
    let session = here.session(&[]).await;
    here.subscribe_replaying(&session, "/a").await;
    here.publish_kept("/a", 11).await;
    assert_eq!(here.poll_now(&session, "1").await, [1, 2, 3]);
    // Repeated: the reply was lost.
    assert_eq!(there.poll_now(&session, "1").await, [1, 2, 3]);
    // A socket takes over, confirms two chunks of three, and is gone without a word.
    let link = Link::Socket { connect_id: Some("2"), retry: false, claim: None };
    let socket = here.attach(&session, link).await;
    assert_eq!(take(&here, &socket, 3).await, [4, 5, 6]);
    socket.confirm(&socket.sent());
    here.sessions.commit().await;
    assert_eq!(take(&here, &socket, 3).await, [7, 8, 9]);
    drop(socket);
    let link = Link::Socket { connect_id: Some("3"), retry: false, claim: None };
    let socket = there.attach(&session, link).await;
    // The rest of the replay, and then what was published since, once.
    assert_eq!(take(&there, &socket, 5).await, [7, 8, 9, 10, 11]);
    there.publish_kept("/a", 12).await;
    assert_eq!(take(&there, &socket, 1).await, [12]);
    socket.confirm(&socket.sent());
    socket.detach(Progress::Confirmed).await.expect("detached");
    assert_eq!(here.poll_now(&session, "4").await, Vec::<u64>::new());
}

/// Subscribed and published meanwhile, and a message of another channel: all of it after the replay, each once.
pub(super) async fn a_replay_and_the_live_feed_do_not_overlap(world: World) {
    let limits = Limits { outbox_messages: 3, outbox_bytes: 1 << 20 };
    let node = world.node_with(limits, Gates::default()).await;
    for number in 1..=5 {
        node.publish_kept("/a", number).await;
    }
    let session = node.session(&["/live"]).await;
    let link = Link::Socket { connect_id: Some("1"), retry: false, claim: None };
    let socket = node.attach(&session, link).await;
    settle(&node, &socket).await;
    node.publish("/live", 100).await;
    node.subscribe_replaying(&session, "/a").await;
    node.publish_kept("/a", 6).await;
    world.quiesce().await;
    let mut taken = take(&node, &socket, 3).await;
    node.publish("/live", 101).await;
    node.publish_kept("/a", 7).await;
    taken.extend(take(&node, &socket, 6).await);
    // Of other channels, what had been sent to nobody waits too.
    assert_eq!(taken, [1, 2, 3, 4, 5, 100, 6, 101, 7]);
    node.publish_kept("/a", 8).await;
    assert_eq!(take(&node, &socket, 1).await, [8]);
}

/// The feed breaks within a replay: it goes on, and nothing is replayed twice.
pub(super) async fn feed_breaks_within_a_replay(world: World) {
    let limits = Limits { outbox_messages: 3, outbox_bytes: 1 << 20 };
    let node = world.node_with(limits, Gates::default()).await;
    for number in 1..=7 {
        node.publish_kept("/a", number).await;
    }
    let session = node.session(&[]).await;
    node.subscribe_replaying(&session, "/a").await;
    let link = Link::Socket { connect_id: Some("1"), retry: false, claim: None };
    let socket = node.attach(&session, link).await;
    assert_eq!(take(&node, &socket, 3).await, [1, 2, 3]);
    node.break_feed().await;
    node.publish_kept("/a", 8).await;
    node.restore_feed().await;
    assert_eq!(take(&node, &socket, 5).await, [4, 5, 6, 7, 8]);
}

/// An outlet that takes nothing, because the kernel has no room: the transport is told, and sends.
pub(super) async fn the_transport_sends_what_the_outlet_leaves(world: World) {
    struct Stuck(AtomicBool);
    impl Outlet for Stuck {
        fn push(&self, _: &Attachment, _: &mut Vec<u8>) {
            self.0.store(true, Ordering::Release);
        }
    }
    let node = world.node().await;
    let session = node.session(&["/a"]).await;
    let link = Link::Socket { connect_id: Some("1"), retry: false, claim: None };
    let socket = node.attach(&session, link).await;
    node.publish("/a", 1).await;
    assert_eq!(take(&node, &socket, 1).await, [1]);
    let outlet = Arc::new(Stuck(AtomicBool::new(false)));
    socket.set_outlet(Some(outlet.clone()));
    // The task waits before the message comes: it has to be woken.
    let (step, ()) = tokio::join!(soon("the transport is woken", socket.next()), node.publish("/a", 2));
    assert_eq!((step, outlet.0.load(Ordering::Acquire)), (Step::Ready, true), "the outlet was asked first");
    assert_eq!(take(&node, &socket, 1).await, [2]);
}

/// A socket's client says that the reply did not come: what was sent since its number comes again.
pub(super) async fn a_rewound_socket_sends_again(world: World) {
    let node = world.node().await;
    let session = node.session_with(ACK, &["/a"]).await;
    let link = Link::Socket { connect_id: Some("1"), retry: false, claim: Some(Claim::Ack(Position(0))) };
    let socket = node.attach(&session, link).await;
    assert!(socket.acks());
    node.publish("/a", 1).await;
    assert_eq!(take(&node, &socket, 1).await, [1]);
    let first = socket.sent();
    node.publish("/a", 2).await;
    assert_eq!(take(&node, &socket, 1).await, [2]);
    socket.confirm(&first);
    socket.rewind(&first.cursor);
    node.publish("/a", 3).await;
    assert_eq!(take(&node, &socket, 2).await, [2, 3]);
    // Never back past what was confirmed.
    socket.rewind(&Cursor::single(Position(0)));
    assert_eq!(take(&node, &socket, 2).await, [2, 3]);
}
