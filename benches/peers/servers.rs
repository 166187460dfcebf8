//! The servers that are compared, each in processes of its own: Weft, the peers in Node, the floor, and a Redis for each
//! that needs one. Used by `main` and by every measurement.

use std::io::{BufRead, BufReader};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

/// A server must serve within this time.
const START: Duration = Duration::from_secs(20);
const PAUSE: Duration = Duration::from_millis(5);

/// What there is to compare.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    Weft,
    WeftRedis,
    Faye,
    FayeRedis,
    SocketIoRedis,
    Floor,
}

impl Kind {
    /// The name in tables and documents.
    pub fn name(self) -> &'static str {
        match self {
            Self::Weft => "weft-memory",
            Self::WeftRedis => "weft-redis",
            Self::Faye => "faye-memory",
            Self::FayeRedis => "faye-redis",
            Self::SocketIoRedis => "socket.io-redis",
            Self::Floor => "floor",
        }
    }

    fn on_redis(self) -> bool {
        matches!(self, Self::WeftRedis | Self::FayeRedis | Self::SocketIoRedis)
    }

    fn protocol(self) -> &'static str {
        if self == Self::SocketIoRedis { "socket.io" } else { "bayeux" }
    }
}

/// Where the programs are.
pub struct Programs {
    pub weft: PathBuf,
    /// The folder of the servers in Node, with their packages installed.
    pub node: PathBuf,
    /// Threads of each node of Weft; as many as there are CPUs for it if nothing is said.
    pub workers: Option<usize>,
}

impl Programs {
    /// How many threads each of so many nodes of Weft gets: they share the machine.
    pub fn workers_of(&self, nodes: usize) -> usize {
        let share = || std::thread::available_parallelism().map_or(1, |all| (all.get() / nodes.max(1)).max(1));
        self.workers.unwrap_or_else(share)
    }
}

/// Some nodes of one kind, on one Redis if they need it. All end when it is dropped.
pub struct Cluster {
    pub kind: Kind,
    pub nodes: Vec<Server>,
    pub redis: Option<Redis>,
}

impl Cluster {
    pub fn start(programs: &Programs, kind: Kind, nodes: usize) -> Result<Self> {
        let redis = if kind.on_redis() { Some(Redis::start()?) } else { None };
        let workers = programs.workers_of(nodes);
        let nodes = (0..nodes).map(|_| Server::start(programs, kind, redis.as_ref(), 0, workers));
        Ok(Self { kind, nodes: nodes.collect::<Result<_>>()?, redis })
    }

    /// As the load generator takes it.
    pub fn target(&self) -> String {
        let mut target = format!("name={} protocol={}", self.kind.name(), self.kind.protocol());
        for Server { url, process, .. } in &self.nodes {
            target += &format!(" url={url} pid={}", process.id());
        }
        if let Some(redis) = &self.redis {
            target += &format!(" redis-pid={}", redis.process.id());
        }
        target
    }
}

/// One node.
pub struct Server {
    pub url: String,
    pub process: Owned,
}

impl Server {
    /// Starts it on this port (0 for a free one), and waits until it serves. The peers, and the floor, have one thread; Weft has
    /// `workers`.
    pub fn start(programs: &Programs, kind: Kind, redis: Option<&Redis>, port: u16, workers: usize) -> Result<Self> {
        let mut command = match kind {
            Kind::Weft | Kind::WeftRedis => return Self::start_weft(programs, redis, port, workers),
            Kind::Floor => {
                let mut command = Command::new(std::env::current_exe()?);
                command.args(["--floor", &port.to_string()]);
                command
            }
            Kind::Faye => node(programs, "faye.mjs", &["--engine", "memory"]),
            Kind::FayeRedis => node(programs, "faye.mjs", &["--engine", "redis"]),
            Kind::SocketIoRedis => node(programs, "socketio.mjs", &["--adapter", "redis"]),
        };
        if kind != Kind::Floor {
            command.args(["--port", &port.to_string()]);
        }
        if let Some(redis) = redis {
            command.args(["--redis-port", &redis.port.to_string()]);
        }
        let mut process = Owned::start(command.stdout(Stdio::piped()))?;
        let ready = process.first_line().with_context(|| format!("{} does not start", kind.name()))?;
        let ready: Value = serde_json::from_str(&ready).context("not what a server says when it serves")?;
        Ok(Self { url: ready["url"].as_str().context("no url")?.to_owned(), process })
    }

