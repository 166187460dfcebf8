//! A client on a WebSocket. Opening it is a sequence of questions; afterwards a small task reads, answers pings and
//! connects again. All sockets of a thread read into one buffer, so that an idle one holds next to no memory.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWriteExt, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::client::{Client, Role};
use super::frames::{Assembler, CLOSE, PING, PONG, TEXT, frame};
use super::http;
use super::local::{ClientError, Laps, Local, PATIENCE};
use super::words::{Answer, Kind, Reconnect};

/// The least room for a read, in bytes.
const ROOM: usize = 64 * 1024;
/// Bytes that may wait to be sent on one connection. Beyond, the server counts as not reading.
const BACKLOG: usize = 4 * 1024 * 1024;

/// How a socket stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Opening,
    Standing,
    /// It has said goodbye.
    Leaving,
    Gone,
}

/// See the module.
pub(super) struct SocketClient {
    pub client: Client,
    /// None between two connections.
    stream: RefCell<Option<TcpStream>>,
    assembler: RefCell<Assembler>,
    /// What the kernel has not taken yet.
    unsent: RefCell<Vec<u8>>,
    state: Cell<State>,
    /// The answer that is waited for, while it opens or says goodbye.
    answers: RefCell<Vec<Answer>>,
}

impl SocketClient {
    /// Connects and goes through all steps until it stands.
    pub(super) async fn open(local: &Rc<Local>, role: Role) -> Result<Rc<Self>, ClientError> {
        let mut laps = Laps::new(local);
        let (stream, rest) = dialled(local, &mut laps).await?;
        let this = Rc::new(Self {
            client: Client::new(local.clone(), role),
            stream: RefCell::new(Some(stream)),
            assembler: RefCell::default(),
            unsent: RefCell::default(),
            state: Cell::new(State::Opening),
            answers: RefCell::default(),
        });
        this.establish(&rest, false, laps).await?.record(local);
        Ok(this)
    }

    /// Connects anew after the connection broke; with the session that it had, or with another.
    pub(super) async fn reopen(self: &Rc<Self>, resumes: bool) -> Result<(), ClientError> {
        let local = self.client.local.clone();
        let mut laps = Laps::new(&local);
        // The broken one has a port, of which there are not twice as many as clients.
        self.cut();
        self.stream.take();
        let (stream, rest) = dialled(&local, &mut laps).await?;
        self.stream.replace(Some(stream));
        self.assembler.take();
        self.unsent.take();
        self.answers.take();
        self.state.set(State::Opening);
        let done = self.establish(&rest, resumes, laps).await;
        if done.is_err() {
            self.cut();
        }
        // How long it took to come back says nothing about opening connections at one's own pace.
        done.map(drop)
    }

    async fn establish(self: &Rc<Self>, rest: &[u8], resumes: bool, mut laps: Laps) -> Result<Laps, ClientError> {
        let local = self.client.local.clone();
        let words = &local.shared.words;
        self.scan(rest)?;
        if words.server_opens() {
            self.answer(Kind::Opened, "the upgrade").await?;
        }
        laps.lap(&local);
        if !resumes {
            self.handshake().await?;
        }
        laps.lap(&local);
        if !resumes {
            self.subscribe().await?;
        }
        laps.lap(&local);
        if words.connects() {
            self.first_connect().await?;
            laps.lap(&local);
        } else {
            laps.skip();
        }
        self.state.set(State::Standing);
        Ok(laps)
    }

    async fn handshake(self: &Rc<Self>) -> Result<(), ClientError> {
        self.say(|client, out| client.local.shared.words.handshake(out, client.next_id()))?;
        let answer = self.answer(Kind::Handshake, "the handshake").await?;
        match answer {
            Answer { successful: true, session, .. } => self.client.set_session(session.unwrap_or_default()),
            Answer { error, .. } => {
                return Err(ClientError::Refused("handshake", error.unwrap_or_default().into()));
            }
        }
        Ok(())
    }

