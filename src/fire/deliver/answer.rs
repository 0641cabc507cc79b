//! What came back, in the terms of `core::retry`: the status, `Retry-After`, or why there is no status. And what is no attempt,
//! since this node lacked the means.

use std::error::Error;
use std::io;

use reqwest::Response;
use reqwest::header::{HeaderMap, RETRY_AFTER};
use rustix::io::Errno;

use super::names::LookupError;
use super::{Delivered, LocalLimit};
use crate::core::instant::http_date_ms;
use crate::core::reason::NoAnswer;
use crate::core::retry::Answer;
use crate::limits::ANSWER_BYTES_MAX;

/// The part of an answer that decides anything.
pub(super) fn summary(response: &Response, now_ms: u64) -> Answer {
    Answer::Status {
        code: response.status().as_u16(),
        retry_after_ms: retry_after_ms(response.headers(), now_ms),
    }
}

/// `Retry-After` in milliseconds from `now_ms`; a date that has passed is 0, and text that is neither form counts as absent.
fn retry_after_ms(headers: &HeaderMap, now_ms: u64) -> Option<u64> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    if text.is_empty() || !text.bytes().all(|b| b.is_ascii_digit()) {
        return Some(http_date_ms(text)?.saturating_sub(now_ms));
    }
    // Digits alone fail to parse only by being too many.
    let seconds = text.parse().unwrap_or(u64::MAX);
    Some(seconds.saturating_mul(1_000))
}

/// Reads a body of up to `ANSWER_BYTES_MAX`, so that the connection can be used again; a longer one costs its connection.
/// The attempt's time covers this: the client ends a body that does not come.
pub(super) async fn read_and_drop(mut response: Response) {
    let mut room = ANSWER_BYTES_MAX;
    while let Ok(Some(chunk)) = response.chunk().await {
        room = room.saturating_sub(chunk.len());
        if room == 0 {
            return;
        }
    }
}

/// What an attempt that ended without a status was. `is_sent`: a byte of it may have left.
pub(super) fn failure(error: &reqwest::Error, is_sent: bool) -> Delivered {
    if !is_sent && let Some(limit) = local_limit(error) {
        return Delivered::NotTried(limit);
    }
    let kind = if is_sent {
        after_sending(error)
    } else {
        before_sending(error)
    };
    let answer = Answer::None { kind };
    Delivered::Ended { answer, is_sent }
}

/// What this node lacked, if it was that.
fn local_limit(error: &reqwest::Error) -> Option<LocalLimit> {
    let lookup = causes(error).find_map(|error| error.downcast_ref::<LookupError>());
    let code = match lookup {
        Some(LookupError::NotBegun) => return Some(LocalLimit::Lookups),
        Some(LookupError::Local(code)) => *code,
        _ => io_errors(error).find_map(io::Error::raw_os_error)?,
    };
    Some(match Errno::from_raw_os_error(code) {
        Errno::MFILE | Errno::NFILE => LocalLimit::Files,
        Errno::NOBUFS | Errno::NOMEM => LocalLimit::Memory,
        Errno::ADDRNOTAVAIL => LocalLimit::Ports,
        Errno::NETUNREACH | Errno::NETDOWN => LocalLimit::Route,
        _ => return None,
    })
}

fn before_sending(error: &reqwest::Error) -> NoAnswer {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset, HostUnreachable, UnexpectedEof};
    if error.is_builder() {
        // Such as a host that a URL can hold and a request cannot.
        return NoAnswer::BadUrl;
    }
    if error.is_dns() {
        return NoAnswer::Dns;
    }
    if error.is_timeout() {
        return NoAnswer::ConnectTimeout;
    }
    if causes(error).any(<dyn Error + 'static>::is::<rustls::Error>) {
        return NoAnswer::Tls;
    }
    match io_errors(error).last().map(io::Error::kind) {
        Some(ConnectionRefused) => NoAnswer::Refused,
        Some(HostUnreachable) => NoAnswer::Unreachable,
        Some(ConnectionReset | ConnectionAborted) => NoAnswer::Reset,
        // TCP alone ends in none of these: the target has hung up on the handshake.
        Some(UnexpectedEof) => NoAnswer::Tls,
        _ => NoAnswer::Connect,
    }
}

fn after_sending(error: &reqwest::Error) -> NoAnswer {
    if error.is_timeout() {
        NoAnswer::Timeout
    } else if is_closed(error) {
        NoAnswer::Reset
    } else if hyper_errors(error).any(hyper::Error::is_parse) {
        NoAnswer::BadAnswer
    } else {
        NoAnswer::Other
    }
}

/// Whether a cause is that the target closed the connection, in order or not.
fn is_closed(error: &reqwest::Error) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset, UnexpectedEof};
    let is_over = |error: &hyper::Error| error.is_incomplete_message() || error.is_canceled() || error.is_closed();
    let is_cut = |error: &io::Error| {
        matches!(
            error.kind(),
            BrokenPipe | ConnectionAborted | ConnectionReset | UnexpectedEof
        )
    };
    hyper_errors(error).any(is_over) || io_errors(error).any(is_cut)
}

/// Every error behind this one. What stands inside of an I/O error is a cause as well, which `source` leaves out.
fn causes(error: &reqwest::Error) -> impl Iterator<Item = &(dyn Error + 'static)> {
    std::iter::successors(error.source(), |error: &&(dyn Error + 'static)| {
        let inner = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
        match inner {
            Some(inner) => Some(inner as &(dyn Error + 'static)),
            None => (*error).source(),
        }
    })
}

fn hyper_errors(error: &reqwest::Error) -> impl Iterator<Item = &hyper::Error> {
    causes(error).filter_map(|error| error.downcast_ref())
}

fn io_errors(error: &reqwest::Error) -> impl Iterator<Item = &io::Error> {
    causes(error).filter_map(|error| error.downcast_ref())
}

#[cfg(test)]
mod tests {
    use reqwest::header::HeaderValue;

    use super::*;

    fn asked(text: &'static str, now_ms: u64) -> Option<u64> {
        let mut headers = HeaderMap::new();
        headers.insert(RETRY_AFTER, HeaderValue::from_static(text));
        retry_after_ms(&headers, now_ms)
    }

    #[test]
    fn retry_after_is_read_in_both_forms() {
        assert_eq!(retry_after_ms(&HeaderMap::new(), 0), None);
        assert_eq!(asked("0", 9), Some(0));
        assert_eq!(asked("120", 9), Some(120_000));
        assert_eq!(asked(" 7 ", 9), Some(7_000));
        assert_eq!(asked("18446744073709551615", 9), Some(u64::MAX));
        assert_eq!(asked("99999999999999999999999999", 9), Some(u64::MAX));
        assert_eq!(asked("Sun, 06 Nov 1994 08:49:37 GMT", 784_111_770_000), Some(7_000));
        assert_eq!(asked("Sun, 06 Nov 1994 08:49:37 GMT", 784_111_778_000), Some(0));
        for text in ["", "-1", "+1", "1.5", "soon", "1 s", "Sun, 06 Nov 1994"] {
            assert_eq!(asked(text, 9), None, "{text}");
        }
    }
}
