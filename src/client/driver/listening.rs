//! What the driver hears: replies, what they mean for the session, and messages, which are handed out.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc::error::TrySendError;
use tokio::time::Instant;

use super::{Connect, Driver, End, Status, is, unknown_session};
use crate::bayeux::{Channel, Message, Reconnect, json};
use crate::client::session::Begun;
use crate::client::{ClientError, Event, Received, Refusal, Transport};

impl Driver {
    /// Takes in what the server says.
    pub(super) fn listen(&mut self, messages: Vec<Message>) -> Option<End> {
        for mut message in messages {
            if !self.extensions.iter().all(|extension| extension.incoming(&mut message)) {
                continue;
            }
            if let Some(advice) = &message.advice {
                self.session.advise(advice);
            }
            let end = match message.channel.as_str() {
                "/meta/handshake" => self.on_handshake(&message),
                "/meta/connect" => self.on_connect(&message),
                "/meta/subscribe" | "/meta/unsubscribe" => self.on_interest(&message),
                "/meta/disconnect" => Some(End::Stopped("the server ended the session".to_owned())),
                _ => self.on_message(message),
            };
            if end.is_some() {
                return end;
            }
        }
        None
    }

    fn on_handshake(&mut self, reply: &Message) -> Option<End> {
        let asked = self.handshake.take_if(|asked| is(reply, &asked.id.to_string()));
        asked?;
        let now = Instant::now();
        if reply.successful != Some(true) {
            let refusal = Refusal::parse(reply.error.as_deref().unwrap_or("refused without a reason"));
            if self.session.advised.reconnect == Reconnect::None {
                return Some(End::Stopped(refusal.to_string()));
            }
            self.failures += 1;
            let pause = self.options.backoff.pause(self.failures, fastrand::f64()).max(self.session.advised.interval);
            self.handshake_at = now + pause;
            self.tell(Event::Retry { attempt: self.failures, pause, reason: refusal.to_string() });
            self.not_welcome(&refusal);
            return None;
        }
        let before = self.previous.is_some();
        let begun = self.session.begin(reply, before);
        let session = self.session.id.clone().unwrap_or_default();
        let previous = self.previous.replace(session.clone());
        // The advice that sent us here is done with.
        self.session.advised.reconnect = Reconnect::Retry;
        self.interests.renew(&self.session);
        self.outbox.send_again();
        self.retry_id = None;
        self.connect = Connect::Due(now);
        self.tell(Event::NewSession { session, previous });
        match begun {
            Begun::First => {}
            // Whether all of it is still there, its first connect tells.
            Begun::Recovered => self.recovered = true,
            Begun::Gap(channels) => self.tell(Event::Gap { channels }),
        }
        None
    }

    fn on_connect(&mut self, reply: &Message) -> Option<End> {
        // An older one, answered because a newer one came.
        let Connect::Asked(asked) = &self.connect else { return None };
        if !is(reply, &asked.id.to_string()) {
            return None;
        }
        let now = Instant::now();
        let advised = self.session.advised;
        let refusal = Refusal::parse(reply.error.as_deref().unwrap_or("the server wants no more"));
        if advised.reconnect == Reconnect::None {
            return Some(End::Stopped(refusal.to_string()));
        }
        if reply.successful != Some(true) {
            self.session_lost(&refusal);
            return None;
        }
        self.connect = Connect::Due(now + advised.interval);
        let recovered = std::mem::take(&mut self.recovered);
        if self.session.connected(reply) {
            self.tell(Event::Gap { channels: Vec::new() });
        } else if recovered {
            self.tell(Event::Recovered);
        }
        if !self.stands {
            self.on_standing();
        }
        None
    }

