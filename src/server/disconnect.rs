//! `/meta/disconnect`: ends a session. Its held connect is released by the end itself.

use super::{RequestInfo, Server, session_of};
use crate::bayeux::Message;
use crate::engine::{Ended, Engine};

impl Server {
    pub(super) async fn disconnect(&self, message: &Message, request: &RequestInfo) -> Message {
        let outcome = match (session_of(message), &message.error) {
            (None, _) => Err(request.dialect.missing_client().to_string()),
            (_, Some(error)) => Err(error.clone()),
            (Some(session), None) => match self.sessions().store().end(&session, Ended::Disconnected).await {
                Ok(Some(ended)) => {
                    self.session_ended(ended, Ended::Disconnected);
                    Ok(())
                }
                Ok(None) => Err(request.dialect.unknown_client(session.as_str()).to_string()),
                Err(error) => Err(self.engine_error("end", &error).to_string()),
            },
        };
        match outcome {
            Ok(()) => message.accept(),
            Err(error) => Message {
                client_id: None,
                successful: Some(false),
                error: Some(error),
                advice: message.reply_advice.clone(),
                ..message.reply()
            },
        }
    }
}
