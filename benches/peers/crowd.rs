//! A hundred thousand WebSockets on six nodes that share a Redis, for ten minutes: all must stay.

use anyhow::Result;

use crate::Bench;
use crate::bars::Bar::AtMost;
use crate::servers::{Cluster, Kind};

const NODES: usize = 6;
/// A process may have only so many files: each generator has a sixth of the clients.
const CLIENTS: u32 = 100_000;
const GENERATORS: u32 = 6;

pub fn run(bench: &mut Bench) -> Result<()> {
    let cluster = Cluster::start(&bench.programs, Kind::WeftRedis, NODES)?;
    let clients = CLIENTS.div_ceil(GENERATORS);
    let duration = if bench.quick { 60 } else { 600 };
    let mut runs = Vec::new();
    for number in 0..GENERATORS {
        let load = format!("idle --clients {clients} --duration {duration}s --rounds 1 --seed {}", number + 1);
        runs.push(bench.generator.start_beside(&format!("crowd-{number}"), &load, &[&cluster])?);
    }
    let (mut failed, mut stood) = (0.0, 0.0);
    for run in runs {
        let document = bench.generator.finish(run)?;
        failed += document.median(Kind::WeftRedis, "connection_failures");
        stood += document.median(Kind::WeftRedis, "connects.count");
    }
    bench.checks.figure("crowd", format!("{CLIENTS} clients, {duration} s: connected"), (stood, ""), None);
    bench.checks.figure("crowd", format!("{CLIENTS} clients, {duration} s: lost"), (failed, ""), Some(AtMost(0.0)));
    for (number, node) in cluster.nodes.iter().enumerate() {
        let size = node.process.status_bytes("VmRSS")? as f64 / 1024.0 / 1024.0;
        bench.checks.figure("crowd", format!("node {number}: resident"), (size, "MiB"), None);
    }
    Ok(())
}
