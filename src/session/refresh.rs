//! Bringing an attachment up to date: subscriptions, feed, logs, in this order (`docs/design.md`, "An attachment").

use std::sync::Arc;

use super::attachment::{Attachment, End};
use super::registry::Sessions;
use crate::engine::{Ended, Engine, EngineError, Read, ReadRequest, Replay, ReplayRequest, Subscriptions};
use crate::hub::Receiver;
use crate::metrics::{Limit, LogRead};

impl Sessions {
    /// Brings an attachment up to date: subscriptions if in doubt, the feed of every log, then all logs as one
    /// snapshot, then what the feed brought meanwhile. Cancel-safe: dropped half-way, the refresh stays due.
    ///
    /// # Errors
    /// Those of the engine; the refresh stays due.
    pub async fn refresh(&self, attachment: &Arc<Attachment>) -> Result<(), EngineError> {
        let mut unfinished = Unfinished(Some(attachment));
        // After a break all sessions want one at once. The semaphore is never closed.
        let _place = self.refreshing().acquire().await;
        let outcome = self.run_refresh(attachment).await;
        if outcome.is_ok() {
            unfinished.0 = None;
        }
        outcome
    }

    async fn run_refresh(&self, attachment: &Arc<Attachment>) -> Result<(), EngineError> {
        let (store, hub, limits) = (self.store(), self.hub(), self.limits());
        let (session, epoch) = (attachment.session(), attachment.epoch());
        loop {
            let Some(ticket) = attachment.begin_refresh() else { return Ok(()) };
            if ticket.behind {
                self.metrics().limit(Limit::Outbox);
            }
            if ticket.resync {
                match store.subscriptions(session, epoch).await? {
                    Subscriptions::Current(version, subscriptions) => {
                        let (joined, left) = attachment.resubscribe(version, subscriptions);
                        let receiver: Arc<dyn Receiver> = attachment.clone();
                        joined.iter().for_each(|pattern| hub.join(attachment.member(), &receiver, pattern));
                        left.iter().for_each(|pattern| hub.leave(attachment.member(), pattern));
                    }
                    Subscriptions::Stale => attachment.end(End::Stale),
                    Subscriptions::Unknown => attachment.end(End::Session(Ended::Expired)),
                }
                if attachment.ended().is_some() {
                    return Ok(());
                }
            }
            if let Some(plan) = attachment.next_replay() {
                let request = ReplayRequest {
                    session,
                    epoch,
                    version: attachment.version(),
                    pattern: &plan.pattern,
                    since: plan.since,
                    from: plan.from,
                    max_messages: limits.outbox_messages,
                    max_bytes: limits.outbox_bytes,
                };
                self.metrics().log_read(LogRead::Replay);
                match store.replay(request).await? {
                    Replay::Chunk { deliveries, through, gap } => {
                        self.metrics().replayed.inc_by(deliveries.len() as u64);
                        if gap {
                            self.metrics().gaps_told.inc();
                        }
                        if attachment.finish_replay(ticket, plan, deliveries, through, gap) {
                            return Ok(());
                        }
                    }
                    Replay::Gap(ended) => {
                        self.note_gap(ended);
                        attachment.end(End::Session(Ended::Gap));
                    }
                    Replay::Outdated => attachment.hold(true),
                    Replay::Stale => attachment.end(End::Stale),
                    Replay::Unknown => attachment.end(End::Session(Ended::Expired)),
                }
                continue;
            }
            let plan = attachment.reading_plan();
            if plan.is_empty() {
                if attachment.finish_refresh(ticket, None) {
                    return Ok(());
                }
                continue;
            }
            hub.listen(plan.iter().map(|(pattern, _)| pattern)).await?;
            let request = ReadRequest {
                session,
                epoch,
                version: attachment.version(),
                from: &plan,
                max_messages: limits.outbox_messages,
                max_bytes: limits.outbox_bytes,
            };
            self.metrics().log_read(ticket.reason());
            match store.read(request).await? {
                Read::Snapshot(snapshot) => {
                    if snapshot.lost.is_some() {
                        self.metrics().gaps_told.inc();
                    }
                    if attachment.finish_refresh(ticket, Some(&snapshot)) {
                        return Ok(());
                    }
                }
                Read::Outdated => attachment.hold(true),
                Read::Gap(ended) => {
                    self.note_gap(ended);
                    attachment.end(End::Session(Ended::Gap));
                }
                Read::Stale => attachment.end(End::Stale),
                Read::Unknown => attachment.end(End::Session(Ended::Expired)),
            }
            if attachment.ended().is_some() {
                return Ok(());
            }
        }
    }
}

/// Marks a refresh as due again unless it came to its end.
struct Unfinished<'a>(Option<&'a Arc<Attachment>>);

impl Drop for Unfinished<'_> {
    fn drop(&mut self) {
        if let Some(attachment) = self.0 {
            attachment.abandon_refresh();
        }
    }
}
