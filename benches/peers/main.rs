//! Weft beside its peers: `cargo bench --bench peers`. Fails when a bar is missed.
//!
//! Starts Weft, Faye (with and without Redis), Socket.IO (with its Redis adapter) and a floor, and loads them side by
//! side with `weft bench`: the same clients, sizes and window for all, rounds in turn. What counts is the CPU time of
//! the server's process for each message delivered, as a ratio within each round: the machine's noise hits both sides.
//! `--only NAME,...` runs some of it, `--quick` shortens all, `--json` and `--report` keep everything.

mod bars;
mod crowd;
mod document;
mod fan_out;
mod floor;
mod generator;
mod idle;
mod machine;
mod pairs;
mod scale;
mod servers;
mod storm;

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use anyhow::{Context, Result, ensure};
use clap::Parser;

use bars::Checks;
use document::Document;
use generator::Generator;
use servers::{Kind, Programs};

/// Measures Weft beside Faye and Socket.IO.
#[derive(Parser)]
struct Arguments {
    /// Run only these: fan-out, same-rate, latency, pairs, polling, idle, storm, return, scale, channels.
    #[arg(long, value_delimiter = ',', value_name = "NAME")]
    only: Vec<String>,
    /// One short round of each: for a look, not for figures.
    #[arg(long)]
    quick: bool,
    /// Also hold 100,000 WebSockets on six nodes for ten minutes.
    #[arg(long)]
    crowd: bool,
    /// Instead of the bars: what more nodes cost, in CPU time of nodes and Redis.
    #[arg(long)]
    nodes: bool,
    /// Write everything that was measured to this file.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Write a page for each run to this folder.
    #[arg(long, value_name = "DIR")]
    report: Option<PathBuf>,
    /// The server to measure, instead of the one built with this bench.
    #[arg(long, value_name = "PROGRAM")]
    weft: Option<PathBuf>,
    /// Threads of each node of Weft [default: the machine's CPUs, or a node's share of them]. The peers have one.
    #[arg(long, value_name = "NUMBER")]
    workers: Option<usize>,
    /// The load generator, instead of the one built with this bench.
    #[arg(long, value_name = "PROGRAM")]
    generator: Option<PathBuf>,
    /// A command to start each run by, such as `taskset -c 1` or `flock FILE`.
    #[arg(long, value_name = "COMMAND", default_value = "")]
    under: String,
    /// Be the floor, on this port.
    #[arg(long, hide = true, value_name = "PORT")]
    floor: Option<u16>,
    /// Given by cargo.
    #[arg(long, hide = true)]
    bench: bool,
}

