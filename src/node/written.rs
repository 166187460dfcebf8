//! Values of the configuration as people write them: durations, addresses, mounts. Errors say what is allowed.

use std::net::SocketAddr;
use std::time::Duration;

use serde::{Deserialize, Deserializer};

use crate::transport::Mount;

/// A duration as people write it: `45s`, `500ms`, `1m 30s`, or plain seconds.
pub(super) fn duration<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged, expecting = "no duration; write `45s`, `500ms` or plain seconds")]
    enum Written {
        Seconds(f64),
        Text(String),
    }
    let parsed = match Written::deserialize(deserializer)? {
        Written::Seconds(seconds) => Duration::try_from_secs_f64(seconds).map_err(|error| error.to_string()),
        Written::Text(text) => parse_duration(&text),
    };
    parsed.map_err(|problem| serde::de::Error::custom(format!("{problem}; write `45s`, `500ms` or plain seconds")))
}

fn parse_duration(text: &str) -> Result<Duration, String> {
    if let Ok(seconds) = text.trim().parse::<f64>() {
        return Duration::try_from_secs_f64(seconds).map_err(|error| error.to_string());
    }
    humantime::parse_duration(text).map_err(|_| format!("invalid duration `{text}`"))
}

pub(super) fn write_duration<S: serde::Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&humantime::format_duration(*duration))
}

/// Without the password: what is printed ends in logs and tickets.
pub(super) fn write_url<S: serde::Serializer>(url: &str, serializer: S) -> Result<S::Ok, S::Error> {
    #[cfg(feature = "redis")]
    let url = &crate::engine::redis::redacted(url);
    serializer.serialize_str(url)
}

pub(super) fn address<'de, D: Deserializer<'de>>(deserializer: D) -> Result<SocketAddr, D::Error> {
    let text = String::deserialize(deserializer)?;
    let form = "write an IP address and a port, such as `127.0.0.1:8000` or `[::1]:8000`";
    text.parse().map_err(|_| serde::de::Error::custom(format_args!("invalid address `{text}`: {form}")))
}

/// A list of mounts, or (from the environment) one text with commas.
pub(super) fn mounts<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Mount>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged, expecting = "no mounts; write `[\"/bayeux\", \"/cometd=cometd\"]`")]
    enum Written {
        List(Vec<String>),
        Text(String),
    }
    let texts = match Written::deserialize(deserializer)? {
        Written::List(list) => list,
        Written::Text(text) => text.split(',').map(|mount| mount.trim().to_owned()).collect(),
    };
    texts.iter().map(|text| text.parse().map_err(serde::de::Error::custom)).collect()
}

pub(super) fn write_mounts<S: serde::Serializer>(mounts: &[Mount], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(mounts.iter().map(ToString::to_string))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_as_people_write_them() {
        let table = [("45s", 45_000), ("500ms", 500), ("45", 45_000), ("0.5", 500), ("1m 30s", 90_000)];
        for (text, millis) in table {
            assert_eq!(parse_duration(text), Ok(Duration::from_millis(millis)), "{text}");
        }
        for text in ["", "-1", "5 apples", "1e99"] {
            assert!(parse_duration(text).is_err(), "{text}");
        }
    }
}
