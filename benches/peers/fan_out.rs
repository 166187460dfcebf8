//! One publisher, many subscribers over WebSocket: CPU time at each server's own maximum and at the same rate, and
//! latency.

use anyhow::{Result, ensure};

use crate::Bench;
use crate::bars::Bar::{self, AtMost};
use crate::document::Document;
use crate::servers::Kind;

const SUBSCRIBERS: [u32; 2] = [100, 1000];
/// Messages under way for each publisher at a server's maximum, the same for all. A thousand subscribers of a slow server
/// must get them all within the generator's deadlines.
pub const WINDOW: u32 = 16;
const SERVER_CPU: (&str, &str) = ("server.cpu_us_per_delivery", "us");
const REDIS_CPU: (&str, &str) = ("redis.cpu_us_per_delivery", "us");
const P99: (&str, &str) = ("latency_us.p99", "us");
/// The latency bar at a multiple of faye-redis' maximum.
const FACTOR: f64 = 8.0;
const P99_MILLISECONDS: f64 = 50.0;

/// Each server as fast as it can: CPU time for each message delivered.
pub fn at_its_maximum(bench: &mut Bench) -> Result<()> {
    let kinds = [Kind::WeftRedis, Kind::FayeRedis, Kind::Faye, Kind::SocketIoRedis, Kind::Floor, Kind::Weft];
    for subscribers in SUBSCRIBERS {
        let document = maximum(bench, &kinds, subscribers)?;
        let what = format!("1 -> {subscribers}, at its maximum");
        for (peer, bar) in [
            (Kind::FayeRedis, Some(1.0 / 25.0)),
            (Kind::Faye, Some(1.0 / 10.0)),
            (Kind::SocketIoRedis, Some(1.0 / 6.0)),
            (Kind::Floor, None),
        ] {
            compare(bench, ("fan-out", &what), &document, peer, SERVER_CPU, bar);
        }
        let what = format!("{what}: Redis");
        compare(bench, ("fan-out", &what), &document, Kind::FayeRedis, REDIS_CPU, Some(1.0 / 50.0));
    }
    Ok(())
}

/// All at the rate that is faye-redis' maximum.
pub fn at_the_same_rate(bench: &mut Bench) -> Result<()> {
    for subscribers in SUBSCRIBERS {
        let rate = maximum_of(bench, Kind::FayeRedis, subscribers)?;
        let kinds = [Kind::WeftRedis, Kind::FayeRedis, Kind::Floor, Kind::Faye, Kind::SocketIoRedis, Kind::Weft];
        let load = format!("fan-out --clients {subscribers} --rate {rate:.1}");
        let document = bench.beside(&format!("same-rate-{subscribers}"), &load, &kinds)?;
        let what = format!("1 -> {subscribers}, {rate:.0}/s");
        for (peer, bar) in [
            (Kind::FayeRedis, Some(1.0 / 6.0)),
            (Kind::Floor, Some(1.4)),
            (Kind::Faye, None),
            (Kind::SocketIoRedis, None),
        ] {
            compare(bench, ("same-rate", &what), &document, peer, SERVER_CPU, bar);
        }
    }
    Ok(())
}

/// How late messages come, at half of what each peer can do, and where faye-redis cannot follow.
pub fn latency(bench: &mut Bench) -> Result<()> {
    let subscribers = SUBSCRIBERS[0];
    for peer in [Kind::FayeRedis, Kind::Faye, Kind::SocketIoRedis] {
        let rate = maximum_of(bench, peer, subscribers)? / 2.0;
        let load = format!("fan-out --clients {subscribers} --rate {rate:.1}");
        let document = bench.beside(&format!("latency-{}", peer.name()), &load, &[Kind::WeftRedis, peer])?;
        let what = format!("p99 at {rate:.0}/s, half of its maximum");
        compare(bench, ("latency", &what), &document, peer, P99, Some(1.0 / 4.0));
    }
    let rate = maximum_of(bench, Kind::FayeRedis, subscribers)? * FACTOR;
    let load = format!("fan-out --clients {subscribers} --rate {rate:.1}");
    let document = bench.beside("latency-beyond", &load, &[Kind::WeftRedis])?;
    let p99 = document.median(Kind::WeftRedis, P99.0) / 1000.0;
    let what = format!("p99 at {rate:.0}/s, {FACTOR} times faye-redis' maximum");
    bench.checks.figure("latency", what, (p99, "ms"), Some(AtMost(P99_MILLISECONDS)));
    Ok(())
}

/// Weft on Redis against a peer.
fn compare(
    bench: &mut Bench,
    name: (&'static str, &str),
    document: &Document,
    peer: Kind,
    figure: (&str, &'static str),
    bar: Option<f64>,
) {
    bench.checks.ratio(name, document, (Kind::WeftRedis, peer), figure, bar.map(Bar::AtMost));
}

/// Runs these at their maximum, and remembers it.
fn maximum(bench: &mut Bench, kinds: &[Kind], subscribers: u32) -> Result<Document> {
    let load = format!("fan-out --clients {subscribers} --rate max --in-flight {WINDOW}");
    let document = bench.beside(&format!("fan-out-{subscribers}"), &load, kinds)?;
    for kind in kinds {
        bench.maxima.insert((kind.name(), subscribers), document.median(*kind, "publish_rate"));
    }
    Ok(document)
}

/// The most that this server published in a second, measured if it was not yet.
fn maximum_of(bench: &mut Bench, kind: Kind, subscribers: u32) -> Result<f64> {
    if !bench.maxima.contains_key(&(kind.name(), subscribers)) {
        let all = [Kind::FayeRedis, Kind::Faye, Kind::SocketIoRedis];
        maximum(bench, &all, subscribers)?;
    }
    let rate = bench.maxima.get(&(kind.name(), subscribers)).copied().unwrap_or(f64::NAN);
    ensure!(rate > 0.0, "{} published nothing", kind.name());
    Ok(rate)
}
