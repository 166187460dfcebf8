//! A client inside this process: publishes and subscribes like any other, without a network, `/service/**` included.
//!
//! It has an ordinary session. One task drives its attachment and hands messages to its subscriptions; a subscription
//! that does not read holds up the others of its client (not those of anybody else), and the log keeps what waits.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use serde::Serialize;
use serde_json::value::RawValue;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use super::batch::Handled;
use super::{RequestInfo, Server, Verdict};
use crate::bayeux::{Channel, Message, Pattern, json};
use crate::engine::{Delivery, Ended, Engine, Epoch, Link, SessionId};
use crate::session::{AttachOutcome, End, Held, Step};

/// Messages that may wait in one subscription.
const QUEUE: usize = 256;
/// Bytes that the driver takes at once.
const TAKE: usize = 64 * 1024;
/// Pause after an engine call failed.
const RETRY: Duration = Duration::from_millis(500);

/// Why a client inside the process could not do something.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LocalError {
    /// The server refused it, with the Bayeux error text.
    #[error("refused: {0}")]
    Refused(String),
    /// An extension dropped the message: there is no answer.
    #[error("dropped by an extension")]
    Dropped,
    /// The node has stopped.
    #[error("the node has stopped")]
    Stopped,
    /// The payload cannot be written as JSON.
    #[error("payload is not JSON: {0}")]
    Payload(String),
}

/// A client inside this process. Its session ends when it is dropped, after the usual time.
pub struct LocalClient {
    server: Server,
    shared: Arc<Shared>,
}

struct Shared {
    /// Replaced when the engine lost the session.
    session: watch::Sender<SessionId>,
    subscriptions: Mutex<HashMap<u64, Entry>>,
    next: AtomicU64,
    /// How often messages may have been missed, because the session was lost.
    missed: AtomicU64,
    /// Subscribing, cancelling and renewing happen one after the other: a cancel must not undo a later subscribe.
    changing: tokio::sync::Mutex<()>,
    /// Passes by the extensions, and is no event: the node's own.
    internal: bool,
    /// Fires when the client is dropped or the node stops.
    stop: CancellationToken,
}

#[derive(Clone)]
struct Entry {
    pattern: Pattern,
    queue: mpsc::Sender<Arc<Delivery>>,
}

/// Messages of one pattern, in order. Dropping it ends the delivery; [`LocalSubscription::cancel`] also unsubscribes.
pub struct LocalSubscription {
    id: u64,
    shared: Arc<Shared>,
    server: Server,
    queue: mpsc::Receiver<Arc<Delivery>>,
}

impl LocalClient {
    pub(super) async fn start(server: Server, internal: bool) -> Result<Self, LocalError> {
        let session = handshake(&server, internal).await?;
        let shared = Arc::new(Shared {
            session: watch::Sender::new(session),
            subscriptions: Mutex::default(),
            next: AtomicU64::new(0),
            missed: AtomicU64::new(0),
            changing: tokio::sync::Mutex::new(()),
            internal,
            stop: server.sessions().stopping().child_token(),
        });
        server.sessions().tasks().spawn(drive(server.clone(), shared.clone()));
        Ok(Self { server, shared })
    }

    /// The client's session.
    pub fn session(&self) -> SessionId {
        self.shared.session.borrow().clone()
    }

    /// Publishes `data` (anything that serialises to JSON) and returns once it is stored.
    ///
    /// # Errors
    /// [`LocalError`] when the channel is not valid, an extension refuses, or the engine fails.
    pub async fn publish(&self, channel: &str, data: &impl Serialize) -> Result<(), LocalError> {
        let data = serde_json::value::to_raw_value(data).map_err(|error| LocalError::Payload(error.to_string()))?;
        self.publish_raw(channel, data).await
    }

    /// As [`LocalClient::publish`], with JSON that exists already.
    ///
    /// # Errors
    /// As [`LocalClient::publish`].
    pub async fn publish_raw(&self, channel: &str, data: Box<RawValue>) -> Result<(), LocalError> {
        let client_id = Some(self.session().as_str().to_owned());
        let message = Message { channel: channel.to_owned(), client_id, data: Some(data), ..Message::default() };
        ask(&self.server, message, self.shared.internal).await.map(|_| ())
    }

