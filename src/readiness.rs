//! Whether a node takes requests now: set by `node.rs`, told by `GET /readyz`.

/// The answer to "may this node be sent requests?".
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Readiness {
    /// Not every group has a leader yet.
    Starting,
    /// Requests are welcome.
    Ready,
    /// Not now, and why, for the operator.
    NotReady(String),
}

impl Readiness {
    /// Why the node is not ready; `None` when it is.
    pub fn reason(&self) -> Option<&str> {
        match self {
            Self::Starting => Some("the node is starting"),
            Self::Ready => None,
            Self::NotReady(reason) => Some(reason),
        }
    }
}
