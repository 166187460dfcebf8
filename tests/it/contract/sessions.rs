//! Sessions: their life, their end, and who may write.

use super::*;

pub async fn sessions_expire_unless_heard_of(fixture: impl Fixture) {
    let (engine, _feed) = fixture.node().await;
    let (quiet, polling) = (session(&engine, &[]).await, session(&engine, &["/a"]).await);
    assert_eq!(pass(&engine, LIFETIME / 2).await, []);
    poll(&engine, &polling, "1").await;
    let ended = pass(&engine, LIFETIME / 2 + Duration::from_secs(1)).await;
    assert_eq!(ended.iter().map(|one| &one.session).collect::<Vec<_>>(), [&quiet]);
    assert_eq!(engine.touch(&quiet, None).await, Ok(Touch::Unknown));
    assert_eq!(engine.touch(&polling, None).await, Ok(Touch::Alive));
    let ended = pass(&engine, LIFETIME + Duration::from_secs(1)).await;
    assert_eq!(ended, [EndedSession { session: polling, patterns: vec![pattern("/a")] }]);
    assert_eq!(engine.sessions().await, Ok(0));
}

/// Nothing was swept for long, because the engine or its node stood still: clients get a time-out to come back.
pub async fn redis_away_longer_than_session(fixture: impl Fixture) {
    let (engine, _feed) = fixture.node().await;
    let (returning, gone) = (session(&engine, &[]).await, session(&engine, &[]).await);
    pass(&engine, Duration::from_secs(5)).await;
    engine.advance(LIFETIME * 3).await;
    assert_eq!(pass(&engine, LIFETIME / 4).await, []);
    poll(&engine, &returning, "1").await;
    let ended = pass(&engine, LIFETIME / 2).await;
    assert_eq!(ended.iter().map(|one| &one.session).collect::<Vec<_>>(), [&gone]);
}

pub async fn sessions_are_bounded(fixture: impl Fixture) {
    let (engine, _feed) = fixture.node().await;
    let first = SessionId::random();
    assert!(matches!(engine.create(Creation::new(&first, LIFETIME, 1)).await, Ok(Create::Created(_))));
    assert_eq!(engine.create(Creation::new(&SessionId::random(), LIFETIME, 1)).await, Ok(Create::TooMany));
    engine.end(&first, Ended::Disconnected).await.expect("ended");
    assert!(matches!(engine.create(Creation::new(&SessionId::random(), LIFETIME, 1)).await, Ok(Create::Created(_))));
}

pub async fn subscriptions_are_bounded(fixture: impl Fixture) {
    let (engine, _feed) = fixture.node().await;
    let session = session(&engine, &["/a", "/b"]).await;
    assert_eq!(engine.subscribe(&session, &pattern("/c"), 2, None).await, Ok(Subscribe::TooMany));
    assert!(matches!(engine.subscribe(&session, &pattern("/a"), 2, None).await, Ok(Subscribe::Kept { .. })));
    assert_eq!(engine.unsubscribe(&session, &pattern("/a")).await, Ok(Unsubscribe::Removed));
    assert_eq!(engine.unsubscribe(&session, &pattern("/a")).await, Ok(Unsubscribe::Absent));
    assert!(matches!(
        engine.subscribe(&session, &pattern("/c"), 2, None).await,
        Ok(Subscribe::Added { replay: None, .. })
    ));
}

/// Overdue, but attached before the sweep came round: it lives.
pub async fn expire_vs_attach(fixture: impl Fixture) {
    let (engine, _feed) = fixture.node().await;
    let session = session(&engine, &["/a"]).await;
    engine.advance(LIFETIME * 2).await;
    attach_poll(&engine, &session, "1").await;
    assert_eq!(engine.sweep(MANY).await, Ok(vec![]));
    assert_eq!(engine.touch(&session, None).await, Ok(Touch::Alive));
}

/// Subscribing neither revives an ended session nor leaves anything of it behind.
pub async fn expire_vs_subscribe(fixture: impl Fixture) {
    let (engine, _feed) = fixture.node().await;
    let session = session(&engine, &[]).await;
    engine.advance(LIFETIME * 2).await;
    engine.sweep(MANY).await.expect("swept");
    assert_eq!(engine.subscribe(&session, &pattern("/a"), MANY, None).await, Ok(Subscribe::Unknown));
    assert_eq!(engine.unsubscribe(&session, &pattern("/a")).await, Ok(Unsubscribe::Unknown));
    assert_eq!(engine.sessions().await, Ok(0));
}

