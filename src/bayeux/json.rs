//! Raw JSON values as a JavaScript peer would see them. Faye's rules are written in terms of truthiness and of
//! string conversion, so both exist here once.

use std::borrow::Cow;

use serde_json::value::RawValue;

/// A JSON value that is passed through byte for byte.
pub type Raw = Box<RawValue>;

/// Whether JavaScript takes the value for true: not `null`, `false`, `0` or `""`.
pub fn truthy(raw: &RawValue) -> bool {
    match raw.get() {
        "null" | "false" | "\"\"" => false,
        text => match text.as_bytes().first() {
            Some(b'-' | b'0'..=b'9') => text.parse::<f64>().is_ok_and(|number| number != 0.0),
            _ => true,
        },
    }
}

/// The value of a JSON string, or `None` for every other type.
pub fn string(raw: &RawValue) -> Option<Cow<'_, str>> {
    let inner = raw.get().strip_prefix('"')?.strip_suffix('"')?;
    if !inner.contains('\\') {
        return Some(inner.into());
    }
    serde_json::from_str::<Borrowed<'_>>(raw.get()).ok().map(|borrowed| borrowed.0)
}

/// The value as JavaScript's `String(value)` writes it; error texts of the wire contract contain it.
pub fn to_js_string(raw: &RawValue) -> Cow<'_, str> {
    match raw.get().as_bytes().first() {
        Some(b'"') => string(raw).unwrap_or_default(),
        Some(b'{') => "[object Object]".into(),
        Some(b'[') => elements(raw)
            .unwrap_or_default()
            .into_iter()
            .map(|element| if element.get() == "null" { "".into() } else { to_js_string_flat(element) })
            .collect::<Vec<_>>()
            .join(",")
            .into(),
        _ => raw.get().into(),
    }
}

/// As [`to_js_string`], but an inner array stays as it was sent: what a peer nests cannot make us recurse.
fn to_js_string_flat(raw: &RawValue) -> Cow<'_, str> {
    if raw.get().starts_with('[') { raw.get().into() } else { to_js_string(raw) }
}

/// The elements of a JSON array, or `None` for every other type.
pub fn elements(raw: &RawValue) -> Option<Vec<&RawValue>> {
    if !raw.get().starts_with('[') {
        return None;
    }
    serde_json::from_str(raw.get()).ok()
}

/// The object with these fields at its end, given as JSON, and without those of the names in `without`. What is no object
/// counts as an empty one.
pub fn with_fields(object: Option<&RawValue>, without: &[&str], fields: &[(&str, String)]) -> Raw {
    let mut text = String::from("{");
    let mut put = |name: &str, value: &str| {
        if text.len() > 1 {
            text.push(',');
        }
        text.push_str(quote(name).get());
        text.push(':');
        text.push_str(value);
    };
    for (name, value) in object.and_then(members).unwrap_or_default() {
        if !without.contains(&&*name) {
            put(&name, value.get());
        }
    }
    fields.iter().for_each(|(name, value)| put(name, value));
    text.push('}');
    // Made of JSON values and quoted names.
    RawValue::from_string(text).unwrap_or_else(|_| RawValue::NULL.to_owned())
}

/// The members of a JSON object in their order, or `None` for every other type.
pub fn members(raw: &RawValue) -> Option<Vec<(Cow<'_, str>, &RawValue)>> {
    struct Members;
    impl<'de> serde::de::Visitor<'de> for Members {
        type Value = Vec<(Cow<'de, str>, &'de RawValue)>;

        fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("an object")
        }

        fn visit_map<A: serde::de::MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
            let mut members = Vec::new();
            while let Some(name) = map.next_key::<Borrowed<'de>>()? {
                members.push((name.0, map.next_value()?));
            }
            Ok(members)
        }
    }
    if !raw.get().starts_with('{') {
        return None;
    }
    let mut deserializer = serde_json::Deserializer::from_str(raw.get());
    serde::Deserializer::deserialize_map(&mut deserializer, Members).ok()
}

/// The member of a JSON object; the last one of its name counts, as in JavaScript. `None` for every other type.
pub fn member<'a>(raw: Option<&'a RawValue>, name: &str) -> Option<&'a RawValue> {
    let members = members(raw?)?;
    members.into_iter().rev().find(|(other, _)| other == name).map(|(_, value)| value)
}

/// A whole number from 0 to 2^53, as JavaScript has them.
pub fn whole(raw: &RawValue) -> Option<u64> {
    let text = raw.get();
    let number = match text.parse::<u64>() {
        Ok(number) => number,
        // 1e3 and 5.0 are whole too.
        Err(_) => text.parse::<f64>().ok().filter(|number| *number >= 0.0 && number.fract() == 0.0)? as u64,
    };
    (number <= 1 << 53).then_some(number)
}