    async fn subscribe(self: &Rc<Self>) -> Result<(), ClientError> {
        let channels = self.client.channels();
        for some in channels.chunks(self.client.local.shared.words.subscribe_limit()) {
            let session = self.client.session();
            self.say(|client, out| client.local.shared.words.subscribe(out, &session, client.next_id(), some))?;
            let answer = self.answer(Kind::Subscribe, "a subscribe").await?;
            if !answer.successful {
                return Err(ClientError::Refused("subscribe", answer.error.unwrap_or_default().into()));
            }
        }
        Ok(())
    }

    /// The first connect is not held. The one that follows is, and the answer to it is awaited by nobody.
    async fn first_connect(self: &Rc<Self>) -> Result<(), ClientError> {
        self.connect(true)?;
        let answer = self.answer(Kind::Connect, "the first connect").await?;
        match answer {
            Answer { successful: true, interval: 0, .. } => self.connect(false),
            Answer { successful: true, interval, .. } => {
                self.connect_after(interval);
                Ok(())
            }
            Answer { reconnect: Reconnect::Handshake, .. } => Err(ClientError::SessionGone),
            Answer { error, .. } => Err(ClientError::Refused("connect", error.unwrap_or_default().into())),
        }
    }

    fn connect(self: &Rc<Self>, at_once: bool) -> Result<(), ClientError> {
        let session = self.client.session();
        self.say(|client, out| client.local.shared.words.connect(out, &session, client.next_id(), at_once))
    }

    fn connect_after(self: &Rc<Self>, milliseconds: u64) {
        let this = self.clone();
        tokio::task::spawn_local(async move {
            tokio::time::sleep(Duration::from_millis(milliseconds)).await;
            if this.state.get() == State::Standing {
                // If this fails, the reader sees it too.
                let _ = this.connect(false);
            }
        });
    }

    /// Sends one text frame.
    fn say(self: &Rc<Self>, write: impl FnOnce(&Client, &mut Vec<u8>)) -> Result<(), ClientError> {
        let mut scratch = self.client.local.scratch.borrow_mut();
        scratch.clear();
        frame(&mut scratch, TEXT, |out| write(&self.client, out));
        Ok(self.send(&scratch)?)
    }

    /// Publishes: the stream of each message, and when it was due. False when the server does not read.
    pub(super) fn publish(self: &Rc<Self>, messages: &[(u32, u64)]) -> bool {
        let backlog = self.unsent.borrow().len();
        if self.state.get() != State::Standing || backlog > BACKLOG || !self.client.may_publish(messages.len()) {
            return false;
        }
        let mut scratch = self.client.local.scratch.borrow_mut();
        scratch.clear();
        for some in messages.chunks(self.client.local.shared.words.publish_limit()) {
            frame(&mut scratch, TEXT, |out| drop(self.client.compose(out, some)));
        }
        // If this fails, the reader sees it too, and what is not answered is not expected.
        let _ = self.send(&scratch);
        true
    }

