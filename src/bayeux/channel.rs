//! Channel names: grammar, matching, and the expansion of a channel into the patterns that cover it.
//!
//! Parsing is the only way to get a [`Channel`] or a [`Pattern`], so code that holds one needs no error path.
//! `/service/**` is private between a client and the server: patterns outside `/service` never cover it.

use std::borrow::Borrow;
use std::fmt;
use std::sync::Arc;

use smallvec::SmallVec;

/// A channel that can be published to: `/chat/room1`. Cheap to clone.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Channel(Arc<str>);

/// What can be subscribed to: a channel, or a pattern that ends in `/*` (one segment) or `/**` (one or more).
/// Cheap to clone. Each pattern with subscribers has a log of its own in the engine.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Pattern(Arc<str>);

/// Patterns that cover one channel. Eight fit without an allocation: channels up to six segments deep.
pub type Expansion = SmallVec<[Pattern; 8]>;

/// Why a name is not a channel (`CHANNEL_NAME` of the Bayeux grammar) or not a pattern (`CHANNEL_PATTERN`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ChannelError {
    /// Not of the form `/segment/segment`, or a character outside `A-Z a-z 0-9 - _ ! ~ ( ) $ @`.
    #[error("not a channel name")]
    Grammar,
    /// A wildcard where a plain channel is needed.
    #[error("a wildcard pattern cannot be published to")]
    Wildcard,
}

/// Who may use a channel, told by its first segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Realm {
    /// `/meta/**`: the protocol itself.
    Meta,
    /// `/service/**`: between one client and the server.
    Service,
    /// Everything else: delivered to all subscribers.
    Broadcast,
}

fn realm(name: &str) -> Realm {
    match name.split('/').nth(1) {
        Some("meta") => Realm::Meta,
        Some("service") => Realm::Service,
        _ => Realm::Broadcast,
    }
}

fn is_channel_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'!' | b'~' | b'(' | b')' | b'$' | b'@')
}

/// `(/[A-Za-z0-9\-_!~()$@]+)+`, and the empty string when `may_be_empty` (the stem of `/*`).
fn is_name(name: &str, may_be_empty: bool) -> bool {
    if name.is_empty() {
        return may_be_empty;
    }
    let mut last = 0;
    for byte in name.bytes() {
        let fits = if byte == b'/' { last != b'/' } else { is_channel_byte(byte) && last != 0 };
        if !fits {
            return false;
        }
        last = byte;
    }
    last != b'/'
}

impl Channel {
    /// Takes a channel name; gives [`ChannelError`] for anything that the grammar does not allow.
    pub fn parse(name: &str) -> Result<Self, ChannelError> {
        if is_name(name, false) {
            return Ok(Self(name.into()));
        }
        Err(if Pattern::parse(name).is_ok() { ChannelError::Wildcard } else { ChannelError::Grammar })
    }

    /// The pattern that covers this channel alone.
    pub fn to_pattern(&self) -> Pattern {
        Pattern(self.0.clone())
    }

    /// The name as the publisher wrote it.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Meta, service or broadcast.
    pub fn realm(&self) -> Realm {
        realm(&self.0)
    }

    /// Every pattern that covers this channel, most special first: `/a/b` gives `/a/b`, `/a/*`, `/a/**`, `/**`.
    /// Patterns outside `/service` are left out for a service channel: it is never broadcast.
    pub fn expand(&self) -> Expansion {
        let mut expansion = Expansion::new();
        expansion.push(self.to_pattern());
        // One buffer for all of them: each is made in it, and copied into an allocation of its own.
        let mut text = String::with_capacity(self.0.len() + 3);
        self.wildcards(|stem, wildcard| {
            text.clear();
            text.push_str(stem);
            text.push_str(wildcard);
            expansion.push(Pattern(text.as_str().into()));
        });
        expansion
    }

    /// As [`Channel::expand`], as one text: the patterns divided by spaces, of which no name has one. Appended to `text`.
    pub fn expand_into(&self, text: &mut String) {
        text.push_str(&self.0);
        self.wildcards(|stem, wildcard| {
            text.push(' ');
            text.push_str(stem);
            text.push_str(wildcard);
        });
    }

