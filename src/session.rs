//! Sessions on this node: attaching them, merging log and feed into one stream in order, confirming what arrived.
//!
//! Written once, above the engines. A transport gets a [`Held`] from [`Sessions::attach`] and drives it; what it may
//! send, and when it must stop, comes from here. The rules are those of `docs/design.md`.

mod attachment;
mod commit;
mod committer;
mod crowd;
mod joining;
mod outbox;
mod poll;
mod refresh;
mod registry;

pub use attachment::{Attachment, Batch, End, Gap, Limits, Outlet, Step};
pub use commit::COMMIT_EVERY;
pub use poll::{PollOutcome, Receipt};
pub use registry::{AttachOutcome, Held, Sessions};
