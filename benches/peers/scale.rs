//! What size costs: more subscribers, more channels, more nodes.

use anyhow::Result;

use crate::Bench;
use crate::bars::Bar::AtMost;
use crate::document::Document;
use crate::servers::{Cluster, Kind};

/// How much the cost of a message may grow.
const GROWTH: f64 = 1.2;
const NODES: usize = 3;
const WEFT: Kind = Kind::WeftRedis;

/// Subscribers of one channel on three nodes: few, and more than one load generator can have.
pub fn subscribers(bench: &mut Bench) -> Result<()> {
    // TODO
    let _ = bench;
    Ok(())
}

/// Publishing where there are few channels, and where there are many, at the same rate. Each has one subscriber.
pub fn channels(bench: &mut Bench) -> Result<()> {
    let mut costs = Vec::new();
    for channels in [100, 100_000] {
        let cluster = Cluster::start(&bench.programs, WEFT, 1)?;
        let load = format!("fan-out --publishers 10 --clients 100 --channels {channels} --rate 2000 {}", bench.times());
        let document = bench.generator.run(&format!("channels-{channels}"), &load, &[&cluster])?;
        costs.push((per_publish(&document, "server.cpu_seconds"), per_publish(&document, "redis.cpu_seconds")));
        let (node, redis) = costs[costs.len() - 1];
        bench.checks.figure("channels", format!("{channels} channels: node"), (node, "us"), None);
        bench.checks.figure("channels", format!("{channels} channels: Redis"), (redis, "us"), None);
    }
    if let [few, many] = costs[..] {
        let bar = Some(AtMost(GROWTH));
        bench.checks.figure("channels", "a publish with 100,000 / with 100: node".into(), (many.0 / few.0, ""), bar);
        bench.checks.figure("channels", "a publish with 100,000 / with 100: Redis".into(), (many.1 / few.1, ""), bar);
    }
    Ok(())
}

/// The same load on more and more nodes that share a Redis. They also share this machine, so the CPU time of a message
/// counts, not how many there are.
pub fn nodes(bench: &mut Bench) -> Result<()> {
    let loads = [
        ("fan-out", "fan-out --clients 600 --rate 50"),
        ("fan-out, batched", "fan-out --clients 60 --publishers 30 --in-flight 16 --rate max"),
        ("pairs", "one-to-one --channels 600 --rate 1000"),
        ("pairs, batched", "one-to-one --channels 600 --in-flight 1 --rate max"),
    ];
    for (name, load) in loads {
        for nodes in [1, 2, 3, 6] {
            let cluster = Cluster::start(&bench.programs, WEFT, nodes)?;
            let run = format!("nodes-{}-{nodes}", name.replace(", ", "-"));
            let document = bench.generator.run(&run, &format!("{load} {}", bench.times()), &[&cluster])?;
            let redis = per_publish(&document, "redis.cpu_seconds");
            let figures = [
                ("node CPU per delivery", document.median(WEFT, "server.cpu_us_per_delivery"), "us"),
                ("Redis CPU per publish", redis, "us"),
                // Redis does its work in one thread: a core is all that it can have.
                ("publishes with which Redis fills a core", 1e6 / redis, "/s"),
            ];
            for (figure, value, unit) in figures {
                bench.checks.figure("nodes", format!("{name}, {nodes} nodes: {figure}"), (value, unit), None);
            }
        }
    }
    Ok(())
}

/// Microseconds of CPU time for each message published.
fn per_publish(document: &Document, seconds: &str) -> f64 {
    let rounds = document.rounds(WEFT, seconds).into_iter().zip(document.rounds(WEFT, "published"));
    crate::document::median(rounds.map(|(seconds, published)| seconds * 1e6 / published).collect())
}
