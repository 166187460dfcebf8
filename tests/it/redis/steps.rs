//! Steps of sessions: what waits at the same time goes in one call, in order, and each has an outcome of its own.

use futures_util::future::join_all;

use super::*;
use crate::contract::{attach_poll, drain, poll, record};

/// Attaches all of them at the same time.
async fn attach_all(node: &RedisNode, sessions: &[SessionId]) -> Vec<Attached> {
    let attached = |outcome| match outcome {
        Attach::Attached(attached) => attached,
        other => panic!("expected an attachment, got {other:?}"),
    };
    join_all(sessions.iter().map(|session| poll(node, session, "1"))).await.into_iter().map(attached).collect()
}

#[tokio::test]
async fn steps_at_the_same_time_share_a_call() {
    let redis = Redis::start().await;
    let (node, _feed) = redis.node(|_| {}).await;
    let sessions = join_all((0..120).map(|_| session(&node, &["/a"]))).await;
    attach_poll(&node, &sessions[0], "0").await;
    redis.ask::<()>(&["CONFIG", "RESETSTAT"]).await;
    let attached = attach_all(&node, &sessions).await;
    let calls = calls_of(&redis, "evalsha").await;
    assert!(calls <= 3, "{calls} calls for 120 polls");
    // Each got its own.
    let mine = sessions.iter().zip(&attached);
    let records =
        join_all(mine.map(|(session, attached)| record(&node, session, attached, Some("1"), Position(1)))).await;
    assert!(records.iter().all(|outcome| *outcome == Record::Recorded), "{records:?}");
}

#[tokio::test]
async fn a_step_fails_for_itself() {
    let redis = Redis::start().await;
    let (node, _feed) = redis.node(|_| {}).await;
    let sessions = join_all((0..3).map(|_| session(&node, &["/a"]))).await;
    redis.ask::<()>(&["SET", &format!("{{weft:0}}:session:{}", sessions[1].as_str()), "no session"]).await;
    let link = Link::Poll { connect_id: Some("1"), retry: false, claim: None };
    let outcomes = join_all(sessions.iter().map(|session| node.attach(AttachRequest { session, link }))).await;
    let [Ok(Attach::Attached(_)), Err(EngineError::Unavailable(error)), Ok(Attach::Attached(_))] = &outcomes[..] else {
        panic!("{outcomes:?}")
    };
    assert!(error.contains("WRONGTYPE"), "{error}");
}

/// Five sessions with 300 subscriptions each, on a Redis that knows the script.
async fn five_with_many_subscriptions(node: &RedisNode) -> Vec<SessionId> {
    let channels: Vec<_> = (0..300).map(|number| format!("/a/{number}")).collect();
    let channels: Vec<_> = channels.iter().map(String::as_str).collect();
    let sessions = join_all((0..5).map(|_| session(node, &channels))).await;
    attach_poll(node, &sessions[0], "0").await;
    sessions
}

/// A script holds up everybody else: sessions with many subscriptions are attached a few at a time.
#[tokio::test]
async fn many_subscriptions_are_attached_in_pieces() {
    let redis = Redis::start().await;
    let (node, _feed) = redis.node(|_| {}).await;
    let sessions = five_with_many_subscriptions(&node).await;
    redis.ask::<()>(&["CONFIG", "RESETSTAT"]).await;
    let attached = attach_all(&node, &sessions).await;
    assert!(attached.iter().all(|attached| attached.subscriptions.len() == 300 && attached.heads.len() == 300));
    assert_eq!(calls_of(&redis, "evalsha").await, 3, "two, two and one");
}

/// Also what extends the life of keys, and what ends a session.
#[tokio::test]
async fn whatever_looks_at_many_subscriptions_counts() {
    let redis = Redis::start().await;
    let (node, _feed) = redis.node(|_| {}).await;
    let sessions = five_with_many_subscriptions(&node).await;
    node.advance(Duration::from_secs(140)).await.expect("moved on");
    redis.ask::<()>(&["CONFIG", "RESETSTAT"]).await;
    attach_all(&node, &sessions).await;
    assert_eq!(calls_of(&redis, "evalsha").await, 5, "what is extended counts");
    for session in &sessions {
        redis.ask::<()>(&["HDEL", &format!("{{weft:0}}:subscriptions:{}", session.as_str()), "/a/7"]).await;
    }
    redis.ask::<()>(&["CONFIG", "RESETSTAT"]).await;
    let gone = join_all(sessions.iter().map(|session| poll(&node, session, "2"))).await;
    assert!(gone.iter().all(|outcome| *outcome == Attach::Unknown));
    assert_eq!(calls_of(&redis, "evalsha").await, 3, "two, two and one");
}

