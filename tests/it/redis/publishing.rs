//! The write path: order and outcome of each message, whatever happens to a batch.

use futures_util::future::join_all;

use super::*;

/// Redis forgets its scripts again and again: what is stored keeps the order in which it was handed in.
#[tokio::test]
async fn noscript_keeps_order() {
    let redis = Redis::start().await;
    let (node, _feed) = redis.node(|_| {}).await;
    let session = session(&node, &["/a"]).await;
    let mut positions = Vec::new();
    for round in 0..20 {
        redis.ask::<()>(&["SCRIPT", "FLUSH"]).await;
        let texts: Vec<_> = (0..10).map(|number| (round * 10 + number).to_string()).collect();
        positions.extend(join_all(texts.iter().map(|text| publish(&node, "/a", text))).await);
    }
    assert!(positions.is_sorted_by(|one, next| one < next), "{positions:?}");
    assert_eq!(unread(&node, &session, "1").await, (0..200).collect::<Vec<_>>());
}

/// Publishes that are handed in together share the calls, and keep their order.
#[tokio::test]
async fn publishes_in_a_row_share_a_call() {
    let redis = Redis::start().await;
    let (node, _feed) = redis.node(|_| {}).await;
    let session = session(&node, &["/a"]).await;
    publish(&node, "/a", "0").await;
    redis.ask::<()>(&["CONFIG", "RESETSTAT"]).await;
    let publication = |number: u64| {
        let channel = weft::bayeux::Channel::parse("/a").expect("valid");
        Publication::new(channel, format!("[{{\"channel\":\"/a\",\"data\":{number}}}]").into())
    };
    let store = Store::redis(node.clone(), Duration::from_secs(5));
    let outcomes = store.publish_all((1..=64).map(publication).collect()).await;
    let positions: Vec<_> = outcomes.into_iter().map(|outcome| outcome.expect("stored")).collect();
    let place = |published: &Published| match published {
        Published::Stored(position) => *position,
        Published::Repeated => panic!("nothing is repeated"),
    };
    assert!(positions.is_sorted_by(|one, next| place(one) < place(next)), "{positions:?}");
    let calls = calls_of(&redis, "evalsha").await;
    assert_eq!(calls, 1, "calls for 64 messages");
    assert_eq!(unread(&node, &session, "1").await, (0..=64).collect::<Vec<_>>());
}

/// What a call has looked up for one message serves the next ones on the same log, each of which follows the one before.
#[tokio::test]
async fn a_call_looks_up_each_log_once() {
    const MESSAGES: u64 = 30;
    let redis = Redis::start().await;
    let (node, mut feed) = redis.node(|_| {}).await;
    // One log with one subscriber, one with two, and one of a pattern; and a log that cannot be written.
    let alone = session(&node, &["/a"]).await;
    let (one, other) = (session(&node, &["/b", "/*"]).await, session(&node, &["/b", "/*", "/bad"]).await);
    node.listen(&[pattern("/b"), pattern("/*")]).await.expect("listening");
    for session in [&alone, &one, &other] {
        crate::contract::attach_poll(&node, session, "1").await;
    }
    redis.ask::<()>(&["SET", "{weft:0}:log:/bad", "not a log"]).await;
    let nobody = weft::bayeux::Channel::parse("/x/y").expect("valid");
    node.publish(Publication::new(nobody, "[]".into())).await.expect("Redis knows the script from here on");
    crate::contract::drain(&node, &mut feed).await;
    redis.ask::<()>(&["CONFIG", "RESETSTAT"]).await;
    let publication = |number: u64| {
        let name = ["/a", "/b", "/bad"][(number % 3) as usize];
        let channel = weft::bayeux::Channel::parse(name).expect("valid");
        Publication::new(channel, format!("[{{\"channel\":\"{name}\",\"data\":{number}}}]").into())
    };
    let store = Store::redis(node.clone(), Duration::from_secs(5));
    let outcomes = store.publish_all((0..MESSAGES).map(publication).collect()).await;
    assert_eq!(outcomes.iter().filter(|outcome| outcome.is_ok()).count() as u64, MESSAGES / 3 * 2, "{outcomes:?}");
    // The logs of the three channels and their two patterns, of which one has subscribers.
    let calls = calls_of(&redis, "evalsha").await;
    assert_eq!(calls, 1, "calls for {MESSAGES} messages");
    assert_eq!(calls_of(&redis, "mget").await, 3);
    assert_eq!(calls_of(&redis, "scard").await, 3);
    assert_eq!(calls_of(&redis, "hget").await, 1);

    let mut ends = std::collections::HashMap::new();
    let mut told = std::collections::BTreeMap::new();
    for event in crate::contract::drain(&node, &mut feed).await {
        let FeedEvent::Message { log, previous, delivery, .. } = event else { continue };
        if let Some(end) = ends.insert(log.to_string(), delivery.position) {
            assert_eq!(previous, end, "{log}");
        }
        *told.entry(log.to_string()).or_insert(0) += 1;
    }
    let expected = [("/*", MESSAGES), ("/a", MESSAGES / 3), ("/b", MESSAGES / 3)];
    assert_eq!(told, expected.map(|(log, count)| (log.to_owned(), count)).into());
    let numbers = |rest: u64| (0..MESSAGES).filter(|number| number % 3 == rest).collect::<Vec<_>>();
    assert_eq!(unread(&node, &alone, "2").await, numbers(0));
}

