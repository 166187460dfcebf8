//! Deliveries with and without outgoing extensions, on every transport.

use serde_json::{Value, json};
use weft::{Message, RequestInfo, Verdict};

use super::{Hooks, next, parsed, raw};
use crate::support::bayeux::{Client, MOUNT, Poster, publish};
use crate::support::events::EventStream;
use crate::support::http::{Connection, get, json_request, request};
use crate::support::node::{node, node_with_extensions};
use crate::support::soon;
use crate::support::websocket::{RawSocket, Socket, UPGRADE};

/// Tells every receiver who it is, by its own header; a receiver called `deaf` gets nothing.
fn address(message: &mut Message, request: &RequestInfo) -> Verdict {
    let name = request.headers.get("x-name").and_then(|name| name.to_str().ok()).unwrap_or("nobody");
    if message.successful.is_none() && message.channel == "/news" {
        if name == "deaf" {
            return Verdict::Drop;
        }
        message.data = Some(raw(&json!({"for": name, "text": parsed(message.data.as_deref())})));
    }
    Verdict::Pass
}

/// A subscriber of `/news`.
async fn subscriber(node: &crate::support::node::TestNode) -> Client {
    let mut client = Client::connected(node.addr()).await;
    client.subscribe("/news").await;
    client
}

/// A socket with a header `X-Name`, which has the session of `client`.
async fn named_socket(client: &Client, node: &crate::support::node::TestNode, name: &str) -> RawSocket {
    let headers = [&UPGRADE[..], &[("X-Name", name)]].concat();
    let mut socket = RawSocket::upgrade(node.addr(), MOUNT, &headers).await.1.expect("a WebSocket");
    socket.send_text(&json!([client.connect_message("s", "websocket")]).to_string()).await;
    socket
}

#[tokio::test]
async fn each_receiver_gets_a_copy_of_its_own() {
    let node = node_with_extensions(Hooks::outgoing(address), Hooks::default(), |_| ()).await;
    let (polling, script, streaming) = (subscriber(&node).await, subscriber(&node).await, subscriber(&node).await);
    let (on_socket, on_deaf_socket) = (subscriber(&node).await, subscriber(&node).await);
    let inside = node.embedded().client().await.expect("a client");
    let mut within = inside.subscribe("/news").await.expect("subscribed");
    let mut stream = EventStream::open(node.addr(), &streaming.id, None).await;
    let mut socket = named_socket(&on_socket, &node, "socket").await;
    let mut deaf = named_socket(&on_deaf_socket, &node, "deaf").await;

    publish(&mut Poster::new(node.addr()), "/news", json!("hello")).await;
    let copy = |name: &str| json!({"channel": "/news", "data": {"for": name, "text": "hello"}});

    let mut connection = Connection::open(node.addr()).await;
    let connect = polling.connect_message("p", "long-polling").to_string();
    let headers = [("Content-Type", "application/json"), ("X-Name", "poll")];
    connection.send(&request("POST", MOUNT, &headers, Some(connect.as_bytes()))).await;
    let poll = connection.response().await.json();
    assert!(poll.as_array().is_some_and(|messages| messages.contains(&copy("poll"))), "{poll}");

    let connect = script.connect_message("c", "callback-polling").to_string();
    let query: String = form_urlencoded::byte_serialize(connect.as_bytes()).collect();
    let script = get(node.addr(), &format!("{MOUNT}?message={query}&jsonp=f"), &[("X-Name", "script")]).await.text();
    assert!(script.contains(&copy("script").to_string()), "{script}");

    let event = soon("an event", stream.next()).await.expect("the stream is open");
    assert_eq!(event.messages, [copy("nobody")]);

    assert_eq!(delivery(&mut socket).await, copy("socket"));
    assert_eq!(next(&mut within).await, ("/news".to_owned(), json!("hello")), "an in-process client is no peer");

    // The deaf socket got the next message on another channel only.
    let mut on_deaf_socket = on_deaf_socket;
    on_deaf_socket.subscribe("/other").await;
    publish(&mut Poster::new(node.addr()), "/other", json!(1)).await;
    assert_eq!(delivery(&mut deaf).await, json!({"channel": "/other", "data": 1}));
}

/// The next delivered message on a socket; replies are skipped.
async fn delivery(socket: &mut RawSocket) -> Value {
    loop {
        let frame = soon("a frame", socket.next()).await.expect("the socket is open");
        if let Some(message) = frame.messages().into_iter().find(|message| message.get("data").is_some()) {
            return message;
        }
    }
}

