//! The engine on a real Redis, as a publisher and a poll see it: `cargo bench --bench redis_script`. See
//! `docs/performance.md`, "Micro benches". What a publish costs Redis itself is in `redis_publish`.
//!
//! One Redis on a unix socket and one node, whose single subscriber's feed is read and thrown away. The time is that of
//! the whole round trip, with Redis on another core if there is one.

#[path = "support/local.rs"]
mod local;
#[path = "support/process.rs"]
mod process;
#[path = "support/sample.rs"]
mod sample;

use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use futures_util::{StreamExt, stream};
use local::{runtime, session};
use process::Process;
use sample::{CHANNEL, array};
use tokio::runtime::Runtime;
use weft::bayeux::{Channel, Fingerprint, Pattern};
use weft::engine::redis::{RedisNode, RedisSettings};
use weft::engine::{
    Attach, AttachRequest, Attached, Engine, Link, NodeId, Publication, Published, Record, RecordRequest, SessionId,
};
use weft::metrics::Metrics;

/// A Redis and a node on it.
struct Scene {
    runtime: Runtime,
    node: RedisNode,
    session: SessionId,
    channel: Channel,
    array: Bytes,
    /// Numbers what has to differ.
    number: u64,
    _redis: Process,
    _folder: tempfile::TempDir,
}

impl Scene {
    fn set() -> Self {
        let runtime = runtime();
        let folder = tempfile::tempdir().expect("a folder");
        let socket = folder.path().join("redis.sock");
        let mut command = Command::new("redis-server");
        command.args(["--port", "0", "--save", "", "--appendonly", "no", "--unixsocket"]).arg(&socket);
        let redis = Process::start(command.current_dir(folder.path())).expect("redis-server is installed");
        let url = format!("redis+unix://{}", socket.display());
        let log = [Pattern::parse(CHANNEL).expect("a pattern")];
        let (node, session) = runtime.block_on(async {
            let settings = RedisSettings { url, ..RedisSettings::default() };
            let metrics = Arc::new(Metrics::new().expect("counters"));
            let (node, mut feed, tasks) = RedisNode::new(NodeId::random(), settings, metrics).expect("good settings");
            tokio::spawn(tasks.run());
            tokio::spawn(async move { while feed.recv().await.is_some() {} });
            let deadline = Duration::from_secs(10);
            tokio::time::timeout(deadline, node.available()).await.expect("Redis answers");
            let session = session(&node, &log).await;
            node.listen(&log).await.expect("the log is on the feed");
            (node, session)
        });
        let channel = Channel::parse(CHANNEL).expect("a channel");
        Self { runtime, node, session, channel, array: array(), number: 0, _redis: redis, _folder: folder }
    }

    /// The time of so many publishes, so many of them under way at once.
    fn publishes(&mut self, count: u64, at_once: usize, fingerprints: bool) -> Duration {
        let first = self.number;
        self.number += count;
        let publish = async |number: u64| {
            let fingerprint = fingerprints.then(|| Fingerprint::of([&number.to_le_bytes()[..]]));
            let publication = Publication::new(self.channel.clone(), self.array.clone());
            let outcome = self.node.publish(Publication { fingerprint, ..publication }).await;
            assert!(matches!(outcome, Ok(Published::Stored(_))), "{outcome:?}");
        };
        let begin = Instant::now();
        let all = stream::iter(first..first + count).map(publish).buffer_unordered(at_once);
        self.runtime.block_on(all.collect::<()>());
        begin.elapsed()
    }

    /// The time of so many polls, one after the other. With `delivers`, each reply is recorded as if it carried messages,
    /// and the next attach confirms it.
    fn polls(&mut self, count: u64, delivers: bool) -> Duration {
        let first = self.number;
        self.number += count;
        let begin = Instant::now();
        self.runtime.block_on(async {
            for number in first..first + count {
                self.poll(&number.to_string(), delivers).await;
            }
        });
        begin.elapsed()
    }

    async fn poll(&self, connect_id: &str, delivers: bool) {
        let (session, connect_id) = (&self.session, Some(connect_id));
        let link = Link::Poll { connect_id, retry: false, claim: None };
        let outcome = self.node.attach(AttachRequest { session, link }).await;
        let Ok(Attach::Attached(Attached { epoch, version, clock, .. })) = outcome else { panic!("{outcome:?}") };
        if delivers {
            let upto = &clock.into();
            let outcome = self.node.record(RecordRequest { session, epoch, version, connect_id, upto }).await;
            assert_eq!(outcome, Ok(Record::Recorded));
        }
    }
}

fn redis(criterion: &mut Criterion) {
    let mut scene = Scene::set();
    let mut group = criterion.benchmark_group("redis_script/publish, by number under way");
    group.throughput(Throughput::Elements(1));
    for at_once in [1, 16, 64] {
        for (name, fingerprints) in [("plain", false), ("with fingerprint", true)] {
            group.bench_function(BenchmarkId::new(name, at_once), |bencher| {
                bencher.iter_custom(|count| scene.publishes(count, at_once, fingerprints));
            });
        }
    }
    group.finish();
    let mut group = criterion.benchmark_group("redis_script/poll");
    group.throughput(Throughput::Elements(1));
    for (name, delivers) in [("attach", false), ("attach, settle, record", true)] {
        group.bench_function(name, |bencher| bencher.iter_custom(|count| scene.polls(count, delivers)));
    }
    group.finish();
}

criterion_group! { name = benches; config = sample::criterion(); targets = redis }
criterion_main!(benches);
