//! What a client costs in memory that only waits: on a WebSocket, and with a parked poll.

use anyhow::Result;

use crate::Bench;
use crate::bars::Bar::AtMost;
use crate::servers::Kind;

const CLIENTS: u32 = 10_000;
/// For the peers, whose figures are only for comparison.
const PEERS_CLIENTS: u32 = 5000;
const KIB: f64 = 1024.0;

/// Growth of the resident memory for each client, in servers that have just started.
pub fn run(bench: &mut Bench) -> Result<()> {
    let weft = [Kind::Weft, Kind::WeftRedis];
    let websocket_peers = [Kind::Faye, Kind::FayeRedis, Kind::SocketIoRedis];
    for (transport, bar, peers) in
        [("websocket", 7.0, &websocket_peers[..]), ("long-polling", 12.0, &websocket_peers[..2])]
    {
        for (kinds, clients, bar) in [(&weft[..], CLIENTS, Some(AtMost(bar))), (peers, PEERS_CLIENTS, None)] {
            let clusters = bench.start(kinds)?;
            let clusters: Vec<_> = clusters.iter().collect();
            let duration = if bench.quick { 3 } else { 10 };
            let load = format!("idle --transport {transport} --clients {clients} --duration {duration}s --rounds 1");
            let name = format!("idle-{transport}-{clients}");
            let document = bench.generator.run(&name, &load, &clusters)?;
            for kind in kinds {
                let size = document.median(*kind, "server.bytes_per_connection") / KIB;
                let what = format!("{transport}, {clients} clients, {}", kind.name());
                bench.checks.figure("idle", what, (size, "KiB"), bar);
            }
        }
    }
    Ok(())
}
