//! Many clients that connect at once: fresh ones, and those of a node that was killed and came back.

use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use crate::Bench;
use crate::bars::Bar::{AtLeast, AtMost};
use crate::servers::{Cluster, Kind, Owned, Server};

const CLIENTS: u32 = 2000;
const UNDER_WAY: u32 = 64;
const RETURNING: usize = 10_000;
/// All clients must be back so many seconds after the node is.
const BACK: f64 = 10.0;
/// How long a server must be quiet, and how little CPU time that is.
const QUIET: Duration = Duration::from_secs(2);
const QUIET_CPU: Duration = Duration::from_millis(60);
const SETTLING: Duration = Duration::from_secs(120);

/// Handshake, subscribe and first connect of many clients, as fast as each server can.
pub fn connect(bench: &mut Bench) -> Result<()> {
    let clusters = bench.start(&[Kind::WeftRedis, Kind::FayeRedis, Kind::Faye, Kind::Weft])?;
    let clusters: Vec<_> = clusters.iter().collect();
    let rounds = if bench.quick { 1 } else { 3 };
    let load = format!("storm --clients {CLIENTS} --in-flight {UNDER_WAY} --rounds {rounds}");
    let document = bench.generator.run("storm", &load, &clusters)?;
    let what = format!("{CLIENTS} clients, {UNDER_WAY} at once");
    for (peer, fast, cheap) in
        [(Kind::FayeRedis, Some(AtLeast(3.0)), Some(AtMost(1.0 / 5.0))), (Kind::Faye, None, None)]
    {
        let sides = (Kind::WeftRedis, peer);
        let figure = ("connects.per_second", "/s");
        bench.checks.ratio(("storm", &format!("{what}: rate")), &document, sides, figure, fast);
        let figure = ("connects.cpu_us_per_connect", "us");
        bench.checks.ratio(("storm", &format!("{what}: CPU")), &document, sides, figure, cheap);
    }
    Ok(())
}

/// The node is killed without a word, and started again where it was.
pub fn come_back(bench: &mut Bench) -> Result<()> {
    let mut cluster = Cluster::start(&bench.programs, Kind::WeftRedis, 1)?;
    let load = format!("storm --until-back --clients {RETURNING} --in-flight {UNDER_WAY} --rounds 1");
    let run = bench.generator.start("return", &load, &[&cluster])?;
    let node = cluster.nodes.first_mut().context("no node")?;
    all_stand(&node.process)?;
    let port = node.port()?;
    node.process.kill()?;
    *node =
        Server::start(&bench.programs, Kind::WeftRedis, cluster.redis.as_ref(), port, bench.programs.workers_of(1))?;
    let document = bench.generator.finish(run)?;
    let figure = |name: &str| document.median(Kind::WeftRedis, name);
    let what = format!("{RETURNING} clients of a killed node");
    let back = figure("connects.back_seconds");
    bench.checks.figure("return", format!("{what}: all are back"), (back, "s"), Some(AtMost(BACK)));
    let refused = figure("connects.refused");
    bench.checks.figure("return", format!("{what}: sessions refused"), (refused, ""), Some(AtMost(0.0)));
    Ok(())
}

/// Waits until the node has all sockets and nothing to do.
fn all_stand(node: &Owned) -> Result<()> {
    let deadline = Instant::now() + SETTLING;
    let mut used = node.cpu()?;
    loop {
        sleep(QUIET);
        let now = node.cpu()?;
        if node.files()? >= RETURNING && now - used < QUIET_CPU {
            return Ok(());
        }
        ensure!(Instant::now() < deadline, "the clients did not all connect within {SETTLING:?}");
        used = now;
    }
}
