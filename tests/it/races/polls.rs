//! Polls: copies, retries, supersedes, outcomes that nobody learns.

use super::*;

pub async fn message_stored_during_attach_wakes_poll(world: World) {
    for point in [Point::After("attach"), Point::Before("listen"), Point::After("listen"), Point::Before("read")] {
        // A node that does not listen yet.
        let node = world.node().await;
        let session = node.session(&["/a"]).await;
        let gate = node.gate(point);
        let poll = node.poll(&session, "1");
        gate.arrived().await;
        node.publish("/a", 1).await;
        gate.open();
        assert_eq!(answer(poll).await.delivered(), [1], "{point:?}");
    }
}

/// A node that listens already, with nothing to read, reads nothing: and still misses nothing, whenever it is stored.
pub async fn message_stored_during_warm_attach_wakes_poll(world: World) {
    let (here, there) = world.two_nodes().await;
    let session = here.session(&["/a", "/b"]).await;
    assert!(here.poll_now(&session, "0").await.is_empty());
    let unread = here.gate(Point::Before("read"));
    let poll = here.poll(&session, "1");
    world.quiesce().await;
    there.publish("/a", 1).await;
    assert_eq!(answer(poll).await.delivered(), [1], "live without a read");
    unread.open();
    stored_around_an_attach(&world, &here, &there, &session).await;
}

/// A message on `/b` just before an attach reaches the engine, and just after.
pub(super) async fn stored_around_an_attach(world: &World, here: &TestNode, there: &TestNode, session: &SessionId) {
    for (number, point) in [(2, Point::Before("attach")), (3, Point::After("attach")), (4, Point::After("attach"))] {
        let gate = here.gate(point);
        let poll = here.poll(session, &number.to_string());
        gate.arrived().await;
        there.publish("/b", number).await;
        world.quiesce().await;
        gate.open();
        assert_eq!(answer(poll).await.delivered(), [number], "{point:?}");
    }
}

/// The little that waits for a poll comes with its attach, without a read; what is stored meanwhile, after it.
pub async fn what_waits_comes_with_a_warm_attach(world: World) {
    let (here, there) = world.two_nodes().await;
    let session = here.session(&["/a", "/b", "/*"]).await;
    assert!(here.poll_now(&session, "0").await.is_empty());
    let unread = here.gate(Point::Before("read"));
    there.publish("/b", 1).await;
    there.publish("/a", 2).await;
    world.quiesce().await;
    assert_eq!(answer(here.poll(&session, "1")).await.delivered(), [1, 2], "without a read");
    unread.open();
    for (number, point) in [(3, Point::Before("attach")), (5, Point::After("attach"))] {
        there.publish("/a", number).await;
        let gate = here.gate(point);
        let poll = here.poll(&session, &number.to_string());
        gate.arrived().await;
        there.publish("/b", number + 1).await;
        world.quiesce().await;
        gate.open();
        assert_eq!(answer(poll).await.delivered(), [number, number + 1], "{point:?}");
    }
}

/// A log that left the feed and came back while an attach was under way proves nothing.
pub async fn warmth_does_not_outlive_the_feed(world: World) {
    for waiting in [None, Some(1)] {
        let (here, there) = world.two_nodes().await;
        let session = here.session(&["/a"]).await;
        assert!(here.poll_now(&session, "1").await.is_empty());
        if let Some(number) = waiting {
            there.publish("/a", number).await;
        }
        let gate = here.gate(Point::After("attach"));
        let poll = here.poll(&session, "2");
        gate.arrived().await;
        here.break_feed().await;
        there.publish("/a", 2).await;
        here.restore_feed().await;
        world.quiesce().await;
        gate.open();
        let expected: Vec<_> = waiting.into_iter().chain([2]).collect();
        assert_eq!(answer(poll).await.delivered(), expected);
    }
}

pub async fn message_stored_after_the_read_wakes_poll(world: World) {
    let node = world.node().await;
    let session = node.session(&["/a"]).await;
    let gate = node.gate(Point::After("read"));
    let poll = node.poll(&session, "1");
    gate.arrived().await;
    node.publish("/a", 1).await;
    world.quiesce().await;
    gate.open();
    assert_eq!(answer(poll).await.delivered(), [1]);
}

pub async fn overlapping_connect_answers_the_older(world: World) {
    let (here, there) = world.two_nodes().await;
    let session = here.session(&["/a"]).await;
    let older = here.poll(&session, "1");
    world.quiesce().await;
    let newer = there.poll(&session, "2");
    assert_eq!(answer(older).await.name(), "empty");
    here.publish("/a", 1).await;
    assert_eq!(answer(newer).await.delivered(), [1]);
}

