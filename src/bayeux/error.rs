//! Bayeux error strings: `<code>:<arguments>:<text>`. Clients branch on little more than the code, but Faye's client
//! parses the form, and people read the text.

use std::borrow::Cow;
use std::fmt;

/// An error as it goes into the `error` field of a reply.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BayeuxError {
    /// Three digits in the manner of HTTP.
    pub code: u16,
    /// What the error is about: a channel, a client id, a field.
    pub argument: String,
    /// For people.
    pub text: Cow<'static, str>,
}

impl BayeuxError {
    fn new(code: u16, argument: impl Into<String>, text: &'static str) -> Self {
        Self { code, argument: argument.into(), text: Cow::Borrowed(text) }
    }

    /// `301`: none of the connection types (joined by commas) is known.
    pub fn connection_types(types: impl Into<String>) -> Self {
        Self::new(301, types, "Connection types not supported")
    }

    /// `402`: a field is missing.
    pub fn missing(field: &'static str) -> Self {
        Self::new(402, field, "Missing required parameter")
    }

    /// `400`: a field is not of the form that it should have; `expected` says which.
    pub fn malformed(field: &'static str, expected: &str) -> Self {
        Self { code: 400, argument: field.to_owned(), text: Cow::Owned(format!("Malformed: expected {expected}")) }
    }

    /// `403`: the peer may not do that; `text` says what.
    pub fn refused(argument: impl Into<String>, text: &'static str) -> Self {
        Self::new(403, argument, text)
    }

    /// An error that somebody else has written, in Bayeux' form or not.
    pub fn verbatim(text: String) -> Self {
        let mut parts = text.splitn(3, ':');
        let code = parts.next().filter(|code| code.len() == 3).and_then(|code| code.parse().ok());
        match (code, parts.next(), parts.next()) {
            (Some(code), Some(argument), Some(rest)) => {
                Self { code, argument: argument.to_owned(), text: Cow::Owned(rest.to_owned()) }
            }
            _ => Self { code: 500, argument: String::new(), text: Cow::Owned(text) },
        }
    }

    /// `403`: the channel is not for this peer.
    pub fn forbidden_channel(channel: impl Into<String>) -> Self {
        Self::new(403, channel, "Forbidden channel")
    }

    /// `405`: not a channel name.
    pub fn invalid_channel(channel: impl Into<String>) -> Self {
        Self::new(405, channel, "Invalid channel")
    }

    /// A bound of this server was reached; `text` says which, and how large it is.
    pub fn limit(code: u16, argument: impl Into<String>, text: String) -> Self {
        Self { code, argument: argument.into(), text: Cow::Owned(text) }
    }

    /// `503`: the server cannot do it now; trying again later is right.
    pub fn unavailable(text: &'static str) -> Self {
        Self::new(503, "", text)
    }
}

impl fmt::Display for BayeuxError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}", self.code, self.argument, self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_of_the_wire_contract() {
        let table = [
            (BayeuxError::connection_types("iframe,flash"), "301:iframe,flash:Connection types not supported"),
            (BayeuxError::missing("version"), "402:version:Missing required parameter"),
            (BayeuxError::forbidden_channel("/meta/x"), "403:/meta/x:Forbidden channel"),
            (BayeuxError::invalid_channel(""), "405::Invalid channel"),
            (BayeuxError::verbatim("404:order 7:No: not there".to_owned()), "404:order 7:No: not there"),
            (BayeuxError::verbatim("no such order".to_owned()), "500::no such order"),
        ];
        for (error, text) in table {
            assert_eq!(error.to_string(), text);
        }
    }
}
