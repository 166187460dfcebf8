//! What clients say about their deliveries, and what they are told: acknowledgements, positions, gaps, replays
//! (`docs/delivery.md`). Only the `ext` fields; what follows from them is the engine's.

use serde_json::value::RawValue;

use super::{RequestInfo, Server};
use crate::bayeux::json::{self, Raw};
use crate::bayeux::{BayeuxError, Message, Pattern};
use crate::engine::{Claim, Cursor, PartitionId, Position, ReplayStart, ReplayWish, SessionId, Traits};

/// A [`Claim`] with its own cursor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OwnedClaim {
    /// `ext.ack`
    Ack(Position),
    /// `ext.position`
    Position(Cursor),
}

impl OwnedClaim {
    /// What a connect claims. Of two claims the position counts: it says more.
    ///
    /// # Errors
    /// When there is a position that is none.
    pub(super) fn of(message: &Message) -> Result<Option<Self>, BayeuxError> {
        let ext = message.ext.as_deref();
        if let Some(position) = position(ext)? {
            return Ok(Some(Self::Position(position)));
        }
        Ok(json::member(ext, "ack").and_then(json::whole).map(|number| Self::Ack(Position(number))))
    }

    pub(super) fn borrow(&self) -> Claim<'_> {
        match self {
            Self::Ack(upto) => Claim::Ack(*upto),
            Self::Position(at) => Claim::Position(at),
        }
    }

    /// Whether it counts in a session of these traits.
    pub(crate) fn counts(&self, traits: Traits) -> bool {
        match self {
            Self::Ack(_) => traits.ack,
            Self::Position(_) => traits.resume,
        }
    }
}

/// What a handshake asks for.
pub(super) struct Wishes {
    pub(super) traits: Traits,
    /// Where a session before this one had come, and the channels it was subscribed to, as sent, each with its start.
    pub(super) resumed: Option<(Cursor, Vec<(String, Position)>)>,
}

impl Wishes {
    pub(super) fn of(message: &Message) -> Result<Self, BayeuxError> {
        let ext = message.ext.as_deref();
        let asked = |name| json::member(ext, name).is_some_and(|value| value.get() == "true");
        let traits = Traits { ack: asked("ack"), resume: asked("resume"), replay: asked("replay") };
        let resumed = match position(ext)?.filter(|_| traits.resume) {
            Some(at) => Some((at, names(json::member(ext, "subscriptions"))?)),
            None => None,
        };
        Ok(Self { traits, resumed })
    }
}

/// `ext.position`: a number for each partition. Absent and `null` are none.
fn position(ext: Option<&RawValue>) -> Result<Option<Cursor>, BayeuxError> {
    let Some(raw) = json::member(ext, "position").filter(|raw| raw.get() != "null") else { return Ok(None) };
    let cursor = numbers(raw).ok_or_else(|| BayeuxError::malformed("ext.position"))?;
    Ok(Some(cursor).filter(|cursor| !cursor.positions().is_empty()))
}

/// An object of partitions and numbers.
fn numbers(raw: &RawValue) -> Option<Cursor> {
    let mut cursor = Cursor::default();
    for (partition, number) in json::members(raw)? {
        cursor.raise(partition.parse().map(PartitionId).ok()?, Position(json::whole(number)?));
    }
    Some(cursor)
}

/// A list of names, or an object of them with the position from which each counts.
fn names(raw: Option<&RawValue>) -> Result<Vec<(String, Position)>, BayeuxError> {
    let malformed = || BayeuxError::malformed("ext.subscriptions");
    let Some(raw) = raw.filter(|raw| raw.get() != "null") else { return Ok(Vec::new()) };
    if let Some(members) = json::members(raw) {
        let started = |(name, since): (std::borrow::Cow<'_, str>, &RawValue)| {
            let since = match since.get() {
                "true" => Cursor::default(),
                _ => numbers(since).ok_or_else(malformed)?,
            };
            Ok((name.into_owned(), since.get(PartitionId::default())))
        };
        return members.into_iter().map(started).collect();
    }
    let name = |name| Ok((json::string(name).ok_or_else(malformed)?.into_owned(), Position::default()));
    json::elements(raw).ok_or_else(malformed)?.into_iter().map(name).collect()
}

/// A position as clients get it.
pub(super) fn written(cursor: &Cursor) -> String {
    let numbers = cursor.positions().iter().enumerate().filter(|(_, position)| position.0 > 0);
    let members: Vec<_> = numbers.map(|(partition, position)| format!("\"{partition}\":{}", position.0)).collect();
    format!("{{{}}}", members.join(","))
}

