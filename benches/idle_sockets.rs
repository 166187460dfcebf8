//! What an idle WebSocket costs in memory: `cargo bench --bench idle_sockets`. Fails above the bar.
//!
//! Real clients on loopback against the release build of `weft`, in a process of its own. Its anonymous resident
//! memory is read when it is quiet, in three stages: sockets without a session, bound sockets, and bound sockets after
//! a burst. Only user space counts: what the kernel keeps for a socket is not in it. See `docs/performance.md`.

mod support;

use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use clap::Parser;
use futures_util::{StreamExt, TryStreamExt, stream};
use support::{Client, Process, Weft, arrive, raise_file_limit, source};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio_tungstenite::WebSocketStream;

/// User-space bytes that a bound, idle connection may cost.
const BAR: usize = 10 * 1024;
/// What it should cost.
const AIM: usize = 6 * 1024;
/// Clients that shake hands at the same time.
const AT_ONCE: usize = 100;
const BURST: usize = 16;
const PAYLOAD: usize = 200;
/// The server is quiet when it used no CPU time for this long: longer than every timer that follows a message (pings
/// that confirm, commits, sweeps).
const QUIET: Duration = Duration::from_secs(4);
/// Housekeeping may use this much meanwhile.
const IDLE_CPU: Duration = Duration::from_millis(30);
const PATIENCE: Duration = Duration::from_secs(60);

/// Measures the memory of idle WebSockets.
#[derive(Parser)]
struct Arguments {
    /// How many clients.
    #[arg(long, default_value_t = 5000)]
    sockets: usize,
    /// How many channels they share.
    #[arg(long, default_value_t = 1)]
    channels: usize,
    /// Given by `cargo bench`.
    #[arg(long, hide = true)]
    bench: bool,
    /// Given by `cargo bench -- --test`: only the micro benches have something to try.
    #[arg(long, hide = true)]
    test: bool,
}

/// Memory of the server, in bytes.
#[derive(Clone, Copy)]
struct Memory {
    resident: usize,
    anonymous: usize,
}

/// Memory at a stage, by connection.
struct Stage {
    name: &'static str,
    bytes: usize,
    resident: usize,
}

#[tokio::main]
async fn main() -> Result<ExitCode> {
    let Arguments { sockets, channels, bench, test } = Arguments::parse();
    if test || !bench {
        eprintln!("nothing is measured but by `cargo bench`");
        return Ok(ExitCode::SUCCESS);
    }
    ensure!(sockets > 0 && channels > 0, "neither --sockets nor --channels can be 0");
    raise_file_limit(sockets)?;
    let weft = Weft::start().await?;
    let channel = |client: usize| format!("/bench/{}", client % channels);
    let data = "x".repeat(PAYLOAD);

    // Everything that is allocated once, and every page of code that the stages run.
    let received = Arc::new(Semaphore::new(0));
    let mut publisher = Client::open(weft.address, source(0)).await?;
    let mut first = Client::open(weft.address, source(0)).await?;
    first.bind(&channel(0)).await?;
    tokio::spawn(first.read_on(received.clone()));
    publisher.publish(&channel(0), &data, BURST).await?;
    arrive(&received, BURST).await?;
    let before = quiet(&weft.process).await?;
    let mut stages = Vec::new();
    let mut measure = |name, now: Memory| {
        let by_connection = |now: usize, before: usize| now.saturating_sub(before) / sockets;
        let bytes = by_connection(now.anonymous, before.anonymous);
        stages.push(Stage { name, bytes, resident: by_connection(now.resident, before.resident) });
    };

    let clients = stream::iter(0..sockets).map(|client| Client::open(weft.address, source(client)));
    let clients: Vec<_> = clients.buffer_unordered(AT_ONCE).try_collect().await?;
    measure("connected", quiet(&weft.process).await?);

    let bound = stream::iter(clients.into_iter().enumerate()).map(|(number, mut client)| {
        let channel = channel(number);
        async move { client.bind(&channel).await.map(|()| client) }
    });
    let bound: Vec<_> = bound.buffer_unordered(AT_ONCE).try_collect().await?;
    for client in bound {
        tokio::spawn(client.read_on(received.clone()));
    }
    measure("bound, idle", quiet(&weft.process).await?);

    for number in 0..channels {
        publisher.publish(&channel(number), &data, BURST).await?;
    }
    arrive(&received, (sockets + 1) * BURST).await?;
    measure("after a burst", quiet(&weft.process).await?);

    print(&stages, sockets, channels);
    // With many channels the burst is kept in as many logs, and they are no part of a connection.
    let judged = if channels == 1 { stages.len() } else { 2 };
    let within = stages.iter().take(judged).all(|stage| stage.bytes <= BAR);
    Ok(if within { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// The server's memory once it does nothing any more.
async fn quiet(server: &Process) -> Result<Memory> {
    let start = Instant::now();
    let (mut since, mut used) = (Instant::now(), server.cpu()?);
    while since.elapsed() < QUIET {
        ensure!(start.elapsed() < PATIENCE, "the server does not come to rest");
        tokio::time::sleep(Duration::from_millis(50)).await;
        let now = server.cpu()?;
        if now.saturating_sub(used) > IDLE_CPU {
            (since, used) = (Instant::now(), now);
        }
    }
    let status = std::fs::read_to_string(server.proc("status")).context("the server is gone")?;
    let field = |name: &str| -> Result<usize> {
        let line = status.lines().find_map(|line| line.strip_prefix(name)).context("a field is missing")?;
        let kibibytes: usize = line.trim_end_matches("kB").trim().parse()?;
        Ok(kibibytes * 1024)
    };
    Ok(Memory { resident: field("VmRSS:")?, anonymous: field("RssAnon:")? })
}

fn print(stages: &[Stage], sockets: usize, channels: usize) {
    println!("{sockets} sockets on {channels} channel(s); a burst is {BURST} messages of {PAYLOAD} bytes to each\n");
    println!("stage            bytes/connection      KiB   VmRSS/connection   total MiB");
    for Stage { name, bytes, resident } in stages {
        let total = (bytes * sockets) as f64 / f64::from(1 << 20);
        println!("{name:<16} {bytes:>16} {:>8.2} {resident:>18} {total:>11.1}", *bytes as f64 / 1024.0);
    }
    let [connected, bound, burst] = stages else { return };
    println!("\nthe account, by connection                               bytes");
    let row = |name: &str, bytes: usize| println!("{name:<52} {bytes:>9}");
    row("socket without a session", connected.bytes);
    row("  codec and TCP stream (size_of)", size_of::<WebSocketStream<TcpStream>>());
    row("  read buffer", 1024);
    row("session, subscription, held connect (by subtraction)", bound.bytes.saturating_sub(connected.bytes));
    row("  attachment (size_of)", size_of::<weft::session::Attachment>());
    row("  reply of the held connect (size_of)", size_of::<weft::Message>());
    row("left behind by a burst (by subtraction)", burst.bytes.saturating_sub(bound.bytes));
    let verdict = |bytes: usize| match bytes {
        bytes if bytes <= AIM => "within the aim",
        bytes if bytes <= BAR => "within the bar, above the aim",
        _ => "ABOVE THE BAR",
    };
    println!("\nbar {BAR}, aim {AIM}: idle {}", verdict(bound.bytes));
    if channels == 1 {
        println!("bar {BAR}, aim {AIM}: after a burst {}", verdict(burst.bytes));
    }
}
