//! Three node processes on one Redis, as `deploy/local-cluster` starts them, with a crowd of clients: what breaks in a
//! cluster breaks here. Nothing acknowledged may be lost.

mod crowd;
mod faults;
mod local;
mod upkeep;
