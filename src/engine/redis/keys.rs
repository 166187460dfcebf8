//! Names of keys and channels. All keys of a partition share one hash tag, so that one script may touch them all.

use crate::bayeux::Pattern;
use crate::engine::{NodeId, PartitionId};

/// The names of one partition.
#[derive(Debug, Clone)]
pub(super) struct Keys {
    /// Before every key: `{weft:0}:`.
    root: String,
    /// Before every pub/sub channel. Channels do not know databases, so the number is part of it.
    announce: String,
}

impl Keys {
    /// The names under `prefix` in database number `database`.
    pub(super) fn new(prefix: &str, partition: PartitionId, database: i64) -> Self {
        let root = format!("{{{prefix}:{}}}:", partition.0);
        Self { announce: format!("{root}@{database}:"), root }
    }

    pub(super) fn root(&self) -> &str {
        &self.root
    }

    pub(super) fn announce(&self) -> &str {
        &self.announce
    }

    /// The sorted set of sessions by deadline: who is in it lives.
    pub(super) fn deadlines(&self) -> String {
        format!("{}deadlines", self.root)
    }

    /// By how much the clock of the scripts is ahead: for tests.
    pub(super) fn skew(&self) -> String {
        format!("{}skew", self.root)
    }

    /// Where news about sessions that this node holds are announced.
    pub(super) fn node_channel(&self, node: &NodeId) -> String {
        format!("{}node:{node}", self.announce)
    }

    /// Where messages of a log are announced.
    pub(super) fn log_channel(&self, log: &Pattern) -> String {
        format!("{}log:{log}", self.announce)
    }

    /// The name of the log whose channel this is.
    pub(super) fn log_of<'a>(&self, channel: &'a str) -> Option<&'a str> {
        channel.strip_prefix(&*self.announce)?.strip_prefix("log:")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_tag_and_no_clash_between_databases() {
        let keys = Keys::new("weft", PartitionId(3), 2);
        assert_eq!(keys.deadlines(), "{weft:3}:deadlines");
        let log = Pattern::parse("/a/*").expect("valid");
        let channel = keys.log_channel(&log);
        assert_eq!(channel, "{weft:3}:@2:log:/a/*");
        assert_eq!(keys.log_of(&channel), Some(log.as_str()));
        assert_eq!(Keys::new("weft", PartitionId(3), 1).log_of(&channel), None);
    }
}
