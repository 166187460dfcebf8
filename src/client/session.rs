//! What a client knows of its session: its name, the server's advice, and, where the server can resume, the position of
//! what was received (`docs/delivery.md`, "Resume"). Pure; used by the driver.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use serde_json::value::RawValue;

use super::Replay;
use crate::bayeux::json::{self, Raw};
use crate::bayeux::{Message, Reconnect};

/// The newest number of each partition.
pub(super) type Position = BTreeMap<String, u64>;

/// What the server last advised.
#[derive(Debug, Clone, Copy)]
pub(super) struct Advised {
    pub reconnect: Reconnect,
    pub interval: Duration,
    pub timeout: Duration,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Session {
    /// `None` before the first handshake, and after the session was lost.
    pub id: Option<String>,
    pub advised: Advised,
    /// Whether the user wants what the server may be able to do.
    wanted: bool,
    /// Whether it can.
    resumes: bool,
    position: Position,
    /// Up to where messages were missing, as the server told.
    lost: Position,
    /// What the handshake under way says.
    claimed: Option<Position>,
    /// How far the replay of a channel has come.
    replayed: HashMap<String, u64>,
    /// What the server has accepted, and where each subscription began (`None`: before the position).
    accepted: HashMap<String, Option<Position>>,
}

/// What a handshake has brought.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Begun {
    /// The first session of this client.
    First,
    /// It goes on where the one before ended.
    Recovered,
    /// Messages on these channels may be missing; of all when it is empty.
    Gap(Vec<String>),
}

impl Session {
    pub(super) fn new(wanted: bool) -> Self {
        Self {
            id: None,
            advised: Advised {
                reconnect: Reconnect::Retry,
                interval: Duration::ZERO,
                timeout: Duration::from_secs(60),
            },
            wanted,
            resumes: false,
            position: Position::new(),
            lost: Position::new(),
            claimed: None,
            replayed: HashMap::new(),
            accepted: HashMap::new(),
        }
    }

    /// Whether the server can resume: then it knows repeated publishes by their key, too.
    pub(super) fn resumes(&self) -> bool {
        self.resumes
    }

    /// The server does not know this session any more.
    pub(super) fn lost(&mut self) {
        self.id = None;
    }

    /// `ext` of a handshake.
    pub(super) fn handshake_ext(&mut self) -> Option<Raw> {
        if !self.wanted {
            return None;
        }
        let mut fields = vec![("resume", "true".to_owned())];
        self.claimed = None;
        if self.resumes {
            fields.push(("position", text(&self.position)));
            fields.push(("subscriptions", self.claims()));
            self.claimed = Some(self.position.clone());
        }
        Some(json::with_fields(None, &[], &fields))
    }

    /// The subscriptions for a new session: where each began, and how far its replay has come.
    fn claims(&self) -> String {
        let claim = |(pattern, start): (&String, &Option<Position>)| {
            let value = start.as_ref().map_or_else(
                || "true".to_owned(),
                |start| {
                    let replayed = self.replayed.get(pattern).copied();
                    let due = replayed.filter(|replayed| start.values().next().is_some_and(|since| replayed < since));
                    let due = due.map(|replayed| ("replay".to_owned(), replayed));
                    text(&start.iter().map(|(partition, number)| (partition.clone(), *number)).chain(due).collect())
                },
            );
            (pattern.clone(), value)
        };
        let claims: Vec<_> = self.accepted.iter().map(claim).collect();
        let fields: Vec<_> = claims.iter().map(|(pattern, value)| (pattern.as_str(), value.clone())).collect();
        json::with_fields(None, &[], &fields).get().to_owned()
    }

    /// `ext` of a connect.
    pub(super) fn connect_ext(&self) -> Option<Raw> {
        self.resumes.then(|| json::with_fields(None, &[], &[("position", text(&self.position))]))
    }

