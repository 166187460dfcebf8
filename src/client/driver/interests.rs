//! What the user is subscribed to, and what of it the server knows. Pure; used by the driver.

use std::collections::{BTreeMap, HashMap};

use tokio::sync::mpsc;
use tokio::time::Instant;

use crate::bayeux::{Channel, Message, Pattern, json};
use crate::client::outbox::Outcome;
use crate::client::session::Session;
use crate::client::{ClientError, Received, Refusal, Replay};

/// Where a subscription stands with the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// It must be told.
    New,
    /// It was told, in this message, and has to answer until then.
    Asked(u64, Instant),
    Active,
}

#[derive(Debug)]
struct Interest {
    pattern: Pattern,
    /// From where, when it is told for the first time.
    replay: Option<Replay>,
    state: State,
    /// The server has accepted it before.
    proven: bool,
    queues: Vec<mpsc::Sender<Received>>,
    waiting: Vec<Outcome>,
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Interests {
    wanted: HashMap<String, Interest>,
    /// No longer wanted, which the server must be told. Before anything else: it may be wanted again.
    leaving: BTreeMap<String, Option<(u64, Instant)>>,
}

impl Interests {
    /// One more who wants this.
    pub(super) fn add(
        &mut self,
        pattern: Pattern,
        replay: Option<Replay>,
        queue: mpsc::Sender<Received>,
        done: Outcome,
    ) {
        let name = pattern.as_str().to_owned();
        let interest = self.wanted.entry(name).or_insert_with(|| Interest {
            pattern,
            replay,
            state: State::New,
            proven: false,
            queues: Vec::new(),
            waiting: Vec::new(),
        });
        interest.queues.push(queue);
        if interest.state == State::Active {
            // Who does not wait any more need not know.
            let _ = done.send(Ok(()));
        } else {
            interest.waiting.push(done);
        }
    }

    /// Forgets who is gone.
    pub(super) fn sweep(&mut self) {
        let leaving = &mut self.leaving;
        self.wanted.retain(|name, interest| {
            interest.queues.retain(|queue| !queue.is_closed());
            let wanted = !interest.queues.is_empty();
            if !wanted && interest.state != State::New {
                leaving.insert(name.clone(), None);
            }
            wanted
        });
    }

    /// The next thing that the server must be told, without session and id.
    pub(super) fn next(&mut self, id: u64, deadline: Instant, session: &mut Session) -> Option<Message> {
        if let Some((name, asked)) = self.leaving.iter_mut().find(|(_, asked)| asked.is_none()) {
            *asked = Some((id, deadline));
            session.unsubscribed(name);
            return Some(about("/meta/unsubscribe", name));
        }
        let (name, interest) = self.wanted.iter_mut().find(|(_, interest)| interest.state == State::New)?;
        interest.state = State::Asked(id, deadline);
        // What was replayed once is not replayed again after a gap.
        let replay = interest.replay.filter(|_| !interest.proven);
        Some(Message { ext: session.subscribe_ext(name, replay), ..about("/meta/subscribe", name) })
    }

    /// The earliest moment at which an answer is overdue.
    pub(super) fn deadline(&self) -> Option<Instant> {
        let asked = self.wanted.values().filter_map(|interest| match interest.state {
            State::Asked(_, deadline) => Some(deadline),
            _ => None,
        });
        asked.chain(self.leaving.values().flatten().map(|(_, deadline)| *deadline)).min()
    }

    /// Nothing that is not answered counts.
    pub(super) fn ask_again(&mut self) {
        for interest in self.wanted.values_mut() {
            if matches!(interest.state, State::Asked(..)) {
                interest.state = State::New;
            }
        }
        self.leaving.values_mut().for_each(|asked| *asked = None);
    }

