//! How a process ends: everybody who waits is answered, in time.

use std::time::Duration;

use serde_json::Value;
use tokio::time::Instant;

use super::{Running, weft};
use crate::support::bayeux::{Client, MOUNT, Poll};
use crate::support::events::EventStream;
use crate::support::http::{Connection, get, json_request, request, sample};
use crate::support::websocket::{RawSocket, frame, opcode};
use crate::support::{eventually, soon};

/// How long a clean stop may take when every client answers.
const STOP: Duration = Duration::from_secs(3);

#[tokio::test]
async fn sigterm_ends_it_and_answers_everybody() {
    ends_and_answers_everybody("TERM").await;
}

#[tokio::test]
async fn sigint_ends_it_and_answers_everybody() {
    ends_and_answers_everybody("INT").await;
}

#[tokio::test]
async fn a_closed_terminal_ends_it_in_order() {
    ends_and_answers_everybody("HUP").await;
}

async fn ends_and_answers_everybody(signal: &str) {
    let node = Running::start(&[]).await;
    let poller = Client::connected(node.public).await;
    let mut poll = poller.begin_poll("held").await;

    let on_socket = Client::handshake(node.public).await;
    let mut socket = RawSocket::open(node.public, MOUNT).await;
    socket.send_text(&on_socket.connect_message("first", "websocket").to_string()).await;
    let first = soon("the first connect is answered", socket.next()).await.expect("the socket is open");
    assert_eq!(first.messages()[0]["successful"], true);
    socket.send_text(&on_socket.connect_message("held", "websocket").to_string()).await;

    let streaming = Client::connected(node.public).await;
    let mut stream = EventStream::open(node.public, &streaming.id, None).await;
    let mut idle = Connection::open(node.public).await;
    // Two first connects of polls, one on the socket, and the two that are held.
    connects(&node, 5).await;

    let asked = Instant::now();
    node.signal(signal);

    let poll = Poll::from_replies(soon("the held poll is answered", poll.finish()).await).accepted();
    assert_eq!(poll.messages, [Value::Null; 0]);
    let answer = soon("the held connect is answered", socket.next()).await.expect("an answer before the end");
    assert_eq!(answer.messages()[0]["id"], "held");
    assert_eq!(answer.messages()[0]["successful"], true);
    let close = soon("a close frame", socket.next()).await.expect("a close frame before the end");
    assert_eq!(close.close_code(), Some(1001), "{close:?}");
    socket.send(&frame(opcode::CLOSE, &close.payload)).await;
    assert_eq!(soon("the socket ends", socket.next()).await, None);
    assert!(soon("the stream ends", stream.next()).await.is_none(), "no event before the end");
    assert!(idle.try_response().await.is_ok_and(|response| response.is_none()), "an idle connection just ends");

    let (code, log) = node.end().await;
    assert_eq!(code, Some(0), "{log:?}");
    assert!(asked.elapsed() < STOP, "{:?}: {log:?}", asked.elapsed());
    assert!(log.iter().any(|line| line.contains(&format!("SIG{signal}"))), "{log:?}");
    assert!(!log.iter().any(|line| line.contains("did not end in time")), "{log:?}");
}

#[tokio::test]
async fn nobody_is_accepted_after_the_signal_but_health_answers() {
    let mut node = Running::start_in(tempfile::tempdir().expect("a directory"), patient()).await;
    let _unfinished = unfinished_request(&node).await;
    node.signal("TERM");
    node.logs("asked to stop").await;
    eventually(Duration::from_secs(10), "new connections are refused", || async {
        tokio::net::TcpStream::connect(node.public).await.err()
    })
    .await;
    assert_eq!(get(node.internal, "/healthz", &[]).await.status, 200, "who watches the stop can see it");
    let ready = get(node.internal, "/readyz", &[]).await;
    assert_eq!((ready.status.as_u16(), &ready.json()["reason"]), (503, &"stopping".into()));
}

#[tokio::test]
async fn a_second_signal_ends_it_at_once() {
    for (first, second) in [("TERM", "TERM"), ("INT", "INT"), ("TERM", "INT")] {
        let mut node = Running::start_in(tempfile::tempdir().expect("a directory"), patient()).await;
        let _unfinished = unfinished_request(&node).await;
        node.signal(first);
        // Two signals of one kind would become one if the first were still waiting.
        node.logs("asked to stop").await;
        let asked = Instant::now();
        node.signal(second);
        let (code, log) = node.end().await;
        assert!(asked.elapsed() < STOP, "{first} {second}: {:?}: {log:?}", asked.elapsed());
        assert!(code.is_some(), "{first} {second}: it ends by itself, not by the signal: {log:?}");
    }
}

#[tokio::test]
async fn a_request_under_way_holds_the_stop_up_only_so_long() {
    let mut command = weft(&[]);
    command.env("WEFT_STOP_TIMEOUT", "500ms");
    let node = Running::start_in(tempfile::tempdir().expect("a directory"), command).await;
    let _unfinished = unfinished_request(&node).await;
    let asked = Instant::now();
    let log = node.stop().await;
    assert!(asked.elapsed() < STOP, "{:?}", asked.elapsed());
    assert!(asked.elapsed() >= Duration::from_millis(500), "it waited: {:?}", asked.elapsed());
    assert!(log.iter().any(|line| line.contains("did not end in time")), "it says so: {log:?}");
}

#[tokio::test]
async fn a_request_under_way_is_served_to_its_end() {
    let mut node = Running::start_in(tempfile::tempdir().expect("a directory"), patient()).await;
    let (mut connection, rest) = unfinished_request(&node).await;
    node.signal("TERM");
    node.logs("asked to stop").await;
    connection.send(&rest).await;
    let response = connection.response().await;
    assert_eq!(response.status, 200);
    assert_eq!(response.json()[0]["successful"], true, "{}", response.text());
    assert!(connection.try_response().await.is_ok_and(|more| more.is_none()), "the connection ends with it");
    assert_eq!(node.end().await.0, Some(0));
}

/// A node that would wait for a minute.
fn patient() -> tokio::process::Command {
    let mut command = weft(&[]);
    command.env("WEFT_STOP_TIMEOUT", "60s").env("WEFT_LIMITS__BODY_TIMEOUT", "60s");
    command
}

/// A publish whose last byte is missing, and that byte. The node is known to wait for it.
async fn unfinished_request(node: &Running) -> (Connection, Vec<u8>) {
    let mut connection = Connection::open(node.public).await;
    // An answered request first: the node has the connection.
    connection.send(&request("GET", "/healthz", &[], None)).await;
    connection.response().await;
    let mut begun = json_request(MOUNT, br#"{"channel":"/late","data":1}"#);
    let rest = begun.split_off(begun.len() - 1);
    let head = b"Expect: 100-continue\r\n";
    let end_of_line = begun.iter().position(|byte| *byte == b'\n').expect("a request line") + 1;
    begun.splice(end_of_line..end_of_line, head.iter().copied());
    connection.send(&begun).await;
    // The node asks for the body: it has read the head.
    let (status, _) = soon("100 Continue", connection.head()).await.expect("a head").expect("an open connection");
    assert_eq!(status, 100);
    (connection, rest)
}

/// Waits until the node has read `count` connects.
async fn connects(node: &Running, count: u64) {
    let name = r#"weft_messages_received_total{kind="connect"}"#;
    eventually(Duration::from_secs(10), "the node has read every connect", || async {
        (sample(node.internal, name).await >= count as f64).then_some(())
    })
    .await;
}
