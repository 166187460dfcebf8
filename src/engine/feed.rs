//! What an engine tells a node on its feed: messages, and news about sessions. Read by the hub.

use std::sync::Arc;

use tokio::sync::OwnedSemaphorePermit;

use super::delivery::Delivery;
use super::ids::{Epoch, SessionId, Version};
use super::position::Position;
use super::types::Ended;
use crate::bayeux::Pattern;

/// What a node is told on its feed.
#[derive(Debug)]
pub enum FeedEvent {
    /// A message was appended to a log.
    Message {
        /// Which log.
        log: Pattern,
        /// The log's entry before this one. A node that has not seen it missed something.
        previous: Position,
        /// The message.
        delivery: Arc<Delivery>,
        /// Its share of the bytes that may wait in the feed, given back with the event.
        room: Option<OwnedSemaphorePermit>,
    },
    /// Something about a session that this node holds.
    Control(Control),
    /// Announcements may be missing from here on.
    Broken,
    /// The feed runs again: read subscriptions and logs.
    Restored,
}

/// What a node is told about a session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Control {
    /// Which session.
    pub session: SessionId,
    /// What happened.
    pub what: ControlKind,
}

/// What happened to a session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ControlKind {
    /// Another node attached it.
    Superseded {
        /// The newer attachment.
        epoch: Epoch,
        /// The connect that made it.
        connect_id: Option<Box<str>>,
    },
    /// Its subscriptions changed.
    Resubscribed {
        /// The newest version.
        version: Version,
    },
    /// Another session is on a log that it was alone on: this node is no more told of it without listening.
    Company,
    /// Messages may have passed by this node: the logs are to be read.
    Doubtful,
    /// It is no more.
    Ended(Ended),
}