/// Puts a Rust string into JSON.
pub fn quote(text: &str) -> Raw {
    // Serialising a string cannot fail: there is no map key, no number and no user code in it.
    serde_json::value::to_raw_value(text).unwrap_or_else(|_| RawValue::NULL.to_owned())
}

/// How deeply arrays and objects are nested in `text` (1 for `{}`), without recursion. Stops counting above `limit`.
pub fn exceeds_depth(text: &[u8], limit: usize) -> bool {
    // Most messages have fewer brackets than the limit: no need to look where they are. Counted in pieces of which each
    // count fits into a byte, which the compiler turns into many at a time.
    let opening =
        |piece: &[u8]| usize::from(piece.iter().map(|byte| u8::from(matches!(byte, b'[' | b'{'))).sum::<u8>());
    if text.chunks(usize::from(u8::MAX)).map(opening).sum::<usize>() <= limit {
        return false;
    }
    let (mut bytes, mut depth) = (text.iter(), 0usize);
    while let Some(byte) = bytes.next() {
        match byte {
            b'"' => {
                while let Some(byte) = bytes.next() {
                    match byte {
                        b'"' => break,
                        // Whatever is escaped ends no string.
                        b'\\' => drop(bytes.next()),
                        _ => {}
                    }
                }
            }
            b'[' | b'{' => {
                depth += 1;
                if depth > limit {
                    return true;
                }
            }
            b']' | b'}' => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    false
}

/// A string that borrows from its JSON where it has no escapes.
#[derive(serde::Deserialize)]
pub(super) struct Borrowed<'a>(#[serde(borrow)] pub(super) Cow<'a, str>);

#[cfg(test)]
mod tests {
    use super::*;

    fn raw(text: &str) -> Raw {
        RawValue::from_string(text.to_owned()).expect(text)
    }

    #[test]
    fn truthiness_is_that_of_javascript() {
        for text in ["null", "false", "0", "-0", "0.0", "0e5", "\"\""] {
            assert!(!truthy(&raw(text)), "{text}");
        }
        for text in ["true", "1", "-1", "0.5", "\"0\"", "[]", "{}", "\" \""] {
            assert!(truthy(&raw(text)), "{text}");
        }
    }

    #[test]
    fn string_conversion_is_that_of_javascript() {
        let table = [
            ("\"a\\/b\"", "a/b"),
            ("5", "5"),
            ("true", "true"),
            ("{\"a\":1}", "[object Object]"),
            ("[\"iframe\",\"flash\"]", "iframe,flash"),
            ("[]", ""),
            ("[null,1]", ",1"),
        ];
        for (text, expected) in table {
            assert_eq!(to_js_string(&raw(text)), expected, "{text}");
        }
    }

    #[test]
    fn fields_join_an_object() {
        let ours = [("position", "7".to_owned())];
        let joined = |text: &str| with_fields(Some(&raw(text)), &["position"], &ours).get().to_owned();
        assert_eq!(joined(r#"{"a": [1, 2],"position":1,"q\"":null}"#), r#"{"a":[1, 2],"q\"":null,"position":7}"#);
        assert_eq!(joined("{}"), r#"{"position":7}"#);
        assert_eq!(joined("[1]"), r#"{"position":7}"#);
        assert_eq!(with_fields(None, &[], &[]).get(), "{}");
    }

    #[test]
    fn members_and_whole_numbers() {
        let object = raw(r#"{"a":1,"\u0062":2,"a":3}"#);
        assert_eq!(member(Some(&object), "a").map(RawValue::get), Some("3"));
        assert_eq!(member(Some(&object), "b").map(RawValue::get), Some("2"));
        assert!(member(Some(&object), "c").is_none() && member(Some(&raw("[]")), "a").is_none());
        for (text, number) in [("0", Some(0)), ("1838487363846144", Some(1_838_487_363_846_144)), ("5.0", Some(5))] {
            assert_eq!(whole(&raw(text)), number, "{text}");
        }
        for text in ["-1", "1.5", "\"1\"", "null", "1e300", "9007199254740994", "99999999999999999999"] {
            assert_eq!(whole(&raw(text)), None, "{text}");
        }
    }

    #[test]
    fn depth_counts_brackets_outside_strings() {
        assert!(!exceeds_depth(b"[[[]]]", 3));
        assert!(exceeds_depth(b"[[[[]]]]", 3));
        assert!(!exceeds_depth(br#"["[[[[\"[[[["]"#, 3));
        assert!(!exceeds_depth(b"[[],[],[],[],[]]", 3));
    }
}
