//! What may wait: outboxes, replies, logs, and all of it together.

use std::time::Duration;

use serde_json::{Value, json};
use weft::engine::memory::{MemoryEngine, MemoryLimits};
use weft::engine::{Engine, EngineError, NodeId, Publication, Store};

use super::Bounded;
use crate::contract;
use crate::support::bayeux::{Client, MOUNT, Poster};
use crate::support::websocket::RawSocket;
use crate::support::{soon, within};

/// A socket that holds a session and has a connect waiting.
async fn bound_socket(bounded: &Bounded, client: &Client) -> RawSocket {
    let mut socket = RawSocket::open(bounded.addr(), MOUNT).await;
    socket.send_text(&client.connect_message("first", "websocket").to_string()).await;
    let first = soon("the first connect", socket.next()).await.expect("the socket is open");
    assert_eq!(first.messages()[0]["successful"], true);
    socket.send_text(&client.connect_message("held", "websocket").to_string()).await;
    socket
}

/// Publishes the numbers below `count`, with this many bytes beside each.
async fn publish_numbers(bounded: &Bounded, count: u64, padding: usize) {
    let client = bounded.node.embedded().client().await.expect("a client");
    let padding = "x".repeat(padding);
    for number in 0..count {
        client.publish("/numbers", &json!([number, padding])).await.expect("published");
    }
}

/// The numbers in delivered messages.
fn numbers(messages: &[Value]) -> Vec<u64> {
    let delivered = messages.iter().filter(|message| message["channel"] == "/numbers");
    delivered.map(|message| message["data"][0].as_u64().expect("a number")).collect()
}

