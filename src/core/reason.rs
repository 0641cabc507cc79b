//! Why a fire, or its latest attempt, came to what it did: the words of the API, the log and the metrics.
//!
//! Owns their names and their stored ordinals. Set by the leader (`fire/dispatch`) and the machine, shown by `api/v1`.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

/// Why there was no answer. All before [`NoAnswer::Timeout`] come before the first byte of the request. Stored: append-only.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum NoAnswer {
    /// The URL cannot be used.
    BadUrl,
    /// The host's name has no address.
    Dns,
    /// Nobody listens at the target's port.
    Refused,
    /// No way leads to the target's address.
    Unreachable,
    /// The TLS handshake failed: a certificate that is not believed, or no TLS at all.
    Tls,
    /// No connection in time: name lookup, TCP and TLS together.
    ConnectTimeout,
    /// No connection, for another reason.
    Connect,
    /// No answer in time.
    Timeout,
    /// The connection ended before the answer.
    Reset,
    /// What came back is no HTTP answer.
    BadAnswer,
    /// Anything else.
    Other,
}

impl NoAnswer {
    fn name(self) -> &'static str {
        match self {
            Self::BadUrl => "bad_url",
            Self::Dns => "dns",
            Self::Refused => "refused",
            Self::Unreachable => "unreachable",
            Self::Tls => "tls",
            Self::ConnectTimeout => "connect_timeout",
            Self::Connect => "connect",
            Self::Timeout => "timeout",
            Self::Reset => "reset",
            Self::BadAnswer => "bad_answer",
            Self::Other => "other",
        }
    }
}

/// Why it came to an outcome, or to a retry. Stored: append-only.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Reason {
    /// The target answered with this status.
    Http(u16),
    /// The target did not answer.
    None(NoAnswer),
    /// The target answered 410: it wants nothing more of the task.
    Gone,
    /// It passed while no node could fire it.
    Misfire,
    /// It passed while an earlier due of its task waited for its turn or was attempted, or as many fires of its task waited for
    /// their retry as may.
    Overlap,
    /// The leader that had claimed the only attempt could not tell what became of it.
    Unknown,
    /// A client deleted the task.
    Deleted,
    /// A client replaced the task.
    Updated,
}

impl Reason {
    /// The name in the API and the log.
    pub fn name(self) -> Cow<'static, str> {
        match self {
            Self::Http(status) => Cow::Owned(format!("http_{status}")),
            other => Cow::Borrowed(other.label()),
        }
    }

    /// The name in metrics: one of few. Statuses that are not told apart by what an operator does about them share one.
    pub fn label(self) -> &'static str {
        match self {
            Self::Http(status) => status_label(status),
            Self::None(kind) => kind.name(),
            Self::Gone => "gone",
            Self::Misfire => "misfire",
            Self::Overlap => "overlap",
            Self::Unknown => "unknown",
            Self::Deleted => "deleted",
            Self::Updated => "updated",
        }
    }
}

fn status_label(status: u16) -> &'static str {
    match status {
        401 => "http_401",
        403 => "http_403",
        404 => "http_404",
        408 => "http_408",
        429 => "http_429",
        500 => "http_500",
        502 => "http_502",
        503 => "http_503",
        504 => "http_504",
        other => match other / 100 {
            2 => "http_2xx",
            3 => "http_3xx",
            4 => "http_4xx",
            5 => "http_5xx",
            _ => "http_other",
        },
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn a_reason_names_its_status_and_a_metric_has_few_labels() {
        assert_eq!(Reason::Http(503).name(), "http_503");
        assert_eq!(Reason::Http(599).name(), "http_599");
        assert_eq!(Reason::None(NoAnswer::ConnectTimeout).name(), "connect_timeout");
        let labels: BTreeSet<_> = (0..=u16::MAX).map(|status| Reason::Http(status).label()).collect();
        assert_eq!(labels.len(), 14);
    }
}
