//! Attaching: what is confirmed by it, what is due again, and who is told.

use super::*;

/// A session with one message recorded under connect id `1`; gives the attachment and the message's position.
async fn recorded(engine: &impl TestEngine) -> (SessionId, Attached, Position) {
    let session = session(engine, &["/a"]).await;
    let attached = attach_poll(engine, &session, "1").await;
    let position = publish(engine, "/a", "1").await;
    assert_eq!(record(engine, &session, &attached, Some("1"), position).await, Record::Recorded);
    (session, attached, position)
}

pub async fn another_id_confirms(fixture: impl Fixture) {
    let (engine, _feed) = fixture.node().await;
    let (session, first, position) = recorded(&engine).await;
    assert!(first.first);
    let next = attach_poll(&engine, &session, "2").await;
    assert!(!next.first);
    assert_eq!((next.cursor.clone(), next.ceiling.clone()), (Cursor::single(position), None));
    assert!(snapshot(&engine, &session, &next).await.deliveries.is_empty());
}

pub async fn a_connect_without_id_confirms(fixture: impl Fixture) {
    let (engine, _feed) = fixture.node().await;
    let (session, _, position) = recorded(&engine).await;
    let next = attach(&engine, &session, Link::Poll { connect_id: None, retry: false, claim: None }).await;
    assert_eq!(next.cursor, Cursor::single(position));
}

pub async fn the_same_id_is_a_retry_that_never_grows(fixture: impl Fixture) {
    let (engine, _feed) = fixture.node().await;
    let (session, _, position) = recorded(&engine).await;
    publish(&engine, "/a", "2").await;
    for _ in 0..2 {
        let again = attach_poll(&engine, &session, "1").await;
        assert_eq!(again.ceiling, Some(Cursor::single(position).into()));
        assert_eq!(snapshot(&engine, &session, &again).await.deliveries[0].position, position);
    }
}

pub async fn a_retry_by_the_clients_word_is_a_retry(fixture: impl Fixture) {
    let (engine, _feed) = fixture.node().await;
    let (session, _, position) = recorded(&engine).await;
    let retry = attach(&engine, &session, Link::Poll { connect_id: Some("2"), retry: true, claim: None }).await;
    assert_eq!(retry.ceiling, Some(Cursor::single(position).into()));
    // From now on the range belongs to the new id.
    let next = attach_poll(&engine, &session, "3").await;
    assert_eq!((next.cursor, next.ceiling), (Cursor::single(position), None));
}

pub async fn released_replies_confirm_nothing(fixture: impl Fixture) {
    let (engine, _feed) = fixture.node().await;
    let (session, attached, position) = recorded(&engine).await;
    engine.release(&session, attached.epoch, Some("other")).await.expect("does nothing");
    engine.release(&session, attached.epoch, Some("1")).await.expect("released");
    // Also if it comes only now, from a connection that was given up.
    assert_eq!(record(&engine, &session, &attached, Some("1"), position).await, Record::Stale { same_id: true });
    let next = attach_poll(&engine, &session, "2").await;
    assert_eq!(positions(&snapshot(&engine, &session, &next).await.deliveries), [position]);
}

pub async fn old_id_copy_after_new_poll(fixture: impl Fixture) {
    let (engine, _feed) = fixture.node().await;
    let (session, _, _) = recorded(&engine).await;
    let current = attach_poll(&engine, &session, "2").await;
    assert_eq!(poll(&engine, &session, "1").await, Attach::Late);
    assert_eq!(engine.touch(&session, Some(current.epoch)).await, Ok(Touch::Alive), "the newer poll keeps the session");
}

pub async fn the_newest_eight_ids_are_remembered(fixture: impl Fixture) {
    let (engine, _feed) = fixture.node().await;
    let session = session(&engine, &["/a"]).await;
    for id in ["1", "2", "3", "4", "5", "6", "7", "8", "9", "10"] {
        attach_poll(&engine, &session, id).await;
    }
    attach_poll(&engine, &session, "2").await;
    // Again what came before: accepted at the second time, and from then on the newest.
    assert_eq!(poll(&engine, &session, "5").await, Attach::Late);
    attach_poll(&engine, &session, "5").await;
    assert_eq!(poll(&engine, &session, "4").await, Attach::Late, "it took no place but its own");
    attach_poll(&engine, &session, "11").await;
    attach_poll(&engine, &session, "4").await;
    for older in ["7", "8", "9", "10", "2", "5", "11"] {
        assert_eq!(poll(&engine, &session, older).await, Attach::Late, "{older}");
        attach_poll(&engine, &session, "4").await;
    }
    attach_poll(&engine, &session, "6").await;
}