    /// Subscribes to a channel or pattern. What is published after the return is certain to come.
    ///
    /// # Errors
    /// [`LocalError`] when the pattern is not valid, an extension refuses, or the engine fails.
    pub async fn subscribe(&self, pattern: &str) -> Result<LocalSubscription, LocalError> {
        let parsed = Pattern::parse(pattern)
            .map_err(|_| LocalError::Refused(crate::bayeux::BayeuxError::invalid_channel(pattern).to_string()))?;
        let (sender, queue) = mpsc::channel(QUEUE);
        let _changing = self.shared.changing.lock().await;
        if self.shared.stop.is_cancelled() {
            return Err(LocalError::Stopped);
        }
        let id = self.shared.next.fetch_add(1, Ordering::Relaxed);
        self.shared.subscriptions.lock().insert(id, Entry { pattern: parsed, queue: sender });
        let subscription = LocalSubscription { id, shared: self.shared.clone(), server: self.server.clone(), queue };
        // Dropped on failure, which removes the entry again.
        change(&self.server, &self.shared, "/meta/subscribe", pattern).await?;
        Ok(subscription)
    }
}

impl Drop for LocalClient {
    fn drop(&mut self) {
        self.shared.stop.cancel();
    }
}

impl LocalSubscription {
    /// The next message: its channel and its JSON object. `None` when the client is gone.
    pub async fn next(&mut self) -> Option<(Channel, Message)> {
        let (delivery, message) = self.next_delivery().await?;
        Some((delivery.channel.clone(), message))
    }

    /// As [`LocalSubscription::next`], with its place in the log.
    pub(crate) async fn next_delivery(&mut self) -> Option<(Arc<Delivery>, Message)> {
        let delivery = self.queue.recv().await?;
        let message = Message::from_delivery(delivery.json())?;
        Some((delivery, message))
    }

    /// How often the client's session was lost so far, so that messages may be missing (the log no longer held what it
    /// had not read, or the engine lost its data). Its subscriptions go on by themselves.
    pub fn missed(&self) -> u64 {
        self.shared.missed.load(Ordering::Relaxed)
    }

    /// Ends the subscription; unsubscribes unless the client has another one to the same pattern.
    ///
    /// # Errors
    /// [`LocalError`] when the engine fails.
    pub async fn cancel(self) -> Result<(), LocalError> {
        let _changing = self.shared.changing.lock().await;
        let Some(entry) = self.shared.subscriptions.lock().remove(&self.id) else { return Ok(()) };
        let shared = self.shared.subscriptions.lock().values().any(|other| other.pattern == entry.pattern);
        if shared {
            return Ok(());
        }
        change(&self.server, &self.shared, "/meta/unsubscribe", entry.pattern.as_str()).await
    }
}

impl Drop for LocalSubscription {
    fn drop(&mut self) {
        self.shared.subscriptions.lock().remove(&self.id);
    }
}

/// Sends a message through extensions and server, as a client's would go.
async fn ask(server: &Server, mut message: Message, internal: bool) -> Result<Message, LocalError> {
    let request = RequestInfo { internal, ..RequestInfo::in_process() };
    if !internal && server.incoming(&mut message, &request).await == Verdict::Drop {
        return Err(LocalError::Dropped);
    }
    let Handled { reply, .. } = server.handle(message, &request).await;
    match reply.successful {
        Some(true) => Ok(*reply),
        _ => Err(LocalError::Refused(reply.error.unwrap_or_default())),
    }
}

async fn handshake(server: &Server, internal: bool) -> Result<SessionId, LocalError> {
    let message = Message {
        channel: "/meta/handshake".to_owned(),
        version: Some(json::quote("1.0")),
        supported_connection_types: Some(json::quote("in-process")).map(|kind| wrap(&kind)),
        ..Message::default()
    };
    let reply = ask(server, message, internal).await?;
    Ok(SessionId::from(reply.client_id.unwrap_or_default().as_str()))
}

/// `[value]`
fn wrap(value: &RawValue) -> Box<RawValue> {
    // A value between brackets is JSON.
    RawValue::from_string(format!("[{}]", value.get())).unwrap_or_else(|_| RawValue::NULL.to_owned())
}

async fn change(server: &Server, shared: &Shared, channel: &str, pattern: &str) -> Result<(), LocalError> {
    let message = Message {
        channel: channel.to_owned(),
        client_id: Some(shared.session.borrow().as_str().to_owned()),
        subscription: Some(json::quote(pattern)),
        ..Message::default()
    };
    ask(server, message, shared.internal).await.map(|_| ())
}

