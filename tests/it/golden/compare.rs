//! Comparison of an answer with what is expected: JSON as JSON, with placeholders for sessions and intervals.

use std::collections::HashMap;

use serde_json::Value;

use super::exchange::{Exchange, ExpectedBody, REAL_LENGTH, SOME_INTERVAL};
use crate::support::http::Response;

/// Sessions by the name they have in the records, and what a session id has to look like.
#[derive(Debug)]
pub struct Sessions {
    ids: HashMap<String, String>,
    well_formed: fn(&str) -> bool,
}

impl Sessions {
    /// No sessions yet.
    pub fn new(well_formed: fn(&str) -> bool) -> Self {
        Self { ids: HashMap::new(), well_formed }
    }

    /// Names a session.
    pub fn bind(&mut self, name: &str, id: &str) {
        self.ids.insert(name.to_owned(), id.to_owned());
    }

    /// Whether the name stands for a session by now.
    pub fn knows(&self, name: &str) -> bool {
        self.ids.contains_key(name)
    }

    /// The text with the names of known sessions replaced by their ids.
    pub fn fill_in(&self, text: &str) -> String {
        self.ids.iter().fold(text.to_owned(), |text, (name, id)| text.replace(&format!("{{{{{name}}}}}"), id))
    }

    /// Compares JSON; a session that is named for the first time gets the id that stands there.
    pub fn alike(&mut self, expected: &Value, actual: &Value) -> Result<(), String> {
        let differs = || Err(format!("expected {expected}, got {actual}"));
        match (expected, actual) {
            (Value::String(pattern), Value::String(text)) => {
                let filled = self.fill_in(pattern);
                if filled == *text {
                    return Ok(());
                }
                let name = filled.strip_prefix("{{").and_then(|rest| rest.strip_suffix("}}"));
                match name {
                    Some(name) if (self.well_formed)(text) => self.bind(name, text),
                    None if filled == "<new id>" && (self.well_formed)(text) => {}
                    _ => return differs(),
                }
                Ok(())
            }
            (Value::String(pattern), Value::Number(number)) if pattern == SOME_INTERVAL => {
                if number.as_u64().is_some_and(|interval| interval <= 60_000) { Ok(()) } else { differs() }
            }
            (Value::Array(left), Value::Array(right)) if left.len() == right.len() => {
                left.iter().zip(right).try_for_each(|(left, right)| self.alike(left, right))
            }
            (Value::Object(left), Value::Object(right)) if left.len() == right.len() => {
                left.iter().try_for_each(|(key, left)| match right.get(key) {
                    Some(right) => self.alike(left, right),
                    None => Err(format!("{key} is missing in {actual}")),
                })
            }
            _ if expected == actual => Ok(()),
            _ => differs(),
        }
    }

    /// Compares a whole HTTP answer.
    pub fn answer_alike(&mut self, expected: &Exchange, actual: &Response) -> Result<(), String> {
        if actual.status != expected.status {
            return Err(format!("status {}, expected {}: {}", actual.status, expected.status, actual.text()));
        }
        for (name, value) in &expected.headers {
            header_alike(name, value, actual)?;
        }
        match &expected.body {
            ExpectedBody::Anything => Ok(()),
            ExpectedBody::Text(text) if *text == actual.text() => Ok(()),
            ExpectedBody::Text(text) => Err(format!("body {:?}, expected {text:?}", actual.text())),
            ExpectedBody::Json { before, value, after } => {
                let text = actual.text();
                let inner = text.strip_prefix(before.as_str()).and_then(|text| text.strip_suffix(after.as_str()));
                let inner = inner.ok_or_else(|| format!("body {text:?}, expected {before}...{after}"))?;
                let actual: Value = serde_json::from_str(inner).map_err(|error| format!("{error}: {inner}"))?;
                self.alike(value, &actual)
            }
        }
    }
}

fn header_alike(name: &str, expected: &str, response: &Response) -> Result<(), String> {
    let actual = response.headers.get(name).map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned());
    let actual = actual.ok_or_else(|| format!("header {name} is missing, expected {expected}"))?;
    let alike = match (name, expected) {
        (_, REAL_LENGTH) => actual == response.body.len().to_string(),
        ("vary", _) => actual.to_ascii_lowercase().contains(&expected.to_ascii_lowercase()),
        // Tokens, not text.
        ("connection" | "upgrade", _) => actual.eq_ignore_ascii_case(expected),
        _ => actual == expected,
    };
    if alike { Ok(()) } else { Err(format!("header {name}: {actual}, expected {expected}")) }
}
