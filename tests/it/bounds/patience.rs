//! How long a peer may take: for a head, a body, between requests, and to read what it asked for.

use std::time::Duration;

use serde_json::json;
use tokio::io::AsyncReadExt;
use tokio::time::Instant;

use super::Bounded;
use crate::support::bayeux::{Client, MOUNT, Poster, publish};
use crate::support::events::EventStream;
use crate::support::http::{Connection, json_request, request};
use crate::support::websocket::{RawSocket, frame};
use crate::support::{soon, within};

/// The bound under test: short enough to sit through, long enough to be sure that it was waited for.
const SHORT: Duration = Duration::from_millis(300);

/// Waits until the node has ended a connection without an answer.
async fn closes(connection: &mut Connection, what: &str) {
    let outcome = soon(what, connection.answer()).await;
    assert!(!matches!(outcome, Ok(Some(_))), "{what}: {outcome:?}");
}

#[tokio::test]
async fn a_head() {
    let bounded = Bounded::start(|config| config.limits.header_timeout = SHORT).await;
    let before = bounded.reached("request_time").await;
    let mut connection = Connection::open(bounded.addr()).await;
    let begun = Instant::now();
    connection.send(b"GET / HTTP/1.1\r\nHost: a\r\nX: ").await;
    closes(&mut connection, "a head that stops").await;
    assert!(begun.elapsed() >= SHORT, "{:?}", begun.elapsed());
    bounded.reaches("request_time", before, 1).await;

    // As well on a connection that has been used.
    let mut connection = Connection::open(bounded.addr()).await;
    connection.send(&request("GET", "/healthz", &[], None)).await;
    connection.response().await;
    connection.send(b"G").await;
    closes(&mut connection, "a second head that stops").await;
    bounded.reaches("request_time", before, 2).await;
    bounded.serves_on("slow heads").await;
}

#[tokio::test]
async fn a_body() {
    let bounded = Bounded::start(|config| config.limits.body_timeout = SHORT).await;
    let before = bounded.reached("request_time").await;
    let mut connection = Connection::open(bounded.addr()).await;
    let head = format!("POST {MOUNT} HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n");
    connection.send(format!("{head}Content-Length: 100\r\n\r\n[").as_bytes()).await;
    let response = connection.response().await;
    assert_eq!((response.status.as_u16(), &*response.text()), (408, "Request body took too long"));
    assert!(response.closes(), "{:?}", response.headers);
    bounded.reaches("request_time", before, 1).await;
    bounded.serves_on("a slow body").await;
}

#[tokio::test]
async fn between_requests() {
    let bounded = Bounded::start(|config| {
        config.limits.idle_timeout = SHORT;
        config.timeout = SHORT * 4;
    })
    .await;
    let before = bounded.reached("idle").await;
    let mut unused = Connection::open(bounded.addr()).await;
    closes(&mut unused, "a connection without a request").await;
    bounded.reaches("idle", before, 1).await;

    let mut used = Connection::open(bounded.addr()).await;
    used.send(&request("GET", "/healthz", &[], None)).await;
    used.response().await;
    closes(&mut used, "a connection without a second request").await;
    bounded.reaches("idle", before, 2).await;

    let mut posted = Connection::open(bounded.addr()).await;
    posted.send(&json_request(MOUNT, b"[]")).await;
    posted.response().await;
    closes(&mut posted, "a connection without a second POST").await;
    bounded.reaches("idle", before, 3).await;

    let mut socket = RawSocket::open(bounded.addr(), MOUNT).await;
    let close = soon("a socket without a session is closed", socket.next()).await.expect("a close frame");
    assert_eq!(close.close_code(), Some(1000), "{close:?}");
    bounded.reaches("idle", before, 4).await;
    bounded.serves_on("idle connections").await;
}

