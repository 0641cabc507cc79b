//! Which callback URLs are taken. Whether their addresses are allowed is for `fire` to say, at every attempt.

use url::{Host, Url};

use crate::core::target::is_callable;
use crate::limits::URL_BYTES_MAX;

/// Longest name that the domain name system has, and longest part of one, in bytes.
const HOST_BYTES_MAX: usize = 253;
const LABEL_BYTES_MAX: usize = 63;

/// Why a URL is not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum UrlError {
    /// Longer than [`URL_BYTES_MAX`].
    #[error("`callback.url` must have at most {URL_BYTES_MAX} bytes")]
    Length,
    /// A control character, or a blank at an end.
    #[error("`callback.url` must have no control characters, and no blanks around it")]
    Character,
    /// Another scheme, or none.
    #[error("`callback.url` must start with http:// or https://, and a host must follow")]
    Scheme,
    /// User name or password.
    #[error("`callback.url` must have no user name or password: put credentials into the callback body")]
    UserInfo,
    /// A host that a URL may have and a request may not.
    #[error("`callback.url` has a character that no request can carry; check its host")]
    Unsendable,
    /// Nobody can be reached under it, whatever the network is.
    #[error("`callback.url` can never be called: {0}")]
    Never(&'static str),
    /// Not a URL otherwise.
    #[error("`callback.url` is not a URL: {0}")]
    Syntax(url::ParseError),
}

/// Checks a URL as the client wrote it. The parser forgives much (missing slashes, stray blanks); a client that needs
/// that has a mistake which would show only at the due time, so it is told now.
pub(super) fn check(text: &str) -> Result<(), UrlError> {
    if text.len() > URL_BYTES_MAX {
        return Err(UrlError::Length);
    }
    if text.chars().any(char::is_control) || text.trim() != text {
        return Err(UrlError::Character);
    }
    let has_scheme = |scheme: &str| {
        text.get(..scheme.len())
            .is_some_and(|start| start.eq_ignore_ascii_case(scheme))
    };
    let after_scheme = ["http://", "https://"]
        .iter()
        .find(|scheme| has_scheme(scheme))
        .map(|scheme| &text[scheme.len()..]);
    let Some(after_scheme) = after_scheme.filter(|rest| !rest.is_empty() && !rest.starts_with(['/', '\\'])) else {
        return Err(UrlError::Scheme);
    };
    // Looked for in the text: the parser drops an empty user name, and takes a backslash for a slash as we do here.
    let authority = after_scheme.split(['/', '\\', '?', '#']).next().unwrap_or_default();
    if authority.contains('@') {
        return Err(UrlError::UserInfo);
    }
    let url = Url::parse(text).map_err(UrlError::Syntax)?;
    // What is asked again before every callback.
    if !is_callable(&url) {
        return Err(UrlError::UserInfo);
    }
    if url.host_str().is_none_or(str::is_empty) {
        return Err(UrlError::Scheme);
    }
    if let Some(why) = never(&url) {
        return Err(UrlError::Never(why));
    }
    // HTTP libraries take fewer hosts than the parser does: every callback to such a URL would fail.
    hyper::Uri::try_from(url.as_str()).map_err(|_| UrlError::Unsendable)?;
    Ok(())
}

