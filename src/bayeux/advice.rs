//! Advice: how a client shall go on. Always sent complete, because clients replace the whole map (Java, aiocometd)
//! or fall back to their own defaults (JavaScript) for what is missing.

use serde::Serialize;
use serde_json::value::RawValue;

use super::json::Raw;

/// What the client shall do when its connect ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Reconnect {
    /// Connect again with the same session.
    Retry,
    /// Make a new session. Only ever on failed replies: a CometD client throws when a successful one carries it.
    Handshake,
    /// Stop.
    None,
}

/// The complete triple of the Bayeux advice field; times in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Advice {
    /// What to do next.
    pub reconnect: Reconnect,
    /// Milliseconds to wait before doing it.
    pub interval: u64,
    /// Milliseconds for which a connect may be held.
    pub timeout: u64,
}

impl Advice {
    /// The advice as JSON.
    pub fn to_raw(self) -> Raw {
        // Three plain fields: serialising cannot fail.
        serde_json::value::to_raw_value(&self).unwrap_or_else(|_| RawValue::NULL.to_owned())
    }
}

/// `advice.timeout` of a client's connect, in milliseconds: `None` when absent (hold as long as the server likes).
/// Zero, negative numbers, null and other types mean "answer at once", as in Faye.
pub fn requested_timeout_ms(advice: Option<&RawValue>) -> Option<u64> {
    #[derive(serde::Deserialize)]
    struct Request<'a> {
        #[serde(borrow, default, deserialize_with = "present")]
        timeout: Option<&'a RawValue>,
    }
    /// Serde takes `null` for an absent option; here it is a value of its own.
    fn present<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<&'de RawValue>, D::Error> {
        serde::Deserialize::deserialize(deserializer).map(Some)
    }
    let request: Request<'_> = serde_json::from_str(advice?.get()).ok()?;
    let milliseconds = request.timeout?.get().parse::<f64>().unwrap_or(0.0);
    // The cast saturates: negative becomes 0, huge becomes the largest number. The server clamps it.
    Some(milliseconds as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn advice_is_complete() {
        let advice = Advice { reconnect: Reconnect::Handshake, interval: 3, timeout: 45_000 };
        assert_eq!(advice.to_raw().get(), r#"{"reconnect":"handshake","interval":3,"timeout":45000}"#);
    }

    #[test]
    fn requested_timeouts() {
        let table = [
            (r#"{"timeout":0}"#, Some(0)),
            (r#"{"timeout":-5}"#, Some(0)),
            (r#"{"timeout":null}"#, Some(0)),
            (r#"{"timeout":"9"}"#, Some(0)),
            (r#"{"timeout":1500.7}"#, Some(1500)),
            (r#"{"timeout":1e300}"#, Some(u64::MAX)),
            (r#"{"interval":1}"#, None),
            ("5", None),
            ("null", None),
        ];
        for (text, expected) in table {
            let raw = RawValue::from_string(text.to_owned()).expect(text);
            assert_eq!(requested_timeout_ms(Some(&raw)), expected, "{text}");
        }
        assert_eq!(requested_timeout_ms(None), None);
    }
}
