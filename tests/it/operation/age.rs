//! Connections that have become old end in order, so that their clients find newer nodes.

use std::time::Duration;

use tokio::time::Instant;
use weft::engine::memory::MemoryEngine;

use super::node_on;
use crate::support::bayeux::{Client, MOUNT};
use crate::support::events::EventStream;
use crate::support::http::{Connection, get, json_request, request, sample};
use crate::support::soon;
use crate::support::websocket::RawSocket;

const AGE: Duration = Duration::from_secs(2);
/// Ages differ by a tenth, and machines are busy.
const YOUNG: Duration = Duration::from_millis(1700);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn old_connections_are_sent_elsewhere() {
    let node = node_on(&MemoryEngine::default(), |config| {
        config.max_connection_age = AGE;
        config.eventsource_ping = Duration::from_millis(100);
    })
    .await;
    let (public, internal) = (node.public_addr(), node.internal_addr());

    let start = Instant::now();
    let streaming = Client::connected(public).await;
    let mut stream = EventStream::open(public, &streaming.id, None).await;
    let client = Client::handshake(public).await;
    let mut socket = RawSocket::open(public, MOUNT).await;
    socket.send_text(&client.connect_message("bind", "websocket").to_string()).await;
    socket.send_text(&client.connect_message("held", "websocket").to_string()).await;
    let mut posts = Connection::open(public).await;
    let publish = json_request(MOUNT, br#"[{"channel":"/a","data":1}]"#);
    posts.send(&publish).await;
    assert!(!posts.response().await.closes(), "it is young");
    let mut pages = Connection::open(public).await;
    pages.send(&request("GET", "/healthz", &[], None)).await;
    assert!(!pages.response().await.closes(), "it is young");

    let mut answered = Vec::new();
    let close = loop {
        let frame = soon("frames", socket.next()).await.expect("a close frame");
        if frame.close_code().is_some() {
            break frame;
        }
        answered.extend(frame.messages());
    };
    assert!(start.elapsed() >= YOUNG, "{:?}", start.elapsed());
    assert_eq!(close.close_code(), Some(1001));
    assert!(answered.iter().any(|reply| reply["id"] == "held" && reply["successful"] == true), "{answered:?}");

    assert!(soon("the stream ends", stream.next()).await.is_none());
    assert!(start.elapsed() >= YOUNG, "{:?}", start.elapsed());

    tokio::time::sleep_until(start + AGE.mul_f64(1.2)).await;
    for (what, mut connection, asked) in
        [("a page", pages, request("GET", "/healthz", &[], None)), ("a publish", posts, publish)]
    {
        connection.send(&asked).await;
        let last = connection.response().await;
        assert!(last.status == 200 && last.closes(), "{what}: {:?}", last.headers);
        assert!(connection.try_response().await.is_ok_and(|next| next.is_none()), "{what}: it is closed");
    }
    assert_eq!(sample(internal, r#"weft_attachments_moved_total{reason="age"}"#).await, 2.0, "a socket, a stream");
    assert_eq!(get(public, "/healthz", &[]).await.status, 200, "who comes anew is served");
    node.stop().await;
}