    /// The patterns that cover this channel besides itself, each in two parts.
    fn wildcards(&self, mut put: impl FnMut(&str, &str)) {
        let name = &*self.0;
        let shared = self.realm() == Realm::Broadcast;
        let mut put = |stem: &str, wildcard: &str| {
            if !stem.is_empty() || shared {
                put(stem, wildcard);
            }
        };
        // The name starts with a slash (grammar), so there is always a last one.
        let mut cut = name.rfind('/').unwrap_or(0);
        put(&name[..cut], "/*");
        loop {
            put(&name[..cut], "/**");
            match name[..cut].rfind('/') {
                Some(earlier) => cut = earlier,
                None => return,
            }
        }
    }

    /// How many segments the name has: 2 for `/chat/room1`.
    pub fn depth(&self) -> usize {
        depth(&self.0)
    }
}

fn depth(name: &str) -> usize {
    name.bytes().filter(|byte| *byte == b'/').count()
}

impl Pattern {
    /// Takes a channel name or a wildcard pattern; gives [`ChannelError::Grammar`] for anything else.
    pub fn parse(name: &str) -> Result<Self, ChannelError> {
        let stem = name.strip_suffix("/**").or_else(|| name.strip_suffix("/*"));
        let valid = match stem {
            Some(stem) => is_name(stem, true),
            None => is_name(name, false),
        };
        if valid { Ok(Self(name.into())) } else { Err(ChannelError::Grammar) }
    }

    /// The pattern as the subscriber wrote it.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Meta, service or broadcast. `/**` and `/*` are broadcast.
    pub fn realm(&self) -> Realm {
        realm(&self.0)
    }

    /// How many segments the pattern has.
    pub fn depth(&self) -> usize {
        depth(&self.0)
    }

    /// The channel, unless it is a wildcard.
    pub fn as_channel(&self) -> Option<Channel> {
        // Of the wildcards each ends in a star, which no channel does.
        (!self.0.ends_with('*')).then(|| Channel(self.0.clone()))
    }

    /// Whether some channel belongs to both.
    pub fn overlaps(&self, other: &Self) -> bool {
        let (mut one, mut two) = (self.0.split('/').skip(1), other.0.split('/').skip(1));
        loop {
            match (one.next(), two.next()) {
                (Some("**"), Some(_)) | (Some(_), Some("**")) => return true,
                (Some(here), Some(there)) if here == there || here == "*" || there == "*" => {}
                (None, None) => return true,
                _ => return false,
            }
        }
    }

    /// Whether a message published to `channel` belongs to this pattern. Agrees with [`Channel::expand`].
    pub fn matches(&self, channel: &Channel) -> bool {
        let (stem, deep) = match (self.0.strip_suffix("/**"), self.0.strip_suffix("/*")) {
            (Some(stem), _) => (stem, true),
            (None, Some(stem)) => (stem, false),
            (None, None) => return self.0 == channel.0,
        };
        if stem.is_empty() && channel.realm() != Realm::Broadcast {
            return false;
        }
        let Some(rest) = channel.0.strip_prefix(stem).and_then(|rest| rest.strip_prefix('/')) else { return false };
        deep || !rest.contains('/')
    }
}

macro_rules! name_traits {
    ($type:ty) => {
        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl Borrow<str> for $type {
            fn borrow(&self) -> &str {
                &self.0
            }
        }

        impl AsRef<str> for $type {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }
    };
}

