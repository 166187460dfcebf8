//! Replay: what was published before a subscriber came.

use std::time::Duration;

use super::*;
use crate::support::bayeux::publish;
use crate::support::events::EventStream;
use crate::support::http::sample;
use crate::support::node::{Process, TestNode, node};
use crate::support::redis::Redis;
use crate::support::within;

async fn keeping() -> TestNode {
    keeping_and(|_| ()).await
}

async fn keeping_and(adjust: impl FnOnce(&mut weft::Config)) -> TestNode {
    node(|config| {
        let rule = |channels: &str, replay| weft::node::RetentionConfig {
            channels: channels.to_owned(),
            age: Duration::from_secs(3600),
            length: 3,
            replay,
        };
        config.retention = vec![rule("/kept/secret", false), rule("/kept/**", true)];
        adjust(config);
    })
    .await
}

fn replay(channel: &str, from: impl Into<Value>) -> Value {
    json!({"replay": {channel: from.into()}})
}

#[tokio::test]
async fn late_subscribers_get_what_is_kept() {
    let node = keeping().await;
    let mut publisher = Poster::new(node.addr());
    for number in 1..=5 {
        publish(&mut publisher, "/kept/a", json!(number)).await;
    }
    for (from, expected) in [(json!(-2), vec![3, 4, 5]), (json!(-1), vec![]), (json!(null), vec![])] {
        let mut session = Session::connected(node.addr(), Value::Null).await;
        let reply = session.subscribe("/kept/a", replay("/kept/a", from.clone())).await;
        assert_eq!(reply["successful"], true, "{reply}");
        let poll = session.poll(Value::Null).await;
        assert_eq!(poll.data(), expected, "{from}");
        assert!(poll.messages.iter().all(|message| message["ext"].is_null()), "nobody asked for positions");
    }
}

#[tokio::test]
async fn a_position_is_where_it_starts() {
    let node = keeping().await;
    let mut early = Session::connected(node.addr(), json!({"replay": true})).await;
    assert_eq!(early.granted, json!({"replay": true}));
    early.subscribed("/kept/a").await;
    let mut publisher = Poster::new(node.addr());
    for number in 1..=3 {
        publish(&mut publisher, "/kept/a", json!(number)).await;
    }
    let live = early.poll(Value::Null).await.messages;
    let first = live[0]["ext"]["position"]["0"].clone();

    let mut session = Session::connected(node.addr(), json!({"replay": true})).await;
    let reply = session.subscribe("/kept/a", replay("/kept/a", first.clone())).await;
    assert_eq!(reply["ext"], json!({"replay": {"/kept/a": first}}));
    let replayed = session.poll(Value::Null).await.messages;
    assert_eq!(data(&replayed), [2, 3]);
    assert_eq!(replayed[0]["ext"], json!({"position": live[1]["ext"]["position"], "replay": true}));
    publish(&mut publisher, "/kept/a", json!(4)).await;
    let next = session.poll(Value::Null).await.messages;
    assert_eq!((data(&next), &next[0]["ext"]["replay"]), (vec![json!(4)], &Value::Null));

    // Three are kept: what lies before them is missing.
    let reply = session.subscribe("/kept/b", replay("/kept/b", first.clone())).await;
    assert_eq!(reply["ext"]["gap"], true, "{reply}");
    publish(&mut publisher, "/kept/a", json!(5)).await;
    let mut late = Session::connected(node.addr(), Value::Null).await;
    let reply = late.subscribe("/kept/a", replay("/kept/a", first)).await;
    assert_eq!(reply["ext"]["gap"], true, "{reply}");
    assert_eq!(late.poll(Value::Null).await.data(), [3, 4, 5]);
}

