//! What is kept for subscribers to come, and its replay.

use super::*;

const KEPT: Retention = Retention { age: Duration::from_secs(1000), length: 100 };

async fn publish_kept(engine: &impl TestEngine, channel: &str, kept: Retention) -> Position {
    stored(try_publish_kept(engine, channel, kept).await)
}

async fn try_publish_kept(engine: &impl TestEngine, channel: &str, kept: Retention) -> Result<Published, EngineError> {
    let channel = weft::bayeux::Channel::parse(channel).expect(channel);
    let array = format!("[{{\"channel\":\"{channel}\",\"data\":0}}]").into();
    engine.publish(Publication { retention: Some(kept), ..Publication::new(channel, array) }).await
}

/// A session that subscribes with a replay of what was published past `after`; of everything, if that is none.
async fn replaying(
    engine: &impl TestEngine,
    channel: &str,
    after: Option<Position>,
    kept: Retention,
) -> (SessionId, ReplayStart) {
    let session = session(engine, &[]).await;
    let wish = ReplayWish { after, retention: kept };
    match engine.subscribe(&session, &pattern(channel), MANY, Some(wish)).await {
        Ok(Subscribe::Added { replay: Some(start), .. }) => (session, start),
        other => panic!("expected a replay, got {other:?}"),
    }
}

/// The next chunk of the replay of an attachment's only subscription.
async fn chunk(
    engine: &impl TestEngine,
    session: &SessionId,
    attached: &Attached,
    from: Position,
    max_messages: usize,
) -> (Vec<Position>, bool) {
    let one = &attached.subscriptions[0];
    let request = ReplayRequest {
        session,
        epoch: attached.epoch,
        version: attached.version,
        pattern: &one.pattern,
        since: one.since,
        from,
        max_messages,
        max_bytes: 1 << 20,
    };
    match engine.replay(request).await {
        Ok(Replay::Chunk { deliveries, through, gap: false }) => (positions(&deliveries), through),
        other => panic!("expected a chunk, got {other:?}"),
    }
}

/// Everything that is to be replayed to a new attachment.
async fn replayed(engine: &impl TestEngine, session: &SessionId) -> Vec<Position> {
    let attached = attach_poll(engine, session, "replayed").await;
    match attached.subscriptions[0].replay {
        Some(from) => chunk(engine, session, &attached, from, MANY).await.0,
        None => Vec::new(),
    }
}

fn moved(attached: &Attached, upto: Position) -> Reach {
    let one = &attached.subscriptions[0];
    let replays = vec![Replayed { pattern: one.pattern.clone(), since: one.since, upto }];
    Reach { cursor: attached.cursor.clone(), replays }
}

pub async fn everything_that_is_kept_is_replayed(fixture: impl Fixture) {
    let (engine, _feed) = fixture.node().await;
    let before = [publish_kept(&engine, "/a", KEPT).await, publish_kept(&engine, "/a", KEPT).await];
    publish_kept(&engine, "/b", KEPT).await;
    let (session, start) = replaying(&engine, "/a", None, KEPT).await;
    assert!(!start.gap && start.from < before[0]);
    let after = publish_kept(&engine, "/a", KEPT).await;
    assert_eq!(replayed(&engine, &session).await, before);
    let attached = attach_poll(&engine, &session, "1").await;
    assert_eq!(positions(&snapshot(&engine, &session, &attached).await.deliveries), [after], "no overlap");
}

pub async fn a_replay_starts_past_a_position(fixture: impl Fixture) {
    let (engine, _feed) = fixture.node().await;
    let (one, two) = (publish_kept(&engine, "/a", KEPT).await, publish_kept(&engine, "/a", KEPT).await);
    let (session, start) = replaying(&engine, "/a", Some(one), KEPT).await;
    assert_eq!(start, ReplayStart { from: one, gap: false });
    assert_eq!(replayed(&engine, &session).await, [two]);
    let (session, start) = replaying(&engine, "/a", Some(Position(u64::MAX >> 12)), KEPT).await;
    assert!(!start.gap && start.from > two, "nothing lies past what has not been yet");
    assert_eq!(replayed(&engine, &session).await, []);
}