/// Nodes go on listening to the logs of polls that they held. Of a log with one subscriber only that node is told which holds
/// it now.
#[tokio::test]
async fn who_holds_the_only_subscriber_is_told_alone() {
    async fn told(node: &RedisNode, feed: &mut Feed) -> Vec<(String, Position, Position)> {
        let message = |event| match event {
            FeedEvent::Message { log, previous, delivery, .. } => Some((log.to_string(), previous, delivery.position)),
            _ => None,
        };
        crate::contract::drain(node, feed).await.into_iter().filter_map(message).collect()
    }
    let redis = Redis::start().await;
    let ((one, mut one_feed), (other, mut other_feed)) = (redis.node(|_| {}).await, redis.node(|_| {}).await);
    for name in ["/a", "/*"] {
        let here = session(&one, &[name]).await;
        one.listen(&[pattern(name)]).await.expect("listening");
        other.listen(&[pattern(name)]).await.expect("listening");

        let held_by_nobody = publish(&one, "/a", "1").await;
        assert_eq!((told(&one, &mut one_feed).await, told(&other, &mut other_feed).await), (vec![], vec![]));
        assert_eq!(unread(&one, &here, "1").await, [1], "the attach has it");
        let held_here = publish(&other, "/a", "2").await;
        let announced = |previous, position| vec![(name.to_owned(), previous, position)];
        assert_eq!(told(&one, &mut one_feed).await, announced(held_by_nobody, held_here));
        assert_eq!(told(&other, &mut other_feed).await, vec![]);
        crate::contract::attach_poll(&other, &here, "2").await;
        let held_there = publish(&one, "/a", "3").await;
        assert_eq!(told(&one, &mut one_feed).await, vec![]);
        assert_eq!(told(&other, &mut other_feed).await, announced(held_here, held_there));

        let second = session(&other, &[name]).await;
        let for_both = publish(&one, "/a", "4").await;
        assert_eq!(told(&one, &mut one_feed).await, announced(held_there, for_both));
        assert_eq!(told(&other, &mut other_feed).await, announced(held_there, for_both));
        for session in [&here, &second] {
            one.end(session, Ended::Disconnected).await.expect("ended");
        }
        crate::contract::drain(&one, &mut one_feed).await;
        crate::contract::drain(&other, &mut other_feed).await;
    }
}

/// One message of a batch cannot be stored: the others are, and each is answered for itself.
#[tokio::test]
async fn batch_partial_failure() {
    let redis = Redis::start().await;
    let (node, _feed) = redis.node(|_| {}).await;
    let session = session(&node, &["/good", "/bad"]).await;
    redis.ask::<()>(&["SET", "{weft:0}:log:/bad", "not a log"]).await;
    let store = |channel: &'static str, number: u64| {
        let channel = weft::bayeux::Channel::parse(channel).expect("valid");
        let array = format!("[{{\"channel\":\"{channel}\",\"data\":{number}}}]").into();
        node.publish(Publication::new(channel, array))
    };
    let outcomes = join_all([store("/good", 1), store("/bad", 2), store("/good", 3)]).await;
    let [Ok(Published::Stored(first)), Err(EngineError::Unavailable(error)), Ok(Published::Stored(third))] =
        &outcomes[..]
    else {
        panic!("{outcomes:?}")
    };
    assert!(first < third, "{outcomes:?}");
    assert!(error.contains("WRONGTYPE"), "{error}");
    redis.ask::<()>(&["DEL", "{weft:0}:log:/bad"]).await;
    node.unsubscribe(&session, &pattern("/bad")).await.expect("unsubscribed");
    assert_eq!(unread(&node, &session, "1").await, [1, 3]);
}

