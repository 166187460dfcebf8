//! Small values as the scripts write them, in both directions.

use crate::bayeux::Pattern;
use crate::engine::{Position, Replayed, Subscription, Traits};

/// A letter for each.
pub(super) fn traits(traits: Traits) -> String {
    let letters = [(traits.ack, 'a'), (traits.resume, 'r'), (traits.replay, 'p')];
    letters.into_iter().filter_map(|(set, letter)| set.then_some(letter)).collect()
}

pub(super) fn parse_traits(letters: &str) -> Traits {
    Traits { ack: letters.contains('a'), resume: letters.contains('r'), replay: letters.contains('p') }
}

/// A line for each: `<since> <position> <pattern>`.
pub(super) fn replays(replays: &[Replayed]) -> String {
    let line = |one: &Replayed| format!("{} {} {}\n", one.since.0, one.upto.0, one.pattern);
    replays.iter().map(line).collect()
}

pub(super) fn parse_replays(lines: &str) -> Option<Vec<Replayed>> {
    let line = |line: &str| {
        let mut words = line.splitn(3, ' ');
        let mut position = || words.next()?.parse().ok().map(Position);
        let (since, upto) = (position()?, position()?);
        Some(Replayed { pattern: Pattern::parse(words.next()?).ok()?, since, upto })
    };
    lines.lines().map(line).collect()
}

/// `<since>`, or `<since>:<position past which a replay is due>`, or that and `:g`.
pub(super) fn parse_start(text: &str) -> Option<(Position, Option<Position>)> {
    let mut words = text.split(':');
    let since = Position(words.next()?.parse().ok()?);
    let replay = words.next().map(|replay| replay.parse().map(Position)).transpose().ok()?;
    Some((since, replay))
}

/// `<pattern> <start> ...`
pub(super) fn parse_subscriptions(text: &str) -> Option<Vec<Subscription>> {
    let mut words = text.split(' ').filter(|word| !word.is_empty());
    let mut subscriptions = Vec::with_capacity(1);
    while let Some(pattern) = words.next() {
        let (since, replay) = parse_start(words.next()?)?;
        subscriptions.push(Subscription { pattern: Pattern::parse(pattern).ok()?, since, replay });
    }
    Some(subscriptions)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let all = Traits { ack: true, resume: true, replay: true };
        for some in [all, Traits { ack: false, ..all }, Traits { resume: false, ..all }, Traits::default()] {
            assert_eq!(parse_traits(&traits(some)), some);
        }
        let pattern = |name| Pattern::parse(name).expect("valid");
        let moved =
            |name, since, upto| Replayed { pattern: pattern(name), since: Position(since), upto: Position(upto) };
        let list = vec![moved("/a/b", 1 << 51, 7), moved("/c", 2, 1)];
        assert_eq!(parse_replays(&replays(&list)), Some(list));
        assert_eq!(parse_replays(""), Some(Vec::new()));
        assert_eq!(parse_replays("1 /a"), None);
        assert_eq!(parse_start("9:3"), Some((Position(9), Some(Position(3)))));
        assert_eq!(parse_start("9:3:g"), Some((Position(9), Some(Position(3)))));
        assert_eq!(parse_start("9"), Some((Position(9), None)));
        assert_eq!(parse_start("x"), None);
    }
}
