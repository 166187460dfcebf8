//! Publishing: everything outside `/meta`. The yes goes out only after the engine has stored the message.

use serde_json::value::RawValue;

use super::batch::Handled;
use super::{RequestInfo, Server, ServerEvent, session_of};
use crate::bayeux::{BayeuxError, Channel, Message};
use crate::engine::{Engine, Publication, Published};

impl Server {
    /// Stores the message, or gives it to the service that answers its channel.
    pub(super) async fn publish(&self, message: Message, request: &RequestInfo) -> Handled {
        let reply = message.reply();
        let advice = message.reply_advice.clone();
        match self.try_publish(message, request).await {
            Ok(event) => Handled { reply: Message { successful: Some(true), ..reply }, event },
            Err(error) => Message { successful: Some(false), error: Some(error), advice, ..reply }.into(),
        }
    }

    async fn try_publish(&self, mut message: Message, request: &RequestInfo) -> Result<Option<Message>, String> {
        if message.data.is_none() && !request.dialect.requires_version_and_types() {
            // CometD publishes without data; subscribers can tell an event from a reply only by its presence.
            message.data = Some(RawValue::NULL.to_owned());
        }
        if message.data.is_none() {
            return Err(BayeuxError::missing("data").to_string());
        }
        let channel = self.channel(&message.channel, request).map_err(|error| error.to_string())?;
        if let Some(error) = message.error.take() {
            return Err(error);
        }
        if request.dialect.publish_needs_session() && !request.is_local() {
            self.expect_publisher(&message, request).await.map_err(|error| error.to_string())?;
        }
        if let Some(answer) = self.serve(&channel, &message, request).await {
            return answer.map(Some).map_err(|error| error.to_string());
        }
        self.store_message(channel, message, request).await.map(|()| None).map_err(|error| error.to_string())
    }

    async fn expect_publisher(&self, message: &Message, request: &RequestInfo) -> Result<(), BayeuxError> {
        let Some(session) = session_of(message) else { return Err(request.dialect.missing_client()) };
        self.expect_session(&session, request).await
    }

    async fn store_message(
        &self,
        channel: Channel,
        message: Message,
        request: &RequestInfo,
    ) -> Result<(), BayeuxError> {
        let session = session_of(&message);
        let delivery = message.into_delivery();
        let mut array =
            Vec::with_capacity(64 + delivery.channel.len() + delivery.data.as_ref().map_or(0, |data| data.get().len()));
        array.push(b'[');
        delivery.encode_into(&mut array);
        array.push(b']');
        let retention = self.settings().retention.rule(&channel).map(|rule| rule.retention);
        let fingerprint = delivery.fingerprint;
        let publication = Publication { channel: channel.clone(), array: array.into(), retention, fingerprint };
        match self.sessions().store().publish(publication).await {
            Ok(Published::Stored(_)) => {}
            Ok(Published::Repeated) => {
                tracing::debug!(%channel, "a publish that was stored before");
                self.metrics().repeated.inc();
                return Ok(());
            }
            Err(error) => return Err(self.engine_error("publish", &error)),
        }
        if request.internal {
            return Ok(());
        }
        self.metrics().published.inc();
        self.0.events.emit(|| {
            let data = delivery.data.as_ref().map_or("null", |data| data.get());
            ServerEvent::Publish { session, channel, data: bytes::Bytes::copy_from_slice(data.as_bytes()) }
        });
        Ok(())
    }
}
