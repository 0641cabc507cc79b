//! Which requests are answered at all: those of HTTP that is meant and understood, and of no foreign web page.
//!
//! The API has no authentication yet, and a browser sends whatever a page on it asks for to any address it reaches. A page
//! shows itself by `Origin` or `Sec-Fetch-Site`; one that has pointed a name of its own at this machine by the name in
//! `Host`. Looked at before the routes; called by `server.rs`.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use axum::response::Response;
use hyper::header::{HOST, HeaderMap, HeaderName, HeaderValue, ORIGIN, TRANSFER_ENCODING};
use hyper::http::uri::Authority;
use hyper::{Request, StatusCode, Version};

use super::envelope::{self, FORBIDDEN};
use super::problem::problem;
use crate::entropy::Entropy;

const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// What the checks need to know.
#[derive(Clone)]
pub struct Guard {
    /// The server is reached by this machine alone, so no other name can be meant.
    pub is_loopback: bool,
    /// Names in `Host` that are taken on loopback besides its own, in lower case; one that begins with a dot stands for all
    /// names below it.
    pub hosts: Arc<[String]>,
    /// Request ids come from here.
    pub entropy: Arc<dyn Entropy>,
}

impl fmt::Debug for Guard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Guard")
            .field("is_loopback", &self.is_loopback)
            .field("hosts", &self.hosts)
            .finish_non_exhaustive()
    }
}

/// Why a request is not answered.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Refused {
    /// `Host` is missing, is there twice, or is no host.
    Host,
    /// A transfer coding that this server does not know.
    Coding,
    /// A web page that is not this server's sent it.
    Origin,
    /// The name is none of this server's.
    Name(String),
}

impl Guard {
    /// The answer to a request that gets no other.
    pub(super) fn refuse<B>(&self, request: &Request<B>) -> Option<Response> {
        let refused = self.check(request).err()?;
        let (status, code, envelope_code, title) = match &refused {
            Refused::Host => (StatusCode::BAD_REQUEST, "bad_host", 400, "no usable Host"),
            Refused::Coding => (
                StatusCode::NOT_IMPLEMENTED,
                "not_implemented",
                501,
                "no such transfer coding",
            ),
            Refused::Origin => (StatusCode::FORBIDDEN, "foreign_origin", FORBIDDEN, "a foreign web page"),
            Refused::Name(_) => (StatusCode::FORBIDDEN, "foreign_host", FORBIDDEN, "a foreign name"),
        };
        let message = match &refused {
            Refused::Host => "the request must have one header Host, with the host and port it is sent to".to_owned(),
            Refused::Coding => "Transfer-Encoding must be chunked alone: this server knows no other coding".to_owned(),
            Refused::Origin => {
                "a web page of another origin sent this request (Origin or Sec-Fetch-Site): it is not taken".to_owned()
            }
            Refused::Name(name) => format!(
                "the header Host names {name:?}, and this server listens on loopback alone: use 127.0.0.1, [::1] or \
                 localhost, or add the name to the setting allowed_hosts"
            ),
        };
        Some(if request.uri().path().starts_with("/v1/") {
            problem(status, code, title, message)
        } else {
            envelope::answer_refused(status, envelope_code, &message, self.entropy.as_ref())
        })
    }

    fn check<B>(&self, request: &Request<B>) -> Result<(), Refused> {
        let headers = request.headers();
        if !knows_codings(headers) {
            return Err(Refused::Coding);
        }
        let host = host(headers, request.version())?;
        let host = request.uri().authority().map(ToString::to_string).or(host);
        let host = host.map(|host| host.to_ascii_lowercase());
        if is_foreign_page(headers, host.as_deref()) {
            return Err(Refused::Origin);
        }
        match host {
            Some(host) if self.is_loopback && !self.is_own(&host) => Err(Refused::Name(host)),
            _ => Ok(()),
        }
    }

    /// Whether a request for `host`, in lower case, can be meant for a server on loopback. A name without a dot is none
    /// that a page of the internet could have: no public name server has an address for one.
    fn is_own(&self, host: &str) -> bool {
        let Ok(authority) = host.parse::<Authority>() else {
            return false;
        };
        let name = authority.host();
        let bare = name.trim_start_matches('[').trim_end_matches(']');
        if let Ok(address) = bare.parse::<IpAddr>() {
            return address.to_canonical().is_loopback();
        }
        let name = name.strip_suffix('.').unwrap_or(name);
        let is_allowed =
            |allowed: &String| allowed == name || (allowed.starts_with('.') && name.ends_with(allowed.as_str()));
        !name.contains('.') || name.ends_with(".localhost") || self.hosts.iter().any(is_allowed)
    }
}

/// What `Host` says; HTTP/1.1 demands it, once.
fn host(headers: &HeaderMap, version: Version) -> Result<Option<String>, Refused> {
    let mut all = headers.get_all(HOST).iter();
    let (first, second) = (all.next(), all.next());
    let Some(first) = first else {
        // Older clients have none.
        return if version < Version::HTTP_11 {
            Ok(None)
        } else {
            Err(Refused::Host)
        };
    };
    let text = first.to_str().map_err(|_| Refused::Host)?;
    let is_host = text.is_empty() || text.parse::<Authority>().is_ok_and(|host| !host.as_str().contains('@'));
    if second.is_some() || !is_host {
        return Err(Refused::Host);
    }
    // Empty: the request is for no host in particular, which no browser sends.
    Ok(Some(text.to_owned()).filter(|text| !text.is_empty()))
}

