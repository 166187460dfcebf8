//! A Redis that comes back without what it had acknowledged: empty, or from an older copy.

use super::*;
use crate::support::soon;

/// Waits until the node has met the Redis that answers now.
async fn met_again(node: &RedisNode) {
    // Its connections are gone; the first use of each makes another.
    soon("the feed is back", async {
        while node.fence().await.is_err() {
            node.available().await;
        }
    })
    .await;
}

/// No position repeats or falls below a cursor, whoever writes first.
#[tokio::test]
async fn raise_after_failover() {
    let mut redis = Redis::start().await;
    let (node, _feed) = redis.node(|_| {}).await;
    let _session = session(&node, &["/a"]).await;
    // The clock of this Redis was ahead of that of the next.
    redis.ask::<()>(&["SET", "{weft:0}:clock", "8000000000000000"]).await;
    let before = publish(&node, "/a", "1").await;
    redis.restart().await;
    met_again(&node).await;
    let subscribed = session(&node, &["/a"]).await;
    let after = publish(&node, "/a", "2").await;
    assert!(after > before, "{after:?} after {before:?}");
    assert_eq!(unread(&node, &subscribed, "1").await, [2]);
}

/// Redis comes back from a copy that lacks an acknowledged message: its sessions are told to start again, on all nodes,
/// and only once.
#[tokio::test]
async fn lost_acknowledged_write_is_told() {
    let mut redis = Redis::start().await;
    let ((one, _one_feed), (other, _other_feed)) = (redis.node(|_| {}).await, redis.node(|_| {}).await);
    let older = session(&one, &["/a"]).await;
    redis.ask::<()>(&["SAVE"]).await;
    publish(&one, "/a", "1").await;
    publish(&other, "/a", "2").await;
    redis.restart().await;
    met_again(&one).await;
    let newer = session(&one, &["/a"]).await;
    met_again(&other).await;
    for node in [&one, &other] {
        assert_eq!(crate::contract::poll(node, &older, "1").await, Attach::Unknown);
        assert_eq!(node.touch(&older, None).await, Ok(Touch::Unknown));
        assert_eq!(node.subscribe(&older, &pattern("/b"), MANY, None).await, Ok(Subscribe::Unknown));
    }
    publish(&other, "/a", "3").await;
    assert_eq!(unread(&other, &newer, "1").await, [3], "one loss is one new era");
}

/// A restart that lost nothing is no loss.
#[tokio::test]
async fn a_restart_that_lost_nothing_ends_nobody() {
    let mut redis = Redis::start().await;
    let (node, _feed) = redis.node(|_| {}).await;
    let session = session(&node, &["/a"]).await;
    publish(&node, "/a", "1").await;
    redis.ask::<()>(&["SAVE"]).await;
    redis.restart().await;
    met_again(&node).await;
    publish(&node, "/a", "2").await;
    assert_eq!(unread(&node, &session, "1").await, [1, 2]);
}

/// Part of a session is lost (evicted): it is told, rather than served in silence without some of its subscriptions.
#[tokio::test]
async fn lost_keys_are_told() {
    for lost in ["session:ID", "subscriptions:ID", "head:/a", "log:/a"] {
        let redis = Redis::start().await;
        let (node, _feed) = redis.node(|_| {}).await;
        let session = session(&node, &["/a", "/b"]).await;
        publish(&node, "/a", "1").await;
        redis.ask::<()>(&["DEL", &format!("{{weft:0}}:{}", lost.replace("ID", session.as_str()))]).await;
        publish(&node, "/a", "2").await;
        if let Attach::Attached(attached) = crate::contract::poll(&node, &session, "1").await {
            let read = crate::contract::read(&node, &session, &attached, MANY).await;
            assert!(matches!(read, Read::Gap(_)), "without {lost}: {read:?}");
        }
        assert_eq!(node.touch(&session, None).await, Ok(Touch::Unknown), "without {lost}");
    }
}