/// What all receivers drop is dropped for good: it neither blocks what follows nor comes again.
#[tokio::test]
async fn what_is_dropped_on_its_way_out_does_not_come_again() {
    let odd = Hooks::outgoing(|message, _| match message.successful {
        None if parsed(message.data.as_deref()).as_u64().is_some_and(|number| number % 2 == 1) => Verdict::Drop,
        _ => Verdict::Pass,
    });
    let node = node_with_extensions(odd, Hooks::default(), |_| ()).await;
    let mut polling = subscriber(&node).await;
    let streaming = subscriber(&node).await;
    let mut stream = EventStream::open(node.addr(), &streaming.id, None).await;
    let mut poster = Poster::new(node.addr());
    for number in 0..9 {
        publish(&mut poster, "/news", json!(number)).await;
    }
    let even = [0, 2, 4, 6, 8];
    let (mut polled, mut streamed) = (Vec::new(), Vec::new());
    while polled.len() < even.len() {
        polled.extend(polling.poll().await.data());
    }
    while streamed.len() < even.len() {
        let event = soon("an event", stream.next()).await.expect("the stream is open");
        streamed.extend(event.messages.iter().map(|message| message["data"].clone()));
    }
    assert_eq!(polled, even);
    assert_eq!(streamed, even);
}

#[tokio::test]
async fn replies_pass_through_extensions() {
    let replies = Hooks::outgoing(|message, _| match message.channel.as_str() {
        "/meta/handshake" => {
            message.ext = Some(raw(&json!({"hello": "world"})));
            Verdict::Pass
        }
        "/silent" if message.successful.is_some() => Verdict::Drop,
        _ => Verdict::Pass,
    });
    let node = node_with_extensions(replies, Hooks::default(), |_| ()).await;
    let handshake = json!({"channel": "/meta/handshake", "version": "1.0", "supportedConnectionTypes": ["websocket"]});
    let silent = json!({"channel": "/silent", "data": 1});
    let mut poster = Poster::new(node.addr());
    assert_eq!(soon("a reply", poster.post(&handshake)).await[0]["ext"], json!({"hello": "world"}));
    assert_eq!(soon("an answer", poster.post(&silent)).await, [Value::Null; 0]);
    let mut socket = Socket::open(node.addr()).await;
    socket.send(&silent).await;
    socket.send(&handshake).await;
    let frame = soon("a frame", socket.next()).await.expect("the socket is open");
    assert_eq!(frame[0]["ext"], json!({"hello": "world"}), "no frame for the reply that was dropped");
}

/// Without outgoing extensions everybody gets the same bytes, the publisher's own spelling of its data among them.
#[tokio::test]
async fn without_extensions_bytes_are_the_same_for_all() {
    const DATA: &str = r#"{"n": 1.00, "big":12345678901234567890,"s":"\u00e9\/"}"#;
    let node = node(|_| ()).await;
    let delivered = format!(r#"{{"channel":"/news","data":{DATA}}}"#);
    let polling = subscriber(&node).await;
    let (first, second) = (subscriber(&node).await, subscriber(&node).await);
    let mut sockets = [named_socket(&first, &node, "first").await, named_socket(&second, &node, "second").await];
    let streaming = subscriber(&node).await;
    let mut stream = Connection::open(node.addr()).await;
    let accept = [("Accept", "text/event-stream")];
    stream.send(&request("GET", &format!("{MOUNT}/{}", streaming.id), &accept, None)).await;
    soon("the head of a stream", stream.head()).await.expect("a head").expect("an open connection");

    let mut poster = Connection::open(node.addr()).await;
    poster.send(&json_request(MOUNT, format!(r#"{{"channel":"/news","data":{DATA}}}"#).as_bytes())).await;
    assert_eq!(poster.response().await.json()[0]["successful"], true);

    for socket in &mut sockets {
        let text = loop {
            let frame = soon("a frame", socket.next()).await.expect("the socket is open");
            let text = String::from_utf8(frame.payload).expect("UTF-8");
            if text.contains("/news") {
                break text;
            }
        };
        assert_eq!(text, format!("[{delivered}]"));
    }
    let connect = polling.connect_message("p", "long-polling").to_string();
    poster.send(&json_request(MOUNT, connect.as_bytes())).await;
    let poll = poster.response().await.text();
    assert!(poll.contains(&delivered), "{poll}");
    let mut events = String::new();
    let reading = async {
        while !events.contains("/news") {
            let piece = stream.piece(true).await.expect("the stream is open");
            events += &String::from_utf8(piece).expect("UTF-8");
        }
    };
    soon("an event", reading).await;
    assert!(events.contains(&format!("data: [{delivered}]\r\n")), "{events}");
}
