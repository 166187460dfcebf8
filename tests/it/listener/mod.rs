//! The two ways in which requests are served: plain POSTs by our own hand, everything else by hyper. A client must not
//! be able to tell which, and may change over at any request.

mod frames;

use std::time::Duration;

use serde_json::json;

use crate::support::bayeux::{Client, MOUNT, Poster, publish};
use crate::support::http::{Connection, Cut, Response, json_request, request, sample};
use crate::support::node::node;
use crate::support::websocket::{RawSocket, UPGRADE, frame, opcode};
use crate::support::{SOON, eventually, nothing_within, soon};

const JSON: (&str, &str) = ("Content-Type", "application/json");

/// Requests in one piece, with answers that are the same each time.
fn posts() -> Vec<Vec<u8>> {
    let post = |path: &str, headers: &[(&str, &str)], body: &str| request("POST", path, headers, Some(body.as_bytes()));
    let batch = r#"[{"channel":"/chat/a","data":1,"id":"1"},{"channel":"nowhere","data":1}]"#;
    let form = form_urlencoded::Serializer::new(String::new()).append_pair("message", batch).finish();
    let deep = "[".repeat(200);
    vec![
        post(MOUNT, &[JSON], batch),
        post(MOUNT, &[JSON, ("Origin", "https://app.example")], batch),
        post(MOUNT, &[JSON, ("Connection", "keep-alive"), ("Cookie", "a=b"), ("Cookie", "c=d")], batch),
        post(&format!("{MOUNT}/connect?x=1"), &[JSON], batch),
        post(MOUNT, &[("Content-Type", "application/x-www-form-urlencoded")], &form),
        post(MOUNT, &[], batch),
        post(MOUNT, &[JSON], r#"{"channel":"/chat/a","data":1,"id":"p"}"#),
        post(MOUNT, &[JSON], "[]"),
        post(MOUNT, &[JSON], "{"),
        post(MOUNT, &[JSON], &deep),
        post(MOUNT, &[JSON], ""),
        post(MOUNT, &[("Content-Type", "text/plain"), ("Origin", "null")], "[]"),
        post(MOUNT, &[JSON, ("Origin", "https://app.example"), ("Access-Control-Request-Method", "POST")], batch),
        post(&format!("{MOUNT}/client.mjs"), &[JSON], batch),
        post(&format!("{MOUNT}.js"), &[JSON], batch),
        post(&format!("{MOUNT}/nothing.map"), &[JSON], batch),
        post("/elsewhere", &[JSON], batch),
        post("/healthz", &[], ""),
    ]
}

/// An answer as a client sees it: without the second it was given in, and the order of headers.
fn seen(response: Response) -> (u16, Vec<(String, String)>, String) {
    let mut headers: Vec<_> = response
        .headers
        .iter()
        .filter(|(name, _)| *name != "date")
        .map(|(name, value)| (name.to_string(), String::from_utf8_lossy(value.as_bytes()).into_owned()))
        .collect();
    headers.sort();
    assert!(response.headers.contains_key("date"), "{headers:?}");
    (response.status.as_u16(), headers, response.text())
}

#[tokio::test]
async fn both_ways_answer_alike() {
    let node = node(|_| {}).await;
    let mut plain = Connection::open(node.addr()).await;
    let mut through_hyper = Connection::open(node.addr()).await;
    // Not plain: from here on the connection is hyper's.
    through_hyper.send(&request("GET", "/healthz", &[], None)).await;
    through_hyper.response().await;
    for post in posts() {
        let mut answers = Vec::new();
        for connection in [&mut plain, &mut through_hyper] {
            connection.send(&post).await;
            let response = connection.response().await;
            assert!(!response.closes(), "{response:?}");
            answers.push(seen(response));
        }
        assert_eq!(answers[0], answers[1], "{}", String::from_utf8_lossy(&post));
    }
}

#[tokio::test]
async fn requests_sent_ahead_are_answered_in_order() {
    let node = node(|_| {}).await;
    let all = posts();
    let mut expected = Vec::new();
    for post in &all {
        let mut connection = Connection::open(node.addr()).await;
        connection.send(post).await;
        expected.push(seen(connection.response().await));
    }
    let page = request("GET", "/healthz", &[], None);
    for split in 0..all.len() {
        // A request that is not plain somewhere among them.
        let (before, after) = all.split_at(split);
        let mut connection = Connection::open(node.addr()).await;
        connection.send(&[before.concat(), page.clone(), after.concat()].concat()).await;
        for (number, expected) in expected.iter().enumerate() {
            if number == split {
                assert_eq!(connection.response().await.status, 200, "the page after {split}");
            }
            assert_eq!(seen(connection.response().await), *expected, "{number} with a page before {split}");
        }
    }
}

#[tokio::test]
async fn a_request_in_pieces_is_served() {
    let node = node(|_| {}).await;
    let message = json!({"channel": "/chat/a", "data": "x".repeat(40_000)}).to_string();
    let large = json_request(MOUNT, message.as_bytes());
    for cut in [1, 20, 60, large.len() - message.len(), large.len() - message.len() + 1, 16_384, large.len() - 1] {
        let mut connection = Connection::open(node.addr()).await;
        for repeated in 0..2 {
            connection.send(&large[..cut]).await;
            // A whole second request on another connection: the first piece has arrived by then.
            Poster::new(node.addr()).post(&json!([])).await;
            connection.send(&large[cut..]).await;
            let response = connection.response().await;
            assert_eq!(response.status, 200, "cut at {cut}, {repeated}: {}", response.text());
            assert_eq!(response.json()[0]["successful"], true, "cut at {cut}");
        }
    }
}

#[tokio::test]
async fn a_socket_behind_a_post() {
    let node = node(|_| {}).await;
    let upgrade = request("GET", MOUNT, &UPGRADE, None);
    // The frame comes in the same packet as the upgrade, before the node has agreed: no rule forbids it.
    for ahead in [vec![], vec![json_request(MOUNT, b"[]")]] {
        let client = Client::handshake(node.addr()).await;
        let frame = frame(opcode::TEXT, client.connect_message("first", "websocket").to_string().as_bytes());
        let mut connection = Connection::open(node.addr()).await;
        connection.send(&[ahead.concat(), upgrade.clone(), frame.clone()].concat()).await;
        for _ in &ahead {
            assert_eq!(connection.response().await.status, 200);
        }
        assert_eq!(connection.response().await.status, 101);
        let mut socket = RawSocket::over(connection);
        let reply = soon("the connect's reply", socket.next()).await.expect("the socket is open").messages();
        assert_eq!((&reply[0]["id"], &reply[0]["successful"]), (&json!("first"), &json!(true)), "{reply:?}");
    }
}

#[tokio::test]
async fn who_asks_for_the_end_gets_it() {
    let node = node(|_| {}).await;
    for (version, headers) in [("1.1", "Connection: close\r\n"), ("1.0", "")] {
        let mut connection = Connection::open(node.addr()).await;
        connection.send(&json_request(MOUNT, b"[]")).await;
        assert!(!connection.response().await.closes());
        let last = format!("POST {MOUNT} HTTP/{version}\r\nHost: a\r\n{headers}Content-Length: 2\r\n\r\n[]");
        connection.send(last.as_bytes()).await;
        let response = connection.response().await;
        assert_eq!((response.status.as_u16(), &*response.text()), (200, "[]"));
        let after = connection.try_response().await;
        assert!(matches!(after, Ok(None)), "{version}: {after:?}");
    }
}

#[tokio::test]
async fn a_held_poll_ends_with_its_connection() {
    let node = node(|_| {}).await;
    let internal = node.internal_addr();
    for how in [Cut::Fin, Cut::Rst] {
        let client = Client::connected(node.addr()).await;
        let before = sample(internal, "weft_connections").await;
        let mut poll = client.begin_poll("held").await;
        eventually(SOON, "the poll's connection", || async {
            (sample(internal, "weft_connections").await == before + 1.0).then_some(())
        })
        .await;
        poll.take().cut(how);
        // It would be held for 45 seconds.
        eventually(SOON, "the poll is let go", || async {
            (sample(internal, "weft_connections").await == before).then_some(())
        })
        .await;
    }
}

#[tokio::test]
async fn a_request_behind_a_held_poll_waits_for_it() {
    let node = node(|_| {}).await;
    let mut client = Client::connected(node.addr()).await;
    client.subscribe("/news").await;
    let mut connection = client.begin_poll("held").await.take();
    connection.send(&json_request(MOUNT, b"[]")).await;
    nothing_within(Duration::from_millis(100), "an answer", connection.answer()).await;
    publish(&mut Poster::new(node.addr()), "/news", json!("kept")).await;
    let held = connection.response().await.json();
    assert!(held.as_array().is_some_and(|held| held.iter().any(|message| message["data"] == "kept")), "{held}");
    assert_eq!(connection.response().await.text(), "[]");
}
