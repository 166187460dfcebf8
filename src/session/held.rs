//! A session held by this node: gives it back to hub and registry when dropped.

use std::ops::Deref;
use std::sync::Arc;

use super::attachment::Attachment;
use super::registry::Sessions;

/// An attachment with its place in hub and registry. The transport that owns it owns the session on this node.
pub struct Held {
    attachment: Arc<Attachment>,
    sessions: Sessions,
    first: bool,
}

impl Held {
    pub(super) fn new(attachment: Arc<Attachment>, sessions: Sessions, first: bool) -> Self {
        Self { attachment, sessions, first }
    }

    pub(super) fn sessions(&self) -> &Sessions {
        &self.sessions
    }

    /// Whether it answers the session's first connect.
    pub fn first(&self) -> bool {
        self.first
    }

    /// The attachment itself, for those who outlive the holding.
    pub fn attachment(&self) -> &Arc<Attachment> {
        &self.attachment
    }
}

impl Deref for Held {
    type Target = Attachment;

    fn deref(&self) -> &Attachment {
        &self.attachment
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.sessions.leave(&self.attachment);
    }
}
