//! What becomes of a socket that breaks: where the scenario wants it, its client comes back as Faye's does, with its
//! session if the server still knows it.

use std::rc::Rc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::local::ClientError;
use super::shared::Phase;
use super::socket::SocketClient;

/// The longest pause before another attempt.
const PAUSE: Duration = Duration::from_millis(500);

/// Reads a socket to its end; and again, if its client comes back.
pub(super) async fn serve(client: Rc<SocketClient>) {
    loop {
        let unwanted = client.clone().listen().await;
        // Boxed: nobody needs its room before something breaks.
        if !unwanted || !client.client.local.shared.comes_back.load(Ordering::Relaxed) || !Box::pin(back(&client)).await
        {
            return;
        }
    }
}

/// Tries until it stands again. False when the round is over.
async fn back(client: &Rc<SocketClient>) -> bool {
    let local = &client.client.local;
    local.live().standing.fetch_sub(1, Ordering::Relaxed);
    local.counts.borrow_mut().first_break.get_or_insert(local.shared.now());
    let mut resumes = true;
    loop {
        tokio::time::sleep(local.jitter(PAUSE)).await;
        if local.shared.phase() >= Phase::Draining {
            return false;
        }
        match client.reopen(resumes).await {
            Ok(()) => {
                local.counts.borrow_mut().last_back = Some(local.shared.now());
                local.live().standing.fetch_add(1, Ordering::Relaxed);
                return true;
            }
            Err(ClientError::SessionGone) => {
                local.counts.borrow_mut().refused_sessions += 1;
                resumes = false;
            }
            Err(_) => {}
        }
    }
}
