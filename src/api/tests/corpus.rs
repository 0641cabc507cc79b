//! Bytes no client should send, and bytes that must pass unchanged.

use proptest::prelude::*;

use super::*;

/// The body that reaches the tasks for a request with `body` written into it as it is.
async fn stored(callback: &str) -> Vec<u8> {
    let seen = Arc::new(Seen::default());
    let (app, _readiness) = app_with(FakeTasks {
        seen: seen.clone(),
        ..FakeTasks::default()
    });
    let request = format!(r#"{{"type":1,"format":"* * * * *","callback":{callback}}}"#);
    let answer = post(&app, "createTask", request).await;
    assert_eq!(answer.code(), 0, "{callback}: {}", answer.text);
    let created = seen.created.lock();
    created[0].body.clone()
}

#[tokio::test]
async fn a_callback_body_keeps_its_bytes() {
    for body in [
        "{}",
        "{ }",
        r#"{"z":1,"a":2}"#,
        r#"{"a":1,"a":2}"#,
        r#"{"n":9007199254740993,"m":123456789012345678901234567890,"f":1.000,"e":1E+2,"z":-0}"#,
        "{\n\t\"a\" :\r\n [ 1 , 2 ]\n}",
        r#"{"s":"\u00fc\/\ud83d\ude00ü😀\u0000"}"#,
        r#"{"s":"\ud800"}"#,
    ] {
        let callback = format!(r#"{{"url":"http://h/","body":   {body}  }}"#);
        assert_eq!(stored(&callback).await, body.as_bytes(), "{body}");
    }
}

#[tokio::test]
async fn an_absent_callback_body_is_an_empty_object() {
    assert_eq!(stored(r#"{"url":"http://h/"}"#).await, b"{}");
    assert_eq!(stored(r#"{"url":"http://h/","body":null}"#).await, b"{}");
}

#[tokio::test]
async fn the_url_is_stored_as_the_client_wrote_it() {
    let seen = Arc::new(Seen::default());
    let (app, _readiness) = app_with(FakeTasks {
        seen: seen.clone(),
        ..FakeTasks::default()
    });
    let url = "HTTP://B\u{fc}cher.example:80/a/../b?c";
    assert_eq!(
        post(&app, "createTask", good_but(&[("/callback/url", json!(url))]))
            .await
            .code(),
        0
    );
    assert_eq!(seen.created.lock()[0].url, url);
}

#[tokio::test]
async fn unknown_fields_and_content_types_are_ignored() {
    let body = good_but(&[("/x", json!({"type": "no"})), ("/callback/headers", json!(1))]);
    let (app, _readiness) = app_with(FakeTasks::default());
    for kind in ["text/plain", "application/x-www-form-urlencoded", "application/xml"] {
        let request = request(Method::POST, "/xcron/createTask").header(CONTENT_TYPE, kind);
        let answer = send(&app, request.body(body.clone().into()).expect("a request")).await;
        assert_eq!(answer.code(), 0, "{kind}: {}", answer.text);
    }
}

#[tokio::test]
async fn what_is_no_object_is_1000() {
    let deep = |open: &str, shut: &str, n: usize| {
        let body = open.repeat(n) + "1" + &shut.repeat(n);
        format!(r#"{{"type":1,"format":"* * * * *","callback":{{"url":"http://h/","body":{{"a":{body}}}}}}}"#)
    };
    assert_eq!(create(deep("[", "]", 125)).await.code(), 0);
    for bytes in [
        b"".to_vec(),
        b" \n".to_vec(),
        b"null".to_vec(),
        b"1".to_vec(),
        b"\"x\"".to_vec(),
        br#"[1,"* * * * *",null,null,{"url":"http://h/"}]"#.to_vec(),
        b"{".to_vec(),
        b"{}{}".to_vec(),
        b"{\"type\":1,}".to_vec(),
        b"{\"type\":1,\"type\":2}".to_vec(),
        b"{'type':1}".to_vec(),
        b"{\"type\":01}".to_vec(),
        b"{\"type\":NaN}".to_vec(),
        b"{\"type\":1e0}".to_vec(),
        b"{\"type\":99999999999999999999}".to_vec(),
        b"{\"format\":\"\xff\"}".to_vec(),
        b"{\"unknown\":\"\xc3\"}".to_vec(),
        b"{\"format\":\"a\0b\"}".to_vec(),
        b"{\"format\":\"\\ud800\"}".to_vec(),
        b"\0".to_vec(),
        b"\xef\xbb\xbf{}".to_vec(),
        b"type=1&format=x".to_vec(),
        deep("[", "]", 126).into_bytes(),
        deep("{\"a\":", "}", 10_000).into_bytes(),
        vec![b'['; 200_000],
    ] {
        let shown = String::from_utf8_lossy(&bytes[..bytes.len().min(60)]).into_owned();
        let answer = create(bytes).await;
        assert_eq!(
            (answer.status, answer.code()),
            (StatusCode::OK, 1000),
            "{shown}: {}",
            answer.text
        );
        let inner = ["struct", "Fields"].into_iter().find(|word| answer.text.contains(word));
        assert_eq!(inner, None, "{shown}: {} speaks of our code", answer.text);
    }
}

#[tokio::test]
async fn bytes_and_nesting_are_told_by_line_and_column() {
    let answer = create(b"{\n \"a\":\"\xff\"}".to_vec()).await;
    assert!(answer.message().contains("line 2 column 7"), "{}", answer.text);
    let answer = create(format!("\n\n{}", "[".repeat(200))).await;
    assert!(answer.message().contains("line 3 column 129"), "{}", answer.text);
}

fn block_on<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread()
        .build()
        .expect("a runtime")
        .block_on(work)
}

proptest! {
    /// Whatever comes, the answer is an envelope with a code of createTask.
    #[test]
    fn any_bytes_get_an_envelope(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let answer = block_on(create(bytes));
        prop_assert_eq!(answer.status, StatusCode::OK);
        prop_assert_eq!(answer.code(), 1000);
    }

    /// One byte of a good request changed: still an envelope, and never a success with another body than was sent.
    #[test]
    fn a_damaged_request_gets_an_envelope(at in 0_usize..90, byte in any::<u8>()) {
        let mut bytes = good().to_string().into_bytes();
        let at = at % bytes.len();
        bytes[at] = byte;
        let seen = Arc::new(Seen::default());
        let (app, _readiness) = app_with(FakeTasks { seen: seen.clone(), ..FakeTasks::default() });
        let answer = block_on(post(&app, "createTask", bytes.clone()));
        prop_assert_eq!(answer.status, StatusCode::OK);
        prop_assert_eq!(answer.code() == 0, seen.created.lock().len() == 1);
        for task in seen.created.lock().iter() {
            let sent = |part: &[u8]| bytes.windows(part.len()).any(|window| window == part);
            let known = task.body == b"{}" || sent(&task.body);
            prop_assert!(known, "a body that was not sent");
        }
    }

    /// Any string survives, in the form in which it was sent.
    #[test]
    fn any_text_in_a_body_keeps_its_bytes(text in ".*") {
        let body = json!({"text": text}).to_string();
        let callback = format!(r#"{{"body":{body},"url":"http://h/"}}"#);
        prop_assert_eq!(block_on(stored(&callback)), body.into_bytes());
    }
}
