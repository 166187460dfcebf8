//! Reads what the scripts answer.

use std::sync::Arc;

use ::redis::{FromRedisValue, Value};
use bytes::Bytes;

use super::scripts::Script;
use super::words;
use crate::bayeux::{Channel, Pattern};
use crate::engine::*;

/// The engine's only partition so far.
pub(super) const PARTITION: PartitionId = PartitionId(0);

/// A list whose first word says what the rest is.
pub(super) struct Reply<'a> {
    script: &'a Script,
    pub(super) kind: String,
    rest: std::vec::IntoIter<Value>,
}

pub(super) fn unexpected(script: &Script) -> EngineError {
    EngineError::Unavailable(format!("script `{}` gave an unexpected reply", script.name))
}

/// A value of the type that the script promises.
pub(super) fn read<T: FromRedisValue>(script: &Script, value: Value) -> Result<T, EngineError> {
    ::redis::from_redis_value(value).map_err(|_| unexpected(script))
}

/// One of the words that the script may say.
pub(super) fn outcome<T: Copy>(script: &Script, value: Value, words: &[(&str, T)]) -> Result<T, EngineError> {
    let said: String = read(script, value)?;
    words.iter().find(|(word, _)| *word == said).map(|(_, meaning)| *meaning).ok_or_else(|| unexpected(script))
}

impl<'a> Reply<'a> {
    pub(super) fn new(script: &'a Script, value: Value) -> Result<Self, EngineError> {
        let mut rest = read::<Vec<Value>>(script, value)?.into_iter();
        let kind = rest.next().ok_or_else(|| unexpected(script))?;
        Ok(Self { script, kind: read(script, kind)?, rest })
    }

    pub(super) fn next<T: FromRedisValue>(&mut self) -> Result<T, EngineError> {
        let value = self.rest.next().ok_or_else(|| unexpected(self.script))?;
        read(self.script, value)
    }

    /// All that is left, of one type.
    pub(super) fn rest<T: FromRedisValue>(&mut self) -> Result<Vec<T>, EngineError> {
        let script = self.script;
        self.rest.by_ref().map(|value| read(script, value)).collect()
    }

    pub(super) fn number(&mut self) -> Result<u64, EngineError> {
        self.next()
    }

    pub(super) fn position(&mut self) -> Result<Position, EngineError> {
        self.number().map(Position)
    }

    /// A number that may be missing.
    pub(super) fn maybe_position(&mut self) -> Result<Option<Position>, EngineError> {
        let text: String = self.next()?;
        if text.is_empty() { Ok(None) } else { text.parse().map(Position).map(Some).map_err(|_| self.unexpected()) }
    }

    /// A flag: `1` or nothing.
    pub(super) fn flag(&mut self) -> Result<bool, EngineError> {
        self.next::<String>().map(|text| text == "1")
    }

    pub(super) fn subscriptions(&mut self) -> Result<Vec<Subscription>, EngineError> {
        let pairs: Vec<(String, String)> = self.next()?;
        let subscription = |(pattern, start): (String, String)| {
            let pattern = Pattern::parse(&pattern).map_err(|_| self.unexpected())?;
            let (since, replay) = words::parse_start(&start).ok_or_else(|| self.unexpected())?;
            Ok(Subscription { pattern, since, replay })
        };
        pairs.into_iter().map(subscription).collect()
    }

    pub(super) fn deliveries(&mut self) -> Result<Vec<Arc<Delivery>>, EngineError> {
        let pairs: Vec<(u64, Vec<u8>)> = self.next()?;
        let delivery = |(position, message): (u64, Vec<u8>)| {
            delivery(Position(position), message.into()).ok_or_else(|| self.unexpected())
        };
        pairs.into_iter().map(delivery).collect()
    }

    pub(super) fn unexpected(&self) -> EngineError {
        unexpected(self.script)
    }
}

/// A message as it is stored: `<channel> <array>`. All of it is looked at here, once for all receivers: a text frame that is
/// no UTF-8 would cost each of them its socket.
pub(super) fn delivery(position: Position, message: Bytes) -> Option<Arc<Delivery>> {
    let (channel, _) = std::str::from_utf8(&message).ok()?.split_once(' ')?;
    let (space, channel) = (channel.len(), Channel::parse(channel).ok()?);
    Some(Arc::new(Delivery::new(PARTITION, position, channel, message.slice(space + 1..))))
}

