//! The memory engine alone: publishing, and the attach of a poll. `cargo bench --bench memory_engine`; see
//! `docs/performance.md`, "Micro benches".

#[path = "support/local.rs"]
mod local;
#[path = "support/sample.rs"]
mod sample;

use std::time::{Duration, Instant};

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use local::{runtime, session};
use sample::{CHANNEL, array};
use weft::bayeux::{Channel, Pattern};
use weft::engine::memory::{MemoryEngine, MemoryNode};
use weft::engine::{
    Attach, AttachRequest, Attached, Engine, Feed, Link, NodeId, Publication, Published, Record, RecordRequest,
    SessionId,
};

/// Operations between two looks at the clock; their announcements fit into a feed.
const ROUND: u64 = 1024;

fn pattern(name: &str) -> Pattern {
    Pattern::parse(name).expect("a pattern")
}

/// The time of so many publishes. The feed is emptied in between.
async fn publishes(engine: &MemoryNode, feed: &mut Feed, channel: &Channel, count: u64) -> Duration {
    let (array, mut elapsed, mut left) = (array(), Duration::ZERO, count);
    while left > 0 {
        let round = left.min(ROUND);
        let begin = Instant::now();
        for _ in 0..round {
            let outcome = engine.publish(Publication::new(channel.clone(), array.clone())).await;
            assert!(matches!(outcome, Ok(Published::Stored(_))), "{outcome:?}");
        }
        elapsed += begin.elapsed();
        while feed.try_recv().is_ok() {}
        left -= round;
    }
    elapsed
}

/// By subscribers of the channel, all on the publishing node.
fn publish(criterion: &mut Criterion) {
    let (runtime, channel) = (runtime(), Channel::parse(CHANNEL).expect("a channel"));
    let mut group = criterion.benchmark_group("memory_engine/publish, by subscribers");
    group.throughput(Throughput::Elements(1));
    for subscribers in [0, 1, 1000] {
        let (engine, mut feed) = MemoryEngine::default().connect(NodeId::random());
        let log = [pattern(CHANNEL)];
        runtime.block_on(async {
            for _ in 0..subscribers {
                session(&engine, &log).await;
            }
            if subscribers > 0 {
                engine.listen(&log).await.expect("the log is on the feed");
            }
        });
        group.bench_function(BenchmarkId::from_parameter(subscribers), |bencher| {
            bencher.iter_custom(|count| runtime.block_on(publishes(&engine, &mut feed, &channel, count)));
        });
    }
    group.finish();
}

async fn attach(engine: &MemoryNode, session: &SessionId, connect_id: &str) -> Attached {
    let link = Link::Poll { connect_id: Some(connect_id), retry: false, claim: None };
    match engine.attach(AttachRequest { session, link }).await {
        Ok(Attach::Attached(attached)) => attached,
        other => panic!("{other:?}"),
    }
}

/// One connect after the other. With `delivers`, each reply is recorded as if it carried messages, and the next attach
/// confirms it.
async fn polls(engine: &MemoryNode, session: &SessionId, delivers: bool, number: &mut u64, count: u64) {
    for _ in 0..count {
        *number += 1;
        let connect_id = number.to_string();
        let Attached { epoch, version, clock, .. } = attach(engine, session, &connect_id).await;
        if delivers {
            let (connect_id, upto) = (Some(&*connect_id), &clock.into());
            let outcome = engine.record(RecordRequest { session, epoch, version, connect_id, upto }).await;
            assert_eq!(outcome, Ok(Record::Recorded));
        }
    }
}

/// By subscriptions of the session.
fn poll(criterion: &mut Criterion) {
    let (runtime, (engine, _feed)) = (runtime(), MemoryEngine::default().connect(NodeId::random()));
    let mut group = criterion.benchmark_group("memory_engine/poll");
    group.throughput(Throughput::Elements(1));
    for subscriptions in [1, 16] {
        let patterns: Vec<_> = (0..subscriptions).map(|number| pattern(&format!("{CHANNEL}/{number}"))).collect();
        let session = runtime.block_on(session(&engine, &patterns));
        for (name, delivers) in [("attach", false), ("attach, settle, record", true)] {
            let mut number = 0;
            group.bench_function(BenchmarkId::new(name, subscriptions), |bencher| {
                bencher.iter_custom(|count| {
                    let begin = Instant::now();
                    runtime.block_on(polls(&engine, &session, delivers, &mut number, count));
                    begin.elapsed()
                });
            });
        }
    }
    group.finish();
}

criterion_group! { name = benches; config = sample::criterion(); targets = publish, poll }
criterion_main!(benches);