#[tokio::test]
async fn who_waits_for_messages_is_not_idle() {
    let bounded = Bounded::start(|config| {
        config.limits.idle_timeout = SHORT;
        config.limits.write_timeout = SHORT;
        config.limits.header_timeout = SHORT;
        config.limits.body_timeout = SHORT;
        config.timeout = SHORT * 4;
    })
    .await;
    let polling = Client::connected(bounded.addr()).await;
    let mut streaming = Client::connected(bounded.addr()).await;
    streaming.subscribe("/late").await;
    let on_socket = Client::handshake(bounded.addr()).await;
    let mut stream = EventStream::open(bounded.addr(), &streaming.id, None).await;
    let mut socket = RawSocket::open(bounded.addr(), MOUNT).await;
    socket.send_text(&on_socket.connect_message("first", "websocket").to_string()).await;
    soon("the first connect", socket.next()).await.expect("the socket is open");
    socket.send_text(&on_socket.connect_message("held", "websocket").to_string()).await;

    let begun = Instant::now();
    let mut poll = polling.begin_poll("held").await;
    let replies = soon("the poll is answered", poll.finish()).await;
    assert!(begun.elapsed() >= SHORT * 4, "it was held: {:?}", begun.elapsed());
    assert_eq!(replies[0]["successful"], true);
    let held = soon("the held connect", socket.next()).await.expect("the socket is open");
    assert_eq!(held.messages()[0]["id"], "held");

    let client = bounded.node.embedded().client().await.expect("a client");
    client.publish("/late", &1).await.expect("published");
    let event = soon("an event", stream.next()).await.expect("the stream is open");
    assert_eq!(event.messages[0]["data"], 1);
}

#[tokio::test]
async fn a_connection_that_held_a_poll_for_long_is_used_again() {
    let bounded = Bounded::start(|config| {
        config.limits.idle_timeout = SHORT;
        config.timeout = SHORT * 2;
    })
    .await;
    let client = Client::connected(bounded.addr()).await;
    let mut connection = Connection::open(bounded.addr()).await;
    for id in ["longer than it may be silent", "and again"] {
        let connect = json!([client.connect_message(id, "long-polling")]).to_string();
        connection.send(&json_request(MOUNT, connect.as_bytes())).await;
        let response = soon("the poll is answered", connection.response()).await;
        assert_eq!(response.json()[0]["successful"], true, "{id}");
    }
    // And silence counts from there.
    let before = bounded.reached("idle").await;
    bounded.reaches("idle", before, 1).await;
}

/// Publishes to `channel` until the node has lost its patience with a peer that does not read.
async fn publish_until_cut(bounded: &Bounded, before: f64, channel: &str) {
    let client = bounded.node.embedded().client().await.expect("a client");
    let data = "x".repeat(100_000);
    let publishing = async {
        while bounded.reached("write_time").await == before {
            client.publish(channel, &data).await.expect("published");
        }
    };
    within(Duration::from_secs(30), "a peer that does not read is cut", publishing).await;
}

#[tokio::test]
async fn a_socket_that_is_not_read() {
    let bounded = Bounded::start(|config| config.limits.write_timeout = SHORT).await;
    let before = bounded.reached("write_time").await;
    let mut client = Client::handshake(bounded.addr()).await;
    client.subscribe("/flood").await;
    let mut socket = RawSocket::open(bounded.addr(), MOUNT).await;
    socket.send_text(&client.connect_message("first", "websocket").to_string()).await;
    soon("the first connect", socket.next()).await.expect("the socket is open");
    publish_until_cut(&bounded, before, "/flood").await;
    let rest = async { while socket.next().await.is_some_and(|frame| frame.close_code().is_none()) {} };
    soon("the socket ends", rest).await;
    bounded.serves_on("a socket that is not read").await;
}

/// A peer that reads slowly is slow, not stuck: one message that takes it several times the bound arrives whole.
#[tokio::test]
async fn a_socket_that_is_read_slowly() {
    const SIZE: usize = 24 << 20;
    let bounded = Bounded::start(|config| {
        config.limits.write_timeout = SHORT;
        config.limits.body_bytes = 2 * SIZE;
        config.limits.log_bytes = 2 * SIZE;
    })
    .await;
    let mut client = Client::handshake(bounded.addr()).await;
    client.subscribe("/large").await;
    let mut connection = Connection::open(bounded.addr()).await;
    let key = ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ==");
    let headers = [("Upgrade", "websocket"), ("Connection", "Upgrade"), ("Sec-WebSocket-Version", "13"), key];
    connection.send(&request("GET", MOUNT, &headers, None)).await;
    soon("the upgrade", connection.head()).await.expect("readable").expect("open");
    let connect = client.connect_message("first", "websocket").to_string();
    connection.send(&frame(1, connect.as_bytes())).await;
    let (mut stream, _) = connection.into_parts();
    let mut poster = Poster::new(bounded.addr());
    publish(&mut poster, "/large", json!("x".repeat(SIZE))).await;
    let mut pace = tokio::time::interval(SHORT / 10);
    let mut piece = vec![0; 256 << 10];
    let mut received = 0;
    while received < SIZE {
        pace.tick().await;
        let count = soon("the next piece", stream.read(&mut piece)).await.expect("the socket is open");
        assert_ne!(count, 0, "cut after {received} bytes");
        received += count;
    }
}

