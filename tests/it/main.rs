//! Integration tests: a whole node on loopback sockets, spoken to byte by byte.
//! Only `support` knows how a node is started; everything else is given an address.

mod bench;
mod bounds;
mod client;
mod cluster;
mod contract;
mod delivery;
mod dialects;
mod embedding;
mod golden;
mod listener;
mod loss;
mod malformed;
mod operation;
mod process;
mod races;
mod redis;
mod support;
