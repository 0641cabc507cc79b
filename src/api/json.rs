//! Reading JSON whose values are kept as the client wrote them.
//!
//! A request is first split into fields, each still text, so that size, kind and meaning can be judged in the order the
//! API promises, and so that a callback body reaches its target byte for byte. Used by `request.rs`.

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::value::RawValue;

use super::envelope::{MALFORMED, Refusal};

/// Deepest nesting of arrays and objects taken, as `serde_json` has for values it builds: raw values it does not bound.
const DEPTH_MAX: usize = 128;

fn malformed(message: impl Into<String>) -> Refusal {
    Refusal::new(MALFORMED, message)
}

/// The fields of a whole request.
pub(super) fn request<'a, T: Deserialize<'a>>(bytes: &'a [u8]) -> Result<T, Refusal> {
    let text = std::str::from_utf8(bytes).map_err(|error| {
        let (line, column) = position(&bytes[..error.valid_up_to()]);
        malformed(format!("the request is not UTF-8 at line {line} column {column}"))
    })?;
    if let Some(at) = too_deep(text.as_bytes()) {
        let (line, column) = position(&bytes[..at]);
        return Err(malformed(format!(
            "the JSON is nested deeper than {DEPTH_MAX} at line {line} column {column}"
        )));
    }
    if text.trim_ascii_start().starts_with('[') {
        // The field names of a struct are optional to serde: an array of the values would pass.
        return Err(malformed("the request must be a JSON object, not an array"));
    }
    serde_json::from_str(text)
        .map_err(|error| malformed(format!("the request is no JSON object of this call: {error}")))
}

/// The fields of an object inside of a request.
pub(super) fn object<'a, T: Deserialize<'a>>(raw: &'a RawValue, field: &str) -> Result<T, Refusal> {
    if !is_object(raw) {
        return Err(wrong_kind(field, "an object", raw));
    }
    serde_json::from_str(raw.get()).map_err(|error| malformed(format!("`{field}`, counted from its start: {error}")))
}

/// The fields of an object by their names; nothing for what is none.
pub(super) fn fields(bytes: &[u8]) -> BTreeMap<Cow<'_, str>, &RawValue> {
    serde_json::from_slice(bytes).unwrap_or_default()
}

/// Whether `raw` is an object.
pub(super) fn is_object(raw: &RawValue) -> bool {
    raw.get().starts_with('{')
}

/// A field's text.
pub(super) fn string<'a>(raw: &'a RawValue, field: &str) -> Result<Cow<'a, str>, Refusal> {
    let json = raw.get();
    let Some(inner) = json.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')) else {
        return Err(wrong_kind(field, "a string", raw));
    };
    if !inner.contains('\\') {
        return Ok(Cow::Borrowed(inner));
    }
    let decoded = serde_json::from_str(json);
    decoded
        .map(Cow::Owned)
        .map_err(|error| malformed(format!("`{field}`, counted from its start: {error}")))
}

/// A field's integer, as the client wrote it.
pub(super) fn integer<'a>(raw: &'a RawValue, field: &str, wanted: &str) -> Result<&'a str, Refusal> {
    let text = raw.get();
    let digits = text.strip_prefix('-').unwrap_or(text);
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(wrong_kind(field, wanted, raw));
    }
    Ok(text)
}

/// The refusal of a field that is of another kind than `wanted`.
pub(super) fn wrong_kind(field: &str, wanted: &str, raw: &RawValue) -> Refusal {
    let is = match raw.get().as_bytes().first() {
        Some(b'{') => "an object",
        Some(b'[') => "an array",
        Some(b'"') => "a string",
        Some(b't' | b'f') => "a boolean",
        Some(b'n') => "null",
        _ if raw.get().contains(['.', 'e', 'E']) => "a number with a fraction or an exponent",
        _ => "a number",
    };
    malformed(format!("`{field}` must be {wanted}, not {is}"))
}

/// Where the nesting passes the bound. Text that is not JSON may be misread; the parser refuses it all the same.
fn too_deep(text: &[u8]) -> Option<usize> {
    let mut depth = 0_usize;
    let mut in_string = false;
    let mut escaped = false;
    for (at, byte) in text.iter().enumerate() {
        if in_string {
            in_string = escaped || *byte != b'"';
            escaped = !escaped && *byte == b'\\';
            continue;
        }
        match byte {
            b'"' => in_string = true,
            b'{' | b'[' => {
                depth += 1;
                if depth > DEPTH_MAX {
                    return Some(at);
                }
            }
            b'}' | b']' => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    None
}

/// Line and column, both from 1, of what follows `before`; columns are bytes, as in `serde_json`'s messages.
fn position(before: &[u8]) -> (usize, usize) {
    let mut lines = before.rsplit(|byte| *byte == b'\n');
    let column = lines.next().map_or(0, <[u8]>::len) + 1;
    (lines.count() + 1, column)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn depth_counts_only_what_nests() {
        let deepest = [vec![b'['; DEPTH_MAX], vec![b']'; DEPTH_MAX]].concat();
        assert_eq!(too_deep(&deepest), None);
        assert_eq!(too_deep(&[b'['; DEPTH_MAX + 1]), Some(DEPTH_MAX));
        assert_eq!(too_deep("[]".repeat(DEPTH_MAX + 1).as_bytes()), None);
        let in_string = format!(r#""\"{}\\""#, "[".repeat(DEPTH_MAX + 1));
        assert_eq!(too_deep(in_string.as_bytes()), None);
        let after_string = format!(r#""\\"{}"#, "[".repeat(DEPTH_MAX + 1));
        assert_eq!(too_deep(after_string.as_bytes()), Some(4 + DEPTH_MAX));
    }

    #[test]
    fn positions_count_from_one() {
        assert_eq!(position(b""), (1, 1));
        assert_eq!(position(b"ab"), (1, 3));
        assert_eq!(position(b"a\n\nb"), (3, 2));
    }
}