pub async fn ids_that_cycle_do_not_starve(fixture: impl Fixture) {
    let (engine, _feed) = fixture.node().await;
    let session = session(&engine, &["/a"]).await;
    attach_poll(&engine, &session, "1").await;
    attach_poll(&engine, &session, "2").await;
    assert_eq!(poll(&engine, &session, "1").await, Attach::Late);
    attach_poll(&engine, &session, "1").await;
    assert_eq!(poll(&engine, &session, "2").await, Attach::Late);
    attach_poll(&engine, &session, "2").await;
    engine.advance(Duration::from_secs(61)).await;
    attach_poll(&engine, &session, "1").await;
}

pub async fn constant_connect_id_ends(fixture: impl Fixture) {
    let (engine, _feed) = fixture.node().await;
    let (session, _, position) = recorded(&engine).await;
    for _ in 0..3 {
        let again = attach_poll(&engine, &session, "1").await;
        assert_eq!(again.ceiling, Some(Cursor::single(position).into()));
        assert_eq!(record(&engine, &session, &again, Some("1"), position).await, Record::Recorded);
        engine.written(&session, again.epoch).await.expect("noted");
    }
    let next = attach_poll(&engine, &session, "1").await;
    assert_eq!((next.cursor, next.ceiling), (Cursor::single(position), None));
}

pub async fn a_socket_clears_the_record_of_its_own_id(fixture: impl Fixture) {
    let (engine, _feed) = fixture.node().await;
    let (session, _, position) = recorded(&engine).await;
    let socket = attach(&engine, &session, Link::Socket { connect_id: Some("1"), retry: false, claim: None }).await;
    assert_eq!(positions(&snapshot(&engine, &session, &socket).await.deliveries), [position]);
    // The next connect must not confirm what never left.
    let next = attach(&engine, &session, Link::Socket { connect_id: Some("2"), retry: false, claim: None }).await;
    assert_eq!(positions(&snapshot(&engine, &session, &next).await.deliveries), [position]);
}

pub async fn opening_a_stream_confirms_nothing(fixture: impl Fixture) {
    let (engine, _feed) = fixture.node().await;
    let (session, _, position) = recorded(&engine).await;
    let stream = attach(&engine, &session, Link::Stream { last_event: None }).await;
    assert_eq!(stream.cursor, Cursor::single(position), "it starts after what the poll may be carrying");
    let retry = attach_poll(&engine, &session, "1").await;
    assert_eq!(positions(&snapshot(&engine, &session, &retry).await.deliveries), [position]);
}

pub async fn a_streams_last_event_confirms_within_the_clock(fixture: impl Fixture) {
    let (engine, _feed) = fixture.node().await;
    let session = session(&engine, &["/a"]).await;
    let stream = attach(&engine, &session, Link::Stream { last_event: None }).await;
    let first = publish(&engine, "/a", "1").await;
    let second = publish(&engine, "/a", "2").await;
    let last_event = LastEvent { epoch: stream.epoch, cursor: Cursor::single(first) };
    let again = attach(&engine, &session, Link::Stream { last_event: Some(&last_event) }).await;
    assert_eq!(positions(&snapshot(&engine, &session, &again).await.deliveries), [second]);
    let liar = LastEvent { epoch: again.epoch, cursor: Cursor::single(Position(u64::MAX)) };
    let again = attach(&engine, &session, Link::Stream { last_event: Some(&liar) }).await;
    let third = publish(&engine, "/a", "3").await;
    assert_eq!(positions(&snapshot(&engine, &session, &again).await.deliveries), [third]);
}

pub async fn heartbeats_confirm_what_was_written_one_heartbeat_ago(fixture: impl Fixture) {
    let (engine, _feed) = fixture.node().await;
    let session = session(&engine, &["/a"]).await;
    let stream = attach(&engine, &session, Link::Stream { last_event: None }).await;
    let position = publish(&engine, "/a", "1").await;
    let flushed = commit(&session, &stream, position, Progress::Flushed);
    engine.commit(&[flushed]).await.expect("noted");
    let due = async || {
        let reopened = attach(&engine, &session, Link::Local).await;
        snapshot(&engine, &session, &reopened).await.deliveries.len()
    };
    assert_eq!(engine.heartbeat(&session, None).await, Ok(Touch::Alive));
    assert_eq!(engine.touch(&session, Some(stream.epoch)).await, Ok(Touch::Alive), "no epoch, no supersede");
    engine.advance(LIFETIME / 2).await;
    assert_eq!(engine.heartbeat(&session, None).await, Ok(Touch::Alive));
    assert_eq!(due().await, 0);
    // Written, but reopened before the second heartbeat: due again.
    let stream = attach(&engine, &session, Link::Stream { last_event: None }).await;
    let position = publish(&engine, "/a", "2").await;
    engine.commit(&[commit(&session, &stream, position, Progress::Flushed)]).await.expect("noted");
    // A repeated heartbeat right behind the first says nothing about what was written just before.
    engine.heartbeat(&session, None).await.expect("alive");
    engine.heartbeat(&session, None).await.expect("alive");
    assert_eq!(due().await, 1);
}

