//! Runs the load generator, `weft bench`, as a process of its own, and reads what it measured. Every measurement goes
//! through here, so that all servers get the same load from the same program.

use std::fs::File;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::document::Document;
use crate::servers::{Cluster, Owned};

/// A run takes so much longer than its parts at the very most: connecting, draining, waiting for other benches.
const GRACE: Duration = Duration::from_secs(3600);

/// The load generator, and all that it wrote.
pub struct Generator {
    pub program: PathBuf,
    /// A command that each run is started by.
    pub under: Vec<String>,
    /// Where to put a page for each run.
    pub reports: Option<PathBuf>,
    /// What was run, with the documents that came of it.
    pub runs: Vec<Value>,
}

/// A run under way.
pub struct Run {
    name: String,
    command: String,
    process: Owned,
    json: tempfile::NamedTempFile,
    started: Instant,
}

impl Generator {
    /// Runs a scenario against these servers, the first being what the others are compared with. `load` is the
    /// scenario and its options, divided by spaces.
    pub fn run(&mut self, name: &str, load: &str, clusters: &[&Cluster]) -> Result<Document> {
        let run = self.start(name, load, clusters)?;
        self.finish(run)
    }

    /// Starts a run that `finish` waits for.
    pub fn start(&self, name: &str, load: &str, clusters: &[&Cluster]) -> Result<Run> {
        self.start_by(self.under.clone(), name, load, clusters)
    }

    /// One of several at the same time: a command that they are started by could make them wait for each other.
    pub fn start_beside(&self, name: &str, load: &str, clusters: &[&Cluster]) -> Result<Run> {
        self.start_by(Vec::new(), name, load, clusters)
    }

    fn start_by(&self, mut words: Vec<String>, name: &str, load: &str, clusters: &[&Cluster]) -> Result<Run> {
        let json = tempfile::NamedTempFile::new()?;
        words.extend([self.program.display().to_string(), "bench".to_owned()]);
        words.extend(load.split_whitespace().map(str::to_owned));
        for cluster in clusters {
            words.extend(["--target".to_owned(), cluster.target()]);
        }
        words.extend(["--quiet".to_owned(), "--json".to_owned(), json.path().display().to_string()]);
        if let Some(folder) = &self.reports {
            words.extend(["--report".to_owned(), folder.join(format!("{name}.html")).display().to_string()]);
        }
        let names: Vec<_> = clusters.iter().map(|cluster| cluster.kind.name()).collect();
        eprintln!("{name}: weft bench {load}  ({})", names.join(", "));
        let mut command = Command::new(&words[0]);
        // Its table is for people who run it by hand.
        command.args(&words[1..]).stdout(Stdio::null());
        let process = Owned::start(&mut command)?;
        Ok(Run { name: name.to_owned(), command: load.to_owned(), process, json, started: Instant::now() })
    }

    /// Waits for the end of a run, and reads what it measured.
    pub fn finish(&mut self, mut run: Run) -> Result<Document> {
        let code = run.process.end(GRACE).with_context(|| format!("{}: the load generator hangs", run.name))?;
        // 1: messages were lost, or clients refused. That is a result like another.
        ensure!(matches!(code, Some(0 | 1)), "{}: weft bench {} ended with {code:?}", run.name, run.command);
        let document = serde_json::from_reader(File::open(run.json.path())?);
        let document = Document::new(document.with_context(|| format!("{}: nothing was measured", run.name))?);
        eprintln!("{}: {:.0} s{}", run.name, run.started.elapsed().as_secs_f64(), document.remarks());
        self.runs.push(serde_json::json!({ "name": run.name, "load": run.command, "result": document.value() }));
        Ok(document)
    }
}
