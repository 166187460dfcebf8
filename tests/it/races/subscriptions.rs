//! Subscriptions that change while the session is attached, here or elsewhere.

use super::*;

pub async fn subscribe_elsewhere_while_poll_ready(world: World) {
    let (here, there) = world.two_nodes().await;
    let session = here.session(&["/a"]).await;
    let gate = here.gate(Point::Before("record"));
    let poll = here.poll(&session, "1");
    world.quiesce().await;
    there.publish("/a", 1).await;
    gate.arrived().await;
    // The poll is about to record position 1 while it does not know of this subscription and its message.
    there.subscribe(&session, "/b").await;
    there.publish("/b", 2).await;
    there.publish("/a", 3).await;
    gate.open();
    assert_eq!(answer(poll).await.delivered(), [1, 2, 3]);
}

pub async fn control_before_attach_reply(world: World) {
    let (here, there) = world.two_nodes().await;
    let session = here.session(&["/a"]).await;
    let gate = here.gate(Point::After("attach"));
    let poll = here.poll(&session, "1");
    gate.arrived().await;
    there.subscribe(&session, "/b").await;
    there.publish("/b", 1).await;
    world.quiesce().await;
    gate.open();
    assert_eq!(answer(poll).await.delivered(), [1]);
}

pub async fn subscribe_while_held(world: World) {
    let (here, there) = world.two_nodes().await;
    let session = here.session(&[]).await;
    let poll = here.poll(&session, "1");
    world.quiesce().await;
    there.subscribe(&session, "/b").await;
    there.publish("/b", 1).await;
    assert_eq!(answer(poll).await.delivered(), [1]);
}

/// What waits in the outbox is held against the subscriptions by channel: the message still belongs to the other one.
pub async fn unsubscribe_one_of_two_overlapping(world: World) {
    for (gone, left) in [("/a/b", "/a/*"), ("/a/*", "/a/b")] {
        let (here, there) = world.two_nodes().await;
        let session = here.session(&["/a/b", "/a/*"]).await;
        let socket = here.attach(&session, Link::Socket { connect_id: None, retry: false, claim: None }).await;
        settle(&here, &socket).await;
        there.publish("/a/b", 1).await;
        world.quiesce().await;
        there.unsubscribe(&session, gone).await;
        there.publish("/a/b", 2).await;
        assert_eq!(take(&here, &socket, 2).await, [1, 2], "{left} is left");
        there.unsubscribe(&session, left).await;
        there.publish("/a/b", 3).await;
        world.quiesce().await;
        settle(&here, &socket).await;
        assert_eq!(socket.step(), None, "nothing is left to deliver");
    }
}

pub async fn one_copy_with_overlapping_patterns(world: World) {
    let node = world.node().await;
    let session = node.session(&["/a/b", "/a/*", "/a/**", "/**"]).await;
    let socket = node.attach(&session, Link::Socket { connect_id: None, retry: false, claim: None }).await;
    settle(&node, &socket).await;
    for number in 0..10 {
        node.publish("/a/b", number).await;
    }
    node.publish("/other", 10).await;
    assert_eq!(take(&node, &socket, 11).await, (0..=10).collect::<Vec<_>>());
}