    /// Weft says in a file where it serves.
    fn start_weft(programs: &Programs, redis: Option<&Redis>, port: u16, workers: usize) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let ready = folder.path().join("ready.json");
        let mut command = Command::new(&programs.weft);
        command.args(["serve", "--listen", &format!("127.0.0.1:{port}"), "--internal-listen", "127.0.0.1:0"]);
        command.args(["--log-level", "warn", "--ready-file"]).arg(&ready).env("WEFT_WORKERS", workers.to_string());
        if let Some(redis) = redis {
            command.args(["--redis-url", &format!("redis://127.0.0.1:{}/0", redis.port)]);
        }
        let mut process = Owned::start(command.stdout(Stdio::null()))?;
        wait("weft to serve", || Ok(ready.exists()), &mut process)?;
        let ready: Value = serde_json::from_slice(&std::fs::read(ready)?)?;
        Ok(Self { url: format!("http://{}/bayeux", ready["listen"].as_str().context("no address")?), process })
    }

    pub fn port(&self) -> Result<u16> {
        let port = self.url.split(':').nth(2).and_then(|rest| rest.split('/').next());
        Ok(port.context("no port")?.parse()?)
    }
}

fn node(programs: &Programs, script: &str, arguments: &[&str]) -> Command {
    let mut command = Command::new("node");
    command.arg(programs.node.join(script)).args(arguments);
    command
}

/// A Redis that writes nothing to disk.
pub struct Redis {
    pub port: u16,
    pub process: Owned,
    _folder: tempfile::TempDir,
}

impl Redis {
    pub fn start() -> Result<Self> {
        let folder = tempfile::tempdir()?;
        // Free a moment ago; if somebody took it since, Redis ends, and so do we.
        let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port();
        let mut command = Command::new("redis-server");
        command.args(["--bind", "127.0.0.1", "--port", &port.to_string(), "--save", "", "--appendonly", "no"]);
        command.current_dir(folder.path()).stdout(Stdio::null());
        let mut process = Owned::start(&mut command)?;
        wait("Redis to listen", || Ok(TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_ok()), &mut process)?;
        Ok(Self { port, process, _folder: folder })
    }
}

/// A process that ends with this.
pub struct Owned(Child);

impl Owned {
    /// Starts it. Its standard error is ours.
    pub fn start(command: &mut Command) -> Result<Self> {
        let child = command.stdin(Stdio::null()).spawn();
        Ok(Self(child.with_context(|| format!("cannot start {}", command.get_program().display()))?))
    }

    pub fn id(&self) -> u32 {
        self.0.id()
    }

    /// Ends it without a word, as a crash would.
    pub fn kill(&mut self) -> Result<()> {
        self.0.kill()?;
        self.0.wait()?;
        Ok(())
    }

    /// A number of /proc/PID/status, such as `VmRSS`, in bytes.
    pub fn status_bytes(&self, key: &str) -> Result<u64> {
        let status = std::fs::read_to_string(self.proc("status"))?;
        let line = status.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':'));
        let kib: u64 = line.context("no such line")?.trim().trim_end_matches(" kB").parse()?;
        Ok(kib * 1024)
    }

    /// CPU time used so far, of user and kernel, by all threads.
    pub fn cpu(&self) -> Result<Duration> {
        let mut nanoseconds = 0;
        for thread in std::fs::read_dir(self.proc("task"))? {
            // A thread may have ended since: then its time is lost, and that of a server's does not.
            let Ok(stat) = std::fs::read_to_string(thread?.path().join("schedstat")) else { continue };
            nanoseconds += stat.split(' ').next().context("empty scheduler statistics")?.parse::<u64>()?;
        }
        Ok(Duration::from_nanos(nanoseconds))
    }

    /// Open files, sockets among them.
    pub fn files(&self) -> Result<usize> {
        Ok(std::fs::read_dir(self.proc("fd"))?.count())
    }

    fn proc(&self, name: &str) -> PathBuf {
        Path::new("/proc").join(self.id().to_string()).join(name)
    }

    /// The first line that it prints.
    fn first_line(&mut self) -> Result<String> {
        let output = self.0.stdout.take().context("its output was taken")?;
        let (sender, receiver) = mpsc::channel();
        std::thread::spawn(move || {
            let mut lines = BufReader::new(output).lines();
            if let Some(Ok(line)) = lines.next() {
                let _ = sender.send(line);
            }
            // It must not block because nobody reads.
            lines.for_each(drop);
        });
        receiver.recv_timeout(START).context("it said nothing")
    }

    /// Its exit code, once it has ended; an error if that takes longer.
    pub fn end(&mut self, within: Duration) -> Result<Option<i32>> {
        let deadline = Instant::now() + within;
        loop {
            if let Some(status) = self.0.try_wait()? {
                return Ok(status.code());
            }
            ensure!(Instant::now() < deadline, "it did not end within {within:?}");
            std::thread::sleep(PAUSE);
        }
    }
}

impl Drop for Owned {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Waits until it is so. Ends early if the process does.
pub fn wait(what: &str, mut is_so: impl FnMut() -> Result<bool>, process: &mut Owned) -> Result<()> {
    let deadline = Instant::now() + START;
    while !is_so()? {
        if let Some(status) = process.0.try_wait()? {
            bail!("waited for {what}, but it ended: {status}");
        }
        ensure!(Instant::now() < deadline, "waited for {what} for {START:?}");
        std::thread::sleep(PAUSE);
    }
    Ok(())
}
