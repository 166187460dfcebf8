//! The part of the configuration that the Redis engine wants.

use std::path::PathBuf;
#[cfg(feature = "redis")]
use std::time::Duration;

use serde::Deserialize;

use super::config::{Config, ConfigError, EngineKind};
use super::written::write_url;

/// The least time to live of a key in Redis: sweeps come every second.
#[cfg(feature = "redis")]
const MIN_KEY_TTL: Duration = Duration::from_secs(5);

/// How the Redis engine finds its Redis.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, serde::Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct RedisConfig {
    /// `redis://`, `rediss://` or `redis+unix://`; shown without its password. Empty: the engine is not used, or Redis is on
    /// this machine.
    #[serde(serialize_with = "write_url")]
    pub url: String,
    /// Before every key and channel. The same on all nodes.
    pub prefix: String,
    /// Certificates (PEM) to trust instead of the system's; empty for none.
    pub ca_file: PathBuf,
}

impl Default for RedisConfig {
    fn default() -> Self {
        Self { url: String::new(), prefix: "weft".to_owned(), ca_file: PathBuf::new() }
    }
}

impl Config {
    #[cfg(feature = "redis")]
    pub(super) fn check_redis(&self) -> Result<(), ConfigError> {
        use crate::engine::redis::RedisSettingsError;

        let wrong = |key, problem: String| Err(ConfigError::value(key, problem));
        // Braces would end the hash tag, spaces split what is announced.
        let plain = |symbol: char| symbol.is_ascii_alphanumeric() || "-_.:/".contains(symbol);
        if self.redis.prefix.is_empty() || self.redis.prefix.len() > 64 || !self.redis.prefix.chars().all(plain) {
            return wrong("redis.prefix", "must be 1 to 64 letters, digits or any of `-_.:/`".to_owned());
        }
        if self.engine() != EngineKind::Redis {
            return Ok(());
        }
        match self.redis_settings().check() {
            Ok(()) => Ok(()),
            Err(error @ RedisSettingsError::Certificates(..)) => wrong("redis.ca_file", error.to_string()),
            Err(error) => wrong("redis.url", error.to_string()),
        }
    }

    #[cfg(not(feature = "redis"))]
    pub(super) fn check_redis(&self) -> Result<(), ConfigError> {
        if self.engine() != EngineKind::Redis {
            return Ok(());
        }
        Err(ConfigError::value("engine", "this program was built without the Redis engine"))
    }

    #[cfg(feature = "redis")]
    pub(super) fn redis_settings(&self) -> crate::engine::redis::RedisSettings {
        let RedisConfig { url, prefix, ca_file } = self.redis.clone();
        let defaults = crate::engine::redis::RedisSettings::default();
        crate::engine::redis::RedisSettings {
            url: if url.is_empty() { defaults.url } else { url },
            prefix,
            ca_file: Some(ca_file).filter(|path| !path.as_os_str().is_empty()),
            timeout: self.timeout,
            log_entries: self.limits.log_entries,
            retained: self.limits.retained_channels,
            idempotency_window: self.idempotency_window,
            log_age: self.log_age(),
            // Longer than anything that is waited for, in whole seconds.
            key_ttl: (self.log_age() * 2).max(MIN_KEY_TTL),
            ..defaults
        }
    }
}
