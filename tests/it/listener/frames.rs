//! Frames that come together: what one packet brought is processed together, in its order, and however the stream of
//! frames is cut, each is answered once.

use serde_json::{Value, json};

use crate::support::bayeux::{Client, MOUNT, Poster, publish as support_publish};
use crate::support::node::node;
use crate::support::soon;
use crate::support::websocket::{RawSocket, frame, frame_with, opcode};

/// A frame with one publish.
fn publish(id: &str, data: &Value) -> Vec<u8> {
    frame(opcode::TEXT, json!([{ "channel": "/chat/a", "id": id, "data": data }]).to_string().as_bytes())
}

fn ids(replies: &[Value]) -> Vec<&str> {
    replies.iter().map(|reply| reply["id"].as_str().expect("an id")).collect()
}

async fn next(socket: &mut RawSocket) -> Vec<Value> {
    soon("a frame", socket.next()).await.expect("the socket is open").messages()
}

#[tokio::test]
async fn publishes_of_one_packet_are_answered_together() {
    let node = node(|_| {}).await;
    let mut socket = RawSocket::open(node.addr(), MOUNT).await;
    for round in 0..3 {
        let sent: Vec<_> = (0..20).map(|number| format!("{round}-{number}")).collect();
        socket.send(&sent.iter().flat_map(|id| publish(id, &json!(id))).collect::<Vec<_>>()).await;
        let replies = next(&mut socket).await;
        assert_eq!(ids(&replies), sent);
        assert!(replies.iter().all(|reply| reply["successful"] == true), "{replies:?}");
    }
}

#[tokio::test]
async fn one_packet_keeps_its_order() {
    let node = node(|_| {}).await;
    let client = Client::handshake(node.addr()).await;
    let mut socket = RawSocket::open(node.addr(), MOUNT).await;
    let session = &client.id;
    let subscribe =
        json!({ "channel": "/meta/subscribe", "clientId": session, "subscription": "/chat/a", "id": "subscribe" });
    let packet = [
        publish("before", &json!(1)),
        frame(opcode::PING, b"between"),
        frame(opcode::TEXT, b"not JSON"),
        publish("second", &json!(2)),
        frame(opcode::TEXT, subscribe.to_string().as_bytes()),
        publish("after", &json!(3)),
        frame(opcode::TEXT, client.connect_message("connect", "websocket").to_string().as_bytes()),
        publish("last", &json!(4)),
    ];
    socket.send(&packet.concat()).await;
    let (mut answered, mut delivered) = (Vec::new(), Vec::new());
    while answered.len() < 6 || delivered.len() < 2 {
        for message in next(&mut socket).await {
            match message["id"].as_str() {
                Some(id) => answered.push(id.to_owned()),
                None => delivered.push(message["data"].clone()),
            }
        }
    }
    assert_eq!(answered, ["before", "second", "subscribe", "after", "connect", "last"]);
    assert_eq!(delivered, [json!(3), json!(4)], "what came after the subscription");
}

/// What breaks the protocol ends the socket; what came before it, in the same packet, is done.
#[tokio::test]
async fn publishes_before_a_violation_are_stored() {
    let node = node(|_| {}).await;
    let mut client = Client::connected(node.addr()).await;
    client.subscribe("/chat/a").await;
    let mut socket = RawSocket::open(node.addr(), MOUNT).await;
    let publishes = (0..10).flat_map(|number| publish(&number.to_string(), &json!(number)));
    let unmasked = frame_with(0x80 | opcode::TEXT, None, b"[]");
    socket.send(&publishes.chain(unmasked).collect::<Vec<_>>()).await;
    assert_eq!(ids(&next(&mut socket).await).len(), 10);
    let end = soon("the close frame", socket.next()).await.expect("a close frame");
    assert_eq!(end.close_code(), Some(1003));
    let mut stored = Vec::new();
    while stored.len() < 10 {
        stored.extend(client.poll().await.data());
    }
    assert_eq!(stored, (0..10).map(|number| json!(number)).collect::<Vec<_>>());
}

