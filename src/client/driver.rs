//! The task of a client: keeps a link, a session on it, and a connect waiting; sends what the user asks for and hands
//! out what comes. States, races and bounds: `docs/rust-client.md`. Started by the builder; the only owner of all state.

mod interests;

use std::collections::VecDeque;
use std::future::pending;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{Notify, broadcast, mpsc, oneshot, watch};
use tokio::time::{Instant, sleep_until, timeout};

use self::interests::Interests;
use super::builder::Options;
use super::error::LinkError;
use super::link::{Batch, Heard, Link, Polling, Settings, Socket};
use super::outbox::{Outbox, Outcome, Publish};
use super::session::{Begun, Session};
use super::{ClientError, ClientExtension, Event, Received, Refusal, Replay, Transport};
use crate::bayeux::json::{self, Raw};
use crate::bayeux::{Channel, Message, Pattern, Reconnect};

/// What the user asks for.
pub(super) enum Command {
    Publish(Box<Publish>),
    Subscribe { pattern: Pattern, replay: Option<Replay>, queue: mpsc::Sender<Received>, done: Outcome },
    Close(oneshot::Sender<()>),
}

/// How the client fares, for those who wait for it.
#[derive(Debug, Clone)]
pub(super) enum Status {
    Starting,
    Connected {
        session: String,
        transport: Transport,
    },
    /// The first handshake was refused. It is tried again all the same.
    Refused(Refusal),
    Ended(ClientError),
}

/// Messages that were received and have no place yet. Beyond, the link is not read.
const WAITING: usize = 256;
/// Bytes of one batch, roughly.
const BATCH_BYTES: usize = 64 * 1024;
/// Messages of one batch. Servers have limits.
const BATCH_MESSAGES: usize = 100;
/// Sockets that break in a row without an answered connect, before long-polling is tried.
const SOCKET_FAILURES: u32 = 3;
/// How long saying goodbye may take.
const GOODBYE: Duration = Duration::from_secs(3);

type Opening = Pin<Box<dyn Future<Output = Result<Link, LinkError>> + Send>>;

/// See the module.
pub(super) struct Driver {
    settings: Arc<Settings>,
    options: Options,
    extensions: Vec<Arc<dyn ClientExtension>>,
    commands: mpsc::Receiver<Command>,
    events: broadcast::Sender<Event>,
    status: watch::Sender<Status>,
    gone: Arc<Notify>,

    link: Option<Link>,
    opening: Option<Opening>,
    /// A better link, opened beside the one in use.
    upgrading: Option<Opening>,
    /// When to try for a better link.
    upgrade_at: Option<Instant>,
    upgrade_pause: Duration,
    /// Sockets that failed in a row.
    socket_failures: u32,
    /// Without a link: when to open one.
    open_at: Instant,
    /// Failures in a row.
    failures: u32,

    session: Session,
    /// The id of the last session, if there was one.
    previous: Option<String>,
    handshake: Option<Asked>,
    handshake_at: Instant,
    connect: Connect,
    /// The connect that was not answered: it is sent again under its id, which tells a server that knows no positions that
    /// nothing of it arrived.
    retry_id: Option<u64>,
    /// A connect was answered over the link in use.
    stands: bool,
    /// A new session goes on where the last one ended, as far as is known.
    recovered: bool,
    interests: Interests,
    outbox: Outbox,
    last_id: u64,

    waiting: VecDeque<Received>,
    /// Who has no room for the message at the front of `waiting`.
    full: Vec<mpsc::Sender<Received>>,
}

/// Something is under way.
#[derive(Debug, Clone, Copy)]
struct Asked {
    id: u64,
    deadline: Instant,
}

/// The connect that shall always be under way.
#[derive(Debug)]
enum Connect {
    Due(Instant),
    Asked(Asked),
}

