//! Pauses between attempts: twice as long each time, up to a bound, half of it left to chance so that ten thousand
//! clients do not come back in one moment. Used by the driver.

use std::time::Duration;

/// How long to wait after failures in a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Backoff {
    /// The pause after the first failure.
    pub first: Duration,
    /// The longest pause.
    pub longest: Duration,
}

impl Default for Backoff {
    fn default() -> Self {
        Self { first: Duration::from_millis(250), longest: Duration::from_secs(30) }
    }
}

impl Backoff {
    /// The pause after so many failures in a row; `chance` is from 0 to 1.
    pub(super) fn pause(&self, failures: u32, chance: f64) -> Duration {
        let doubled = 1u32.checked_shl(failures.saturating_sub(1)).unwrap_or(u32::MAX);
        let longest = self.first.saturating_mul(doubled).min(self.longest);
        longest.mul_f64(0.5 + chance.clamp(0.0, 1.0) / 2.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn doubles_up_to_the_bound() {
        let backoff = Backoff { first: Duration::from_millis(100), longest: Duration::from_secs(1) };
        let pauses: Vec<_> = (1..=6).map(|failures| backoff.pause(failures, 1.0).as_millis()).collect();
        assert_eq!(pauses, [100, 200, 400, 800, 1000, 1000]);
        assert_eq!(backoff.pause(3, 0.0), Duration::from_millis(200));
        assert_eq!(backoff.pause(1000, 1.0), Duration::from_secs(1));
    }
}
