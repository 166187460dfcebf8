//! `/meta/handshake`: makes a session.

use std::time::Duration;

use futures_util::FutureExt;
use serde_json::value::RawValue;

use super::claims::{self, Wishes, with_ext};
use super::spans::note_session;
use super::{RequestInfo, Server, ServerEvent};
use crate::bayeux::json::{self, Raw};
use crate::bayeux::{BayeuxError, Message};
use crate::engine::{Create, Creation, Cursor, Engine, SessionId, Subscription, Traits};
use crate::metrics::Limit;

/// Every connection type, whatever the client can do (wire contract, 1.6).
pub(super) const CONNECTION_TYPES: [&str; 6] =
    ["long-polling", "cross-origin-long-polling", "callback-polling", "websocket", "eventsource", "in-process"];

/// The protocol version of every reply.
const VERSION: &str = "1.0";

impl Server {
    pub(super) async fn handshake(&self, message: &Message, request: &RequestInfo) -> Message {
        let reply = Message {
            version: Some(json::quote(VERSION)),
            supported_connection_types: Some(connection_types()),
            ..message.reply()
        };
        if let Some(error) = refusal(message, request) {
            return self.refuse_handshake(message, reply, error, request);
        }
        let Wishes { traits, resumed } = match Wishes::of(message, self.settings().max_subscriptions) {
            Ok(wishes) => wishes,
            Err(error) => {
                if error.code == 403 {
                    self.metrics().limit(Limit::Subscriptions);
                }
                return self.refuse_handshake(message, reply, error.to_string(), request);
            }
        };
        let session = SessionId::random();
        // A session lives for two time-outs after it was last heard of (wire contract, 1.10).
        let lifetime: Duration = self.settings().timeout * 2;
        let store = self.sessions().store();
        // The canary's is never one too many: a full node, or a full cluster, could not become ready again.
        let max = if request.internal { usize::MAX } else { self.settings().max_sessions };
        let resumed = match resumed {
            Some((at, wanted)) => Some((at, self.resumable(wanted, &session, message, request).await)),
            None => None,
        };
        let creation = Creation {
            session: &session,
            lifetime,
            max,
            traits,
            resumed: resumed.as_ref().map(|(at, patterns)| (at, &**patterns)),
        };
        let start = match self.insist("create", || store.create(creation.clone()).boxed()).await {
            Ok(Create::Created(start)) => start,
            Ok(Create::TooMany) => {
                self.metrics().limit(Limit::Sessions);
                let text = format!("Too many sessions: the limit is {}", self.settings().max_sessions);
                return self.refuse_handshake(message, reply, BayeuxError::limit(503, "", text).to_string(), request);
            }
            Err(error) => {
                let error = self.engine_error("create", &error).to_string();
                return self.refuse_handshake(message, reply, error, request);
            }
        };
        note_session(&session);
        tracing::debug!(%session, transport = request.transport.as_str(), "session made");
        if !request.internal {
            self.0.events.emit(|| ServerEvent::Handshake { session: session.clone() });
            for Subscription { pattern, .. } in resumed.iter().flat_map(|(_, subscriptions)| subscriptions) {
                self.0.events.emit(|| ServerEvent::Subscribe { session: session.clone(), channel: pattern.clone() });
            }
        }
        let reply = Message {
            successful: Some(true),
            client_id: Some(session.as_str().to_owned()),
            advice: Some(self.retry_advice().to_raw()),
            ..reply
        };
        with_ext(reply, &granted(traits, &start, resumed.as_ref().map(|(_, patterns)| &**patterns)))
    }

    fn refuse_handshake(&self, message: &Message, reply: Message, error: String, request: &RequestInfo) -> Message {
        let advice = message.reply_advice.clone();
        Message {
            successful: Some(false),
            error: Some(error),
            advice: Some(advice.unwrap_or_else(|| self.handshake_advice(request.dialect).to_raw())),
            ..reply
        }
    }
}

/// What was asked for and is given.
fn granted(traits: Traits, start: &Cursor, resumed: Option<&[Subscription]>) -> Vec<(&'static str, String)> {
    let mut fields = Vec::new();
    for (granted, name) in [(traits.ack, "ack"), (traits.resume, "resume"), (traits.replay, "replay")] {
        if granted {
            fields.push((name, "true".to_owned()));
        }
    }
    if traits.resume {
        fields.push(("position", claims::written(start)));
        fields.extend(resumed.map(|patterns| ("subscriptions", claims::list(patterns))));
    }
    fields
}

/// Why the handshake cannot be; the last reason counts, as in Faye.
fn refusal(message: &Message, request: &RequestInfo) -> Option<String> {
    let mut error = message.error.clone();
    if request.dialect.requires_version_and_types() {
        if !message.version.as_deref().is_some_and(json::truthy) {
            error = Some(BayeuxError::missing("version").to_string());
        }
        match message.supported_connection_types.as_deref().filter(|types| json::truthy(types)) {
            None => error = Some(BayeuxError::missing("supportedConnectionTypes").to_string()),
            Some(types) if !names_known_type(types) => {
                error = Some(BayeuxError::connection_types(json::to_js_string(types)).to_string());
            }
            Some(_) => {}
        }
    }
    error
}

fn names_known_type(types: &RawValue) -> bool {
    json::elements(types)
        .unwrap_or_default()
        .into_iter()
        .filter_map(json::string)
        .any(|name| CONNECTION_TYPES.contains(&&*name))
}

fn connection_types() -> Raw {
    // Serialising a list of strings cannot fail.
    serde_json::value::to_raw_value(&CONNECTION_TYPES).unwrap_or_else(|_| RawValue::NULL.to_owned())
}
