//! The closed sets that labels are taken from. Nothing that a client chooses is ever one.

/// An enum whose values are the values of a label.
macro_rules! labels {
    ($(#[$about:meta])* $name:ident { $($(#[$what:meta])* $value:ident = $text:literal,)+ }) => {
        $(#[$about])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        #[repr(usize)]
        pub enum $name { $($(#[$what])* $value),+ }

        impl $name {
            /// The label's values, in the order of the enum's.
            pub(super) const NAMES: &[&str] = &[$($text),+];
        }
    };
}

labels! {
    /// Bounds that can be reached; label `limit` of `weft_limit_reached_total`.
    Limit {
        /// A body or frame was larger than allowed.
        Body = "body",
        /// A batch had more messages than allowed.
        Batch = "batch",
        /// JSON was nested more deeply than allowed.
        Depth = "depth",
        /// A session wanted more subscriptions than allowed.
        Subscriptions = "subscriptions",
        /// A channel name was longer or deeper than allowed.
        Channel = "channel",
        /// An outbox was full: its session reads from the log.
        Outbox = "outbox",
        /// A request's head or body took too long.
        RequestTime = "request_time",
        /// A connection was idle for too long.
        Idle = "idle",
        /// A peer did not take what was written to it.
        WriteTime = "write_time",
        /// There were as many sessions as allowed.
        Sessions = "sessions",
        /// There were as many connections as allowed.
        Connections = "connections",
        /// The engine's memory for messages was used up.
        EngineMemory = "engine_memory",
        /// There were as many retained channels as allowed.
        RetainedChannels = "retained_channels",
    }
}

labels! {
    /// What a client asked for; label `kind` of `weft_messages_received_total`.
    Kind {
        /// `/meta/handshake`
        Handshake = "handshake",
        /// `/meta/connect`
        Connect = "connect",
        /// `/meta/subscribe`
        Subscribe = "subscribe",
        /// `/meta/unsubscribe`
        Unsubscribe = "unsubscribe",
        /// `/meta/disconnect`
        Disconnect = "disconnect",
        /// Everything outside `/meta`.
        Publish = "publish",
        /// An unknown meta channel.
        Unknown = "unknown",
    }
}

labels! {
    /// Why a client was sent elsewhere; label `reason` of `weft_attachments_moved_total`.
    Moved {
        /// The node is about to stop.
        Drain = "drain",
        /// Its connection was old.
        Age = "age",
    }
}

labels! {
    /// Why logs were read; label `reason` of `weft_log_reads_total`.
    LogRead {
        /// A session came to this node.
        Attach = "attach",
        /// Its subscriptions changed, or the feed broke.
        Resync = "resync",
        /// The feed had a hole.
        Hole = "hole",
        /// Somebody else came to a log on which it was alone.
        Company = "company",
        /// The session's outbox had been full.
        Behind = "behind",
        /// It asked for what was published before.
        Replay = "replay",
    }
}

labels! {
    /// How sessions are attached; label `transport` of `weft_attachments`.
    Carrier {
        /// A poll, by JSONP too.
        LongPolling = "long-polling",
        /// A WebSocket.
        WebSocket = "websocket",
        /// An event stream.
        EventSource = "eventsource",
        /// A client inside the process, such as the canary.
        InProcess = "in-process",
    }
}

labels! {
    /// What a message was refused with; label `code` of `weft_messages_refused_total`.
    Code {
        /// Connection types that this server does not speak.
        ConnectionTypes = "301",
        /// A field is not of its form.
        Malformed = "400",
        /// The session is not known.
        UnknownClient = "401",
        /// A field is missing.
        Missing = "402",
        /// Not allowed.
        Forbidden = "403",
        /// A service or channel that is not there.
        NotFound = "404",
        /// Not a channel name.
        Channel = "405",
        /// Too large, or too many at once.
        TooLarge = "413",
        /// A bound of the server.
        TooMany = "429",
        /// The server cannot now.
        Unavailable = "503",
        /// Any other, of an extension or a service.
        Other = "other",
    }
}

impl Code {
    /// That of an error's text, which begins with it.
    pub fn of(error: &str) -> Self {
        const ALL: [Code; 10] = [
            Code::ConnectionTypes,
            Code::Malformed,
            Code::UnknownClient,
            Code::Missing,
            Code::Forbidden,
            Code::NotFound,
            Code::Channel,
            Code::TooLarge,
            Code::TooMany,
            Code::Unavailable,
        ];
        let code = error.split(':').next().unwrap_or_default();
        ALL.into_iter().find(|one| Self::NAMES[*one as usize] == code).unwrap_or(Self::Other)
    }
}

labels! {
    /// Connections to Redis; label `connection` of `weft_redis_reconnects_total`.
    RedisLink {
        /// Commands.
        Commands = "commands",
        /// Announcements.
        Feed = "feed",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_have_codes() {
        assert_eq!(Code::of("402:version:Missing required parameter"), Code::Missing);
        assert_eq!(Code::of("503::Unavailable"), Code::Unavailable);
        for other in ["", "no code", "777:x:y", "4020:x:y"] {
            assert_eq!(Code::of(other), Code::Other, "{other}");
        }
    }
}
