//! What a line of the log says of the request, message and session that it is about; and what the log says at the start.

use serde_json::{Value, json};

use super::{Running, weft};
use crate::support::bayeux::{Client, MOUNT, Poster};
use crate::support::http::{Connection, request};
use crate::support::websocket::{RawSocket, UPGRADE};

/// The spans of a line by their names.
fn spans(line: &str) -> Value {
    let line: Value = serde_json::from_str(line).expect(line);
    let spans = line["spans"].as_array().cloned().unwrap_or_default();
    let named = |span: &Value| (span["name"].as_str().unwrap_or_default().to_owned(), span.clone());
    spans.iter().map(named).collect::<serde_json::Map<_, _>>().into()
}

#[tokio::test]
async fn lines_of_a_request_go_together() {
    let mut node = Running::start(&["--log-level", "debug"]).await;
    let mut connection = Connection::open(node.public).await;
    let mut ids = Vec::new();
    for _ in 0..2 {
        let headers = [("Content-Type", "application/json"), ("X-Request-Id", "of-the-proxy")];
        connection.send(&request("POST", MOUNT, &headers, Some(b"no JSON"))).await;
        assert_eq!(connection.response().await.status.as_u16(), 400);
        let why = spans(&node.logs("bad request").await)["request"].clone();
        let answered = node.logs("answered").await;
        assert!(answered.contains("\"status\":400"), "{answered}");
        assert_eq!(spans(&answered)["request"], why, "the same request");
        assert_eq!(
            (&why["proxy_id"], &why["method"], &why["path"]),
            (&json!("of-the-proxy"), &json!("POST"), &json!(MOUNT)),
            "{why}"
        );
        assert_eq!(why["id"].as_str().map(str::len), Some(16), "{why}");
        ids.push(why["id"].clone());
    }
    assert_ne!(ids[0], ids[1], "each request has its own");

    let client = Client::handshake(node.public).await;
    let made = spans(&node.logs("session made").await);
    assert_eq!(made["handshake"]["session"], json!(client.id), "{made}");
    let named = format!("/{}", "x".repeat(2000));
    Poster::new(node.public).post(&json!([{"channel": named, "data": 1}])).await;
    let refused = spans(&node.logs("Channel too long").await);
    assert!(refused["request"]["id"].is_string(), "{refused}");
    node.stop().await;
}

#[tokio::test]
async fn lines_of_a_socket_go_together() {
    let mut node = Running::start(&["--log-level", "debug"]).await;
    let headers = [&UPGRADE[..], &[("X-Request-Id", "of-the-proxy")]].concat();
    let (_, socket) = RawSocket::upgrade(node.public, MOUNT, &headers).await;
    let mut socket = socket.expect("it is upgraded");
    socket.send_text("no JSON").await;
    let opened = spans(&node.logs("malformed frame").await)["request"].clone();
    assert_eq!(opened["proxy_id"], json!("of-the-proxy"), "{opened}");
    let hello = json!([{"channel": "/meta/handshake", "version": "1.0", "supportedConnectionTypes": ["websocket"]}]);
    socket.send_text(&hello.to_string()).await;
    let made = spans(&node.logs("session made").await);
    assert_eq!(made["frame"]["id"], opened["id"], "{made}");
    assert!(made["request"].is_null(), "no trace as old as the socket: {made}");
    assert!(made["handshake"]["session"].is_string(), "{made}");
    node.stop().await;
}

#[tokio::test]
async fn without_debug_there_are_no_spans() {
    let mut node = Running::start(&["--log-level", "info,weft::transport::answer=debug"]).await;
    let mut connection = Connection::open(node.public).await;
    connection.send(&request("POST", MOUNT, &[("Content-Type", "application/json")], Some(b"no JSON"))).await;
    assert_eq!(spans(&node.logs("bad request").await), json!({}));
    node.stop().await;
}

#[tokio::test]
async fn too_few_files_are_told_of_at_the_start() {
    for (connections, told) in [("200", true), ("100", false)] {
        let mut command = tokio::process::Command::new("sh");
        command.args(["-c", r#"ulimit -n 256 && exec "$0" "$@""#, env!("CARGO_BIN_EXE_weft")]);
        for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("WEFT_")) {
            command.env_remove(name);
        }
        command.env("WEFT_LIMITS__CONNECTIONS", connections);
        command.stdin(std::process::Stdio::null()).stderr(std::process::Stdio::piped()).kill_on_drop(true);
        let node = Running::start_in(tempfile::tempdir().expect("a directory"), command).await;
        let lines = node.stop().await;
        let line = lines.iter().find(|line| line.contains("limit of open files is too low"));
        assert_eq!(line.is_some(), told, "{connections}: {lines:?}");
        if let Some(line) = line {
            assert!(line.contains("\"limit\":256") && line.contains("\"connections\":200"), "{line}");
        }
    }
}

#[cfg(not(feature = "otlp"))]
#[tokio::test]
async fn traces_that_cannot_be_sent_are_told_of() {
    for (disabled, told) in [("false", true), ("true", false)] {
        let mut command = weft(&[]);
        command.env("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:4317").env("OTEL_SDK_DISABLED", disabled);
        let node = Running::start_in(tempfile::tempdir().expect("a directory"), command).await;
        let lines = node.stop().await;
        assert_eq!(lines.iter().any(|line| line.contains("without the feature `otlp`")), told, "{lines:?}");
    }
}
