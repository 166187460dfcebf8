//! The fan-out of one node: `cargo bench --bench hub`. See `docs/performance.md`, "Micro benches".
//!
//! The real hub reads a feed that holds some messages, to its end, and offers them to real attachments. Nobody waits for
//! these: waking up tasks and writing to sockets is not in the figures. The outboxes are emptied between two rounds.

#[path = "support/local.rs"]
mod local;
#[path = "support/sample.rs"]
mod sample;

use std::sync::Arc;
use std::time::{Duration, Instant};

use criterion::{BenchmarkId, Criterion, SamplingMode, Throughput, criterion_group, criterion_main};
use local::{Node, Stored, runtime};
use sample::{CHANNEL, array};
use tokio::runtime::Runtime;
use tokio::sync::mpsc;
use weft::bayeux::Pattern;
use weft::engine::{FeedEvent, Position};
use weft::hub::ControlSink;
use weft::session::Held;

/// Logs that get a message in one round, if there are many.
const MESSAGES: usize = 100;

/// A log and those who are subscribed to it alone.
struct Room {
    log: Pattern,
    /// Of its newest message; none was there yet.
    head: Position,
    held: Vec<Held>,
}

struct Scene {
    runtime: Runtime,
    node: Node,
    rooms: Vec<Room>,
    stored: Stored,
    controls: Arc<dyn ControlSink>,
}

impl Scene {
    fn set(rooms: usize, receivers: usize) -> Self {
        let (runtime, node) = (runtime(), Node::new());
        let rooms = (0..rooms).map(|number| {
            // Each session has the name from a message of its own.
            let log = || Pattern::parse(&format!("{CHANNEL}/{number}")).expect("a pattern");
            let held = (0..receivers).map(|_| runtime.block_on(node.subscriber(&[log()])));
            Room { held: held.collect(), log: log(), head: Position::default() }
        });
        let rooms = rooms.collect();
        let controls = Arc::new(node.sessions.clone());
        Self { runtime, node, rooms, stored: Stored::new(CHANNEL, array()), controls }
    }

    /// How long the hub takes for so many messages to each of these rooms.
    fn round(&mut self, rooms: &[usize], messages: usize) -> Duration {
        let (sender, feed) = mpsc::channel(rooms.len() * messages);
        for _ in 0..messages {
            for room in rooms {
                let Room { log, head, .. } = &mut self.rooms[*room];
                let delivery = self.stored.next().expect("endless");
                let previous = std::mem::replace(head, delivery.position);
                let event = FeedEvent::Message { log: log.clone(), previous, delivery, room: None };
                assert!(sender.try_send(event).is_ok(), "there is room for all of them");
            }
        }
        // The hub stops at the end of its feed.
        drop(sender);
        let begin = Instant::now();
        self.runtime.block_on(self.node.hub.run(feed, self.controls.clone()));
        let elapsed = begin.elapsed();
        for held in rooms.iter().flat_map(|room| &self.rooms[*room].held) {
            assert_eq!(held.take(usize::MAX).deliveries.len(), messages, "each receiver gets each message");
        }
        elapsed
    }
}

/// One room.
fn fan_out(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("hub/fan_out");
    for receivers in [10, 1000, 100_000] {
        let mut scene = None;
        for (name, messages) in [("lone message", 1), ("burst of 16", 16)] {
            group.throughput(Throughput::Elements((receivers * messages) as u64));
            if receivers > 1000 {
                // A round takes a tenth of a second.
                group.sampling_mode(SamplingMode::Flat).sample_size(10).measurement_time(Duration::from_secs(3));
            }
            group.bench_function(BenchmarkId::new(name, receivers), |bencher| {
                let scene = scene.get_or_insert_with(|| Scene::set(1, receivers));
                bencher.iter_custom(|rounds| (0..rounds).map(|_| scene.round(&[0], messages)).sum());
            });
        }
    }
    group.finish();
}

/// Many rooms with one receiver each; messages go to some of them.
fn logs(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("hub/one_of_many_logs");
    group.throughput(Throughput::Elements(MESSAGES as u64));
    for logs in [100, 100_000] {
        let mut scene = None;
        group.bench_function(BenchmarkId::from_parameter(logs), |bencher| {
            let scene = scene.get_or_insert_with(|| Scene::set(logs, 1));
            bencher.iter_custom(|rounds| {
                let chosen = |round| {
                    let rooms: Vec<_> =
                        (0..MESSAGES).map(|one| (round as usize + one * logs / MESSAGES) % logs).collect();
                    scene.round(&rooms, 1)
                };
                (0..rounds).map(chosen).sum()
            });
        });
    }
    group.finish();
}

criterion_group! { name = benches; config = sample::criterion(); targets = fan_out, logs }
criterion_main!(benches);
