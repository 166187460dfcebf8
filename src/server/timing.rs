//! What CometD's clients ask about time: the time synchronisation extension, and `timestamp` on replies. Stateless.

use std::time::{SystemTime, UNIX_EPOCH};

use super::claims::with_ext;
use crate::bayeux::{Dialect, Message, json};

/// A difference in milliseconds that is not worth telling a client which knows its lag already.
const ACCURATE: f64 = 25.0;

/// What one message asked for.
#[derive(Debug, Clone, Default)]
pub(super) struct Asked {
    timesync: Option<Timesync>,
    timestamp: bool,
}

/// The client's clock, its lag and its offset as it believes them, and when they came.
#[derive(Debug, Clone, Copy)]
struct Timesync {
    client: f64,
    lag: f64,
    offset: f64,
    received: u64,
}

impl Asked {
    /// What a message asks for when it arrives. Only CometD's clients do.
    pub(super) fn of(message: &Message, dialect: Dialect) -> Self {
        if dialect != Dialect::CometD {
            return Self::default();
        }
        let timestamp = message.rest.iter().any(|(name, _)| name == "timestamp");
        let timesync = json::member(message.ext.as_deref(), "timesync").and_then(|asked| {
            let number = |name| json::member(Some(asked), name)?.get().parse::<f64>().ok();
            let (client, lag, offset) = (number("tc")?, number("l").unwrap_or(0.0), number("o").unwrap_or(0.0));
            Some(Timesync { client, lag, offset, received: now() })
        });
        Self { timesync, timestamp }
    }

    /// The reply with what was asked for.
    pub(super) fn answer(&self, mut reply: Message) -> Message {
        self.put(&mut reply);
        reply
    }

    /// Puts what was asked for into the reply.
    pub(super) fn put(&self, reply: &mut Message) {
        if let Some(answer) = self.timesync.and_then(|asked| asked.answer(now())) {
            *reply = with_ext(std::mem::take(reply), &[("timesync", answer)]);
        }
        if self.timestamp {
            let stamp = humantime::format_rfc3339_millis(SystemTime::now()).to_string();
            reply.rest.push(("timestamp".to_owned(), json::quote(&stamp)));
        }
    }
}

impl Timesync {
    /// `tc` as it came, `ts` when it came, `p` how long it was here, `a` by how much the client is wrong; all in
    /// milliseconds. Nothing when the client is right.
    fn answer(self, now: u64) -> Option<String> {
        let accuracy = self.client + self.offset + self.lag - self.received as f64;
        if self.lag != 0.0 && accuracy.abs() < ACCURATE {
            return None;
        }
        let whole = |number: f64| number.round() as i64;
        Some(format!(
            "{{\"tc\":{},\"ts\":{},\"p\":{},\"a\":{}}}",
            whole(self.client),
            self.received,
            now.saturating_sub(self.received),
            whole(accuracy)
        ))
    }
}

/// Milliseconds since 1970.
fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_that_is_right_is_told_nothing() {
        let asked = Timesync { client: 1000.0, lag: 0.0, offset: 0.0, received: 5000 };
        assert_eq!(asked.answer(5003).as_deref(), Some(r#"{"tc":1000,"ts":5000,"p":3,"a":-4000}"#));
        assert_eq!(Timesync { lag: 10.0, offset: 3990.0, ..asked }.answer(5003), None);
        assert!(Timesync { lag: 10.0, offset: 3000.0, ..asked }.answer(5003).is_some());
    }
}
