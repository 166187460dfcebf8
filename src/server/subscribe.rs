//! `/meta/subscribe` and `/meta/unsubscribe`.

use std::borrow::Cow;

use futures_util::FutureExt;
use serde_json::value::RawValue;

use super::claims::{ReplayWishes, Started, subscriptions_start, with_ext};
use super::{RequestInfo, Server, ServerEvent, session_of};
use crate::bayeux::channel::Realm;
use crate::bayeux::json::{self, Raw};
use crate::bayeux::{BayeuxError, Message, Pattern};
use crate::engine::{Engine, Position, ReplayStart, ReplayWish, SessionId, Subscribe, Unsubscribe};
use crate::metrics::Limit;

/// Which of the two.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Change {
    Subscribe,
    Unsubscribe,
}

impl Server {
    /// Applies the channels in order up to the first that is refused; those before it stay (wire contract, 1.6).
    pub(super) async fn change_subscriptions(
        &self,
        message: &Message,
        request: &RequestInfo,
        change: Change,
    ) -> Message {
        let wanted = message.subscription.as_deref().filter(|wanted| json::truthy(wanted));
        let reply =
            Message { subscription: Some(wanted.map_or_else(empty_list, RawValue::to_owned)), ..message.reply() };
        // Also where one is refused: those before it stay.
        let mut starts = Vec::new();
        let outcome = match (session_of(message), wanted, &message.error) {
            (_, None, _) => Err(BayeuxError::missing("subscription").to_string()),
            (None, Some(_), _) => Err(request.dialect.missing_client().to_string()),
            (_, _, Some(error)) => Err(error.clone()),
            (Some(session), Some(wanted), None) => {
                let applied = self.apply(&session, wanted, message, request, change, &mut starts).await;
                applied.map_err(|error| error.to_string())
            }
        };
        let error = outcome.err();
        // Where they count from, for clients that go on with them under another session.
        let asked = json::member(message.ext.as_deref(), "resume").is_some_and(json::truthy);
        let wanted = asked && change == Change::Subscribe;
        let advice = message.reply_advice.clone();
        let reply = Message { successful: Some(error.is_none()), error, advice, ..reply };
        with_ext(reply, &subscriptions_start(&starts, wanted))
    }

    async fn apply(
        &self,
        session: &SessionId,
        wanted: &RawValue,
        message: &Message,
        request: &RequestInfo,
        change: Change,
        starts: &mut Vec<Started>,
    ) -> Result<(), BayeuxError> {
        let mut known_to_exist = false;
        let wishes = ReplayWishes::of(message);
        let channels = json::elements(wanted).unwrap_or_else(|| vec![wanted]);
        let max = self.settings().max_subscriptions;
        if channels.len() > max {
            self.metrics().limit(Limit::Subscriptions);
            return Err(BayeuxError::limit(403, "", format!("Too many subscriptions: the limit is {max}")));
        }
        for channel in &channels {
            let checked = self.change_of(channel, &wishes, request, change);
            // Without an effect so far, nobody has said yet that the session exists; a client that does not exist is
            // told so first, whatever the channel.
            if !matches!(checked, Ok(Some(_))) && !known_to_exist {
                self.expect_session(session, request).await?;
            }
            known_to_exist = true;
            if let Some((pattern, wish)) = checked? {
                let start = self.change_one(session, &pattern, wish, request, change).await?;
                starts.extend(start.map(|(since, replay)| Started { pattern, since, replay }));
            }
        }
        if channels.is_empty() {
            self.expect_session(session, request).await?;
        }
        Ok(())
    }

    /// The pattern to be changed, with the replay that is wished for it.
    fn change_of(
        &self,
        channel: &RawValue,
        wishes: &ReplayWishes<'_>,
        request: &RequestInfo,
        change: Change,
    ) -> Result<Option<(Pattern, Option<ReplayWish>)>, BayeuxError> {
        let name: Cow<'_, str> = match json::string(channel) {
            Some(name) => name,
            None => return Err(BayeuxError::invalid_channel(json::to_js_string(channel))),
        };
        let Some(pattern) = self.subscribable(&name, request)? else { return Ok(None) };
        let wish = if change == Change::Subscribe { self.replay_wish(wishes, &pattern)? } else { None };
        Ok(Some((pattern, wish)))
    }

    /// The pattern that may be subscribed to; `None` where the dialect accepts the channel and records nothing.
    pub(super) fn subscribable(&self, name: &str, request: &RequestInfo) -> Result<Option<Pattern>, BayeuxError> {
        let pattern = self.pattern(name, request)?;
        match pattern.realm() {
            _ if request.is_local() => Ok(Some(pattern)),
            Realm::Broadcast => Ok(Some(pattern)),
            Realm::Service if request.dialect.ignores_service_subscriptions() => Ok(None),
            Realm::Service | Realm::Meta => Err(BayeuxError::forbidden_channel(name)),
        }
    }

    async fn change_one(
        &self,
        session: &SessionId,
        pattern: &Pattern,
        wish: Option<ReplayWish>,
        request: &RequestInfo,
        change: Change,
    ) -> Result<Option<(Position, Option<ReplayStart>)>, BayeuxError> {
        let unknown = || Err(request.dialect.unknown_client(session.as_str()));
        let (store, max) = (self.sessions().store(), self.settings().max_subscriptions);
        match change {
            Change::Subscribe => {
                match self.insist("subscribe", || store.subscribe(session, pattern, max, wish).boxed()).await {
                    Ok(Subscribe::Added { since, replay }) => {
                        if !request.internal {
                            let event =
                                || ServerEvent::Subscribe { session: session.clone(), channel: pattern.clone() };
                            self.0.events.emit(event);
                        }
                        Ok(Some((since, replay)))
                    }
                    Ok(Subscribe::Kept { since, replay }) => Ok(Some((since, replay.filter(|_| wish.is_some())))),
                    Ok(Subscribe::TooMany) => {
                        self.metrics().limit(Limit::Subscriptions);
                        let text = format!("Too many subscriptions: the limit is {max}");
                        Err(BayeuxError::limit(403, pattern.as_str(), text))
                    }
                    Ok(Subscribe::Unknown) => unknown(),
                    Err(error) => Err(self.engine_error("subscribe", &error)),
                }
            }
            Change::Unsubscribe => {
                match self.insist("unsubscribe", || store.unsubscribe(session, pattern).boxed()).await {
                    Ok(Unsubscribe::Removed) => {
                        let event = || ServerEvent::Unsubscribe { session: session.clone(), channel: pattern.clone() };
                        self.0.events.emit(event);
                        Ok(None)
                    }
                    Ok(Unsubscribe::Absent) => Ok(None),
                    Ok(Unsubscribe::Unknown) => unknown(),
                    Err(error) => Err(self.engine_error("unsubscribe", &error)),
                }
            }
        }
    }
}

fn empty_list() -> Raw {
    // An empty list is JSON.
    RawValue::from_string("[]".to_owned()).unwrap_or_else(|_| RawValue::NULL.to_owned())
}