/// Faye's client has a poll under way while it finds out that its stream works.
pub async fn a_poll_that_crosses_the_opening_of_a_stream_leaves_it_alone(fixture: impl Fixture) {
    let (engine, _feed) = fixture.node().await;
    let (session, _, position) = recorded(&engine).await;
    let stream = attach(&engine, &session, Link::Stream { last_event: None }).await;
    for copy in 0..2 {
        assert_eq!(poll(&engine, &session, "2").await, Attach::Late, "copy {copy}");
    }
    assert_eq!(engine.touch(&session, Some(stream.epoch)).await, Ok(Touch::Alive), "the stream keeps the session");
    attach_poll(&engine, &session, "3").await;
    // Neither for ever nor for a poll whose reply was lost.
    attach(&engine, &session, Link::Stream { last_event: None }).await;
    engine.advance(Duration::from_secs(3)).await;
    let attached = attach_poll(&engine, &session, "4").await;
    let next = publish(&engine, "/a", "2").await;
    assert!(next > position);
    assert_eq!(record(&engine, &session, &attached, Some("4"), next).await, Record::Recorded);
    attach(&engine, &session, Link::Stream { last_event: None }).await;
    let retry = attach_poll(&engine, &session, "4").await;
    assert_eq!(retry.ceiling, Some(Cursor::single(next).into()));
}

pub async fn heartbeats_without_a_stream_confirm_nothing(fixture: impl Fixture) {
    let (engine, _feed) = fixture.node().await;
    let session = session(&engine, &["/a"]).await;
    let stream = attach(&engine, &session, Link::Stream { last_event: None }).await;
    let position = publish(&engine, "/a", "1").await;
    engine.detach(&commit(&session, &stream, position, Progress::Flushed)).await.expect("detached");
    for _ in 0..3 {
        engine.heartbeat(&session, None).await.expect("alive");
        engine.advance(LIFETIME / 3).await;
    }
    let next = attach_poll(&engine, &session, "1").await;
    assert_eq!(positions(&snapshot(&engine, &session, &next).await.deliveries), [position]);
}

/// The stream begins after what a poll's reply carries; that the stream arrived does not say that the reply did.
pub async fn a_streams_last_event_does_not_confirm_a_poll(fixture: impl Fixture) {
    let (engine, _feed) = fixture.node().await;
    let (session, _, position) = recorded(&engine).await;
    let stream = attach(&engine, &session, Link::Stream { last_event: None }).await;
    let last_event = LastEvent { epoch: stream.epoch, cursor: stream.cursor };
    attach(&engine, &session, Link::Stream { last_event: Some(&last_event) }).await;
    let retry = attach_poll(&engine, &session, "1").await;
    assert_eq!(positions(&snapshot(&engine, &session, &retry).await.deliveries), [position]);
}

pub async fn retries_under_new_ids_are_never_taken_for_a_constant_id(fixture: impl Fixture) {
    let (engine, _feed) = fixture.node().await;
    let (session, _, position) = recorded(&engine).await;
    for id in ["2", "3", "4", "5", "6"] {
        let retry = attach(&engine, &session, Link::Poll { connect_id: Some(id), retry: true, claim: None }).await;
        assert_eq!(retry.ceiling, Some(Cursor::single(position).into()), "{id}");
        assert_eq!(record(&engine, &session, &retry, Some(id), position).await, Record::Recorded);
        engine.written(&session, retry.epoch).await.expect("noted");
    }
}

/// Answered empty: messages under its id would be confirmed by a client that has moved on.
pub async fn the_answered_connect_is_over(fixture: impl Fixture) {
    let (engine, _feed) = fixture.node().await;
    let session = session(&engine, &["/a"]).await;
    let attached = attach_poll(&engine, &session, "1").await;
    assert_eq!(engine.conclude(&session, attached.epoch, Some("1"), false).await, Ok(Conclude::Empty));
    publish(&engine, "/a", "1").await;
    assert_eq!(poll(&engine, &session, "1").await, Attach::Late);
}

pub async fn a_copy_that_carries_forbids_the_empty_reply(fixture: impl Fixture) {
    let (engine, _feed) = fixture.node().await;
    let session = session(&engine, &["/a"]).await;
    let original = attach_poll(&engine, &session, "1").await;
    let copy = attach_poll(&engine, &session, "1").await;
    let position = publish(&engine, "/a", "1").await;
    assert_eq!(record(&engine, &session, &copy, Some("1"), position).await, Record::Recorded);
    for epoch in [original.epoch, copy.epoch] {
        assert_eq!(engine.conclude(&session, epoch, Some("1"), false).await, Ok(Conclude::Hangup));
    }
    let newer = attach_poll(&engine, &session, "2").await;
    assert_eq!(engine.conclude(&session, original.epoch, Some("1"), false).await, Ok(Conclude::Empty));
    assert_eq!(engine.touch(&session, Some(newer.epoch)).await, Ok(Touch::Alive));
}