    /// `ext` of a subscribe. A replay that it brings has a count of its own, from here on.
    pub(super) fn subscribe_ext(&mut self, pattern: &str, replay: Option<Replay>) -> Option<Raw> {
        let mut fields = Vec::new();
        if self.resumes {
            fields.push(("resume", "true".to_owned()));
            self.replayed.remove(pattern);
        }
        if let Some(replay) = replay {
            let wish = (pattern, replay.to_number().to_string());
            fields.push(("replay", json::with_fields(None, &[], &[wish]).get().to_owned()));
        }
        (!fields.is_empty()).then(|| json::with_fields(None, &[], &fields))
    }

    /// A successful handshake. `before`: whether there was a session before it.
    pub(super) fn begin(&mut self, reply: &Message, before: bool) -> Begun {
        let ext = reply.ext.as_deref();
        self.id.clone_from(&reply.client_id);
        self.resumes = self.wanted && json::member(ext, "resume").is_some_and(|value| value.get() == "true");
        let claimed = self.claimed.take();
        let accepted = std::mem::take(&mut self.accepted);
        if !self.resumes {
            (self.position, self.lost, self.replayed) = Default::default();
            return if before { Begun::Gap(Vec::new()) } else { Begun::First };
        }
        let mut position = position(json::member(ext, "position"));
        for (partition, number) in claimed.iter().flatten() {
            // What was received since the claim was made counts, where the server goes by the claim.
            if let (Some(theirs), Some(ours)) = (position.get_mut(partition), self.position.get(partition))
                && theirs == number
            {
                *theirs = *ours;
            }
        }
        // A server that begins anew, lower.
        self.lost.retain(|partition, lost| position.get(partition).is_some_and(|start| *lost <= *start));
        self.position = position;
        let goes_on: Vec<_> = json::member(ext, "subscriptions").and_then(names).unwrap_or_default();
        self.replayed.retain(|pattern, _| goes_on.contains(pattern));
        let (kept, lost): (HashMap<_, _>, HashMap<_, _>) =
            accepted.into_iter().partition(|(pattern, _)| goes_on.contains(pattern));
        self.accepted = kept;
        if claimed.is_none() {
            return if before { Begun::Gap(Vec::new()) } else { Begun::First };
        }
        if lost.is_empty() { Begun::Recovered } else { Begun::Gap(lost.into_keys().collect()) }
    }

    /// Whether the server knows this subscription.
    pub(super) fn has(&self, pattern: &str) -> bool {
        self.accepted.contains_key(pattern)
    }

    /// A successful connect; true when messages may be missing.
    pub(super) fn connected(&mut self, reply: &Message) -> bool {
        let ext = reply.ext.as_deref();
        if !self.resumes {
            return false;
        }
        for (partition, number) in position(json::member(ext, "position")) {
            let ours = self.position.entry(partition).or_default();
            *ours = number.max(*ours);
        }
        let gap = json::member(ext, "gap").is_some_and(|gap| gap.get() == "true");
        let lost = position(json::member(ext, "lost"));
        // One that does not say up to where is none that is known.
        let mut is_news = lost.is_empty();
        for (partition, number) in lost {
            let told = self.lost.entry(partition).or_default();
            is_news |= number > *told;
            *told = number.max(*told);
        }
        gap && is_news
    }

    /// A successful subscribe; true when what was to be replayed is not kept any more.
    pub(super) fn subscribed(&mut self, pattern: &str, reply: &Message) -> bool {
        let ext = reply.ext.as_deref();
        let since = json::member(json::member(ext, "since"), pattern).map(|since| position(Some(since)));
        self.accepted.insert(pattern.to_owned(), since);
        if let Some(start) = json::member(json::member(ext, "replay"), pattern).and_then(json::whole) {
            let replayed = self.replayed.entry(pattern.to_owned()).or_default();
            *replayed = start.max(*replayed);
        }
        json::member(ext, "gap").is_some_and(|gap| gap.get() == "true")
    }

