//! What clients say that they have: acknowledgements and positions; and going on under a new session.

use super::*;

const ACK: Traits = Traits { ack: true, resume: false, replay: false };
const RESUME: Traits = Traits { ack: false, resume: true, replay: false };

/// A session of these traits, subscribed to these patterns.
async fn session_with(engine: &impl TestEngine, traits: Traits, patterns: &[&str]) -> SessionId {
    let session = SessionId::random();
    let creation = Creation { traits, ..Creation::new(&session, LIFETIME, MANY) };
    assert!(matches!(engine.create(creation).await, Ok(Create::Created(_))));
    for name in patterns {
        engine.subscribe(&session, &pattern(name), MANY, None).await.expect("subscribed");
    }
    session
}

/// A session that goes on at `at` with these patterns.
async fn resumed(engine: &impl TestEngine, at: Position, patterns: &[&str]) -> (SessionId, Cursor) {
    let session = SessionId::random();
    let patterns: Vec<_> =
        patterns.iter().map(|name| Subscription { pattern: pattern(name), since: Position(0), replay: None }).collect();
    let at = Cursor::single(at);
    let creation =
        Creation { traits: RESUME, resumed: Some((&at, &patterns)), ..Creation::new(&session, LIFETIME, MANY) };
    match engine.create(creation).await {
        Ok(Create::Created(start)) => (session, start),
        other => panic!("expected a session, got {other:?}"),
    }
}

async fn attach_with(engine: &impl TestEngine, session: &SessionId, id: &str, claim: Claim<'_>) -> Attached {
    attach(engine, session, Link::Poll { connect_id: Some(id), retry: false, claim: Some(claim) }).await
}

async fn unread(engine: &impl TestEngine, session: &SessionId, attached: &Attached) -> Vec<Position> {
    positions(&snapshot(engine, session, attached).await.deliveries)
}

pub async fn an_acknowledgement_confirms_up_to_its_number(fixture: impl Fixture) {
    let (engine, _feed) = fixture.node().await;
    let session = session_with(&engine, ACK, &["/a"]).await;
    let first = attach_with(&engine, &session, "1", Claim::Ack(Position(0))).await;
    assert_eq!(first.traits, ACK);
    let (one, two) = (publish(&engine, "/a", "1").await, publish(&engine, "/a", "2").await);
    assert_eq!(record(&engine, &session, &first, Some("1"), two).await, Record::Recorded);
    // The reply is lost, and the client has the number that it had.
    let again = attach_with(&engine, &session, "2", Claim::Ack(Position(0))).await;
    assert_eq!(again.ceiling, None);
    assert_eq!(unread(&engine, &session, &again).await, [one, two]);
    let partly = attach_with(&engine, &session, "3", Claim::Ack(one)).await;
    assert_eq!(unread(&engine, &session, &partly).await, [two]);
    // An older number, on a connect that was under way for long, takes nothing back.
    let late = attach_with(&engine, &session, "4", Claim::Ack(Position(0))).await;
    assert_eq!(unread(&engine, &session, &late).await, [two]);
    let done = attach_with(&engine, &session, "5", Claim::Ack(two)).await;
    assert_eq!(unread(&engine, &session, &done).await, []);
}

pub async fn nothing_else_confirms_where_acknowledgements_are_in_use(fixture: impl Fixture) {
    let (engine, _feed) = fixture.node().await;
    let session = session_with(&engine, ACK, &["/a"]).await;
    let first = attach_with(&engine, &session, "1", Claim::Ack(Position(0))).await;
    let one = publish(&engine, "/a", "1").await;
    assert_eq!(record(&engine, &session, &first, Some("1"), one).await, Record::Recorded);
    let socket = Link::Socket { connect_id: Some("2"), retry: false, claim: Some(Claim::Ack(Position(0))) };
    let attached = attach(&engine, &session, socket).await;
    assert_eq!(unread(&engine, &session, &attached).await, [one]);
    let poll = attach_with(&engine, &session, "3", Claim::Ack(Position(0))).await;
    assert_eq!(unread(&engine, &session, &poll).await, [one]);
    // A connect without a number is that of a plain client: nothing was recorded since.
    let plain = attach_poll(&engine, &session, "4").await;
    assert_eq!(unread(&engine, &session, &plain).await, [one]);
}

pub async fn claims_count_only_where_they_were_agreed_on(fixture: impl Fixture) {
    let (engine, _feed) = fixture.node().await;
    let plain = session(&engine, &["/a"]).await;
    let first = attach_poll(&engine, &plain, "1").await;
    let one = publish(&engine, "/a", "1").await;
    assert_eq!(record(&engine, &plain, &first, Some("1"), one).await, Record::Recorded);
    let next = attach_with(&engine, &plain, "2", Claim::Ack(Position(0))).await;
    assert_eq!(unread(&engine, &plain, &next).await, [], "another id confirms");
    let two = publish(&engine, "/a", "2").await;
    let at = Cursor::single(two);
    let next = attach_with(&engine, &plain, "3", Claim::Position(&at)).await;
    assert_eq!(unread(&engine, &plain, &next).await, [two]);
}