fn knows_codings(headers: &HeaderMap) -> bool {
    let mut values = headers.get_all(TRANSFER_ENCODING).iter();
    values.all(|value| {
        let text = value.to_str().unwrap_or_default();
        text.split(',')
            .all(|coding| coding.trim().eq_ignore_ascii_case("chunked"))
    })
}

/// Whether a browser says that the request comes from a page of another origin than `host`.
fn is_foreign_page(headers: &HeaderMap, host: Option<&str>) -> bool {
    if headers
        .get(SEC_FETCH_SITE)
        .is_some_and(|site| site.as_bytes().eq_ignore_ascii_case(b"cross-site"))
    {
        return true;
    }
    let is_foreign = |origin: &HeaderValue| {
        let authority = origin.to_str().ok().and_then(|origin| origin.split_once("://"));
        // `null` is the origin of what has none, such as a page in a sandbox.
        authority.is_none_or(|(_, authority)| host.is_none_or(|host| !authority.eq_ignore_ascii_case(host)))
    };
    headers.get_all(ORIGIN).iter().any(is_foreign)
}

#[cfg(test)]
mod tests {
    use axum::body::Body;

    use super::*;
    use crate::entropy::SystemEntropy;

    fn guard(is_loopback: bool) -> Guard {
        Guard {
            is_loopback,
            hosts: Arc::from(["timer.example".to_owned(), ".inner.example".to_owned()]),
            entropy: Arc::new(SystemEntropy::default()),
        }
    }

    fn check(is_loopback: bool, headers: &[(&str, &str)]) -> Result<(), Refused> {
        let mut request = Request::builder().uri("/healthz");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        guard(is_loopback).check(&request.body(Body::empty()).expect("a request"))
    }

    #[test]
    fn one_host_is_needed_and_no_more() {
        assert_eq!(check(false, &[]), Err(Refused::Host));
        assert_eq!(check(false, &[("host", "a"), ("host", "a")]), Err(Refused::Host));
        for wrong in ["a b", "a/b", "u@a", "a:b:c"] {
            assert_eq!(check(false, &[("host", wrong)]), Err(Refused::Host), "{wrong}");
        }
        for right in ["", "a", "a.example:8000", "[::1]:8000", "10.0.0.1"] {
            assert_eq!(check(false, &[("host", right)]), Ok(()), "{right}");
        }
        let old = Request::builder()
            .version(Version::HTTP_10)
            .body(())
            .expect("a request");
        assert_eq!(guard(true).check(&old), Ok(()));
    }

    #[test]
    fn only_chunked_is_known() {
        for (coding, known) in [
            ("chunked", true),
            ("Chunked", true),
            ("gzip, chunked", false),
            ("identity", false),
        ] {
            let got = check(false, &[("host", "a"), ("transfer-encoding", coding)]);
            assert_eq!(got.is_ok(), known, "{coding}: {got:?}");
        }
    }

    #[test]
    fn a_foreign_page_is_refused() {
        for (host, origin, own) in [
            ("127.0.0.1:8000", "http://127.0.0.1:8000", true),
            ("LocalHost:8000", "http://localhost:8000", true),
            ("timer.example", "https://timer.example", true),
            ("127.0.0.1:8000", "http://localhost:8000", false),
            ("127.0.0.1:8000", "http://127.0.0.1:3000", false),
            ("127.0.0.1:8000", "https://evil.example", false),
            ("127.0.0.1:8000", "null", false),
            ("127.0.0.1:8000", "", false),
        ] {
            let got = check(true, &[("host", host), ("origin", origin)]);
            assert_eq!(got.is_ok(), own, "{host} {origin}: {got:?}");
        }
        for (site, own) in [("cross-site", false), ("same-origin", true), ("none", true)] {
            let got = check(false, &[("host", "a"), ("sec-fetch-site", site)]);
            assert_eq!(got.is_ok(), own, "{site}");
        }
    }

    #[test]
    fn on_loopback_a_name_of_elsewhere_is_refused() {
        for (host, own) in [
            ("127.0.0.1:8000", true),
            ("127.9.9.9", true),
            ("[::1]:8000", true),
            ("[::ffff:127.0.0.1]", true),
            ("localhost:8000", true),
            ("LOCALHOST.", true),
            ("a.localhost", true),
            ("xcron", true),
            ("timer.example:8000", true),
            ("a.inner.example", true),
            ("evil.example:8000", false),
            ("inner.example", false),
            ("localhost.evil.example", false),
            ("10.0.0.1:8000", false),
            ("0.0.0.0", false),
        ] {
            assert_eq!(check(true, &[("host", host)]).is_ok(), own, "{host}");
            assert_eq!(check(false, &[("host", host)]), Ok(()), "{host}");
        }
    }

    #[test]
    fn an_absolute_target_goes_before_the_header() {
        let request = Request::builder()
            .uri("http://evil.example/healthz")
            .header("host", "localhost");
        let request = request.body(()).expect("a request");
        assert_eq!(
            guard(true).check(&request),
            Err(Refused::Name("evil.example".to_owned()))
        );
    }
}
