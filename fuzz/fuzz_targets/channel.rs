//! The two ways to tell who gets a message agree: a pattern covers a channel exactly when the channel expands to it.
//! The input is a channel and a pattern, one per line.
#![no_main]

use libfuzzer_sys::fuzz_target;
use weft::bayeux::channel::{Channel, Pattern};

fuzz_target!(|text: &str| {
    let (channel, pattern) = text.split_once('\n').unwrap_or((text, text));
    let pattern = Pattern::parse(pattern);
    let Ok(channel) = Channel::parse(channel) else { return };

    let expansion = channel.expand();
    assert_eq!(expansion[0].as_str(), channel.as_str());
    for covering in &expansion {
        assert_eq!(Pattern::parse(covering.as_str()).as_ref(), Ok(covering));
        assert!(covering.matches(&channel));
        // A service channel is never broadcast: nothing outside /service covers it.
        assert_eq!(covering.realm(), channel.realm());
    }
    if let Ok(pattern) = pattern {
        assert_eq!(expansion.contains(&pattern), pattern.matches(&channel), "{channel} {pattern}");
    }
});
