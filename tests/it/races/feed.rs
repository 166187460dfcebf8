//! The feed: broken, silent, or faster than its reader.

use super::*;

pub async fn attach_spans_feed_break(world: World) {
    let (here, there) = world.two_nodes().await;
    let session = here.session(&["/a"]).await;
    let gate = here.gate(Point::After("attach"));
    let poll = here.poll(&session, "1");
    gate.arrived().await;
    here.break_feed().await;
    there.subscribe(&session, "/b").await;
    there.publish("/b", 1).await;
    world.quiesce().await;
    gate.open();
    world.quiesce().await;
    here.restore_feed().await;
    assert_eq!(answer(poll).await.delivered(), [1]);
}

/// The feed breaks between the engine's word that it listens and the node's note of it.
pub async fn feed_breaks_while_listening(world: World) {
    let (here, there) = world.two_nodes().await;
    let session = here.session(&["/a"]).await;
    let gate = here.gate(Point::After("listen"));
    let poll = here.poll(&session, "1");
    gate.arrived().await;
    here.break_feed().await;
    world.quiesce().await;
    gate.open();
    here.restore_feed().await;
    world.quiesce().await;
    there.publish("/a", 1).await;
    assert_eq!(answer(poll).await.delivered(), [1]);
}

/// A hole that opens while the logs are being read: what was read is void.
pub async fn feed_breaks_during_the_read(world: World) {
    let (here, there) = world.two_nodes().await;
    let session = here.session(&["/a"]).await;
    let gate = here.gate(Point::After("read"));
    let poll = here.poll(&session, "1");
    gate.arrived().await;
    here.break_feed().await;
    there.publish("/a", 1).await;
    here.restore_feed().await;
    world.quiesce().await;
    gate.open();
    assert_eq!(answer(poll).await.delivered(), [1]);
}

/// As above, but nobody says that the feed lost something: the next message does.
pub async fn hole_is_seen_during_the_read(world: World) {
    let (here, there) = world.two_nodes().await;
    // Nobody else wants the second one here, so there is a read.
    let (witness, session) = (here.session(&["/a"]).await, here.session(&["/a", "/b"]).await);
    let witness = here.attach(&witness, Link::Socket { connect_id: None, retry: false, claim: None }).await;
    settle(&here, &witness).await;
    there.publish("/a", 1).await;
    assert_eq!(take(&here, &witness, 1).await, [1]);
    let gate = here.gate(Point::After("read"));
    let poll = here.poll(&session, "1");
    gate.arrived().await;
    let pattern = [Pattern::parse("/a").expect("valid")];
    here.store.unlisten(&pattern).await.expect("deaf");
    there.publish("/a", 2).await;
    here.store.listen(&pattern).await.expect("listening again");
    there.publish("/a", 3).await;
    world.quiesce().await;
    gate.open();
    assert_eq!(answer(poll).await.delivered(), [1, 2, 3]);
}

/// The feed loses a message of one channel and then carries one of another: the second must not overtake the first.
pub async fn feed_cut_other_channel_moves_on(world: World) {
    let (here, there) = world.two_nodes().await;
    let session = here.session(&["/a", "/b"]).await;
    let socket = here.attach(&session, Link::Socket { connect_id: None, retry: false, claim: None }).await;
    settle(&here, &socket).await;
    there.publish("/a", 1).await;
    assert_eq!(take(&here, &socket, 1).await, [1]);
    here.break_feed().await;
    there.publish("/a", 2).await;
    here.restore_feed().await;
    there.publish("/b", 3).await;
    assert_eq!(take(&here, &socket, 2).await, [2, 3]);
}

