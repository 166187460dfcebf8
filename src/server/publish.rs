//! Publishing: everything outside `/meta`. The yes goes out only after the engine has stored the message.

use serde_json::value::RawValue;

use super::batch::Handled;
use super::{RequestInfo, Server, ServerEvent, session_of};
use crate::bayeux::channel::Realm;
use crate::bayeux::{BayeuxError, Channel, Message};
use crate::engine::{Engine, EngineError, Publication, Published};

/// What a publish comes to before anything is stored.
enum Prepared {
    /// A message to be stored.
    Message(Box<Stored>),
    /// A service has answered it.
    Served(Box<Message>),
}

/// A message on its way into the engine, and what has to be told of it afterwards.
struct Stored {
    channel: Channel,
    delivery: Message,
}

impl Server {
    /// Stores the message, or gives it to the service that answers its channel.
    pub(super) async fn publish(&self, message: Message, request: &RequestInfo) -> Handled {
        let (reply, advice) = (Box::new(message.reply()), message.reply_advice.clone());
        let outcome = match self.prepare(message, request).await {
            Ok(Prepared::Message(stored)) => {
                let outcome = self.sessions().store().publish(self.publication(&stored)).await;
                self.stored(&stored, &reply, outcome, request).map(|()| None)
            }
            Ok(Prepared::Served(event)) => Ok(Some(event)),
            Err(error) => Err(error),
        };
        handled(reply, advice, outcome)
    }

    /// As [`Server::publish`] for each of these, in their order, in one call to the engine.
    pub(super) async fn publish_all(&self, messages: Vec<Message>, request: &RequestInfo) -> Vec<Handled> {
        let mut prepared = Vec::with_capacity(messages.len());
        for message in messages {
            let (reply, advice) = (Box::new(message.reply()), message.reply_advice.clone());
            prepared.push((reply, advice, self.prepare(message, request).await));
        }
        let publications: Vec<_> = prepared
            .iter()
            .filter_map(|(_, _, prepared)| match prepared {
                Ok(Prepared::Message(stored)) => Some(self.publication(stored)),
                _ => None,
            })
            .collect();
        let mut outcomes = match publications.is_empty() {
            true => Vec::new(),
            false => self.sessions().store().publish_all(publications).await,
        }
        .into_iter();
        // An engine that could not even take them has not said yes.
        let silent = || Err(EngineError::Unavailable("no outcome".to_owned()));
        prepared
            .into_iter()
            .map(|(reply, advice, prepared)| {
                let outcome = match prepared {
                    Ok(Prepared::Message(stored)) => {
                        let outcome = outcomes.next().unwrap_or_else(silent);
                        self.stored(&stored, &reply, outcome, request).map(|()| None)
                    }
                    Ok(Prepared::Served(event)) => Ok(Some(event)),
                    Err(error) => Err(error),
                };
                handled(reply, advice, outcome)
            })
            .collect()
    }

    /// Checks a message. Whatever is wrong with it is told as its reply's error.
    async fn prepare(&self, mut message: Message, request: &RequestInfo) -> Result<Prepared, String> {
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
            Box::pin(self.expect_publisher(&message, request)).await.map_err(|error| error.to_string())?;
        }
        if channel.realm() == Realm::Service
            && let Some(answer) = Box::pin(self.serve(&channel, &message, request)).await
        {
            return answer.map(Box::new).map(Prepared::Served).map_err(|error| error.to_string());
        }
        Ok(Prepared::Message(Box::new(Stored { channel, delivery: message.into_delivery() })))
    }

    async fn expect_publisher(&self, message: &Message, request: &RequestInfo) -> Result<(), BayeuxError> {
        let Some(session) = session_of(message) else { return Err(request.dialect.missing_client()) };
        self.expect_session(&session, request).await
    }

    /// What the engine gets.
    fn publication(&self, stored: &Stored) -> Publication {
        let Stored { channel, delivery, .. } = stored;
        let data = delivery.data.as_ref().map_or(0, |data| data.get().len());
        let mut array = Vec::with_capacity(64 + delivery.channel.len() + data);
        array.push(b'[');
        delivery.encode_into(&mut array);
        array.push(b']');
        let retention = self.settings().retention.rule(channel).map(|rule| rule.retention);
        Publication { channel: channel.clone(), array: array.into(), retention, fingerprint: delivery.fingerprint }
    }

    /// Tells whom it concerns what the engine said.
    fn stored(
        &self,
        stored: &Stored,
        reply: &Message,
        outcome: Result<Published, EngineError>,
        request: &RequestInfo,
    ) -> Result<(), String> {
        let Stored { channel, delivery } = stored;
        match outcome {
            Ok(Published::Stored(_)) => {}
            Ok(Published::Repeated) => {
                tracing::debug!(%channel, "a publish that was stored before");
                self.metrics().repeated.inc();
                return Ok(());
            }
            Err(error) => return Err(self.engine_error("publish", &error).to_string()),
        }
        if request.internal {
            return Ok(());
        }
        self.metrics().published.inc();
        self.0.events.emit(|| {
            let data = delivery.data.as_ref().map_or("null", |data| data.get());
            let (session, channel) = (session_of(reply), channel.clone());
            ServerEvent::Publish { session, channel, data: bytes::Bytes::copy_from_slice(data.as_bytes()) }
        });
        Ok(())
    }
}

fn handled(
    mut reply: Box<Message>,
    advice: Option<Box<RawValue>>,
    outcome: Result<Option<Box<Message>>, String>,
) -> Handled {
    reply.successful = Some(outcome.is_ok());
    match outcome {
        Ok(event) => Handled { reply, event },
        Err(error) => {
            (reply.error, reply.advice) = (Some(error), advice);
            Handled { reply, event: None }
        }
    }
}
