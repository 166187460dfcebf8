//! What a client of `weft::client` costs in memory: `cargo bench --bench clients`. Fails above the bar.
//!
//! Ten thousand clients in this process, each subscribed, against the release build of `weft` in a process of its own. The
//! anonymous resident memory of this process is read when all stand, and after a burst. See `docs/performance.md`.

#[allow(dead_code)] // each bench needs a part of it
mod support;

use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use clap::Parser;
use futures_util::{StreamExt, TryStreamExt, stream};
use support::{Weft, raise_file_limit};
use weft::Client;
use weft::client::{Subscription, Transport};

/// Bytes that a subscribed, idle client may cost.
const BAR: usize = 24 * 1024;
/// Clients that connect at the same time.
const AT_ONCE: usize = 100;
const BURST: usize = 16;
const PAYLOAD: usize = 200;
const PATIENCE: Duration = Duration::from_secs(60);

/// Measures the memory of clients.
#[derive(Parser)]
struct Arguments {
    /// How many clients.
    #[arg(long, default_value_t = 10_000)]
    clients: usize,
    /// Given by `cargo bench`.
    #[arg(long, hide = true)]
    bench: bool,
    /// Given by `cargo bench -- --test`: only the micro benches have something to try.
    #[arg(long, hide = true)]
    test: bool,
}

#[tokio::main]
async fn main() -> Result<ExitCode> {
    let Arguments { clients: count, bench, test } = Arguments::parse();
    if test || !bench {
        eprintln!("nothing is measured but by `cargo bench`");
        return Ok(ExitCode::SUCCESS);
    }
    ensure!(count > 0, "--clients cannot be 0");
    raise_file_limit(count)?;
    let weft = Weft::start().await?;
    let url = format!("http://{}/bayeux", weft.address);
    let data = "x".repeat(PAYLOAD);
    let mut within = true;
    for transport in [Transport::WebSocket, Transport::LongPolling] {
        // A poll needs two connections.
        let count = if transport == Transport::WebSocket { count } else { count / 2 };
        // Everything that is there once.
        let speaker = Client::connect(&url).await?;
        let mut first = subscribed(&url, transport).await?;
        let before = anonymous()?;
        let began = Instant::now();
        let clients = stream::iter(0..count).map(|_| subscribed(&url, transport)).buffer_unordered(AT_ONCE);
        let mut clients: Vec<_> = clients.try_collect().await?;
        let connecting = began.elapsed();
        let idle = anonymous()?.saturating_sub(before) / count;
        for _ in 0..BURST {
            speaker.publish("/bench", &data).await?;
        }
        for (_, subscription) in clients.iter_mut().chain([&mut first]) {
            for _ in 0..BURST {
                let next = tokio::time::timeout(PATIENCE, subscription.next()).await;
                next.context("a message is missing")?.context("a client has ended")?;
            }
        }
        let burst = anonymous()?.saturating_sub(before) / count;
        println!(
            "{count} clients by {}: {:.1} KiB each, {:.1} KiB after a burst of {BURST} messages; all connected in {connecting:.1?}",
            transport.as_str(),
            idle as f64 / 1024.0,
            burst as f64 / 1024.0,
        );
        within &= idle <= BAR;
    }
    println!("bar: {} KiB each, idle: {}", BAR / 1024, if within { "met" } else { "missed" });
    Ok(if within { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

async fn subscribed(url: &str, transport: Transport) -> Result<(Client, Subscription)> {
    let client = Client::builder(url).transports(&[transport]).connect_timeout(PATIENCE).connect().await?;
    let subscription = client.subscribe("/bench").await?;
    Ok((client, subscription))
}

/// Anonymous resident memory of this process, in bytes.
fn anonymous() -> Result<usize> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).context("no RssAnon in /proc")?;
    let kibibytes: usize = line.trim().trim_end_matches("kB").trim().parse()?;
    Ok(kibibytes * 1024)
}
