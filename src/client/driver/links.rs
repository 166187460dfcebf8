//! The driver's links: which transport, when to open one, what its loss means, and the way back to a better one.

use std::time::Duration;

use tokio::time::Instant;

use super::{Connect, Driver, LASTING, Opening, SOCKET_FAILURES, Status};
use crate::client::error::LinkError;
use crate::client::link::{Link, Polling, Socket};
use crate::client::{ClientError, Event, Refusal, Transport};

/// When a socket is tried again that failed while the server was away.
const SOON: Duration = Duration::from_secs(5);

impl Driver {
    pub(super) fn open(&self, transport: Transport) -> Opening {
        let settings = self.settings.clone();
        match transport {
            Transport::WebSocket => Box::pin(async move { Ok(Link::Socket(Box::new(Socket::open(&settings).await?))) }),
            Transport::LongPolling => Box::pin(async move { Ok(Link::Polling(Box::new(Polling::new(settings)))) }),
        }
    }

    /// A socket beside the link in use, once it is known that it lets something through.
    pub(super) fn open_proven(&self) -> Opening {
        let settings = self.settings.clone();
        Box::pin(async move {
            let mut socket = Socket::open(&settings).await?;
            socket.prove().await?;
            Ok(Link::Socket(Box::new(socket)))
        })
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
            // After an outage it may have been that, and not the socket.
            let soon = if self.failures > 0 { SOON } else { self.upgrade_pause };
            self.upgrade_at = Some(now + soon.min(self.upgrade_pause));
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
            // One that opens and lets nothing through need not be tried again and again.
            let blocked = matches!(error, LinkError::Late(_));
            self.socket_failures += if blocked { SOCKET_FAILURES } else { 1 };
        }
        if link.transport() == Transport::LongPolling && !self.stands {
            // It is not about sockets.
            self.socket_failures = 0;
        }
        let lasted = self.lasted();
        if std::mem::take(&mut self.stands) && (lasted || self.failures == 0) {
            // It worked: at once, and without a pause for the first time.
            self.failures = u32::from(!lasted);
            self.open_at = Instant::now();
            tracing::debug!(%error, "link lost");
            self.tell(Event::Retry { attempt: 0, pause: Duration::ZERO, reason: error.to_string() });
        } else {
            self.failed(error.to_string());
        }
    }

    /// Whether the link, or session, that ends now was more than a beginning.
    pub(super) fn lasted(&self) -> bool {
        self.stands && self.stood_at.elapsed() >= LASTING
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
        self.status.send_if_modified(|status| {
            if let Status::Starting(last) = status {
                *last = Some(reason.clone());
            }
            false
        });
        tracing::debug!(%reason, attempt = self.failures, ?pause, "no link");
        self.tell(Event::Retry { attempt: self.failures, pause, reason });
    }

    /// HTTP, or a close, refused a whole batch: find out what is to blame.
    pub(super) fn batch_refused(&mut self, refusal: Refusal, error: &LinkError) {
        // Other statuses are those of servers that are not there, or of gates before them.
        let of_content = matches!(refusal.code, 400 | 413 | 414 | 422 | 431);
        let suspects = of_content && self.outbox.under_way() && self.session.id.is_some();
        if suspects {
            if let Some(publish) = self.outbox.batch_refused() {
                let _ = publish.done.send(Err(ClientError::Refused(refusal.clone())));
            }
            // Not the link's fault.
            (self.stands, self.failures) = (true, 0);
        } else {
            self.not_welcome(&refusal);
        }
        self.link_lost(error);
    }

    /// Tells who waits for the first link.
    pub(super) fn not_welcome(&self, refusal: &Refusal) {
        self.status.send_if_modified(|status| {
            let starting = matches!(status, Status::Starting(_));
            if starting {
                *status = Status::Refused(refusal.clone());
            }
            starting
        });
    }
}