/// A head that was lost is made again by the next subscriber: what was published meanwhile is missing in the middle of the log.
#[tokio::test]
async fn a_hole_in_the_middle_is_told() {
    let redis = Redis::start().await;
    let (node, _feed) = redis.node(|_| {}).await;
    let here = session(&node, &["/a"]).await;
    publish(&node, "/a", "1").await;
    redis.ask::<()>(&["DEL", "{weft:0}:head:/a"]).await;
    publish(&node, "/a", "2").await;
    session(&node, &["/a"]).await;
    publish(&node, "/a", "3").await;
    let Attach::Attached(attached) = crate::contract::poll(&node, &here, "1").await else { panic!("it is there") };
    assert!(attached.unread.is_none());
    assert!(matches!(crate::contract::read(&node, &here, &attached, MANY).await, Read::Gap(_)));
    assert_eq!(node.touch(&here, None).await, Ok(Touch::Unknown));
}

/// As above, where what a read gives ends between the hole and the message that tells of it.
#[tokio::test]
async fn a_hole_beside_a_busy_log_is_told() {
    for resume in [true, false] {
        let redis = Redis::start().await;
        let (node, _feed) = redis.node(|_| {}).await;
        let here = SessionId::random();
        let traits = Traits { resume, ..Traits::default() };
        let creation = Creation { traits, ..Creation::new(&here, crate::contract::LIFETIME, MANY) };
        node.create(creation).await.expect("created");
        for name in ["/a", "/b"] {
            node.subscribe(&here, &pattern(name), MANY, None).await.expect("subscribed");
        }
        let mut left = vec![publish(&node, "/a", "1").await];
        redis.ask::<()>(&["DEL", "{weft:0}:head:/a"]).await;
        publish(&node, "/a", "2").await;
        session(&node, &["/a"]).await;
        for number in 0..10 {
            left.push(publish(&node, "/b", &number.to_string()).await);
        }
        left.push(publish(&node, "/a", "3").await);
        let Attach::Attached(mut attached) = crate::contract::poll(&node, &here, "1").await else { panic!("there") };
        let (mut found, mut told) = (Vec::new(), 0);
        let ended = loop {
            match crate::contract::read(&node, &here, &attached, 3).await {
                Read::Snapshot(snapshot) => {
                    found.extend(snapshot.deliveries.iter().map(|delivery| delivery.position));
                    told += usize::from(snapshot.lost.is_some());
                    attached.cursor = snapshot.upto;
                    if !snapshot.truncated {
                        break false;
                    }
                }
                Read::Gap(_) => break true,
                other => panic!("{other:?}"),
            }
        };
        match resume {
            true => assert_eq!((ended, told, found), (false, 1, left)),
            false => assert!(ended, "a plain session that misses a message ends"),
        }
    }
}

const KEPT: Retention = Retention { age: Duration::from_secs(1000), length: 100 };

async fn publish_kept(node: &RedisNode, number: u32) -> Position {
    let channel = weft::bayeux::Channel::parse("/a").expect("valid");
    let array = format!("[{{\"channel\":\"/a\",\"data\":{number}}}]").into();
    let publication = Publication { retention: Some(KEPT), ..Publication::new(channel, array) };
    match node.publish(publication).await {
        Ok(Published::Stored(position)) => position,
        other => panic!("stored, but {other:?}"),
    }
}

/// The head of a retained channel is lost: who reads its log gets all that is there.
#[tokio::test]
async fn a_log_without_its_head_is_read_if_it_is_retained() {
    let redis = Redis::start().await;
    let (node, _feed) = redis.node(|_| {}).await;
    let here = session(&node, &["/a"]).await;
    for number in 1..4 {
        publish_kept(&node, number).await;
    }
    redis.ask::<()>(&["DEL", "{weft:0}:head:/a"]).await;
    assert_eq!(unread(&node, &here, "1").await, [1, 2, 3]);
    assert!(redis.ask::<i64>(&["TTL", "{weft:0}:head:/a"]).await > 0);
    redis.ask::<()>(&["DEL", "{weft:0}:head:/a"]).await;
    publish_kept(&node, 4).await;
    assert!(redis.ask::<i64>(&["TTL", "{weft:0}:head:/a"]).await > 0, "every key has a time to live");
    assert_eq!(unread(&node, &here, "2").await, [1, 2, 3, 4]);
}