/// What a turn of the loop begins with.
enum Happened {
    Command(Option<Command>),
    Heard(Result<Heard, LinkError>),
    Opened(Result<Link, LinkError>),
    Upgraded(Result<Link, LinkError>),
    /// There is room in a queue.
    Room,
    /// A subscription was dropped.
    Gone,
    Time,
}

/// Why the driver ends.
enum End {
    Closed(Option<oneshot::Sender<()>>),
    Stopped(String),
}

impl Driver {
    pub(super) fn new(
        settings: Settings,
        options: Options,
        extensions: Vec<Arc<dyn ClientExtension>>,
        commands: mpsc::Receiver<Command>,
        events: broadcast::Sender<Event>,
        status: watch::Sender<Status>,
        gone: Arc<Notify>,
    ) -> Self {
        let now = Instant::now();
        Self {
            settings: Arc::new(settings),
            session: Session::new(options.resume),
            upgrade_pause: options.upgrade,
            options,
            extensions,
            commands,
            events,
            status,
            gone,
            link: None,
            opening: None,
            upgrading: None,
            upgrade_at: None,
            socket_failures: 0,
            open_at: now,
            failures: 0,
            previous: None,
            handshake: None,
            handshake_at: now,
            connect: Connect::Due(now),
            retry_id: None,
            stands: false,
            recovered: false,
            interests: Interests::default(),
            outbox: Outbox::default(),
            last_id: 0,
            waiting: VecDeque::new(),
            full: Vec::new(),
        }
    }

    /// Runs until the client ends.
    pub(super) async fn run(mut self) {
        let (error, reason, done) = match self.work().await {
            End::Closed(done) => {
                // A server that is away learns it by the session's time-out.
                let _ = timeout(GOODBYE, self.say_goodbye()).await;
                (ClientError::Closed, "closed".to_owned(), done)
            }
            End::Stopped(reason) => (ClientError::Stopped(reason.clone()), reason, None),
        };
        self.status.send_replace(Status::Ended(error.clone()));
        self.commands.close();
        let publishes = self.outbox.drain().map(|publish| publish.done).collect::<Vec<_>>();
        for done in publishes.into_iter().chain(self.interests.drain()) {
            // Who does not wait any more need not know.
            let _ = done.send(Err(error.clone()));
        }
        while let Ok(command) = self.commands.try_recv() {
            match command {
                Command::Publish(publish) => drop(publish.done.send(Err(error.clone()))),
                Command::Subscribe { done, .. } => drop(done.send(Err(error.clone()))),
                Command::Close(done) => drop(done.send(())),
            }
        }
        self.tell(Event::Stopped { reason });
        if let Some(done) = done {
            let _ = done.send(());
        }
    }

    async fn work(&mut self) -> End {
        loop {
            self.hand_out();
            if let Err(error) = self.speak() {
                self.link_lost(&error);
            }
            let happened = self.wait().await;
            let end = match happened {
                Happened::Command(None) => Some(End::Closed(None)),
                Happened::Command(Some(command)) => self.take(command),
                Happened::Heard(Ok(Heard::Messages(messages))) => self.listen(messages),
                Happened::Heard(Ok(Heard::Refused(status))) => {
                    self.batch_refused(Refusal::new(status, "HTTP status"), &LinkError::Status(status));
                    None
                }
                Happened::Heard(Err(LinkError::TooLarge)) => {
                    let refusal = Refusal::new(413, "Too large for the server");
                    self.batch_refused(refusal, &LinkError::TooLarge);
                    None
                }
                Happened::Heard(Err(error)) => {
                    self.link_lost(&error);
                    None
                }
                Happened::Opened(opened) => {
                    self.opening = None;
                    match opened {
                        Ok(link) => self.begin(link),
                        Err(error) => self.not_opened(&error),
                    }
                    None
                }
                Happened::Upgraded(opened) => {
                    self.upgrading = None;
                    match opened {
                        // The old one goes; what it was asked is asked again.
                        Ok(link) => self.begin(link),
                        Err(_) => self.upgrade_later(),
                    }
                    None
                }
                Happened::Room => None,
                Happened::Gone => {
                    self.interests.sweep();
                    None
                }
                Happened::Time => {
                    self.on_time();
                    None
                }
            };
            if let Some(end) = end {
                return end;
            }
        }
    }

