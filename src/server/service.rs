//! Services: code of the embedding program that answers what clients publish to `/service/**`. CometD's clients know that
//! as remote calls: the answer carries the id of the request.

use std::collections::HashMap;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use parking_lot::RwLock;

use super::{RequestInfo, Server, session_of};
use crate::bayeux::channel::Realm;
use crate::bayeux::json::Raw;
use crate::bayeux::{BayeuxError, Channel, ChannelError, Message, Pattern};
use crate::engine::SessionId;

/// How long a handler may take: the caller's next message waits for it, and calls in one batch for each other.
const PATIENCE: Duration = Duration::from_secs(5);

/// A message to a service.
#[derive(Debug, Clone)]
pub struct Call {
    /// Where it was published.
    pub channel: Channel,
    /// Who published it, as far as it said so. Checked on mounts of the CometD dialect only.
    pub session: Option<SessionId>,
    /// The payload.
    pub data: Raw,
    /// The extension data.
    pub ext: Option<Raw>,
}

/// Answers calls. A client that sees no answer may send a call again, and then it is answered again: a handler that changes
/// something should know a call by what it holds. `Err` refuses: the text goes to the caller as the publish's error, best in Bayeux' form
/// (`404:order 7:No such order`).
pub trait Service: Send + Sync + 'static {
    /// Answers one call, within five seconds.
    fn call<'a>(&'a self, call: Call, request: &'a RequestInfo) -> BoxFuture<'a, Result<Raw, String>>;
}

impl<F, R> Service for F
where
    F: Fn(Call) -> R + Send + Sync + 'static,
    R: Future<Output = Result<Raw, String>> + Send + 'static,
{
    fn call<'a>(&'a self, call: Call, _request: &'a RequestInfo) -> BoxFuture<'a, Result<Raw, String>> {
        self(call).boxed()
    }
}

/// Why a service cannot be registered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ServiceError {
    /// Not a name or pattern of channels.
    #[error(transparent)]
    Channel(#[from] ChannelError),
    /// Clients and server talk below `/service` only.
    #[error("a service's channel begins with /service/")]
    Realm,
    /// There is one already.
    #[error("the channel has a service")]
    Taken,
}

/// The registered services.
#[derive(Default)]
pub(super) struct Services(RwLock<HashMap<Pattern, Arc<dyn Service>>>);

impl Services {
    pub(super) fn add(&self, channels: &str, service: Arc<dyn Service>) -> Result<(), ServiceError> {
        let pattern = Pattern::parse(channels)?;
        if pattern.realm() != Realm::Service || pattern.depth() < 2 {
            return Err(ServiceError::Realm);
        }
        let mut services = self.0.write();
        if services.contains_key(&pattern) {
            return Err(ServiceError::Taken);
        }
        services.insert(pattern, service);
        Ok(())
    }

    /// Of the most special pattern that covers the channel.
    fn of(&self, channel: &Channel) -> Option<Arc<dyn Service>> {
        if channel.realm() != Realm::Service {
            return None;
        }
        let services = self.0.read();
        channel.expand().iter().find_map(|pattern| services.get(pattern).cloned())
    }
}

impl Server {
    /// Adds a service for a channel or pattern below `/service`. What is published there goes to it alone.
    ///
    /// # Errors
    /// [`ServiceError`].
    pub fn add_service(&self, channels: &str, service: Arc<dyn Service>) -> Result<(), ServiceError> {
        self.0.services.add(channels, service)
    }

    /// The answer of the channel's service; `None` when it has none.
    pub(super) async fn serve(
        &self,
        channel: &Channel,
        message: &Message,
        request: &RequestInfo,
    ) -> Option<Result<Message, BayeuxError>> {
        let service = self.0.services.of(channel)?;
        self.metrics().service_calls.inc();
        let data = message.data.clone()?;
        let call = Call { channel: channel.clone(), session: session_of(message), data, ext: message.ext.clone() };
        // A handler that panics is its own trouble, not that of the connection.
        let calling = AssertUnwindSafe(async move { service.call(call, request).await }).catch_unwind();
        let answer = match tokio::time::timeout(PATIENCE, calling).await {
            Ok(Err(_)) => {
                tracing::error!(%channel, "a service panicked");
                Err(BayeuxError::verbatim("500::Service failed".to_owned()))
            }
            Ok(Ok(Ok(data))) => {
                let (channel, id) = (channel.as_str().to_owned(), message.id.clone());
                // CometD's clients tell a result from a failure by it.
                Ok(Message { channel, id, successful: Some(true), data: Some(data), ..Message::default() })
            }
            Ok(Ok(Err(error))) => Err(BayeuxError::verbatim(error)),
            Err(_) => {
                tracing::warn!(%channel, "a service did not answer within {PATIENCE:?}");
                Err(BayeuxError::unavailable("Service did not answer in time"))
            }
        };
        Some(answer)
    }
}

/// Answers with what it is sent: for tests of clients.
pub(crate) fn echo(call: Call) -> std::future::Ready<Result<Raw, String>> {
    std::future::ready(Ok(call.data))
}
