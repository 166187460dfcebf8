//! What an operator does to a node that runs: asks it how it is, turns its log up, and tells it to leave.

use std::time::Duration;

use http::StatusCode;

use super::{Running, ended, text, weft};
use crate::support::bayeux::{Client, MOUNT};
use crate::support::http::{Connection, get, request, sample};
use crate::support::redis::Redis;
use crate::support::websocket::RawSocket;
use crate::support::{eventually, soon};

async fn log_level(node: &Running, method: &str, level: Option<&str>) -> (StatusCode, String) {
    let mut connection = Connection::open(node.internal).await;
    connection.send(&request(method, "/log/level", &[], level.map(str::as_bytes))).await;
    let answer = connection.response().await;
    (answer.status, answer.text().trim().to_owned())
}

#[tokio::test]
async fn the_log_is_turned_up_and_down() {
    let mut node = Running::start(&["--log-level", "info"]).await;
    assert_eq!(log_level(&node, "GET", None).await, (StatusCode::OK, "info".to_owned()));
    let level = "info,weft::transport=debug";
    assert_eq!(log_level(&node, "PUT", Some(level)).await, (StatusCode::OK, level.to_owned()));
    node.logs("log level changed").await;
    let mut socket = RawSocket::open(node.public, MOUNT).await;
    socket.send_text("no JSON").await;
    node.logs("malformed frame").await;

    for (wrong, says) in [("loud", "must be off, error"), ("", "must be off, error"), ("info,weft::x=loud", "loud")] {
        let (status, said) = log_level(&node, "PUT", Some(wrong)).await;
        assert_eq!(status, StatusCode::BAD_REQUEST, "{wrong}");
        assert!(said.contains(says), "{wrong}: {said}");
    }
    assert_eq!(log_level(&node, "GET", None).await.1, level);
    assert_eq!(log_level(&node, "DELETE", None).await.0, StatusCode::METHOD_NOT_ALLOWED);
    assert_eq!(get(node.public, "/log/level", &[]).await.status, StatusCode::NOT_FOUND, "not for everybody");
    assert_eq!(log_level(&node, "PUT", Some("off")).await.0, StatusCode::OK);
    let log = node.stop().await;
    assert!(log.is_empty(), "{log:?}");
}

#[tokio::test]
async fn what_is_said_again_and_again_is_cut_short() {
    let mut command = weft(&["--log-level", "info,weft::transport=debug"]);
    command.env("WEFT_LOG__LINES_A_SECOND", "3");
    let mut node = Running::start_in(tempfile::tempdir().expect("a directory"), command).await;
    let mut socket = RawSocket::open(node.public, MOUNT).await;
    for _ in 0..100 {
        socket.send_text("no JSON").await;
    }
    let mut lines = 0;
    let report = loop {
        let line = crate::support::within(Duration::from_secs(15), "a line", node.log.next_line()).await;
        let line = line.expect("readable").expect("the log goes on");
        lines += usize::from(line.contains("malformed frame"));
        if line.contains("left out") {
            break line;
        }
    };
    assert!((3..=9).contains(&lines), "{lines} lines within a few seconds");
    assert!(report.contains(&format!("\"count\":{}", 100 - lines)), "{lines} lines, and then {report}");
    node.stop().await;
}

#[tokio::test]
async fn a_container_asks_how_it_is() {
    let node = Running::start(&[]).await;
    let ask = |more: &'static [&'static str], node: &Running| {
        let mut command = weft(&["healthcheck", "--internal-listen", &node.internal.to_string()]);
        command.args(more);
        ended(command)
    };
    assert_eq!(ask(&[], &node).await.status.code(), Some(0));
    eventually(Duration::from_secs(10), "it is ready", async || {
        ask(&["--ready"], &node).await.status.success().then_some(())
    })
    .await;
    // As the node itself is told, in a container.
    let mut command = weft(&["healthcheck"]);
    command.env("WEFT_INTERNAL_LISTEN", format!("0.0.0.0:{}", node.internal.port()));
    assert_eq!(ended(command).await.status.code(), Some(0));
    let internal = node.internal.to_string();
    node.stop().await;
    let gone = ended(weft(&["healthcheck", "--internal-listen", &internal])).await;
    assert_eq!(gone.status.code(), Some(1));
    assert!(text(&gone.stderr).contains(&format!("no node answers at {internal}")), "{}", text(&gone.stderr));

    let waiting = Running::start(&["--redis-url", "redis+unix:///nowhere/redis.sock"]).await;
    assert_eq!(ask(&[], &waiting).await.status.code(), Some(0), "it lives");
    let said = ask(&["--ready"], &waiting).await;
    assert_eq!(said.status.code(), Some(1));
    assert!(text(&said.stderr).contains("/readyz answers 503: {\"ready\":false"), "{}", text(&said.stderr));
    assert_eq!(ended(weft(&["healthcheck", "--internal-listen", "here"])).await.status.code(), Some(2));
}

/// Clients leave one after the other; whoever cannot wait says so a second time.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_drains_first_and_a_second_signal_ends_that() {
    let redis = Redis::start().await;
    let mut node = Running::start(&["--redis-url", &redis.url()]).await;
    let mut sockets = Vec::new();
    for _ in 0..40 {
        let client = soon("a session", Client::handshake(node.public)).await;
        let mut socket = RawSocket::open(node.public, MOUNT).await;
        socket.send_text(&client.connect_message("bind", "websocket").to_string()).await;
        soon("an answer", socket.next_frame()).await.expect("open");
        sockets.push(socket);
    }
    node.signal("TERM");
    node.logs("draining").await;
    let (internal, moved) = (node.internal, r#"weft_attachments_moved_total{reason="drain"}"#);
    eventually(Duration::from_secs(5), "some have left", async || (sample(internal, moved).await >= 2.0).then_some(()))
        .await;
    assert_eq!(get(internal, "/readyz", &[]).await.json()["reason"], "draining");
    node.signal("TERM");
    let (code, log) = node.end().await;
    assert_eq!(code, Some(0), "{log:?}");
    assert!(log.iter().any(|line| line.contains("second signal")), "{log:?}");
}