#[tokio::test]
async fn a_replay_may_be_refused() {
    let node = keeping().await;
    let mut session = Session::connected(node.addr(), Value::Null).await;
    for (channel, from, error) in [
        ("/other", json!(-2), "403:/other:Replay not allowed"),
        ("/other", json!(5), "403:/other:Replay not allowed"),
        ("/kept/secret", json!(-2), "403:/kept/secret:Replay not allowed"),
        ("/kept/*", json!(-2), "403:/kept/*:Replay needs a channel, not a pattern"),
        ("/kept/a", json!("all"), "400:ext.replay:Malformed: expected -1, -2 or a position for each channel"),
        ("/kept/a", json!(-3), "400:ext.replay:Malformed: expected -1, -2 or a position for each channel"),
    ] {
        let reply = session.subscribe(channel, replay(channel, from)).await;
        assert_eq!((&reply["successful"], &reply["error"]), (&json!(false), &json!(error)), "{channel}");
    }
    // Of a list, those before it stay, and the reply says where they start.
    let list = json!({"channel": "/meta/subscribe", "clientId": session.id, "subscription": ["/kept/a", "/other"], "id": "l",
        "ext": {"resume": true, "replay": {"/kept/a": -2, "/other": -2}}});
    let reply = session.poster.post(&list).await.remove(0);
    assert_eq!(reply["error"], "403:/other:Replay not allowed");
    assert!(reply["ext"]["since"]["/kept/a"]["0"].is_u64() && reply["ext"]["replay"]["/kept/a"].is_u64(), "{reply}");
    let reply = session.subscribe("/other", replay("/other", -1)).await;
    assert_eq!(reply["successful"], true, "new messages may be had by everybody: {reply}");
    // Who does not exist is told that first.
    session.id = "nobody".to_owned();
    let reply = session.subscribe("/other", replay("/other", -2)).await;
    assert_eq!(reply["error"], "401:nobody:Unknown client");
}

/// An event's id must not pass what waits behind the replay.
#[tokio::test]
async fn live_messages_behind_a_replay_survive_a_streams_end() {
    let node = keeping().await;
    let mut session = Session::connected(node.addr(), Value::Null).await;
    session.subscribed("/live").await;
    let mut publisher = Poster::new(node.addr());
    publish(&mut publisher, "/live", json!(1)).await;
    publish(&mut publisher, "/kept/a", json!(2)).await;
    session.subscribe("/kept/a", replay("/kept/a", -2)).await;
    let mut stream = EventStream::open(node.addr(), &session.id, None).await;
    let replayed = soon("an event", stream.next()).await.expect("the stream is open");
    assert_eq!(data(&replayed.messages), [2]);
    drop(stream);
    let mut stream = EventStream::open(node.addr(), &session.id, replayed.id.as_deref()).await;
    let mut found = Vec::new();
    while !found.contains(&json!(1)) {
        found.extend(data(&soon("an event", stream.next()).await.expect("the stream is open").messages));
    }
}

/// As Faye's client begins: it polls, and then turns to its stream.
#[tokio::test]
async fn a_stream_goes_on_behind_what_a_poll_replayed() {
    let node = keeping().await;
    let mut publisher = Poster::new(node.addr());
    for number in 1..=3 {
        publish(&mut publisher, "/kept/a", json!(number)).await;
    }
    let mut session = Session::connected(node.addr(), Value::Null).await;
    session.subscribe("/kept/a", replay("/kept/a", -2)).await;
    assert_eq!(session.poll(Value::Null).await.data(), [1, 2, 3]);
    let mut stream = EventStream::open(node.addr(), &session.id, None).await;
    publish(&mut publisher, "/kept/a", json!(4)).await;
    assert_eq!(data(&soon("an event", stream.next()).await.expect("the stream is open").messages), [4]);
}

/// The answer to a subscribe was lost: the same again.
#[tokio::test]
async fn a_repeated_subscribe_is_answered_alike() {
    let node = keeping().await;
    let mut publisher = Poster::new(node.addr());
    for number in 1..=5 {
        publish(&mut publisher, "/kept/a", json!(number)).await;
    }
    let mut session = Session::connected(node.addr(), Value::Null).await;
    let first = session.subscribe("/kept/a", replay("/kept/a", 1)).await;
    assert_eq!(first["ext"]["gap"], true, "{first}");
    assert_eq!(session.subscribe("/kept/a", replay("/kept/a", 1)).await["ext"], first["ext"]);
    assert_eq!(session.poll(Value::Null).await.data(), [3, 4, 5], "once");
}

