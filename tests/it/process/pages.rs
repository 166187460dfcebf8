//! Health, readiness, counters, and the page at `/`.

use std::time::Duration;

use http::StatusCode;
use serde_json::json;

use super::{Running, weft};
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
                Some(("TYPE", kind)) => {
                    let (name, kind) = kind.split_once(' ').expect(line);
                    typed.push(name.to_owned());
                    if kind == "histogram" {
                        typed.extend(["_bucket", "_sum", "_count"].map(|end| format!("{name}{end}")));
                    }
                }
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
        let mounts = status["mounts"].as_array().expect("mounts");
        let seen: Vec<_> = mounts.iter().map(|mount| (&mount["path"], &mount["dialect"])).collect();
        assert_eq!(seen, [(&json!("/a"), &json!("faye")), (&json!("/b/c"), &json!("cometd"))]);
        assert!(["uptime_seconds", "sessions", "connections"].iter().all(|key| status[key].is_u64()), "{status}");
        assert!(status["node"].as_str().is_some_and(|node| !node.is_empty()), "{status}");
    }

    let elsewhere = get(node.public, "/bayeux", &[]).await;
    assert_eq!(elsewhere.status, 404);
    assert!(elsewhere.text().contains("/a and /b/c"), "it says where: {}", elsewhere.text());
    node.stop().await;
}

#[tokio::test]
async fn the_page_can_be_switched_off() {
    let mut command = weft(&[]);
    command.env("WEFT_PAGE", "false");
    let node = Running::start_in(tempfile::tempdir().expect("a temporary directory"), command).await;
    for path in ["/", "/status.json"] {
        assert_eq!(get(node.public, path, &[]).await.status, 404, "{path}");
    }
    assert_eq!(get(node.internal, "/status.json", &[]).await.status, 200);
    let call = json!([{"channel": "/service/node", "data": {}, "id": "1"}]);
    let mut poster = crate::support::bayeux::Poster::new(node.public);
    assert_eq!(poster.post(&call).await.len(), 1, "nobody answers but the publish");
    node.stop().await;
    let node = Running::start(&[]).await;
    let mut poster = crate::support::bayeux::Poster::new(node.public);
    let answers = poster.post(&call).await;
    let name = get(node.public, "/status.json", &[]).await.json()["node"].clone();
    assert!(answers.iter().any(|answer| answer["data"] == json!({"node": name})), "{answers:?}");
    node.stop().await;
}

#[tokio::test]
async fn clients_are_served_compressed_and_for_ever() {
    let node = Running::start(&["--mount", "/a", "--mount", "/b/c=cometd"]).await;
    let status = get(node.public, "/status.json", &[]).await.json();
    let plain = get(node.public, "/a/client.js", &[]).await;
    assert!(plain.text().contains("Weft"), "{:.80}", plain.text());
    assert_eq!(plain.headers["content-type"], "text/javascript; charset=utf-8");
    for path in ["/a.js", "/a/a.js", "/a/deep/client.js", "/b/c.js", "/b/c/c.js", "/b/c/client.js"] {
        assert_eq!(get(node.public, path, &[]).await.text(), plain.text(), "{path}");
    }
    let mut tags = vec![plain.headers["etag"].clone()];
    for (accepted, encoding) in [("gzip", "gzip"), ("gzip, deflate, br", "br")] {
        for path in ["/a/client.js", "/b/c/client.mjs"] {
            let sent = get(node.public, path, &[("Accept-Encoding", accepted)]).await;
            assert_eq!(
                (sent.status.as_u16(), &sent.headers["content-encoding"]),
                (200, &http::HeaderValue::from_static(encoding))
            );
            assert_eq!(sent.headers["vary"], "Accept-Encoding");
            assert!(sent.body.len() < 12 * 1024, "{path}: {} bytes", sent.body.len());
            let tag = sent.headers["etag"].to_str().expect("text").to_owned();
            assert!(tag.starts_with('"') && !tags.contains(&sent.headers["etag"]), "{tag}");
            tags.push(sent.headers["etag"].clone());
            for known in [tag.clone(), tag.trim_matches('"').to_owned(), format!("\"x\", {tag}")] {
                let headers = [("Accept-Encoding", accepted), ("If-None-Match", &*known)];
                let again = get(node.public, path, &headers).await;
                assert_eq!((again.status.as_u16(), again.body.len()), (304, 0), "{known}");
            }
        }
    }
    for mount in status["mounts"].as_array().expect("mounts") {
        let path = mount["client"].as_str().expect("a path");
        let sent = get(node.public, path, &[]).await;
        assert_eq!((sent.status.as_u16(), sent.text()), (200, plain.text()), "{path}");
        assert_eq!(sent.headers["cache-control"], "public, max-age=31536000, immutable");
    }
    assert_eq!(plain.headers["cache-control"], "no-cache");
    assert_eq!(get(node.public, "/a/client.d.ts", &[]).await.status, 200);
    for path in ["/a/client-0123456789abcdef.js", "/a/other.js", "/a/other.mjs", "/a/x.map"] {
        assert_eq!(get(node.public, path, &[]).await.status, 404, "{path}");
    }
    node.stop().await;
}
