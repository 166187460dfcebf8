//! Where Weft answers otherwise than Faye on purpose. Each entry changes what is expected; an entry that no pair needs
//! fails the test, so that the list stays true.

use std::sync::Mutex;

use serde_json::{Value, json};

use super::exchange::{Exchange, ExpectedBody, REAL_LENGTH, SOME_INTERVAL, Step};
use super::pairs::Pair;
use crate::support::websocket::opcode;

/// One deliberate difference.
struct Difference {
    reason: &'static str,
    /// Changes the exchange as recorded into what Weft does; tells whether there was something to change.
    apply: fn(&Pair, &mut Exchange) -> bool,
}

const DIFFERENCES: &[Difference] = &[
    Difference {
        reason: "HTTP framing is the HTTP library's choice; a length must be the right one",
        apply: frame_as_the_library_likes,
    },
    Difference {
        reason: "advice is complete and spread out: clients replace the whole map, and a refused Faye client otherwise \
                 handshakes hundreds of times a second",
        apply: complete_handshake_advice,
    },
    Difference {
        reason: "a delivered message has no id: clients would take it for the reply to a message of their own",
        apply: strip_delivered_ids,
    },
    Difference { reason: "the answer depends on Origin, and caches must know it", apply: vary_by_origin },
    Difference {
        reason: "a preflight allows the headers that the page asks for: Faye's fixed list makes setHeader fail across origins",
        apply: allow_requested_headers,
    },
    Difference {
        reason: "a connect that repeats the last connect's message id is a retry; Faye's client never repeats one, the \
                 capture did",
        apply: number_connects,
    },
    Difference {
        reason: "a body without Content-Type and Origin that looks like JSON is JSON: python clients send that",
        apply: read_json_without_content_type,
    },
    Difference {
        reason: "media types are compared as RFC 9110 says: without case, and with space before the parameters",
        apply: read_json_of_any_spelling,
    },
    Difference {
        reason: "outside the mounts the recorded host application answered; a node says 404 in its own words",
        apply: own_words_for_not_found,
    },
    Difference {
        reason: "a held poll is released by the first message of a batch; the next poll brings the others",
        apply: spread_over_two_polls,
    },
    Difference {
        reason: "pushes and acknowledgements have no order among each other, and pushes may share a frame",
        apply: free_framing,
    },
    Difference {
        reason: "the first connect of a session is answered at once, so that slow set-ups are noticed and CometD \
                 clients do not block",
        apply: answer_first_connect,
    },
    Difference {
        reason: "protocol pings come at the node's own pace, with tokens that confirm deliveries",
        apply: own_pings,
    },
];

/// What is expected of the server under test.
pub struct Rules {
    /// Which differences have been of use.
    used: Mutex<Vec<bool>>,
}

impl Rules {
    /// Faye's answers with the differences applied.
    pub fn weft() -> Self {
        Self { used: Mutex::new(vec![false; DIFFERENCES.len()]) }
    }

    /// What to send and to expect for a pair.
    pub fn exchange(&self, pair: &Pair) -> Exchange {
        let mut exchange = Exchange::recorded(pair);
        let mut used = self.used.lock().expect("nobody panics while holding it");
        for (difference, used) in DIFFERENCES.iter().zip(used.iter_mut()) {
            *used |= (difference.apply)(pair, &mut exchange);
        }
        exchange
    }

    /// The reasons of differences that no pair needed.
    pub fn unused(&self) -> Vec<&'static str> {
        let used = self.used.lock().expect("nobody panics while holding it");
        DIFFERENCES
            .iter()
            .zip(used.iter())
            .filter(|(_, used)| !**used)
            .map(|(difference, _)| difference.reason)
            .collect()
    }

    /// Whether this may be a session id: 128 bits in hexadecimal (Faye's are 160 bits in base 36).
    pub fn session_id(&self) -> fn(&str) -> bool {
        |id| id.len() == 32 && id.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
    }
}

/// Whether an expected message is a delivery and no reply.
pub fn is_delivery(message: &Value) -> bool {
    message.get("successful").is_none()
}

/// Removes from a delivery what Weft does not deliver; tells whether there was something.
pub fn strip_delivery(message: &mut Value) -> bool {
    let fields = message.as_object_mut().filter(|fields| !fields.contains_key("successful"));
    fields.is_some_and(|fields| fields.remove("id").is_some())
}

fn frame_as_the_library_likes(pair: &Pair, exchange: &mut Exchange) -> bool {
    let upgrade = pair.status == 101;
    let kept = exchange.headers.len();
    exchange.headers.retain(|name, _| upgrade || !matches!(name.as_str(), "connection" | "transfer-encoding"));
    if let Some(length) = exchange.headers.get_mut("content-length") {
        *length = REAL_LENGTH.to_owned();
    }
    exchange.headers.len() < kept
}