    /// The user wants it no more.
    pub(super) fn unsubscribed(&mut self, pattern: &str) {
        self.accepted.remove(pattern);
        self.replayed.remove(pattern);
    }

    /// Whether a message is not one that came before; it counts as received then.
    pub(super) fn is_news(&mut self, message: &Message) -> bool {
        let ext = message.ext.as_deref();
        let Some(theirs) = json::member(ext, "position").filter(|_| self.resumes) else { return true };
        let replay = json::member(ext, "replay").is_some_and(|replay| replay.get() == "true");
        for (partition, number) in position(Some(theirs)) {
            let ours = if replay {
                self.replayed.entry(message.channel.clone()).or_default()
            } else {
                self.position.entry(partition).or_default()
            };
            if number <= *ours {
                return false;
            }
            *ours = number;
        }
        true
    }

    /// Takes advice from whatever carries some.
    pub(super) fn advise(&mut self, advice: &RawValue) {
        let milliseconds = |name| json::member(Some(advice), name).and_then(json::whole).map(Duration::from_millis);
        if let Some(interval) = milliseconds("interval") {
            self.advised.interval = interval.min(LONGEST_ADVICE);
        }
        if let Some(timeout) = milliseconds("timeout") {
            self.advised.timeout = timeout.min(LONGEST_ADVICE);
        }
        match json::member(Some(advice), "reconnect").and_then(json::string).as_deref() {
            Some("retry") => self.advised.reconnect = Reconnect::Retry,
            Some("handshake") => self.advised.reconnect = Reconnect::Handshake,
            Some("none") => self.advised.reconnect = Reconnect::None,
            _ => {}
        }
    }
}

/// No server may send a client away for longer.
const LONGEST_ADVICE: Duration = Duration::from_secs(3600);

fn position(raw: Option<&RawValue>) -> Position {
    let members = raw.and_then(json::members).unwrap_or_default();
    members.into_iter().filter_map(|(partition, number)| Some((partition.into_owned(), json::whole(number)?))).collect()
}

fn text(position: &Position) -> String {
    let fields: Vec<_> = position.iter().map(|(name, number)| (name.as_str(), number.to_string())).collect();
    json::with_fields(None, &[], &fields).get().to_owned()
}