/// What a replay of all that is kept of the channel brings to a new session, two messages at a time, and whether it tells of a
/// gap.
async fn replay_all(node: &RedisNode, traits: Traits) -> (usize, bool) {
    let session = SessionId::random();
    node.create(Creation { traits, ..Creation::new(&session, crate::contract::LIFETIME, MANY) })
        .await
        .expect("created");
    let wish = ReplayWish { after: None, retention: KEPT };
    let added = node.subscribe(&session, &pattern("/a"), MANY, Some(wish)).await;
    let Ok(Subscribe::Added { since, replay: Some(start) }) = added else { panic!("{added:?}") };
    let attached = crate::contract::attach_poll(node, &session, "1").await;
    let (mut from, mut count, mut told) = (start.from, 0, false);
    loop {
        let request = ReplayRequest {
            session: &session,
            epoch: attached.epoch,
            version: attached.version,
            pattern: &pattern("/a"),
            since,
            from,
            max_messages: 2,
            max_bytes: 1 << 20,
        };
        match node.replay(request).await {
            Ok(Replay::Chunk { deliveries, through, gap }) => {
                (count, told) = (count + deliveries.len(), told || gap);
                match deliveries.last() {
                    Some(last) if !through => from = last.position,
                    _ => return (count, told),
                }
            }
            other => panic!("a chunk, but {other:?}"),
        }
    }
}

/// A message of a retained channel is lost: clients that can be told are, and the others get what is left, each of them:
/// another session would not bring it back.
#[tokio::test]
async fn a_hole_in_a_replay_is_told() {
    let resumes = Traits { resume: true, ..Traits::default() };
    // In the middle of a chunk, between two, at the end.
    for lost in [1, 2, 3] {
        let redis = Redis::start().await;
        let (node, _feed) = redis.node(|_| {}).await;
        let mut positions = Vec::new();
        for number in 0..4 {
            positions.push(publish_kept(&node, number).await);
        }
        redis.ask::<()>(&["XDEL", "{weft:0}:log:/a", &format!("{}-0", positions[lost].0)]).await;
        for _ in 0..2 {
            assert_eq!(replay_all(&node, Traits::default()).await, (3, false), "without {lost}");
            assert_eq!(replay_all(&node, resumes).await, (3, true), "without {lost}");
        }
    }
}

/// A head is lost, but nothing else: whatever is published to a retained channel is in its log.
#[tokio::test]
async fn a_lost_head_of_a_retained_channel_is_no_gap() {
    let resumes = Traits { resume: true, ..Traits::default() };
    // Made again by the next message, or by the next subscriber.
    for by_subscriber in [false, true] {
        let redis = Redis::start().await;
        let (node, _feed) = redis.node(|_| {}).await;
        for number in 0..4 {
            if number == 2 {
                redis.ask::<()>(&["DEL", "{weft:0}:head:/a"]).await;
                if by_subscriber {
                    session(&node, &["/a"]).await;
                }
            }
            publish_kept(&node, number).await;
        }
        for traits in [Traits::default(), resumes] {
            assert_eq!(replay_all(&node, traits).await, (4, false), "{by_subscriber}");
        }
    }
}

/// The newest message is lost: the head knows of it.
#[tokio::test]
async fn a_lost_end_is_told() {
    let redis = Redis::start().await;
    let (node, _feed) = redis.node(|_| {}).await;
    let session = session(&node, &["/a"]).await;
    publish(&node, "/a", "1").await;
    let last = publish(&node, "/a", "2").await;
    redis.ask::<()>(&["XDEL", "{weft:0}:log:/a", &format!("{}-0", last.0)]).await;
    let Attach::Attached(attached) = crate::contract::poll(&node, &session, "1").await else { panic!("it is there") };
    assert!(attached.unread.is_none());
    assert!(matches!(crate::contract::read(&node, &session, &attached, MANY).await, Read::Gap(_)));
}

/// The clock of the machine jumps: positions rise on, and nobody expires before there was time to be heard of.
#[tokio::test]
async fn clock_backwards() {
    let redis = Redis::start().await;
    let (node, _feed) = redis.node(|_| {}).await;
    let session = session(&node, &["/a"]).await;
    let mut before = publish(&node, "/a", "0").await;
    assert_eq!(node.sweep(MANY).await, Ok(vec![]));
    for (number, jump) in [(1, "-3600000"), (2, "3600000")] {
        redis.ask::<()>(&["INCRBY", "{weft:0}:skew", jump]).await;
        let after = publish(&node, "/a", &number.to_string()).await;
        assert!(after > before, "{after:?} after {before:?}");
        before = after;
        assert_eq!(node.sweep(MANY).await, Ok(vec![]), "after a jump by {jump} ms");
    }
    assert_eq!(unread(&node, &session, "1").await, [0, 1, 2]);
}