/// The patterns of a session that ended.
pub(super) fn ended(session: &SessionId, patterns: Vec<String>) -> EndedSession {
    // All were parsed before they were stored.
    let patterns = patterns.iter().filter_map(|pattern| Pattern::parse(pattern).ok()).collect();
    EndedSession { session: session.clone(), patterns }
}

/// What each of so many steps said.
pub(super) fn said(
    script: &Script,
    value: Value,
    count: usize,
) -> Result<Vec<Result<Bytes, EngineError>>, EngineError> {
    let Value::Array(replies) = value else { return Err(unexpected(script)) };
    if replies.len() != count {
        return Err(unexpected(script));
    }
    let outcome = |reply| match reply {
        Value::BulkString(said) => match said.strip_prefix(b"!") {
            Some(error) => Err(EngineError::Unavailable(String::from_utf8_lossy(error).into_owned())),
            None => Ok(said.into()),
        },
        _ => Err(unexpected(script)),
    };
    Ok(replies.into_iter().map(outcome).collect())
}

/// One of the words that a step may say.
pub(super) fn word<T: Copy>(said: &[u8], words: &[(&str, T)]) -> Result<T, EngineError> {
    let found = words.iter().find(|(word, _)| word.as_bytes() == said);
    found.map(|(_, meaning)| *meaning).ok_or_else(|| unexpected_words(said))
}

fn unexpected_words(said: &[u8]) -> EngineError {
    // Not all of it: it may hold messages.
    let beginning = &said[..said.len().min(100)];
    EngineError::Unavailable(format!("a step said something unexpected: {}", beginning.escape_ascii()))
}

/// What an attach says.
pub(super) fn attach(said: &Bytes) -> Result<Attach, EngineError> {
    match &**said {
        b"late" => Ok(Attach::Late),
        b"closed" => Ok(Attach::Closed),
        b"unknown" => Ok(Attach::Unknown),
        _ => attached(said).map(Attach::Attached).ok_or_else(|| unexpected_words(said)),
    }
}

/// The fields of `scripts/attach.lua`, in their order.
fn attached(said: &Bytes) -> Option<Attached> {
    // All but the last, which holds messages, are text without tabs.
    let mut fields = said.strip_prefix(b"attached\t")?.splitn(12, |byte| *byte == b'\t');
    let mut next = || std::str::from_utf8(fields.next()?).ok();
    let number = |field: &str| field.parse::<u64>().ok();
    let (epoch, version) = (Epoch(number(next()?)?), Version(number(next()?)?));
    let cursor = Cursor::single(Position(number(next()?)?));
    let (ceiling, replays) = (next()?, words::parse_replays(next()?)?);
    let ceiling = match ceiling {
        "" => None,
        position => Some(Reach { cursor: Cursor::single(Position(number(position)?)), replays }),
    };
    let first = next()? == "1";
    let clock = Cursor::single(Position(number(next()?)?));
    let traits = words::parse_traits(next()?);
    let subscriptions = words::parse_subscriptions(next()?)?;
    let positions = next()?.split(' ').map(|head| Position(head.parse().unwrap_or_default()));
    let alone = next()?.bytes().map(|flag| flag == b'1').chain(std::iter::repeat(false));
    let heads = positions.zip(alone).map(|(position, alone)| Head { position, alone });
    let heads = heads.take(subscriptions.len()).collect();
    let unread = match fields.next()? {
        b"-" => None,
        // A copy: whoever keeps a message does not keep the rest.
        messages => Some(unread(Bytes::copy_from_slice(messages))?),
    };
    Some(Attached { epoch, version, subscriptions, heads, unread, cursor, ceiling, first, clock, traits })
}

/// `<position> <length> <message>` each, log by log; in order of position, and each once.
fn unread(mut messages: Bytes) -> Option<Vec<Arc<Delivery>>> {
    let mut deliveries = Vec::new();
    while !messages.is_empty() {
        let mut words = messages.splitn(3, |byte| *byte == b' ');
        let mut number = || std::str::from_utf8(words.next()?).ok()?.parse().ok();
        let (position, length) = (number()?, usize::try_from(number()?).ok()?);
        let rest = words.next()?;
        let start = messages.len() - rest.len();
        let end = start.checked_add(length).filter(|end| *end <= messages.len())?;
        deliveries.push(delivery(Position(position), messages.slice(start..end))?);
        messages = messages.slice(end..);
    }
    deliveries.sort_by_key(|delivery| delivery.position);
    deliveries.dedup_by_key(|delivery| delivery.position);
    Some(deliveries)
}

