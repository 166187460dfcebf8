//! Channel names: parsing, expanding, matching. `cargo bench --bench channels`; see `docs/performance.md`,
//! "Micro benches".

#[path = "support/sample.rs"]
mod sample;

use std::hint::black_box;
use std::time::Duration;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use weft::bayeux::{Channel, Pattern};
use weft::engine::Retention;
use weft::server::{RetentionRule, RetentionRules};

const DEPTHS: [usize; 3] = [1, 3, 8];

/// `/segment0/segment1/...`
fn name(depth: usize) -> String {
    (0..depth).map(|segment| format!("/segment{segment}")).collect()
}

fn channel(name: &str) -> Channel {
    Channel::parse(name).expect("a channel")
}

fn pattern(name: &str) -> Pattern {
    Pattern::parse(name).expect("a pattern")
}

fn expanding(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("channels/expand");
    group.throughput(Throughput::Elements(1));
    for depth in DEPTHS {
        let channel = channel(&name(depth));
        group.bench_function(BenchmarkId::from_parameter(depth), |bencher| {
            bencher.iter(|| black_box(&channel).expand())
        });
    }
    group.finish();
}

fn parsing(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("channels/parse");
    group.throughput(Throughput::Elements(1));
    for depth in DEPTHS {
        let name = name(depth);
        group.bench_function(BenchmarkId::new("channel", depth), |bencher| {
            bencher.iter(|| Channel::parse(black_box(&name)));
        });
        let wild = format!("{name}/**");
        group.bench_function(BenchmarkId::new("pattern", depth), |bencher| {
            bencher.iter(|| Pattern::parse(black_box(&wild)));
        });
    }
    for (what, name) in [("wildcard as channel", "/segment0/segment1/*"), ("bad byte", "/segment0/segment1/seg ment")] {
        assert!(Channel::parse(name).is_err());
        group.bench_function(what, |bencher| bencher.iter(|| Channel::parse(black_box(name))));
    }
    let channel = channel(&name(3));
    group.bench_function("realm", |bencher| bencher.iter(|| black_box(&channel).realm()));
    group.finish();
}

/// A hundred patterns, of which two match `/news/6/today`.
fn patterns() -> Vec<Pattern> {
    let kinds = ["/today", "/*", "/**", ""];
    let mixed = (0..99).map(|number| pattern(&format!("/news/{number}{}", kinds[number % 4])));
    mixed.chain([pattern("/**")]).collect()
}

fn matching(criterion: &mut Criterion) {
    let patterns = patterns();
    let channel = channel("/news/6/today");
    assert_eq!(patterns.iter().filter(|pattern| pattern.matches(&channel)).count(), 2);
    let mut group = criterion.benchmark_group("channels/match");
    group.throughput(Throughput::Elements(patterns.len() as u64));
    group.bench_function("100 patterns", |bencher| {
        bencher.iter(|| patterns.iter().filter(|pattern| pattern.matches(black_box(&channel))).count());
    });
    group.bench_function("100 patterns, overlaps", |bencher| {
        let wanted = pattern("/news/**");
        bencher.iter(|| patterns.iter().filter(|pattern| pattern.overlaps(black_box(&wanted))).count());
    });
    // What each publish asks: no rule covers its channel.
    let retention = Retention { length: 100, age: Duration::from_secs(60) };
    let rule = |channels: Pattern| RetentionRule { channels, retention, replay: true };
    let rules = RetentionRules((0..10).map(|number| rule(pattern(&format!("/kept/{number}/**")))).collect());
    group.throughput(Throughput::Elements(rules.0.len() as u64));
    group.bench_function("10 retention rules, none covers", |bencher| bencher.iter(|| rules.rule(black_box(&channel))));
    group.finish();
}

criterion_group! { name = benches; config = sample::criterion(); targets = expanding, parsing, matching }
criterion_main!(benches);
