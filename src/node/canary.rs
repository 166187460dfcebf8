//! Readiness is proved, not assumed: every second the node publishes to itself, through the same path as everybody's
//! messages, and is ready while what it publishes comes back.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

use crate::engine::NodeId;
use crate::server::{LocalError, LocalSubscription, Server};
use crate::transport::Readiness;

/// How often the canary flies.
const EVERY: Duration = Duration::from_secs(1);
/// How long it may be away.
const PATIENCE: Duration = Duration::from_secs(3);

/// Flies canaries for ever, and says in `readiness` how they do.
pub(super) async fn run(server: Server, node: NodeId, readiness: Arc<watch::Sender<Readiness>>) {
    // Below `/meta` nobody else can publish, and no pattern of a client reaches.
    let channel = format!("/meta/weft/canary/{node}");
    let mut told = String::new();
    loop {
        match fly(&server, &channel, &readiness).await {
            Ok(never) => match never {},
            Err(reason) => {
                // Once for each reason, not each second.
                let news = readiness.send_replace(Readiness::NotReady(reason.clone())) == Readiness::Ready;
                if news || told != reason {
                    tracing::warn!(%reason, "not ready");
                    told.clone_from(&reason);
                }
            }
        }
        tokio::time::sleep(EVERY).await;
    }
}

/// Flies until one does not come back; gives the reason.
async fn fly(
    server: &Server,
    channel: &str,
    readiness: &watch::Sender<Readiness>,
) -> Result<std::convert::Infallible, String> {
    let failed = |error: LocalError| format!("cannot publish: {error}");
    let client = server.internal_client().await.map_err(failed)?;
    let mut subscription = client.subscribe(channel).await.map_err(failed)?;
    let mut round = tokio::time::interval(EVERY);
    round.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    for count in 0_u64.. {
        round.tick().await;
        let start = Instant::now();
        match tokio::time::timeout(PATIENCE, client.publish(channel, &count)).await {
            Ok(stored) => stored.map_err(failed)?,
            Err(_) => return Err(format!("a message was not stored within {PATIENCE:?}")),
        }
        let left = PATIENCE.saturating_sub(start.elapsed()).max(EVERY);
        match tokio::time::timeout(left, there_and_back(&mut subscription, count)).await {
            Ok(outcome) => outcome?,
            Err(_) => {
                // It was stored; if the feed is deaf, only a new one can tell.
                server.sessions().store().doubt_feed();
                return Err(format!("a message did not come back within {PATIENCE:?}"));
            }
        }
        tracing::trace!(elapsed = ?start.elapsed(), "canary");
        let ready = readiness.send_if_modified(|state| {
            let changed = *state != Readiness::Ready && !server.sessions().stopping().is_cancelled();
            if changed {
                *state = Readiness::Ready;
            }
            changed
        });
        if ready {
            tracing::info!("ready");
        }
    }
    Err("the canary is worn out".to_owned())
}

/// Waits for the canary of this number.
async fn there_and_back(subscription: &mut LocalSubscription, count: u64) -> Result<(), String> {
    loop {
        let (_, message) = subscription.next().await.ok_or("the feed ended")?;
        // An older one that was late does not count.
        if message.data.is_some_and(|data| data.get() == count.to_string()) {
            return Ok(());
        }
    }
}
