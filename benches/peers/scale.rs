//! What size costs: more subscribers, more channels, more nodes.

use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

use crate::Bench;
use crate::bars::Bar::AtMost;
use crate::document::{Document, median};
use crate::servers::{Cluster, Kind};

/// How much the cost of a message may grow.
const GROWTH: f64 = 1.2;
const NODES: usize = 3;
const WEFT: Kind = Kind::WeftRedis;
const CHANNEL: &str = "/bench/scale";
/// Messages per second that even fifty thousand subscribers get one by one.
const SLOWLY: f64 = 0.25;
/// Nodes that use less of a core than this have nothing to do but keep sockets alive.
const QUIET_SHARE: f64 = 0.5;
const LOOK: Duration = Duration::from_secs(5);
const SETTLING: Duration = Duration::from_secs(180);

/// Subscribers of one channel on three nodes: few, and more than one load generator can have. All get each message by
/// itself, with the ping that confirms it. What nodes do without messages is taken off: it would be much for few.
pub fn subscribers(bench: &mut Bench) -> Result<()> {
    let mut costs = Vec::new();
    for (subscribers, generators) in [(1000, 1), (50_000, 3)] {
        let mut cluster = Cluster::start(&bench.programs, WEFT, NODES)?;
        let share = subscribers / generators;
        // One generator publishes and measures. The clients of the others only listen.
        let mut crowd = Vec::new();
        for number in 1..generators {
            let load = format!("idle --channel {CHANNEL} --clients {share} --duration 600s --rounds 1");
            crowd.push(bench.generator.start_beside(&format!("crowd-{number}"), &load, &[&cluster])?);
        }
        all_stand(&mut cluster, share * (generators - 1))?;
        let still = cpu_of_a_second(&cluster)?;
        let (rounds, duration) = if bench.quick { (1, 20) } else { (2, 60) };
        let load = format!(
            "fan-out --channel {CHANNEL} --clients {share} --rate {SLOWLY} --duration {duration}s --warm-up 8s --drain 15s \
             --rounds {rounds}"
        );
        let run = bench.generator.start_beside(&format!("subscribers-{subscribers}"), &load, &[&cluster])?;
        let document = bench.generator.finish(run)?;
        drop(crowd);
        let spent = document.rounds(WEFT, "server.cpu_seconds").into_iter().zip(published(&document));
        let used = f64::from(duration) * still;
        let cost = spent.map(|(cpu, published)| (cpu - used) * 1e6 / published / f64::from(subscribers));
        let cost = median(cost.collect());
        bench.checks.figure("scale", format!("1 -> {subscribers}, {NODES} nodes: a delivery"), (cost, "us"), None);
        costs.push(cost);
    }
    if let [few, many] = costs[..] {
        let what = "a delivery to 50,000 / to 1,000".to_owned();
        bench.checks.figure("scale", what, (many / few, ""), Some(AtMost(GROWTH)));
    }
    Ok(())
}

/// Waits until the nodes have so many sockets between them and are quiet.
fn all_stand(cluster: &mut Cluster, sockets: u32) -> Result<()> {
    let deadline = Instant::now() + SETTLING;
    loop {
        let open: usize = cluster.nodes.iter().map(|node| node.process.files()).sum::<Result<_>>()?;
        if open >= sockets as usize && cpu_of_a_second(cluster)? < QUIET_SHARE {
            return Ok(());
        }
        ensure!(Instant::now() < deadline, "{sockets} clients did not connect within {SETTLING:?}");
        sleep(Duration::from_millis(200));
    }
}

/// How much of a core the nodes use now.
fn cpu_of_a_second(cluster: &Cluster) -> Result<f64> {
    let used = || cluster.nodes.iter().map(|node| node.process.cpu()).sum::<Result<Duration>>();
    let (before, started) = (used()?, Instant::now());
    sleep(LOOK);
    Ok((used()? - before).as_secs_f64() / started.elapsed().as_secs_f64())
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
        ("pairs", "one-to-one --clients 600 --rate 1000"),
        ("pairs, batched", "one-to-one --clients 600 --in-flight 1 --rate max"),
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
    let rounds = document.rounds(WEFT, seconds).into_iter().zip(published(document));
    median(rounds.map(|(seconds, published)| seconds * 1e6 / published).collect())
}

/// Messages published in the measured time of each round: the document's own count includes what came before and after.
fn published(document: &Document) -> impl Iterator<Item = f64> {
    let rates = document.rounds(WEFT, "publish_rate");
    rates.into_iter().zip(document.rounds(WEFT, "seconds")).map(|(rate, seconds)| rate * seconds)
}
