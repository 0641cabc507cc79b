//! The envelope of the `/xcron/*` answers, as far as the bench reads it.

use std::borrow::Cow;

use serde::Deserialize;

/// An answer; other fields are passed over.
#[derive(Debug, Deserialize)]
pub struct Envelope<'a> {
    /// 0 = success.
    pub code: i64,
    /// Why not, if not.
    #[serde(borrow, default)]
    pub message: Option<Cow<'a, str>>,
    /// Present on success.
    #[serde(borrow, default)]
    pub data: Option<Data<'a>>,
}

/// The part of an answer's data that all three calls share.
#[derive(Debug, Deserialize)]
pub struct Data<'a> {
    /// The task's id.
    #[serde(borrow, default)]
    pub task_id: Option<Cow<'a, str>>,
}

impl<'a> Envelope<'a> {
    /// Reads one, or says what came instead.
    pub fn parse(answer: &'a [u8]) -> Result<Self, String> {
        serde_json::from_slice(answer).map_err(|error| {
            let start = String::from_utf8_lossy(&answer[..answer.len().min(80)]).into_owned();
            format!("the answer is no xcron envelope ({error}): {start:?}")
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_read_in_any_order_of_fields() {
        let text = r#"{"data":{"task_id":"a\"b","more":[1]},"uuid":"u","code":0}"#;
        let envelope = Envelope::parse(text.as_bytes()).expect("an envelope");
        assert_eq!(envelope.code, 0);
        assert_eq!(envelope.data.and_then(|data| data.task_id).as_deref(), Some("a\"b"));
        let refused = Envelope::parse(br#"{"uuid":"u","code":1003,"message":"no url"}"#).expect("an envelope");
        assert_eq!((refused.code, refused.message.as_deref()), (1003, Some("no url")));
    }

    #[test]
    fn anything_else_is_shown() {
        for text in ["", "<html>", r#"{"code":"0"}"#, r#"{"data":{}}"#] {
            let error = Envelope::parse(text.as_bytes()).expect_err(text);
            assert!(error.contains("no xcron envelope"), "{error}");
        }
    }
}
