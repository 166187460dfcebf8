//! The part of the configuration about what is kept for subscribers to come, and what is answered by the node itself.

use std::time::Duration;

use serde::Deserialize;

use super::config::{Config, ConfigError};
use super::written::{duration, write_duration};
use crate::bayeux::channel::Realm;
use crate::bayeux::{Channel, Pattern};
use crate::engine::Retention;
use crate::server::{RetentionRule, RetentionRules};

/// Rules that a configuration may have: each publish looks for its own.
const MAX_RULES: usize = 100;
/// Messages of one channel that may be retained: a replay counts through them.
const MAX_LENGTH: usize = 100_000;
/// No rule keeps longer.
const MAX_AGE: Duration = Duration::from_secs(30 * 24 * 3600);

/// `[[retention]]`: what is kept of the channels that a pattern covers. The first rule that covers a channel counts.
#[derive(Debug, Clone, PartialEq, Deserialize, serde::Serialize)]
#[serde(deny_unknown_fields)]
pub struct RetentionConfig {
    /// A channel or pattern.
    pub channels: String,
    /// Nothing older is replayed.
    #[serde(default = "default_age", deserialize_with = "duration", serialize_with = "write_duration")]
    pub age: Duration,
    /// Only so many of the newest messages of each channel are replayed.
    #[serde(default = "default_length")]
    pub length: usize,
    /// Whether subscribers may ask for a replay.
    #[serde(default = "default_replay")]
    pub replay: bool,
}

fn default_age() -> Duration {
    Duration::from_secs(24 * 3600)
}

fn default_length() -> usize {
    1000
}

fn default_replay() -> bool {
    true
}

/// `[services]`: what the node answers by itself.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, serde::Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct ServicesConfig {
    /// A channel below `/service` that answers each message with its own data, to try remote calls; empty for none.
    pub echo: String,
}

impl Config {
    pub(super) fn check_delivery(&self) -> Result<(), ConfigError> {
        let wrong = |key: &str, problem: String| Err(ConfigError::value(key, problem));
        if self.retention.len() > MAX_RULES {
            return wrong("retention", format!("must be at most {MAX_RULES} rules, not {}", self.retention.len()));
        }
        for (index, rule) in self.retention.iter().enumerate() {
            let wrong = |key, problem| wrong(&format!("retention[{index}].{key}"), problem);
            match Pattern::parse(&rule.channels).map(|pattern| pattern.realm()) {
                Ok(Realm::Broadcast) => {}
                Ok(_) => {
                    let problem =
                        format!("`{}` must be published to all, not lie below /meta or /service", rule.channels);
                    return wrong("channels", problem);
                }
                Err(_) => {
                    let problem = format!("`{}` is neither a channel nor a pattern such as /news/**", rule.channels);
                    return wrong("channels", problem);
                }
            }
            if rule.age < Duration::from_secs(1) || rule.age > MAX_AGE {
                return wrong("age", format!("of `{}` must be between 1s and 30days", rule.channels));
            }
            if rule.length == 0 || rule.length > MAX_LENGTH {
                return wrong("length", format!("of `{}` must be between 1 and {MAX_LENGTH}", rule.channels));
            }
        }
        if !self.max_inactivity.is_zero() && self.max_inactivity < self.timeout {
            return wrong(
                "max_inactivity",
                "must be 0 or at least `timeout`: clients connect no more often".to_owned(),
            );
        }
        if !self.services.echo.is_empty() {
            let below_service = |channel: Channel| channel.realm() == Realm::Service && channel.depth() > 1;
            if !Channel::parse(&self.services.echo).is_ok_and(below_service) {
                return wrong("services.echo", "must be a channel such as /service/echo".to_owned());
            }
        }
        Ok(())
    }

    /// The rules, which were checked.
    pub(super) fn retention_rules(&self) -> RetentionRules {
        let rule = |rule: &RetentionConfig| {
            Some(RetentionRule {
                channels: Pattern::parse(&rule.channels).ok()?,
                retention: Retention { age: rule.age, length: rule.length },
                replay: rule.replay,
            })
        };
        RetentionRules(self.retention.iter().filter_map(rule).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_that_cannot_be_name_their_key() {
        let rule = RetentionConfig { channels: "/news/**".to_owned(), age: default_age(), length: 1, replay: true };
        let problem = |rule: RetentionConfig| {
            let config = Config { retention: vec![rule], ..Config::default() };
            config.check().map_err(|error| error.to_string())
        };
        assert_eq!(problem(rule.clone()), Ok(()));
        for (wrong, key) in [
            (RetentionConfig { channels: "news".to_owned(), ..rule.clone() }, "`retention[0].channels`: `news`"),
            (RetentionConfig { channels: "/meta/*".to_owned(), ..rule.clone() }, "`retention[0].channels`: `/meta/*`"),
            (RetentionConfig { age: Duration::ZERO, ..rule.clone() }, "`retention[0].age`"),
            (RetentionConfig { length: 0, ..rule.clone() }, "`retention[0].length`"),
        ] {
            let error = problem(wrong).expect_err(key);
            assert!(error.starts_with(key), "{error}");
        }
        let echo = Config { services: ServicesConfig { echo: "/echo".to_owned() }, ..Config::default() };
        assert!(echo.check().expect_err("no service").to_string().starts_with("`services.echo`"));
    }

    #[test]
    fn the_first_rule_that_covers_a_channel_counts() {
        let rule = |channels: &str, length| RetentionConfig {
            channels: channels.to_owned(),
            age: default_age(),
            length,
            replay: true,
        };
        let config = Config { retention: vec![rule("/a/b", 1), rule("/a/**", 2)], ..Config::default() };
        let rules = config.retention_rules();
        let length = |name| rules.rule(&Channel::parse(name).expect("valid")).map(|rule| rule.retention.length);
        assert_eq!((length("/a/b"), length("/a/c/d"), length("/b")), (Some(1), Some(2), None));
    }
}
