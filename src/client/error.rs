//! What can go wrong for the user of a client, and what a server refuses.

use std::fmt;

/// Why a client could not do what it was asked to.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ClientError {
    /// The address is none of a Bayeux server.
    #[error("not an http, https, ws or wss URL: {0}")]
    Url(String),
    /// A header that cannot be sent.
    #[error("not a header: {0}")]
    Header(String),
    /// TLS cannot be set up.
    #[error("TLS: {0}")]
    Tls(String),
    /// The payload cannot be written as JSON.
    #[error("payload is not JSON: {0}")]
    Payload(String),
    /// The server said no.
    #[error("refused: {0}")]
    Refused(Refusal),
    /// There was no connection in time; what went wrong last.
    #[error("no connection: {0}")]
    Unreachable(String),
    /// No answer came in time. Whether it was done is unknown.
    #[error("no answer in time; whether it was done is unknown")]
    TimedOut,
    /// The server wants this client to stop, for this reason.
    #[error("ended by the server: {0}")]
    Stopped(String),
    /// The client was closed.
    #[error("the client is closed")]
    Closed,
}

/// A Bayeux error, `code:argument,...:text`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// As in HTTP: 401 for an unknown session, 403 for what is forbidden, 413 for what is too large. 0 when the server
    /// gave none.
    pub code: u16,
    /// What it is about: a channel, a field.
    pub arguments: Vec<String>,
    /// For people.
    pub text: String,
}

impl Refusal {
    /// Reads the error of a reply. A text of another form is taken whole.
    pub(super) fn parse(error: &str) -> Self {
        let mut parts = error.splitn(3, ':');
        let (code, arguments, text) = (parts.next(), parts.next(), parts.next());
        match (code.and_then(|code| code.parse().ok()), arguments, text) {
            (Some(code), Some(arguments), Some(text)) => Self {
                code,
                arguments: arguments.split(',').filter(|part| !part.is_empty()).map(str::to_owned).collect(),
                text: text.to_owned(),
            },
            _ => Self { code: 0, arguments: Vec::new(), text: error.to_owned() },
        }
    }

    pub(super) fn new(code: u16, text: impl Into<String>) -> Self {
        Self { code, arguments: Vec::new(), text: text.into() }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.code == 0 {
            return f.write_str(&self.text);
        }
        write!(f, "{} {}", self.code, self.text)?;
        if !self.arguments.is_empty() {
            write!(f, " ({})", self.arguments.join(", "))?;
        }
        Ok(())
    }
}

/// Why a link came to its end, or did not begin.
#[derive(Debug, thiserror::Error)]
pub(super) enum LinkError {
    #[error("{0}")]
    Io(#[from] std::io::Error),
    #[error("no answer in time: {0}")]
    Late(&'static str),
    #[error("closed by the server")]
    Closed,
    /// The server answers, but gives no WebSocket.
    #[error("no WebSocket: {0}")]
    NoSocket(String),
    /// A frame or body was larger than the server takes.
    #[error("too large for the server")]
    TooLarge,
    #[error("HTTP status {0}")]
    Status(u16),
    #[error("not Bayeux: {0}")]
    Malformed(String),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals() {
        let refusal = Refusal::parse("403:/a,/b:Forbidden: really");
        assert_eq!((refusal.code, refusal.text.as_str()), (403, "Forbidden: really"));
        assert_eq!(refusal.arguments, ["/a", "/b"]);
        assert_eq!(refusal.to_string(), "403 Forbidden: really (/a, /b)");
        assert_eq!(Refusal::parse("401::Unknown client").to_string(), "401 Unknown client");
        for odd in ["", "no", "x:y:z", "70000::z"] {
            assert_eq!(Refusal::parse(odd), Refusal::new(0, odd), "{odd}");
        }
    }
}
