//! What the driver says: handshakes, connects, and batches of what the user wants.

use std::time::Duration;

use tokio::time::Instant;

use super::{Asked, BATCH_BYTES, BATCH_MESSAGES, Connect, Driver, hear, number};
use crate::bayeux::{Message, json};
use crate::client::error::LinkError;
use crate::client::link::{Batch, Heard};
use crate::client::{ClientError, Refusal, Transport};

impl Driver {
    /// Sends whatever is due.
    pub(super) fn speak(&mut self) -> Result<(), LinkError> {
        if self.link.is_none() {
            return Ok(());
        }
        let now = Instant::now();
        let Some(session) = self.session.id.clone() else {
            if self.handshake.is_none() && self.handshake_at <= now {
                return self.shake_hands(now);
            }
            return Ok(());
        };
        while let Some(batch) = self.next_batch(&session, now) {
            self.send(batch, None)?;
        }
        if matches!(self.connect, Connect::Due(at) if at <= now) {
            self.send_connect(session, now)?;
        }
        Ok(())
    }

    fn shake_hands(&mut self, now: Instant) -> Result<(), LinkError> {
        let id = self.next_id();
        let types: Vec<_> = self.options.transports.iter().map(|transport| transport.as_str()).collect();
        let message = Message {
            channel: "/meta/handshake".to_owned(),
            id: Some(number(id)),
            version: Some(json::quote("1.0")),
            supported_connection_types: serde_json::value::to_raw_value(&types).ok(),
            ext: self.session.handshake_ext(),
            ..Message::default()
        };
        self.handshake = Some(Asked { id, deadline: now + self.settings.patience });
        self.send(vec![message], None)
    }

    fn send_connect(&mut self, session: String, now: Instant) -> Result<(), LinkError> {
        let Some(link) = &self.link else { return Ok(()) };
        let transport = link.transport();
        let id = self.retry_id.take().unwrap_or_else(|| self.next_id());
        let longest = self.session.advised.timeout;
        // The first over a link is answered at once: so the session is known to live.
        let hold = match (self.stands, transport) {
            (false, _) => Some(Duration::ZERO),
            (true, Transport::WebSocket) => None,
            (true, Transport::LongPolling) => Some(self.options.hold.min(longest)),
        };
        let advice = hold.map(|hold| json::with_fields(None, &[], &[("timeout", hold.as_millis().to_string())]));
        let message = Message {
            channel: "/meta/connect".to_owned(),
            client_id: Some(session),
            id: Some(number(id)),
            connection_type: Some(json::quote(transport.as_str())),
            advice,
            ext: self.session.connect_ext(),
            ..Message::default()
        };
        let hold = hold.unwrap_or(longest);
        self.connect = Connect::Asked(Asked { id, deadline: now + hold + self.settings.patience });
        self.send(vec![message], Some(hold))
    }

    /// What the user wants and was not said yet: what he no longer wants, then what he does, then what he publishes.
    fn next_batch(&mut self, session: &str, now: Instant) -> Option<Vec<Message>> {
        let mut batch = Vec::new();
        let deadline = now + self.settings.patience;
        while batch.len() < BATCH_MESSAGES {
            let id = self.last_id + 1;
            let Some(mut message) = self.interests.next(id, deadline, &mut self.session) else { break };
            self.last_id = id;
            message.client_id = Some(session.to_owned());
            message.id = Some(number(id));
            batch.push(message);
        }
        let mut bytes = 0;
        let busy = self.outbox.is_careful() && !batch.is_empty();
        while batch.len() < BATCH_MESSAGES && bytes < BATCH_BYTES && !busy {
            let Some((id, publish)) = self.outbox.next() else { break };
            let mut message = publish.message.clone();
            message.client_id = Some(session.to_owned());
            message.id = Some(json::quote(&format!("p{id}")));
            if self.session.resumes() {
                let key = format!("\"{}\"", publish.key.simple());
                message.ext = Some(json::with_fields(message.ext.as_deref(), &[], &[("idempotencyKey", key)]));
            }
            bytes += message.data.as_ref().map_or(0, |data| data.get().len());
            batch.push(message);
        }
        (!batch.is_empty()).then_some(batch)
    }

    /// Passes messages by the extensions, and on to the link.
    pub(super) fn send(&mut self, messages: Vec<Message>, hold: Option<Duration>) -> Result<(), LinkError> {
        let mut json = vec![b'['];
        for mut message in messages {
            let (channel, id) = (message.channel.clone(), message.id.clone());
            if !self.extensions.iter().all(|extension| extension.outgoing(&mut message)) {
                self.dropped(&channel, id.as_deref().and_then(json::string).as_deref().unwrap_or_default());
                continue;
            }
            if json.len() > 1 {
                json.push(b',');
            }
            message.encode_into(&mut json);
        }
        json.push(b']');
        let Some(link) = &mut self.link else { return Ok(()) };
        if json.len() == 2 {
            return Ok(());
        }
        link.send(Batch { json, hold })
    }

    /// An extension has dropped a message: nobody will answer it.
    fn dropped(&mut self, channel: &str, id: &str) {
        let refusal = Refusal::new(0, "dropped by an extension");
        let number = id.parse().unwrap_or_default();
        match (channel, id.strip_prefix('p')) {
            ("/meta/subscribe", _) => {
                if let Some(pattern) = self.interests.asked(number) {
                    self.interests.refused(&pattern, &refusal);
                }
            }
            ("/meta/unsubscribe", _) => self.interests.left(number),
            (_, Some(id)) => {
                let publish = id.parse().ok().and_then(|id| self.outbox.answered(id));
                publish
                    .into_iter()
                    .for_each(|publish| drop(publish.done.send(Err(ClientError::Refused(refusal.clone())))));
            }
            // Without it there is no session; the time for its answer runs out.
            _ => {}
        }
    }

    pub(super) fn next_id(&mut self) -> u64 {
        self.last_id += 1;
        self.last_id
    }

    pub(super) async fn say_goodbye(&mut self) {
        let (Some(session), Some(_)) = (self.session.id.clone(), &self.link) else { return };
        let id = self.next_id();
        let message = Message {
            channel: "/meta/disconnect".to_owned(),
            client_id: Some(session),
            id: Some(number(id)),
            ..Message::default()
        };
        if self.send(vec![message], None).is_err() {
            return;
        }
        while let Ok(heard) = hear(&mut self.link).await {
            if let Heard::Messages(messages) = heard
                && messages.iter().any(|message| message.channel == "/meta/disconnect")
            {
                return;
            }
        }
    }
}
