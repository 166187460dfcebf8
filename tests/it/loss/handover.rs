//! A node that stops hands its sockets over: two nodes share an engine, the client goes on with the other one.

use serde_json::json;
use weft::engine::memory::MemoryEngine;
use weft::{Config, Node};

use super::CHANNEL;
use crate::support::bayeux::{Client, MOUNT, Poster, publish};
use crate::support::soon;
use crate::support::websocket::{RawSocket, frame, opcode};

async fn node_on(engine: &MemoryEngine) -> Node {
    let free = "127.0.0.1:0".parse().expect("an address");
    let config = Config { listen: free, internal_listen: free, ..Config::default() };
    Node::builder(config).memory_engine(engine.clone()).start().await.expect("the node starts")
}

/// A socket on a node that stops right after it has pushed a message, before any ping could confirm it. Gives what the
/// other node still has for the session.
async fn due_after_a_stop(answers_pings: bool) -> Vec<serde_json::Value> {
    let engine = MemoryEngine::default();
    let (leaving, staying) = (node_on(&engine).await, node_on(&engine).await);
    let mut client = Client::connected(staying.public_addr()).await;
    client.subscribe(CHANNEL).await;
    let mut socket = RawSocket::open(leaving.public_addr(), MOUNT).await;
    socket.send_text(&client.connect_message("bind", "websocket").to_string()).await;
    publish(&mut Poster::new(staying.public_addr()), CHANNEL, json!(1)).await;
    let pushed = soon("the push", socket.next_frame()).await.expect("open");
    assert_eq!(pushed.messages()[0]["data"], 1);
    let stopping = tokio::spawn(leaving.stop());
    loop {
        // A page that was left at the same moment does not answer any more; its close frame has crossed the node's.
        let next = if answers_pings {
            soon("the end", socket.next()).await
        } else {
            soon("the end", socket.next_frame()).await
        };
        if next.expect("a close frame").close_code().is_some() {
            break;
        }
    }
    // Who is told to go is elsewhere at once, perhaps before the node has heard another word of it.
    let due = client.poll_at_once().await.data();
    socket.send(&frame(8, &1001_u16.to_be_bytes())).await;
    drop(socket);
    soon("the node stops", stopping).await.expect("no panic");
    staying.stop().await;
    due
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_pong_proves_is_not_sent_again() {
    assert!(due_after_a_stop(true).await.is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_close_frame_alone_proves_nothing() {
    assert_eq!(due_after_a_stop(false).await, [json!(1)]);
}

/// Whoever publishes and closes, while the node is about to send it away, need not wait for the replies.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_sent_before_a_close_is_stored() {
    const CLIENTS: usize = 40;
    let engine = MemoryEngine::default();
    let (leaving, staying) = (node_on(&engine).await, node_on(&engine).await);
    let mut reader = Client::connected(staying.public_addr()).await;
    reader.subscribe(CHANNEL).await;
    let mut sockets = Vec::new();
    for _ in 0..CLIENTS {
        let client = Client::handshake(staying.public_addr()).await;
        let mut socket = RawSocket::open(leaving.public_addr(), MOUNT).await;
        socket.send_text(&client.connect_message("bind", "websocket").to_string()).await;
        soon("the session is held", socket.next_frame()).await.expect("open");
        sockets.push(socket);
    }
    let stopping = tokio::spawn(leaving.stop());
    for (number, socket) in sockets.iter_mut().enumerate() {
        while soon("a ping", socket.next_frame()).await.expect("open").opcode != opcode::PING {}
        let publish = json!([{"channel": CHANNEL, "data": number}]).to_string();
        let last = [frame(opcode::TEXT, publish.as_bytes()), frame(opcode::CLOSE, &1001_u16.to_be_bytes())].concat();
        socket.send(&last).await;
    }
    soon("the node stops", stopping).await.expect("no panic");
    let mut due = Vec::new();
    while due.len() < CLIENTS {
        let more = reader.poll_at_once().await.data();
        assert!(!more.is_empty(), "{} of {CLIENTS} are stored: {due:?}", due.len());
        due.extend(more);
    }
    staying.stop().await;
}
