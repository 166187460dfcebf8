//! What clients say about their deliveries, and what they are told: acknowledgements, positions, gaps, replays
//! (`docs/delivery.md`). Only the `ext` fields; what follows from them is the engine's.

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};

use serde_json::value::RawValue;

use super::{RequestInfo, Server, Verdict};
use crate::bayeux::json::{self, Raw};
use crate::bayeux::{BayeuxError, Message, Pattern};
use crate::engine::{Claim, Cursor, PartitionId, Position, ReplayStart, ReplayWish, SessionId, Subscription, Traits};
use crate::session::Gap;

/// A [`Claim`] with its own cursor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OwnedClaim {
    /// `ext.ack`
    Ack(Position),
    /// `ext.position`
    Position(Cursor),
}

impl OwnedClaim {
    /// What a connect claims. Of two claims the position counts: it says more. What is neither is the client's own
    /// business: only the session knows whether it asked for such a thing.
    pub(super) fn of(message: &Message) -> Option<Self> {
        let ext = message.ext.as_deref()?;
        if let Some(at) = json::member(Some(ext), "position").and_then(numbers).filter(|at| *at != Cursor::default()) {
            return Some(Self::Position(at));
        }
        // What is no number acknowledges nothing: to take its client for one that does not acknowledge would confirm all.
        let acked = json::member(Some(ext), "ack").filter(|raw| raw.get() != "null")?;
        Some(Self::Ack(Position(json::whole(acked).unwrap_or_default())))
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
    /// Where a session before this one had come, and what it was subscribed to.
    pub(super) resumed: Option<(Cursor, Vec<Wanted>)>,
}

/// A subscription that a new session wants to go on with, as sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Wanted {
    pub(super) name: String,
    /// It counts from here, if that is later than the session's position.
    pub(super) since: Position,
    /// Its replay had come this far.
    pub(super) replay: Option<Position>,
}

impl Wishes {
    /// `max`: subscriptions that a session may have.
    pub(super) fn of(message: &Message, max: usize) -> Result<Self, BayeuxError> {
        let ext = message.ext.as_deref();
        let asked = |name| json::member(ext, name).is_some_and(|value| value.get() == "true");
        let traits = Traits { ack: asked("ack"), resume: asked("resume"), replay: asked("replay") };
        // Without `resume` the field is the client's own business.
        let position = json::member(ext, "position").filter(|raw| traits.resume && raw.get() != "null");
        let resumed = match position {
            Some(raw) => {
                let at = numbers(raw).ok_or_else(|| {
                    BayeuxError::malformed("ext.position", "an object such as {\"0\": 1838744996085759}")
                })?;
                Some((at, wanted(json::member(ext, "subscriptions"), max)?))
            }
            None => None,
        };
        Ok(Self { traits, resumed })
    }
}

/// An object of partitions and numbers.
fn numbers(raw: &RawValue) -> Option<Cursor> {
    let mut cursor = Cursor::default();
    for (name, number) in json::members(raw)? {
        let partition: u16 = name.parse().ok().filter(|partition| *partition < PartitionId::COUNT)?;
        cursor.raise(PartitionId(partition), Position(json::whole(number)?));
    }
    Some(cursor)
}

/// A list of names, or an object of them: each with its start and how far its replay had come, or `true`.
fn wanted(raw: Option<&RawValue>, max: usize) -> Result<Vec<Wanted>, BayeuxError> {
    let malformed =
        || BayeuxError::malformed("ext.subscriptions", "a list of channels, or an object of them with their starts");
    let Some(raw) = raw.filter(|raw| raw.get() != "null") else { return Ok(Vec::new()) };
    let bounded = |count: usize| match count <= max {
        true => Ok(()),
        false => Err(BayeuxError::limit(403, "", format!("Too many subscriptions: the limit is {max}"))),
    };
    if let Some(members) = json::members(raw) {
        bounded(members.len())?;
        return members
            .into_iter()
            .map(|(name, start)| started(name.into_owned(), start).ok_or_else(malformed))
            .collect();
    }
    let names = json::elements(raw).ok_or_else(malformed)?;
    bounded(names.len())?;
    let name = |raw| {
        let name = json::string(raw).ok_or_else(malformed)?.into_owned();
        Ok(Wanted { name, since: Position::default(), replay: None })
    };
    names.into_iter().map(name).collect()
}

