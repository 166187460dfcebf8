//! What one receiver got of one stream: finds what is missing, what came twice, and what came late.
//! Small: a crowd of a thousand that all publish has a million of them.

/// Holes that are remembered. What is older counts as lost for good.
const HOLES: usize = 1024;

/// What became of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Seen {
    /// New, and in order.
    New,
    /// New, but a later one was here before.
    Late,
    /// Here before.
    Again,
}

/// The numbers that have come.
#[derive(Debug, Clone, Default)]
pub(super) struct Tracker {
    /// One above the largest number that has come.
    next: u64,
    /// What is missing below, if anything.
    gaps: Option<Box<Gaps>>,
}

#[derive(Debug, Clone, Default)]
struct Gaps {
    /// Ranges of missing numbers, rising; first and one above last.
    ranges: Vec<(u64, u64)>,
    /// Missing numbers that are no longer remembered one by one, as ranges were given up.
    forgotten: u64,
}

impl Tracker {
    /// For somebody who came later: nothing below `number` is missing.
    pub(super) fn from(number: u64) -> Self {
        Self { next: number, gaps: None }
    }

    /// Nothing has come.
    pub(super) fn is_new(&self) -> bool {
        self.next == 0
    }

    /// Takes note of a message.
    pub(super) fn see(&mut self, number: u64) -> Seen {
        if number == self.next {
            self.next += 1;
            return Seen::New;
        }
        if number > self.next {
            let gaps = self.gaps.get_or_insert_default();
            gaps.ranges.push((self.next, number));
            gaps.bound();
            self.next = number + 1;
            return Seen::New;
        }
        if self.gaps.as_mut().is_some_and(|gaps| gaps.fill(number)) { Seen::Late } else { Seen::Again }
    }

    /// How many of the numbers below `published` have not come, without those in `excluded` (sorted).
    pub(super) fn missing(&self, published: u64, excluded: &[u64]) -> u64 {
        let without = |from: u64, to: u64| {
            let begin = excluded.partition_point(|number| *number < from);
            let end = excluded.partition_point(|number| *number < to);
            (to - from) - (end - begin) as u64
        };
        let tail = if published > self.next { without(self.next, published) } else { 0 };
        tail + self.holes(without)
    }

    /// As [`Tracker::missing`], for what lies below the last that came.
    pub(super) fn missing_between(&self) -> u64 {
        self.holes(|from, to| to - from)
    }

    fn holes(&self, length: impl Fn(u64, u64) -> u64) -> u64 {
        let Some(gaps) = &self.gaps else { return 0 };
        gaps.forgotten + gaps.ranges.iter().map(|(from, to)| length(*from, *to)).sum::<u64>()
    }
}

impl Gaps {
    /// Whether the number was missing; it no longer is.
    fn fill(&mut self, number: u64) -> bool {
        let at = self.ranges.partition_point(|(_, to)| *to <= number);
        let Some(&(from, to)) = self.ranges.get(at).filter(|(from, _)| *from <= number) else { return false };
        match (from == number, to == number + 1) {
            (true, true) => drop(self.ranges.remove(at)),
            (true, false) => self.ranges[at].0 = number + 1,
            (false, true) => self.ranges[at].1 = number,
            (false, false) => {
                self.ranges[at].1 = number;
                self.ranges.insert(at + 1, (number + 1, to));
                self.bound();
            }
        }
        true
    }

    /// Gives up the oldest range when there are too many.
    fn bound(&mut self) {
        if self.ranges.len() > HOLES {
            let (from, to) = self.ranges.remove(0);
            self.forgotten += to - from;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn is_small() {
        assert!(size_of::<Tracker>() <= 16);
    }

    #[test]
    fn holes_are_bounded() {
        let mut tracker = Tracker::default();
        for number in 0..HOLES as u64 + 10 {
            assert_eq!(tracker.see(2 * number + 1), Seen::New);
        }
        assert_eq!(tracker.missing(2 * (HOLES as u64 + 10), &[]), HOLES as u64 + 10);
        assert_eq!(tracker.see(0), Seen::Again, "given up");
        assert_eq!(tracker.see(2 * (HOLES as u64)), Seen::Late);
    }

    proptest! {
        #[test]
        fn agrees_with_a_naive_model(
            numbers in prop::collection::vec(0..60_u64, 0..120),
            excluded in prop::collection::btree_set(0..60_u64, 0..10),
            published in 0..70_u64,
        ) {
            let (mut tracker, mut seen) = (Tracker::default(), BTreeSet::new());
            for number in numbers {
                let expected = match (seen.contains(&number), seen.last().is_some_and(|last| *last > number)) {
                    (true, _) => Seen::Again,
                    (false, true) => Seen::Late,
                    (false, false) => Seen::New,
                };
                seen.insert(number);
                prop_assert_eq!(tracker.see(number), expected);
            }
            // What came counts as published.
            let published = published.max(seen.last().map_or(0, |last| last + 1));
            let missing = (0..published).filter(|n| !seen.contains(n) && !excluded.contains(n)).count() as u64;
            let excluded: Vec<_> = excluded.into_iter().collect();
            prop_assert_eq!(tracker.missing(published, &excluded), missing);
            let last = seen.last().copied().unwrap_or(0);
            prop_assert_eq!(tracker.missing_between(), (0..last).filter(|n| !seen.contains(n)).count() as u64);
        }
    }
}
