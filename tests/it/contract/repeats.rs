//! Publishes that are sent again.

use weft::bayeux::{Channel, Fingerprint};

use super::*;

async fn publish_once(engine: &impl TestEngine, channel: &str, fingerprint: u8) -> Published {
    let channel = Channel::parse(channel).expect(channel);
    let array = format!("[{{\"channel\":\"{channel}\",\"data\":{fingerprint}}}]").into();
    let fingerprint = Some(Fingerprint([fingerprint; 16]));
    engine.publish(Publication { fingerprint, ..Publication::new(channel, array) }).await.expect("an outcome")
}

async fn count(engine: &impl TestEngine, session: &SessionId) -> usize {
    let attached = attach_poll(engine, session, "count").await;
    snapshot(engine, session, &attached).await.deliveries.len()
}

pub async fn a_repeated_publish_is_stored_once(fixture: impl Fixture) {
    let (engine, _feed) = fixture.node().await;
    let session = session(&engine, &["/a", "/**"]).await;
    let first = stored(Ok(publish_once(&engine, "/a", 1).await));
    for _ in 0..3 {
        assert_eq!(publish_once(&engine, "/a", 1).await, Published::Repeated);
    }
    // Nothing of it for a plain publish.
    publish(&engine, "/a", "1").await;
    publish(&engine, "/a", "1").await;
    let attached = attach_poll(&engine, &session, "1").await;
    let found = positions(&snapshot(&engine, &session, &attached).await.deliveries);
    assert_eq!((found[0], found.len()), (first, 3));
}

pub async fn a_publish_resent_elsewhere_is_stored_once(fixture: impl Fixture) {
    let ((here, _one), (there, _other)) = (fixture.node().await, fixture.node().await);
    let session = session(&here, &["/a"]).await;
    // The first is still under way when the second is sent.
    let outcomes =
        tokio::join!(publish_once(&here, "/a", 1), publish_once(&there, "/a", 1), publish_once(&here, "/a", 1));
    let outcomes = [outcomes.0, outcomes.1, outcomes.2];
    assert_eq!(outcomes.iter().filter(|outcome| **outcome == Published::Repeated).count(), 2, "{outcomes:?}");
    assert_eq!(count(&there, &session).await, 1);
}

pub async fn other_content_is_another_message(fixture: impl Fixture) {
    let (engine, _feed) = fixture.node().await;
    let session = session(&engine, &["/a"]).await;
    for number in 0..20 {
        assert!(matches!(publish_once(&engine, "/a", number).await, Published::Stored(_)), "{number}");
    }
    assert_eq!(count(&engine, &session).await, 20);
}

pub async fn repetitions_are_forgotten_after_the_window(fixture: impl Fixture) {
    let (engine, _feed) = fixture.node().await;
    publish_once(&engine, "/a", 1).await;
    engine.advance(Duration::from_secs(59)).await;
    publish_once(&engine, "/a", 2).await;
    engine.advance(Duration::from_secs(2)).await;
    assert_eq!(publish_once(&engine, "/a", 1).await, Published::Repeated, "the older generation");
    engine.advance(Duration::from_secs(58)).await;
    assert_eq!(publish_once(&engine, "/a", 2).await, Published::Repeated, "within a window of its own");
    engine.advance(Duration::from_secs(130)).await;
    assert!(matches!(publish_once(&engine, "/a", 1).await, Published::Stored(_)));
    assert_eq!(publish_once(&engine, "/a", 1).await, Published::Repeated);
}

pub async fn fingerprints_are_bounded<F: Fixture>(_: F) {
    let fixture = F::bounded(Bounds { fingerprints: 10, ..Bounds::default() }).await;
    let (engine, _feed) = fixture.node().await;
    for number in 0..25 {
        publish_once(&engine, "/a", number).await;
    }
    assert_eq!(publish_once(&engine, "/a", 24).await, Published::Repeated);
    assert!(matches!(publish_once(&engine, "/a", 0).await, Published::Stored(_)), "the oldest are forgotten");
}
