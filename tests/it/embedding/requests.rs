//! What extensions are told of the request behind a message.

use std::net::SocketAddr;
use std::sync::Arc;

use parking_lot::Mutex;
use serde_json::json;
use weft::server::Transport;
use weft::{RequestInfo, Verdict};

use super::{Hooks, next};
use crate::support::bayeux::{Client, MOUNT, Poster, publish};
use crate::support::events::EventStream;
use crate::support::http::{Connection, get, request};
use crate::support::node::{node, node_with_extensions};
use crate::support::soon;
use crate::support::websocket::{RawSocket, UPGRADE};

/// What one message was accompanied by.
#[derive(Debug, Clone, PartialEq)]
struct Seen {
    channel: String,
    transport: Transport,
    dialect: String,
    test_header: Option<String>,
    peer: Option<SocketAddr>,
}

type Diary = Arc<Mutex<Vec<Seen>>>;

fn note(diary: &Diary, channel: &str, request: &RequestInfo) {
    let header = request.headers.get("x-test").map(|value| value.to_str().expect("text").to_owned());
    diary.lock().push(Seen {
        channel: channel.to_owned(),
        transport: request.transport,
        dialect: request.dialect.to_string(),
        test_header: header,
        peer: request.peer,
    });
}

#[tokio::test]
async fn of_messages_that_come_in() {
    let diary = Diary::default();
    let notes = diary.clone();
    let watch = Hooks::incoming(move |message, request| {
        note(&notes, &message.channel, request);
        Verdict::Pass
    });
    let node = node_with_extensions(watch, Hooks::default(), |_| ()).await;
    let publish_to = |channel: &str| json!({"channel": channel, "data": 1}).to_string();

    let mut post = Connection::open(node.addr()).await;
    let headers = [("Content-Type", "application/json"), ("X-Test", "post")];
    post.send(&request("POST", MOUNT, &headers, Some(publish_to("/by/post").as_bytes()))).await;
    assert_eq!(post.response().await.status, 200);
    post.send(&request("POST", "/cometd", &headers, Some(publish_to("/by/cometd").as_bytes()))).await;
    assert_eq!(post.response().await.status, 200);

    let query: String = form_urlencoded::byte_serialize(publish_to("/by/get").as_bytes()).collect();
    let script = get(node.addr(), &format!("{MOUNT}?message={query}&jsonp=f"), &[("X-Test", "get")]).await;
    assert!(script.text().starts_with("/**/f(["), "{}", script.text());

    let headers = [&UPGRADE[..], &[("X-Test", "socket")]].concat();
    let (_, socket) = RawSocket::upgrade(node.addr(), MOUNT, &headers).await;
    let mut socket = socket.expect("a WebSocket");
    socket.send_text(&publish_to("/by/socket")).await;
    soon("a reply", socket.next()).await.expect("the socket is open");

    node.embedded().client().await.expect("a client").publish("/by/hand", &1).await.expect("published");

    let seen = diary.lock().clone();
    for (channel, transport, dialect, header) in [
        ("/by/post", Transport::LongPolling, "faye", Some("post")),
        ("/by/cometd", Transport::LongPolling, "cometd", Some("post")),
        ("/by/get", Transport::CallbackPolling, "faye", Some("get")),
        ("/by/socket", Transport::WebSocket, "faye", Some("socket")),
        ("/by/hand", Transport::InProcess, "faye", None),
    ] {
        let of_channel: Vec<_> = seen.iter().filter(|seen| seen.channel == channel).collect();
        let [seen] = of_channel[..] else { panic!("{channel} once: {of_channel:?}") };
        assert_eq!((seen.transport, seen.dialect.as_str()), (transport, dialect), "{seen:?}");
        assert_eq!(seen.test_header.as_deref(), header, "{seen:?}");
        match seen.peer {
            Some(peer) => assert!(peer.ip().is_loopback() && peer != node.addr(), "{seen:?}"),
            None => assert_eq!(transport, Transport::InProcess, "{seen:?}"),
        }
    }
}

#[tokio::test]
async fn of_messages_that_go_out() {
    let diary = Diary::default();
    let notes = diary.clone();
    let watch = Hooks::outgoing(move |message, request| {
        note(&notes, &message.channel, request);
        Verdict::Pass
    });
    let node = node_with_extensions(watch, Hooks::default(), |_| ()).await;
    let mut client = Client::connected(node.addr()).await;
    client.subscribe("/out").await;
    let mut stream = EventStream::open(node.addr(), &client.id, None).await;
    publish(&mut Poster::new(node.addr()), "/out", json!(1)).await;
    soon("an event", stream.next()).await.expect("the stream is open");

    let seen = diary.lock().clone();
    let out: Vec<_> = seen.iter().filter(|seen| seen.channel == "/out").collect();
    assert_eq!(out.len(), 2, "the acknowledgement and the delivery: {out:?}");
    assert_eq!([out[0].transport, out[1].transport], [Transport::LongPolling, Transport::EventSource]);
    assert!(out.iter().all(|seen| seen.peer.is_some()), "{out:?}");
    assert_ne!(out[0].peer, out[1].peer);
    for channel in ["/meta/handshake", "/meta/connect", "/meta/subscribe"] {
        let replies: Vec<_> = seen.iter().filter(|seen| seen.channel == channel && seen.peer.is_some()).collect();
        assert_eq!(replies.len(), 1, "{channel}: {replies:?}");
    }
}

/// Nobody is asked for headers while nobody can look at them: a socket opened before the extension came has none.
#[tokio::test]
async fn of_sockets_older_than_the_extension() {
    let node = node(|_| ()).await;
    let headers = [&UPGRADE[..], &[("X-Test", "old")]].concat();
    let mut socket = RawSocket::upgrade(node.addr(), MOUNT, &headers).await.1.expect("a WebSocket");
    let diary = Diary::default();
    let notes = diary.clone();
    node.embedded().server().add_extension(Arc::new(Hooks::incoming(move |message, request| {
        note(&notes, &message.channel, request);
        Verdict::Pass
    })));
    let client = node.embedded().client().await.expect("a client");
    let mut subscription = client.subscribe("/old").await.expect("subscribed");
    socket.send_text(&json!({"channel": "/old", "data": 1}).to_string()).await;
    assert_eq!(next(&mut subscription).await.1, 1);
    let seen = diary.lock().iter().find(|seen| seen.channel == "/old").cloned().expect("it was seen");
    assert_eq!((seen.transport, seen.test_header), (Transport::WebSocket, None));
    assert!(seen.peer.is_some());
}
