//! The driver's links: which transport, when to open one, what its loss means, and the way back to a better one.

use std::time::Duration;

use tokio::time::Instant;

use super::{Connect, Driver, Opening, SOCKET_FAILURES};
use crate::client::error::LinkError;
use crate::client::link::{Link, Polling, Socket};
use crate::client::{ClientError, Event, Refusal, Transport};

use super::Status;

impl Driver {
    pub(super) fn open(&self, transport: Transport) -> Opening {
        let settings = self.settings.clone();
        match transport {
            Transport::WebSocket => Box::pin(async move { Ok(Link::Socket(Box::new(Socket::open(&settings).await?))) }),
            Transport::LongPolling => Box::pin(async move { Ok(Link::Polling(Box::new(Polling::new(settings)))) }),
        }
    }

    /// The first transport, unless it is a socket that does not work here.
    pub(super) fn choose(&self) -> Transport {
        let usable = |transport: &&Transport| {
            **transport != Transport::WebSocket
                || self.socket_failures < SOCKET_FAILURES
                || self.options.transports.len() == 1
        };
        self.options.transports.iter().find(usable).copied().unwrap_or(Transport::LongPolling)
    }

    /// A link stands: whatever is not answered is asked again over it.
    pub(super) fn begin(&mut self, link: Link) {
        let now = Instant::now();
        let transport = link.transport();
        self.link = Some(link);
        self.stands = false;
        self.ask_again();
        if transport == self.options.transports.first().copied().unwrap_or(transport) {
            self.upgrade_at = None;
        } else if self.options.transports.contains(&Transport::WebSocket) {
            self.upgrade_at = Some(now + self.upgrade_pause);
        }
        tracing::debug!(transport = transport.as_str(), "link opened");
    }

    pub(super) fn upgrade_later(&mut self) {
        self.upgrade_pause = (self.upgrade_pause * 2).min(self.options.upgrade * 10);
        let chance = 0.75 + fastrand::f64() / 2.0;
        self.upgrade_at = Some(Instant::now() + self.upgrade_pause.mul_f64(chance));
    }

    pub(super) fn ask_again(&mut self) {
        if let Connect::Asked(asked) = &self.connect {
            self.retry_id = Some(asked.id);
        }
        self.connect = Connect::Due(Instant::now());
        self.handshake = None;
        self.interests.ask_again();
        self.outbox.send_again();
    }

    /// The link is no more.
    pub(super) fn link_lost(&mut self, error: &LinkError) {
        let Some(link) = self.link.take() else { return };
        self.upgrading = None;
        self.upgrade_at = None;
        self.ask_again();
        if link.transport() == Transport::WebSocket && !self.stands {
            self.socket_failures += 1;
        }
        if self.stands {
            // It worked: at once, and without a pause for the first time.
            self.stands = false;
            self.failures = 0;
            self.open_at = Instant::now();
            tracing::debug!(%error, "link lost");
            self.tell(Event::Retry { attempt: 0, pause: Duration::ZERO, reason: error.to_string() });
        } else {
            self.failed(error.to_string());
        }
    }

    pub(super) fn not_opened(&mut self, error: &LinkError) {
        if matches!(error, LinkError::NoSocket(_)) {
            // Somebody answers, but not so.
            self.socket_failures = SOCKET_FAILURES;
            if self.choose() != Transport::WebSocket {
                self.open_at = Instant::now();
                return self.tell(Event::Retry { attempt: 0, pause: Duration::ZERO, reason: error.to_string() });
            }
        }
        self.failed(error.to_string());
    }

    /// One more failure: a pause before the next attempt.
    pub(super) fn failed(&mut self, reason: String) {
        self.failures += 1;
        let pause = self.options.backoff.pause(self.failures, fastrand::f64());
        self.open_at = Instant::now() + pause;
        tracing::debug!(%reason, attempt = self.failures, ?pause, "no link");
        self.tell(Event::Retry { attempt: self.failures, pause, reason });
    }

    /// HTTP, or a close, refused a whole batch: find out what is to blame.
    pub(super) fn batch_refused(&mut self, refusal: Refusal, error: &LinkError) {
        let suspects = self.outbox.under_way() && self.session.id.is_some();
        if suspects {
            if let Some(publish) = self.outbox.batch_refused() {
                let _ = publish.done.send(Err(ClientError::Refused(refusal.clone())));
            }
            // Not the link's fault.
            self.stands = true;
        } else {
            self.not_welcome(&refusal);
        }
        self.link_lost(error);
    }

    /// Tells who waits for the first link.
    pub(super) fn not_welcome(&self, refusal: &Refusal) {
        self.status.send_if_modified(|status| {
            let starting = matches!(status, Status::Starting);
            if starting {
                *status = Status::Refused(refusal.clone());
            }
            starting
        });
    }
}
