//! What an embedding program can listen to.

use tokio::sync::broadcast;

use crate::bayeux::{Channel, Pattern};
use crate::engine::SessionId;

/// Events that may wait for a slow listener before it is told that it missed some.
const CAPACITY: usize = 1024;

/// Something that this node did. In a cluster each event happens on one node.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum ServerEvent {
    /// A session was made.
    Handshake {
        /// The session.
        session: SessionId,
    },
    /// A subscription was added (not when it existed).
    Subscribe {
        /// The session.
        session: SessionId,
        /// What it subscribed to.
        channel: Pattern,
    },
    /// A subscription was removed, by the client or with its session.
    Unsubscribe {
        /// The session.
        session: SessionId,
        /// What it was subscribed to.
        channel: Pattern,
    },
    /// A message was stored.
    Publish {
        /// The publisher, if it named one.
        session: Option<SessionId>,
        /// Where.
        channel: Channel,
        /// The payload as JSON text.
        data: bytes::Bytes,
    },
    /// A session ended: disconnected or expired.
    Disconnect {
        /// The session.
        session: SessionId,
    },
}

/// Who listens. Nothing is built while nobody does.
pub(super) struct Events(broadcast::Sender<ServerEvent>);

impl Default for Events {
    fn default() -> Self {
        Self(broadcast::Sender::new(CAPACITY))
    }
}

impl Events {
    pub(super) fn listen(&self) -> broadcast::Receiver<ServerEvent> {
        self.0.subscribe()
    }

    pub(super) fn are_heard(&self) -> bool {
        self.0.receiver_count() > 0
    }

    pub(super) fn emit(&self, event: impl FnOnce() -> ServerEvent) {
        if self.are_heard() {
            // An error means that the last listener has just left.
            let _ = self.0.send(event());
        }
    }
}
