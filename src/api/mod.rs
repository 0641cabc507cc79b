//! stub
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
pub trait Listen: Send + 'static {}
impl Listen for tokio::net::TcpListener {}
#[derive(Clone, Copy)]
pub enum Call {
    X,
}
impl Call {
    pub fn name(self) -> &'static str {
        "x"
    }
}
pub trait ApiObserve: Send + Sync {
    fn answered(&self, call: Call, code: u16, duration: Duration);
    fn connections(&self, open: bool);
}
pub struct ServeLimits {
    pub connections_max: usize,
    pub header_timeout: Duration,
    pub request_timeout: Duration,
}
pub struct ApiState {
    pub tasks: Arc<dyn crate::router::Tasks>,
    pub clock: Arc<dyn crate::clock::Clock>,
    pub entropy: Arc<dyn crate::entropy::Entropy>,
    pub readiness: watch::Receiver<crate::readiness::Readiness>,
    pub metrics_text: Arc<dyn Fn() -> String + Send + Sync>,
    pub observe: Arc<dyn ApiObserve>,
}
pub fn serve<L: Listen>(
    _l: L,
    _s: ApiState,
    _x: ServeLimits,
    _stop: impl Future<Output = ()> + Send + 'static,
) -> impl Future<Output = ()> + Send + 'static {
    async {}
}
