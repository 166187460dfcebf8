//! Which channels are kept for subscribers to come, and who may ask for what is kept.

use crate::bayeux::{Channel, Pattern};
use crate::engine::Retention;

/// What is kept of the channels that a pattern covers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RetentionRule {
    /// The channels.
    pub channels: Pattern,
    /// How much of each.
    pub retention: Retention,
    /// Whether subscribers may ask for a replay of it.
    pub replay: bool,
}

/// The rules, in the order of the configuration.
#[derive(Debug, Clone, Default)]
pub struct RetentionRules(pub Vec<RetentionRule>);

impl RetentionRules {
    /// The first rule that covers the channel.
    pub fn rule(&self, channel: &Channel) -> Option<&RetentionRule> {
        self.0.iter().find(|rule| rule.channels.matches(channel))
    }

    /// Whether a subscriber of `pattern` might see, in what was before, a channel whose past is nobody's business.
    pub fn hides(&self, pattern: &Pattern) -> bool {
        self.0.iter().any(|rule| !rule.replay && rule.channels.overlaps(pattern))
    }
}