pub async fn positions_that_are_no_longer_kept_are_a_gap(fixture: impl Fixture) {
    let (engine, _feed) = fixture.node().await;
    let kept = Retention { length: 2, ..KEPT };
    let mut all = Vec::new();
    for _ in 0..4 {
        all.push(publish_kept(&engine, "/a", kept).await);
    }
    for (after, gap) in [(all[0], true), (all[1], false), (all[3], false)] {
        let (session, start) = replaying(&engine, "/a", Some(after), kept).await;
        assert_eq!(start.gap, gap, "after {after:?}");
        let expected: Vec<_> = all[2..].iter().filter(|position| **position > after).copied().collect();
        assert_eq!(replayed(&engine, &session).await, expected);
    }
}

/// However many the log holds for those who are subscribed.
pub async fn only_the_newest_messages_are_replayed(fixture: impl Fixture) {
    let (engine, _feed) = fixture.node().await;
    let _subscribed = session(&engine, &["/a"]).await;
    let mut all = Vec::new();
    for _ in 0..350 {
        all.push(publish_kept(&engine, "/a", KEPT).await);
    }
    let (session, _) = replaying(&engine, "/a", None, KEPT).await;
    assert_eq!(replayed(&engine, &session).await, all[250..]);
    let (session, start) = replaying(&engine, "/a", Some(all[10]), KEPT).await;
    assert!(start.gap);
    assert_eq!(replayed(&engine, &session).await, all[250..]);
}

pub async fn only_young_messages_are_replayed(fixture: impl Fixture) {
    let (engine, _feed) = fixture.node().await;
    let _subscribed = session(&engine, &["/a"]).await;
    let kept = Retention { age: Duration::from_secs(10), ..KEPT };
    publish_kept(&engine, "/a", kept).await;
    engine.advance(Duration::from_secs(11)).await;
    let young = publish_kept(&engine, "/a", kept).await;
    let (session, _) = replaying(&engine, "/a", None, kept).await;
    assert_eq!(replayed(&engine, &session).await, [young]);
}

/// More was published meanwhile than the log keeps. A session that can be told is told until it is past that; another
/// one ends.
pub async fn a_replay_that_is_overtaken_is_told<F: Fixture>(_: F) {
    let fixture = F::bounded(Bounds { log_entries: 2, ..Bounds::default() }).await;
    let (engine, _feed) = fixture.node().await;
    let kept = Retention { length: 2, ..KEPT };
    for _ in 0..5 {
        publish_kept(&engine, "/a", kept).await;
    }
    let left = publish_kept(&engine, "/a", kept).await;
    let wish = ReplayWish { after: None, retention: kept };
    let traits = Traits { resume: true, ..Traits::default() };
    let (told, plain) = ((SessionId::random(), traits), (SessionId::random(), Traits::default()));
    for (session, traits) in [&told, &plain] {
        let creation = Creation { traits: *traits, ..Creation::new(session, LIFETIME, MANY) };
        assert!(matches!(engine.create(creation).await, Ok(Create::Created(_))));
        engine.subscribe(session, &pattern("/a"), MANY, Some(wish)).await.expect("subscribed");
    }
    for _ in 0..3 {
        publish_kept(&engine, "/a", kept).await;
    }
    let read = async |session: &SessionId, id: &str| {
        let attached = attach_poll(&engine, session, id).await;
        let one = &attached.subscriptions[0];
        let request = ReplayRequest {
            session,
            epoch: attached.epoch,
            version: attached.version,
            pattern: &one.pattern,
            since: one.since,
            from: one.replay.expect("a replay is due"),
            max_messages: MANY,
            max_bytes: 1 << 20,
        };
        engine.replay(request).await.expect("an outcome")
    };
    let Replay::Chunk { deliveries, gap, .. } = read(&told.0, "1").await else { panic!("a chunk") };
    assert_eq!((positions(&deliveries), gap), (vec![left], true), "what is left comes all the same");
    publish_kept(&engine, "/a", kept).await;
    for id in ["2", "3"] {
        let Replay::Chunk { deliveries, gap, through } = read(&told.0, id).await else { panic!("a chunk") };
        assert_eq!((positions(&deliveries), gap, through), (vec![], true, true));
    }
    let Replay::Gap(ended) = read(&plain.0, "1").await else { panic!("the session ends") };
    assert_eq!((ended.session, ended.patterns), (plain.0.clone(), vec![pattern("/a")]));
    assert_eq!(engine.touch(&plain.0, None).await, Ok(Touch::Unknown));
}

