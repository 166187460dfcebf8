//! Health, readiness, counters, and the page at `/`.

use std::time::Duration;

use http::StatusCode;

use super::Running;
use crate::support::bayeux::round;
use crate::support::eventually;
use crate::support::http::{get, sample};

#[tokio::test]
async fn health_and_readiness_are_on_both_listeners() {
    let node = Running::start(&[]).await;
    for addr in [node.public, node.internal] {
        let health = get(addr, "/healthz", &[]).await;
        assert_eq!((health.status, health.text().trim()), (StatusCode::OK, "ok"));
        let ready = eventually(Duration::from_secs(10), "the node is ready", || async {
            Some(get(addr, "/readyz", &[]).await).filter(|ready| ready.status == 200)
        })
        .await;
        assert_eq!(ready.json(), serde_json::json!({"ready": true}));
        assert_eq!(ready.headers["cache-control"], "no-cache, no-store");
    }
    node.stop().await;
}

#[tokio::test]
async fn counters_are_internal_and_move() {
    let node = Running::start(&[]).await;
    assert_eq!(get(node.public, "/metrics", &[]).await.status, StatusCode::NOT_FOUND);

    let names = [
        r#"weft_messages_received_total{kind="handshake"}"#,
        r#"weft_messages_received_total{kind="subscribe"}"#,
        r#"weft_messages_received_total{kind="connect"}"#,
        r#"weft_messages_received_total{kind="publish"}"#,
        r#"weft_messages_received_total{kind="disconnect"}"#,
        "weft_messages_published_total",
        "weft_messages_delivered_total",
        "weft_connections_accepted_total",
    ];
    let mut before = Vec::new();
    for name in names {
        before.push(sample(node.internal, name).await);
    }
    round(node.public, "the first look at the counters").await;
    for (name, before) in names.into_iter().zip(before) {
        let after = sample(node.internal, name).await;
        assert!(after > before, "{name} moves: {before} {after}");
    }
    node.stop().await;
}

#[tokio::test]
async fn counters_are_in_the_form_that_prometheus_reads() {
    let node = Running::start(&[]).await;
    let metrics = get(node.internal, "/metrics", &[]).await;
    assert_eq!(metrics.status, 200);
    let kind = metrics.headers["content-type"].to_str().expect("text");
    assert!(kind.starts_with("text/plain; version=0.0.4"), "{kind}");
    let text = metrics.text();
    assert!(text.lines().count() > 40, "{text}");
    let mut typed = Vec::new();
    for line in text.lines() {
        match line.strip_prefix("# ") {
            Some(comment) => match comment.split_once(' ') {
                Some(("HELP", help)) => assert!(help.contains(' '), "a help text: {line}"),
                Some(("TYPE", kind)) => typed.extend(kind.split(' ').next().map(str::to_owned)),
                _ => panic!("an unknown comment: {line}"),
            },
            None => {
                let (name, value) = line.rsplit_once(' ').expect(line);
                assert!(value.parse::<f64>().is_ok(), "a number: {line}");
                let name = name.split('{').next().expect(line);
                assert!(typed.iter().any(|typed| typed == name), "a sample has a type: {line}");
            }
        }
    }
    assert!(typed.iter().any(|name| name == "process_resident_memory_bytes"), "{typed:?}");
    node.stop().await;
}

#[tokio::test]
async fn the_page_and_its_facts() {
    let node = Running::start(&["--mount", "/a", "--mount", "/b/c=cometd"]).await;
    let page = get(node.public, "/", &[]).await;
    assert_eq!(page.status, 200);
    assert_eq!(page.headers["content-type"], "text/html; charset=utf-8");
    assert!(page.headers.contains_key("content-security-policy"));
    assert!(page.text().to_ascii_lowercase().starts_with("<!doctype html>"), "{:.80}", page.text());
    let tag = page.headers["etag"].to_str().expect("text");
    assert_eq!(get(node.public, "/", &[("If-None-Match", tag)]).await.status, StatusCode::NOT_MODIFIED);

    for addr in [node.public, node.internal] {
        let status = get(addr, "/status.json", &[]).await;
        assert_eq!(status.headers["content-type"], "application/json; charset=utf-8");
        let status = status.json();
        assert_eq!(status["name"], "weft");
        assert_eq!(status["version"], env!("CARGO_PKG_VERSION"));
        assert_eq!(status["engine"], "memory");
        assert_eq!(
            status["mounts"],
            serde_json::json!([{"path": "/a", "dialect": "faye"}, {"path": "/b/c", "dialect": "cometd"}])
        );
        assert!(["uptime_seconds", "sessions", "connections"].iter().all(|key| status[key].is_u64()), "{status}");
        assert!(status["node"].as_str().is_some_and(|node| !node.is_empty()), "{status}");
    }

    let elsewhere = get(node.public, "/bayeux", &[]).await;
    assert_eq!(elsewhere.status, 404);
    assert!(elsewhere.text().contains("/a and /b/c"), "it says where: {}", elsewhere.text());
    node.stop().await;
}