fn complete_handshake_advice(pair: &Pair, exchange: &mut Exchange) -> bool {
    let mut changed = false;
    for message in exchange.messages_mut().filter(|message| message["advice"]["reconnect"] == "handshake") {
        message["advice"] = json!({"reconnect": "handshake", "interval": SOME_INTERVAL, "timeout": pair.timeout_ms()});
        changed = true;
    }
    changed
}

fn strip_delivered_ids(_: &Pair, exchange: &mut Exchange) -> bool {
    exchange.messages_mut().fold(false, |changed, message| strip_delivery(message) | changed)
}

fn vary_by_origin(pair: &Pair, exchange: &mut Exchange) -> bool {
    let applies = pair.headers.contains_key("Origin") && pair.status != 404;
    if applies {
        exchange.headers.insert("vary".into(), "Origin".into());
    }
    applies
}

fn allow_requested_headers(pair: &Pair, exchange: &mut Exchange) -> bool {
    let asked = pair.headers.get("Access-Control-Request-Headers").filter(|asked| asked.contains("x-custom"));
    let name = "access-control-allow-headers";
    let Some(allowed) = asked.and(exchange.headers.get(name).cloned()) else { return false };
    exchange.headers.insert(name.into(), format!("{allowed}, x-custom"));
    exchange.headers.insert("vary".into(), "Origin, Access-Control-Request-Headers".into());
    true
}

fn number_connects(pair: &Pair, exchange: &mut Exchange) -> bool {
    if pair.scenario != "deliver" || !pair.sends("/meta/connect") {
        return false;
    }
    let id = format!("c{}", pair.step);
    let body = exchange.request_body.take().map(|body| String::from_utf8(body).expect("recorded as text"));
    exchange.request_body = body.map(|body| body.replace(r#""id":"c""#, &format!(r#""id":"{id}""#)).into_bytes());
    for message in exchange.messages_mut().filter(|message| message["id"] == "c") {
        message["id"] = json!(id);
    }
    true
}

fn read_json_without_content_type(pair: &Pair, exchange: &mut Exchange) -> bool {
    pair.name == "form/json-body-no-content-type" && expect_handshake(pair, exchange)
}

fn read_json_of_any_spelling(pair: &Pair, exchange: &mut Exchange) -> bool {
    let names = ["form/json-content-type-uppercase", "form/json-content-type-space-before-semicolon"];
    names.contains(&pair.name.as_str()) && expect_handshake(pair, exchange)
}

/// Expects the answer that the same handshake gets when it is understood.
fn expect_handshake(pair: &Pair, exchange: &mut Exchange) -> bool {
    let types =
        ["long-polling", "cross-origin-long-polling", "callback-polling", "websocket", "eventsource", "in-process"];
    exchange.expect_reply(json!([{
        "id": "1", "channel": "/meta/handshake", "successful": true, "version": "1.0", "clientId": "<new id>",
        "supportedConnectionTypes": types,
        "advice": {"reconnect": "retry", "interval": 0, "timeout": pair.timeout_ms()},
    }]));
    true
}

fn own_words_for_not_found(pair: &Pair, exchange: &mut Exchange) -> bool {
    let applies = pair.status == 404;
    if applies {
        exchange.headers.clear();
        exchange.body = ExpectedBody::Anything;
    }
    applies
}

fn spread_over_two_polls(pair: &Pair, exchange: &mut Exchange) -> bool {
    exchange.may_need_second_poll = pair.name == "deliver/held-connect-released";
    exchange.may_need_second_poll
}

fn free_framing(_: &Pair, exchange: &mut Exchange) -> bool {
    exchange.free_framing = !exchange.steps.is_empty();
    exchange.free_framing
}

/// In the recorded session the first connect waits, so that the second overlaps it and hears nothing, its timeout of 0
/// notwithstanding. Here both are answered.
fn answer_first_connect(pair: &Pair, exchange: &mut Exchange) -> bool {
    if pair.name != "ws/session" {
        return false;
    }
    let reply = |id: &str| {
        Step::Receive(vec![json!({"id": id, "clientId": "{{cid}}", "channel": "/meta/connect", "successful": true,
            "advice": {"reconnect": "retry", "interval": 0, "timeout": pair.timeout_ms()}})])
    };
    let connect_at = |steps: &[Step], id: &str| {
        let id = format!(r#""id":"{id}""#);
        let is_it = |step: &Step| matches!(step, Step::Send { text, .. } if text.contains(&id));
        steps.iter().position(is_it).expect("the recorded connect")
    };
    let second = connect_at(&exchange.steps, "8");
    exchange.steps[second + 1] = reply("8");
    let first = connect_at(&exchange.steps, "4");
    exchange.steps.insert(first + 1, reply("4"));
    true
}

fn own_pings(_: &Pair, exchange: &mut Exchange) -> bool {
    let recorded = exchange.steps.len();
    exchange.steps.retain(|step| !matches!(step, Step::Ping(_) | Step::Send { opcode: opcode::PONG, .. }));
    exchange.steps.len() < recorded
}