/// Why no connection to it can ever be made.
fn never(url: &Url) -> Option<&'static str> {
    if url.port() == Some(0) {
        return Some("no server has port 0");
    }
    match url.host()? {
        Host::Domain(name) => {
            let name = name.strip_suffix('.').unwrap_or(name);
            if name.len() > HOST_BYTES_MAX {
                return Some("its host is longer than 253 characters");
            }
            let mut labels = name.split('.');
            if labels.clone().any(str::is_empty) {
                return Some("its host has an empty part: two dots in a row, or one at its beginning");
            }
            labels
                .any(|label| label.len() > LABEL_BYTES_MAX)
                .then_some("a part of its host is longer than 63 characters")
        }
        Host::Ipv4(address) if address.is_multicast() || address.is_broadcast() => {
            Some("its host is an address of many machines, not of one")
        }
        Host::Ipv6(address) if address.is_multicast() => Some("its host is an address of many machines, not of one"),
        Host::Ipv4(_) | Host::Ipv6(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A URL whose host has a part of this length.
    fn label(bytes: usize) -> String {
        format!("http://{}.example/", "a".repeat(bytes))
    }

    /// A URL whose host has this length.
    fn name(bytes: usize) -> String {
        let mut host = "a.".repeat(bytes / 2);
        host.truncate(bytes - 2);
        host.push_str("b".repeat(bytes - host.len()).as_str());
        format!("http://{host}/")
    }

    #[test]
    fn urls_that_nobody_can_be_reached_under_are_refused() {
        for (text, part) in [
            ("http://h:0/", "port 0"),
            ("https://a.example:0/x", "port 0"),
            ("http://a..b/", "empty part"),
            ("http://.a/", "empty part"),
            ("http://./", "empty part"),
            ("http://a.example../", "empty part"),
            (label(64).as_str(), "63"),
            (name(254).as_str(), "253"),
            ("http://224.0.0.1/", "many machines"),
            ("http://255.255.255.255/", "many machines"),
            ("http://[ff02::1]/", "many machines"),
        ] {
            let error = check(text).expect_err(text);
            assert!(
                matches!(error, UrlError::Never(_)) && error.to_string().contains(part),
                "{text}: {error}"
            );
        }
    }

    #[test]
    fn good_urls_pass() {
        let longest = format!("http://h/{}", "x".repeat(URL_BYTES_MAX - 9));
        for text in [
            "http://127.0.0.1:8080/hook",
            "https://example.com",
            "HTTP://EXAMPLE.COM/a%20b?c=d#e",
            "http://[::1]:9000/x",
            "http://[2001:db8::1]/",
            "https://bücher.example/straße",
            "http://例え.jp/",
            "http://h/a b",
            "http://h/@x",
            "http://h?a@b",
            "http://h\\@x",
            "http://a_b.example/{c}|^`\"<>[]?{c}|^`\"<>[]#{c}",
            "http://0x7f.1/",
            "http://127.1:65535",
            "http://a.example./",
            "http://0.0.0.0:9/",
            &label(63),
            &name(253),
            &longest,
        ] {
            assert_eq!(check(text), Ok(()), "{text}");
        }
    }

    #[test]
    fn bad_urls_are_refused_for_their_reason() {
        let too_long = format!("http://h/{}", "x".repeat(URL_BYTES_MAX - 8));
        for (text, error) in [
            (too_long.as_str(), UrlError::Length),
            ("http://h/\r\nx: y", UrlError::Character),
            ("http://h/\0", UrlError::Character),
            ("ht\ttp://h/", UrlError::Character),
            ("http://h/\u{85}", UrlError::Character),
            (" http://h/", UrlError::Character),
            ("http://h/\u{a0}", UrlError::Character),
            ("ftp://h/", UrlError::Scheme),
            ("file:///etc/passwd", UrlError::Scheme),
            ("javascript:alert(1)", UrlError::Scheme),
            ("example.com/hook", UrlError::Scheme),
            ("http:h", UrlError::Scheme),
            ("http:///h", UrlError::Scheme),
            ("http://\\h", UrlError::Scheme),
            ("http://", UrlError::Scheme),
            ("http://user@h/", UrlError::UserInfo),
            ("http://user:secret@h/", UrlError::UserInfo),
            ("http://:secret@h/", UrlError::UserInfo),
            ("http://@h/", UrlError::UserInfo),
            ("http://:@h", UrlError::UserInfo),
            ("http://a@b@h?c", UrlError::UserInfo),
            ("http://a{b}/", UrlError::Unsendable),
            ("http://a\"b/", UrlError::Unsendable),
            ("http://[::1/", UrlError::Syntax(url::ParseError::InvalidIpv6Address)),
            ("http://h:99999/", UrlError::Syntax(url::ParseError::InvalidPort)),
            ("http://?x", UrlError::Syntax(url::ParseError::EmptyHost)),
        ] {
            assert_eq!(check(text), Err(error), "{text}");
        }
    }
}