/// A peer that asks and asks and never reads the answers is not read from any more, and then cut.
#[tokio::test]
async fn a_socket_whose_replies_are_not_read() {
    let bounded = Bounded::start(|config| config.limits.write_timeout = SHORT).await;
    let before = bounded.reached("write_time").await;
    let mut socket = RawSocket::open(bounded.addr(), MOUNT).await;
    let batch = json!(vec![json!({"channel": "/asked", "data": 1, "id": "x".repeat(100)}); 1000]).to_string();
    let flood = async {
        while bounded.reached("write_time").await == before {
            tokio::select! {
                () = socket.send_text(&batch) => {}
                () = bounded.reaches("write_time", before, 1) => {}
            }
        }
    };
    within(Duration::from_secs(30), "a peer that does not read is cut", flood).await;
    bounded.serves_on("a socket whose replies are not read").await;
}

#[tokio::test]
async fn a_stream_that_is_not_read() {
    let bounded = Bounded::start(|config| config.limits.write_timeout = SHORT).await;
    let before = bounded.reached("write_time").await;
    let mut client = Client::connected(bounded.addr()).await;
    client.subscribe("/flood").await;
    let mut stream = EventStream::open(bounded.addr(), &client.id, None).await;
    publish_until_cut(&bounded, before, "/flood").await;
    soon("the stream ends", async { while stream.next().await.is_some() {} }).await;
    bounded.serves_on("a stream that is not read").await;
}

#[tokio::test]
async fn answers_that_are_not_read() {
    let bounded = Bounded::start(|config| config.limits.write_timeout = SHORT).await;
    let before = bounded.reached("write_time").await;
    let mut connection = Connection::open(bounded.addr()).await;
    let pages = request("GET", "/", &[], None).repeat(100);
    // More than the kernels' buffers take: the node stops reading while it cannot write.
    let flood = async {
        while bounded.reached("write_time").await == before {
            tokio::select! {
                () = connection.send(&pages) => {}
                () = bounded.reaches("write_time", before, 1) => {}
            }
        }
    };
    within(Duration::from_secs(30), "a peer that does not read is cut", flood).await;
    bounded.serves_on("answers that are not read").await;
}

/// A poll's reply that cannot be written confirms nothing: the messages come with the next poll.
#[tokio::test]
async fn a_poll_that_is_not_read_loses_nothing() {
    let bounded = Bounded::start(|config| {
        config.limits.write_timeout = SHORT;
        config.limits.reply_bytes = 64 << 20;
        config.limits.outbox_bytes = 64 << 20;
    })
    .await;
    let before = bounded.reached("write_time").await;
    let mut client = Client::connected(bounded.addr()).await;
    client.subscribe("/flood").await;
    let publisher = bounded.node.embedded().client().await.expect("a client");
    let padding = "x".repeat(100_000);
    for number in 0..200 {
        publisher.publish("/flood", &json!([number, padding])).await.expect("published");
    }
    let poll = client.begin_poll("unread").await;
    bounded.reaches("write_time", before, 1).await;
    drop(poll);
    let poll = within(Duration::from_secs(30), "the poll is answered", client.poll_at_once()).await;
    let numbers: Vec<_> = poll.messages.iter().filter_map(|message| message["data"][0].as_u64()).collect();
    assert_eq!(numbers, (0..200).collect::<Vec<_>>());
    bounded.counts("weft_replies_broken_total", 1.0).await;
    bounded.serves_on("a poll that is not read").await;
}
