//! Sockets and streams: what a pong, a commit or a detach may confirm.

use super::*;

const SOCKET: Link<'static> = Link::Socket { connect_id: None, retry: false, claim: None };

pub async fn what_no_pong_confirmed_is_due_again(world: World) {
    let (here, there) = world.two_nodes().await;
    let session = here.session(&["/a"]).await;
    let socket = here.attach(&session, SOCKET).await;
    here.publish("/a", 1).await;
    here.publish("/a", 2).await;
    assert_eq!(take(&here, &socket, 2).await, [1, 2]);
    drop(socket);
    assert_eq!(there.poll_now(&session, "9").await, [1, 2], "a socket that broke confirms nothing by itself");
}

pub async fn confirmed_positions_are_committed_in_batches(world: World) {
    let (here, there) = world.two_nodes().await;
    let session = here.session(&["/a"]).await;
    let socket = here.attach(&session, SOCKET).await;
    here.publish("/a", 1).await;
    assert_eq!(take(&here, &socket, 1).await, [1]);
    let sent = socket.sent();
    here.publish("/a", 2).await;
    assert_eq!(take(&here, &socket, 1).await, [2]);
    // The pong of a ping that was sent before the second message.
    socket.confirm(&sent);
    here.sessions.commit().await;
    drop(socket);
    assert_eq!(there.poll_now(&session, "9").await, [2]);
}

pub async fn detach_writes_exactly_what_was_confirmed(world: World) {
    let (here, there) = world.two_nodes().await;
    let session = here.session(&["/a"]).await;
    let socket = here.attach(&session, SOCKET).await;
    here.publish("/a", 1).await;
    assert_eq!(take(&here, &socket, 1).await, [1]);
    socket.confirm(&socket.sent());
    socket.detach(Progress::Confirmed).await.expect("detached");
    here.publish("/a", 2).await;
    assert_eq!(there.poll_now(&session, "9").await, [2]);
}

/// A pong can confirm no more than was sent, whatever the peer makes of it.
pub async fn confirmation_is_clamped_to_what_was_sent(world: World) {
    let node = world.node().await;
    let session = node.session(&["/a"]).await;
    let socket = node.attach(&session, SOCKET).await;
    settle(&node, &socket).await;
    node.publish("/a", 1).await;
    socket.confirm(&Cursor::single(Position(u64::MAX)).into());
    node.sessions.commit().await;
    drop(socket);
    assert_eq!(node.poll_now(&session, "9").await, [1]);
}

pub async fn late_pong_after_reattach(world: World) {
    let (here, there) = world.two_nodes().await;
    let session = here.session(&["/a"]).await;
    let old = here.attach(&session, SOCKET).await;
    here.publish("/a", 1).await;
    assert_eq!(take(&here, &old, 1).await, [1]);
    let new = there.attach(&session, SOCKET).await;
    settle(&there, &new).await;
    old.confirm(&old.sent());
    here.sessions.commit().await;
    drop(new);
    assert_eq!(there.poll_now(&session, "9").await, [1], "the old socket's pong confirms nothing any more");
}

pub async fn stale_epoch_closes_socket(world: World) {
    let (here, there) = world.two_nodes().await;
    let session = here.session(&["/a"]).await;
    let socket = here.attach(&session, SOCKET).await;
    settle(&here, &socket).await;
    // The news of the newer attachment is lost with the feed.
    here.feed.abort();
    let _newer = there.attach(&session, SOCKET).await;
    socket.confirm(&socket.sent());
    here.sessions.commit().await;
    let step = soon("the socket learns by its commit", socket.next()).await;
    assert_eq!(step, Step::Ended(weft::session::End::Stale));
}

pub async fn old_socket_close_keeps_new(world: World) {
    for elsewhere in [false, true] {
        let (here, there) = world.two_nodes().await;
        let session = here.session(&["/a"]).await;
        let old = here.attach(&session, SOCKET).await;
        settle(&here, &old).await;
        let node = if elsewhere { &there } else { &here };
        let new = node.attach(&session, SOCKET).await;
        settle(node, &new).await;
        old.detach(Progress::Confirmed).await.expect("does nothing");
        here.publish("/a", 1).await;
        assert_eq!(take(node, &new, 1).await, [1]);
    }
}

/// Subscribed while a commit is under way: it waits until the subscription is known, and is not lost.
pub async fn commit_waits_for_unknown_subscriptions(world: World) {
    let (here, there) = world.two_nodes().await;
    let session = here.session(&["/a"]).await;
    let socket = here.attach(&session, SOCKET).await;
    here.publish("/a", 1).await;
    assert_eq!(take(&here, &socket, 1).await, [1]);
    there.subscribe(&session, "/b").await;
    socket.confirm(&socket.sent());
    here.sessions.commit().await;
    world.quiesce().await;
    settle(&here, &socket).await;
    here.sessions.commit().await;
    drop(socket);
    there.publish("/b", 2).await;
    assert_eq!(there.poll_now(&session, "9").await, [2]);
}

pub async fn poll_to_stream_upgrade_one_copy(world: World) {
    let (here, there) = world.two_nodes().await;
    let session = here.session(&["/a"]).await;
    here.publish("/a", 1).await;
    // The poll's reply is on its way when the stream opens.
    let reply = answer(here.poll(&session, "1")).await;
    let stream = there.attach(&session, Link::Stream { last_event: None }).await;
    here.publish("/a", 2).await;
    assert_eq!(take(&there, &stream, 1).await, [2], "what the reply carries is not sent twice");
    assert_eq!(reply.delivered(), [1]);
}

/// A heartbeat of a stream comes by POST, maybe to another node: it must not take the session from its stream.
pub async fn eventsource_post_never_supersedes(world: World) {
    let (here, there) = world.two_nodes().await;
    let session = here.session(&["/a"]).await;
    let stream = here.attach(&session, Link::Stream { last_event: None }).await;
    settle(&here, &stream).await;
    assert_eq!(there.store.heartbeat(&session, None).await, Ok(Touch::Alive));
    here.publish("/a", 1).await;
    assert_eq!(take(&here, &stream, 1).await, [1]);
    stream.flushed(&stream.sent());
    here.sessions.commit().await;
    for _ in 0..2 {
        world.advance(LIFETIME / 3).await;
        there.store.heartbeat(&session, None).await.expect("alive");
    }
    drop(stream);
    assert!(there.poll_now(&session, "9").await.is_empty());
}