/// The rest of it comes to the session that goes on.
#[tokio::test]
async fn a_replay_goes_on_under_a_new_session() {
    let node = keeping().await;
    let mut publisher = Poster::new(node.addr());
    for number in 1..=3 {
        publish(&mut publisher, "/kept/a", json!(number)).await;
    }
    let mut session = Session::connected(node.addr(), json!({"resume": true})).await;
    let ext = json!({"resume": true, "replay": {"/kept/a": -2}});
    let since = session.subscribe("/kept/a", ext).await["ext"]["since"]["/kept/a"]["0"].clone();
    let position = session.granted["position"].clone();
    let replayed = session.poll(json!({"position": position})).await.messages;
    assert_eq!(data(&replayed), [1, 2, 3]);
    // It had processed the first one when its session ended.
    let progress = replayed[0]["ext"]["position"]["0"].clone();
    let wanted = json!({"/kept/a": {"0": since, "replay": progress}, "/other": {"0": since, "replay": progress}});
    let ext = json!({"resume": true, "position": position, "subscriptions": wanted});
    let mut next = Session::new(node.addr(), ext).await;
    assert_eq!(next.granted["subscriptions"], json!(["/kept/a"]), "what may not be replayed does not go on");
    publish(&mut publisher, "/kept/a", json!(4)).await;
    let mut messages = next.poll(json!({"position": position})).await.messages;
    messages.extend(next.poll(json!({"position": position})).await.messages);
    assert_eq!(data(&messages), [2, 3, 4]);
    assert_eq!((&messages[0]["ext"]["replay"], &messages[2]["ext"]["replay"]), (&json!(true), &Value::Null));
}

/// More is published while a replay is under way than the log keeps.
#[tokio::test]
async fn who_is_overtaken_is_told() {
    let node = keeping_and(|config| config.limits.log_entries = 2).await;
    let mut publisher = Poster::new(node.addr());
    for number in 1..=3 {
        publish(&mut publisher, "/kept/a", json!(number)).await;
    }
    let mut told = Session::connected(node.addr(), json!({"resume": true})).await;
    let mut late = Session::connected(node.addr(), json!({"resume": true})).await;
    let mut plain = Session::connected(node.addr(), Value::Null).await;
    for session in [&mut told, &mut late, &mut plain] {
        session.subscribe("/kept/a", replay("/kept/a", -2)).await;
    }
    for number in 4..=6 {
        publish(&mut publisher, "/kept/a", json!(number)).await;
    }
    let position = json!({"position": told.granted["position"]});
    let first = told.poll(position.clone()).await;
    assert_eq!((first.data(), &first.reply["ext"]["gap"]), (vec![json!(2), json!(3)], &json!(true)));
    assert_eq!(first.reply["ext"]["position"], json!({}), "the gap lies below the session's");
    let next = told.poll(position).await;
    assert_eq!((next.data(), &next.reply["ext"]), (vec![json!(4), json!(5), json!(6)], &Value::Null));

    // For this one nothing of the replay is left.
    publish(&mut publisher, "/kept/a", json!(7)).await;
    publish(&mut publisher, "/kept/a", json!(8)).await;
    let position = json!({"position": late.granted["position"]});
    let message = late.connect_message(position.clone(), false);
    for copy in ["lost", "repeated"] {
        let poll = Poll::from_replies(soon("an answer", late.poster.post(&message)).await);
        assert_eq!(
            (poll.data(), &poll.reply["ext"]["gap"]),
            ((4..=8).map(Value::from).collect(), &json!(true)),
            "{copy}"
        );
    }
    let at = json!({"position": late.poll(position).await.messages[4]["ext"]["position"]});
    let last = late.poll(at).await;
    assert_eq!((last.data(), &last.reply["ext"]), (vec![], &Value::Null));

    let connect = plain.connect_message(Value::Null, false);
    let reply = plain.poster.post(&connect).await.remove(0);
    assert_eq!((&reply["successful"], &reply["advice"]["reconnect"]), (&json!(false), &json!("handshake")), "{reply}");
}

