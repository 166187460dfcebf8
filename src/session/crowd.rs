//! All attachments of a node together. Sending clients to other nodes before this one stops: steadily, so that the others
//! are not stormed, and losing nothing, because each attachment ends as it does when its client moves by itself. And
//! counting them. Called by the node.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, MissedTickBehavior, interval};

use super::attachment::{Attachment, End};
use super::registry::Sessions;
use crate::engine::LinkKind;
use crate::metrics::{Carrier, Census, Moved};

/// How often some are sent away. At least one each time: where few clients are left, nobody waits for long.
const TICK: Duration = Duration::from_millis(100);

impl Sessions {
    /// Ends the attachments of clients, evenly spread over the time `over` and in no particular order. Polls that begin
    /// meanwhile are answered at once. Returns when nobody is left, at the latest after that time. Clients in this
    /// process stay.
    pub async fn drain(&self, over: Duration) {
        let end = Instant::now() + over;
        self.start_leaving();
        let mut tick = interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Skip);
        loop {
            tick.tick().await;
            let staying = self.attachments(|one| one.kind() != LinkKind::Local && one.ended().is_none());
            let count = share(staying.len(), end.saturating_duration_since(Instant::now()));
            if count == 0 {
                return;
            }
            for attachment in staying.iter().take(count) {
                attachment.end(End::Stopping);
                self.metrics().moved(Moved::Drain);
            }
            tracing::debug!(sent_away = count, left = staying.len() - count, "draining");
            if Instant::now() >= end {
                // Who comes back is not waited for: where somebody else listens, the doors are not ours to close.
                return;
            }
        }
    }

    /// What all attachments are like now. Looks at each: for scrapes, not for every request.
    pub fn census(&self) -> Census {
        let mut census = Census::default();
        for one in self.attachments(|one| one.ended().is_none()) {
            census.attachments[carrier(one.kind()) as usize] += 1;
            let (behind, messages, bytes) = one.load();
            census.behind += i64::from(behind);
            census.outbox_messages += i64::try_from(messages).unwrap_or(i64::MAX);
            census.outbox_bytes += i64::try_from(bytes).unwrap_or(i64::MAX);
        }
        census
    }

    /// What holds sessions now, as far as `wanted`. The order is as good as random: it is that of a hash table.
    fn attachments(&self, wanted: impl Fn(&Attachment) -> bool) -> Vec<Arc<Attachment>> {
        self.with_attachments(|all| all.filter(|one| wanted(one)).cloned().collect())
    }
}

fn carrier(kind: LinkKind) -> Carrier {
    match kind {
        LinkKind::Poll => Carrier::LongPolling,
        LinkKind::Socket => Carrier::WebSocket,
        LinkKind::Stream => Carrier::EventSource,
        LinkKind::Local => Carrier::InProcess,
    }
}

/// How many of `clients` have to go now so that all are gone after `left`.
fn share(clients: usize, left: Duration) -> usize {
    let ticks = left.as_millis().div_ceil(TICK.as_millis()).max(1);
    clients.div_ceil(usize::try_from(ticks).unwrap_or(usize::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_even_and_leave_nobody() {
        for (clients, over) in [(10_000, 30_000), (95, 2_000), (7, 30_000), (1, 100), (50, 0)] {
            let (mut left, mut shares) = (clients, Vec::new());
            for tick in 0.. {
                let count = share(left, Duration::from_millis(over).saturating_sub(TICK * tick));
                if count == 0 {
                    break;
                }
                shares.push(count);
                left -= count;
            }
            assert_eq!(left, 0);
            let (most, least) = (shares.iter().max().expect("some"), shares.iter().min().expect("some"));
            assert!(most - least <= 1, "{clients} over {over} ms: {shares:?}");
            assert!(shares.len() as u64 <= (over / 100).max(1), "{clients} over {over} ms: {} rounds", shares.len());
        }
    }
}