/// Keeps the session attached and alive, and hands out what comes, until the client is dropped or the node stops.
async fn drive(server: Server, shared: Arc<Shared>) {
    keep_attached(&server, &shared).await;
    let session = shared.session.borrow().clone();
    match server.sessions().store().end(&session, Ended::Disconnected).await {
        Ok(Some(ended)) if !shared.internal => server.session_ended(ended, Ended::Disconnected),
        Ok(_) => {}
        Err(error) => tracing::debug!(%error, "in-process client could not disconnect"),
    }
    // The senders go: subscriptions end once they have read what waits.
    shared.subscriptions.lock().clear();
}

async fn keep_attached(server: &Server, shared: &Arc<Shared>) {
    while !shared.stop.is_cancelled() {
        let session = shared.session.borrow().clone();
        let again = match server.sessions().attach(&session, Link::Local).await {
            Ok(AttachOutcome::Held(held)) => {
                let (session, epoch) = (held.session().clone(), held.epoch());
                // Beside each other: a subscription that does not read must not let the session expire.
                tokio::select! {
                    again = serve(server, shared, held) => again,
                    () = stay_alive(server, &session, epoch) => false,
                }
            }
            Ok(AttachOutcome::Unknown) => renew(server, shared).await,
            Ok(AttachOutcome::Late | AttachOutcome::Closed) => false,
            Err(error) => {
                tracing::debug!(%error, "in-process client cannot attach; trying again");
                false
            }
        };
        if !again {
            tokio::select! {
                () = tokio::time::sleep(RETRY) => {}
                () = shared.stop.cancelled() => {}
            }
        }
    }
}

/// Extends the session's life, for ever.
async fn stay_alive(server: &Server, session: &SessionId, epoch: Epoch) {
    let mut heartbeat = tokio::time::interval(server.settings().timeout / 2);
    heartbeat.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        heartbeat.tick().await;
        if let Err(error) = server.sessions().store().touch(session, Some(epoch)).await {
            tracing::debug!(%error, "in-process client cannot extend its session");
        }
    }
}

/// Serves one attachment to its end; true when the next one may follow at once.
async fn serve(server: &Server, shared: &Shared, held: Held) -> bool {
    loop {
        let step = tokio::select! {
            step = held.next() => step,
            () = shared.stop.cancelled() => return false,
        };
        match step {
            Step::Ready => {
                for delivery in held.take(TAKE).deliveries {
                    hand_out(shared, &delivery).await;
                }
                held.confirm(&held.sent());
            }
            Step::Refresh => {
                if let Err(error) = server.sessions().refresh(held.attachment()).await {
                    tracing::debug!(%error, "in-process client cannot read the log; trying again");
                    return false;
                }
            }
            Step::Ended(End::Stopping) => return false,
            Step::Ended(End::Session(_)) => return renew(server, shared).await,
            Step::Ended(End::Stale | End::Superseded { .. }) => return true,
        }
    }
}

async fn hand_out(shared: &Shared, delivery: &Arc<Delivery>) {
    let matching = |entry: &&Entry| entry.pattern.matches(&delivery.channel);
    let queues: Vec<_> =
        shared.subscriptions.lock().values().filter(matching).map(|entry| entry.queue.clone()).collect();
    for queue in queues {
        // An error means that the subscription is gone. It is removed from the map when it is dropped.
        tokio::select! {
            _ = queue.send(delivery.clone()) => {}
            () = shared.stop.cancelled() => return,
        }
    }
}

/// The session is no more: makes a new one with the same subscriptions.
async fn renew(server: &Server, shared: &Shared) -> bool {
    shared.missed.fetch_add(1, Ordering::Relaxed);
    let _changing = shared.changing.lock().await;
    let session = match handshake(server, shared.internal).await {
        Ok(session) => session,
        Err(error) => {
            tracing::debug!(%error, "in-process client cannot make a new session; trying again");
            return false;
        }
    };
    shared.session.send_replace(session);
    let patterns: Vec<_> = shared.subscriptions.lock().values().map(|entry| entry.pattern.clone()).collect();
    for pattern in patterns {
        if let Err(error) = change(server, shared, "/meta/subscribe", pattern.as_str()).await {
            tracing::warn!(%error, %pattern, "in-process client cannot subscribe again; starting over");
            let session = shared.session.borrow().clone();
            // Whatever comes of it: an unknown session is renewed, and this one expires by itself.
            let _ = server.sessions().store().end(&session, Ended::Disconnected).await;
            return false;
        }
    }
    true
}