/// A retained log that cannot be read or written: its publish is refused, also when it is sent again, and those beside it
/// are stored.
#[tokio::test]
async fn a_broken_retained_log_is_a_failure_of_its_own() {
    let redis = Redis::start().await;
    let (node, _feed) = redis.node(|_| {}).await;
    let session = session(&node, &["/good"]).await;
    let retention = Some(weft::engine::Retention { age: Duration::from_secs(60), length: 10 });
    let publication = |name: &str, number: u64| {
        let channel = weft::bayeux::Channel::parse(name).expect("valid");
        let array = format!("[{{\"channel\":\"{name}\",\"data\":{number}}}]").into();
        let fingerprint = Some(weft::bayeux::Fingerprint::of([name.as_bytes(), &number.to_le_bytes()]));
        let retention = retention.filter(|_| name != "/good");
        Publication { retention, fingerprint, ..Publication::new(channel, array) }
    };
    let store = Store::redis(node.clone(), Duration::from_secs(5));
    // One without a head, whose log is looked at for it; and one with a head.
    assert!(node.publish(publication("/headed", 0)).await.is_ok());
    for log in ["/fresh", "/headed"] {
        redis.ask::<()>(&["DEL", &format!("{{weft:0}}:log:{log}")]).await;
        redis.ask::<()>(&["SET", &format!("{{weft:0}}:log:{log}"), "not a log"]).await;
    }
    for again in [false, true] {
        let names = [("/good", 1), ("/fresh", 2), ("/good", 3), ("/headed", 4), ("/good", 5)];
        let outcomes = store.publish_all(names.map(|(name, number)| publication(name, number)).into()).await;
        for (outcome, (name, _)) in outcomes.iter().zip(names) {
            match outcome {
                Ok(Published::Stored(_)) => assert!(name == "/good" && !again, "{outcomes:?}"),
                Ok(Published::Repeated) => assert!(name == "/good" && again, "{outcomes:?}"),
                Err(error) => assert!(name != "/good" && error.to_string().contains("WRONGTYPE"), "{outcomes:?}"),
            }
        }
    }
    assert_eq!(unread(&node, &session, "1").await, [1, 3, 5]);
}

/// Lua prints 14 digits of a number unless told otherwise; positions have 16.
#[tokio::test]
async fn positions_above_2_50_survive_lua() {
    const FAR: u64 = (1 << 53) - 100;
    let redis = Redis::start().await;
    let (node, _feed) = redis.node(|_| {}).await;
    redis.ask::<()>(&["SET", "{weft:0}:clock", &FAR.to_string()]).await;
    let session = session(&node, &["/a"]).await;
    let first = publish(&node, "/a", "1").await;
    assert_eq!(first, Position(FAR + 3), "after the session and its subscription");
    let second = publish(&node, "/a", "2").await;
    assert_eq!(second, Position(FAR + 4));
    let attached = crate::contract::attach_poll(&node, &session, "1").await;
    assert_eq!((&attached.clock, attached.heads[0].position), (&Cursor::single(second), second));
    let snapshot = crate::contract::snapshot(&node, &session, &attached).await;
    assert_eq!(crate::contract::positions(&snapshot.deliveries), [first, second]);
    assert_eq!(snapshot.upto, Cursor::single(second));
    assert_eq!(crate::contract::record(&node, &session, &attached, Some("1"), first).await, Record::Recorded);
    assert_eq!(crate::contract::attach_poll(&node, &session, "2").await.cursor, Cursor::single(first));
    assert_eq!(unread(&node, &session, "2").await, [2]);
}

/// Who gives up before its turn has published nothing.
#[tokio::test]
async fn an_abandoned_publish_is_not_stored_later() {
    let redis = Redis::start().await;
    let (node, _feed) = redis.node(|_| {}).await;
    let session = session(&node, &["/a"]).await;
    publish(&node, "/a", "0").await;
    // A batch under way keeps the next waiting, and not the connection that is still to be made.
    redis.signal("STOP");
    let under_way = publish(&node, "/a", "1");
    tokio::pin!(under_way);
    assert!(futures_util::poll!(&mut under_way).is_pending());
    tokio::task::yield_now().await;
    {
        let waiting = publish(&node, "/a", "2");
        tokio::pin!(waiting);
        assert!(futures_util::poll!(&mut waiting).is_pending());
    }
    redis.signal("CONT");
    under_way.await;
    publish(&node, "/a", "3").await;
    assert_eq!(unread(&node, &session, "1").await, [0, 1, 3]);
}

/// More than one script reads at once: in pieces, in order, to the end.
#[tokio::test]
async fn long_logs_are_read_in_pieces() {
    let redis = Redis::start().await;
    let (node, _feed) = redis.node(|_| {}).await;
    let session = session(&node, &["/a", "/a/*", "/b"]).await;
    for number in 0..1000_u64 {
        let size = if number % 7 == 0 { 20_000 } else { 10 };
        let data = format!("[{number},\"{}\"]", "x".repeat(size));
        publish(&node, if number % 3 == 0 { "/a" } else { "/b" }, &data).await;
    }
    let mut attached = crate::contract::attach_poll(&node, &session, "1").await;
    let (mut read, mut pieces) = (Vec::new(), 0);
    loop {
        let snapshot = crate::contract::snapshot(&node, &session, &attached).await;
        let bytes: usize = snapshot.deliveries.iter().map(|delivery| delivery.array.len()).sum();
        assert!(bytes <= 512 * 1024, "{bytes} bytes in one piece");
        for delivery in &snapshot.deliveries {
            let message = weft::Message::from_delivery(delivery.json()).expect("our own JSON");
            let (number, _): (u64, String) = serde_json::from_str(message.data.expect("data").get()).expect("a pair");
            read.push(number);
        }
        pieces += 1;
        attached.cursor.raise_all(&snapshot.upto);
        if !snapshot.truncated {
            break;
        }
    }
    assert_eq!(read, (0..1000).collect::<Vec<_>>());
    assert!(pieces > 4, "{pieces} pieces");
}