/// A name with its start: `true`, or an object of partitions and numbers that may say `replay` too.
fn started(name: String, start: &RawValue) -> Option<Wanted> {
    let mut wanted = Wanted { name, since: Position::default(), replay: None };
    if start.get() == "true" {
        return Some(wanted);
    }
    for (field, number) in json::members(start)? {
        let position = Position(json::whole(number)?);
        match &*field {
            "replay" => wanted.replay = Some(position),
            partition => {
                partition.parse().ok().filter(|partition: &u16| *partition < PartitionId::COUNT)?;
                wanted.since = position;
            }
        }
    }
    Some(wanted)
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
    /// Messages are missing.
    pub gap: Option<Gap>,
    /// Nothing more comes of what lies up to here.
    pub passed: Option<Cursor>,
}

impl Notice {
    pub(super) fn put(self, reply: Message) -> Message {
        let mut fields = Vec::new();
        // One number, so one partition: the acknowledged position of several would need a table.
        fields.extend(self.ack.map(|sent| ("ack", sent.get(Default::default()).0.to_string())));
        if let Some(gap) = &self.gap {
            fields.push(("gap", "true".to_owned()));
            fields.extend((gap.lost != Cursor::default()).then(|| ("lost", written(&gap.lost))));
        }
        let upto = self.passed.or(self.gap.map(|gap| gap.upto));
        fields.extend(upto.map(|upto| ("position", written(&upto))));
        with_ext(reply, &fields)
    }
}

/// The replays that a subscribe wishes: `ext.replay` names channels, and -1, -2 or a position for each.
#[derive(Default)]
pub(super) struct ReplayWishes<'a>(HashMap<Cow<'a, str>, &'a RawValue>);

/// What is wished for one channel.
pub(super) enum Wished {
    Nothing,
    All,
    After(Position),
}

impl<'a> ReplayWishes<'a> {
    pub(super) fn of(message: &'a Message) -> Self {
        let members = json::member(message.ext.as_deref(), "replay").and_then(json::members);
        Self(members.unwrap_or_default().into_iter().collect())
    }

