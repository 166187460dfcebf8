//! Fingerprints of publishes: Faye's client sends a publish again, under the same id, whenever it is not sure of the
//! first, and so do programs with a key of their own.

use xxhash_rust::xxh3::Xxh3;

/// Stands for a publish: 128 bits. Not secret, and no proof against who makes two of his own messages collide: he could
/// as well not send the second.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Fingerprint(pub [u8; 16]);

impl Fingerprint {
    /// Of these parts in this order; where one ends and the next begins counts.
    pub fn of<'a>(parts: impl IntoIterator<Item = &'a [u8]>) -> Self {
        let mut hash = Xxh3::new();
        for part in parts {
            hash.update(&(part.len() as u64).to_le_bytes());
            hash.update(part);
        }
        Self(hash.digest128().to_le_bytes())
    }
}
