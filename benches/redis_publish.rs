//! What a publish costs Redis, whoever subscribes: `cargo bench --bench redis_publish`. Fails above the bar.
//!
//! A real Redis for each number of subscribers, and three nodes (engine, hub and sessions of the product, in this process)
//! among which the subscribers of one channel are spread. Counted is the CPU time of the Redis process, user and kernel,
//! for each message published; rounds are interleaved, and the median counts. See `docs/performance.md`.

#[path = "support/process.rs"]
mod process;

use std::process::{Command, ExitCode};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use clap::Parser;
use futures_util::{StreamExt, TryStreamExt, stream};
use process::Process;
use serde_json::json;
use tokio_util::task::TaskTracker;
use weft::bayeux::{Channel, Fingerprint, Pattern};
use weft::engine::redis::{RedisNode, RedisSettings};
use weft::engine::{Create, Creation, Engine, Link, NodeId, Publication, Published, SessionId, Store, Subscribe};
use weft::hub::{ControlSink, Hub};
use weft::metrics::Metrics;
use weft::session::{AttachOutcome, Held, Limits, Sessions};

/// The largest cost may be so many times the smallest.
const BAR: f64 = 1.3;
const NODES: usize = 3;
const CHANNEL: &str = "/bench/room";
/// Operations under way at once while the scene is set.
const AT_ONCE: usize = 64;
const PAYLOAD: usize = 200;
/// Messages of a round that come one by one, and the time between two.
const PACED: usize = 400;
const PACE: Duration = Duration::from_millis(5);

/// Measures what a publish costs Redis.
#[derive(Parser)]
struct Arguments {
    /// Numbers of subscribers.
    #[arg(long, value_delimiter = ',', default_values_t = [1, 100, 10_000])]
    subscribers: Vec<usize>,
    /// Messages in each round.
    #[arg(long, default_value_t = 3000)]
    messages: usize,
    /// Rounds.
    #[arg(long, default_value_t = 7)]
    rounds: usize,
    /// With fingerprints, by which a repeated publish is known, as the messages of Faye's clients have.
    #[arg(long)]
    fingerprints: bool,
    /// Print JSON.
    #[arg(long)]
    json: bool,
    /// Given by `cargo bench`.
    #[arg(long, hide = true)]
    bench: bool,
    /// Given by `cargo bench -- --test`: only the micro benches have something to try.
    #[arg(long, hide = true)]
    test: bool,
}

/// A Redis, three nodes, and the subscribers on them.
struct Scene {
    subscribers: usize,
    redis: Process,
    client: redis::Client,
    nodes: Vec<Node>,
    _held: Vec<Held>,
    _folder: tempfile::TempDir,
    /// Microseconds of each round: messages one by one at a pace, and many at once.
    paced: Vec<f64>,
    batched: Vec<f64>,
}

struct Node {
    store: Arc<Store>,
    sessions: Sessions,
    /// Numbers the messages, where they have fingerprints.
    numbered: Option<Arc<AtomicU64>>,
}

impl Node {
    async fn start(url: &str, numbered: Option<Arc<AtomicU64>>) -> Result<Self> {
        let settings = RedisSettings { url: url.to_owned(), ..RedisSettings::default() };
        let metrics = Arc::new(Metrics::new()?);
        let (redis, feed, tasks) = RedisNode::new(NodeId::random(), settings, metrics.clone())?;
        tokio::spawn(tasks.run());
        redis.available().await;
        let store = Arc::new(Store::redis(redis, Duration::from_secs(5)));
        let hub = Arc::new(Hub::new(store.clone(), Duration::from_secs(30), metrics.clone()));
        let limits = Limits { outbox_messages: 1000, outbox_bytes: 1 << 20 };
        let sessions = Sessions::new(store.clone(), hub.clone(), limits, metrics, TaskTracker::new());
        let controls: Arc<dyn ControlSink> = Arc::new(sessions.clone());
        tokio::spawn(async move { hub.run(feed, controls).await });
        Ok(Self { store, sessions, numbered })
    }

    /// A session that is subscribed and live on this node.
    async fn subscriber(&self) -> Result<Held> {
        let session = SessionId::random();
        let pattern = Pattern::parse(CHANNEL)?;
        let creation = Creation::new(&session, Duration::from_secs(3600), usize::MAX >> 12);
        ensure!(matches!(self.store.create(creation).await?, Create::Created(_)));
        ensure!(matches!(self.store.subscribe(&session, &pattern, 10, None).await?, Subscribe::Added { .. }));
        let link = Link::Socket { connect_id: None, retry: false, claim: None };
        let AttachOutcome::Held(held) = self.sessions.attach(&session, link).await? else { bail!("not attached") };
        if held.step().is_some() {
            self.sessions.refresh(held.attachment()).await?;
        }
        Ok(held)
    }

    async fn publish(&self) -> Result<()> {
        let channel = Channel::parse(CHANNEL)?;
        let array = format!("[{{\"channel\":\"{channel}\",\"data\":\"{}\"}}]", "x".repeat(PAYLOAD)).into();
        let number = self.numbered.as_ref().map(|numbered| numbered.fetch_add(1, Ordering::Relaxed));
        let fingerprint = number.map(|number| Fingerprint::of([&number.to_le_bytes()[..]]));
        let published = self.store.publish(Publication { fingerprint, ..Publication::new(channel, array) }).await?;
        ensure!(matches!(published, Published::Stored(_)));
        Ok(())
    }
}

