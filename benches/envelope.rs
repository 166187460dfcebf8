//! Parsing and encoding the Bayeux envelope: `cargo bench --bench envelope`. See `docs/performance.md`, "Micro benches".

#[path = "support/sample.rs"]
mod sample;

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use sample::{publish, records, text};
use weft::bayeux::message::{Limits, parse};
use weft::bayeux::{Dialect, Message};

const KIB: usize = 1024;

/// The only message of a body.
fn one(body: &str) -> Message {
    parse(body.as_bytes(), &Limits::default()).expect("messages").pop().expect("one message")
}

fn parsing(criterion: &mut Criterion) {
    let connect = concat!(
        r#"{"channel":"/meta/connect","clientId":"3e2b1981c0ffee00c0ffee003e2b1981","#,
        r#""connectionType":"websocket","id":"1f"}"#
    );
    let batch: Vec<_> = (0..10).map(|id| publish(id, &text(200))).collect();
    let bodies = [
        ("publish of 200 B", 1, publish(1, &text(200))),
        ("publish of 4 KiB, one text", 1, publish(1, &text(4 * KIB))),
        ("publish of 4 KiB, records", 1, publish(1, &records(4 * KIB))),
        ("publish of 64 KiB, one text", 1, publish(1, &text(64 * KIB))),
        ("publish of 64 KiB, records", 1, publish(1, &records(64 * KIB))),
        ("connect", 1, connect.to_owned()),
        ("batch of 10 publishes", 10, batch.join(",")),
    ];
    let mut group = criterion.benchmark_group("envelope/parse");
    for (name, messages, body) in &bodies {
        // Clients send arrays.
        let body = format!("[{body}]");
        assert_eq!(parse(body.as_bytes(), &Limits::default()).map(|parsed| parsed.len()), Ok(*messages));
        group.throughput(Throughput::Elements(*messages as u64));
        group.bench_function(*name, |bencher| {
            bencher.iter(|| parse(black_box(body.as_bytes()), &Limits::default()));
        });
    }
    group.finish();
}

fn encoding(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("envelope/encode");
    group.throughput(Throughput::Elements(1));
    for (name, data) in [("delivery of 200 B", text(200)), ("delivery of 64 KiB", text(64 * KIB))] {
        let delivery = one(&publish(1, &data)).into_delivery();
        group.bench_function(name, |bencher| bencher.iter(|| black_box(&delivery).encode()));
    }
    let request = one(&publish(1, &text(200)));
    group.bench_function("reply, made and encoded", |bencher| bencher.iter(|| black_box(&request).accept().encode()));
    group.finish();
}

fn fingerprints(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("envelope/fingerprint");
    group.throughput(Throughput::Elements(1));
    for (name, data) in [("publish of 200 B", text(200)), ("publish of 64 KiB", text(64 * KIB))] {
        let message = one(&publish(1, &data));
        group.bench_function(name, |bencher| bencher.iter(|| black_box(&message).to_fingerprint(Dialect::Faye)));
    }
    group.finish();
}

criterion_group! { name = benches; config = sample::criterion(); targets = parsing, encoding, fingerprints }
criterion_main!(benches);
