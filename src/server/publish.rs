//! Publishing: everything outside `/meta`. The yes goes out only after the engine has stored the message.

use serde_json::value::RawValue;

use super::batch::Handled;
use super::{RequestInfo, Server, ServerEvent, session_of};
use crate::bayeux::channel::Realm;
use crate::bayeux::{BayeuxError, Channel, Message};
use crate::engine::{Engine, EngineError, Publication, Published};

/// What a publish comes to before anything is stored.
enum Prepared {
    /// A message to be stored, and what has to be told of it afterwards. Nothing else of it is kept meanwhile: of those that
    /// wait, what is small is still at hand.
    Message(Publication, Option<Told>),
    /// A service has answered it.
    Served(Box<Message>),
}

/// A message whose outcome is waited for.
enum Waiting {
    Stored(Option<Told>),
    Served(Box<Message>),
}

/// For who listens to the server's events.
struct Told {
    channel: Channel,
    data: Box<RawValue>,
}

impl Server {
    /// Stores the message, or gives it to the service that answers its channel.
    pub(super) async fn publish(&self, message: Box<Message>, request: &RequestInfo) -> Handled {
        let (reply, advice) = (Box::new(message.reply()), message.reply_advice.clone());
        let outcome = match self.prepare(message, request).await {
            Ok(Prepared::Message(publication, told)) => {
                let outcome = self.sessions().store().publish(publication).await;
                self.stored(told, &reply, outcome, request).map(|()| None)
            }
            Ok(Prepared::Served(event)) => Ok(Some(event)),
            Err(error) => Err(error),
        };
        handled(reply, advice, outcome)
    }

    /// As [`Server::publish`] for each of these, in their order, in one call to the engine.
    #[expect(clippy::vec_box, reason = "they are boxed before and needed so behind")]
    pub(super) async fn publish_all(&self, messages: Vec<Box<Message>>, request: &RequestInfo) -> Vec<Handled> {
        let mut publications = Vec::with_capacity(messages.len());
        let mut waiting = Vec::with_capacity(messages.len());
        for message in messages {
            let (reply, advice) = (Box::new(message.reply()), message.reply_advice.clone());
            let prepared = self.prepare(message, request).await.map(|prepared| match prepared {
                Prepared::Message(publication, told) => {
                    publications.push(publication);
                    Waiting::Stored(told)
                }
                Prepared::Served(event) => Waiting::Served(event),
            });
            waiting.push((reply, advice, prepared));
        }
        let mut outcomes = match publications.is_empty() {
            true => Vec::new(),
            false => self.sessions().store().publish_all(publications).await,
        }
        .into_iter();
        // An engine that could not even take them has not said yes.
        let silent = || Err(EngineError::Unavailable("no outcome".to_owned()));
        waiting
            .into_iter()
            .map(|(reply, advice, waiting)| {
                let outcome = match waiting {
                    Ok(Waiting::Stored(told)) => {
                        let outcome = outcomes.next().unwrap_or_else(silent);
                        self.stored(told, &reply, outcome, request).map(|()| None)
                    }
                    Ok(Waiting::Served(event)) => Ok(Some(event)),
                    Err(error) => Err(error),
                };
                handled(reply, advice, outcome)
            })
            .collect()
    }

    /// Checks a message. Whatever is wrong with it is told as its reply's error.
    async fn prepare(&self, mut message: Box<Message>, request: &RequestInfo) -> Result<Prepared, String> {
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
        let delivery = message.into_delivery();
        let heard = !request.internal && self.0.events.are_heard();
        let told = delivery.data.as_ref().filter(|_| heard);
        let told = told.map(|data| Told { channel: channel.clone(), data: data.clone() });
        Ok(Prepared::Message(self.publication(channel, &delivery), told))
    }

    async fn expect_publisher(&self, message: &Message, request: &RequestInfo) -> Result<(), BayeuxError> {
        let Some(session) = session_of(message) else { return Err(request.dialect.missing_client()) };
        self.expect_session(&session, request).await
    }

    /// What the engine gets.
    fn publication(&self, channel: Channel, delivery: &Message) -> Publication {
        let data = delivery.data.as_ref().map_or(0, |data| data.get().len());
        let mut array = Vec::with_capacity(64 + delivery.channel.len() + data);
        array.push(b'[');
        delivery.encode_into(&mut array);
        array.push(b']');
        let retention = self.settings().retention.rule(&channel).map(|rule| rule.retention);
        Publication { channel, array: array.into(), retention, fingerprint: delivery.fingerprint }
    }

    /// Tells whom it concerns what the engine said.
    fn stored(
        &self,
        told: Option<Told>,
        reply: &Message,
        outcome: Result<Published, EngineError>,
        request: &RequestInfo,
    ) -> Result<(), String> {
        match outcome {
            Ok(Published::Stored(_)) => {}
            Ok(Published::Repeated) => {
                tracing::debug!(channel = reply.channel, "a publish that was stored before");
                self.metrics().repeated.inc();
                return Ok(());
            }
            Err(error) => return Err(self.engine_error("publish", &error).to_string()),
        }
        if request.internal {
            return Ok(());
        }
        self.metrics().published.inc();
        if let Some(Told { channel, data }) = told {
            self.0.events.emit(|| {
                let data = bytes::Bytes::copy_from_slice(data.get().as_bytes());
                ServerEvent::Publish { session: session_of(reply), channel, data }
            });
        }
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
