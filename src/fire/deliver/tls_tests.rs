//! https to a real TLS target: that the provider is in place, and whose certificates are believed.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::thread::JoinHandle;

use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ServerConfig, ServerConnection, StreamOwned};

use super::tests::{delivered, made};
use super::*;

/// Signed the target's certificate. Made with openssl for these tests alone, good until 2126; its key was thrown away.
const ROOT_PEM: &str = "\
-----BEGIN CERTIFICATE-----
MIIBljCCAT2gAwIBAgIUaqprASrxnZv2ZRyLunVHsnd9QwcwCgYIKoZIzj0EAwIw
GDEWMBQGA1UEAwwNeGNyb24gdGVzdCBDQTAgFw0yNjExMjMxNDM2MDhaGA8yMTI2
MTAzMDE0MzYwOFowGDEWMBQGA1UEAwwNeGNyb24gdGVzdCBDQTBZMBMGByqGSM49
AgEGCCqGSM49AwEHA0IABAGx+SX1GCf6RTHr5ScW2wBDPQOBhX4rwGrsGjbpZNul
VQ1TzawIANnI1cG56He1FntdFE+tYC/sNMaV49w60x2jYzBhMB0GA1UdDgQWBBSU
7H7vma1fgGq1f1lyH/qLEZ0pwTAfBgNVHSMEGDAWgBSU7H7vma1fgGq1f1lyH/qL
EZ0pwTAPBgNVHRMBAf8EBTADAQH/MA4GA1UdDwEB/wQEAwICBDAKBggqhkjOPQQD
AgNHADBEAiBBsX2g5J9AcH4vX0DnWC2zrxRUztDbeDXdD0whttYIygIgc2Y5zc8g
sVFqS5GLM61z+SuRjTGlBEq41Rvl5Hln3sw=
-----END CERTIFICATE-----
";
/// For localhost and 127.0.0.1.
const TARGET_PEM: &str = "\
-----BEGIN CERTIFICATE-----
MIIBvTCCAWOgAwIBAgIUbb4cF6bRM9Q39al89s9imADPCAYwCgYIKoZIzj0EAwIw
GDEWMBQGA1UEAwwNeGNyb24gdGVzdCBDQTAgFw0yNjExMjMxNDM2MDhaGA8yMTI2
MTAyOTE0MzYwOFowFDESMBAGA1UEAwwJbG9jYWxob3N0MFkwEwYHKoZIzj0CAQYI
KoZIzj0DAQcDQgAEeNKggnU5kAlL1573pmgKazs0NW+fwfitiUul1G7gpVlzDuAS
iZtr9g7oAucZRFzZ4jj+gfH8To9n8YIVSFwC/qOBjDCBiTAaBgNVHREEEzARggls
b2NhbGhvc3SHBH8AAAEwCQYDVR0TBAIwADALBgNVHQ8EBAMCB4AwEwYDVR0lBAww
CgYIKwYBBQUHAwEwHQYDVR0OBBYEFKteLPJRleBMm6pJPf9GQNUUj6SJMB8GA1Ud
IwQYMBaAFJTsfu+ZrV+AarV/WXIf+osRnSnBMAoGCCqGSM49BAMCA0gAMEUCIQDm
C5y+LxHna+Aqv6OcuAAm7SbyEuK14gUhSRVcBGWagAIgK5B4kWNndOQHv+KPsuG2
hxDZdfTZwcg1oHscNvCLslg=
-----END CERTIFICATE-----
";
/// Protects nothing: the certificate above is believed by these tests only.
const TARGET_KEY_PEM: &str = "\
-----BEGIN PRIVATE KEY-----
MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQg0ZYtVYs9OVFKAV5z
rBdHLK+IQv6yVVL2YCwCdQurpZqhRANCAAR40qCCdTmQCUvXnvemaAprOzQ1b5/B
+K2JS6XUbuClWXMO4BKJm2v2DugC5xlEXNniOP6B8fxOj2fxghVIXAL+
-----END PRIVATE KEY-----
";

const REFUSED_CERTIFICATE: Delivered = Delivered::Ended {
    answer: Answer::None { kind: NoAnswer::Tls },
    is_sent: false,
};

/// Accepts one connection, answers one request with 200, and gives the request back; `None` if TLS failed.
fn target() -> (SocketAddr, JoinHandle<Option<String>>) {
    let chain = vec![CertificateDer::from_pem_slice(TARGET_PEM.as_bytes()).expect("a certificate")];
    let key = PrivateKeyDer::from_pem_slice(TARGET_KEY_PEM.as_bytes()).expect("a key");
    let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("ring has them")
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .expect("the key fits");
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("bound");
    let serve = move || {
        let (stream, _) = listener.accept().ok()?;
        let connection = ServerConnection::new(Arc::new(config)).ok()?;
        let mut tls = StreamOwned::new(connection, stream);
        let mut request = Vec::new();
        while !request.ends_with(b"{}") {
            let mut chunk = [0; 4_096];
            let read = tls.read(&mut chunk).ok().filter(|read| *read > 0)?;
            request.extend_from_slice(&chunk[..read]);
        }
        tls.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").ok()?;
        tls.flush().ok()?;
        String::from_utf8(request).ok()
    };
    (address, std::thread::spawn(serve))
}

fn attempt(url: String) -> Attempt {
    let task_id = TaskId::parse("order-1").expect("an id");
    Attempt {
        url: url.into(),
        body: Bytes::from_static(b"{}"),
        fire_id: FireId::new(task_id.key(), 1, 0),
        task_id,
        due_ms: 0,
        attempt: 1,
        run: 1,
        generation: 1,
        now_ms: 0,
        needs_own_connection: false,
    }
}

fn trusting(extra_roots_pem: Option<&str>) -> HttpDeliver {
    made(&DeliverOptions {
        extra_roots_pem: extra_roots_pem.map(Into::into),
        ..DeliverOptions::default()
    })
    .expect("a client")
}

#[tokio::test]
async fn https_works_to_a_target_whose_certificate_is_trusted() {
    for host in ["localhost", "127.0.0.1"] {
        let (address, serving) = target();
        let url = format!("https://{host}:{}/x", address.port());
        let answer = delivered(&trusting(Some(ROOT_PEM)), attempt(url)).await;
        let expected = Delivered::Ended {
            answer: Answer::Status {
                code: 200,
                retry_after_ms: None,
            },
            is_sent: true,
        };
        assert_eq!(answer, expected, "{host}");
        let request = serving.join().expect("no panic").expect("a request");
        assert!(request.starts_with("POST /x HTTP/1.1\r\n"), "{request}");
    }
}

#[tokio::test]
async fn a_certificate_of_nobody_trusted_is_no_connection() {
    let (address, serving) = target();
    let url = format!("https://localhost:{}/x", address.port());
    let answer = delivered(&trusting(None), attempt(url)).await;
    assert_eq!(answer, REFUSED_CERTIFICATE);
    assert_eq!(serving.join().expect("no panic"), None, "nothing was sent");
}

#[tokio::test]
async fn a_certificate_for_another_name_is_no_connection() {
    let (address, serving) = target();
    // An address of loopback that the certificate does not name, on which the kernel answers all the same.
    let url = format!("https://[::ffff:127.0.0.1]:{}/x", address.port());
    let answer = delivered(&trusting(Some(ROOT_PEM)), attempt(url)).await;
    assert_eq!(answer, REFUSED_CERTIFICATE);
    assert_eq!(serving.join().expect("no panic"), None, "nothing was sent");
}