/// What a subscriber was promised stays while he reads it, as what is live does.
pub async fn a_replay_under_way_does_not_age(fixture: impl Fixture) {
    let (engine, _feed) = fixture.node().await;
    let kept = Retention { age: Duration::from_secs(300), ..KEPT };
    let first = publish_kept(&engine, "/a", kept).await;
    pass(&engine, Duration::from_secs(299)).await;
    let (session, _) = replaying(&engine, "/a", None, kept).await;
    pass(&engine, LIFETIME / 2).await;
    publish_kept(&engine, "/a", kept).await;
    assert_eq!(replayed(&engine, &session).await, [first]);
}

/// For longer than any log lives otherwise, and through the comings and goings of subscribers.
pub async fn channels_are_kept_without_subscribers(fixture: impl Fixture) {
    let (engine, _feed) = fixture.node().await;
    let kept = Retention { age: Duration::from_secs(3600), ..KEPT };
    let first = publish_kept(&engine, "/a", kept).await;
    let passer_by = session(&engine, &["/a"]).await;
    engine.end(&passer_by, Ended::Disconnected).await.expect("an outcome");
    pass(&engine, Duration::from_secs(1000)).await;
    let second = publish_kept(&engine, "/a", kept).await;
    let (session, _) = replaying(&engine, "/a", None, kept).await;
    assert_eq!(replayed(&engine, &session).await, [first, second]);
}

pub async fn a_kept_channel_ends_with_its_age<F: Fixture>(_: F) {
    let fixture = F::bounded(Bounds { retained: 1, ..Bounds::default() }).await;
    let (engine, _feed) = fixture.node().await;
    let kept = Retention { age: Duration::from_secs(20), ..KEPT };
    publish_kept(&engine, "/a", kept).await;
    assert!(try_publish_kept(&engine, "/b", kept).await.is_err(), "one channel is the limit");
    pass(&engine, Duration::from_secs(300)).await;
    publish_kept(&engine, "/b", kept).await;
    let (session, start) = replaying(&engine, "/a", None, kept).await;
    assert!(!start.gap);
    assert_eq!(replayed(&engine, &session).await, []);
}

pub async fn kept_channels_are_bounded<F: Fixture>(_: F) {
    let fixture = F::bounded(Bounds { retained: 2, ..Bounds::default() }).await;
    let (engine, _feed) = fixture.node().await;
    let _subscribed = session(&engine, &["/c"]).await;
    for channel in ["/a", "/b", "/a"] {
        publish_kept(&engine, channel, KEPT).await;
    }
    for channel in ["/c", "/d"] {
        assert_eq!(try_publish_kept(&engine, channel, KEPT).await, Err(EngineError::TooManyRetained(2)), "{channel}");
    }
    publish(&engine, "/d", "1").await;
    publish_kept(&engine, "/b", KEPT).await;
}

pub async fn a_channel_without_a_log_replays_nothing(fixture: impl Fixture) {
    let (engine, _feed) = fixture.node().await;
    let (session, start) = replaying(&engine, "/a", None, KEPT).await;
    assert!(!start.gap);
    assert_eq!(replayed(&engine, &session).await, []);
    let (_, start) = replaying(&engine, "/b", Some(Position(1)), KEPT).await;
    assert!(start.gap, "of what was before, nothing is known");
}

