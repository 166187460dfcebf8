//! The floor of long-polling: sessions, their polls that are held, and what waits for those that do not poll just now.
//! `floor` reads and writes.

use std::collections::HashMap;

use anyhow::{Context, Result, ensure};
use mio::Token;

use super::Incoming;
use super::wire::response;

/// Messages that may wait for a session.
const WAITING: usize = 100_000;

/// What is to be written, and where to.
pub type Writes = Vec<(Token, Vec<u8>)>;

/// All sessions; one is known by its place in the list.
#[derive(Default)]
pub struct Polls {
    sessions: Vec<Session>,
    rooms: HashMap<String, Vec<usize>>,
    /// Whose poll a connection holds.
    held: HashMap<Token, usize>,
}

#[derive(Default)]
struct Session {
    /// Whether its first connect was answered.
    connected: bool,
    /// The connection that its poll came on, and the reply to be.
    held: Option<(Token, String)>,
    waiting: Vec<String>,
}

impl Polls {
    /// A request: adds what is to be written for it.
    pub fn obey(&mut self, token: Token, body: &[u8], writes: &mut Writes) -> Result<()> {
        let messages: Vec<Incoming<'_>> = serde_json::from_slice(body)?;
        let mut replies = Vec::new();
        for Incoming { channel, id, client, data, subscription } in messages {
            let id = id.map_or_else(String::new, |id| format!(r#","id":{}"#, id.get()));
            let reply = |more: &str| format!(r#"{{"channel":"{channel}","successful":true{id}{more}}}"#);
            let session = client.and_then(|client| client.strip_prefix("floor")?.parse::<usize>().ok());
            let known = session.filter(|session| *session < self.sessions.len()).context("no session");
            match channel {
                "/meta/handshake" => {
                    let advice = r#""advice":{"reconnect":"retry","interval":0,"timeout":3600000}"#;
                    let types = r#""version":"1.0","supportedConnectionTypes":["long-polling"]"#;
                    replies.push(reply(&format!(r#","clientId":"floor{:027}",{types},{advice}"#, self.sessions.len())));
                    self.sessions.push(Session::default());
                }
                "/meta/subscribe" => {
                    let room = subscription.context("no subscription")?;
                    self.rooms.entry(room.to_owned()).or_default().push(known?);
                    replies.push(reply(&format!(r#","subscription":"{room}""#)));
                }
                "/meta/connect" => {
                    let number = known?;
                    let session = &mut self.sessions[number];
                    if !std::mem::replace(&mut session.connected, true) || !session.waiting.is_empty() {
                        replies.push(reply(""));
                        replies.append(&mut session.waiting);
                    } else {
                        session.held = Some((token, reply("")));
                        self.held.insert(token, number);
                    }
                }
                "/meta/disconnect" => {
                    if let Some((token, reply)) = self.sessions[known?].held.take() {
                        self.held.remove(&token);
                        writes.push((token, response(&[reply])));
                    }
                    replies.push(reply(""));
                }
                _ if channel.starts_with("/meta/") => replies.push(reply("")),
                room => {
                    let data = data.context("no data")?.get();
                    self.publish(room, &format!(r#"{{"channel":"{room}","data":{data}}}"#), writes)?;
                    replies.push(reply(""));
                }
            }
        }
        if !replies.is_empty() {
            writes.push((token, response(&replies)));
        }
        Ok(())
    }

    fn publish(&mut self, room: &str, message: &str, writes: &mut Writes) -> Result<()> {
        for member in self.rooms.get(room).into_iter().flatten() {
            let session = &mut self.sessions[*member];
            match session.held.take() {
                Some((token, reply)) => {
                    self.held.remove(&token);
                    writes.push((token, response(&[reply, message.to_owned()])));
                }
                None => {
                    ensure!(session.waiting.len() < WAITING, "a client does not poll");
                    session.waiting.push(message.to_owned());
                }
            }
        }
        Ok(())
    }

    /// A connection is closed: what it held is not answered.
    pub fn gone(&mut self, token: Token) {
        if let Some(number) = self.held.remove(&token) {
            // Another connection's connect may have taken its place.
            self.sessions[number].held.take_if(|(held, _)| *held == token);
        }
    }
}
