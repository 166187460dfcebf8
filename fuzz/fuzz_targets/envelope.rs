//! Any bytes either parse or are refused; what parsed is encoded so that it parses to the same again.
#![no_main]

use libfuzzer_sys::fuzz_target;
use weft::bayeux::message::{Limits, Message, parse};
use weft::bayeux::{Dialect, json};

fuzz_target!(|bytes: &[u8]| {
    let limits = Limits::default();
    let Ok(messages) = parse(bytes, &limits) else { return };
    assert!(messages.len() <= limits.max_messages);
    for message in messages {
        assert_eq!(fields(&encode_and_parse(&message)), fields(&message));
        // What goes back or out is made of what came in, so it must be well-formed for any input, too.
        encode_and_parse(&message.reply());
        encode_and_parse(&message.accept());

        // A repetition is known, whatever it holds, and a position joins whatever `ext` a publisher has sent.
        for dialect in [Dialect::Faye, Dialect::CometD] {
            assert_eq!(message.to_fingerprint(dialect), encode_and_parse(&message).to_fingerprint(dialect));
        }
        let ext = json::with_fields(message.ext.as_deref(), &["position"], &[("position", "{\"0\":7}".to_owned())]);
        let positioned = encode_and_parse(&Message { ext: Some(ext), ..message.clone() });
        let position = json::member(positioned.ext.as_deref(), "position").and_then(|at| json::member(Some(at), "0"));
        assert_eq!(position.and_then(json::whole), Some(7));

        // The parser of the receiver counts, not ours: hence after another round.
        let delivered = encode_and_parse(&message.into_delivery());
        assert!(delivered.client_id.is_none() && delivered.id.is_none());
        assert!(delivered.advice.is_none() && delivered.successful.is_none() && delivered.error.is_none());
    }
});

fn encode_and_parse(message: &Message) -> Message {
    let encoded = message.encode();
    let mut again = parse(&encoded, &Limits::default())
        .unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&encoded)));
    assert_eq!(again.len(), 1, "{}", String::from_utf8_lossy(&encoded));
    let again = again.remove(0);
    assert_eq!(again.encode(), encoded, "encoding is stable");
    again
}

/// All fields in a form that can be compared (raw JSON cannot).
fn fields(message: &Message) -> impl PartialEq + std::fmt::Debug {
    let raw = [
        &message.id,
        &message.data,
        &message.ext,
        &message.advice,
        &message.version,
        &message.supported_connection_types,
        &message.connection_type,
        &message.subscription,
    ];
    (
        message.channel.clone(),
        message.client_id.clone(),
        message.successful,
        message.error.clone(),
        raw.map(|value| value.as_ref().map(|value| value.get().to_owned())),
        message.rest.iter().map(|(name, value)| (name.clone(), value.get().to_owned())).collect::<Vec<_>>(),
    )
}
