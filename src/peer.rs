//! The seam between the parts of a node that speak with other nodes and whatever carries their messages.
//!
//! Owns no protocol: messages are opaque bytes. The real way is `net`; a simulation may bring its own.

use std::fmt::Debug;
use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use bytes::Bytes;

use crate::id::NodeId;
use crate::net::{CallError, Peers, Service};

/// A future whose type is not named, so that the traits here can be trait objects.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Calls other nodes.
pub trait Call: Debug + Send + Sync + 'static {
    /// Sends a request and waits for its answer, at most for `deadline`.
    fn call(
        &self,
        to: NodeId,
        service: Service,
        request: Bytes,
        deadline: Duration,
    ) -> BoxFuture<'_, Result<Bytes, CallError>>;
}

/// The calls of a node that has no peers.
#[derive(Clone, Copy, Debug)]
pub struct NoPeers;

impl Call for NoPeers {
    fn call(&self, to: NodeId, _: Service, _: Bytes, _: Duration) -> BoxFuture<'_, Result<Bytes, CallError>> {
        let error = CallError::NotSent(format!("node {to:016x} is not known here: this node has no peers"));
        Box::pin(async move { Err(error) })
    }
}

impl Call for Peers {
    fn call(
        &self,
        to: NodeId,
        service: Service,
        request: Bytes,
        deadline: Duration,
    ) -> BoxFuture<'_, Result<Bytes, CallError>> {
        Box::pin(Self::call(self, to, service, request, deadline))
    }
}