/// A socket that does not read while `count` messages come, then reads: it gets all of them in order.
async fn slow_reader_loses_nothing(count: u64, adjust: impl FnOnce(&mut weft::node::Limits)) {
    let bounded = Bounded::start(|config| {
        config.limits.log_entries = 30_000;
        adjust(&mut config.limits);
    })
    .await;
    let before = bounded.reached("outbox").await;
    let mut client = Client::handshake(bounded.addr()).await;
    client.subscribe("/numbers").await;
    let mut socket = bound_socket(&bounded, &client).await;
    // More than the kernels' buffers take.
    publish_numbers(&bounded, count, 1000).await;
    let mut received = Vec::new();
    let reading = async {
        while received.len() < count as usize {
            let frame = socket.next().await.unwrap_or_else(|| panic!("it ended after {}", received.len()));
            assert_eq!(frame.close_code(), None, "after {}: {frame:?}", received.len());
            received.extend(numbers(&frame.messages()));
        }
    };
    within(Duration::from_secs(60), "all messages arrive", reading).await;
    assert!(received.iter().copied().eq(0..count), "all, once and in order: {received:?}");
    bounded.reaches("outbox", before, 1).await;
    bounded.serves_on("a slow reader").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn messages_in_an_outbox() {
    slow_reader_loses_nothing(20_000, |limits| limits.outbox_messages = 10).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bytes_in_an_outbox() {
    slow_reader_loses_nothing(10_000, |limits| limits.outbox_bytes = 1024).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_default_outbox() {
    slow_reader_loses_nothing(20_000, |_| ()).await;
}

#[tokio::test]
async fn bytes_of_a_reply() {
    let bounded = Bounded::start(|config| config.limits.reply_bytes = 1024).await;
    let mut client = Client::connected(bounded.addr()).await;
    client.subscribe("/numbers").await;
    publish_numbers(&bounded, 20, 300).await;
    let (mut received, mut polls) = (Vec::new(), 0);
    while received.len() < 20 {
        let poll = client.poll().await;
        assert!((1..=3).contains(&poll.messages.len()), "{} at once", poll.messages.len());
        received.extend(numbers(&poll.messages));
        polls += 1;
    }
    assert!(received.iter().copied().eq(0..20), "{received:?}");
    assert!(polls >= 7, "{polls} polls");

    // One message that is larger than the bound comes alone: it must come some time.
    publish_numbers(&bounded, 2, 5000).await;
    assert_eq!(numbers(&client.poll().await.messages), [0]);
    assert_eq!(numbers(&client.poll().await.messages), [1]);
    bounded.serves_on("large replies").await;
}

/// A client that polls after its log has dropped what it missed is told to begin anew, never silently given the rest.
async fn late_poll_is_told(adjust: impl FnOnce(&mut weft::node::Limits)) {
    let bounded = Bounded::start(|config| adjust(&mut config.limits)).await;
    let mut client = Client::connected(bounded.addr()).await;
    client.subscribe("/numbers").await;
    publish_numbers(&bounded, 30, 500).await;
    let poll = client.connect("late", None).await;
    assert_eq!(poll.messages, [Value::Null; 0]);
    assert_eq!(poll.reply["successful"], false, "{}", poll.reply);
    assert_eq!(poll.reply["error"], format!("401:{}:Unknown client", client.id));
    assert_eq!(poll.reply["advice"]["reconnect"], "handshake", "{}", poll.reply);
    bounded.counts("weft_sessions_gap_total", 1.0).await;
    bounded.serves_on("a late poll").await;
}

#[tokio::test]
async fn entries_of_a_log() {
    late_poll_is_told(|limits| limits.log_entries = 10).await;
}

#[tokio::test]
async fn bytes_of_a_log() {
    late_poll_is_told(|limits| limits.log_bytes = 4096).await;
}

#[tokio::test]
async fn a_log_that_is_just_long_enough() {
    let bounded = Bounded::start(|config| config.limits.log_entries = 30).await;
    let mut client = Client::connected(bounded.addr()).await;
    client.subscribe("/numbers").await;
    publish_numbers(&bounded, 30, 0).await;
    let mut received = Vec::new();
    while received.len() < 30 {
        received.extend(numbers(&client.poll().await.messages));
    }
    assert!(received.iter().copied().eq(0..30), "{received:?}");
}

/// A socket that falls behind its log gets the beginning without a hole, and then the refusal.
#[tokio::test]
async fn a_socket_that_falls_behind_its_log() {
    const COUNT: u64 = 20_000;
    let bounded = Bounded::start(|config| {
        config.limits.log_entries = 10;
        config.limits.outbox_messages = 10;
    })
    .await;
    let mut client = Client::handshake(bounded.addr()).await;
    client.subscribe("/numbers").await;
    let mut socket = bound_socket(&bounded, &client).await;
    publish_numbers(&bounded, COUNT, 1000).await;
    let mut received = Vec::new();
    let refusal = loop {
        let frame = soon("a frame or the refusal", socket.next()).await.expect("the socket is open");
        let messages = frame.messages();
        received.extend(numbers(&messages));
        if let Some(refusal) = messages.into_iter().find(|message| message["channel"] == "/meta/connect") {
            break refusal;
        }
    };
    assert_eq!(refusal["error"], format!("401:{}:Unknown client", client.id), "{refusal}");
    assert_eq!(refusal["advice"]["reconnect"], "handshake", "{refusal}");
    assert!((received.len() as u64) < COUNT, "it fell behind");
    assert!(received.iter().copied().eq(0..received.len() as u64), "no hole before the refusal: {received:?}");
    bounded.counts("weft_sessions_gap_total", 1.0).await;
    bounded.serves_on("a socket that fell behind").await;
}

#[tokio::test]
async fn bytes_of_all_logs() {
    const LIMIT: usize = 64 << 10;
    let bounded = Bounded::start(|config| config.limits.memory_bytes = LIMIT).await;
    let before = bounded.reached("engine_memory").await;
    let mut client = Client::connected(bounded.addr()).await;
    client.subscribe("/numbers").await;
    let mut poster = Poster::new(bounded.addr());
    let mut stored = Vec::new();
    let refused = loop {
        let number = stored.len() as u64;
        assert!(number < 100, "there is no bound");
        let message = json!({"channel": "/numbers", "data": [number, "x".repeat(10_000)]});
        let reply = soon("a reply", poster.post(&message)).await.remove(0);
        if reply["successful"] == false {
            break reply;
        }
        stored.push(number);
    };
    assert_eq!(refused["error"], format!("503::Out of memory for messages: the limit is {LIMIT} bytes"));
    bounded.reaches("engine_memory", before, 1).await;

    // What was accepted is there, and its end makes room.
    let mut received = Vec::new();
    while received.len() < stored.len() {
        received.extend(numbers(&client.poll().await.messages));
    }
    assert_eq!(received, stored);
    client.disconnect().await;
    bounded.serves_on("a full memory").await;
}

/// The feed is full and nobody reads it: publishes in a row are answered within one deadline, however many they are, and
/// what was stored before is known to be.
#[tokio::test(start_paused = true)]
async fn publishes_in_a_row_share_a_deadline() {
    const DEADLINE: Duration = Duration::from_secs(5);
    let engine = MemoryEngine::new(MemoryLimits { feed_events: 1, ..MemoryLimits::default() });
    let (node, feed) = engine.connect(NodeId::random());
    let room = feed.max_capacity();
    contract::session(&node, &["/a"]).await;
    node.listen(&[contract::pattern("/a")]).await.expect("listening");
    let store = Store::memory(node, DEADLINE);
    let channel = weft::bayeux::Channel::parse("/a").expect("valid");
    let publication =
        |number: u64| Publication::new(channel.clone(), format!("[{{\"channel\":\"/a\",\"data\":{number}}}]").into());
    let began = tokio::time::Instant::now();
    let outcomes = store.publish_all((0..room as u64 + 40).map(publication).collect()).await;
    assert_eq!(outcomes.len(), room + 40);
    let stored = outcomes.iter().take_while(|outcome| outcome.is_ok()).count();
    assert!((1..=room).contains(&stored), "{stored}");
    assert!(outcomes[stored..].iter().all(|outcome| matches!(outcome, Err(EngineError::Timeout(_)))));
    assert!(began.elapsed() <= DEADLINE + Duration::from_millis(10), "{:?}", began.elapsed());
}