/// What became of each of so many published messages. `retained`: channels that may be.
pub(super) fn published(
    script: &Script,
    value: Value,
    count: usize,
    retained: usize,
) -> Result<Vec<Result<Published, EngineError>>, EngineError> {
    let replies: Vec<String> = read(script, value)?;
    if replies.len() != count {
        return Err(unexpected(script));
    }
    let outcome = |reply: &String| match (&**reply, reply.strip_prefix('!')) {
        ("=", _) => Ok(Published::Repeated),
        (_, Some("retained")) => Err(EngineError::TooManyRetained(retained)),
        (_, Some(error)) => Err(EngineError::Unavailable(error.to_owned())),
        (position, None) => {
            position.parse().map(|position| Published::Stored(Position(position))).map_err(|_| unexpected(script))
        }
    };
    Ok(replies.iter().map(outcome).collect())
}

/// What a node is told about a session: `superseded <session> <epoch> <connect id>`, `resubscribed <session> <version>`,
/// `company <session> -`, `doubtful <session> -`, `ended <session> <why>`.
pub(super) fn control(text: &str) -> Option<Control> {
    let mut words = text.splitn(4, ' ');
    let (kind, session) = (words.next()?, SessionId::from(words.next()?));
    let argument = words.next()?;
    let what = match kind {
        "superseded" => ControlKind::Superseded {
            epoch: Epoch(argument.parse().ok()?),
            connect_id: words.next().filter(|id| !id.is_empty()).map(Into::into),
        },
        "resubscribed" => ControlKind::Resubscribed { version: Version(argument.parse().ok()?) },
        "company" => ControlKind::Company,
        "doubtful" => ControlKind::Doubtful,
        "ended" => ControlKind::Ended(match argument {
            "disconnected" => Ended::Disconnected,
            "expired" => Ended::Expired,
            "gap" => Ended::Gap,
            "inactive" => Ended::Inactive,
            _ => return None,
        }),
        _ => return None,
    };
    Some(Control { session, what })
}

/// What one node alone is told: `log <pattern> ` and an [`announcement`]. Gives the name of the log, and where that begins.
pub(super) fn told_alone(payload: &[u8]) -> Option<(&str, usize)> {
    let rest = payload.strip_prefix(b"log ")?;
    let end = rest.iter().position(|byte| *byte == b' ')?;
    Some((std::str::from_utf8(&rest[..end]).ok()?, payload.len() - rest.len() + end + 1))
}

