//! A client by long-polling: each request goes to a random address of the target, and a poll is always under way.

use std::cell::Cell;
use std::rc::Rc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::client::{Client, Role};
use super::local::{ClientError, Laps, Local, PATIENCE};
use super::pool;
use super::words::{Answer, Kind, Reconnect};

/// The longest pause before a failed connect is repeated.
const PAUSE: Duration = Duration::from_millis(200);
/// So often a connect is repeated before the client counts as broken.
const ATTEMPTS: u32 = 50;
/// How long a server holds a connect if it does not say, in milliseconds.
const HELD: u64 = 60_000;

/// See the module.
pub(super) struct PollingClient {
    pub client: Client,
    leaving: Cell<bool>,
    gone: Cell<bool>,
    /// How long the server holds a connect, in milliseconds.
    held: Cell<u64>,
}

impl PollingClient {
    /// Goes through all steps until it stands.
    pub(super) async fn open(local: &Rc<Local>, role: Role) -> Result<Rc<Self>, ClientError> {
        let this = Rc::new(Self {
            client: Client::new(local.clone(), role),
            leaving: Cell::new(false),
            gone: Cell::new(false),
            held: Cell::new(HELD),
        });
        let words = &local.shared.words;
        // There is nothing to be opened.
        let mut laps = Laps::new(local);
        laps.skip();
        laps.skip();
        let mut body = Vec::new();
        words.handshake(&mut body, this.client.next_id());
        let answer = this.ask(&body, Kind::Handshake, PATIENCE, "the handshake").await?;
        this.client.set_session(answer.session.unwrap_or_default());
        if let Some(held) = answer.timeout {
            this.held.set(held);
        }
        laps.lap(local);
        let session = this.client.session();
        for some in this.client.channels().chunks(words.subscribe_limit()) {
            body.clear();
            words.subscribe(&mut body, &session, this.client.next_id(), some);
            this.ask(&body, Kind::Subscribe, PATIENCE, "a subscribe").await?;
        }
        laps.lap(local);
        body.clear();
        words.connect(&mut body, &session, this.client.next_id(), true);
        this.ask(&body, Kind::Connect, PATIENCE, "the first connect").await?;
        laps.lap(local);
        laps.record(local);
        Ok(this)
    }

    /// Posts a message and waits for the answer to it, which must be a success.
    async fn ask(
        &self,
        body: &[u8],
        kind: Kind,
        patience: Duration,
        what: &'static str,
    ) -> Result<Answer, ClientError> {
        let mut found = None;
        let take = |payload: &[u8]| {
            self.client.take_in(payload, |answer| {
                if answer.kind == kind {
                    found = Some(answer);
                }
            });
        };
        pool::post(&self.client.local, body, patience, what, take).await?;
        match found {
            Some(answer) if answer.successful => Ok(answer),
            Some(Answer { reconnect: Reconnect::Handshake, .. }) if kind == Kind::Connect => {
                Err(ClientError::SessionGone)
            }
            Some(answer) => Err(ClientError::Refused(what, answer.error.unwrap_or_default().into())),
            None => Err(ClientError::Refused(what, "no answer to it".into())),
        }
    }

    /// Polls until it leaves, or cannot.
    pub(super) async fn poll(self: Rc<Self>) {
        let local = &self.client.local;
        let mut body = Vec::new();
        let session = self.client.session();
        let error = loop {
            body.clear();
            local.shared.words.connect(&mut body, &session, self.client.next_id(), false);
            match self.connect(&body).await {
                Ok(Answer { reconnect: Reconnect::None, .. }) => break ClientError::SessionGone,
                Ok(Answer { interval: 0, .. }) => {}
                Ok(Answer { interval, .. }) => tokio::time::sleep(Duration::from_millis(interval)).await,
                Err(error) => break error,
            }
            if self.leaving.get() {
                break ClientError::Closed;
            }
        };
        self.gone.set(true);
        if self.leaving.get() {
            return;
        }
        let mut counts = local.counts.borrow_mut();
        if matches!(error, ClientError::SessionGone) {
            counts.refused_sessions += 1;
        }
        counts.broken += 1;
        if !self.client.role.passing {
            local.live().standing.fetch_sub(1, Ordering::Relaxed);
            local.failed(&error);
        }
    }

    /// One connect, repeated with the same number while it fails.
    async fn connect(&self, body: &[u8]) -> Result<Answer, ClientError> {
        let patience = Duration::from_millis(self.held.get()) + PATIENCE;
        let mut attempt = 0;
        loop {
            match self.ask(body, Kind::Connect, patience, "a connect").await {
                Ok(answer) => return Ok(answer),
                Err(error @ ClientError::SessionGone) => return Err(error),
                Err(error) if self.leaving.get() || attempt == ATTEMPTS => return Err(error),
                Err(_) => self.client.local.counts.borrow_mut().request_failures += 1,
            }
            attempt += 1;
            tokio::time::sleep(self.client.local.jitter(PAUSE)).await;
        }
    }

    /// Publishes in a request of its own: the stream of each message, and when it was due. They count as sent at once;
    /// what is returned sends them.
    pub(super) fn publish(self: &Rc<Self>, messages: &[(u32, u64)]) -> impl Future<Output = ()> + use<> {
        let mut body = Vec::with_capacity(256 * messages.len());
        let ids = self.client.compose(&mut body, messages);
        let this = self.clone();
        async move {
            let local = &this.client.local;
            let take = |payload: &[u8]| this.client.take_in(payload, |_| {});
            if let Err(error) = pool::post(local, &body, PATIENCE, "a publish", take).await {
                local.counts.borrow_mut().request_failures += 1;
                *local.live().failure.lock() = Some(error.to_string());
                // Its place is not free at once: a server that refuses everything is not to be hammered.
                tokio::time::sleep(local.jitter(PAUSE)).await;
            }
            // Nothing is left if all were answered.
            this.client.give_up(Some(&ids));
        }
    }

    /// It is not missed any more: what its poll gets is nobody's business.
    pub(super) fn cut(&self) {
        self.leaving.set(true);
    }

    /// Says goodbye, which also ends the poll.
    pub(super) async fn leave(self: Rc<Self>) {
        self.leaving.set(true);
        if self.gone.get() {
            return;
        }
        let mut body = Vec::new();
        let (client, session) = (&self.client, self.client.session());
        client.local.shared.words.disconnect(&mut body, &session, client.next_id());
        // Who does not hear it has ended the session, or will.
        let _ = self.ask(&body, Kind::Disconnect, PATIENCE, "a disconnect").await;
    }
}