/// A node that has seen less meets the copy first, and moves its clock past everything: the loss is told all the same.
#[tokio::test]
async fn a_loss_is_told_whoever_comes_first() {
    let mut redis = Redis::start().await;
    let ((knowing, _knowing_feed), (ignorant, _ignorant_feed)) = (redis.node(|_| {}).await, redis.node(|_| {}).await);
    let older = session(&ignorant, &["/a"]).await;
    redis.ask::<()>(&["SAVE"]).await;
    publish(&knowing, "/a", "1").await;
    // Only the other node connects, and writes.
    knowing.break_feed().await;
    redis.restart().await;
    met_again(&ignorant).await;
    publish(&ignorant, "/b", "2").await;
    assert_eq!(ignorant.touch(&older, None).await, Ok(Touch::Alive), "nobody knows yet");
    knowing.restore_feed().await;
    met_again(&knowing).await;
    assert_eq!(ignorant.touch(&older, None).await, Ok(Touch::Unknown), "and now everybody");
}

/// A subscription is an acknowledged write too.
#[tokio::test]
async fn a_lost_subscription_is_told() {
    let mut redis = Redis::start().await;
    let (node, _feed) = redis.node(|_| {}).await;
    let session = session(&node, &["/a"]).await;
    redis.ask::<()>(&["SAVE"]).await;
    node.subscribe(&session, &pattern("/b"), MANY, None).await.expect("subscribed");
    redis.restart().await;
    met_again(&node).await;
    assert_eq!(node.touch(&session, None).await, Ok(Touch::Unknown));
}

/// The address leads to another server while the old one lives on: every connection of the node moves, those that only
/// read too.
#[tokio::test]
async fn lanes_follow_the_feed_to_another_server() {
    let (old, new) = (Redis::start().await, Redis::start().await);
    let folder = tempfile::tempdir().expect("a temporary directory");
    let address = folder.path().join("address.sock");
    let lead_to = |redis: &Redis| {
        let link = folder.path().join("link");
        std::os::unix::fs::symlink(redis.socket(), &link).expect("linked");
        std::fs::rename(&link, &address).expect("moved");
    };
    lead_to(&old);
    let url = format!("redis+unix://{}", address.display());
    let (node, _feed) = old.node(|settings| settings.url = url).await;
    let before = session(&node, &["/a"]).await;
    publish(&node, "/a", "1").await;
    assert_eq!(unread(&node, &before, "1").await, [1], "all lanes are connected");
    lead_to(&new);
    // Only the feed breaks: as when an address moves and its old connections are left alone.
    old.ask::<i64>(&["CLIENT", "KILL", "TYPE", "pubsub"]).await;
    met_again(&node).await;
    let after = session(&node, &["/a"]).await;
    publish(&node, "/a", "2").await;
    assert_eq!(unread(&node, &after, "1").await, [2]);
    assert_eq!(new.ask::<i64>(&["XLEN", "{weft:0}:log:/a"]).await, 1);
    assert_eq!(node.touch(&before, None).await, Ok(Touch::Unknown));
}

/// A socket never attaches again: its heartbeat finds what Redis lost.
#[tokio::test]
async fn lost_keys_are_told_to_sockets() {
    for lost in ["subscriptions:ID", "head:/a"] {
        let redis = Redis::start().await;
        let (node, _feed) = redis.node(|_| {}).await;
        let session = session(&node, &["/a", "/b"]).await;
        let held =
            crate::contract::attach(&node, &session, Link::Socket { connect_id: None, retry: false, claim: None })
                .await;
        assert_eq!(node.touch(&session, Some(held.epoch)).await, Ok(Touch::Alive));
        redis.ask::<()>(&["DEL", &format!("{{weft:0}}:{}", lost.replace("ID", session.as_str()))]).await;
        assert_eq!(node.touch(&session, Some(held.epoch)).await, Ok(Touch::Unknown), "without {lost}");
    }
}