pub async fn late_record_no_resurrection(fixture: impl Fixture) {
    let (engine, _feed) = fixture.node().await;
    let session = session(&engine, &["/a"]).await;
    let attached = attach_poll(&engine, &session, "1").await;
    let position = publish(&engine, "/a", "1").await;
    engine.end(&session, Ended::Disconnected).await.expect("ended");
    assert_eq!(record(&engine, &session, &attached, Some("1"), position).await, Record::Unknown);
    let item = commit(&session, &attached, position, Progress::Confirmed);
    assert_eq!(engine.commit(std::slice::from_ref(&item)).await, Ok(vec![CommitOutcome::Unknown]));
    engine.detach(&item).await.expect("does nothing");
    engine.release(&session, attached.epoch, Some("1")).await.expect("does nothing");
    engine.written(&session, attached.epoch).await.expect("does nothing");
    assert_eq!(engine.heartbeat(&session, None).await, Ok(Touch::Unknown));
    assert_eq!(poll(&engine, &session, "2").await, Attach::Unknown);
    assert!(matches!(read(&engine, &session, &attached, MANY).await, Read::Unknown));
    assert_eq!(engine.subscriptions(&session, attached.epoch).await, Ok(Subscriptions::Unknown));
    assert_eq!(engine.sessions().await, Ok(0));
}

pub async fn an_ended_session_leaves_nothing(fixture: impl Fixture) {
    let (engine, mut feed) = fixture.node().await;
    let session = session(&engine, &["/a", "/a/*"]).await;
    engine.listen(&[pattern("/a")]).await.expect("listening");
    let ended = engine.end(&session, Ended::Disconnected).await.expect("ended").expect("there was one");
    assert_eq!(ended.patterns, [pattern("/a"), pattern("/a/*")]);
    assert_eq!(engine.end(&session, Ended::Disconnected).await, Ok(None));
    publish(&engine, "/a", "1").await;
    assert!(drain(&engine, &mut feed).await.is_empty(), "no subscriber, no log, nothing to announce");
}

pub async fn disconnect_while_attached_elsewhere(fixture: impl Fixture) {
    let ((here, mut here_feed), (there, mut there_feed)) = (fixture.node().await, fixture.node().await);
    let session = session(&here, &["/a"]).await;
    attach_poll(&there, &session, "1").await;
    here.end(&session, Ended::Disconnected).await.expect("ended");
    assert!(drain(&here, &mut here_feed).await.is_empty());
    let events = drain(&there, &mut there_feed).await;
    let [FeedEvent::Control(control)] = &events[..] else { panic!("expected one control, got {events:?}") };
    assert_eq!(*control, Control { session, what: ControlKind::Ended(Ended::Disconnected) });
}

pub async fn resubscribe_keeps_since(fixture: impl Fixture) {
    let (engine, _feed) = fixture.node().await;
    let session = session(&engine, &["/a"]).await;
    let before = attach_poll(&engine, &session, "1").await;
    let position = publish(&engine, "/a", "1").await;
    assert!(matches!(engine.subscribe(&session, &pattern("/a"), MANY, None).await, Ok(Subscribe::Kept { .. })));
    let after = attach_poll(&engine, &session, "2").await;
    assert_eq!((before.version, &before.subscriptions), (after.version, &after.subscriptions));
    assert_eq!(positions(&snapshot(&engine, &session, &after).await.deliveries), [position]);
}

pub async fn subscribing_tells_the_attached_node_before_later_messages(fixture: impl Fixture) {
    let ((here, _here_feed), (there, mut feed)) = (fixture.node().await, fixture.node().await);
    let (_another, session) = (session(&here, &["/a", "/b"]).await, session(&here, &["/a"]).await);
    let attached = attach_poll(&there, &session, "1").await;
    there.listen(&[pattern("/a")]).await.expect("listening");
    here.subscribe(&session, &pattern("/b"), MANY, None).await.expect("subscribed");
    publish(&here, "/b", "1").await;
    publish(&here, "/a", "2").await;
    let events = drain(&there, &mut feed).await;
    let [FeedEvent::Control(control), FeedEvent::Message { log, .. }] = &events[..] else { panic!("{events:?}") };
    assert_eq!(control.what, ControlKind::Resubscribed { version: Version(attached.version.0 + 1) });
    assert_eq!(*log, pattern("/a"));
}