    /// Waits for the next thing to happen. Every branch is cancel-safe.
    async fn wait(&mut self) -> Happened {
        let now = Instant::now();
        if self.link.is_none() && self.opening.is_none() && self.open_at <= now {
            self.opening = Some(self.open(self.choose()));
        }
        if self.upgrading.is_none() && self.upgrade_at.is_some_and(|at| at <= now) {
            self.upgrade_at = None;
            self.upgrading = Some(self.open(Transport::WebSocket));
        }
        let next = self.next_time();
        let full = self.full.last();
        tokio::select! {
            heard = hear(&mut self.link), if self.waiting.len() < WAITING => Happened::Heard(heard),
            opened = run(&mut self.opening) => Happened::Opened(opened),
            upgraded = run(&mut self.upgrading) => Happened::Upgraded(upgraded),
            () = room(full) => Happened::Room,
            () = self.gone.notified() => Happened::Gone,
            command = self.commands.recv(), if self.outbox.has_room() => Happened::Command(command),
            () = sleep_until(next) => Happened::Time,
        }
    }

    fn open(&self, transport: Transport) -> Opening {
        let settings = self.settings.clone();
        match transport {
            Transport::WebSocket => Box::pin(async move { Ok(Link::Socket(Box::new(Socket::open(&settings).await?))) }),
            Transport::LongPolling => Box::pin(async move { Ok(Link::Polling(Box::new(Polling::new(settings)))) }),
        }
    }

    /// The first transport, unless it is a socket that does not work here.
    fn choose(&self) -> Transport {
        let usable = |transport: &&Transport| {
            **transport != Transport::WebSocket
                || self.socket_failures < SOCKET_FAILURES
                || self.options.transports.len() == 1
        };
        self.options.transports.iter().find(usable).copied().unwrap_or(Transport::LongPolling)
    }

