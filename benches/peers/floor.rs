//! The machine's floor: what it costs to write the same WebSocket frame to many sockets, or to answer their polls, and
//! nothing else.
//!
//! One thread, one `epoll`. It knows just enough Bayeux that the load generator takes it for a server: every session is
//! welcome, a channel is a list of sockets, nothing is stored, confirmed or checked. A message is framed once. What one
//! read of a publisher brought is written to each subscriber in one call. `peers` runs it in a process of its own.

mod polls;
mod wire;

use std::collections::HashMap;
use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr};

use anyhow::{Context, Result};
use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Token};
use nix::sys::socket::Backlog;
use serde::Deserialize;
use serde_json::value::RawValue;

use self::polls::{Polls, Writes};
use self::wire::{Frame, frame, take_frame, take_post, take_upgrade};

const LISTENER: Token = Token(usize::MAX);
const READ: usize = 64 * 1024;
/// A client that leaves so many bytes unread is cut off.
const UNSENT: usize = 64 << 20;

/// Serves for ever. Prints a line of JSON (url, pid) when it does.
pub fn serve(port: u16) -> Result<()> {
    let mut floor = Floor::new(port)?;
    println!("{}", serde_json::json!({ "url": floor.url()?, "pid": std::process::id() }));
    floor.run()
}

struct Floor {
    poll: Poll,
    listener: TcpListener,
    connections: HashMap<Token, Connection>,
    rooms: HashMap<String, Vec<Token>>,
    polls: Polls,
    next: usize,
    buffer: Vec<u8>,
}

struct Connection {
    tcp: TcpStream,
    upgraded: bool,
    /// Whether its first connect was answered. All later ones are held until the end.
    connected: bool,
    /// The beginning of a request or frame.
    unread: Vec<u8>,
    /// What the kernel did not take yet.
    unsent: Vec<u8>,
}

/// What of a message counts here.
#[derive(Deserialize)]
struct Incoming<'a> {
    channel: &'a str,
    #[serde(borrow)]
    id: Option<&'a RawValue>,
    #[serde(rename = "clientId")]
    client: Option<&'a str>,
    #[serde(borrow)]
    data: Option<&'a RawValue>,
    subscription: Option<&'a str>,
}

/// What the messages of one read make due.
#[derive(Default)]
struct Due {
    replies: Vec<u8>,
    rooms: Vec<(String, Vec<u8>)>,
    answers: Writes,
}

impl Floor {
    fn new(port: u16) -> Result<Self> {
        rlimit::increase_nofile_limit(u64::MAX).context("cannot raise the file limit")?;
        let poll = Poll::new()?;
        let mut listener = TcpListener::bind(SocketAddr::from((Ipv4Addr::LOCALHOST, port)))?;
        // As many may wait as the system allows, not 128: thousands come at once.
        nix::sys::socket::listen(&listener, Backlog::MAXCONN)?;
        poll.registry().register(&mut listener, LISTENER, Interest::READABLE)?;
        let (connections, rooms) = (HashMap::new(), HashMap::new());
        let (polls, buffer) = (Polls::default(), vec![0; READ]);
        Ok(Self { poll, listener, connections, rooms, polls, next: 0, buffer })
    }

    fn url(&self) -> Result<String> {
        Ok(format!("http://{}/bayeux", self.listener.local_addr()?))
    }

    fn run(&mut self) -> Result<()> {
        let mut events = Events::with_capacity(1024);
        loop {
            match self.poll.poll(&mut events, None) {
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                result => result?,
            }
            for event in &events {
                let token = event.token();
                if token == LISTENER {
                    self.accept()?;
                    continue;
                }
                // Whatever goes wrong with a client ends that client.
                let alive = (!event.is_writable() || self.write(token, &[]).is_ok())
                    && (!event.is_readable() || self.read(token).is_ok());
                if !alive {
                    self.drop(token);
                }
            }
        }
    }

