//! Messages that are handed to the receivers of a log together. Made by the hub from what the feed brings.

use std::sync::Arc;

use tokio::sync::OwnedSemaphorePermit;

use crate::bayeux::Pattern;
use crate::engine::{Delivery, FeedEvent, Position};

/// Messages of one log that came one after the other.
pub(super) struct Run {
    pub(super) log: Pattern,
    /// The log's entry before the first of them.
    pub(super) previous: Position,
    pub(super) deliveries: Vec<Arc<Delivery>>,
    /// Each names the one before as its predecessor.
    pub(super) unbroken: bool,
}

impl Run {
    pub(super) fn goes_on_with(&self, next: &FeedEvent) -> bool {
        matches!(next, FeedEvent::Message { log, .. } if *log == self.log)
    }

    /// Adds a message of the same log; gives its share of the feed's room.
    pub(super) fn add(&mut self, next: FeedEvent) -> Option<OwnedSemaphorePermit> {
        let FeedEvent::Message { previous, delivery, room, .. } = next else { return None };
        self.unbroken &= self.deliveries.last().is_some_and(|last| last.position == previous);
        self.deliveries.push(delivery);
        room
    }
}
