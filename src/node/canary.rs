//! Readiness is proved, not assumed: about every second the node publishes to itself, through the same path as everybody's
//! messages, and is ready while what it publishes comes back, with a clock that goes on.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::health::Health;
use super::pressure::Pressure;
use crate::engine::NodeId;
use crate::server::{LocalError, LocalSubscription, Server};

/// How often the canary flies.
const EVERY: Duration = Duration::from_millis(900);
/// How old the last one that came back may be: what stands still is known within three seconds.
const PATIENCE: Duration = Duration::from_millis(2500);
/// Flights after which a clock that shows the same time is taken to stand. One more than a step back may cost.
const STANDS: u32 = 2;

/// Flies canaries for ever, and tells `health` how they do.
pub(super) async fn run(server: Server, node: NodeId, health: Arc<Health>, mut pressure: Pressure) {
    // Below `/meta` nobody else can publish, and no pattern of a client reaches.
    let channel = format!("/meta/weft/canary/{node}");
    loop {
        match fly(&server, &channel, &health, &mut pressure).await {
            Ok(never) => match never {},
            Err(reason) => health.stopped(reason),
        }
        tokio::time::sleep(EVERY).await;
    }
}

/// Flies until one does not come back; gives the reason.
async fn fly(
    server: &Server,
    channel: &str,
    health: &Health,
    pressure: &mut Pressure,
) -> Result<std::convert::Infallible, String> {
    let failed = |error: LocalError| format!("cannot publish: {error}");
    let client = server.internal_client().await.map_err(failed)?;
    let mut subscription = client.subscribe(channel).await.map_err(failed)?;
    let metrics = server.metrics();
    let mut home = Instant::now();
    // The clock of the last message, and how many flights have seen no other.
    let (mut clock, mut same) = (0, 0);
    let mut round = tokio::time::interval(EVERY);
    round.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    for count in 0_u64.. {
        round.tick().await;
        let start = Instant::now();
        // A machine that was too busy to fly in time is given a moment all the same.
        let deadline = (home + PATIENCE).max(start + EVERY);
        match tokio::time::timeout_at(deadline, client.publish(channel, &count)).await {
            Ok(stored) => stored.map_err(failed)?,
            Err(_) => return Err(format!("no message was stored within {PATIENCE:?}")),
        }
        let millis = match tokio::time::timeout_at(deadline, there_and_back(&mut subscription, count)).await {
            Ok(outcome) => outcome?,
            Err(_) => {
                // It was stored; if the feed is deaf, only a new one can tell.
                server.sessions().store().doubt_feed();
                return Err(format!("no message came back within {PATIENCE:?}"));
            }
        };
        home = Instant::now();
        metrics.canary_is_home(home - start);
        (clock, same) = if millis > clock { (millis, 0) } else { (clock, same + 1) };
        if same >= STANDS {
            // Sessions and logs would not age.
            health.stopped("the engine's clock of messages stands still".to_owned());
        } else {
            health.flows(pressure.look());
        }
    }
    Err("the canary is worn out".to_owned())
}

/// Waits for the canary of this number; gives when it was stored, in milliseconds by the engine's clock.
async fn there_and_back(subscription: &mut LocalSubscription, count: u64) -> Result<u64, String> {
    loop {
        let (delivery, message) = subscription.next_delivery().await.ok_or("the feed ended")?;
        // An older one that was late does not count.
        if message.data.is_some_and(|data| data.get() == count.to_string()) {
            return Ok(delivery.position.millis());
        }
    }
}
