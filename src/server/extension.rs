//! Extensions: code of the embedding program that sees messages on their way in and out.
//!
//! They run in registration order, in both directions. Nobody pays for outgoing ones when there are none: deliveries
//! are then shared between all receivers.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use futures_util::FutureExt;
use futures_util::future::{BoxFuture, ready};
use parking_lot::RwLock;

use super::request::RequestInfo;
use crate::bayeux::Message;

/// Whether a message goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It goes on, changed or not. A message refused with [`Message::refuse`] is answered with that error.
    Pass,
    /// It vanishes: no reply, no delivery.
    Drop,
}

/// Sees and changes messages. An extension that does not return holds up the batch that it was given.
pub trait Extension: Send + Sync + 'static {
    /// A message from a client, before any check.
    fn incoming<'a>(&'a self, _message: &'a mut Message, _request: &'a RequestInfo) -> BoxFuture<'a, Verdict> {
        ready(Verdict::Pass).boxed()
    }

    /// A reply, or one receiver's copy of a delivered message (which has `data` and no `successful`). The request is
    /// the one that is answered, or the one that opened the socket.
    fn outgoing<'a>(&'a self, _message: &'a mut Message, _request: &'a RequestInfo) -> BoxFuture<'a, Verdict> {
        ready(Verdict::Pass).boxed()
    }

    /// Whether [`Extension::outgoing`] does anything. One that says so makes every delivery to every receiver a copy
    /// of its own.
    fn wants_outgoing(&self) -> bool {
        false
    }

    /// It was added.
    fn added(&self) {}

    /// It was removed.
    fn removed(&self) {}
}

/// Names an extension, to remove it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ExtensionHandle(u64);

type List = Arc<[(ExtensionHandle, Arc<dyn Extension>)]>;

/// The registered extensions. Messages run through a snapshot of the list.
#[derive(Default)]
pub(super) struct Extensions {
    list: RwLock<List>,
    next: AtomicU64,
}

impl Extensions {
    pub(super) fn add(&self, extension: Arc<dyn Extension>) -> ExtensionHandle {
        let handle = ExtensionHandle(self.next.fetch_add(1, Ordering::Relaxed));
        {
            let mut list = self.list.write();
            *list = list.iter().cloned().chain([(handle, extension.clone())]).collect();
        }
        extension.added();
        handle
    }

    pub(super) fn remove(&self, handle: ExtensionHandle) -> bool {
        let removed = {
            let mut list = self.list.write();
            let removed = list.iter().find(|(other, _)| *other == handle).map(|(_, extension)| extension.clone());
            *list = list.iter().filter(|(other, _)| *other != handle).cloned().collect();
            removed
        };
        removed.as_ref().inspect(|extension| extension.removed()).is_some()
    }

    pub(super) fn any(&self) -> bool {
        !self.list.read().is_empty()
    }

    pub(super) fn any_outgoing(&self) -> bool {
        self.list.read().iter().any(|(_, extension)| extension.wants_outgoing())
    }

    fn snapshot(&self) -> List {
        self.list.read().clone()
    }

    pub(super) async fn incoming(&self, message: &mut Message, request: &RequestInfo) -> Verdict {
        let list = self.snapshot();
        if list.is_empty() {
            return Verdict::Pass;
        }
        // Boxed: nearly always there are none, and each message would carry the room for them.
        let asked = async move {
            for (_, extension) in list.iter() {
                if extension.incoming(message, request).await == Verdict::Drop {
                    return Verdict::Drop;
                }
            }
            Verdict::Pass
        };
        asked.boxed().await
    }

    pub(super) async fn outgoing(&self, mut message: Message, request: &RequestInfo) -> Option<Message> {
        for (_, extension) in self.snapshot().iter().filter(|(_, extension)| extension.wants_outgoing()) {
            if extension.outgoing(&mut message, request).await == Verdict::Drop {
                return None;
            }
        }
        Some(message)
    }
}
