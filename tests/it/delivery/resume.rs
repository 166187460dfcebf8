//! Resume: clients that remember their position, on every transport and under new sessions.

use std::time::Duration;

use super::*;
use crate::support::bayeux::publish;
use crate::support::events::EventStream;
use crate::support::node::{TestNode, node, node_with_extension};
use crate::support::redis::Redis;

/// An extension that refuses subscriptions to this channel.
struct Refuses(&'static str);

impl weft::Extension for Refuses {
    fn incoming<'a>(
        &'a self,
        message: &'a mut weft::Message,
        _request: &'a weft::RequestInfo,
    ) -> futures_util::future::BoxFuture<'a, weft::Verdict> {
        let wanted = message.subscription.as_ref().map(|wanted| wanted.get().to_owned());
        if message.channel == "/meta/subscribe" && wanted == Some(format!("\"{}\"", self.0)) {
            message.refuse("403::Not for you");
        }
        Box::pin(std::future::ready(weft::Verdict::Pass))
    }
}

fn at(position: &Value) -> Value {
    json!({"position": position})
}

/// The next so many messages of a stream.
async fn messages(stream: &mut EventStream, count: usize) -> Vec<Value> {
    let mut messages = Vec::new();
    while messages.len() < count {
        messages.extend(soon("an event", stream.next()).await.expect("the stream is open").messages);
    }
    messages
}

async fn resuming(node: &TestNode) -> Session {
    let session = Session::connected(node.addr(), json!({"resume": true})).await;
    assert_eq!(session.granted["resume"], true, "{}", session.granted);
    assert!(session.granted["position"]["0"].is_u64(), "{}", session.granted);
    session
}

/// A session that was sent four messages, of which the log keeps the last two.
async fn behind_a_gap() -> (TestNode, Session) {
    let node = node(|config| config.limits.log_entries = 2).await;
    let mut session = resuming(&node).await;
    session.subscribed("/a").await;
    let mut publisher = Poster::new(node.addr());
    for number in 1..=4 {
        publish(&mut publisher, "/a", json!(number)).await;
    }
    (node, session)
}

#[tokio::test]
async fn messages_carry_their_position_for_those_who_asked() {
    let node = node(|_| ()).await;
    let (mut plain, mut session) = (Session::connected(node.addr(), Value::Null).await, resuming(&node).await);
    assert_eq!(plain.granted, Value::Null);
    plain.subscribed("/a").await;
    session.subscribed("/a").await;
    let message = json!({"channel": "/a", "data": 1, "ext": {"mine": 1, "position": {"0": 99}}});
    Poster::new(node.addr()).post(&message).await;

    let mut socket = Socket::open(node.addr()).await;
    socket.send(&session.connect_message(at(&session.granted["position"].clone()), true)).await;
    let by_socket = soon("a frame", socket.next()).await.expect("the socket is open").remove(0);
    drop(socket);
    let by_poll = session.poll(at(&session.granted["position"].clone())).await.messages.remove(0);
    let mut stream = EventStream::open(node.addr(), &session.id, None).await;
    publish(&mut Poster::new(node.addr()), "/a", json!(2)).await;
    // Nobody has said yet that the first arrived: it comes again, and the client knows it.
    let [again, by_stream] = &messages(&mut stream, 2).await[..] else { panic!("two messages") };
    assert_eq!(again, &by_poll);

    assert_eq!(by_socket, by_poll);
    assert_eq!(by_poll["ext"]["mine"], 1);
    let number = |message: &Value| message["ext"]["position"]["0"].as_u64().expect("a number");
    assert!(number(&by_poll) > 99 && number(by_stream) > number(&by_poll), "{by_poll} {by_stream}");
    assert_eq!(plain.poll(Value::Null).await.messages[0]["ext"], message["ext"], "others get what was published");
}