/// Also one that holds a session is told why, and its connect is answered first.
#[tokio::test]
async fn a_violation_on_a_socket_that_holds_a_session() {
    let node = node(|_| {}).await;
    let client = Client::connected(node.addr()).await;
    let mut socket = RawSocket::open(node.addr(), MOUNT).await;
    for id in ["first", "held"] {
        socket.send_text(&client.connect_message(id, "websocket").to_string()).await;
    }
    let mut answered = ids(&next(&mut socket).await).iter().map(ToString::to_string).collect::<Vec<_>>();
    socket.send(&[publish("last", &json!(1)), frame_with(0x80 | opcode::TEXT, None, b"[]")].concat()).await;
    let end = loop {
        let received = soon("the close frame", socket.next()).await.expect("a close frame");
        if received.opcode == opcode::CLOSE {
            break received;
        }
        answered.extend(ids(&received.messages()).into_iter().map(str::to_owned));
    };
    answered.sort();
    assert_eq!(answered, ["first", "held", "last"]);
    assert_eq!(end.close_code(), Some(1003));
}

/// While messages flow, a ping that asks whether they arrived comes with one of them, in one write, and covers it.
#[tokio::test]
async fn pings_ride_on_messages() {
    const PINGS: usize = 3;
    let node = node(|_| {}).await;
    let mut client = Client::connected(node.addr()).await;
    client.subscribe("/chat/a").await;
    let mut socket = RawSocket::open(node.addr(), MOUNT).await;
    socket.send_text(&client.connect_message("connect", "websocket").to_string()).await;
    let mut publisher = Poster::new(node.addr());
    let (mut number, mut pings, mut alone) = (0, 0, 0);
    while pings < PINGS {
        number += 1;
        support_publish(&mut publisher, "/chat/a", json!(number)).await;
        loop {
            let received = soon("a frame", socket.next_frame()).await.expect("the socket is open");
            if received.opcode == opcode::PING {
                // It may: where the machine stood still for a while.
                alone += 1;
                assert!(alone < 5, "{alone} pings came alone, {pings} with a message, of {number}");
                socket.send(&frame(opcode::PONG, &received.payload)).await;
                continue;
            }
            if received.messages().iter().any(|message| message["data"] == json!(number)) {
                break;
            }
        }
        if socket.has_frame() {
            let ping = socket.next_frame().await.expect("it is there");
            assert_eq!(ping.opcode, opcode::PING);
            socket.send(&frame(opcode::PONG, &ping.payload)).await;
            pings += 1;
        }
    }
    // The last one covers the message that it came with: that is not sent again.
    socket.send(&frame(opcode::CLOSE, &1000u16.to_be_bytes())).await;
    while soon("the end", socket.next_frame()).await.is_some() {}
    support_publish(&mut publisher, "/chat/a", json!("after")).await;
    assert_eq!(client.poll().await.data(), [json!("after")]);
}

/// Frames begin and end everywhere in what is read at once, and in the codec's own, smaller pieces.
#[tokio::test]
async fn frames_are_read_wherever_they_are_cut() {
    let seed = fastrand::u64(..);
    println!("seed {seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    let node = node(|_| {}).await;
    let mut socket = RawSocket::open(node.addr(), MOUNT).await;
    let mut number = 0;
    for round in 0..60 {
        let (mut stream, mut sent) = (Vec::new(), Vec::new());
        // Some rounds end exactly where a read may end.
        let border = [1024, 8192, 16_384, usize::MAX][round % 4];
        while stream.len() < 20_000 {
            let room = border - stream.len() % border;
            let size = match random.u8(..3) {
                0 => random.usize(..100),
                1 => random.usize(..3000),
                // Head and mask of the frame, and the envelope, take less.
                _ => room.saturating_sub(random.usize(50..90)).min(9000),
            };
            sent.push(number.to_string());
            stream.extend(publish(&number.to_string(), &json!("x".repeat(size))));
            number += 1;
        }
        let mut rest = &stream[..];
        while !rest.is_empty() {
            let (piece, others) = rest.split_at(rest.len().min(random.usize(1..20_000)));
            socket.send(piece).await;
            rest = others;
        }
        let mut answered = Vec::new();
        while answered.len() < sent.len() {
            answered.extend(ids(&next(&mut socket).await).into_iter().map(str::to_owned));
        }
        assert_eq!(answered, sent, "seed {seed}, round {round}");
    }
}