pub async fn a_superseded_stream_stays_closed(fixture: impl Fixture) {
    let (engine, _feed) = fixture.node().await;
    let session = session(&engine, &["/a"]).await;
    let older = attach(&engine, &session, Link::Stream { last_event: None }).await;
    for _ in 0..2 {
        attach(&engine, &session, Link::Stream { last_event: None }).await;
    }
    let newer = attach(&engine, &session, Link::Stream { last_event: None }).await;
    let reopen = async |epoch| {
        let last_event = LastEvent { epoch, cursor: newer.cursor.clone() };
        let link = Link::Stream { last_event: Some(&last_event) };
        engine.attach(AttachRequest { session: &session, link }).await.expect("an outcome")
    };
    assert_eq!(reopen(older.epoch).await, Attach::Closed);
    assert!(matches!(reopen(newer.epoch).await, Attach::Attached(_)), "the newest stream may reconnect");
    engine.advance(Duration::from_secs(11)).await;
    // Nobody fights any more: a browser whose last answer was lost comes with an old epoch, and must not stay deaf.
    assert!(matches!(reopen(older.epoch).await, Attach::Attached(_)));
}

pub async fn another_nodes_attach_is_told_to_the_first(fixture: impl Fixture) {
    let ((here, mut here_feed), (there, mut there_feed)) = (fixture.node().await, fixture.node().await);
    let session = session(&here, &["/a"]).await;
    attach_poll(&here, &session, "1").await;
    let newer = attach_poll(&there, &session, "2").await;
    let events = drain(&here, &mut here_feed).await;
    let [FeedEvent::Control(control)] = &events[..] else { panic!("expected one control, got {events:?}") };
    let superseded = ControlKind::Superseded { epoch: newer.epoch, connect_id: Some("2".into()) };
    assert_eq!(*control, Control { session: session.clone(), what: superseded });
    attach_poll(&there, &session, "3").await;
    assert!(drain(&there, &mut there_feed).await.is_empty(), "a node knows of its own attaches");
    assert!(drain(&here, &mut here_feed).await.is_empty());
}

pub async fn commit_after_detach(fixture: impl Fixture) {
    let (engine, _feed) = fixture.node().await;
    let session = session(&engine, &["/a"]).await;
    let socket = attach(&engine, &session, Link::Socket { connect_id: None, retry: false, claim: None }).await;
    let first = publish(&engine, "/a", "1").await;
    let second = publish(&engine, "/a", "2").await;
    engine.detach(&commit(&session, &socket, first, Progress::Confirmed)).await.expect("detached");
    let late = commit(&session, &socket, second, Progress::Confirmed);
    assert_eq!(engine.commit(&[late]).await, Ok(vec![CommitOutcome::Stale]));
    let next = attach_poll(&engine, &session, "9").await;
    assert_eq!(positions(&snapshot(&engine, &session, &next).await.deliveries), [second]);
}

/// A page that is loaded again goes on with its session and starts its ids anew, with a retry, as its client says it. The
/// reply to its last poll went to the page before.
pub async fn a_page_loaded_again_gets_the_lost_reply(fixture: impl Fixture) {
    let (engine, _feed) = fixture.node().await;
    let session = session(&engine, &["/a"]).await;
    for id in ["3", "4", "5"] {
        attach_poll(&engine, &session, id).await;
    }
    let attached = attach_poll(&engine, &session, "6").await;
    let position = publish(&engine, "/a", "1").await;
    assert_eq!(record(&engine, &session, &attached, Some("6"), position).await, Record::Recorded);
    let link = |id, retry| Link::Poll { connect_id: Some(id), retry, claim: None };
    let late = engine.attach(AttachRequest { session: &session, link: link("3", true) }).await;
    assert_eq!(late, Ok(Attach::Late));
    let next = attach(&engine, &session, link("4", false)).await;
    assert_eq!(next.ceiling, Some(Cursor::single(position).into()));
    assert_eq!(positions(&snapshot(&engine, &session, &next).await.deliveries), [position]);
    assert_eq!(record(&engine, &session, &next, Some("4"), position).await, Record::Recorded);
    // It gets on.
    attach(&engine, &session, link("7", false)).await;
    let last = attach(&engine, &session, link("8", false)).await;
    assert_eq!((last.cursor, last.ceiling), (Cursor::single(position), None));
}
