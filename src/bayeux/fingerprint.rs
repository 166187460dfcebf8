//! Fingerprints of publishes: Faye's client sends a publish again, under the same id, whenever it is not sure of the
//! first, and so do programs with a key of their own.

use smallvec::SmallVec;
use xxhash_rust::xxh3::{Xxh3, xxh3_128};

/// Bytes that are hashed at once, from the stack.
const SMALL: usize = 1024;

/// Stands for a publish: 128 bits. Not secret, and no proof against who makes two of his own messages collide: he could
/// as well not send the second.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Fingerprint(pub [u8; 16]);

impl Fingerprint {
    /// Of these parts in this order; where one ends and the next begins counts.
    pub fn of<'a>(parts: impl IntoIterator<Item = &'a [u8], IntoIter: Clone>) -> Self {
        let parts = parts.into_iter();
        // Small ones are put together first: the state of a hash that grows is larger than they are.
        let bytes: usize = parts.clone().map(|part| part.len() + size_of::<u64>()).sum();
        if bytes <= SMALL {
            let mut all = SmallVec::<[u8; SMALL]>::new();
            for part in parts {
                all.extend_from_slice(&(part.len() as u64).to_le_bytes());
                all.extend_from_slice(part);
            }
            return Self(xxh3_128(&all).to_le_bytes());
        }
        let mut hash = Xxh3::new();
        for part in parts {
            hash.update(&(part.len() as u64).to_le_bytes());
            hash.update(part);
        }
        Self(hash.digest128().to_le_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Nodes of different ages, and both ways, must agree.
    #[test]
    fn both_ways_give_the_same() {
        for length in (0..3 * SMALL).step_by(7) {
            let text = vec![b'x'; length];
            let mut hash = Xxh3::new();
            for part in [b"message", &text[..], b""] {
                hash.update(&(part.len() as u64).to_le_bytes());
                hash.update(part);
            }
            let parts = [b"message", &text[..], b""];
            assert_eq!(Fingerprint::of(parts).0, hash.digest128().to_le_bytes(), "{length}");
        }
    }
}