pub async fn claims_are_clamped_to_the_clock(fixture: impl Fixture) {
    let (engine, _feed) = fixture.node().await;
    let far = Position((1 << 53) - 1);
    let at = Cursor::single(far);
    for (traits, claim) in [(ACK, Claim::Ack(far)), (RESUME, Claim::Position(&at))] {
        let session = session_with(&engine, traits, &["/a"]).await;
        let one = publish(&engine, "/a", "1").await;
        let attached = attach_with(&engine, &session, "1", claim).await;
        assert_eq!(unread(&engine, &session, &attached).await, []);
        let two = publish(&engine, "/a", "2").await;
        assert!(two > one && two < far);
        assert_eq!(unread(&engine, &session, &attached).await, [two]);
    }
}

/// Whatever the server believes.
pub async fn a_position_is_where_it_starts(fixture: impl Fixture) {
    let (engine, _feed) = fixture.node().await;
    let session = session_with(&engine, RESUME, &["/a"]).await;
    let first = attach_poll(&engine, &session, "1").await;
    let (one, two) = (publish(&engine, "/a", "1").await, publish(&engine, "/a", "2").await);
    assert_eq!(record(&engine, &session, &first, Some("1"), two).await, Record::Recorded);
    let at = Cursor::single(one);
    let below = attach_with(&engine, &session, "2", Claim::Position(&at)).await;
    assert_eq!((&below.cursor, below.ceiling.clone()), (&at, None));
    assert_eq!(unread(&engine, &session, &below).await, [two]);
    let at = Cursor::single(two);
    let above = attach_with(&engine, &session, "3", Claim::Position(&at)).await;
    assert_eq!(unread(&engine, &session, &above).await, []);
    // Without its word the last one counts.
    let plain = attach_poll(&engine, &session, "4").await;
    assert_eq!(plain.cursor, at);
}

pub async fn a_gap_is_told_and_the_session_goes_on<F: Fixture>(_: F) {
    let fixture = F::bounded(Bounds { log_entries: 2, ..Bounds::default() }).await;
    let (engine, _feed) = fixture.node().await;
    let session = session_with(&engine, RESUME, &["/a", "/b"]).await;
    let mut kept = Vec::new();
    for number in 0..4 {
        kept.push(publish(&engine, "/a", &number.to_string()).await);
    }
    let other = publish(&engine, "/b", "5").await;
    let attached = attach_poll(&engine, &session, "1").await;
    let found = snapshot(&engine, &session, &attached).await;
    assert!(found.lost.is_some());
    assert_eq!(positions(&found.deliveries), [kept[2], kept[3], other], "what is left comes all the same");
    assert_eq!(engine.touch(&session, None).await, Ok(Touch::Alive));
    // Told as long as the client has not moved past it.
    let again = attach_with(&engine, &session, "2", Claim::Position(&attached.cursor)).await;
    assert!(snapshot(&engine, &session, &again).await.lost.is_some());
    let at = Cursor::single(kept[1]);
    let past = attach_with(&engine, &session, "3", Claim::Position(&at)).await;
    assert!(snapshot(&engine, &session, &past).await.lost.is_none());
}

/// What is left may begin at the same place when more is missing: a gap says up to where.
pub async fn a_gap_says_up_to_where<F: Fixture>(_: F) {
    let fixture = F::bounded(Bounds { log_entries: 2, ..Bounds::default() }).await;
    let (engine, _feed) = fixture.node().await;
    let session = session_with(&engine, RESUME, &["/quiet", "/busy"]).await;
    let first = publish(&engine, "/quiet", "0").await;
    let (mut all, mut told) = (Vec::new(), Vec::new());
    for id in ["1", "2", "3"] {
        for number in 0..4 {
            all.push(publish(&engine, "/busy", &number.to_string()).await);
        }
        let attached = attach_poll(&engine, &session, id).await;
        let found = snapshot(&engine, &session, &attached).await;
        assert_eq!(found.deliveries.first().map(|delivery| delivery.position), Some(first));
        assert_eq!(found.lost, all.len().checked_sub(3).map(|newest_lost| all[newest_lost]));
        told.push(found.lost);
        // However little of it is given.
        let Read::Snapshot(cut) = read(&engine, &session, &attached, 1).await else { panic!("a snapshot") };
        assert_eq!((positions(&cut.deliveries), cut.lost, cut.truncated), (vec![first], found.lost, true));
    }
    assert!(told.is_sorted() && told[0] < told[2], "{told:?}");
}