    /// A new session: what it does not know must be told.
    pub(super) fn renew(&mut self, session: &Session) {
        for (name, interest) in &mut self.wanted {
            // Who left it and wants it again gets a new beginning.
            let goes_on = session.has(name) && !self.leaving.contains_key(name);
            interest.state = if goes_on { State::Active } else { State::New };
            if interest.state == State::Active {
                interest.waiting.drain(..).for_each(|done| drop(done.send(Ok(()))));
            }
        }
        self.leaving.retain(|name, asked| {
            *asked = None;
            session.has(name)
        });
    }

    /// Which subscription was asked for in this message.
    pub(super) fn asked(&self, id: u64) -> Option<String> {
        let is = |interest: &Interest| matches!(interest.state, State::Asked(asked, _) if asked == id);
        self.wanted.iter().find(|(_, interest)| is(interest)).map(|(name, _)| name.clone())
    }

    /// An unsubscribe was answered, one way or the other.
    pub(super) fn left(&mut self, id: u64) {
        self.leaving.retain(|_, asked| asked.is_none_or(|(asked, _)| asked != id));
    }

    pub(super) fn accepted(&mut self, name: &str) {
        if let Some(interest) = self.wanted.get_mut(name) {
            (interest.state, interest.proven) = (State::Active, true);
            interest.waiting.drain(..).for_each(|done| drop(done.send(Ok(()))));
        }
    }

    /// The server does not want it. True when it had accepted it before.
    pub(super) fn refused(&mut self, name: &str, refusal: &Refusal) -> bool {
        let Some(interest) = self.wanted.remove(name) else { return false };
        for done in interest.waiting {
            let _ = done.send(Err(ClientError::Refused(refusal.clone())));
        }
        interest.proven
    }

    /// Who wants messages of this channel.
    pub(super) fn matching(&self, channel: &Channel) -> Vec<mpsc::Sender<Received>> {
        let matching = self.wanted.values().filter(|interest| interest.pattern.matches(channel));
        matching.flat_map(|interest| interest.queues.iter().cloned()).collect()
    }

    /// Everybody goes; who still waits for an answer is returned.
    pub(super) fn drain(&mut self) -> Vec<Outcome> {
        self.wanted.drain().flat_map(|(_, interest)| interest.waiting).collect()
    }
}

fn about(channel: &str, name: &str) -> Message {
    Message { channel: channel.to_owned(), subscription: Some(json::quote(name)), ..Message::default() }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::sync::oneshot;

    use super::*;
    use crate::bayeux::message;

    fn told(interests: &mut Interests, session: &mut Session) -> Vec<String> {
        let deadline = Instant::now() + Duration::from_secs(1);
        let next = |id| interests.next(id, deadline, session).map(|message| message.channel);
        (1..).map_while(next).collect()
    }

    #[tokio::test]
    async fn who_left_and_wants_it_again_subscribes_again() {
        let (mut interests, mut session) = (Interests::default(), Session::new(true));
        let add = |interests: &mut Interests| {
            let (queue, messages) = mpsc::channel(1);
            interests.add(Pattern::parse("/a").expect("a pattern"), None, queue, oneshot::channel().0);
            messages
        };
        let one = |json: &str| message::parse(json.as_bytes(), &message::Limits::default()).expect("JSON").remove(0);
        let messages = add(&mut interests);
        session.begin(&one(r#"{"clientId":"a","ext":{"resume":true,"position":{"0":1}}}"#), false);
        assert_eq!(told(&mut interests, &mut session), ["/meta/subscribe"]);
        session.subscribed("/a", &one("{}"));
        interests.accepted("/a");
        // The session is lost, and meanwhile:
        session.lost();
        interests.ask_again();
        drop(messages);
        interests.sweep();
        let _messages = add(&mut interests);
        // The new session has what the handshake claimed.
        session.handshake_ext();
        session
            .begin(&one(r#"{"clientId":"b","ext":{"resume":true,"position":{"0":1},"subscriptions":["/a"]}}"#), true);
        interests.renew(&session);
        assert_eq!(told(&mut interests, &mut session), ["/meta/unsubscribe", "/meta/subscribe"]);
    }
}