name_traits!(Channel);
name_traits!(Pattern);

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn expanded(name: &str) -> Vec<String> {
        Channel::parse(name).expect(name).expand().iter().map(ToString::to_string).collect()
    }

    #[test]
    fn grammar_table() {
        for name in ["/a", "/a/b", "/A-Z_0!~()$@", "/meta/x", "/service", "/a/b/c/d/e/f/g"] {
            assert!(Channel::parse(name).is_ok(), "{name}");
            assert!(Pattern::parse(name).is_ok(), "{name}");
        }
        for name in ["/*", "/**", "/a/*", "/a/b/**"] {
            assert_eq!(Channel::parse(name), Err(ChannelError::Wildcard), "{name}");
            assert!(Pattern::parse(name).is_ok(), "{name}");
        }
        let bad = [
            "", "/", "a", "a/b", "/a/", "//a", "/a//b", "/a*", "/*/a", "/a/*/b", "/a/***", "/a/**/", "/a.b", "/a:b",
            "/a b", "/ä", "/a\n", "\n/a", "/a\0", "*", "**", "/a/**b", "/a,b", "/a/b?",
        ];
        for name in bad {
            assert_eq!(Channel::parse(name), Err(ChannelError::Grammar), "{name:?}");
            assert_eq!(Pattern::parse(name), Err(ChannelError::Grammar), "{name:?}");
        }
    }

    #[test]
    fn expansion_table() {
        assert_eq!(expanded("/a"), ["/a", "/*", "/**"]);
        assert_eq!(expanded("/a/b"), ["/a/b", "/a/*", "/a/**", "/**"]);
        assert_eq!(expanded("/a/b/c"), ["/a/b/c", "/a/b/*", "/a/b/**", "/a/**", "/**"]);
    }

    #[test]
    fn an_expansion_as_text() {
        for name in ["/a", "/a/b/c", "/service/a", "/service"] {
            let mut text = "before ".to_owned();
            Channel::parse(name).expect(name).expand_into(&mut text);
            assert_eq!(text, format!("before {}", expanded(name).join(" ")));
        }
    }

    #[test]
    fn service_channels_stay_below_service() {
        assert_eq!(expanded("/service/a"), ["/service/a", "/service/*", "/service/**"]);
        assert_eq!(expanded("/service"), ["/service"]);
        let service = Channel::parse("/service/a").expect("valid");
        assert!(!Pattern::parse("/**").expect("valid").matches(&service));
        assert!(Pattern::parse("/service/*").expect("valid").matches(&service));
        assert_eq!(Channel::parse("/services/a").expect("valid").realm(), Realm::Broadcast);
    }

    #[test]
    fn overlapping_patterns() {
        let overlap = |one: &str, two: &str| {
            let (one, two) = (Pattern::parse(one).expect(one), Pattern::parse(two).expect(two));
            assert_eq!(one.overlaps(&two), two.overlaps(&one));
            one.overlaps(&two)
        };
        for (one, two) in
            [("/a", "/a"), ("/a/*", "/a/b"), ("/**", "/a/b/c"), ("/a/**", "/a/*"), ("/*", "/**"), ("/a/**", "/a/b/**")]
        {
            assert!(overlap(one, two), "{one} {two}");
        }
        for (one, two) in [("/a", "/b"), ("/a/*", "/a"), ("/a/*", "/a/b/c"), ("/a/**", "/a"), ("/a/*", "/b/**")] {
            assert!(!overlap(one, two), "{one} {two}");
        }
    }

    proptest! {
        /// The two ways to tell who gets a message cannot disagree: few segments, so that hits are frequent.
        #[test]
        fn expansion_agrees_with_matching(
            channel in "(/(a|b|service|meta)){1,4}",
            pattern in "(/(a|b|service|meta)){0,4}(/\\*|/\\*\\*|/a|/b)",
        ) {
            let channel = Channel::parse(&channel).expect("generated by the grammar");
            let pattern = Pattern::parse(&pattern).expect("generated by the grammar");
            prop_assert_eq!(channel.expand().contains(&pattern), pattern.matches(&channel));
        }

        #[test]
        fn parsing_never_panics_and_keeps_the_name(name in "\\PC{0,30}|[/a*]{0,12}") {
            if let Ok(pattern) = Pattern::parse(&name) {
                prop_assert_eq!(pattern.as_str(), name);
            }
        }

        #[test]
        fn a_channel_expands_to_itself_first_and_to_no_name_twice(channel in "(/[a-z]{1,3}){1,8}") {
            let channel = Channel::parse(&channel).expect("generated by the grammar");
            let expansion = channel.expand();
            prop_assert_eq!(expansion[0].as_str(), channel.as_str());
            let distinct: std::collections::HashSet<_> = expansion.iter().collect();
            prop_assert_eq!(distinct.len(), expansion.len());
            prop_assert_eq!(expansion.len(), channel.depth() + 2);
        }
    }
}
