//! One session's outbox: offered by the hub, taken by a socket. `cargo bench --bench outbox`; see
//! `docs/performance.md`, "Micro benches".

#[path = "support/local.rs"]
mod local;
#[path = "support/sample.rs"]
mod sample;

use std::time::{Duration, Instant};

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use local::{Node, Stored, runtime};
use sample::{CHANNEL, array};
use weft::bayeux::Pattern;
use weft::hub::Receiver;
use weft::session::Held;

/// Messages between two looks at the clock.
const ROUND: usize = 4096;

fn patterns(count: usize) -> Vec<Pattern> {
    (0..count).map(|number| Pattern::parse(&format!("{CHANNEL}/{number:04}")).expect("a pattern")).collect()
}

/// The time of so many messages, offered and taken in batches.
fn time(held: &Held, log: &Pattern, stored: &mut Stored, messages: usize, batch: usize) -> Duration {
    let mut elapsed = Duration::ZERO;
    let mut left = messages;
    while left > 0 {
        let deliveries: Vec<_> = stored.take(left.min(ROUND)).collect();
        let begin = Instant::now();
        for batch in deliveries.chunks(batch) {
            held.attachment().offer(log, batch);
            assert_eq!(held.take(usize::MAX).deliveries.len(), batch.len(), "what is offered can be taken");
        }
        elapsed += begin.elapsed();
        left -= deliveries.len();
    }
    elapsed
}

/// `subscriptions`: of the session; the messages come on the last one.
fn bench(criterion: &mut Criterion, name: &str, parameters: &[(usize, usize, usize)]) {
    let (runtime, node) = (runtime(), Node::new());
    let mut group = criterion.benchmark_group(name);
    for (parameter, batch, subscriptions) in parameters {
        let patterns = patterns(*subscriptions);
        let held = runtime.block_on(node.subscriber(&patterns));
        let mut stored = Stored::new(CHANNEL, array());
        group.throughput(Throughput::Elements(*batch as u64));
        group.bench_function(BenchmarkId::from_parameter(parameter), |bencher| {
            let log = &patterns[subscriptions - 1];
            bencher.iter_custom(|batches| time(&held, log, &mut stored, batches as usize * batch, *batch));
        });
    }
    group.finish();
}

fn batches(criterion: &mut Criterion) {
    bench(criterion, "outbox/offer_and_take, by size of the batch", &[(1, 1, 1), (16, 16, 1), (256, 256, 1)]);
}

fn subscriptions(criterion: &mut Criterion) {
    let parameters = [(1, 16, 1), (100, 16, 100), (1000, 16, 1000)];
    bench(criterion, "outbox/offer_and_take, 16, by subscriptions of the session", &parameters);
}

criterion_group! { name = benches; config = sample::criterion(); targets = batches, subscriptions }
criterion_main!(benches);