/// What waits for a poll is given with its attach only if it is little. That it is much must be seen without looking at it.
#[tokio::test]
async fn large_messages_are_looked_at_one_by_one() {
    let redis = Redis::start().await;
    let (node, _feed) = redis.node(|_| {}).await;
    let sessions = join_all((0..16).map(|_| session(&node, &["/a"]))).await;
    attach_poll(&node, &sessions[0], "0").await;
    // Twenty of those are as much as one call looks at: if each were shown two, it would be one call more.
    let large = format!("\"{}\"", "x".repeat(25 * 1024));
    for _ in 0..20 {
        publish(&node, "/a", &large).await;
    }
    redis.ask::<()>(&["CONFIG", "RESETSTAT"]).await;
    let attached = attach_all(&node, &sessions).await;
    assert!(attached.iter().all(|attached| attached.unread.is_none()));
    assert_eq!(calls_of(&redis, "evalsha").await, 2);
    // One of these is as much.
    publish(&node, "/b", &format!("\"{}\"", "x".repeat(512 * 1024))).await;
    let huge = join_all((0..3).map(|_| session(&node, &["/b"]))).await;
    publish(&node, "/b", &format!("\"{}\"", "x".repeat(512 * 1024))).await;
    redis.ask::<()>(&["CONFIG", "RESETSTAT"]).await;
    let attached = attach_all(&node, &huge).await;
    assert!(attached.iter().all(|attached| attached.unread.is_none()));
    assert_eq!(calls_of(&redis, "evalsha").await, 3);
}

/// Nor many at once because those before were small.
#[tokio::test]
async fn large_messages_behind_small_ones_are_looked_at_a_few_at_a_time() {
    let redis = Redis::start().await;
    let (node, _feed) = redis.node(|_| {}).await;
    let sessions = join_all((0..9).map(|_| session(&node, &["/a"]))).await;
    attach_poll(&node, &sessions[0], "0").await;
    let large = format!("\"{}\"", "x".repeat(30 * 1024));
    for number in 0..31 {
        publish(&node, "/a", if number < 15 { "1" } else { &large }).await;
    }
    redis.ask::<()>(&["CONFIG", "RESETSTAT"]).await;
    let attached = attach_all(&node, &sessions).await;
    assert!(attached.iter().all(|attached| attached.unread.is_none()));
    // Four of them are a fourth of what a call looks at.
    assert_eq!(calls_of(&redis, "evalsha").await, 3, "one, four and four");
}

/// A reply that was not written gives its record back, and that must come after the record, however long it waits.
#[tokio::test]
async fn what_gives_a_record_back_does_not_overtake_it() {
    for begun in [false, true] {
        let redis = Redis::start().await;
        let (node, _feed) = redis.node(|_| {}).await;
        let (session, other) = (session(&node, &["/a"]).await, session(&node, &["/b"]).await);
        let one = publish(&node, "/a", "1").await;
        let attached = attach_poll(&node, &session, "1").await;
        redis.signal("STOP");
        let before = node.written(&other, Epoch(1));
        tokio::pin!(before);
        if !begun {
            // What is under way keeps the next waiting.
            assert!(futures_util::poll!(&mut before).is_pending());
            tokio::task::yield_now().await;
        }
        {
            let recording = record(&node, &session, &attached, Some("1"), one);
            tokio::pin!(recording);
            assert!(futures_util::poll!(&mut recording).is_pending());
            tokio::task::yield_now().await;
        }
        let given_back = node.release(&session, attached.epoch, Some("1"));
        tokio::pin!(given_back);
        assert!(futures_util::poll!(&mut given_back).is_pending());
        redis.signal("CONT");
        given_back.await.expect("given back");
        before.await.expect("done");
        assert_eq!(unread(&node, &session, "2").await, [1], "begun: {begun}");
    }
}

/// A poll that was answered holds nothing any more: its node is not told who came after it.
#[tokio::test]
async fn who_has_answered_is_not_told_of_the_next_poll() {
    let redis = Redis::start().await;
    let ((here, mut news), (there, _feed)) = (redis.node(|_| {}).await, redis.node(|_| {}).await);
    let session = session(&here, &["/a"]).await;
    let answered = attach_poll(&here, &session, "1").await;
    let upto = publish(&here, "/a", "1").await;
    record(&here, &session, &answered, Some("1"), upto).await;
    attach_poll(&there, &session, "2").await;
    let told = |event: &FeedEvent| matches!(event, FeedEvent::Control(_));
    assert!(!drain(&here, &mut news).await.iter().any(told), "it has sent its messages");
    // Back here: the other one still waits, and is told; this one concludes.
    let waiting = attach_poll(&here, &session, "3").await;
    node_concludes(&here, &session, waiting.epoch).await;
    assert!(matches!(poll(&there, &session, "4").await, Attach::Attached(_)));
    assert!(!drain(&here, &mut news).await.iter().any(told), "it has said that there is nothing");
    attach_poll(&here, &session, "5").await;
    attach_poll(&there, &session, "6").await;
    assert!(drain(&here, &mut news).await.iter().any(told), "it waits");
}

async fn node_concludes(node: &RedisNode, session: &SessionId, epoch: Epoch) {
    assert_eq!(node.conclude(session, epoch, Some("3"), false).await, Ok(Conclude::Empty));
}
