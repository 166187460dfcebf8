//! A stream of messages, as the user holds it. Filled by the driver.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures_util::Stream;
use serde::Deserialize;
use serde_json::value::RawValue;
use tokio::sync::mpsc;

use super::Handle;
use crate::bayeux::{Message, json};

/// A message that a subscription brought. Cheap to clone: subscriptions share it.
#[derive(Debug, Clone)]
pub struct Received(pub(super) Arc<Message>);

impl Received {
    /// The channel on which it was published.
    pub fn channel(&self) -> &str {
        &self.0.channel
    }

    /// The payload, byte for byte; `null` when there is none.
    pub fn raw(&self) -> &RawValue {
        self.0.data.as_deref().unwrap_or(RawValue::NULL)
    }

    /// The payload as a value.
    ///
    /// # Errors
    /// When it is none of this type.
    pub fn data<'de, T: Deserialize<'de>>(&'de self) -> serde_json::Result<T> {
        serde_json::from_str(self.raw().get())
    }

    /// Whether it was published before the subscription was made, and replayed.
    pub fn is_replay(&self) -> bool {
        json::member(self.0.ext.as_deref(), "replay").is_some_and(|replay| replay.get() == "true")
    }

    /// The whole message.
    pub fn message(&self) -> &Message {
        &self.0
    }
}

/// Messages of a channel or pattern, in order. When it is dropped, and no other of this client wants the same, the
/// client unsubscribes.
///
/// It holds a bounded number of messages (`ClientBuilder::queue`). Who does not read holds up the other subscriptions of
/// the same client; the server keeps what waits for as long as its logs reach back.
#[derive(Debug)]
pub struct Subscription {
    pub(super) pattern: Arc<str>,
    pub(super) queue: mpsc::Receiver<Received>,
    pub(super) handle: Arc<Handle>,
}

impl Subscription {
    /// The channel or pattern.
    pub fn channel(&self) -> &str {
        &self.pattern
    }

    /// The next message; `None` when the client was closed or stopped, or the server ended the subscription. Cancel-safe.
    pub async fn next(&mut self) -> Option<Received> {
        self.queue.recv().await
    }
}

impl Stream for Subscription {
    type Item = Received;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Received>> {
        self.queue.poll_recv(context)
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        self.queue.close();
        // The driver looks who is gone.
        self.handle.gone.notify_one();
    }
}