pub async fn stale_epochs_write_nothing(fixture: impl Fixture) {
    let (engine, _feed) = fixture.node().await;
    let session = session(&engine, &["/a"]).await;
    let old = attach_poll(&engine, &session, "1").await;
    let position = publish(&engine, "/a", "1").await;
    let new = attach_poll(&engine, &session, "2").await;
    assert!(new.epoch > old.epoch);
    assert_eq!(record(&engine, &session, &old, Some("1"), position).await, Record::Stale { same_id: false });
    assert_eq!(record(&engine, &session, &old, Some("2"), position).await, Record::Stale { same_id: true });
    let item = commit(&session, &old, position, Progress::Confirmed);
    assert_eq!(engine.commit(std::slice::from_ref(&item)).await, Ok(vec![CommitOutcome::Stale]));
    engine.detach(&item).await.expect("does nothing");
    assert!(matches!(read(&engine, &session, &old, MANY).await, Read::Stale));
    assert_eq!(engine.subscriptions(&session, old.epoch).await, Ok(Subscriptions::Stale));
    assert_eq!(engine.touch(&session, Some(old.epoch)).await, Ok(Touch::Stale));
    assert_eq!(engine.touch(&session, Some(new.epoch)).await, Ok(Touch::Alive));
    assert_eq!(positions(&snapshot(&engine, &session, &new).await.deliveries), [position], "nothing was confirmed");
}

pub async fn unknown_subscriptions_confirm_nothing(fixture: impl Fixture) {
    let (engine, _feed) = fixture.node().await;
    let session = session(&engine, &["/a"]).await;
    let attached = attach_poll(&engine, &session, "1").await;
    engine.subscribe(&session, &pattern("/b"), MANY, None).await.expect("subscribed");
    publish(&engine, "/b", "1").await;
    let position = publish(&engine, "/a", "2").await;
    assert_eq!(record(&engine, &session, &attached, Some("1"), position).await, Record::Outdated);
    let item = commit(&session, &attached, position, Progress::Confirmed);
    assert_eq!(engine.commit(std::slice::from_ref(&item)).await, Ok(vec![CommitOutcome::Outdated]));
    assert!(matches!(read(&engine, &session, &attached, MANY).await, Read::Outdated));
    let Ok(Subscriptions::Current(version, subscriptions)) = engine.subscriptions(&session, attached.epoch).await
    else {
        panic!("the attachment is current");
    };
    let current = Attached { version, subscriptions, ..attached };
    assert_eq!(snapshot(&engine, &session, &current).await.deliveries.len(), 2);
}

/// Staying connected is not enough, where somebody says so.
pub async fn inactive_sessions_end(fixture: impl Fixture) {
    let ((here, mut feed), (there, _other)) = (fixture.node().await, fixture.node().await);
    let session = session(&here, &["/a"]).await;
    attach_poll(&here, &session, "1").await;
    let limit = Duration::from_secs(60);
    for second in [40, 80] {
        here.advance(Duration::from_secs(40)).await;
        attach_poll(&here, &session, &second.to_string()).await;
        assert_eq!(there.end_inactive(&session, limit).await, Ok(None), "after {second} s");
        there.note_activity(&session).await.expect("noted");
    }
    here.advance(Duration::from_secs(61)).await;
    drain(&here, &mut feed).await;
    let ended = there.end_inactive(&session, limit).await.expect("an outcome").expect("ended");
    assert_eq!(ended.patterns, [pattern("/a")]);
    let told = drain(&here, &mut feed).await;
    assert!(
        matches!(&told[..], [FeedEvent::Control(Control { what: ControlKind::Ended(Ended::Inactive), .. })]),
        "{told:?}"
    );
    there.note_activity(&session).await.expect("does nothing");
    assert_eq!(here.touch(&session, None).await, Ok(Touch::Unknown));
    assert_eq!(there.end_inactive(&session, limit).await, Ok(None));
}
