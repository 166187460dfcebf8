//! Weft is a Bayeux publish/subscribe server: web browsers and services subscribe to channels (`/chat/room1`,
//! `/chat/*`) and receive what others publish, over WebSocket, EventSource, long-polling and JSONP. The clients of Faye
//! and CometD connect unchanged, and nothing that was accepted is lost while a session lives.
//!
//! Run it as the program `weft`, or embed a [`Node`]:
//!
//! ```
//! # #[cfg(feature = "server")]
//! # #[tokio::main]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let config = weft::Config {
//!     listen: "127.0.0.1:0".parse()?,
//!     internal_listen: "127.0.0.1:0".parse()?,
//!     ..weft::Config::default()
//! };
//! let node = weft::Node::start(config).await?;
//! let client = node.client().await?;
//! let mut room = client.subscribe("/chat/*").await?;
//! client.publish("/chat/lobby", &"hello").await?;
//! let (channel, message) = room.next().await.ok_or("the node is gone")?;
//! assert_eq!((channel.as_str(), message.data.unwrap().get()), ("/chat/lobby", "\"hello\""));
//! node.stop().await;
//! # Ok(())
//! # }
//! # #[cfg(not(feature = "server"))]
//! # fn main() {}
//! ```
//!
//! Browsers meanwhile speak to `http://<listen>/bayeux` (Faye's dialect) or `/cometd` (CometD's).
//!
//! # The house
//!
//! Each module uses those below it, never one above.
//!
//! | module | what it owns |
//! |---|---|
//! | [`cli`] | the command line |
//! | [`bench`](mod@bench) | the load generator; uses nothing of the others |
//! | [`client`] | the client; uses `bayeux` alone |
//! | [`node`] | wiring, configuration, start and stop |
//! | [`listen`] | the accept loop, connections and their time limits |
//! | [`transport`] | HTTP, sockets and streams; no Bayeux rules |
//! | [`server`] | what each Bayeux message does; [extensions](Extension), [events](ServerEvent), [in-process clients](LocalClient) |
//! | [`session`] | attaching sessions, merging log and feed, confirming what arrived |
//! | [`hub`] | local fan-out |
//! | [`engine`] | sessions, subscriptions and logs: the contract, and the memory engine |
//! | [`metrics`] | counters |
//! | [`bayeux`] | the protocol as pure code |

#![forbid(unsafe_code)]
#![warn(missing_docs)]

pub mod bayeux;
#[cfg(feature = "bench")]
pub mod bench;
#[cfg(feature = "server")]
pub mod cli;
#[cfg(feature = "client")]
pub mod client;
#[cfg(feature = "server")]
pub mod engine;
#[cfg(feature = "server")]
pub mod hub;
#[cfg(feature = "server")]
pub mod listen;
#[cfg(feature = "server")]
pub mod metrics;
#[cfg(feature = "server")]
pub mod node;
#[cfg(feature = "server")]
pub mod server;
#[cfg(feature = "server")]
pub mod session;
#[cfg(feature = "server")]
pub mod transport;

pub use bayeux::Message;
#[cfg(feature = "client")]
pub use client::Client;
#[cfg(feature = "server")]
pub use listen::NodeService;
#[cfg(feature = "server")]
pub use node::{Config, Node, NodeBuilder, NodeError};
#[cfg(feature = "server")]
pub use server::{Call, Extension, LocalClient, LocalSubscription, RequestInfo, ServerEvent, Service, Verdict};