    fn accept(&mut self) -> Result<()> {
        loop {
            let mut tcp = match self.listener.accept() {
                Ok((tcp, _)) => tcp,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error).context("cannot accept"),
            };
            tcp.set_nodelay(true)?;
            let token = Token(self.next);
            self.next += 1;
            self.poll.registry().register(&mut tcp, token, Interest::READABLE)?;
            let (unread, unsent) = (Vec::new(), Vec::new());
            self.connections.insert(token, Connection { tcp, upgraded: false, connected: false, unread, unsent });
        }
    }

    fn drop(&mut self, token: Token) {
        self.connections.remove(&token);
        self.polls.gone(token);
        for room in self.rooms.values_mut() {
            room.retain(|member| *member != token);
        }
    }

    /// Reads until nothing is left, and does what it says. An error means that the connection is over.
    fn read(&mut self, token: Token) -> Result<()> {
        loop {
            let connection = self.connections.get_mut(&token).context("gone")?;
            let count = match connection.tcp.read(&mut self.buffer) {
                Ok(0) => anyhow::bail!("closed"),
                Ok(count) => count,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) => return Err(error.into()),
            };
            let mut bytes = std::mem::take(&mut connection.unread);
            bytes.extend_from_slice(&self.buffer[..count]);
            let due = self.understand(token, &mut bytes)?;
            // Not the end of it: what is left waits for its rest.
            self.connections.get_mut(&token).context("gone")?.unread = bytes;
            self.send(token, due)?;
            if count < self.buffer.len() {
                return Ok(());
            }
        }
    }

    /// Takes all that is complete off the front of `bytes`.
    fn understand(&mut self, token: Token, bytes: &mut Vec<u8>) -> Result<Due> {
        let mut due = Due::default();
        let connection = self.connections.get_mut(&token).context("gone")?;
        if !connection.upgraded && bytes.starts_with(b"POST") {
            while let Some((length, body)) = take_post(bytes)? {
                self.polls.obey(token, &bytes[body], &mut due.answers)?;
                bytes.drain(..length);
            }
            return Ok(due);
        }
        if !connection.upgraded {
            let Some(response) = take_upgrade(bytes)? else { return Ok(due) };
            connection.upgraded = true;
            due.replies.extend(response);
        }
        let mut taken = 0;
        while let Some((length, kind)) = take_frame(&mut bytes[taken..])? {
            match kind {
                Frame::Text(payload) => {
                    let payload = &bytes[taken..][payload];
                    self.obey(token, payload, &mut due)?;
                }
                Frame::Ping(payload) => frame(&mut due.replies, 0x8a, &bytes[taken..][payload]),
                Frame::Pong => {}
                Frame::Close => anyhow::bail!("closed"),
            }
            taken += length;
        }
        bytes.drain(..taken);
        Ok(due)
    }

    /// One frame of messages.
    fn obey(&mut self, token: Token, payload: &[u8], due: &mut Due) -> Result<()> {
        let messages: Vec<Incoming<'_>> = serde_json::from_slice(payload)?;
        let mut replies = String::new();
        for message in messages {
            let Incoming { channel, id, data, subscription, .. } = message;
            let more = match channel {
                "/meta/handshake" => {
                    let advice = r#""advice":{"reconnect":"retry","interval":0,"timeout":3600000}"#;
                    let types = r#""version":"1.0","supportedConnectionTypes":["websocket"]"#;
                    format!(r#","clientId":"floor{:027}",{types},{advice}"#, token.0)
                }
                "/meta/subscribe" => {
                    let room = subscription.context("no subscription")?;
                    self.rooms.entry(room.to_owned()).or_default().push(token);
                    format!(r#","subscription":"{room}""#)
                }
                "/meta/connect" => {
                    let connection = self.connections.get_mut(&token).context("gone")?;
                    if std::mem::replace(&mut connection.connected, true) {
                        continue;
                    }
                    String::new()
                }
                _ if channel.starts_with("/meta/") => String::new(),
                room => {
                    let data = data.context("no data")?.get();
                    let text = format!(r#"[{{"channel":"{room}","data":{data}}}]"#);
                    frame(due.room(room), 0x81, text.as_bytes());
                    String::new()
                }
            };
            let id = id.map_or_else(String::new, |id| format!(r#","id":{}"#, id.get()));
            let comma = if replies.is_empty() { "" } else { "," };
            replies += &format!(r#"{comma}{{"channel":"{channel}","successful":true{id}{more}}}"#);
        }
        if !replies.is_empty() {
            frame(&mut due.replies, 0x81, format!("[{replies}]").as_bytes());
        }
        Ok(())
    }

    fn send(&mut self, token: Token, due: Due) -> Result<()> {
        for (room, frames) in due.rooms {
            let Some(members) = self.rooms.remove(&room) else { continue };
            let dead: Vec<_> =
                members.iter().filter(|member| self.write(**member, &frames).is_err()).copied().collect();
            self.rooms.insert(room, members);
            for member in dead {
                self.drop(member);
            }
        }
        for (member, answer) in due.answers {
            match self.write(member, &answer) {
                Err(error) if member == token => return Err(error),
                Err(_) => self.drop(member),
                Ok(()) => {}
            }
        }
        if due.replies.is_empty() { Ok(()) } else { self.write(token, &due.replies) }
    }

    /// Writes what waits, and this. What the kernel does not take waits until it does.
    fn write(&mut self, token: Token, bytes: &[u8]) -> Result<()> {
        let Some(Connection { tcp, unsent, .. }) = self.connections.get_mut(&token) else { return Ok(()) };
        let waited = !unsent.is_empty();
        if waited {
            anyhow::ensure!(unsent.len() + bytes.len() <= UNSENT, "the client does not read");
            unsent.extend_from_slice(bytes);
            let written = write_some(tcp, unsent)?;
            unsent.drain(..written);
        } else {
            let written = write_some(tcp, bytes)?;
            unsent.extend_from_slice(&bytes[written..]);
        }
        match (waited, unsent.is_empty()) {
            (false, false) => {
                self.poll.registry().reregister(tcp, token, Interest::READABLE | Interest::WRITABLE)?;
            }
            (true, true) => self.poll.registry().reregister(tcp, token, Interest::READABLE)?,
            _ => {}
        }
        Ok(())
    }
}

impl Due {
    fn room(&mut self, name: &str) -> &mut Vec<u8> {
        let index = self.rooms.iter().position(|(room, _)| room == name).unwrap_or_else(|| {
            self.rooms.push((name.to_owned(), Vec::new()));
            self.rooms.len() - 1
        });
        &mut self.rooms[index].1
    }
}

/// Writes as much as the kernel takes now.
fn write_some(tcp: &mut TcpStream, bytes: &[u8]) -> Result<usize> {
    let mut written = 0;
    while written < bytes.len() {
        match tcp.write(&bytes[written..]) {
            Ok(count) => written += count,
            Err(error) if error.kind() == ErrorKind::WouldBlock => break,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(written)
}
