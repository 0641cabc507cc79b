//! The HTTP clients behind all attempts: one that keeps connections, one that makes a new one for each attempt.
//!
//! Owns the client's traps (timeouts, redirects, proxies, limits of its parser), TLS, and how old a connection may get. Used by
//! `deliver.rs` alone.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use reqwest::{Client, ClientBuilder, redirect, retry};
use rustls::crypto::{self, CryptoProvider};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};
use rustls_platform_verifier::Verifier;
use url::Url;

use super::kept::{Slot, Slots};
use super::names::{Names, SystemLookup};
use super::{DeliverBuildError, DeliverOptions, chain};
use crate::clock::Clock;
use crate::entropy::Entropy;
use crate::limits::{ANSWER_HEADERS_MAX, KEPT_CONNECTION_IDLE_MS, KEPT_CONNECTION_MS_MAX, KEPT_CONNECTION_MS_MIN};

const USER_AGENT: &str = concat!("xcron/", env!("CARGO_PKG_VERSION"));

/// Both clients. Their settings and their TLS sessions are the same.
#[derive(Debug)]
pub(super) struct Clients {
    options: DeliverOptions,
    tls: ClientConfig,
    names: Names,
    clock: Arc<dyn Clock>,
    entropy: Arc<dyn Entropy>,
    /// Its connections are never used again.
    fresh: Client,
    kept: Mutex<Kept>,
    slots: Arc<Slots>,
}

/// The client that keeps connections. It is replaced as a whole when its time is over, and its connections end with it: those that
/// carry an attempt then when that has ended, all others at once.
#[derive(Debug)]
struct Kept {
    client: Client,
    until: Duration,
}

impl Clients {
    /// Reads the machine's root certificates, which takes some milliseconds.
    pub(super) fn new(
        options: &DeliverOptions,
        clock: Arc<dyn Clock>,
        entropy: Arc<dyn Entropy>,
    ) -> Result<Self, DeliverBuildError> {
        let tls = tls(options.extra_roots_pem.as_deref())?;
        let lookup = Arc::new(SystemLookup::new(clock.clone()));
        let connect_time = Duration::from_millis(options.connect_timeout_ms);
        let names = Names::new(lookup, clock.clone(), options.lookups_max, connect_time);
        let build = |idle_per_target| builder(options, &tls, &names, idle_per_target).build();
        let fresh = build(0).map_err(DeliverBuildError::Client)?;
        let client = build(options.idle_per_target).map_err(DeliverBuildError::Client)?;
        let until = end_of_life(clock.as_ref(), entropy.as_ref());
        let slots = Slots::new(clock.clone(), options.idle_total);
        Ok(Self {
            options: options.clone(),
            tls,
            names,
            clock,
            entropy,
            fresh,
            kept: Mutex::new(Kept { client, until }),
            slots,
        })
    }

    /// A place for the connection of an attempt among those that are kept, unless all of them are taken.
    pub(super) fn slot(&self, url: &Url) -> Option<Slot> {
        let port = url.port_or_known_default().unwrap_or_default();
        self.slots.take(format!(
            "{}://{}:{port}",
            url.scheme(),
            url.host_str().unwrap_or_default()
        ))
    }

    /// Makes a new connection for each request, and closes it afterwards.
    pub(super) fn fresh(&self) -> Client {
        self.fresh.clone()
    }

    /// Uses a connection that was kept, or makes one and keeps it. No connection that it gives is older than
    /// [`KEPT_CONNECTION_MS_MAX`].
    pub(super) fn kept(&self) -> Client {
        let mut kept = self.kept.lock();
        if self.clock.monotonic() >= kept.until {
            match builder(&self.options, &self.tls, &self.names, self.options.idle_per_target).build() {
                Ok(client) => {
                    let until = end_of_life(self.clock.as_ref(), self.entropy.as_ref());
                    *kept = Kept { client, until };
                }
                Err(error) => {
                    tracing::warn!(error = %chain(&error), "no HTTP client that keeps connections: each attempt makes its own");
                    return self.fresh();
                }
            }
        }
        kept.client.clone()
    }
}

/// Until when the connections of a client made now may be used. At random, so that nodes that were started together do not come
/// to a target with all their new connections at the same moment.
fn end_of_life(clock: &dyn Clock, entropy: &dyn Entropy) -> Duration {
    let span_ms = KEPT_CONNECTION_MS_MAX - KEPT_CONNECTION_MS_MIN;
    let life_ms = KEPT_CONNECTION_MS_MIN + entropy.next_u64() % (span_ms + 1);
    clock.monotonic() + Duration::from_millis(life_ms)
}

/// A client with every default that is wrong for callbacks replaced.
fn builder(options: &DeliverOptions, tls: &ClientConfig, names: &Names, idle_per_target: usize) -> ClientBuilder {
    Client::builder()
        .user_agent(USER_AGENT)
        .connect_timeout(Duration::from_millis(options.connect_timeout_ms))
        .timeout(Duration::from_millis(options.timeout_ms))
        .pool_idle_timeout(Duration::from_millis(KEPT_CONNECTION_IDLE_MS))
        .pool_max_idle_per_host(idle_per_target)
        // A followed redirect turns the POST into a GET without a body, whose 200 says nothing.
        .redirect(redirect::Policy::none())
        // Retries are the policy's alone: one attempt is one request.
        .retry(retry::never())
        // Otherwise HTTP_PROXY of whoever started the node takes every callback, also those to loopback.
        .no_proxy()
        // The machine's own resolver takes a thread for each name that nobody answers for, out of a pool that others need.
        .dns_resolver(Arc::new(names.clone()))
        .http1_only()
        // The status line decides: what comes after it must not hide it.
        .http1_max_headers(ANSWER_HEADERS_MAX)
        .http1_allow_obsolete_multiline_headers_in_responses(true)
        .http1_allow_spaces_after_header_name_in_responses(true)
        .http1_ignore_invalid_headers_in_responses(true)
        .tls_backend_preconfigured(tls.clone())
}

/// Whose certificates are believed: those that the machine trusts, and the extra ones.
///
/// A machine without root certificates is warned about, not refused: its http targets work, and its https targets fail.
fn tls(extra_roots_pem: Option<&[u8]>) -> Result<ClientConfig, DeliverBuildError> {
    let extra_roots = extra_roots(extra_roots_pem)?;
    let shipped = || Arc::new(crypto::ring::default_provider());
    let provider = CryptoProvider::get_default().map_or_else(shipped, Arc::clone);
    let config = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(DeliverBuildError::Tls)?;
    let config = match Verifier::new_with_extra_roots(extra_roots, provider) {
        Ok(verifier) => config.dangerous().with_custom_certificate_verifier(Arc::new(verifier)),
        Err(error) if extra_roots_pem.is_some() => return Err(DeliverBuildError::ExtraRoots(Some(Box::new(error)))),
        Err(error) => {
            tracing::warn!(
                error = %chain(&error),
                "no root certificates on this machine: callbacks to https fail; install ca-certificates or set SSL_CERT_FILE"
            );
            config.with_root_certificates(RootCertStore::empty())
        }
    };
    Ok(config.with_no_client_auth())
}

fn extra_roots(pem: Option<&[u8]>) -> Result<Vec<CertificateDer<'static>>, DeliverBuildError> {
    let Some(pem) = pem else { return Ok(Vec::new()) };
    let roots: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    let roots = roots.map_err(|error| DeliverBuildError::ExtraRoots(Some(Box::new(error))))?;
    if roots.is_empty() {
        return Err(DeliverBuildError::ExtraRoots(None));
    }
    Ok(roots)
}