    fn on_standing(&mut self) {
        let Some(link) = &self.link else { return };
        let transport = link.transport();
        (self.stands, self.stood_at) = (true, Instant::now());
        if transport == Transport::WebSocket {
            (self.socket_failures, self.upgrade_pause) = (0, self.options.upgrade);
        }
        let session = self.session.id.clone().unwrap_or_default();
        let status = Status::Connected { session: session.clone(), transport };
        let before = self.status.send_replace(status);
        let resumed = matches!(before, Status::Connected { session: before, .. } if before == session);
        self.tell(if resumed { Event::Resumed { transport } } else { Event::Connected { session, transport } });
    }

    /// The server does not know the session: a new one, some time from now.
    fn session_lost(&mut self, refusal: &Refusal) {
        if self.session.id.is_none() {
            return;
        }
        tracing::debug!(%refusal, "session lost");
        self.session.lost();
        self.handshake = None;
        self.interests.ask_again();
        self.outbox.send_again();
        // It answers: what failed before is over. But who gives sessions and takes them away again is not asked in a tight loop.
        if self.lasted() {
            self.losses = 0;
        }
        self.failures = self.losses;
        self.losses += 1;
        let least = match self.failures {
            0 => Duration::ZERO,
            failures => self.options.backoff.pause(failures, fastrand::f64()),
        };
        self.stands = false;
        let pause = least.max(self.session.advised.interval);
        self.handshake_at = Instant::now() + pause;
        self.tell(Event::Retry { attempt: self.failures, pause, reason: refusal.to_string() });
    }

    fn on_interest(&mut self, reply: &Message) -> Option<End> {
        let id = reply.id.as_deref().and_then(json::string)?.parse().ok()?;
        if reply.channel == "/meta/unsubscribe" {
            self.interests.left(id);
            return None;
        }
        let pattern = self.interests.asked(id)?;
        if reply.successful == Some(true) {
            if self.session.subscribed(&pattern, reply) {
                self.tell(Event::Gap { channels: vec![pattern.clone()] });
            }
            self.interests.accepted(&pattern);
            return None;
        }
        let refusal = Refusal::parse(reply.error.as_deref().unwrap_or("refused without a reason"));
        if unknown_session(reply, &refusal) {
            self.session_lost(&refusal);
        } else if self.interests.refused(&pattern, &refusal) {
            self.session.unsubscribed(&pattern);
            self.tell(Event::Unsubscribed { channel: pattern, refusal });
        }
        None
    }

    fn on_message(&mut self, message: Message) -> Option<End> {
        if let Some(successful) = message.successful {
            let id = message.id.as_deref().and_then(json::string);
            let id = id.as_deref().and_then(|id| id.strip_prefix('p')?.parse().ok());
            if let Some(id) = id {
                self.on_published(id, successful, &message);
            }
        }
        if message.data.is_some() && self.session.is_news(&message) {
            self.waiting.push_back(Received(Arc::new(message)));
            self.hand_out();
        }
        None
    }

    fn on_published(&mut self, id: u64, successful: bool, reply: &Message) {
        let refusal = Refusal::parse(reply.error.as_deref().unwrap_or("refused without a reason"));
        if !successful && unknown_session(reply, &refusal) {
            // It goes out again under the new session.
            return self.session_lost(&refusal);
        }
        let Some(publish) = self.outbox.answered(id) else { return };
        let outcome = if successful { Ok(()) } else { Err(ClientError::Refused(refusal)) };
        // Who does not wait any more need not know.
        let _ = publish.done.send(outcome);
    }

    /// Puts what was received into the queues, until one is full.
    pub(super) fn hand_out(&mut self) {
        self.full.retain(|queue| !queue.is_closed());
        while let Some(message) = self.waiting.front() {
            let queues = if self.full.is_empty() {
                // No channel that can be parsed is none that matches.
                Channel::parse(message.channel()).map(|channel| self.interests.matching(&channel)).unwrap_or_default()
            } else {
                std::mem::take(&mut self.full)
            };
            for queue in queues {
                if let Err(TrySendError::Full(_)) = queue.try_send(message.clone()) {
                    self.full.push(queue);
                }
            }
            if !self.full.is_empty() {
                return;
            }
            self.waiting.pop_front();
        }
    }
}
