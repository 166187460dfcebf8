//! Extensions on the way in, and their registration.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use serde_json::{Value, json};
use tokio::sync::Semaphore;
use weft::server::LocalError;
use weft::{Extension, Message, RequestInfo, Verdict};

use super::{Hooks, next, parsed, raw};
use crate::support::bayeux::{Client, MOUNT, Poster, publish};
use crate::support::http::Cut;
use crate::support::node::{node, node_with_extensions};
use crate::support::soon;
use crate::support::websocket::{RawSocket, Socket, frame, opcode};

/// Appends a letter to the data of messages outside `/meta`.
fn append(letter: &'static str) -> impl Fn(&mut Message, &RequestInfo) -> Verdict {
    move |message, _| {
        if let Some(Value::String(text)) = message.data.as_deref().map(|data| parsed(Some(data))) {
            message.data = Some(raw(&json!(text + letter)));
        }
        Verdict::Pass
    }
}

async fn post(poster: &mut Poster, message: Value) -> Value {
    let mut replies = soon("a reply", poster.post(&message)).await;
    assert_eq!(replies.len(), 1, "{replies:?}");
    replies.remove(0)
}

#[tokio::test]
async fn they_run_in_the_order_of_registration_both_ways() {
    let both =
        |name, answer| Hooks { incoming: Hooks::incoming(append(name)).incoming, ..Hooks::outgoing(append(answer)) };
    let node = node_with_extensions(both("a", "A"), both("b", "B"), |_| ()).await;
    node.embedded().server().add_extension(Arc::new(both("c", "C")));
    let mut client = Client::connected(node.addr()).await;
    client.subscribe("/x").await;
    publish(&mut client.poster, "/x", json!("-")).await;
    assert_eq!(client.poll().await.data(), ["-abcABC"]);
}

#[tokio::test]
async fn they_change_what_is_asked() {
    let redirect = Hooks::incoming(|message, _| {
        if message.channel == "/old" {
            message.channel = "/new".to_owned();
            message.rest.push(("stamped".to_owned(), raw(&json!(true))));
        }
        Verdict::Pass
    });
    let node = node_with_extensions(redirect, Hooks::default(), |_| ()).await;
    let mut client = Client::connected(node.addr()).await;
    client.subscribe("/new").await;
    let reply = post(&mut client.poster, json!({"channel": "/old", "data": 1})).await;
    assert_eq!(reply["successful"], true, "{reply}");
    assert_eq!(client.poll().await.messages, [json!({"channel": "/new", "data": 1, "stamped": true})]);
}

#[tokio::test]
async fn they_refuse_with_and_without_advice() {
    let seen = Arc::new(AtomicUsize::new(0));
    let counted = seen.clone();
    let refuse = Hooks::incoming(|message, _| {
        match parsed(message.ext.as_deref())["refuse"].as_str() {
            Some("plain") => message.refuse("403::Not you"),
            Some("advised") => message.refuse_with_advice("403::Not you", raw(&json!({"reconnect": "none"}))),
            _ => {}
        }
        Verdict::Pass
    });
    let count = Hooks::incoming(move |message, _| {
        counted.fetch_add(usize::from(message.error.is_some()), Ordering::Relaxed);
        Verdict::Pass
    });
    let node = node_with_extensions(refuse, count, |_| ()).await;
    let mut client = Client::connected(node.addr()).await;
    client.subscribe("/x").await;
    let id = client.id.clone();
    let messages = [
        json!({"channel": "/meta/handshake", "version": "1.0", "supportedConnectionTypes": ["long-polling"]}),
        json!({"channel": "/meta/connect", "clientId": id, "connectionType": "long-polling"}),
        json!({"channel": "/meta/subscribe", "clientId": id, "subscription": "/y"}),
        json!({"channel": "/meta/unsubscribe", "clientId": id, "subscription": "/x"}),
        json!({"channel": "/x", "clientId": id, "data": 1}),
        json!({"channel": "/meta/disconnect", "clientId": id}),
    ];
    let mut socket = Socket::open(node.addr()).await;
    for mut message in messages.clone() {
        let name = message["channel"].clone();
        // Who may not have a session gets the server's advice where the extension has none.
        let session = name == "/meta/handshake" || name == "/meta/connect";
        for (how, reconnect) in [("plain", json!(session.then_some("handshake"))), ("advised", json!("none"))] {
            message["ext"] = json!({ "refuse": how });
            let by_post = post(&mut client.poster, message.clone()).await;
            socket.send(&message).await;
            let by_socket = soon("a frame", socket.next()).await.expect("the socket is open").remove(0);
            for reply in [by_post, by_socket] {
                assert_eq!(reply["successful"], false, "{how}: {reply}");
                assert_eq!(reply["error"], "403::Not you", "{how}: {reply}");
                assert_eq!(reply["advice"]["reconnect"], reconnect, "{how}: {reply}");
            }
        }
    }
    assert_eq!(seen.load(Ordering::Relaxed), 4 * messages.len(), "the second extension sees what the first refused");
    // Nothing of all that has happened.
    publish(&mut client.poster, "/x", json!("kept")).await;
    assert_eq!(client.poll().await.data(), ["kept"]);
}