    /// A link stands: whatever is not answered is asked again over it.
    fn begin(&mut self, link: Link) {
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

    fn upgrade_later(&mut self) {
        self.upgrade_pause = (self.upgrade_pause * 2).min(self.options.upgrade * 10);
        let chance = 0.75 + fastrand::f64() / 2.0;
        self.upgrade_at = Some(Instant::now() + self.upgrade_pause.mul_f64(chance));
    }

    fn ask_again(&mut self) {
        if let Connect::Asked(asked) = &self.connect {
            self.retry_id = Some(asked.id);
        }
        self.connect = Connect::Due(Instant::now());
        self.handshake = None;
        self.interests.ask_again();
        self.outbox.send_again();
    }

    /// The link is no more.
    fn link_lost(&mut self, error: &LinkError) {
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

    fn not_opened(&mut self, error: &LinkError) {
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
    fn failed(&mut self, reason: String) {
        self.failures += 1;
        let pause = self.options.backoff.pause(self.failures, fastrand::f64());
        self.open_at = Instant::now() + pause;
        tracing::debug!(%reason, attempt = self.failures, ?pause, "no link");
        self.tell(Event::Retry { attempt: self.failures, pause, reason });
    }

    /// HTTP, or a close, refused a whole batch: find out what is to blame.
    fn batch_refused(&mut self, refusal: Refusal, error: &LinkError) {
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
    fn not_welcome(&self, refusal: &Refusal) {
        self.status.send_if_modified(|status| {
            let starting = matches!(status, Status::Starting);
            if starting {
                *status = Status::Refused(refusal.clone());
            }
            starting
        });
    }

    /// When something is due, at the latest.
    fn next_time(&self) -> Instant {
        let connect = match &self.connect {
            Connect::Due(at) => *at,
            Connect::Asked(asked) => asked.deadline,
        };
        let session = if self.session.id.is_some() {
            Some(connect)
        } else {
            Some(self.handshake.map_or(self.handshake_at, |asked| asked.deadline))
        };
        let times = [
            session.filter(|_| self.link.is_some()),
            (self.link.is_none() && self.opening.is_none()).then_some(self.open_at),
            self.upgrade_at.filter(|_| self.upgrading.is_none()),
            self.outbox.deadline(),
            self.interests.deadline().filter(|_| self.link.is_some()),
        ];
        let far = Instant::now() + Duration::from_secs(3600);
        times.into_iter().flatten().fold(far, Instant::min)
    }

    fn on_time(&mut self) {
        let now = Instant::now();
        while let Some(publish) = self.outbox.expired(now) {
            let _ = publish.done.send(Err(ClientError::TimedOut));
        }
        let late = |asked: &Asked| asked.deadline <= now;
        let silent = self.handshake.as_ref().is_some_and(late)
            || matches!(&self.connect, Connect::Asked(asked) if late(asked))
            || self.interests.deadline().is_some_and(|deadline| deadline <= now);
        if silent {
            self.link_lost(&LinkError::Late("a message to the server"));
        }
    }

    /// Sends whatever is due.
    fn speak(&mut self) -> Result<(), LinkError> {
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
    fn send(&mut self, messages: Vec<Message>, hold: Option<Duration>) -> Result<(), LinkError> {
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

    fn next_id(&mut self) -> u64 {
        self.last_id += 1;
        self.last_id
    }

    /// Takes in what the user wants.
    fn take(&mut self, command: Command) -> Option<End> {
        match command {
            Command::Publish(publish) => self.outbox.push(*publish),
            Command::Subscribe { pattern, replay, queue, done } => self.interests.add(pattern, replay, queue, done),
            Command::Close(done) => return Some(End::Closed(Some(done))),
        }
        None
    }

    /// Takes in what the server says.
    fn listen(&mut self, messages: Vec<Message>) -> Option<End> {
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
        self.stands = true;
        self.failures = 0;
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
        // A server that gives sessions and takes them away again is not asked in a tight loop.
        let pause = if self.stands {
            Duration::ZERO
        } else {
            self.failures += 1;
            self.options.backoff.pause(self.failures, fastrand::f64())
        };
        self.stands = false;
        self.handshake_at = Instant::now() + pause.max(self.session.advised.interval);
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
    fn hand_out(&mut self) {
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

    async fn say_goodbye(&mut self) {
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

    fn tell(&self, event: Event) {
        // Nobody has to listen.
        let _ = self.events.send(event);
    }
}

/// Whether a refusal means that the server does not know the session. Faye's server says so without advice.
fn unknown_session(reply: &Message, refusal: &Refusal) -> bool {
    let advice = json::member(reply.advice.as_deref(), "reconnect").and_then(json::string);
    advice.as_deref() == Some("handshake") || (refusal.code == 401 && refusal.text.contains("nknown client"))
}

fn is(reply: &Message, id: &str) -> bool {
    reply.id.as_deref().and_then(json::string).is_some_and(|theirs| theirs == id)
}

fn number(id: u64) -> Raw {
    json::quote(&id.to_string())
}

async fn hear(link: &mut Option<Link>) -> Result<Heard, LinkError> {
    match link {
        Some(link) => link.hear().await,
        None => pending().await,
    }
}

async fn run(opening: &mut Option<Opening>) -> Result<Link, LinkError> {
    match opening {
        Some(opening) => opening.await,
        None => pending().await,
    }
}

/// Waits until there is room in a queue, or nobody to read it.
async fn room(queue: Option<&mpsc::Sender<Received>>) {
    match queue {
        // The place is given back: it is taken when the message is handed out.
        Some(queue) => drop(queue.reserve().await),
        None => pending().await,
    }
}