/// A stream takes the session from a poll: nobody else answers that connect, so it is answered.
pub async fn stream_answers_the_older_poll(world: World) {
    let (here, there) = world.two_nodes().await;
    let session = here.session(&["/a"]).await;
    let poll = here.poll(&session, "1");
    world.quiesce().await;
    let stream = there.attach(&session, Link::Stream { last_event: None }).await;
    assert_eq!(answer(poll).await.name(), "empty");
    here.publish("/a", 1).await;
    assert_eq!(take(&there, &stream, 1).await, [1]);
}

/// The copy of a connect takes the session: the older connection is closed without a reply, so that the client cannot
/// take an empty one for the answer.
pub async fn same_id_copy_supersedes(world: World) {
    for elsewhere in [false, true] {
        let (here, there) = world.two_nodes().await;
        let session = here.session(&["/a"]).await;
        let original = here.poll(&session, "1");
        world.quiesce().await;
        let copy = if elsewhere { there.poll(&session, "1") } else { here.poll(&session, "1") };
        assert_eq!(answer(original).await.name(), "hangup");
        here.publish("/a", 1).await;
        assert_eq!(answer(copy).await.delivered(), [1]);
    }
}

pub async fn same_id_copy_after_reply(world: World) {
    let (here, there) = world.two_nodes().await;
    let session = here.session(&["/a"]).await;
    here.publish("/a", 1).await;
    assert_eq!(here.poll_now(&session, "1").await, [1]);
    here.publish("/a", 2).await;
    assert_eq!(there.poll_now(&session, "1").await, [1], "the copy never grows");
    assert_eq!(here.poll_now(&session, "2").await, [2]);
}

/// Once recorded, the reply is sent even though another poll has the session now.
pub async fn superseded_after_record(world: World) {
    let (here, there) = world.two_nodes().await;
    let session = here.session(&["/a"]).await;
    here.publish("/a", 1).await;
    let gate = here.gate(Point::After("record"));
    let older = here.poll(&session, "1");
    gate.arrived().await;
    let newer = there.poll(&session, "2");
    world.quiesce().await;
    gate.open();
    assert_eq!(answer(older).await.delivered(), [1]);
    there.publish("/a", 2).await;
    assert_eq!(answer(newer).await.delivered(), [2]);
}

/// Superseded before the record: nothing was recorded, so the older poll is answered empty and the newer has it all.
pub async fn superseded_before_record(world: World) {
    let (here, there) = world.two_nodes().await;
    let session = here.session(&["/a"]).await;
    here.publish("/a", 1).await;
    let gate = here.gate(Point::Before("record"));
    let older = here.poll(&session, "1");
    gate.arrived().await;
    let newer = there.poll(&session, "2");
    world.quiesce().await;
    gate.open();
    assert_eq!(answer(older).await.name(), "empty");
    assert_eq!(answer(newer).await.delivered(), [1]);
}

/// The connection breaks while the record is under way, before or after it happened: the messages are due again,
/// whatever the id of the next connect.
pub async fn record_outcome_unknown(world: World) {
    for point in [Point::Before("record"), Point::After("record")] {
        let node = world.node().await;
        let session = node.session(&["/a"]).await;
        node.publish("/a", 1).await;
        let gate = node.gate(point);
        let poll = node.poll(&session, "1");
        gate.arrived().await;
        poll.abort();
        assert!(poll.await.is_err());
        gate.open();
        node.tasks.close();
        node.tasks.wait().await;
        assert_eq!(node.poll_now(&session, "2").await, [1], "{point:?}");
    }
}

/// The reply was recorded and then not written: its receipt gives the messages back.
pub async fn unwritten_reply_is_due_again(world: World) {
    let node = world.node().await;
    let session = node.session(&["/a"]).await;
    node.publish("/a", 1).await;
    let Answer::Messages(numbers, receipt, _) = answer(node.poll(&session, "1")).await else { panic!("messages") };
    assert_eq!(numbers, [1]);
    drop(receipt);
    world.quiesce().await;
    assert_eq!(node.poll_now(&session, "2").await, [1]);
}

