//! The task of a client: keeps a link, a session on it, and a connect waiting; sends what the user asks for and hands
//! out what comes. States, races and bounds: `docs/rust-client.md`. Started by the builder; the only owner of all state.

mod interests;
mod links;
mod listening;
mod speaking;

use std::collections::VecDeque;
use std::future::pending;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Notify, broadcast, mpsc, oneshot, watch};
use tokio::time::{Instant, sleep_until, timeout};

use self::interests::Interests;
use super::builder::Options;
use super::error::LinkError;
use super::link::{Heard, Link, Settings};
use super::outbox::{Outbox, Outcome, Publish};
use super::session::Session;
use super::{ClientError, ClientExtension, Event, Received, Refusal, Replay, Transport};
use crate::bayeux::json::{self, Raw};
use crate::bayeux::{Message, Pattern};

/// What the user asks for.
pub(super) enum Command {
    Publish(Box<Publish>),
    Subscribe { pattern: Pattern, replay: Option<Replay>, queue: mpsc::Sender<Received>, done: Outcome },
}

/// How the client fares, for those who wait for it.
#[derive(Debug, Clone)]
pub(super) enum Status {
    /// With what went wrong last.
    Starting(Option<String>),
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
/// A link that stood for so long worked: its end is no failure.
const LASTING: Duration = Duration::from_secs(5);
/// How long saying goodbye may take.
const GOODBYE: Duration = Duration::from_secs(3);

type Opening = Pin<Box<dyn Future<Output = Result<Link, LinkError>> + Send>>;

/// See the module.
pub(super) struct Driver {
    settings: Arc<Settings>,
    options: Options,
    extensions: Vec<Arc<dyn ClientExtension>>,
    commands: mpsc::Receiver<Command>,
    /// Asks for the end: apart, as commands wait while the outbox is full.
    closing: mpsc::Receiver<oneshot::Sender<()>>,
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
    /// Sessions that were lost in a row, none of which had lasted.
    losses: u32,
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
    stood_at: Instant,
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
    /// Somebody asks for the end, or nobody is left.
    Closing(Option<oneshot::Sender<()>>),
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
        (commands, closing): (mpsc::Receiver<Command>, mpsc::Receiver<oneshot::Sender<()>>),
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
            closing,
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
            losses: 0,
            previous: None,
            handshake: None,
            handshake_at: now,
            connect: Connect::Due(now),
            retry_id: None,
            stands: false,
            stood_at: now,
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
        self.closing.close();
        let publishes = self.outbox.drain().map(|publish| publish.done).collect::<Vec<_>>();
        for done in publishes.into_iter().chain(self.interests.drain()) {
            // Who does not wait any more need not know.
            let _ = done.send(Err(error.clone()));
        }
        while let Ok(command) = self.commands.try_recv() {
            match command {
                Command::Publish(publish) => drop(publish.done.send(Err(error.clone()))),
                Command::Subscribe { done, .. } => drop(done.send(Err(error.clone()))),
            }
        }
        self.tell(Event::Stopped { reason });
        while let Ok(done) = self.closing.try_recv() {
            let _ = done.send(());
        }
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
                Happened::Closing(done) => Some(End::Closed(done)),
                // Without commands there are no handles: `closing` says so, too.
                Happened::Command(None) => Some(End::Closed(None)),
                Happened::Command(Some(command)) => {
                    self.take(command);
                    None
                }
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
            self.upgrading = Some(self.open_proven());
        }
        let next = self.next_time();
        let full = self.full.last();
        tokio::select! {
            heard = hear(&mut self.link), if self.waiting.len() < WAITING => Happened::Heard(heard),
            opened = run(&mut self.opening) => Happened::Opened(opened),
            upgraded = run(&mut self.upgrading) => Happened::Upgraded(upgraded),
            () = room(full) => Happened::Room,
            () = self.gone.notified() => Happened::Gone,
            done = self.closing.recv() => Happened::Closing(done),
            command = self.commands.recv(), if self.outbox.has_room() => Happened::Command(command),
            () = sleep_until(next) => Happened::Time,
        }
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

    /// Takes in what the user wants.
    fn take(&mut self, command: Command) {
        match command {
            Command::Publish(publish) => self.outbox.push(*publish),
            // Who has dropped it meanwhile has been told to the sweep already.
            Command::Subscribe { queue, .. } if queue.is_closed() => {}
            Command::Subscribe { pattern, replay, queue, done } => self.interests.add(pattern, replay, queue, done),
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
