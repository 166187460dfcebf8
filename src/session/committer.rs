//! Which attachments have made progress that the engine does not know yet.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;

use super::attachment::Attachment;
use crate::engine::{Progress, SessionId};

/// Attachments with progress that the engine does not know yet; at most one entry for each session held.
#[derive(Default)]
pub(super) struct Committer(pub(super) Mutex<HashMap<SessionId, Dirty>>);

pub(super) struct Dirty {
    pub(super) attachment: Arc<Attachment>,
    pub(super) progress: Progress,
}

impl Committer {
    /// Puts back what could not be written, unless the session has made progress since.
    pub(super) fn note_again(&self, dirty: Dirty) {
        self.0.lock().entry(dirty.attachment.session().clone()).or_insert(dirty);
    }

    pub(super) fn note(&self, attachment: &Arc<Attachment>, progress: Progress) {
        let dirty = Dirty { attachment: attachment.clone(), progress };
        self.0.lock().insert(attachment.session().clone(), dirty);
    }
}