/// Announcements of one log are lost without anybody saying so: its next message names a predecessor that the node
/// has not seen, and the whole session waits for the repair.
pub async fn repair_of_one_channel_holds_the_others(world: World) {
    let (here, there) = world.two_nodes().await;
    let session = here.session(&["/a", "/b"]).await;
    let socket = here.attach(&session, Link::Socket { connect_id: None, retry: false, claim: None }).await;
    settle(&here, &socket).await;
    there.publish("/a", 1).await;
    assert_eq!(take(&here, &socket, 1).await, [1]);
    let pattern = [Pattern::parse("/a").expect("valid")];
    here.store.unlisten(&pattern).await.expect("deaf");
    there.publish("/a", 2).await;
    here.store.listen(&pattern).await.expect("listening again");
    let gate = here.gate(Point::Before("read"));
    there.publish("/a", 3).await;
    let (held, read) = (take(&here, &socket, 3), async {
        gate.arrived().await;
        there.publish("/b", 4).await;
        world.quiesce().await;
        gate.open();
    });
    let (taken, ()) = tokio::join!(held, read);
    assert_eq!(taken, [2, 3, 4]);
}

pub async fn slow_reader_rejoins(world: World) {
    let node = world.node_with(Limits { outbox_messages: 10, outbox_bytes: 1 << 20 }, Gates::default()).await;
    let session = node.session(&["/a", "/b"]).await;
    let socket = node.attach(&session, Link::Socket { connect_id: None, retry: false, claim: None }).await;
    settle(&node, &socket).await;
    let mut taken = Vec::new();
    for number in 0..1000 {
        node.publish(if number % 3 == 0 { "/a" } else { "/b" }, number).await;
        if number % 100 == 0 {
            world.quiesce().await;
            taken.extend(take(&node, &socket, 1).await);
        }
    }
    let left = 1000 - taken.len();
    taken.extend(take(&node, &socket, left).await);
    assert_eq!(taken, (0..1000).collect::<Vec<_>>());
    node.publish("/a", 1000).await;
    world.quiesce().await;
    assert_eq!(socket.step(), Some(Step::Ready), "back on the live path");
    assert_eq!(take(&node, &socket, 1).await, [1000]);
}

pub async fn slow_reader_on_bytes_rejoins(world: World) {
    let node = world.node_with(Limits { outbox_messages: 1000, outbox_bytes: 100 }, Gates::default()).await;
    let session = node.session(&["/a"]).await;
    let socket = node.attach(&session, Link::Socket { connect_id: None, retry: false, claim: None }).await;
    settle(&node, &socket).await;
    for number in 0..100 {
        node.publish("/a", number).await;
    }
    assert_eq!(take(&node, &socket, 100).await, (0..100).collect::<Vec<_>>());
}

/// More messages come while the logs are read than may be kept aside.
pub async fn more_than_fits_while_joining(world: World) {
    let node = world.node_with(Limits { outbox_messages: 10, outbox_bytes: 1 << 20 }, Gates::default()).await;
    let session = node.session(&["/a"]).await;
    let socket = node.attach(&session, Link::Socket { connect_id: None, retry: false, claim: None }).await;
    settle(&node, &socket).await;
    here_and_now(&world, &node, &socket).await;
}

async fn here_and_now(world: &World, node: &TestNode, socket: &Held) {
    node.break_feed().await;
    node.restore_feed().await;
    world.quiesce().await;
    let gate = node.gate(Point::After("read"));
    let publish = async {
        gate.arrived().await;
        for number in 0..50 {
            node.publish("/a", number).await;
            world.quiesce().await;
        }
        gate.open();
    };
    let (taken, ()) = tokio::join!(take(node, socket, 50), publish);
    assert_eq!(taken, (0..50).collect::<Vec<_>>());
}

/// Logs that nobody wants leave the feed after a while, and come back with nothing missing.
pub async fn logs_leave_the_feed_and_return(world: World) {
    let node = world.node_lingering(Duration::ZERO).await;
    let session = node.session(&["/a"]).await;
    assert!(node.poll_now(&session, "1").await.is_empty());
    let gate = node.gate(Point::Before("unlisten"));
    let tidy = async {
        node.hub.tidy().await;
    };
    let poll = async {
        gate.arrived().await;
        // While the log is being dropped, somebody wants it again.
        let poll = node.poll(&session, "2");
        world.quiesce().await;
        gate.open();
        Some(poll)
    };
    let ((), poll) = tokio::join!(tidy, poll);
    let poll = poll.expect("started");
    world.quiesce().await;
    node.publish("/a", 1).await;
    assert_eq!(answer(poll).await.delivered(), [1]);
}
