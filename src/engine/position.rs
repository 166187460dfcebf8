//! Positions: the order in which messages were stored.

use smallvec::SmallVec;

/// Place of a message in the order of its partition: `max(last + 1, milliseconds since 1970 * 1024)`. Below 2^53 until
/// the year 2248, so that JavaScript can hold it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Position(pub u64);

impl Position {
    /// The first position that belongs to a time.
    pub fn at_millis(millis: u64) -> Self {
        Self(millis.saturating_mul(1024))
    }

    /// The position after `last` when the clock shows `millis`.
    pub fn after(last: Self, millis: u64) -> Self {
        Self(Self::at_millis(millis).0.max(last.0 + 1))
    }

    /// When the message was stored, in milliseconds since 1970.
    pub fn millis(self) -> u64 {
        self.0 / 1024
    }
}

/// A domain with a clock of its own. The memory engine has one; a clustered store has many.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct PartitionId(pub u16);

impl PartitionId {
    /// How many there are.
    pub const COUNT: u16 = 1;
}

/// One position per partition: how far a session has come. Partitions that were never read stand at zero.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Cursor(SmallVec<[Position; 1]>);

impl Cursor {
    /// The cursor of an engine with a single partition.
    pub fn single(position: Position) -> Self {
        Self(smallvec::smallvec![position])
    }

    /// How far it stands in `partition`.
    pub fn get(&self, partition: PartitionId) -> Position {
        self.0.get(usize::from(partition.0)).copied().unwrap_or_default()
    }

    /// Moves it forward in `partition`; never back.
    pub fn raise(&mut self, partition: PartitionId, to: Position) {
        let index = usize::from(partition.0);
        if self.0.len() <= index {
            self.0.resize(index + 1, Position::default());
        }
        self.0[index] = self.0[index].max(to);
    }

    /// Moves it forward in every partition where `other` is further.
    pub fn raise_all(&mut self, other: &Self) {
        for (index, position) in other.0.iter().enumerate() {
            // Cursors are built from partition ids, which are 16 bits wide.
            self.raise(PartitionId(index as u16), *position);
        }
    }

    /// The positions, by partition.
    pub fn positions(&self) -> &[Position] {
        &self.0
    }
}

impl FromIterator<Position> for Cursor {
    fn from_iter<I: IntoIterator<Item = Position>>(positions: I) -> Self {
        Self(positions.into_iter().collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_rise_with_the_clock_and_without_it() {
        let first = Position::after(Position(0), 1_000);
        assert_eq!(first, Position(1_024_000));
        assert_eq!(Position::after(first, 1_000), Position(1_024_001));
        assert_eq!(Position::after(first, 10), Position(1_024_001), "a clock that goes back repeats nothing");
        assert_eq!(Position::after(first, 2_000).millis(), 2_000);
    }

    #[test]
    fn positions_fit_javascript_numbers_for_two_centuries() {
        let year_2248 = 8_772_000_000_000;
        assert!(Position::at_millis(year_2248).0 < 1 << 53);
    }

    #[test]
    fn cursors_never_go_back() {
        let mut cursor = Cursor::default();
        cursor.raise(PartitionId(2), Position(5));
        cursor.raise(PartitionId(2), Position(3));
        cursor.raise_all(&Cursor::single(Position(7)));
        assert_eq!(cursor.positions(), [Position(7), Position(0), Position(5)]);
    }
}