impl Scene {
    async fn set(subscribers: usize, fingerprints: bool) -> Result<Self> {
        let numbered = fingerprints.then(Arc::default);
        let folder = tempfile::tempdir()?;
        let socket = folder.path().join("redis.sock");
        let mut command = Command::new("redis-server");
        command.args(["--port", "0", "--save", "", "--appendonly", "no", "--unixsocket"]).arg(&socket);
        let redis = Process::start(command.current_dir(folder.path()))?;
        let url = format!("redis+unix://{}", socket.display());
        let client = redis::Client::open(&*url)?;
        let mut nodes = Vec::new();
        for _ in 0..NODES {
            let node = tokio::time::timeout(Duration::from_secs(10), Node::start(&url, numbered.clone())).await;
            nodes.push(node.context("Redis does not answer; is redis-server installed?")??);
        }
        let held = stream::iter(0..subscribers).map(|number| nodes[number % NODES].subscriber());
        let held = held.buffer_unordered(AT_ONCE).try_collect().await?;
        let (paced, batched) = (Vec::new(), Vec::new());
        Ok(Self { subscribers, redis, client, nodes, _held: held, _folder: folder, paced, batched })
    }

    /// CPU time of Redis for each of so many messages, in microseconds.
    async fn round(&self, messages: usize, at_once: usize) -> Result<f64> {
        let before = self.redis.cpu()?;
        let publishes = stream::iter(0..messages).map(|number| self.nodes[number % NODES].publish());
        publishes.buffer_unordered(at_once).try_collect::<()>().await?;
        Ok((self.redis.cpu()? - before).as_secs_f64() * 1e6 / messages as f64)
    }

    /// As above, with time between the messages: the nodes have handed one out before the next comes, so that Redis wakes
    /// up for each under the same conditions, whoever subscribes.
    async fn paced_round(&self) -> Result<f64> {
        let mut pace = tokio::time::interval(PACE);
        let before = self.redis.cpu()?;
        for number in 0..PACED {
            pace.tick().await;
            self.nodes[number % NODES].publish().await?;
        }
        Ok((self.redis.cpu()? - before).as_secs_f64() * 1e6 / PACED as f64)
    }

    async fn ask<T: redis::FromRedisValue>(&self, words: &[&str]) -> Result<T> {
        let mut connection = self.client.get_multiplexed_async_connection().await?;
        let (command, arguments) = words.split_first().context("a command")?;
        Ok(redis::cmd(command).arg(arguments).query_async(&mut connection).await?)
    }

    async fn memory(&self, kind: &str) -> Result<i64> {
        let key = format!("{{weft:0}}:{kind}:{CHANNEL}");
        Ok(self.ask::<Option<i64>>(&["MEMORY", "USAGE", &key, "SAMPLES", "0"]).await?.unwrap_or_default())
    }
}

fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted[sorted.len() / 2]
}

#[tokio::main]
async fn main() -> Result<ExitCode> {
    let Arguments { subscribers, messages, rounds, fingerprints, json, bench, test } = Arguments::parse();
    if test || !bench {
        eprintln!("nothing is measured but by `cargo bench`");
        return Ok(ExitCode::SUCCESS);
    }
    ensure!(!subscribers.is_empty() && messages > 0 && rounds > 0, "nothing to measure");
    let mut scenes = Vec::new();
    for count in subscribers {
        eprintln!("setting the scene: {count} subscribers on {NODES} nodes");
        let scene = Scene::set(count, fingerprints).await?;
        // The first messages make what stays.
        scene.round(messages / 4 + 1, 16).await?;
        scenes.push(scene);
    }
    for round in 1..=rounds {
        eprintln!("round {round} of {rounds}");
        for scene in &mut scenes {
            let paced = scene.paced_round().await?;
            let batched = scene.round(messages, 3 * 16).await?;
            scene.paced.push(paced);
            scene.batched.push(batched);
        }
    }
    let mut rows = Vec::new();
    for scene in &scenes {
        let (paced, batched) = (median(&scene.paced), median(&scene.batched));
        rows.push(json!({
            "subscribers": scene.subscribers,
            "paced_us": paced,
            "batched_us": batched,
            "log_bytes": scene.memory("log").await?,
            "head_bytes": scene.memory("head").await?,
            "subscribers_bytes": scene.memory("subscribers").await?,
        }));
    }
    let spread = |key: &str| {
        let values: Vec<f64> = rows.iter().filter_map(|row| row[key].as_f64()).collect();
        values.iter().copied().fold(0.0, f64::max) / values.iter().copied().fold(f64::INFINITY, f64::min)
    };
    let (paced, batched) = (spread("paced_us"), spread("batched_us"));
    let flat = paced <= BAR && batched <= BAR;
    if json {
        println!("{}", json!({"rows": rows, "paced_ratio": paced, "batched_ratio": batched, "bar": BAR, "flat": flat}));
    } else {
        println!(
            "{messages} messages of {PAYLOAD} bytes a round, {rounds} rounds, subscribers spread over {NODES} nodes\n"
        );
        println!("             CPU of Redis, us/publish          memory in Redis, bytes");
        println!("subscribers        one by one  in batches         log    head  subscriber set");
        for row in &rows {
            let (paced, batched) =
                (row["paced_us"].as_f64().unwrap_or_default(), row["batched_us"].as_f64().unwrap_or_default());
            println!(
                "{:>11} {paced:>17.1} {batched:>11.1} {:>11} {:>7} {:>15}",
                row["subscribers"], row["log_bytes"], row["head_bytes"], row["subscribers_bytes"]
            );
        }
        let verdict = if flat { "flat" } else { "NOT FLAT" };
        println!("\nlargest / smallest: {paced:.2} one by one, {batched:.2} in batches; bar {BAR}: {verdict}");
    }
    Ok(if flat { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
