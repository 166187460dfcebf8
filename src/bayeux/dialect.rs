//! Where the contracts of Faye and CometD disagree, the mount's dialect decides. A dialect is a value that the server
//! asks, not a second code path.

use std::fmt;
use std::str::FromStr;

use super::error::BayeuxError;

/// The Bayeux of Faye or that of CometD.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Dialect {
    /// As Faye 1.4 speaks it.
    #[default]
    Faye,
    /// As CometD 3 to 9 speak it.
    CometD,
}

impl Dialect {
    /// What a message with an unknown or ended session is told.
    pub fn unknown_client(self, client_id: &str) -> BayeuxError {
        match self {
            Self::Faye => BayeuxError { code: 401, argument: client_id.to_owned(), text: "Unknown client".into() },
            Self::CometD => BayeuxError { code: 402, argument: String::new(), text: "session_unknown".into() },
        }
    }

    /// What a message without `clientId` is told where one is needed.
    pub fn missing_client(self) -> BayeuxError {
        match self {
            Self::Faye => BayeuxError::missing("clientId"),
            Self::CometD => self.unknown_client(""),
        }
    }

    /// Whether a publish needs a living session. Faye never looks at the `clientId` of a publish.
    pub fn publish_needs_session(self) -> bool {
        self == Self::CometD
    }

    /// Whether subscribing to `/service/**` succeeds and records nothing (CometD), or is refused (Faye).
    pub fn ignores_service_subscriptions(self) -> bool {
        self == Self::CometD
    }

    /// Whether a handshake must name `version` and a connect its `connectionType`. CometD looks at neither.
    pub fn requires_version_and_types(self) -> bool {
        self == Self::Faye
    }

    /// Whether a poll's reply carries the events before the connect reply, so that the session does not look idle
    /// while they are written (CometD), or after it (Faye).
    pub fn events_come_first(self) -> bool {
        self == Self::CometD
    }

    /// Whether `advice.timeout: 0` on a lone connect says that the last connect failed. CometD's clients use a new
    /// message id then; Faye's repeat the old one, and send a zero timeout for other reasons.
    pub fn zero_timeout_is_retry(self) -> bool {
        self == Self::CometD
    }

    /// Whether clients send a publish again, under its id, when they are not sure of the first. Faye's do. CometD's never
    /// do, and start their ids anew when a page is loaded again: the same words under an old id are new ones there.
    pub fn repeats_publishes(self) -> bool {
        self == Self::Faye
    }

    /// Whether `advice.interval` may spread clients that must handshake. A refused Faye client otherwise handshakes
    /// hundreds of times a second; aiocometd takes the number for seconds, so in its dialect it stays 0.
    pub fn jitters_handshake(self) -> bool {
        self == Self::Faye
    }

    /// The name used in the configuration.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Faye => "faye",
            Self::CometD => "cometd",
        }
    }
}

impl fmt::Display for Dialect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Dialect {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "faye" => Ok(Self::Faye),
            "cometd" => Ok(Self::CometD),
            other => Err(format!("unknown dialect `{other}`: use `faye` or `cometd`")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_client_texts() {
        assert_eq!(Dialect::Faye.unknown_client("x").to_string(), "401:x:Unknown client");
        assert_eq!(Dialect::CometD.unknown_client("x").to_string(), "402::session_unknown");
        assert_eq!(Dialect::Faye.missing_client().to_string(), "402:clientId:Missing required parameter");
        assert_eq!(Dialect::CometD.missing_client().to_string(), "402::session_unknown");
    }
}
