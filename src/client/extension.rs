//! What a program may do to the messages of its client, in both directions: sign, encrypt, look.

use crate::bayeux::Message;

/// Sees every message on its way. Called by the client's task, so it must not block.
pub trait ClientExtension: Send + Sync + 'static {
    /// A message on its way to the server, handshakes and connects included; `false` drops it. A message that is sent
    /// again passes again.
    fn outgoing(&self, message: &mut Message) -> bool {
        let _ = message;
        true
    }

    /// A reply or a message from the server; `false` drops it.
    fn incoming(&self, message: &mut Message) -> bool {
        let _ = message;
        true
    }
}