pub async fn old_id_copy_after_new_poll(world: World) {
    let (here, there) = world.two_nodes().await;
    let session = here.session(&["/a"]).await;
    here.publish("/a", 1).await;
    assert_eq!(here.poll_now(&session, "1").await, [1]);
    let current = here.poll(&session, "2");
    world.quiesce().await;
    assert!(there.poll_now(&session, "1").await.is_empty(), "the late copy is answered empty");
    here.publish("/a", 2).await;
    assert_eq!(answer(current).await.delivered(), [2], "and does not disturb the poll that is held");
}

pub async fn retry_after_unsubscribe_answers_empty(world: World) {
    let node = world.node().await;
    let session = node.session(&["/a", "/b"]).await;
    node.publish("/a", 1).await;
    assert_eq!(node.poll_now(&session, "1").await, [1]);
    node.unsubscribe(&session, "/a").await;
    node.publish("/b", 2).await;
    let retry = answer(node.poll(&session, "1")).await;
    assert_eq!(retry.name(), "empty", "nothing of its range is left, and it must not grow");
    assert_eq!(node.poll_now(&session, "2").await, [2]);
}

/// As long as something of a repeated connect's range is due, it gets no empty answer.
pub async fn retry_superseded_while_due_is_closed(world: World) {
    let (here, there) = world.two_nodes().await;
    let session = here.session(&["/a"]).await;
    here.publish("/a", 1).await;
    assert_eq!(here.poll_now(&session, "1").await, [1]);
    let gate = here.gate(Point::After("read"));
    let retry = here.poll(&session, "1");
    gate.arrived().await;
    let newer = there.poll(&session, "2");
    world.quiesce().await;
    gate.open();
    assert_eq!(answer(retry).await.name(), "hangup");
    here.publish("/a", 2).await;
    assert_eq!(answer(newer).await.delivered(), [2]);
}

pub async fn constant_connect_id_ends(world: World) {
    let node = world.node().await;
    let session = node.session(&["/a"]).await;
    node.publish("/a", 1).await;
    let mut copies = 0;
    for _ in 0..10 {
        copies += node.poll_now(&session, "same").await.len();
        world.quiesce().await;
    }
    assert_eq!(copies, 4, "once, and three repetitions that were written completely");
    node.publish("/a", 2).await;
    assert_eq!(node.poll_now(&session, "same").await, [2]);
}

pub async fn two_tabs_no_storm(world: World) {
    let node = world.node().await;
    let session = node.session(&["/a"]).await;
    let start = tokio::time::Instant::now();
    let mut held = node.poll(&session, "tab1-0");
    for round in 1..=20 {
        world.quiesce().await;
        let next = node.poll(&session, &format!("tab{}-{round}", round % 2 + 1));
        assert_eq!(answer(held).await.name(), "empty");
        held = next;
    }
    // Three at once, the others with a second or more between them.
    assert!(start.elapsed() >= Duration::from_secs(10), "20 rounds took {:?}", start.elapsed());
    node.publish("/a", 1).await;
    assert_eq!(answer(held).await.delivered(), [1]);
}

pub async fn disconnect_while_attached_elsewhere(world: World) {
    let (here, there) = world.two_nodes().await;
    let session = here.session(&["/a"]).await;
    let poll = there.poll(&session, "1");
    world.quiesce().await;
    here.store.end(&session, Ended::Disconnected).await.expect("ended");
    assert_eq!(answer(poll).await.name(), "released");
    assert_eq!(answer(there.poll(&session, "2")).await.name(), "unknown");
}

/// Superseded while its attach is under way: answered at once, not when its time is over.
pub async fn supersede_before_attach_reply(world: World) {
    let (here, there) = world.two_nodes().await;
    // Without a subscription no log is read, so that nothing but the news can tell.
    let session = here.session(&[]).await;
    let gate = here.gate(Point::After("attach"));
    let older = here.poll(&session, "1");
    gate.arrived().await;
    let _newer = there.poll(&session, "2");
    world.quiesce().await;
    let start = tokio::time::Instant::now();
    gate.open();
    assert_eq!(answer(older).await.name(), "empty");
    assert!(start.elapsed() < Duration::from_secs(5), "answered after {:?}", start.elapsed());
}

/// The session ends while its attach is under way: what the feed tells meanwhile is not lost.
pub async fn disconnect_before_attach_reply(world: World) {
    let (here, there) = world.two_nodes().await;
    let session = here.session(&["/a"]).await;
    let gate = there.gate(Point::After("attach"));
    let poll = there.poll(&session, "1");
    gate.arrived().await;
    here.store.end(&session, Ended::Disconnected).await.expect("ended");
    world.quiesce().await;
    gate.open();
    assert_eq!(answer(poll).await.name(), "released");
}
