//! Readiness is true, and soon: whatever stands still, a node says so within three seconds, and lives on.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UnixStream};
use tokio::sync::watch;
use tokio::time::Instant;
use weft::engine::memory::MemoryEngine;
use weft::{Config, Node};

use super::node_on;
use crate::support::http::{Connection, get, sample};
use crate::support::redis::Redis;
use crate::support::{eventually, within};

/// So soon it is known.
const KNOWN: Duration = Duration::from_secs(3);

async fn node_at(url: String) -> Node {
    let free = "127.0.0.1:0".parse().expect("an address");
    let mut config = Config { listen: free, internal_listen: free, ..Config::default() };
    config.redis.url = url;
    let node = Node::start(config).await.expect("the node starts");
    within(Duration::from_secs(10), "the node is ready", node.ready()).await;
    node
}

/// The reason why a node is not ready, which it gives in time.
async fn not_ready(internal: SocketAddr) -> String {
    let start = Instant::now();
    let reason = eventually(Duration::from_secs(10), "it is not ready", async || {
        assert_eq!(get(internal, "/healthz", &[]).await.status, 200, "it lives");
        let ready = get(internal, "/readyz", &[]).await;
        (ready.status == 503).then(|| ready.json()["reason"].as_str().expect("a reason").to_owned())
    })
    .await;
    println!("not ready after {:?}: {reason}", start.elapsed());
    assert!(start.elapsed() < KNOWN, "{:?}: {reason}", start.elapsed());
    assert_eq!(sample(internal, "weft_ready").await, 0.0);
    reason
}

