//! The Bayeux protocol as pure code: messages, channels, advice, errors, dialects.
//!
//! Nothing here does I/O, keeps state or knows a transport. Everything above speaks these types.

pub mod advice;
pub mod channel;
pub mod dialect;
pub mod error;
pub mod fingerprint;
pub mod json;
pub mod message;

pub use advice::{Advice, Reconnect};
pub use channel::{Channel, ChannelError, Pattern};
pub use dialect::Dialect;
pub use error::BayeuxError;
pub use fingerprint::Fingerprint;
pub use json::Raw;
pub use message::Message;