pub async fn a_replay_is_read_in_chunks_up_to_its_subscription(fixture: impl Fixture) {
    let (engine, _feed) = fixture.node().await;
    let mut all = Vec::new();
    for _ in 0..7 {
        all.push(publish_kept(&engine, "/a", KEPT).await);
    }
    let (session, start) = replaying(&engine, "/a", None, KEPT).await;
    publish_kept(&engine, "/a", KEPT).await;
    let attached = attach_poll(&engine, &session, "1").await;
    let mut from = start.from;
    for expected in [(all[..3].to_vec(), false), (all[3..6].to_vec(), false), (all[6..].to_vec(), true)] {
        let found = chunk(&engine, &session, &attached, from, 3).await;
        from = *found.0.last().expect("some");
        assert_eq!(found, expected);
    }
    assert_eq!(
        attach_poll(&engine, &session, "2").await.subscriptions[0].replay,
        Some(start.from),
        "nothing is confirmed"
    );
    // Read to its end, it is through; another attachment may have it all again until then.
    let attached = attach_poll(&engine, &session, "3").await;
    assert_eq!(chunk(&engine, &session, &attached, from, 3).await, (vec![], true));
    assert_eq!(attach_poll(&engine, &session, "4").await.subscriptions[0].replay, None);
}

pub async fn a_replay_is_confirmed_apart(fixture: impl Fixture) {
    let (engine, _feed) = fixture.node().await;
    let (one, two) = (publish_kept(&engine, "/a", KEPT).await, publish_kept(&engine, "/a", KEPT).await);
    let (session, start) = replaying(&engine, "/a", None, KEPT).await;
    let attached = attach_poll(&engine, &session, "1").await;
    let recorded = record_reach(&engine, &session, &attached, Some("1"), &moved(&attached, one)).await;
    assert_eq!(recorded, Record::Recorded);
    let next = attach_poll(&engine, &session, "2").await;
    assert_eq!((&next.cursor, next.subscriptions[0].replay), (&attached.cursor, Some(one)), "from {start:?}");
    // A socket commits it.
    let socket = attach(&engine, &session, Link::Socket { connect_id: Some("3"), retry: false, claim: None }).await;
    let item = Commit { upto: moved(&socket, two), ..commit(&session, &socket, Position(0), Progress::Confirmed) };
    assert_eq!(engine.commit(&[item]).await, Ok(vec![CommitOutcome::Committed]));
    assert_eq!(attach_poll(&engine, &session, "4").await.subscriptions[0].replay, Some(two));
    let socket = attach(&engine, &session, Link::Socket { connect_id: Some("5"), retry: false, claim: None }).await;
    let end = socket.subscriptions[0].since;
    let item = Commit { upto: moved(&socket, end), ..commit(&session, &socket, Position(0), Progress::Confirmed) };
    engine.detach(&item).await.expect("detached");
    assert_eq!(attach_poll(&engine, &session, "6").await.subscriptions[0].replay, None, "it is through");
}

pub async fn progress_of_an_older_replay_counts_nothing(fixture: impl Fixture) {
    let (engine, _feed) = fixture.node().await;
    publish_kept(&engine, "/a", KEPT).await;
    let two = publish_kept(&engine, "/a", KEPT).await;
    let (session, _) = replaying(&engine, "/a", None, KEPT).await;
    let attached = attach_poll(&engine, &session, "1").await;
    let recorded = record_reach(&engine, &session, &attached, Some("1"), &moved(&attached, two)).await;
    assert_eq!(recorded, Record::Recorded);
    engine.unsubscribe(&session, &pattern("/a")).await.expect("unsubscribed");
    let wish = ReplayWish { after: None, retention: KEPT };
    let again = engine.subscribe(&session, &pattern("/a"), MANY, Some(wish)).await;
    let Ok(Subscribe::Added { replay: Some(start), .. }) = again else { panic!("expected a replay, got {again:?}") };
    let next = attach_poll(&engine, &session, "2").await;
    assert_eq!(next.subscriptions[0].replay, Some(start.from));
}

