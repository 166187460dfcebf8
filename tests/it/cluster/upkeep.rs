//! What a cluster leaves behind in Redis: nothing.

use std::time::Duration;

use futures_util::{StreamExt, stream};
use serde_json::json;

use super::local::Cluster;
use crate::support::bayeux::Poster;
use crate::support::eventually;

const SESSIONS: usize = 10_000;
const AT_ONCE: usize = 32;

/// Sessions come, subscribe to channels of their own and to a common one, and go, some of them without a word.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sessions_leave_nothing() {
    // Sessions live for two seconds, and logs for three.
    let cluster = Cluster::start_with(&["--timeout", "1s"], &[("WEFT_OUTAGE_GRACE", "0")]).await;
    let nodes = cluster.nodes();
    let size = async || cluster.redis::<u64>(&["DBSIZE"]).await;
    let before = size().await;
    let workers = stream::iter(0..AT_ONCE).for_each_concurrent(None, |worker| {
        let nodes = nodes.clone();
        async move {
            let mut poster = Poster::new(nodes);
            for number in (worker..SESSIONS).step_by(AT_ONCE) {
                come_and_go(&mut poster, number).await;
            }
        }
    });
    // Looked at all the while: one request that takes long, and what the others have left is gone before it ends.
    let mut peak = 0;
    let mut look = tokio::time::interval(Duration::from_millis(200));
    tokio::pin!(workers);
    loop {
        tokio::select! {
            () = &mut workers => break,
            _ = look.tick() => peak = peak.max(size().await),
        }
    }
    assert!(peak > before + 100, "there was something to leave behind: {before}, then {peak}");
    let after = eventually(Duration::from_secs(60), "Redis holds as many keys as before", async || {
        let now = size().await;
        (now <= before).then_some(now)
    })
    .await;
    println!("{SESSIONS} sessions: {before} keys before, {peak} at most, {after} afterwards");
    let sessions: u64 = cluster.redis(&["ZCARD", "{weft:0}:deadlines"]).await;
    assert_eq!(sessions, 3, "the nodes' own");
    cluster.stop().await;
}

async fn come_and_go(poster: &mut Poster, number: usize) {
    let handshake =
        json!({"channel": "/meta/handshake", "version": "1.0", "supportedConnectionTypes": ["long-polling"]});
    let session = poster.post(&handshake).await[0]["clientId"].clone();
    let own = format!("/own/{number}");
    let subscribe = json!({"channel": "/meta/subscribe", "clientId": session, "subscription": [own, "/common/*"]});
    let publish = json!({"channel": own, "data": number});
    let replies = poster.post(&json!([subscribe, publish])).await;
    assert!(replies.iter().all(|reply| reply["successful"] == true), "{replies:?}");
    if number.is_multiple_of(2) {
        poster.post(&json!({"channel": "/meta/disconnect", "clientId": session})).await;
    }
}
