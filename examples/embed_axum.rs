//! A node inside an axum program: one listener for the program's own pages and for Bayeux clients, and messages that the
//! program publishes itself.
//!
//!     cargo run --example embed_axum -- 127.0.0.1:9000
//!     curl http://127.0.0.1:9000/hello/Ada
//!     weft sub --url http://127.0.0.1:9000/bayeux '/greetings/*'

use std::sync::Arc;

use axum::Router;
use axum::extract::{Path, State};
use axum::routing::get;
use weft::{Config, LocalClient, Node};

type AnyError = Box<dyn std::error::Error + Send + Sync>;

#[tokio::main]
async fn main() -> Result<(), AnyError> {
    let address = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:9000".to_owned());
    // Metrics and health on a port of their own; with `redis.url` this is one node of a cluster.
    let config = Config { internal_listen: "127.0.0.1:0".parse()?, ..Config::default() };
    let node = Node::builder(config).embedded().start().await?;
    let client = Arc::new(node.client().await?);

    let program = Router::new()
        .route("/hello/{name}", get(hello))
        .with_state(client)
        // Whatever is not a page of ours: /bayeux, /cometd, the page at /.
        .fallback_service(node.service());

    let listener = tokio::net::TcpListener::bind(&address).await?;
    println!("listening on http://{}/", listener.local_addr()?);
    axum::serve(listener, program).with_graceful_shutdown(interrupted()).await?;
    node.stop().await;
    Ok(())
}

/// Greets, and tells everybody who listens.
async fn hello(State(client): State<Arc<LocalClient>>, Path(name): Path<String>) -> String {
    match client.publish(&format!("/greetings/{name}"), &format!("hello {name}")).await {
        Ok(()) => format!("hello {name}\n"),
        Err(error) => format!("nobody hears it: {error}\n"),
    }
}

async fn interrupted() {
    // Without signals the program runs until it is killed.
    let _ = tokio::signal::ctrl_c().await;
}