#[tokio::test]
async fn they_drop_without_a_reply() {
    let dropping = Hooks::incoming(|message, _| match message.channel.as_str() {
        "/void" => Verdict::Drop,
        _ => Verdict::Pass,
    });
    let unseen = Hooks::incoming(|message, _| {
        assert_ne!(message.channel, "/void", "nobody sees what was dropped");
        Verdict::Pass
    });
    let node = node_with_extensions(dropping, unseen, |_| ()).await;
    let mut client = Client::connected(node.addr()).await;
    client.subscribe("/*").await;
    let (void, open) = (json!({"channel": "/void", "data": 1}), json!({"channel": "/open", "data": 2, "id": "o"}));
    assert_eq!(soon("an answer", client.poster.post(&void)).await, [Value::Null; 0]);
    let mixed = soon("an answer", client.poster.post(&json!([void, open, void]))).await;
    assert_eq!(mixed, [json!({"channel": "/open", "id": "o", "successful": true})]);

    let mut socket = Socket::open(node.addr()).await;
    socket.send(&void).await;
    socket.send(&open).await;
    let frame = soon("a frame", socket.next()).await.expect("the socket is open");
    assert_eq!(frame[0]["id"], "o", "no frame at all for what was dropped");

    let inside = node.embedded().client().await.expect("a client");
    assert_eq!(inside.publish("/void", &1).await, Err(LocalError::Dropped));
    assert_eq!(client.poll().await.data(), [2, 2]);
}

#[tokio::test]
async fn they_bind_clients_inside_too() {
    let refuse = Hooks::incoming(|message, request| {
        if message.channel == "/closed" {
            message.refuse("403:/closed:Not even you");
        }
        assert!(request.is_local() == request.peer.is_none());
        Verdict::Pass
    });
    let node = node_with_extensions(refuse, Hooks::incoming(append("!")), |_| ()).await;
    let client = node.embedded().client().await.expect("a client");
    let refused = client.publish("/closed", &1).await;
    assert_eq!(refused, Err(LocalError::Refused("403:/closed:Not even you".to_owned())));
    let mut open = client.subscribe("/open").await.expect("subscribed");
    client.publish("/open", &"x").await.expect("published");
    assert_eq!(next(&mut open).await.1, "x!");
}

/// Counts its registrations and its messages.
#[derive(Default)]
struct Counting {
    added: AtomicUsize,
    removed: AtomicUsize,
    seen: AtomicUsize,
}

impl Extension for Counting {
    fn incoming<'a>(&'a self, message: &'a mut Message, _: &'a RequestInfo) -> BoxFuture<'a, Verdict> {
        self.seen.fetch_add(usize::from(message.channel == "/counted"), Ordering::Relaxed);
        futures_util::future::ready(Verdict::Pass).boxed()
    }

    fn added(&self) {
        self.added.fetch_add(1, Ordering::Relaxed);
    }

    fn removed(&self) {
        self.removed.fetch_add(1, Ordering::Relaxed);
    }
}

#[tokio::test]
async fn they_come_and_go_at_run_time() {
    let node = node(|_| ()).await;
    let server = node.embedded().server();
    let mut socket = Socket::open(node.addr()).await;
    let mut poster = Poster::new(node.addr());
    let message = json!({"channel": "/counted", "data": 1});
    let mut both = async || {
        publish(&mut poster, "/counted", json!(1)).await;
        socket.send(&message).await;
        soon("a frame", socket.next()).await.expect("the socket is open");
    };
    let counting = Arc::new(Counting::default());
    let counts = || [&counting.added, &counting.removed, &counting.seen].map(|count| count.load(Ordering::Relaxed));

    both().await;
    assert_eq!(counts(), [0, 0, 0]);
    let (first, second) = (server.add_extension(counting.clone()), server.add_extension(counting.clone()));
    both().await;
    assert_eq!(counts(), [2, 0, 4]);
    assert!(server.remove_extension(first));
    assert!(!server.remove_extension(first), "it is gone");
    both().await;
    assert_eq!(counts(), [2, 1, 6]);
    assert!(server.remove_extension(second));
    assert!(!server.has_extensions());
    both().await;
    assert_eq!(counts(), [2, 2, 6]);
}

/// Holds up what is published to `/gate` until it gets a permit.
struct Gate {
    arrived: Semaphore,
    permits: Semaphore,
}

impl Gate {
    fn closed() -> Arc<Self> {
        Arc::new(Self { arrived: Semaphore::new(0), permits: Semaphore::new(0) })
    }
}

impl Extension for Gate {
    fn incoming<'a>(&'a self, message: &'a mut Message, _: &'a RequestInfo) -> BoxFuture<'a, Verdict> {
        async move {
            if message.channel == "/gate" {
                self.arrived.add_permits(1);
                self.permits.acquire().await.expect("the gate stays").forget();
            }
            Verdict::Pass
        }
        .boxed()
    }
}