async fn ready_again(node: &Node) {
    within(Duration::from_secs(20), "the node is ready again", node.ready()).await;
    assert_eq!(sample(node.internal_addr(), "weft_ready").await, 1.0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn redis_hangs() {
    let redis = Redis::start().await;
    let node = node_at(redis.url()).await;
    redis.signal("STOP");
    not_ready(node.internal_addr()).await;
    let age = sample(node.internal_addr(), "weft_canary_age_seconds").await;
    assert!(age > 1.0, "{age}");
    redis.signal("CONT");
    ready_again(&node).await;
    assert!(sample(node.internal_addr(), "weft_canary_age_seconds").await < 2.0);
    assert!(within(Duration::from_secs(30), "the stop", node.stop()).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_feed_alone_is_dead() {
    let redis = Redis::start().await;
    let line = Line::to(redis.socket()).await;
    let node = node_at(format!("redis://{}", line.addr)).await;
    line.silence.send_replace(true);
    let reason = not_ready(node.internal_addr()).await;
    assert!(reason.contains("came back"), "what is stored is not announced: {reason}");
    let client = node.client().await.expect("commands are served");
    client.publish("/a", &1).await.expect("stored");
    line.silence.send_replace(false);
    ready_again(&node).await;
    assert!(sample(node.internal_addr(), r#"weft_redis_reconnects_total{connection="feed"}"#).await >= 1.0);
    assert!(within(Duration::from_secs(30), "the stop", node.stop()).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_clock_of_messages_stands_still() {
    let redis = Redis::start().await;
    let node = node_at(redis.url()).await;
    // As after a failover to a machine whose clock is an hour behind.
    let ahead =
        SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).expect("after 1970") + Duration::from_secs(3600);
    let position = u64::try_from(ahead.as_millis()).expect("not so late") * 1024;
    redis.ask::<()>(&["SET", "{weft:0}:clock", &position.to_string()]).await;
    let reason = not_ready(node.internal_addr()).await;
    assert!(reason.contains("clock"), "{reason}");
    redis.ask::<()>(&["DEL", "{weft:0}:clock"]).await;
    node.stop().await;
}

/// Near its limit of connections a node takes nobody new, but keeps who is there.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_are_nearly_used_up() {
    let node = node_on(&MemoryEngine::default(), |config| config.limits.connections = 20).await;
    assert_eq!(sample(node.internal_addr(), "weft_connections_limit").await, 20.0);
    let mut open = Vec::new();
    for _ in 0..19 {
        open.push(Connection::open(node.public_addr()).await);
    }
    let reason = not_ready(node.internal_addr()).await;
    assert_eq!(reason, "19 connections of 20 are open");
    let kept = &mut open[0];
    kept.send(&crate::support::http::request("GET", "/healthz", &[], None)).await;
    assert_eq!(kept.response().await.status, 200);
    open.truncate(17);
    ready_again(&node).await;
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn memory_is_nearly_used_up() {
    let free = "127.0.0.1:0".parse().expect("an address");
    let config = Config { listen: free, internal_listen: free, memory_limit_bytes: 1 << 20, ..Config::default() };
    let node = Node::start(config).await.expect("the node starts");
    let reason = eventually(Duration::from_secs(5), "the reason", async || {
        let reason = get(node.internal_addr(), "/readyz", &[]).await.json()["reason"].as_str()?.to_owned();
        reason.contains("bytes of memory of 1048576").then_some(reason)
    })
    .await;
    println!("{reason}");
    assert_eq!(get(node.internal_addr(), "/healthz", &[]).await.status, 200);
    node.stop().await;
}

/// A way to a Redis on which connections that subscribe can be silenced, those to come too.
struct Line {
    addr: SocketAddr,
    silence: Arc<watch::Sender<bool>>,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for Line {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Line {
    async fn to(socket: PathBuf) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let addr = listener.local_addr().expect("bound");
        let silence = Arc::new(watch::Sender::new(false));
        let silenced = silence.clone();
        let task = tokio::spawn(async move {
            let mut connections = tokio::task::JoinSet::new();
            while let Ok((client, _)) = listener.accept().await {
                let redis = UnixStream::connect(&socket).await.expect("Redis listens");
                connections.spawn(forward(client, redis, silenced.subscribe()));
            }
        });
        Self { addr, silence, task }
    }
}

async fn forward(client: TcpStream, redis: UnixStream, mut silence: watch::Receiver<bool>) {
    let (mut from_client, mut to_client) = client.into_split();
    let (mut from_redis, mut to_redis) = redis.into_split();
    let subscribes = AtomicBool::new(false);
    let asking = async {
        let mut buffer = vec![0; 65536];
        while let Ok(count @ 1..) = from_client.read(&mut buffer).await {
            if buffer[..count].windows(9).any(|word| word == b"SUBSCRIBE") {
                subscribes.store(true, Ordering::Release);
            }
            if to_redis.write_all(&buffer[..count]).await.is_err() {
                break;
            }
        }
    };
    let answering = async {
        let mut buffer = vec![0; 65536];
        while let Ok(count @ 1..) = from_redis.read(&mut buffer).await {
            if subscribes.load(Ordering::Acquire) {
                // An error means that the test is over.
                let _ = silence.wait_for(|silent| !silent).await;
            }
            if to_client.write_all(&buffer[..count]).await.is_err() {
                break;
            }
        }
    };
    tokio::select! {
        () = asking => {}
        () = answering => {}
    }
}

/// The canary's session is never one too many: a restarted node of a full cluster would stay unready.
#[tokio::test]
async fn a_full_cluster_gets_ready() {
    let engine = MemoryEngine::default();
    let full = |config: &mut weft::Config| config.limits.sessions = 1;
    let (first, second) = (node_on(&engine, full).await, node_on(&engine, full).await);
    let refused = crate::support::bayeux::Poster::new(second.public_addr())
        .post(&serde_json::json!([{"channel": "/meta/handshake", "version": "1.0", "supportedConnectionTypes": ["long-polling"]}]))
        .await;
    assert_eq!(refused[0]["successful"], false, "{refused:?}");
    first.stop().await;
    second.stop().await;
}
