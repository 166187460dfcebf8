//! Logs and feed: order, one copy, snapshots, gaps.

use super::*;

pub async fn positions_rise_and_are_the_same_in_every_log(fixture: impl Fixture) {
    let (engine, mut feed) = fixture.node().await;
    for _ in 0..2 {
        session(&engine, &["/a/b", "/a/*"]).await;
    }
    engine.listen(&[pattern("/a/b"), pattern("/a/*")]).await.expect("listening");
    let first = publish(&engine, "/a/b", "1").await;
    let second = publish(&engine, "/a/b", "2").await;
    assert!(second > first);
    let announced: Vec<_> = drain(&engine, &mut feed)
        .await
        .into_iter()
        .map(|event| match event {
            FeedEvent::Message { log, delivery, .. } => (log.to_string(), delivery.position),
            other => panic!("expected a message, got {other:?}"),
        })
        .collect();
    let expected = [("/a/b", first), ("/a/*", first), ("/a/b", second), ("/a/*", second)];
    assert_eq!(announced, expected.map(|(log, position)| (log.to_owned(), position)));
}

pub async fn a_message_is_read_once_however_many_patterns_match(fixture: impl Fixture) {
    let (engine, _feed) = fixture.node().await;
    let session = session(&engine, &["/a/b", "/a/*", "/a/**", "/**"]).await;
    let attached = attach_poll(&engine, &session, "1").await;
    let position = publish(&engine, "/a/b", "{\"x\":1}").await;
    let snapshot = snapshot(&engine, &session, &attached).await;
    assert_eq!(positions(&snapshot.deliveries), [position]);
    assert_eq!(snapshot.deliveries[0].json(), br#"{"channel":"/a/b","data":{"x":1}}"#);
    assert!(!snapshot.truncated);
}

pub async fn two_logs_one_snapshot(fixture: impl Fixture) {
    let (engine, _feed) = fixture.node().await;
    let session = session(&engine, &["/a", "/b"]).await;
    let attached = attach_poll(&engine, &session, "1").await;
    let mut published = Vec::new();
    for channel in ["/a", "/b", "/b", "/a", "/b"] {
        published.push(publish(&engine, channel, "1").await);
    }
    let snapshot = snapshot(&engine, &session, &attached).await;
    assert_eq!(positions(&snapshot.deliveries), published, "in the order of storing, across logs");
    assert!(snapshot.upto.get(PartitionId::default()) >= published[4]);
}

/// All of it, once and in order, or nothing. (That it is what a read would give, each attach of these tests checks.)
pub async fn an_attach_gives_the_little_that_is_unread(fixture: impl Fixture) {
    let (engine, _feed) = fixture.node().await;
    let session = session(&engine, &["/a/b", "/a/*", "/c"]).await;
    let given = async |id: &str| {
        let attached = attach_poll(&engine, &session, id).await;
        attached.unread.as_deref().map(positions)
    };
    assert_eq!(given("1").await, Some(vec![]), "nothing to read");
    let mut all = Vec::new();
    for number in 0..8 {
        all.push(publish(&engine, ["/c", "/a/b"][number % 2], "1").await);
    }
    assert_eq!(given("2").await, Some(all.clone()));
    let attached = attach_poll(&engine, &session, "3").await;
    assert_eq!(record(&engine, &session, &attached, Some("3"), all[3]).await, Record::Recorded);
    assert_eq!(given("3").await, None, "a repeated poll must not grow");
    assert_eq!(given("4").await, Some(all[4..].to_vec()), "past what was confirmed");
    let large = format!("\"{}\"", "x".repeat(16 * 1024));
    let large = publish(&engine, "/c", &large).await;
    assert_eq!(given("5").await, None, "too many bytes");
    let attached = attach_poll(&engine, &session, "6").await;
    assert_eq!(record(&engine, &session, &attached, Some("6"), large).await, Record::Recorded);
    for _ in 0..17 {
        publish(&engine, "/a/b", "1").await;
    }
    assert_eq!(given("7").await, None, "too many messages");
}

/// One log lacks what the others have.
pub async fn an_attach_sees_a_gap<F: Fixture>(_: F) {
    let fixture = F::bounded(Bounds { log_entries: 3, ..Bounds::default() }).await;
    let (engine, _feed) = fixture.node().await;
    let session = session(&engine, &["/a", "/b"]).await;
    for number in 0..4 {
        publish(&engine, ["/a", "/b"][number % 2], "1").await;
    }
    let attached = attach_poll(&engine, &session, "1").await;
    assert_eq!(attached.unread.map(|unread| unread.len()), Some(4), "all is there");
    for _ in 0..2 {
        publish(&engine, "/b", "1").await;
    }
    assert_eq!(attach_poll(&engine, &session, "2").await.unread, None, "the oldest of one is gone");
}

/// Two logs, cut off by a bound: nothing past the lowest cut may be given, or the rest would be skipped.
pub async fn truncated_read_ceiling(fixture: impl Fixture) {
    let (engine, _feed) = fixture.node().await;
    let session = session(&engine, &["/a", "/b"]).await;
    let mut attached = attach_poll(&engine, &session, "1").await;
    let mut published = Vec::new();
    for number in 0..20 {
        published.push(publish(&engine, if number % 3 == 0 { "/b" } else { "/a" }, "1").await);
    }
    let mut read_so_far = Vec::new();
    for _ in 0..20 {
        let Read::Snapshot(snapshot) = read(&engine, &session, &attached, 3).await else { panic!("a snapshot") };
        assert!(snapshot.deliveries.len() <= 3);
        read_so_far.extend(positions(&snapshot.deliveries));
        attached.cursor.raise_all(&snapshot.upto);
        if !snapshot.truncated {
            break;
        }
    }
    assert_eq!(read_so_far, published);
}

pub async fn messages_before_the_subscription_are_not_read(fixture: impl Fixture) {
    let (engine, _feed) = fixture.node().await;
    let early = session(&engine, &["/a"]).await;
    let late = session(&engine, &[]).await;
    let before = publish(&engine, "/a", "1").await;
    engine.subscribe(&late, &pattern("/a"), MANY, None).await.expect("subscribed");
    let after = publish(&engine, "/a", "2").await;
    let attached = attach_poll(&engine, &late, "1").await;
    assert_eq!(positions(&snapshot(&engine, &late, &attached).await.deliveries), [after]);
    let everything = attach_poll(&engine, &early, "1").await;
    assert_eq!(positions(&snapshot(&engine, &early, &everything).await.deliveries), [before, after]);
}

pub async fn the_feed_carries_what_is_listened_to_with_its_predecessor(fixture: impl Fixture) {
    let ((here, mut here_feed), (there, mut there_feed)) = (fixture.node().await, fixture.node().await);
    for _ in 0..2 {
        session(&here, &["/a", "/b"]).await;
    }
    here.listen(&[pattern("/a")]).await.expect("listening");
    let first = publish(&there, "/a", "1").await;
    publish(&there, "/b", "2").await;
    let third = publish(&there, "/a", "3").await;
    let announced: Vec<_> = drain(&here, &mut here_feed)
        .await
        .into_iter()
        .filter_map(|event| match event {
            FeedEvent::Message { previous, delivery, .. } => Some((previous, delivery.position)),
            _ => None,
        })
        .collect();
    assert_eq!(announced.iter().map(|(_, position)| *position).collect::<Vec<_>>(), [first, third]);
    assert_eq!(announced[1].0, first, "each names the one before it");
    assert!(drain(&there, &mut there_feed).await.is_empty());
    here.unlisten(&[pattern("/a")]).await.expect("not listening");
    publish(&there, "/a", "4").await;
    assert!(drain(&here, &mut here_feed).await.is_empty());
}

pub async fn a_log_lives_as_long_as_a_subscriber(fixture: impl Fixture) {
    let (engine, _feed) = fixture.node().await;
    let (one, other) = (session(&engine, &["/a"]).await, session(&engine, &["/a"]).await);
    let position = publish(&engine, "/a", "1").await;
    engine.unsubscribe(&one, &pattern("/a")).await.expect("unsubscribed");
    let attached = attach_poll(&engine, &other, "1").await;
    assert_eq!(positions(&snapshot(&engine, &other, &attached).await.deliveries), [position]);
}

async fn assert_gap(engine: &impl TestEngine, session: &SessionId) {
    let attached = attach_poll(engine, session, "1").await;
    assert!(matches!(read(engine, session, &attached, MANY).await, Read::Gap(_)));
    assert_eq!(engine.touch(session, None).await, Ok(Touch::Unknown), "the gap ends the session in the same step");
}

pub async fn trimmed_log_is_gap<F: Fixture>(_: F) {
    let fixture = F::bounded(Bounds { log_entries: 3, ..Bounds::default() }).await;
    let (engine, _feed) = fixture.node().await;
    let behind = session(&engine, &["/a"]).await;
    for _ in 0..3 {
        publish(&engine, "/a", "1").await;
    }
    let attached = attach_poll(&engine, &behind, "0").await;
    assert_eq!(snapshot(&engine, &behind, &attached).await.deliveries.len(), 3, "not yet");
    publish(&engine, "/a", "1").await;
    assert_gap(&engine, &behind).await;
}

/// All entries are trimmed by age, while the session is kept alive: the head still says that there was something.
pub async fn trimmed_empty_log_is_gap(fixture: impl Fixture) {
    let (engine, _feed) = fixture.node().await;
    let behind = session(&engine, &["/a"]).await;
    publish(&engine, "/a", "1").await;
    for _ in 0..10 {
        engine.advance(LIFETIME / 2).await;
        engine.touch(&behind, None).await.expect("alive");
        engine.sweep(MANY).await.expect("swept");
    }
    assert_gap(&engine, &behind).await;
}

pub async fn no_false_gap_after_unsubscribe(fixture: impl Fixture) {
    let (engine, _feed) = fixture.node().await;
    let session = session(&engine, &["/a"]).await;
    publish(&engine, "/a", "1").await;
    engine.unsubscribe(&session, &pattern("/a")).await.expect("unsubscribed");
    publish(&engine, "/a", "2").await;
    engine.subscribe(&session, &pattern("/a"), MANY, None).await.expect("subscribed");
    let attached = attach_poll(&engine, &session, "1").await;
    assert!(snapshot(&engine, &session, &attached).await.deliveries.is_empty());
    let position = publish(&engine, "/a", "3").await;
    assert_eq!(positions(&snapshot(&engine, &session, &attached).await.deliveries), [position]);
}

pub async fn service_channels_reach_service_patterns_only(fixture: impl Fixture) {
    let (engine, _feed) = fixture.node().await;
    let session = session(&engine, &["/**", "/service/*"]).await;
    let attached = attach_poll(&engine, &session, "1").await;
    let position = publish(&engine, "/service/a", "1").await;
    assert_eq!(positions(&snapshot(&engine, &session, &attached).await.deliveries), [position]);
    engine.unsubscribe(&session, &pattern("/service/*")).await.expect("unsubscribed");
    publish(&engine, "/service/a", "2").await;
    let attached = attach_poll(&engine, &session, "2").await;
    assert!(snapshot(&engine, &session, &attached).await.deliveries.is_empty());
}

/// A log that was trimmed is no less so because another one fills the read.
pub async fn a_gap_is_seen_beside_a_log_that_is_read_in_part<F: Fixture>(_: F) {
    let fixture = F::bounded(Bounds { log_entries: 10, ..Bounds::default() }).await;
    let (engine, _feed) = fixture.node().await;
    for patterns in [["/a", "/b"], ["/b", "/a"]] {
        let behind = session(&engine, &patterns).await;
        publish(&engine, "/b", "0").await;
        for number in 0..8 {
            publish(&engine, "/a", &number.to_string()).await;
        }
        for number in 0..11 {
            publish(&engine, "/b", &number.to_string()).await;
        }
        let attached = attach_poll(&engine, &behind, "1").await;
        assert!(matches!(read(&engine, &behind, &attached, 3).await, Read::Gap(_)), "{patterns:?}");
    }
}