#[tokio::test]
async fn retained_channels_are_bounded() {
    let node = node(|config| {
        config.retention = vec![weft::node::RetentionConfig {
            channels: "/kept/**".to_owned(),
            age: Duration::from_secs(60),
            length: 1,
            replay: true,
        }];
        config.limits.retained_channels = 1;
    })
    .await;
    let mut publisher = Poster::new(node.addr());
    publish(&mut publisher, "/kept/a", json!(1)).await;
    let reply = publisher.post(&json!({"channel": "/kept/b", "data": 1})).await.remove(0);
    assert_eq!(reply["error"], "503::Too many retained channels: the limit is 1");
    let reached = "weft_limit_reached_total{limit=\"retained_channels\"}";
    assert_eq!(sample(node.internal_addr(), reached).await, 1.0);
}

/// While the channel is published to: in order, each once, and the node does not hold it all.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_messages_are_replayed() {
    const KEPT: u64 = 10_000;
    const LIVE: u64 = 500;
    const PAYLOAD: usize = 4000;
    let redis = Redis::start().await;
    let directory = tempfile::tempdir().expect("a temporary directory");
    let file = directory.path().join("weft.toml");
    let rule = "[[retention]]\nchannels = \"/kept/**\"\nage = \"1h\"\nlength = 10000\n";
    std::fs::write(&file, rule).expect("written");
    let arguments = ["--redis-url", &redis.url(), "--log-level", "warn", "--config", file.to_str().expect("a path")];
    let (publishing, serving) = tokio::join!(Process::start(&arguments), Process::start(&arguments));
    let padding = "x".repeat(PAYLOAD);
    let message = |number: u64| json!({"channel": "/kept/a", "data": {"n": number, "padding": padding}});
    let mut publisher = Poster::new(publishing.addr());
    for batch in (0..KEPT).collect::<Vec<_>>().chunks(200) {
        let messages = batch.iter().map(|number| message(*number)).collect();
        let replies = within(Duration::from_secs(60), "stored", publisher.post(&messages)).await;
        assert!(replies.iter().all(|reply| reply["successful"] == true), "{replies:?}");
    }

    // A session like the one to come, so that what is allocated once is there already.
    let mut warm = Session::connected(serving.addr(), Value::Null).await;
    warm.subscribed("/kept/b").await;
    let resident = sample(serving.internal_addr(), "process_resident_memory_bytes").await;
    let mut session = Session::connected(serving.addr(), Value::Null).await;
    let mut socket = Socket::open(serving.addr()).await;
    socket.send(&session.connect_message(Value::Null, true)).await;
    let reply = session.subscribe("/kept/a", replay("/kept/a", -2)).await;
    assert_eq!(reply["successful"], true, "{reply}");
    let live = tokio::spawn({
        let messages: Vec<_> = (KEPT..KEPT + LIVE).map(message).collect();
        async move {
            for message in messages {
                let replies = publisher.post(&message).await;
                assert_eq!(replies[0]["successful"], true, "{replies:?}");
            }
        }
    });
    let mut expected = 0;
    let mut peak = resident;
    while expected < KEPT + LIVE {
        let frame = within(Duration::from_secs(30), "a frame", socket.next()).await.expect("the socket is open");
        for message in frame.iter().filter(|message| message["channel"] == "/kept/a") {
            assert_eq!(message["data"]["n"], expected);
            expected += 1;
        }
        if expected % 1000 == 0 {
            peak = peak.max(sample(serving.internal_addr(), "process_resident_memory_bytes").await);
        }
    }
    live.await.expect("published");
    let grown = (peak - resident) / f64::from(1 << 20);
    assert!(grown < 16.0, "of {} MiB the node held {grown:.1} MiB", (KEPT as usize * PAYLOAD) >> 20);
}