/// The reply with these fields in its `ext`.
pub(super) fn with_ext(reply: Message, fields: &[(&str, String)]) -> Message {
    if fields.is_empty() {
        return reply;
    }
    let names: Vec<_> = fields.iter().map(|(name, _)| *name).collect();
    Message { ext: Some(json::with_fields(reply.ext.as_deref(), &names, fields)), ..reply }
}

/// What a connect's reply says besides.
#[derive(Debug, Clone, Default)]
pub struct Notice {
    /// For a client that acknowledges: everything up to here was sent.
    pub ack: Option<Cursor>,
    /// Messages are missing, and nothing more comes of what lies up to here.
    pub gap: Option<Cursor>,
}

impl Notice {
    pub(super) fn put(self, reply: Message) -> Message {
        let mut fields = Vec::new();
        // One number, so one partition: the acknowledged position of several would need a table.
        fields.extend(self.ack.map(|sent| ("ack", sent.get(Default::default()).0.to_string())));
        if let Some(upto) = self.gap {
            fields.push(("gap", "true".to_owned()));
            fields.push(("position", written(&upto)));
        }
        with_ext(reply, &fields)
    }
}

/// A replay that a subscription wishes: `ext.replay` names the channel, and -1, -2 or a position.
pub(super) enum Wished {
    Nothing,
    All,
    After(Position),
}

impl Wished {
    pub(super) fn of(ext: Option<&RawValue>, channel: &str) -> Result<Self, BayeuxError> {
        let replay = json::member(ext, "replay");
        let Some(raw) = json::member(replay, channel).filter(|raw| raw.get() != "null") else {
            return Ok(Self::Nothing);
        };
        match (raw.get(), json::whole(raw)) {
            ("-1", _) => Ok(Self::Nothing),
            ("-2", _) => Ok(Self::All),
            (_, Some(position)) => Ok(Self::After(Position(position))),
            _ => Err(BayeuxError::malformed("ext.replay")),
        }
    }
}

/// A subscription that was made, or was there already.
pub(super) struct Started {
    pub(super) pattern: Pattern,
    pub(super) since: Position,
    pub(super) replay: Option<ReplayStart>,
}

/// `ext` of a subscribe's reply: where its replays start, and if `wanted`, where each subscription does.
pub(super) fn subscriptions_start(starts: &[Started], wanted: bool) -> Vec<(&'static str, String)> {
    let mut fields = Vec::new();
    let object = |members: Vec<String>| format!("{{{}}}", members.join(","));
    let name = |one: &Started| json::quote(one.pattern.as_str()).get().to_owned();
    if wanted {
        let since = |one: &Started| format!("{}:{}", name(one), written(&Cursor::single(one.since)));
        fields.push(("since", object(starts.iter().map(since).collect())));
    }
    let replays: Vec<_> = starts.iter().filter_map(|one| one.replay.map(|start| (one, start))).collect();
    if !replays.is_empty() {
        let from = |(one, start): &(&Started, ReplayStart)| format!("{}:{}", name(one), start.from.0);
        fields.push(("replay", object(replays.iter().map(from).collect())));
    }
    if replays.iter().any(|(_, start)| start.gap) {
        fields.push(("gap", "true".to_owned()));
    }
    fields
}

impl Server {
    /// The replay that a subscription wishes, if it may have it.
    pub(super) fn replay_wish(&self, message: &Message, pattern: &Pattern) -> Result<Option<ReplayWish>, BayeuxError> {
        let after = match Wished::of(message.ext.as_deref(), pattern.as_str())? {
            Wished::Nothing => return Ok(None),
            Wished::All => None,
            Wished::After(position) => Some(position),
        };
        let Some(channel) = pattern.as_channel() else {
            return Err(BayeuxError::refused(pattern.as_str(), "Replay needs a channel, not a pattern"));
        };
        match self.settings().retention.rule(&channel).filter(|rule| rule.replay) {
            Some(rule) => Ok(Some(ReplayWish { after, retention: rule.retention })),
            None => Err(BayeuxError::refused(pattern.as_str(), "Replay not allowed")),
        }
    }

