//! What a delivered message costs for each of its receivers, encoded once and shared, or anew for each:
//! `cargo bench --bench encode_share`. See `docs/performance.md`, "Micro benches".

#[path = "support/local.rs"]
mod local;
#[path = "support/sample.rs"]
mod sample;

use std::hint::black_box;

use criterion::{BatchSize, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use local::Stored;
use sample::{CHANNEL, PAYLOAD, array, publish, text};
use weft::bayeux::Message;
use weft::bayeux::message::{Limits, parse};
use weft::engine::{Form, element};

const RECEIVERS: [usize; 2] = [10, 1000];

fn published() -> Message {
    let body = publish(1, &text(PAYLOAD));
    let parsed = parse(body.as_bytes(), &Limits::default()).expect("messages").pop();
    parsed.expect("one message").into_delivery()
}

/// From the publish to the bytes that each receiver writes.
fn plain(criterion: &mut Criterion) {
    let message = published();
    let mut group = criterion.benchmark_group("encode_share/plain");
    for receivers in RECEIVERS {
        group.throughput(Throughput::Elements(receivers as u64));
        group.bench_function(BenchmarkId::new("once, shared", receivers), |bencher| {
            let mut stored = Stored::new(CHANNEL, array());
            bencher.iter(|| {
                let mut bytes = vec![b'['];
                message.encode_into(&mut bytes);
                bytes.push(b']');
                stored.array = bytes.into();
                let delivery = stored.next().expect("endless");
                (0..receivers).for_each(|_| drop(black_box(delivery.array_as(Form::Plain))));
            });
        });
        // As elements of polls' replies.
        group.bench_function(BenchmarkId::new("once, shared, elements", receivers), |bencher| {
            let delivery = Stored::new(CHANNEL, array()).next().expect("endless");
            bencher.iter(|| {
                for _ in 0..receivers {
                    let array = delivery.array_as(Form::Plain);
                    black_box(array.slice_ref(element(&array)));
                }
            });
        });
        group.bench_function(BenchmarkId::new("encoded for each", receivers), |bencher| {
            bencher.iter(|| (0..receivers).for_each(|_| drop(black_box(message.encode()))));
        });
        // What an extension that sees outgoing messages costs, without its own work.
        group.bench_function(BenchmarkId::new("parsed and encoded for each", receivers), |bencher| {
            let delivery = Stored::new(CHANNEL, array()).next().expect("endless");
            bencher.iter(|| {
                for _ in 0..receivers {
                    let message = Message::from_delivery(delivery.json()).expect("of our own making");
                    black_box(message.encode());
                }
            });
        });
    }
    group.finish();
}

/// With positions: once for all (`Positioned`), or for each receiver (`Replayed`).
fn positioned(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("encode_share/positioned");
    for receivers in RECEIVERS {
        group.throughput(Throughput::Elements(receivers as u64));
        for (name, form) in [("once, shared", Form::Positioned), ("replayed, for each", Form::Replayed)] {
            group.bench_function(BenchmarkId::new(name, receivers), |bencher| {
                let mut stored = Stored::new(CHANNEL, array());
                let fresh = || stored.next().expect("endless");
                bencher.iter_batched(
                    fresh,
                    |delivery| {
                        (0..receivers).for_each(|_| drop(black_box(delivery.array_as(form))));
                        delivery
                    },
                    BatchSize::SmallInput,
                );
            });
        }
    }
    group.finish();
}

criterion_group! { name = benches; config = sample::criterion(); targets = plain, positioned }
criterion_main!(benches);