fn names(raw: &RawValue) -> Option<Vec<String>> {
    Some(json::elements(raw)?.into_iter().filter_map(|name| json::string(name).map(|name| name.into_owned())).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bayeux::message;

    fn one(json: &str) -> Message {
        message::parse(json.as_bytes(), &message::Limits::default()).expect("JSON").remove(0)
    }

    fn begun() -> Session {
        let mut session = Session::new(true);
        assert_eq!(session.handshake_ext().expect("asks").get(), r#"{"resume":true}"#);
        let reply = one(r#"{"channel":"/meta/handshake","clientId":"a","ext":{"resume":true,"position":{"0":10}}}"#);
        assert_eq!(session.begin(&reply, false), Begun::First);
        session.subscribed("/a", &one(r#"{"ext":{"since":{"/a":{"0":12}}}}"#));
        session.subscribed("/b/*", &one("{}"));
        session
    }

    fn delivery(number: u64, more: &str) -> Message {
        one(&format!(r#"{{"channel":"/a","data":1,"ext":{{"position":{{"0":{number}}}{more}}}}}"#))
    }

    #[test]
    fn what_came_before_is_no_news() {
        let mut session = begun();
        let news: Vec<_> = [11, 10, 11, 13, 12, 13].map(|number| session.is_news(&delivery(number, ""))).into();
        assert_eq!(news, [true, false, false, true, false, false]);
        assert_eq!(session.connect_ext().expect("resumes").get(), r#"{"position":{"0":13}}"#);
    }

    #[test]
    fn a_replay_counts_for_itself() {
        let mut session = begun();
        let wish = session.subscribe_ext("/a", Some(Replay::All)).expect("asks");
        assert_eq!(wish.get(), r#"{"resume":true,"replay":{"/a":-2}}"#);
        session.subscribed("/a", &one(r#"{"ext":{"since":{"/a":{"0":12}},"replay":{"/a":3}}}"#));
        let news: Vec<_> = [3, 5, 5].map(|number| session.is_news(&delivery(number, r#","replay":true"#))).into();
        assert_eq!(news, [false, true, false]);
        assert!(session.is_news(&delivery(13, "")));
        let claims = session.handshake_ext().expect("asks");
        let claims = json::member(json::member(Some(&claims), "subscriptions"), "/a").expect("claimed");
        assert_eq!(claims.get(), r#"{"0":12,"replay":5}"#);
    }

    #[test]
    fn a_new_session_goes_on() {
        let mut session = begun();
        session.is_news(&delivery(20, ""));
        session.lost();
        let claim = session.handshake_ext().expect("asks");
        assert_eq!(json::member(Some(&claim), "position").expect("claimed").get(), r#"{"0":20}"#);
        // One more arrives by the old link before the answer.
        assert!(session.is_news(&delivery(21, "")));
        let all = r#"{"clientId":"b","ext":{"resume":true,"position":{"0":20},"subscriptions":["/a","/b/*"]}}"#;
        assert_eq!(session.begin(&one(all), true), Begun::Recovered);
        assert!(session.has("/a") && !session.is_news(&delivery(21, "")));
        session.handshake_ext();
        let some = r#"{"clientId":"c","ext":{"resume":true,"position":{"0":30},"subscriptions":["/a"]}}"#;
        assert_eq!(session.begin(&one(some), true), Begun::Gap(vec!["/b/*".to_owned()]));
        assert!(session.has("/a") && !session.has("/b/*"));
    }

    #[test]
    fn another_server_resumes_nothing() {
        let mut session = begun();
        session.handshake_ext();
        assert_eq!(session.begin(&one(r#"{"clientId":"d"}"#), true), Begun::Gap(Vec::new()));
        assert!(session.connect_ext().is_none() && !session.has("/a"));
        assert!(session.is_news(&delivery(1, "")) && session.is_news(&delivery(1, "")));
    }

    #[test]
    fn advice_is_merged_and_bounded() {
        let mut session = Session::new(false);
        session.advise(&one(r#"{"advice":{"timeout":45000}}"#).advice.expect("advice"));
        session.advise(&one(r#"{"advice":{"reconnect":"handshake","interval":1e15}}"#).advice.expect("advice"));
        assert_eq!(session.advised.timeout, Duration::from_secs(45));
        assert_eq!((session.advised.interval, session.advised.reconnect), (LONGEST_ADVICE, Reconnect::Handshake));
    }

    #[test]
    fn a_gap_that_is_told_twice_is_one() {
        let mut session = begun();
        let mut told = |ext: &str| session.connected(&one(&format!(r#"{{"ext":{ext}}}"#)));
        assert!(told(r#"{"gap":true,"lost":{"0":18},"position":{"0":20}}"#));
        assert!(!told(r#"{"gap":true,"lost":{"0":18},"position":{"0":20}}"#));
        // More is missing, although what is left begins at the same place.
        assert!(told(r#"{"gap":true,"lost":{"0":19},"position":{"0":20}}"#));
        assert!(!told(r#"{"position":{"0":25}}"#));
        // That of a replay.
        assert!(told(r#"{"gap":true,"position":{}}"#) && told(r#"{"gap":true,"position":{}}"#));
        session.handshake_ext();
        session.begin(&one(r#"{"ext":{"resume":true,"position":{"0":5}}}"#), true);
        assert!(session.connected(&one(r#"{"ext":{"gap":true,"lost":{"0":6},"position":{"0":20}}}"#)), "anew, lower");
    }
}