    /// The subscriptions of an ended session that a new one may go on with. Each passes the extensions as if it were
    /// made by a message of its own.
    pub(super) async fn resumable(
        &self,
        names: Vec<(String, Position)>,
        session: &SessionId,
        message: &Message,
        request: &RequestInfo,
    ) -> Vec<(Pattern, Position)> {
        let mut patterns: Vec<(Pattern, Position)> = Vec::new();
        for (name, since) in names {
            let Ok(Some(pattern)) = self.subscribable(&name, request) else { continue };
            let forbidden = pattern
                .as_channel()
                .is_some_and(|channel| self.settings().retention.rule(&channel).is_some_and(|rule| !rule.replay));
            let subscribe = Message {
                channel: "/meta/subscribe".to_owned(),
                client_id: Some(session.as_str().to_owned()),
                subscription: Some(json::quote(&name)),
                ext: message.ext.clone(),
                ..Message::default()
            };
            let passed = self.incoming(subscribe, request).await;
            let known = patterns.iter().any(|(other, _)| *other == pattern);
            if !forbidden && !known && passed.is_some_and(|message| message.error.is_none()) {
                patterns.push((pattern, since));
            }
        }
        patterns
    }
}

/// A list of names as JSON.
pub(super) fn list(patterns: &[(Pattern, Position)]) -> String {
    let names: Vec<Raw> = patterns.iter().map(|(pattern, _)| json::quote(pattern.as_str())).collect();
    format!("[{}]", names.iter().map(|name| name.get()).collect::<Vec<_>>().join(","))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(ext: &str) -> Message {
        Message { ext: RawValue::from_string(ext.to_owned()).ok(), ..Message::default() }
    }

    #[test]
    fn claims() {
        let of = |ext: &str| OwnedClaim::of(&message(ext));
        assert_eq!(of(r#"{"ack":7}"#), Ok(Some(OwnedClaim::Ack(Position(7)))));
        let at = Cursor::single(Position(9));
        assert_eq!(of(r#"{"ack":7,"position":{"0":9}}"#), Ok(Some(OwnedClaim::Position(at))));
        for nothing in ["{}", r#"{"ack":true}"#, r#"{"ack":-1}"#, r#"{"position":null}"#, r#"{"position":{}}"#, "5"] {
            assert_eq!(of(nothing), Ok(None), "{nothing}");
        }
        for bad in
            [r#"{"position":9}"#, r#"{"position":{"x":1}}"#, r#"{"position":{"0":-1}}"#, r#"{"position":{"70000":1}}"#]
        {
            let error = of(bad).expect_err(bad).to_string();
            assert_eq!(error, "400:ext.position:Malformed", "{bad}");
        }
    }

    #[test]
    fn wishes_of_a_handshake() {
        let of = |ext: &str| Wishes::of(&message(ext)).map(|wishes| (wishes.traits, wishes.resumed)).ok();
        let resume = Traits { resume: true, ..Traits::default() };
        let at = Cursor::single(Position(9));
        assert_eq!(of(r#"{"resume":true,"position":{"0":9}}"#), Some((resume, Some((at.clone(), Vec::new())))));
        assert_eq!(
            of(r#"{"resume":true,"position":{"0":9},"subscriptions":["/a","/b/*"]}"#),
            Some((resume, Some((at.clone(), vec![("/a".to_owned(), Position(0)), ("/b/*".to_owned(), Position(0))]))))
        );
        assert_eq!(
            of(r#"{"resume":true,"position":{"0":9},"subscriptions":{"/a":{"0":12},"/b":true}}"#),
            Some((resume, Some((at, vec![("/a".to_owned(), Position(12)), ("/b".to_owned(), Position(0))]))))
        );
        assert_eq!(of(r#"{"resume":1,"ack":"true","position":{"0":9}}"#), Some((Traits::default(), None)));
        assert_eq!(of(r#"{"resume":true,"position":{"0":9},"subscriptions":"/a"}"#), None);
    }

    #[test]
    fn wished_replays() {
        let of = |ext: &str| match Wished::of(message(ext).ext.as_deref(), "/a") {
            Ok(Wished::Nothing) => "nothing".to_owned(),
            Ok(Wished::All) => "all".to_owned(),
            Ok(Wished::After(position)) => position.0.to_string(),
            Err(error) => error.to_string(),
        };
        for (ext, expected) in [
            (r#"{"replay":{"/a":-2}}"#, "all"),
            (r#"{"replay":{"/a":-1}}"#, "nothing"),
            (r#"{"replay":{"/b":-2}}"#, "nothing"),
            (r#"{"replay":true}"#, "nothing"),
            (r#"{"replay":{"/a":12}}"#, "12"),
            (r#"{"replay":{"/a":-3}}"#, "400:ext.replay:Malformed"),
            (r#"{"replay":{"/a":"x"}}"#, "400:ext.replay:Malformed"),
        ] {
            assert_eq!(of(ext), expected, "{ext}");
        }
    }
}
