//! What the Redis engine is told, and how its address is read.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use redis::io::tcp::TcpSettings;
use redis::{ConnectionAddr, ConnectionInfo, IntoConnectionInfo, ProtocolVersion, RedisError};

/// Settings of the Redis engine. Every node of a cluster must have the same ages and prefix.
#[derive(Clone, PartialEq, Eq)]
pub struct RedisSettings {
    /// `redis://user:password@host:port/database`, `rediss://` for TLS, `redis+unix:///path?db=0` for a socket.
    pub url: String,
    /// Before every key and channel: several clusters can share one Redis.
    pub prefix: String,
    /// Certificates (PEM) to trust instead of those of the system.
    pub ca_file: Option<PathBuf>,
    /// How long a connect is held: sessions get so long to come back when Redis was away.
    pub timeout: Duration,
    /// Entries that one log keeps (a little more, since Redis trims in blocks).
    pub log_entries: usize,
    /// How long an entry is kept.
    pub log_age: Duration,
    /// Time to live of keys that nobody refreshes. Longer than any session lives without being heard of.
    pub key_ttl: Duration,
    /// Channels that are retained; publishes to more are refused.
    pub retained: usize,
    /// For so long a repeated publish is recognised, at least; zero for not at all.
    pub idempotency_window: Duration,
    /// Publishes that are remembered for it, in each of two generations.
    pub fingerprints: usize,
    /// Events that may wait in the node's feed before it is taken for broken.
    pub feed_events: usize,
    /// Bytes of messages that may wait there (one message may exceed it).
    pub feed_bytes: usize,
    /// How long a command may take.
    pub command_timeout: Duration,
    /// How long connecting may take.
    pub connect_timeout: Duration,
    /// The scripts' clock can be moved on by [`super::RedisNode::advance`]: for tests.
    pub time_travel: bool,
}

/// Why the settings cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RedisSettingsError {
    /// The URL says nothing that Redis could be reached by.
    #[error(
        "`{0}` is no address of a Redis: use redis://[user:password@]host[:port][/database], rediss://… or redis+unix:///path[?db=N] (special characters in a password as %XX)"
    )]
    Url(String),
    /// The certificates cannot be read.
    #[error("cannot read certificates from {0}: {1}")]
    Certificates(PathBuf, std::io::Error),
    /// The client refuses the combination.
    #[error("cannot set up the connection to Redis: {0}")]
    Client(String),
}

impl Default for RedisSettings {
    fn default() -> Self {
        let log_age = Duration::from_secs(195);
        Self {
            url: "redis://127.0.0.1:6379/0".to_owned(),
            prefix: "weft".to_owned(),
            ca_file: None,
            timeout: Duration::from_secs(45),
            log_entries: 10_000,
            log_age,
            key_ttl: log_age * 2,
            retained: 100_000,
            idempotency_window: Duration::from_secs(60),
            fingerprints: 500_000,
            feed_events: 16_384,
            feed_bytes: 64 << 20,
            command_timeout: Duration::from_secs(4),
            connect_timeout: Duration::from_secs(2),
            time_travel: false,
        }
    }
}

impl fmt::Debug for RedisSettings {
    /// Without the password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisSettings")
            .field("url", &redacted(&self.url))
            .field("prefix", &self.prefix)
            .field("timeout", &self.timeout)
            .finish_non_exhaustive()
    }
}

/// The URL as people may see it.
pub fn redacted(url: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else { return url.to_owned() };
    // A password may stand before the host, and in the query of a socket's URL.
    let (rest, query) = rest.split_once('?').map_or((rest, None), |(rest, query)| (rest, Some(query)));
    let rest = match rest.rsplit_once('@') {
        Some((login, host)) => {
            // Without a colon it may be a password that somebody took for one.
            let user = login.split_once(':').map_or("***", |(user, _)| user);
            format!("{user}:***@{host}")
        }
        None => rest.to_owned(),
    };
    let hide = |pair: &str| match pair.split_once('=') {
        Some(("pass", _)) => "pass=***".to_owned(),
        _ => pair.to_owned(),
    };
    let query = query.map(|query| format!("?{}", query.split('&').map(hide).collect::<Vec<_>>().join("&")));
    format!("{scheme}://{rest}{}", query.unwrap_or_default())
}