#[tokio::test]
async fn it_goes_on_where_the_client_is() {
    let node = node(|_| ()).await;
    let mut session = resuming(&node).await;
    session.subscribed("/a").await;
    let mut publisher = Poster::new(node.addr());
    for number in 1..=4 {
        publish(&mut publisher, "/a", json!(number)).await;
    }
    let all = session.poll(json!({})).await.messages;
    assert_eq!(data(&all), [1, 2, 3, 4]);
    let second = at(&all[1]["ext"]["position"]);
    assert_eq!(session.poll(second.clone()).await.data(), [3, 4]);
    let mut socket = Socket::open(node.addr()).await;
    socket.send(&session.connect_message(second, true)).await;
    assert_eq!(data(&soon("a frame", socket.next()).await.expect("the socket is open")), [3]);
}

#[tokio::test]
async fn a_new_session_goes_on_with_the_old_ones_subscriptions() {
    let node = node_with_extension(Refuses("/refused"), |_| ()).await;
    let mut other = Session::new(node.addr(), Value::Null).await;
    other.subscribed("/kept/*").await;
    let mut session = resuming(&node).await;
    let started = session.subscribe("/kept/*", json!({"resume": true})).await;
    let since = &started["ext"]["since"]["/kept/*"];
    assert!(since["0"].is_u64(), "{started}");
    let mut publisher = Poster::new(node.addr());
    publish(&mut publisher, "/kept/x", json!(1)).await;
    let position = session.poll(json!({})).await.messages[0]["ext"]["position"].clone();
    publish(&mut publisher, "/kept/x", json!(2)).await;

    // The client does not know how its session ended.
    let ext = json!({"resume": true, "position": position,
        "subscriptions": {"/kept/*": since, "/refused": true, "/bad//name": true, "/service/x": true}});
    let mut next = Session::new(node.addr(), ext).await;
    assert_eq!(next.granted, json!({"resume": true, "position": position, "subscriptions": ["/kept/*"]}));
    publish(&mut publisher, "/kept/y", json!(3)).await;
    next.subscribed("/kept/*").await;
    let poll = next.poll(at(&position)).await;
    assert_eq!((poll.data(), &poll.reply["ext"]), (vec![json!(2), json!(3)], &Value::Null));
}

#[tokio::test]
async fn a_gap_is_told_by_poll_and_by_socket() {
    let (node, mut session) = behind_a_gap().await;
    let start = session.granted["position"].clone();
    let told = session.poll(at(&start)).await;
    assert_eq!((told.data(), &told.reply["ext"]["gap"]), (vec![json!(3), json!(4)], &json!(true)));
    let below = told.reply["ext"]["position"]["0"].as_u64().expect("a position");
    assert!(below < told.messages[0]["ext"]["position"]["0"].as_u64().expect("a number"));

    let mut socket = Socket::open(node.addr()).await;
    socket.send(&session.connect_message(at(&start), true)).await;
    let (before, reply) = until_reply(&mut socket).await;
    assert_eq!((data(&before), &reply["ext"]["gap"]), (vec![], &json!(true)));
    let frames = [soon("a frame", socket.next()).await, soon("a frame", socket.next()).await];
    assert_eq!(data(&frames.into_iter().flatten().flatten().collect::<Vec<_>>()), [3, 4]);
    // Once: the session goes on.
    let last = session.poll(at(&told.messages[1]["ext"]["position"])).await;
    assert_eq!((last.data(), &last.reply["ext"]), (vec![], &Value::Null));
}

/// Nothing comes before it is told: else a client whose socket breaks in between would never know.
#[tokio::test]
async fn a_gap_on_a_socket_is_told_before_anything_else() {
    let (node, mut session) = behind_a_gap().await;
    let start = session.granted["position"].clone();
    // The logs are read before the first connect is answered, held or not: a client takes silence for a yes.
    let mut socket = Socket::open(node.addr()).await;
    socket.send(&session.connect_message(at(&start), false)).await;
    let (before, told) = until_reply(&mut socket).await;
    assert_eq!((before, &told["ext"]["gap"]), (vec![], &json!(true)));
    let frames = [soon("a frame", socket.next()).await, soon("a frame", socket.next()).await];
    assert_eq!(data(&frames.into_iter().flatten().flatten().collect::<Vec<_>>()), [3, 4]);
}