#[tokio::test]
async fn one_that_waits_holds_up_its_own_batch_only() {
    let node = node(|_| ()).await;
    let gate = Gate::closed();
    node.embedded().server().add_extension(gate.clone());
    let mut client = Client::connected(node.addr()).await;
    client.subscribe("/*").await;
    let mut waiting = Poster::new(node.addr());
    waiting.begin(&json!([{"channel": "/gate", "data": 1}, {"channel": "/behind", "data": 2}])).await;
    let mut socket = Socket::open(node.addr()).await;
    socket.send(&json!({"channel": "/gate", "data": 3})).await;
    socket.send(&json!({"channel": "/behind", "data": 4})).await;

    publish(&mut client.poster, "/free", json!(0)).await;
    assert_eq!(client.poll().await.data(), [0], "others go on");
    gate.permits.add_permits(2);
    let replies = soon("the batch is answered", waiting.finish()).await;
    assert!(replies.len() == 2 && replies.iter().all(|reply| reply["successful"] == true), "{replies:?}");
    for channel in ["/gate", "/behind"] {
        let frame = soon("a frame", socket.next()).await.expect("the socket is open");
        assert_eq!(frame[0]["channel"], channel, "one order per connection");
    }
    let mut data = Vec::new();
    while data.len() < 4 {
        data.extend(client.poll().await.data());
    }
    let place = |number: u64| data.iter().position(|value| *value == number).expect("published");
    assert!(place(1) < place(2) && place(3) < place(4), "{data:?}");
}

/// A peer that publishes and breaks off, while its first publish is still under way and its reply cannot be written any more:
/// the others, which nobody has read yet, are stored all the same.
#[tokio::test]
async fn what_a_peer_sent_before_it_broke_off_is_stored() {
    for how in [Cut::Fin, Cut::Rst] {
        let node = node(|_| ()).await;
        let gate = Gate::closed();
        node.embedded().server().add_extension(gate.clone());
        let mut client = Client::connected(node.addr()).await;
        client.subscribe("/*").await;
        let mut socket = RawSocket::open(node.addr(), MOUNT).await;
        socket.send_text(r#"[{"channel":"/gate","data":0}]"#).await;
        soon("the first publish is under way", gate.arrived.acquire()).await.expect("the gate stays").forget();
        // In one packet, which is with the node's kernel at once.
        let behind = (1..=20).map(|number| json!([{"channel": "/behind", "data": number}]).to_string());
        let behind = behind.flat_map(|text| frame(opcode::TEXT, text.as_bytes()));
        // A ping before them wants an answer, which cannot be written either.
        socket.send(&frame(opcode::PING, b"1").into_iter().chain(behind).collect::<Vec<_>>()).await;
        socket.cut(how);
        gate.permits.add_permits(1);
        let mut data = Vec::new();
        while data.len() <= 20 {
            let more = soon("all are stored", client.poll()).await.data();
            data.extend(more);
        }
        assert_eq!(data, (0..=20).map(|number| json!(number)).collect::<Vec<_>>());
    }
}

/// A peer that has ended its side cannot confirm anything any more. While its last publish is still under way, what comes for
/// its session is left to who holds that next.
#[tokio::test]
async fn what_comes_after_the_peers_end_comes_once() {
    let node = node(|_| ()).await;
    let gate = Gate::closed();
    node.embedded().server().add_extension(gate.clone());
    let mut client = Client::connected(node.addr()).await;
    client.subscribe("/chat").await;
    let mut socket = RawSocket::open(node.addr(), MOUNT).await;
    socket.send_text(&client.connect_message("held", "websocket").to_string()).await;
    let mut publisher = Poster::new(node.addr());
    publish(&mut publisher, "/chat", json!(0)).await;
    let mut received = Vec::new();
    while received.is_empty() {
        received = data_of(&soon("the first message", socket.next()).await.expect("open").messages());
    }
    assert_eq!(received, [0], "the hub writes to the socket");
    socket.send_text(r#"[{"channel":"/gate","data":0}]"#).await;
    socket.end_sending().await;
    soon("its last publish is under way", gate.arrived.acquire()).await.expect("the gate stays").forget();
    for number in 1..=5 {
        publish(&mut publisher, "/chat", json!(number)).await;
    }
    gate.permits.add_permits(1);
    received.clear();
    while let Some(frame) = soon("the end", socket.next()).await {
        received.extend(data_of(&frame.messages()));
    }
    // The first one was not confirmed: it may come again.
    loop {
        let more = client.poll_at_once().await.data();
        if more.is_empty() {
            break;
        }
        received.extend(more.into_iter().filter(|data| *data != json!(0)));
    }
    assert_eq!(received, (1..=5).map(|number| json!(number)).collect::<Vec<_>>());
}

fn data_of(messages: &[Value]) -> Vec<Value> {
    messages.iter().filter(|message| message["channel"] == "/chat").map(|message| message["data"].clone()).collect()
}