impl RedisSettings {
    /// The address as the client library takes it. RESP3, which brings announcements and replies on one connection.
    pub(super) fn connection(&self) -> Result<ConnectionInfo, RedisSettingsError> {
        let wrong = |_: RedisError| RedisSettingsError::Url(redacted(&self.url));
        let info = self.url.as_str().into_connection_info().map_err(wrong)?;
        // The library would ignore them in silence.
        let tail = self.url.split_once(['?', '#']).map(|(_, tail)| tail);
        let of_socket = matches!(info.addr(), ConnectionAddr::Unix(_));
        if tail.is_some_and(|tail| !of_socket || tail.contains('#')) {
            return Err(RedisSettingsError::Url(redacted(&self.url)));
        }
        let tcp = TcpSettings::default().set_nodelay(true);
        let redis = info
            .redis_settings()
            .clone()
            .set_protocol(ProtocolVersion::RESP3)
            .set_lib_name("weft", env!("CARGO_PKG_VERSION"));
        let info = info.set_tcp_settings(tcp).set_redis_settings(redis);
        self.with_certificates(info)
    }

    /// Whether the settings make sense.
    ///
    /// # Errors
    /// [`RedisSettingsError`].
    pub fn check(&self) -> Result<(), RedisSettingsError> {
        self.connection().map(|_| ())
    }

    #[cfg(feature = "tls")]
    fn with_certificates(&self, info: ConnectionInfo) -> Result<ConnectionInfo, RedisSettingsError> {
        // The library asks the process for its cryptography; who has chosen one already keeps it.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let Some(path) = &self.ca_file else { return Ok(info) };
        let read = std::fs::read(path).map_err(|error| RedisSettingsError::Certificates(path.clone(), error))?;
        let certificates = redis::TlsCertificates { client_tls: None, root_cert: Some(read) };
        let client = redis::Client::build_with_tls(info, certificates);
        client
            .map(|client| client.get_connection_info().clone())
            .map_err(|error| RedisSettingsError::Client(error.to_string()))
    }

    #[cfg(not(feature = "tls"))]
    fn with_certificates(&self, info: ConnectionInfo) -> Result<ConnectionInfo, RedisSettingsError> {
        Ok(info)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with_url(url: &str) -> RedisSettings {
        RedisSettings { url: url.to_owned(), ..RedisSettings::default() }
    }

    #[test]
    fn addresses() {
        for good in
            ["redis://h", "redis://h:1/2", "redis://u:p@h:1/2", "redis+unix:///tmp/r.sock?db=1&pass=x", "unix:///tmp/r"]
        {
            assert!(with_url(good).check().is_ok(), "{good}");
        }
        for bad in ["", "h:6379", "http://h", "redis://h:x", "redis://h/0?db=3", "rediss://h#insecure"] {
            assert!(with_url(bad).check().is_err(), "{bad}");
        }
        #[cfg(feature = "tls")]
        assert!(with_url("rediss://h:1").check().is_ok());
    }

    #[test]
    fn passwords_are_not_shown() {
        assert_eq!(redacted("redis://me:secret@h:1/2"), "redis://me:***@h:1/2");
        assert_eq!(redacted("redis://secret@h"), "redis://***:***@h");
        assert_eq!(redacted("redis://:se@cret@h"), "redis://:***@h");
        assert_eq!(redacted("unix:///r?db=1&pass=secret"), "unix:///r?db=1&pass=***");
        assert_eq!(redacted("redis://h:1"), "redis://h:1");
        assert!(!format!("{:?}", with_url("redis://:secret@h")).contains("secret"));
    }
}
