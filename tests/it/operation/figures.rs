//! The figures that a node shows are those that `docs/metrics.md` explains, and they count what happens.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::json;

use crate::support::bayeux::{Client, MOUNT, Poster, publish};
use crate::support::events::EventStream;
use crate::support::http::{get, sample};
use crate::support::node::node;
use crate::support::redis::Redis;
use crate::support::websocket::RawSocket;
use crate::support::{eventually, soon};

/// Name to type and labels, as a node shows them.
fn shown(text: &str) -> BTreeMap<String, (String, String)> {
    let mut shown = BTreeMap::new();
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').expect("a type");
            shown.insert(name.to_owned(), (kind.to_owned(), String::new()));
        }
    }
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let Some((name, rest)) = line.split_once('{') else { continue };
        let base = ["_bucket", "_sum", "_count"].into_iter().find_map(|end| name.strip_suffix(end));
        let name = base.filter(|base| shown.contains_key(*base)).unwrap_or(name);
        let labels = rest.split_once('}').expect("labels").0;
        let mut names: Vec<_> =
            labels.split("\",").map(|one| one.split('=').next().expect("a name")).filter(|one| *one != "le").collect();
        names.sort_unstable();
        shown.get_mut(name).expect("typed").1 = names.join(", ");
    }
    shown
}

/// As the table of the documentation has them: `| `name` | type | labels | meaning |`.
fn documented() -> BTreeMap<String, (String, String)> {
    let page = include_str!("../../../docs/metrics.md");
    let rows = page.lines().filter_map(|line| {
        let cells: Vec<_> = line.trim_matches('|').split('|').map(str::trim).collect();
        let [name, kind, labels, meaning] = cells[..] else { return None };
        let name = name.strip_prefix('`')?.strip_suffix('`')?;
        assert!(meaning.len() > 10, "{name} is explained");
        let labels = labels.replace('`', "");
        Some((name.to_owned(), (kind.to_owned(), labels)))
    });
    rows.collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_figure_is_documented() {
    let redis = Redis::start().await;
    let node = node(|config| config.redis.url = redis.url()).await;
    soon("the node is ready", node.embedded().ready()).await;
    let text = get(node.internal_addr(), "/metrics", &[]).await.text();
    let (shown, documented) = (shown(&text), documented());
    let undocumented: Vec<_> = shown.iter().filter(|(name, _)| !documented.contains_key(*name)).collect();
    assert!(undocumented.is_empty(), "not in docs/metrics.md: {undocumented:?}");
    let gone: Vec<_> = documented.keys().filter(|name| !shown.contains_key(*name)).collect();
    assert!(gone.is_empty(), "in docs/metrics.md only: {gone:?}");
    for (name, documented) in &documented {
        assert_eq!(documented, &shown[name], "{name}");
    }
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn figures_count_what_happens() {
    let redis = Redis::start().await;
    let node = node(|config| config.redis.url = redis.url()).await;
    soon("the node is ready", node.embedded().ready()).await;
    let (public, internal) = (node.addr(), node.internal_addr());
    let names = [
        "weft_canary_round_trip_seconds_count",
        "weft_received_bytes_total",
        "weft_sent_bytes_total",
        "weft_delivery_seconds_count",
        "weft_feed_lag_seconds_count",
        "weft_fanout_receivers_count",
        "weft_fanout_receivers_sum",
        "weft_fanout_seconds_count",
        r#"weft_redis_calls_total{outcome="ok",script="publish"}"#,
        r#"weft_redis_call_seconds_count{script="steps"}"#,
        r#"weft_log_reads_total{reason="attach"}"#,
        r#"weft_log_reads_total{reason="company"}"#,
        r#"weft_messages_refused_total{code="405"}"#,
        r#"weft_messages_refused_total{code="401"}"#,
        "weft_commits_total",
    ];
    let mut before = Vec::new();
    for name in names {
        before.push(sample(internal, name).await);
    }

    let mut on_socket = Client::connected(public).await;
    on_socket.subscribe("/a").await;
    let mut socket = RawSocket::open(public, MOUNT).await;
    socket.send_text(&on_socket.connect_message("bind", "websocket").to_string()).await;
    // Two on one log, so that it has to be listened to, and read.
    let (mut streaming, mut polling) = (Client::connected(public).await, Client::connected(public).await);
    streaming.subscribe("/b").await;
    polling.subscribe("/b").await;
    let _stream = EventStream::open(public, &streaming.id, None).await;
    let _poll = polling.begin_poll("held").await;
    let mut poster = Poster::new(public);
    publish(&mut poster, "/a", json!(1)).await;
    let pushed = soon("the push", async { while socket.next().await.expect("open").messages()[0]["data"] != 1 {} });
    pushed.await;
    // The socket is no more alone.
    let mut another = Client::connected(public).await;
    another.subscribe("/a").await;
    // Answers to pings come only while somebody reads.
    let reading = tokio::spawn(async move { while socket.next().await.is_some() {} });
    poster.post(&json!([{"channel": "no channel", "data": 1}])).await;
    poster.post(&json!([{"channel": "/meta/subscribe", "clientId": "nobody", "subscription": "/a"}])).await;

    for (name, before) in names.into_iter().zip(before) {
        eventually(Duration::from_secs(10), &format!("{name} rises above {before}"), async || {
            (sample(internal, name).await > before).then_some(())
        })
        .await;
    }
    for (transport, count) in [("websocket", 1.0), ("eventsource", 1.0), ("long-polling", 1.0), ("in-process", 1.0)] {
        let name = format!("weft_attachments{{transport=\"{transport}\"}}");
        assert_eq!(sample(internal, &name).await, count, "{transport}: the canary is in the process");
    }
    let text = get(internal, "/metrics", &[]).await.text();
    let build = format!("weft_build_info{{engine=\"redis\",version=\"{}\"}} 1", env!("CARGO_PKG_VERSION"));
    assert!(text.contains(&build), "{build}");
    node.stop().await;
    soon("the socket ends", reading).await.expect("no panic");
}