    fn for_channel(&self, channel: &str) -> Result<Wished, BayeuxError> {
        let Some(raw) = self.0.get(channel).filter(|raw| raw.get() != "null") else { return Ok(Wished::Nothing) };
        match (raw.get(), json::whole(raw), numbers(raw)) {
            ("-1", ..) => Ok(Wished::Nothing),
            ("-2", ..) => Ok(Wished::All),
            (_, Some(position), _) => Ok(Wished::After(Position(position))),
            // As it stands in messages.
            (_, _, Some(at)) => Ok(Wished::After(at.get(PartitionId::default()))),
            _ => Err(BayeuxError::malformed("ext.replay", "-1, -2 or a position for each channel")),
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
    if wanted && !starts.is_empty() {
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
    pub(super) fn replay_wish(
        &self,
        wishes: &ReplayWishes<'_>,
        pattern: &Pattern,
    ) -> Result<Option<ReplayWish>, BayeuxError> {
        let after = match wishes.for_channel(pattern.as_str())? {
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
    /// made by a message of its own, and what they make of it counts.
    pub(super) async fn resumable(
        &self,
        wanted: Vec<Wanted>,
        session: &SessionId,
        message: &Message,
        request: &RequestInfo,
    ) -> Vec<Subscription> {
        let rules = &self.settings().retention;
        let replayable = |pattern: &Pattern| {
            pattern.as_channel().is_some_and(|channel| rules.rule(&channel).is_some_and(|rule| rule.replay))
        };
        // Not the long list, once for each of its members.
        let ext = message.ext.as_deref().map(|ext| json::with_fields(Some(ext), &["position", "subscriptions"], &[]));
        let (mut subscriptions, mut known) = (Vec::new(), HashSet::new());
        for Wanted { name, since, replay } in wanted {
            let mut subscribe = Message {
                channel: "/meta/subscribe".to_owned(),
                client_id: Some(session.as_str().to_owned()),
                subscription: Some(json::quote(&name)),
                ext: ext.clone(),
                ..Message::default()
            };
            if self.incoming(&mut subscribe, request).await == Verdict::Drop || subscribe.error.is_some() {
                continue;
            }
            let Some(name) = subscribe.subscription.as_deref().and_then(json::string) else { continue };
            let Ok(Some(pattern)) = self.subscribable(&name, request) else { continue };
            // A replay that cannot go on is a subscription that cannot: its client is told so.
            let refused = rules.hides(&pattern) || (replay.is_some() && !replayable(&pattern));
            if !refused && known.insert(pattern.clone()) {
                subscriptions.push(Subscription { pattern, since, replay });
            }
        }
        subscriptions
    }
}

/// A list of names as JSON.
pub(super) fn list(subscriptions: &[Subscription]) -> String {
    let names: Vec<Raw> = subscriptions.iter().map(|one| json::quote(one.pattern.as_str())).collect();
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
        assert_eq!(of(r#"{"ack":7}"#), Some(OwnedClaim::Ack(Position(7))));
        assert_eq!(of(r#"{"ack":"x"}"#), Some(OwnedClaim::Ack(Position(0))), "it acknowledges nothing");
        let at = Cursor::single(Position(9));
        assert_eq!(of(r#"{"ack":7,"position":{"0":9}}"#), Some(OwnedClaim::Position(at)));
        for nothing in [
            "{}",
            r#"{"ack":null}"#,
            r#"{"position":null}"#,
            r#"{"position":{}}"#,
            r#"{"position":{"lat":1.5,"lng":2}}"#,
            r#"{"position":{"0":-1}}"#,
            r#"{"position":{"65535":1}}"#,
            "5",
        ] {
            assert_eq!(of(nothing), None, "{nothing}");
        }
    }

    #[test]
    fn wishes_of_a_handshake() {
        let of = |ext: &str| Wishes::of(&message(ext), 2).map(|wishes| (wishes.traits, wishes.resumed));
        let resume = Traits { resume: true, ..Traits::default() };
        let at = Cursor::single(Position(9));
        let wanted = |name: &str, since, replay: Option<u64>| Wanted {
            name: name.to_owned(),
            since: Position(since),
            replay: replay.map(Position),
        };
        assert_eq!(of(r#"{"resume":true,"position":{"0":9}}"#), Ok((resume, Some((at.clone(), Vec::new())))));
        assert_eq!(
            of(r#"{"resume":true,"position":{"0":9},"subscriptions":["/a","/b/*"]}"#),
            Ok((resume, Some((at.clone(), vec![wanted("/a", 0, None), wanted("/b/*", 0, None)]))))
        );
        assert_eq!(
            of(r#"{"resume":true,"position":{"0":9},"subscriptions":{"/a":{"0":12,"replay":5},"/b":true}}"#),
            Ok((resume, Some((at, vec![wanted("/a", 12, Some(5)), wanted("/b", 0, None)]))))
        );
        assert_eq!(of(r#"{"resume":1,"ack":"true","position":{"lat":9}}"#), Ok((Traits::default(), None)));
        let error = |ext: &str| of(ext).map(|_| ()).map_err(|error| error.to_string());
        for (ext, text) in [
            (
                r#"{"resume":true,"position":9}"#,
                r#"400:ext.position:Malformed: expected an object such as {"0": 1838744996085759}"#,
            ),
            (
                r#"{"resume":true,"position":{"1":9}}"#,
                r#"400:ext.position:Malformed: expected an object such as {"0": 1838744996085759}"#,
            ),
            (
                r#"{"resume":true,"position":{"0":9},"subscriptions":"/a"}"#,
                "400:ext.subscriptions:Malformed: expected a list of channels, or an object of them with their starts",
            ),
            (
                r#"{"resume":true,"position":{"0":9},"subscriptions":{"/a":1}}"#,
                "400:ext.subscriptions:Malformed: expected a list of channels, or an object of them with their starts",
            ),
            (
                r#"{"resume":true,"position":{"0":9},"subscriptions":["/a","/b","/c"]}"#,
                "403::Too many subscriptions: the limit is 2",
            ),
        ] {
            assert_eq!(error(ext), Err(text.to_owned()), "{ext}");
        }
    }

    #[test]
    fn wished_replays() {
        let of = |ext: &str| match ReplayWishes::of(&message(ext)).for_channel("/a") {
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
            (r#"{"replay":{"/a":{"0":12}}}"#, "12"),
            (r#"{"replay":{"/a":-3}}"#, "400:ext.replay:Malformed: expected -1, -2 or a position for each channel"),
            (r#"{"replay":{"/a":"x"}}"#, "400:ext.replay:Malformed: expected -1, -2 or a position for each channel"),
        ] {
            assert_eq!(of(ext), expected, "{ext}");
        }
    }
}