pub async fn a_new_session_goes_on_where_the_old_one_was(fixture: impl Fixture) {
    let (engine, _feed) = fixture.node().await;
    // Somebody else keeps the logs.
    let _other = session(&engine, &["/a", "/b/*", "/c"]).await;
    let first = publish(&engine, "/a", "1").await;
    let missed =
        [publish(&engine, "/b/x", "2").await, publish(&engine, "/a", "3").await, publish(&engine, "/b/y", "4").await];
    let foreign = publish(&engine, "/c", "5").await;
    let (session, start) = resumed(&engine, first, &["/a", "/b/*", "/a"]).await;
    assert_eq!(start, Cursor::single(first));
    assert!(matches!(engine.subscribe(&session, &pattern("/a"), MANY, None).await, Ok(Subscribe::Kept { .. })));
    assert!(matches!(
        engine.subscribe(&session, &pattern("/c"), MANY, None).await,
        Ok(Subscribe::Added { replay: None, .. })
    ));
    let attached = attach_with(&engine, &session, "1", Claim::Position(&start)).await;
    let found = snapshot(&engine, &session, &attached).await;
    assert!(found.lost.is_none());
    assert_eq!(positions(&found.deliveries), missed, "and nothing of {foreign:?}: that is a new subscription");
    let next = publish(&engine, "/a", "6").await;
    assert_eq!(unread(&engine, &session, &attached).await, [&missed[..], &[next]].concat());
    // It ends as any other.
    let ended = engine.end(&session, Ended::Disconnected).await.expect("an outcome").expect("it was there");
    assert_eq!(ended.patterns.len(), 3);
}

pub async fn a_new_session_is_told_what_it_cannot_know(fixture: impl Fixture) {
    let (engine, _feed) = fixture.node().await;
    let _other = session(&engine, &["/a"]).await;
    let first = publish(&engine, "/a", "1").await;
    // Nobody kept /b meanwhile.
    publish(&engine, "/b", "2").await;
    let (session, _) = resumed(&engine, first, &["/a", "/b"]).await;
    let attached = attach_poll(&engine, &session, "1").await;
    let found = snapshot(&engine, &session, &attached).await;
    assert!(found.lost.is_some());
    let at = found.upto;
    let next = attach_with(&engine, &session, "2", Claim::Position(&at)).await;
    let three = publish(&engine, "/b", "3").await;
    let found = snapshot(&engine, &session, &next).await;
    assert_eq!((found.lost.is_some(), positions(&found.deliveries)), (false, vec![three]));
}

/// A session with resume may come back under another id: what is published meanwhile waits for it.
pub async fn a_log_waits_for_who_may_return(fixture: impl Fixture) {
    let (engine, _feed) = fixture.node().await;
    let session = session_with(&engine, RESUME, &["/a"]).await;
    let first = publish(&engine, "/a", "1").await;
    assert_eq!(pass(&engine, LIFETIME + Duration::from_secs(2)).await.len(), 1, "it expires");
    assert_eq!(engine.touch(&session, None).await, Ok(Touch::Unknown));
    // Somebody who comes and goes does not take it along.
    let passer_by = super::session(&engine, &["/a"]).await;
    engine.end(&passer_by, Ended::Disconnected).await.expect("an outcome");
    let missed = publish(&engine, "/a", "2").await;
    pass(&engine, Duration::from_secs(60)).await;
    let (session, start) = resumed(&engine, first, &["/a"]).await;
    let attached = attach_with(&engine, &session, "1", Claim::Position(&start)).await;
    let found = snapshot(&engine, &session, &attached).await;
    assert_eq!((found.lost.is_some(), positions(&found.deliveries)), (false, vec![missed]));
    // Not for ever.
    pass(&engine, Duration::from_secs(500)).await;
    publish(&engine, "/a", "3").await;
    let (session, _) = resumed(&engine, missed, &["/a"]).await;
    let attached = attach_poll(&engine, &session, "1").await;
    assert!(snapshot(&engine, &session, &attached).await.lost.is_some());
}

pub async fn a_log_does_not_wait_for_who_disconnected(fixture: impl Fixture) {
    let (engine, _feed) = fixture.node().await;
    let session = session_with(&engine, RESUME, &["/a"]).await;
    let first = publish(&engine, "/a", "1").await;
    engine.end(&session, Ended::Disconnected).await.expect("an outcome");
    publish(&engine, "/a", "2").await;
    let (session, _) = resumed(&engine, first, &["/a"]).await;
    let attached = attach_poll(&engine, &session, "1").await;
    let found = snapshot(&engine, &session, &attached).await;
    assert_eq!((found.lost.is_some(), found.deliveries.len()), (true, 0));
}

/// The answer was lost on the way, and the node tries again.
pub async fn making_a_session_again_makes_it_anew(fixture: impl Fixture) {
    let (engine, _feed) = fixture.node().await;
    let _other = super::session(&engine, &["/a"]).await;
    let first = publish(&engine, "/a", "1").await;
    let missed = publish(&engine, "/a", "2").await;
    let (session, at) = (SessionId::random(), Cursor::single(first));
    let wanted = [Subscription { pattern: pattern("/a"), since: Position(0), replay: None }];
    let creation =
        Creation { traits: RESUME, resumed: Some((&at, &wanted)), ..Creation::new(&session, LIFETIME, MANY) };
    for _ in 0..2 {
        assert_eq!(engine.create(creation.clone()).await, Ok(Create::Created(at.clone())));
    }
    let attached = attach_with(&engine, &session, "1", Claim::Position(&at)).await;
    assert_eq!(unread(&engine, &session, &attached).await, [missed]);
}
