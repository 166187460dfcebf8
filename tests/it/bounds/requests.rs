//! What one request or frame may carry: bytes, messages, nesting, names.

use serde_json::{Value, json};

use super::Bounded;
use crate::support::bayeux::{Client, MOUNT, Poster};
use crate::support::http::{Connection, Response, json_request};
use crate::support::soon;
use crate::support::websocket::{Frame, RawSocket};

/// Posts a body on a fresh connection.
async fn post(bounded: &Bounded, body: &[u8]) -> Response {
    let mut connection = Connection::open(bounded.addr()).await;
    connection.send(&json_request(MOUNT, body)).await;
    connection.response().await
}

/// The answer to one frame on `socket`.
async fn asked(socket: &mut RawSocket, text: &str) -> Frame {
    socket.send_text(text).await;
    soon("an answer to a frame", socket.next()).await.expect("the socket is open")
}

/// A publish of exactly this many bytes.
fn sized(bytes: usize) -> String {
    let empty = json!({"channel": "/sized", "data": ""}).to_string();
    json!({"channel": "/sized", "data": "x".repeat(bytes - empty.len())}).to_string()
}

#[tokio::test]
async fn bytes_of_a_body_and_of_a_frame() {
    let bounded = Bounded::start(|config| config.limits.body_bytes = 1024).await;
    let before = bounded.reached("body").await;
    assert_eq!(post(&bounded, sized(1024).as_bytes()).await.json()[0]["successful"], true);
    let over = post(&bounded, sized(1025).as_bytes()).await;
    assert_eq!((over.status.as_u16(), &*over.text()), (413, "Payload too large: the limit is 1024 bytes"));
    assert!(over.closes(), "{:?}", over.headers);
    bounded.reaches("body", before, 1).await;

    let mut socket = RawSocket::open(bounded.addr(), MOUNT).await;
    assert_eq!(asked(&mut socket, &sized(1024)).await.messages()[0]["successful"], true);
    let close = asked(&mut socket, &sized(1025)).await;
    assert_eq!(close.close_code(), Some(1009), "{close:?}");
    bounded.reaches("body", before, 2).await;
    bounded.serves_on("bodies that are too large").await;
}

#[tokio::test]
async fn messages_of_a_batch() {
    let bounded = Bounded::start(|config| config.limits.batch_messages = 3).await;
    let before = bounded.reached("batch").await;
    let batch = |count| json!(vec![json!({"channel": "/batch", "data": 1}); count]).to_string();
    assert_eq!(post(&bounded, batch(3).as_bytes()).await.json().as_array().map(Vec::len), Some(3));
    let over = post(&bounded, batch(4).as_bytes()).await;
    assert_eq!((over.status.as_u16(), &*over.text()), (413, "Too many messages in one batch: the limit is 3"));
    bounded.reaches("batch", before, 1).await;

    let mut socket = RawSocket::open(bounded.addr(), MOUNT).await;
    let refusal = asked(&mut socket, &batch(4)).await.messages();
    assert_eq!(refusal, [json!({"successful": false, "error": "413::Too many messages in one batch: the limit is 3"})]);
    bounded.reaches("batch", before, 2).await;
    assert_eq!(asked(&mut socket, &batch(3)).await.messages().len(), 3, "the socket stays open");
    bounded.serves_on("batches that are too large").await;
}

#[tokio::test]
async fn nesting() {
    let bounded = Bounded::start(|config| config.limits.json_depth = 4).await;
    let before = bounded.reached("depth").await;
    let nested = |depth: usize| {
        format!("{{\"channel\":\"/deep\",\"data\":{}1{}}}", "[".repeat(depth - 1), "]".repeat(depth - 1))
    };
    assert_eq!(post(&bounded, nested(4).as_bytes()).await.json()[0]["successful"], true);
    let over = post(&bounded, nested(5).as_bytes()).await;
    assert_eq!((over.status.as_u16(), &*over.text()), (400, "Nested too deeply: the limit is 4"));
    bounded.reaches("depth", before, 1).await;

    let mut socket = RawSocket::open(bounded.addr(), MOUNT).await;
    let refusal = asked(&mut socket, &nested(5)).await.messages();
    assert_eq!(refusal, [json!({"successful": false, "error": "413::Nested too deeply: the limit is 4"})]);
    bounded.reaches("depth", before, 2).await;
    assert_eq!(asked(&mut socket, &nested(4)).await.messages()[0]["successful"], true, "the socket stays open");
    bounded.serves_on("nesting that is too deep").await;
}