/// What all measurements share.
pub struct Bench {
    programs: Programs,
    generator: Generator,
    checks: Checks,
    quick: bool,
    /// Messages per second that each server published at its own maximum, by the number of subscribers.
    maxima: HashMap<(&'static str, u32), f64>,
}

type Measurement = fn(&mut Bench) -> Result<()>;

const MEASUREMENTS: [(&str, Measurement); 10] = [
    ("fan-out", fan_out::at_its_maximum),
    ("same-rate", fan_out::at_the_same_rate),
    ("latency", fan_out::latency),
    ("pairs", pairs::over_websocket),
    ("polling", pairs::by_long_polling),
    ("idle", idle::run),
    ("storm", storm::connect),
    ("return", storm::come_back),
    ("scale", scale::subscribers),
    ("channels", scale::channels),
];

fn main() -> Result<ExitCode> {
    let arguments = Arguments::parse();
    if let Some(port) = arguments.floor {
        floor::serve(port)?;
    }
    for name in &arguments.only {
        let known = MEASUREMENTS.iter().any(|(known, _)| known == name);
        ensure!(known, "there is no measurement `{name}`");
    }
    let node = Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/peers");
    install(&node)?;
    if let Some(folder) = &arguments.report {
        std::fs::create_dir_all(folder)?;
    }
    let built = PathBuf::from(env!("CARGO_BIN_EXE_weft"));
    let generator = Generator {
        program: arguments.generator.unwrap_or_else(|| built.clone()),
        under: arguments.under.split_whitespace().map(str::to_owned).collect(),
        reports: arguments.report,
        runs: Vec::new(),
    };
    let programs = Programs { weft: arguments.weft.unwrap_or(built), node, workers: arguments.workers };
    let (checks, quick) = (Checks::default(), arguments.quick);
    let mut bench = Bench { programs, generator, checks, quick, maxima: HashMap::new() };

    let wanted: Vec<(&str, Measurement)> = if arguments.nodes {
        vec![("nodes", scale::nodes)]
    } else {
        let only = &arguments.only;
        let chosen = |name: &str| only.is_empty() || only.iter().any(|only| only == name);
        let mut wanted: Vec<_> = MEASUREMENTS.into_iter().filter(|(name, _)| chosen(name)).collect();
        if arguments.crowd {
            wanted.push(("crowd", crowd::run));
        }
        wanted
    };
    let mut failed = Vec::new();
    for (name, measure) in wanted {
        // One that fails says so, and the others are measured all the same.
        if let Err(error) = measure(&mut bench) {
            eprintln!("{name}: {error:#}");
            failed.push(serde_json::json!({ "measurement": name, "error": format!("{error:#}") }));
        }
        // Whatever ends this early, what was measured is kept.
        if let Some(path) = &arguments.json {
            bench.write(path, &failed)?;
        }
    }
    bench.checks.print();
    let (missed, peerless) = (bench.checks.missed(), bench.checks.peerless());
    println!("{missed} missed, {peerless} without a peer, {} not measured", failed.len());
    let sound = missed == 0 && failed.is_empty();
    Ok(if sound { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Installs the packages of the servers in Node, if they are not there or not those of the lock file.
fn install(folder: &Path) -> Result<()> {
    let written = |name: &str| std::fs::metadata(folder.join(name)).and_then(|file| file.modified()).ok();
    let installed = written("node_modules/.package-lock.json");
    if installed.is_some() && installed >= written("package-lock.json") {
        return Ok(());
    }
    eprintln!("npm ci in {}", folder.display());
    let status = Command::new("npm").args(["ci", "--omit=dev", "--silent"]).current_dir(folder).status();
    ensure!(status.context("npm is needed for the peers")?.success(), "npm ci failed");
    Ok(())
}

impl Bench {
    /// Writes all that was measured so far.
    fn write(&self, path: &Path, failed: &[serde_json::Value]) -> Result<()> {
        let document = serde_json::json!({
            "date": machine::date()?,
            "machine": machine::describe()?,
            "command": std::env::args().skip(1).filter(|word| word != "--bench").collect::<Vec<_>>(),
            "quick": self.quick,
            "checks": self.checks.0,
            "failed": failed,
            "runs": self.generator.runs,
        });
        std::fs::write(path, serde_json::to_vec_pretty(&document)?).context("cannot write the JSON file")
    }

    /// How often, and for how long, something is measured.
    fn times(&self) -> String {
        let (rounds, duration, warm_up) = if self.quick { (1, 2, 1) } else { (3, 5, 1) };
        format!("--rounds {rounds} --duration {duration}s --warm-up {warm_up}s --drain 15s")
    }

    /// Starts one node of each of these, and runs a scenario against them.
    fn beside(&mut self, name: &str, load: &str, kinds: &[Kind]) -> Result<Document> {
        let clusters = self.start(kinds)?;
        let load = format!("{load} {}", self.times());
        self.generator.run(name, &load, &clusters.iter().collect::<Vec<_>>())
    }

    /// Starts one node of each.
    fn start(&self, kinds: &[Kind]) -> Result<Vec<servers::Cluster>> {
        kinds.iter().map(|kind| servers::Cluster::start(&self.programs, *kind, 1)).collect()
    }
}