    /// Sends as much as the kernel takes; a task of its own sends the rest.
    fn send(self: &Rc<Self>, mut bytes: &[u8]) -> io::Result<()> {
        let mut unsent = self.unsent.borrow_mut();
        if !unsent.is_empty() {
            unsent.extend_from_slice(bytes);
            return Ok(());
        }
        while !bytes.is_empty() {
            match self.try_write(bytes) {
                Ok(sent) => bytes = &bytes[sent..],
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    unsent.extend_from_slice(bytes);
                    let this = self.clone();
                    tokio::task::spawn_local(async move { this.send_rest().await });
                    return Ok(());
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn try_write(&self, bytes: &[u8]) -> io::Result<usize> {
        self.stream.borrow().as_ref().ok_or(io::ErrorKind::NotConnected)?.try_write(bytes)
    }

    async fn send_rest(self: Rc<Self>) {
        poll_fn(|cx| {
            loop {
                let ready = self.stream.borrow().as_ref().map(|stream| stream.poll_write_ready(cx));
                let Some(ready) = ready else { return Poll::Ready(()) };
                if ready!(ready).is_err() {
                    return Poll::Ready(());
                }
                let mut unsent = self.unsent.borrow_mut();
                match self.try_write(&unsent) {
                    Ok(sent) => drop(unsent.drain(..sent)),
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => continue,
                    Err(_) => return Poll::Ready(()),
                }
                if unsent.is_empty() {
                    *unsent = Vec::new();
                    return Poll::Ready(());
                }
            }
        })
        .await
    }

    /// Waits for an answer of this kind.
    async fn answer(self: &Rc<Self>, kind: Kind, what: &'static str) -> Result<Answer, ClientError> {
        let answer = poll_fn(|cx| {
            loop {
                let mut answers = self.answers.borrow_mut();
                if let Some(at) = answers.iter().position(|answer| answer.kind == kind) {
                    let answer = answers.swap_remove(at);
                    *answers = Vec::new();
                    return Poll::Ready(Ok(answer));
                }
                drop(answers);
                if let Err(error) = ready!(self.poll_read(cx)) {
                    return Poll::Ready(Err(error));
                }
            }
        });
        timeout(PATIENCE, answer).await.map_err(|_| ClientError::Late(what))?
    }

    /// Reads what is there and takes it in.
    fn poll_read(self: &Rc<Self>, cx: &mut Context<'_>) -> Poll<Result<(), ClientError>> {
        let mut buffer = self.client.local.buffer.borrow_mut();
        let held = {
            let assembler = self.assembler.borrow();
            let rest = assembler.rest();
            if buffer.len() < rest.len() + ROOM {
                buffer.resize(rest.len() + ROOM, 0);
            }
            buffer[..rest.len()].copy_from_slice(rest);
            rest.len()
        };
        let mut free = ReadBuf::new(&mut buffer[held..]);
        match self.stream.borrow_mut().as_mut() {
            Some(stream) => ready!(Pin::new(stream).poll_read(cx, &mut free))?,
            None => return Poll::Ready(Err(ClientError::Closed)),
        }
        let read = free.filled().len();
        if read == 0 {
            return Poll::Ready(Err(ClientError::Closed));
        }
        Poll::Ready(self.scan(&buffer[..held + read]))
    }

    fn scan(self: &Rc<Self>, bytes: &[u8]) -> Result<(), ClientError> {
        let mut closed = false;
        self.assembler.borrow_mut().take(bytes, |kind, payload| closed |= !self.on_message(kind, payload))?;
        if closed { Err(ClientError::Closed) } else { Ok(()) }
    }

    /// False when the server says goodbye.
    fn on_message(self: &Rc<Self>, kind: u8, payload: &[u8]) -> bool {
        let pong = |kind, payload: &[u8]| {
            let mut out = Vec::with_capacity(payload.len() + 14);
            frame(&mut out, kind, |out| out.extend_from_slice(payload));
            // If this fails, the reader sees it too.
            let _ = self.send(&out);
        };
        match kind {
            TEXT => {
                if let Some(answer) = self.client.local.shared.words.pong(payload) {
                    pong(TEXT, answer);
                } else {
                    self.client.take_in(payload, |answer| self.on_answer(answer));
                }
            }
            PING => pong(PONG, payload),
            CLOSE => return false,
            _ => {}
        }
        true
    }

    fn on_answer(self: &Rc<Self>, answer: Answer) {
        match self.state.get() {
            State::Standing if answer.kind == Kind::Connect => {
                if !answer.successful {
                    self.client.local.counts.borrow_mut().refused_sessions += 1;
                    self.client.local.failed(&ClientError::SessionGone);
                    self.state.set(State::Gone);
                } else if answer.interval == 0 {
                    // If this fails, the reader sees it too.
                    let _ = self.connect(false);
                } else {
                    self.connect_after(answer.interval);
                }
            }
            State::Leaving if answer.kind != Kind::Disconnect => {}
            State::Opening | State::Leaving => self.answers.borrow_mut().push(answer),
            State::Standing | State::Gone => {}
        }
    }

    /// Reads until the connection ends. True when nobody wanted that.
    pub(super) async fn listen(self: Rc<Self>) -> bool {
        let error = poll_fn(|cx| {
            loop {
                if let Err(error) = ready!(self.poll_read(cx)) {
                    return Poll::Ready(error);
                }
            }
        })
        .await;
        let unwanted = self.state.replace(State::Gone) == State::Standing;
        self.client.give_up(None);
        if unwanted {
            self.client.local.counts.borrow_mut().broken += 1;
            let local = &self.client.local;
            if !self.client.role.passing {
                local.live().standing.fetch_sub(1, Ordering::Relaxed);
            }
            if !self.client.role.passing && !local.shared.comes_back.load(Ordering::Relaxed) {
                local.failed(&error);
            }
        }
        unwanted
    }

    /// Whether its connection has ended.
    pub(super) fn is_gone(&self) -> bool {
        self.state.get() == State::Gone
    }

    /// Says goodbye and waits until it was heard, or there is nobody to hear it.
    pub(super) async fn left(self: &Rc<Self>) {
        if self.state.replace(State::Leaving) != State::Standing {
            self.state.set(State::Gone);
            return;
        }
        let session = self.client.session();
        // Who is gone already needs no goodbye.
        let _ = self.say(|client, out| client.local.shared.words.disconnect(out, &session, client.next_id()));
        // The reader takes the answer; that needs no wake-up of its own.
        while self.state.get() == State::Leaving && self.answers.borrow().is_empty() {
            if !self.client.local.shared.words.connects() {
                return;
            }
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
    }

    /// Ends the connection at once, without leaving a port in TIME_WAIT.
    pub(super) fn cut(&self) {
        self.state.set(State::Gone);
        // Fails only if the socket is no more.
        let _ = self.stream.borrow().as_ref().map(TcpStream::set_zero_linger);
    }
}

/// Opens a WebSocket at a random address; gives what came behind the answer, too.
async fn dialled(local: &Local, laps: &mut Laps) -> Result<(TcpStream, Vec<u8>), ClientError> {
    let (_, endpoint) = local.endpoint();
    let mut stream = local.dial(endpoint.address).await?;
    laps.lap(local);
    let path = local.shared.words.socket_path(&endpoint.path);
    let request = http::upgrade(&endpoint.host, &path);
    let rest = timeout(PATIENCE, upgraded(local, &mut stream, &request)).await;
    let rest = rest.map_err(|_| ClientError::Late("the upgrade"))??;
    let mut counts = local.counts.borrow_mut();
    if counts.first_break.is_some() && counts.accepted_again.is_none() {
        // Not earlier: the kernel still takes connections for a process that is dying.
        counts.accepted_again = Some(local.shared.now());
    }
    Ok((stream, rest))
}

/// Asks for the WebSocket; gives what came behind the answer.
async fn upgraded(local: &Local, stream: &mut TcpStream, request: &[u8]) -> Result<Vec<u8>, ClientError> {
    stream.write_all(request).await?;
    let mut held = Vec::new();
    loop {
        let more = poll_fn(|cx| {
            let mut buffer = local.buffer.borrow_mut();
            let mut free = ReadBuf::new(&mut buffer);
            ready!(Pin::new(&mut *stream).poll_read(cx, &mut free))?;
            Poll::Ready(io::Result::Ok(free.filled().to_vec()))
        });
        let more = more.await?;
        if more.is_empty() {
            return Err(ClientError::Closed);
        }
        held.extend_from_slice(&more);
        match http::status(&held)? {
            Some((101, size)) => return Ok(held.split_off(size)),
            Some((status, _)) => return Err(ClientError::Status(status)),
            None => {}
        }
    }
}
