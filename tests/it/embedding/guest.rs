//! A node inside another program's server: axum's, which is hyper's for several protocols, and hyper's own.

use std::net::SocketAddr;

use hyper_util::rt::TokioIo;
use hyper_util::service::TowerToHyperService;
use serde_json::json;
use tokio::net::TcpListener;
use weft::client::Transport;
use weft::{Client, Config, Node};

use crate::support::bayeux::{self, MOUNT, Poster, publish};
use crate::support::events::EventStream;
use crate::support::http::{Cut, get};
use crate::support::soon;

async fn embedded() -> Node {
    let config = Config { internal_listen: SocketAddr::from(([127, 0, 0, 1], 0)), ..Config::default() };
    Node::builder(config).embedded().start().await.expect("the node starts")
}

/// Serves a node by axum, beside a page of its own.
async fn by_axum(node: &Node) -> SocketAddr {
    let program =
        axum::Router::new().route("/own", axum::routing::get(|| async { "own page" })).fallback_service(node.service());
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let addr = listener.local_addr().expect("bound");
    tokio::spawn(async move { axum::serve(listener, program).await });
    addr
}

/// Serves a node by hyper alone.
async fn by_hyper(node: &Node) -> SocketAddr {
    let service = node.service();
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let addr = listener.local_addr().expect("bound");
    tokio::spawn(async move {
        while let Ok((tcp, peer)) = listener.accept().await {
            let service = TowerToHyperService::new(service.from_peer(peer));
            let connection = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(tcp), service);
            tokio::spawn(connection.with_upgrades());
        }
    });
    addr
}

#[tokio::test]
async fn clients_of_every_kind_come_through_another_server() {
    let node = embedded().await;
    assert_eq!(node.public_addr().port(), 0);
    for (name, addr) in [("axum", by_axum(&node).await), ("hyper", by_hyper(&node).await)] {
        let url = format!("http://{addr}{MOUNT}");
        for transport in [Transport::WebSocket, Transport::LongPolling] {
            let client = Client::builder(&url).transports(&[transport]).connect().await.expect("connected");
            let mut all = client.subscribe("/guest/**").await.expect("subscribed");
            for number in 0..20 {
                client.publish("/guest/a", &number).await.expect("stored");
            }
            for number in 0..20 {
                let message = soon("a message", all.next()).await.expect("comes");
                assert_eq!(message.data::<u64>().expect("a number"), number, "{name} {transport:?}");
            }
            client.close().await;
        }
        let mut client = bayeux::Client::handshake(addr).await;
        client.subscribe("/guest/stream").await;
        let mut stream = EventStream::open(addr, &client.id, None).await;
        publish(&mut Poster::new(addr), "/guest/stream", json!(name)).await;
        let event = soon("an event", stream.next()).await.expect("the stream is open");
        assert_eq!(event.messages[0]["data"], name);
        assert!(get(addr, "/bayeux/client.js", &[]).await.text().contains("Weft"));
    }
    let addr = by_axum(&node).await;
    assert_eq!(get(addr, "/own", &[]).await.text(), "own page");
    assert!(soon("the node stops", node.stop()).await);
}

#[tokio::test]
async fn a_poll_that_is_cut_there_loses_nothing() {
    let node = embedded().await;
    let addr = by_axum(&node).await;
    let mut client = bayeux::Client::connected(addr).await;
    client.subscribe("/guest").await;
    for (number, how) in [Cut::Fin, Cut::Rst].into_iter().enumerate() {
        let mut poll = client.begin_poll(&format!("cut {number}")).await;
        poll.take().cut(how);
        publish(&mut Poster::new(addr), "/guest", json!(number)).await;
        let poll = soon("the next poll", client.connect(&format!("cut {number}"), None)).await;
        assert_eq!(poll.data(), [json!(number)]);
    }
}

#[tokio::test]
async fn the_example_serves_pages_and_clients() {
    use tokio::io::{AsyncBufReadExt, BufReader};

    // Cargo builds examples beside the tests, unless it is told to build one test alone.
    let program = std::path::Path::new(env!("CARGO_BIN_EXE_weft")).with_file_name("examples").join("embed_axum");
    assert!(program.exists(), "run `cargo build --examples` first");
    let mut child = tokio::process::Command::new(program)
        .arg("127.0.0.1:0")
        .stdout(std::process::Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .expect("the example starts");
    let mut lines = BufReader::new(child.stdout.take().expect("piped")).lines();
    let line = soon("a line", lines.next_line()).await.expect("text").expect("it runs");
    let addr: SocketAddr =
        line.trim_start_matches("listening on http://").trim_end_matches('/').parse().expect("an address");
    let client = Client::connect(&format!("http://{addr}{MOUNT}")).await.expect("connected");
    let mut greetings = client.subscribe("/greetings/*").await.expect("subscribed");
    assert_eq!(get(addr, "/hello/Ada", &[]).await.text(), "hello Ada\n");
    let greeting = soon("a greeting", greetings.next()).await.expect("comes");
    assert_eq!((greeting.channel(), greeting.raw().get()), ("/greetings/Ada", "\"hello Ada\""));
}