/// A copy of its first reply may still arrive, and then the client takes that for all.
pub async fn a_repeated_connect_replays_no_more_than_before(fixture: impl Fixture) {
    let (engine, _feed) = fixture.node().await;
    let (one, _two) = (publish_kept(&engine, "/a", KEPT).await, publish_kept(&engine, "/a", KEPT).await);
    let (session, start) = replaying(&engine, "/a", None, KEPT).await;
    let attached = attach_poll(&engine, &session, "1").await;
    let upto = moved(&attached, one);
    let recorded = record_reach(&engine, &session, &attached, Some("1"), &upto).await;
    assert_eq!(recorded, Record::Recorded);
    let again = attach_poll(&engine, &session, "1").await;
    assert_eq!((again.ceiling, again.subscriptions[0].replay), (Some(upto), Some(start.from)));
}

/// Its number speaks of what lies past the cursor; a replay lies below.
pub async fn an_acknowledgement_does_not_confirm_a_replay(fixture: impl Fixture) {
    let (engine, _feed) = fixture.node().await;
    let one = publish_kept(&engine, "/a", KEPT).await;
    let session = SessionId::random();
    let traits = Traits { ack: true, ..Traits::default() };
    let creation = Creation { traits, ..Creation::new(&session, LIFETIME, MANY) };
    assert!(matches!(engine.create(creation).await, Ok(Create::Created(_))));
    let wish = ReplayWish { after: None, retention: KEPT };
    engine.subscribe(&session, &pattern("/a"), MANY, Some(wish)).await.expect("subscribed");
    let poll = |id, retry| Link::Poll { connect_id: Some(id), retry, claim: Some(Claim::Ack(one)) };
    let attached = attach(&engine, &session, poll("1", false)).await;
    let from = attached.subscriptions[0].replay;
    assert!(from.is_some_and(|from| from < one));
    let upto = moved(&attached, one);
    let recorded = record_reach(&engine, &session, &attached, Some("1"), &upto).await;
    assert_eq!(recorded, Record::Recorded);
    // The client says that its connect failed: it has the same number in either case.
    let retry = attach(&engine, &session, poll("2", true)).await;
    assert_eq!((retry.ceiling, retry.subscriptions[0].replay), (Some(upto), from));
    let next = attach(&engine, &session, poll("3", false)).await;
    assert_eq!((next.ceiling, next.subscriptions[0].replay), (None, Some(one)));
}

/// Faye's clients subscribe again for every listener.
pub async fn subscribing_again_replays_nothing(fixture: impl Fixture) {
    let (engine, _feed) = fixture.node().await;
    publish_kept(&engine, "/a", KEPT).await;
    let session = session(&engine, &["/a"]).await;
    let wish = ReplayWish { after: None, retention: KEPT };
    assert!(matches!(engine.subscribe(&session, &pattern("/a"), MANY, Some(wish)).await, Ok(Subscribe::Kept { .. })));
    assert_eq!(replayed(&engine, &session).await, []);
}

/// Also for longer than logs wait for somebody who may return.
pub async fn a_kept_log_reaches_back_for_who_resumes(fixture: impl Fixture) {
    let (engine, _feed) = fixture.node().await;
    let kept = Retention { age: Duration::from_secs(3600), ..KEPT };
    let first = publish_kept(&engine, "/a", kept).await;
    pass(&engine, Duration::from_secs(1000)).await;
    let second = publish_kept(&engine, "/a", kept).await;
    let (session, patterns, at) = (
        SessionId::random(),
        [Subscription { pattern: pattern("/a"), since: Position(0), replay: None }],
        Cursor::single(first),
    );
    let traits = Traits { resume: true, ..Traits::default() };
    let creation = Creation { traits, resumed: Some((&at, &patterns)), ..Creation::new(&session, LIFETIME, MANY) };
    assert_eq!(engine.create(creation).await, Ok(Create::Created(at)));
    let attached = attach_poll(&engine, &session, "1").await;
    let found = snapshot(&engine, &session, &attached).await;
    assert_eq!((found.lost.is_some(), positions(&found.deliveries)), (false, vec![second]));
}
