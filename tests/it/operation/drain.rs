//! A node that is asked to stop sends its clients to the others: evenly, and without losing what is under way.

use std::time::Duration;

use tokio::time::Instant;
use weft::engine::memory::MemoryEngine;

use super::node_on;
use crate::support::bayeux::{Client, MOUNT};
use crate::support::events::EventStream;
use crate::support::http::{Connection, get, json_request, sample};
use crate::support::websocket::RawSocket;
use crate::support::{eventually, soon, within};

const OVER: Duration = Duration::from_secs(4);
const SOCKETS: usize = 60;
const POLLS: usize = 20;

/// A socket with a session whose connect waits.
async fn socket(addr: std::net::SocketAddr) -> RawSocket {
    let client = Client::handshake(addr).await;
    let mut socket = RawSocket::open(addr, MOUNT).await;
    socket.send_text(&client.connect_message("bind", "websocket").to_string()).await;
    soon("the first connect is answered", socket.next_frame()).await.expect("open");
    socket
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_leave_evenly() {
    let engine = MemoryEngine::default();
    let node = node_on(&engine, |config| config.drain_timeout = OVER).await;
    let (public, internal) = (node.public_addr(), node.internal_addr());
    let mut waiting = Vec::new();
    for _ in 0..SOCKETS {
        let mut socket = socket(public).await;
        waiting.push(tokio::spawn(async move {
            while socket.next().await.expect("a close frame").close_code() != Some(1001) {}
            Instant::now()
        }));
    }
    for _ in 0..POLLS {
        let client = Client::connected(public).await;
        let mut connection = client.begin_poll("held").await.take();
        waiting.push(tokio::spawn(async move {
            let answer = connection.held_response().await;
            let left = Instant::now();
            assert!(answer.status == 200 && answer.closes(), "{:?}", answer.headers);
            assert_eq!(answer.json()[0]["successful"], true, "{}", answer.text());
            left
        }));
    }
    eventually(Duration::from_secs(10), "all are there", async || {
        let sockets = sample(internal, r#"weft_attachments{transport="websocket"}"#).await;
        let polls = sample(internal, r#"weft_attachments{transport="long-polling"}"#).await;
        (sockets == SOCKETS as f64 && polls == POLLS as f64).then_some(())
    })
    .await;
    assert_eq!(sample(internal, "weft_draining").await, 0.0);

    let start = Instant::now();
    within(OVER * 2, "the drain", node.drain()).await;
    let mut spread = [0; 8];
    for task in waiting {
        let left = soon("a client leaves", task).await.expect("no panic").saturating_duration_since(start);
        let slice = (left.as_secs_f64() / OVER.as_secs_f64() * spread.len() as f64) as usize;
        spread[slice.min(spread.len() - 1)] += 1;
    }
    println!("clients that left, by eighths of {OVER:?}: {spread:?}");
    let fair = (SOCKETS + POLLS) / spread.len();
    assert!(spread.iter().all(|left| (fair / 2..=fair * 2).contains(left)), "{spread:?}");
    assert_eq!(sample(internal, r#"weft_attachments_moved_total{reason="drain"}"#).await, (SOCKETS + POLLS) as f64);
    assert_eq!(sample(internal, "weft_draining").await, 1.0);
    assert!(within(Duration::from_secs(10), "the stop", node.stop()).await);
}

/// In its grace a node serves everybody as before; in its drain nobody new, and those who are there to their end.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn first_not_ready_then_nobody_new() {
    let engine = MemoryEngine::default();
    let node = node_on(&engine, |config| {
        config.drain_grace = Duration::from_secs(2);
        config.drain_timeout = Duration::from_secs(20);
    })
    .await;
    let (public, internal) = (node.public_addr(), node.internal_addr());
    let local = node.client().await.expect("a client");
    let mut stays = Vec::new();
    for _ in 0..SOCKETS {
        stays.push(socket(public).await);
    }
    let mut poller = Client::connected(public).await;
    let mut kept = Connection::open(public).await;
    let publish = json_request(MOUNT, br#"[{"channel":"/a","data":0}]"#);
    kept.send(&publish).await;
    assert!(!kept.response().await.closes());
    let stop = {
        let drain = async {
            node.drain().await;
            node
        };
        tokio::spawn(drain)
    };

    eventually(Duration::from_secs(1), "it is not ready", async || {
        let ready = get(internal, "/readyz", &[]).await;
        (ready.status == 503 && ready.json()["reason"] == "draining").then_some(())
    })
    .await;
    assert_eq!(get(internal, "/healthz", &[]).await.status, 200);
    stays.push(socket(public).await);

    eventually(Duration::from_secs(10), "nobody is accepted", async || Connection::try_open(public).await.err()).await;
    assert!(!stop.is_finished(), "clients are left");
    // On a connection from before: served, and told to come elsewhere with the next request.
    kept.send(&publish).await;
    let answer = kept.response().await;
    assert_eq!(answer.json()[0]["successful"], true, "{}", answer.text());
    assert!(answer.closes(), "{:?}", answer.headers);
    assert!(kept.try_response().await.is_ok_and(|next| next.is_none()), "that was the last answer on it");
    // A poll is not held any more.
    let poll = within(Duration::from_millis(500), "the poll is answered at once", poller.poll()).await;
    assert_eq!(poll.reply["successful"], true);
    // Clients in the process stay to the end.
    local.publish("/a", &2).await.expect("stored");

    let node = within(Duration::from_secs(30), "the drain", stop).await.expect("no panic");
    assert!(within(Duration::from_secs(10), "the stop", node.stop()).await);
}

/// Who streams goes on at the other node, without a hole and without a repetition.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_goes_on_elsewhere() {
    let engine = MemoryEngine::default();
    let leaving = node_on(&engine, |config| config.drain_timeout = Duration::from_secs(1)).await;
    let staying = node_on(&engine, |_| {}).await;
    let mut client = Client::connected(leaving.public_addr()).await;
    client.subscribe("/a").await;
    let mut stream = EventStream::open(leaving.public_addr(), &client.id, None).await;
    let local = staying.client().await.expect("a client");
    local.publish("/a", &1).await.expect("stored");
    let first = soon("an event", stream.next()).await.expect("open");
    assert_eq!(first.messages[0]["data"], 1);
    within(Duration::from_secs(10), "the drain", leaving.drain()).await;
    assert!(soon("the stream ends", stream.next()).await.is_none());
    local.publish("/a", &2).await.expect("stored");
    let mut stream = EventStream::open(staying.public_addr(), &client.id, first.id.as_deref()).await;
    let next = soon("an event", stream.next()).await.expect("open");
    assert_eq!(next.messages[0]["data"], 2);
    leaving.stop().await;
    staying.stop().await;
}

/// Where there is no other node nobody waits.
#[tokio::test]
async fn alone_it_does_not_wait() {
    let node = crate::support::node::node(|_| {}).await;
    let _socket = socket(node.addr()).await;
    within(Duration::from_secs(1), "the drain", node.embedded().drain()).await;
    assert_eq!(sample(node.internal_addr(), "weft_draining").await, 0.0);
    node.stop().await;
}