#[tokio::test]
async fn fields_that_bayeux_does_not_know() {
    let bounded = Bounded::start(|_| ()).await;
    let with = |count: usize| {
        let fields: String = (0..count).map(|number| format!(",\"x{number}\":1")).collect();
        format!("{{\"channel\":\"/fields\",\"data\":1{fields}}}")
    };
    assert_eq!(post(&bounded, with(100).as_bytes()).await.json()[0]["successful"], true);
    assert_eq!(post(&bounded, with(101).as_bytes()).await.status, 400);
    bounded.serves_on("unknown fields").await;
}

#[tokio::test]
async fn connects_in_one_request() {
    let bounded = Bounded::start(|_| ()).await;
    let client = Client::connected(bounded.addr()).await;
    let both = json!([client.connect_message("1", "long-polling"), client.connect_message("2", "long-polling")]);
    let replies = post(&bounded, both.to_string().as_bytes()).await.json();
    assert_eq!([&replies[0]["successful"], &replies[1]["successful"]], [true, false], "{replies}");
    assert_eq!(replies[1]["error"], "400::Only one connect in one request");
    assert_eq!(replies[1]["advice"]["reconnect"], "retry", "the session lives: {replies}");
    bounded.serves_on("two connects in one request").await;
}

#[tokio::test]
async fn names_of_channels() {
    let bounded = Bounded::start(|config| {
        config.limits.channel_bytes = 16;
        config.limits.channel_depth = 4;
    })
    .await;
    let before = bounded.reached("channel").await;
    let client = Client::connected(bounded.addr()).await;
    let mut poster = Poster::new(bounded.addr());
    for (channel, error) in [
        ("/fifteen/letters", None),
        ("/1/2/3/4", None),
        ("/sixteen/letters/", Some("405:/sixteen/letters/:")),
        ("/seventeen/lettrs", Some("405:/seventeen/lettrs:Channel too long: the limit is 16 bytes")),
        ("/1/2/3/4/5", Some("405:/1/2/3/4/5:Channel too deep: the limit is 4 segments")),
    ] {
        let publish = json!({"channel": channel, "data": 1});
        let subscribe = json!({"channel": "/meta/subscribe", "clientId": client.id, "subscription": channel});
        for message in [publish, subscribe] {
            let reply = soon("a reply", poster.post(&message)).await.remove(0);
            assert_eq!(reply["successful"], error.is_none(), "{reply}");
            let text = reply["error"].as_str().unwrap_or_default();
            assert!(text.starts_with(error.unwrap_or_default()), "{reply}");
        }
    }
    bounded.reaches("channel", before, 6).await;
    bounded.serves_on("names that are too long").await;
}

#[tokio::test]
async fn a_long_name_is_not_repeated_to_its_end() {
    let bounded = Bounded::start(|_| ()).await;
    let mut poster = Poster::new(bounded.addr());
    let message: Value = json!({"channel": format!("/{}", "x".repeat(10_000)), "data": 1});
    let reply = soon("a reply", poster.post(&message)).await.remove(0);
    let error = reply["error"].as_str().expect("an error");
    assert!(error.ends_with(":Channel too long: the limit is 512 bytes") && error.len() < 200, "{error}");
    bounded.serves_on("a long name").await;
}

/// The node's own needs fit into the smallest bounds that the configuration takes.
#[tokio::test]
async fn a_node_with_the_smallest_names_becomes_ready() {
    let bounded = Bounded::start(|config| {
        config.limits.channel_bytes = 16;
        config.limits.channel_depth = 4;
    })
    .await;
    soon("the node is ready", bounded.node.embedded().ready()).await;
    assert_eq!(bounded.reached("channel").await, 0.0, "nobody has asked for anything");
}