/// The socket is bound already, and does not read while its log is overrun.
#[tokio::test]
async fn a_gap_that_arises_on_a_socket_is_told_before_anything_else() {
    const COUNT: u64 = 600;
    let node = node(|config| {
        config.limits.log_entries = 50;
        config.limits.outbox_messages = 10;
    })
    .await;
    let mut session = resuming(&node).await;
    session.subscribed("/a").await;
    let start = session.granted["position"].clone();
    let mut socket = Socket::open_narrow(node.addr()).await;
    socket.send(&session.connect_message(at(&start), false)).await;
    let (before, bound) = until_reply(&mut socket).await;
    assert_eq!((before, &bound["ext"]["gap"]), (vec![], &Value::Null));
    let mut publisher = Poster::new(node.addr());
    // More than the kernel has room for.
    let text = "x".repeat(20_000);
    for number in 0..COUNT {
        publish(&mut publisher, "/a", json!([number, text])).await;
    }
    let number = |message: &Value| message["data"][0].as_u64().expect("a number");
    // What was sent is read; what is behind the gap does not pass it as long as nobody asks.
    let mut before = Vec::new();
    while let Ok(frame) = tokio::time::timeout(Duration::from_millis(300), socket.next()).await {
        before.extend(frame.expect("the socket is open"));
    }
    // A connect that is not held tells it, once the node knows, and nothing comes in between.
    soon("the gap", async {
        loop {
            socket.send(&session.connect_message(at(&start), false)).await;
            let (messages, reply) = until_reply(&mut socket).await;
            before.extend(messages);
            if reply["ext"]["gap"] == true {
                return;
            }
        }
    })
    .await;
    let before: Vec<_> = before.iter().map(number).collect();
    assert_eq!(before, (0..before.len() as u64).collect::<Vec<_>>());
    let mut after = Vec::new();
    while after.last() != Some(&(COUNT - 1)) {
        after.extend(soon("a frame", socket.next()).await.expect("the socket is open").iter().map(number));
    }
    assert!(after[0] > before.len() as u64, "{} and then {}", before.len(), after[0]);
    assert_eq!(after, (after[0]..COUNT).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_stream_is_told_of_a_gap() {
    let (node, session) = behind_a_gap().await;
    let mut stream = EventStream::open(node.addr(), &session.id, None).await;
    let messages = messages(&mut stream, 3).await;
    assert_eq!((&messages[0]["channel"], &messages[0]["ext"]["gap"]), (&json!("/meta/connect"), &json!(true)));
    assert_eq!(data(&messages[1..]), [3, 4]);
}

/// Nobody has said yet that the poll's reply arrived: the client knows the gap by what is lost.
#[tokio::test]
async fn a_gap_that_is_told_twice_says_the_same() {
    let (node, mut session) = behind_a_gap().await;
    let start = session.granted["position"].clone();
    let by_poll = session.poll(at(&start)).await.reply["ext"].clone();
    let mut stream = EventStream::open(node.addr(), &session.id, None).await;
    let by_stream = messages(&mut stream, 1).await.remove(0)["ext"].clone();
    assert_eq!((&by_poll["gap"], &by_poll), (&json!(true), &by_stream));
    let (lost, upto) = (by_poll["lost"]["0"].as_u64(), by_poll["position"]["0"].as_u64());
    assert!(lost.is_some() && lost <= upto, "{by_poll}");
}

#[tokio::test]
async fn malformed_positions_are_refused_where_they_were_asked_for() {
    let node = node(|_| ()).await;
    let mut poster = Poster::new(node.addr());
    for position in [json!(5), json!({"x": 1}), json!({"0": -1}), json!({"0": "1"}), json!([1])] {
        let handshake = json!({"channel": "/meta/handshake", "version": "1.0", "id": "h",
            "supportedConnectionTypes": ["long-polling"], "ext": {"resume": true, "position": position}});
        let reply = poster.post(&handshake).await.remove(0);
        let error = reply["error"].as_str().expect("an error");
        assert!(error.starts_with("400:ext.position:Malformed: expected"), "{error}");
    }
    // Without `resume` the field is the client's own.
    let handshake = json!({"channel": "/meta/handshake", "version": "1.0", "id": "h",
        "supportedConnectionTypes": ["long-polling"], "ext": {"position": {"lat": 1, "lng": 2}}});
    let reply = poster.post(&handshake).await.remove(0);
    assert_eq!((&reply["successful"], &reply["ext"]), (&json!(true), &Value::Null), "{reply}");
    let connect = json!({"channel": "/meta/connect", "clientId": reply["clientId"], "connectionType": "long-polling",
        "id": "1", "ext": {"position": {"lat": 1, "65535": 1}}});
    assert_eq!(poster.post(&connect).await[0]["successful"], true);
    let many: Vec<_> = (0..1001).map(|number| format!("/c/{number}")).collect();
    let handshake = json!({"channel": "/meta/handshake", "version": "1.0", "id": "h",
        "supportedConnectionTypes": ["long-polling"],
        "ext": {"resume": true, "position": {"0": 1}, "subscriptions": many}});
    let reply = poster.post(&handshake).await.remove(0);
    assert_eq!(reply["error"], "403::Too many subscriptions: the limit is 1000");
}

/// What a stream brings must not pass what a poll's lost reply carried.
#[tokio::test]
async fn a_stream_beside_a_lost_reply_leaves_nothing_out() {
    let node = node(|_| ()).await;
    let mut session = resuming(&node).await;
    session.subscribed("/a").await;
    let mut publisher = Poster::new(node.addr());
    publish(&mut publisher, "/a", json!(1)).await;
    let start = session.granted["position"].clone();
    assert_eq!(session.poll(at(&start)).await.data(), [1], "and this reply is lost");
    let mut stream = EventStream::open(node.addr(), &session.id, None).await;
    publish(&mut publisher, "/a", json!(2)).await;
    assert_eq!(data(&messages(&mut stream, 2).await), [1, 2]);
}

/// A heartbeat says where the client is, and nothing else moves it.
#[tokio::test]
async fn a_streams_heartbeats_say_where_the_client_is() {
    let node = node(|config| config.timeout = Duration::from_millis(400)).await;
    let mut session = resuming(&node).await;
    session.subscribed("/a").await;
    let start = session.granted["position"].clone();
    let mut stream = EventStream::open(node.addr(), &session.id, None).await;
    publish(&mut Poster::new(node.addr()), "/a", json!(1)).await;
    assert_eq!(data(&messages(&mut stream, 1).await), [1]);
    for _ in 0..4 {
        tokio::time::sleep(Duration::from_millis(250)).await;
        let mut heartbeat = session.connect_message(at(&start), false);
        heartbeat["connectionType"] = json!("eventsource");
        assert_eq!(session.poster.post(&heartbeat).await[0]["successful"], true);
    }
    drop(stream);
    let mut stream = EventStream::open(node.addr(), &session.id, None).await;
    assert_eq!(data(&messages(&mut stream, 1).await), [1], "it never said that it had it");
}

/// An extension drops what this client shall not see: it must not ask for it for ever.
#[tokio::test]
async fn dropped_messages_are_passed() {
    struct Deaf;
    impl weft::Extension for Deaf {
        fn outgoing<'a>(
            &'a self,
            message: &'a mut weft::Message,
            _request: &'a weft::RequestInfo,
        ) -> futures_util::future::BoxFuture<'a, weft::Verdict> {
            let drops = message.channel == "/a" && message.data.is_some();
            Box::pin(std::future::ready(if drops { weft::Verdict::Drop } else { weft::Verdict::Pass }))
        }

        fn wants_outgoing(&self) -> bool {
            true
        }
    }
    let node = node_with_extension(Deaf, |config| config.timeout = Duration::from_secs(1)).await;
    let mut session = resuming(&node).await;
    session.subscribed("/a").await;
    publish(&mut Poster::new(node.addr()), "/a", json!(1)).await;
    let poll = session.poll(at(&session.granted["position"].clone())).await;
    assert_eq!(poll.data(), Vec::<Value>::new());
    let passed = &poll.reply["ext"]["position"];
    assert!(passed["0"].as_u64() > session.granted["position"]["0"].as_u64(), "{}", poll.reply);
    let message = session.connect_message(at(passed), true);
    let start = tokio::time::Instant::now();
    Poll::from_replies(soon("the poll is answered", session.poster.post(&message)).await).accepted();
    assert!(start.elapsed() > Duration::from_millis(900), "held: there is nothing to ask for");
}