/// What is announced of a message: `<position> <position before> <channel> <array>`.
pub(super) fn announcement(payload: &Bytes) -> Option<(Position, Arc<Delivery>)> {
    let mut words = payload.splitn(3, |byte| *byte == b' ');
    let mut number = || std::str::from_utf8(words.next()?).ok()?.parse().ok().map(Position);
    let (position, previous) = (number()?, number()?);
    Some((previous, delivery(position, payload.slice_ref(words.next()?))?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn announcements() {
        let (previous, delivery) =
            announcement(&Bytes::from_static(b"1838487363846144 7 /a/b [{\"data\":\"x y\"}]")).expect("well formed");
        assert_eq!((previous, delivery.position), (Position(7), Position(1_838_487_363_846_144)));
        assert_eq!((delivery.channel.as_str(), &*delivery.array), ("/a/b", &b"[{\"data\":\"x y\"}]"[..]));
        for foreign in ["", "1", "1 2", "1 2 /a", "x 2 /a []", "1 2 /* []"] {
            assert!(announcement(&Bytes::from(foreign)).is_none(), "{foreign}");
        }
    }

    #[test]
    fn what_is_told_to_one_node() {
        let payload = b"log /a/* 12 7 /a/b [{}]";
        let (log, start) = told_alone(payload).expect("well formed");
        assert_eq!((log, &payload[start..]), ("/a/*", &b"12 7 /a/b [{}]"[..]));
        for foreign in ["log ", "log /a", "lag /a 12 7 /a []"] {
            assert!(told_alone(foreign.as_bytes()).is_none(), "{foreign}");
        }
    }

    fn attached(said: &str) -> Option<Attached> {
        match attach(&Bytes::copy_from_slice(said.as_bytes())) {
            Ok(Attach::Attached(attached)) => Some(attached),
            _ => None,
        }
    }

    #[test]
    fn attaches() {
        let said = "attached\t3\t1\t1838487363846144\t9\t5 7 /b\n\t1\t12\tar\t/a 4 /b 5:6:g /c 8\t4  9\t101\t-";
        let read = attached(said).expect("well formed");
        let pattern = |name| Pattern::parse(name).expect("valid");
        assert_eq!((read.epoch, read.version, read.first), (Epoch(3), Version(1), true));
        assert_eq!(read.cursor, Cursor::single(Position(1_838_487_363_846_144)));
        let replayed = Replayed { pattern: pattern("/b"), since: Position(5), upto: Position(7) };
        let ceiling = read.ceiling.expect("a ceiling");
        assert_eq!((ceiling.cursor, ceiling.replays), (Cursor::single(Position(9)), vec![replayed]));
        assert!(read.traits.ack && read.traits.resume && !read.traits.replay);
        let subscriptions = read.subscriptions.iter().map(|one| (one.pattern.clone(), one.since.0, one.replay));
        let expected = [(pattern("/a"), 4, None), (pattern("/b"), 5, Some(Position(6))), (pattern("/c"), 8, None)];
        assert!(subscriptions.eq(expected));
        let heads = [(4, true), (0, false), (9, true)];
        assert_eq!(read.heads, heads.map(|(position, alone)| Head { position: Position(position), alone }));
        assert_eq!(read.unread, None);

        let bare = attached("attached\t1\t0\t0\t\t\t\t0\t\t\t\t\t").expect("well formed");
        assert!(bare.subscriptions.is_empty() && bare.heads.is_empty() && bare.ceiling.is_none() && !bare.first);
        assert_eq!(bare.unread, Some(Vec::new()));
        for foreign in [
            "",
            "attached",
            "attached\t1",
            "attached\t1\t0\t0\t\t\t\t0\t\t\t\t",
            "attached\tx\t0\t0\t\t\t\t0\t\t\t\t\t-",
            "attached\t1\t0\t0\t\t\t\t0\t\t/a\t\t\t-",
        ] {
            assert!(attached(foreign).is_none(), "{foreign}");
        }
    }

    #[test]
    fn unread_messages() {
        let with = |messages: &str| attached(&format!("attached\t1\t0\t0\t\t\t\t0\t\t/a 1 /* 1\t9 9\t\t{messages}"));
        let given = |messages| with(messages).and_then(|attached| attached.unread);
        let found = given("7 9 /b [1, 2]9 9 /a [\"\t\n\"]7 9 /b [1, 2]").expect("well formed");
        let found: Vec<_> = found.iter().map(|one| (one.position.0, one.channel.as_str(), &*one.array)).collect();
        assert_eq!(found, [(7, "/b", &b"[1, 2]"[..]), (9, "/a", &b"[\"\t\n\"]"[..])]);
        for foreign in
            ["7", "7 8", "7 8 /b [1]", "x 6 /b [1]", "7 y /b [1]", "7 18446744073709551615 /b [1]", "7 3 [1]"]
        {
            assert!(given(foreign).is_none() && with(foreign).is_none(), "{foreign}");
        }
    }

    #[test]
    fn controls() {
        let what = |text| control(text).map(|control| control.what);
        let id = Some("\"a b\"".into());
        assert_eq!(what("superseded s 3 \"a b\""), Some(ControlKind::Superseded { epoch: Epoch(3), connect_id: id }));
        assert_eq!(what("superseded s 3 "), Some(ControlKind::Superseded { epoch: Epoch(3), connect_id: None }));
        assert_eq!(what("resubscribed s 4"), Some(ControlKind::Resubscribed { version: Version(4) }));
        assert_eq!(what("ended s gap"), Some(ControlKind::Ended(Ended::Gap)));
        for foreign in ["", "ended s", "ended s x", "superseded s x y", "hello s 1"] {
            assert_eq!(what(foreign), None, "{foreign}");
        }
    }
}