/// Not even by a pattern that covers it, and not by another name.
#[tokio::test]
async fn nobody_goes_on_with_what_is_hidden() {
    struct Prefixes;
    impl weft::Extension for Prefixes {
        fn incoming<'a>(
            &'a self,
            message: &'a mut weft::Message,
            _request: &'a weft::RequestInfo,
        ) -> futures_util::future::BoxFuture<'a, weft::Verdict> {
            let wanted = message.subscription.as_ref().map(|wanted| wanted.get().to_owned());
            if message.channel == "/meta/subscribe" && wanted.as_deref() == Some("\"/t/news\"") {
                message.subscription = serde_json::value::to_raw_value("/tenant1/news").ok();
            }
            Box::pin(std::future::ready(weft::Verdict::Pass))
        }
    }
    let node = node_with_extension(Prefixes, |config| {
        config.retention = vec![weft::node::RetentionConfig {
            channels: "/secret/**".to_owned(),
            age: Duration::from_secs(60),
            length: 10,
            replay: false,
        }];
    })
    .await;
    let wanted = json!({"/secret/x": true, "/secret/*": true, "/**": true, "/*": true, "/t/news": true});
    let ext = json!({"resume": true, "position": {"0": 1}, "subscriptions": wanted});
    let session = Session::new(node.addr(), ext).await;
    let mut granted: Vec<_> = session.granted["subscriptions"].as_array().expect("a list").clone();
    granted.sort_by_key(Value::to_string);
    assert_eq!(granted, [json!("/*"), json!("/tenant1/news")]);
}

/// A Redis without its data: the new session says so, and goes on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gap_is_told_after_redis_came_back_empty() {
    let mut redis = Redis::start().await;
    let node = node(|config| {
        config.redis.url = redis.url();
        config.timeout = Duration::from_secs(5);
    })
    .await;
    let mut session = resuming(&node).await;
    session.subscribed("/a").await;
    publish(&mut Poster::new(node.addr()), "/a", json!(1)).await;
    let position = session.poll(json!({})).await.messages[0]["ext"]["position"].clone();
    redis.restart().await;
    crate::support::eventually(Duration::from_secs(20), "the node is ready again", || async {
        let reply = Poster::new(node.addr()).post(&json!({"channel": "/x", "data": 1})).await.remove(0);
        (reply["successful"] == true).then_some(())
    })
    .await;
    let ext = json!({"resume": true, "position": position, "subscriptions": ["/a"]});
    let mut next = Session::new(node.addr(), ext).await;
    publish(&mut Poster::new(node.addr()), "/a", json!(2)).await;
    let poll = next.poll(at(&position)).await;
    assert_eq!((poll.data(), &poll.reply["ext"]["gap"]), (vec![json!(2)], &json!(true)), "{}", poll.reply);
}
