//! Proves membership of the cluster and seals what follows: Noise `NNpsk0`, by the `snow` crate, of which nobody else knows.
//!
//! Owns the two handshake messages, each behind its length as u16, and the cut of a connection's plaintext into sealed
//! messages. Says nothing of how long it may take: that is its callers' (`client.rs`, `server.rs`).
//!
//! The pre-shared key is the cluster's; there are no identities to forge within it. The first message can be repeated by
//! anybody who has seen it, so a peer is believed only when its first sealed message has come.

use std::io;
use std::sync::Arc;

use bytes::BytesMut;
use snow::params::{CipherChoice, DHChoice, HashChoice};
use snow::resolvers::{CryptoResolver, DefaultResolver};
use snow::types::{Cipher, Dh, Hash, Random};
use snow::{Builder, HandshakeState, StatelessTransportState};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::LogMark;
use super::frame::Breach;
use super::hello::{Hello, Refusal, judge};
use crate::entropy::Entropy;
use crate::id::NodeId;
use crate::secret::Key;

const PATTERN: &str = "Noise_NNpsk0_25519_ChaChaPoly_SHA256";
/// Bound into the handshake: what speaks another protocol under the same secret is not understood.
const PROLOGUE: &[u8] = b"xcron peer connection 1";
/// Longest handshake message, in bytes: a key, a tag, and a hello with room to grow. A stranger's first bytes, read as a
/// length, are nearly always beyond it.
const HANDSHAKE_BYTES_MAX: usize = 512;
/// Bytes that sealing adds.
const TAG_BYTES: usize = 16;
/// Longest sealed message, in bytes, as Noise has it.
pub(super) const SEALED_BYTES_MAX: usize = 65_535;
/// Most plaintext in one sealed message, in bytes.
pub(super) const PLAIN_BYTES_MAX: usize = SEALED_BYTES_MAX - TAG_BYTES;

/// Both directions of a connection after its handshake, and who is there.
#[derive(Debug)]
pub(super) struct Session {
    pub sealer: Sealer,
    pub opener: Opener,
    pub peer: Hello,
    /// The version that both speak.
    pub version: u16,
    /// Told how far the peer's log is, with each of its frames.
    pub mark: LogMark,
}

/// Begins a connection. Whom it is meant for is in `own`; `key` is the secret's first.
pub(super) async fn initiate<S>(
    stream: &mut S,
    own: &Hello,
    key: &Key,
    random: Arc<dyn Entropy>,
) -> Result<Session, Refusal>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let (noise, peer) = exchange(stream, own, key, random).await?;
    Ok(session(noise, judge(own, &peer)?, peer))
}

/// Only asks who is there.
pub(super) async fn ask<S>(stream: &mut S, own: &Hello, key: &Key, random: Arc<dyn Entropy>) -> Result<Hello, Refusal>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    Ok(exchange(stream, own, key, random).await?.1)
}

/// Sends this node's hello and reads the other's.
async fn exchange<S>(
    stream: &mut S,
    own: &Hello,
    key: &Key,
    random: Arc<dyn Entropy>,
) -> Result<(HandshakeState, Hello), Refusal>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let mut noise = builder(key, random)
        .build_initiator()
        .expect("the pattern needs no more");
    write(stream, &mut noise, own).await?;
    let answer = read(stream).await?;
    if answer.is_empty() {
        return Err(Refusal::Secret);
    }
    let peer = open(&mut noise, &answer)?;
    Ok((noise, peer))
}

/// Takes a connection under any of `keys`. Whom it talks to is learnt; `own` is what this node tells that one, and `met` is done
/// with whoever is welcome before it is answered.
pub(super) async fn respond<S, F>(
    stream: &mut S,
    keys: &[Key],
    random: &Arc<dyn Entropy>,
    own: impl FnOnce(NodeId) -> Hello,
    met: impl FnOnce(Hello) -> F,
) -> Result<Session, Refusal>
where
    S: AsyncRead + AsyncWrite + Unpin,
    F: Future<Output = Result<LogMark, Refusal>>,
{
    let (mut noise, peer) = hear(stream, keys, random).await?;
    let own = own(peer.node);
    let verdict = judge(&own, &peer);
    let mark = match verdict {
        Ok(_) => met(peer).await?,
        Err(_) => LogMark::default(),
    };
    // Told also to whom is refused: it judges by it as well.
    write(stream, &mut noise, &own).await?;
    let session = session(noise, verdict?, peer);
    Ok(Session { mark, ..session })
}

/// Only says who is here, and learns who asks.
pub(super) async fn tell<S>(
    stream: &mut S,
    keys: &[Key],
    random: &Arc<dyn Entropy>,
    own: impl FnOnce(NodeId) -> Hello,
) -> Result<Hello, Refusal>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let (mut noise, peer) = hear(stream, keys, random).await?;
    write(stream, &mut noise, &own(peer.node)).await?;
    Ok(peer)
}

/// Reads the other's hello.
async fn hear<S>(stream: &mut S, keys: &[Key], random: &Arc<dyn Entropy>) -> Result<(HandshakeState, Hello), Refusal>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let first = read(stream).await?;
    let opened = keys.iter().find_map(|key| {
        let mut noise = builder(key, random.clone())
            .build_responder()
            .expect("the pattern needs no more");
        Some((open(&mut noise, &first).ok()?, noise))
    });
    let Some((peer, noise)) = opened else {
        // An empty answer, so that the other side can say why. Whether it arrives changes nothing.
        drop(stream.write_all(&[0, 0]).await);
        return Err(Refusal::Secret);
    };
    Ok((noise, peer))
}

fn builder(key: &Key, random: Arc<dyn Entropy>) -> Builder<'_> {
    let pattern = PATTERN.parse().expect("the pattern is well-formed");
    Builder::with_resolver(pattern, Box::new(Resolver(random)))
        .psk(0, key)
        .and_then(|builder| builder.prologue(PROLOGUE))
        .expect("key and prologue are given once")
}

fn session(noise: HandshakeState, version: u16, peer: Hello) -> Session {
    let state = noise
        .into_stateless_transport_mode()
        .expect("both messages are exchanged");
    let state = Arc::new(state);
    Session {
        sealer: Sealer {
            state: state.clone(),
            nonce: 0,
        },
        opener: Opener { state, nonce: 0 },
        peer,
        version,
        mark: LogMark::default(),
    }
}

async fn write<S: AsyncWrite + Unpin>(
    stream: &mut S,
    noise: &mut HandshakeState,
    hello: &Hello,
) -> Result<(), Refusal> {
    let mut message = [0; 2 + HANDSHAKE_BYTES_MAX];
    let length = noise
        .write_message(&hello.encode(), &mut message[2..])
        .expect("a hello is shorter than the buffer, and it is our turn");
    message[..2].copy_from_slice(&u16::try_from(length).expect("shorter than the buffer").to_be_bytes());
    stream.write_all(&message[..2 + length]).await.map_err(broken)?;
    stream.flush().await.map_err(broken)
}

async fn read<S: AsyncRead + Unpin>(stream: &mut S) -> Result<Vec<u8>, Refusal> {
    let length = usize::from(stream.read_u16().await.map_err(broken)?);
    if length > HANDSHAKE_BYTES_MAX {
        return Err(Refusal::Protocol);
    }
    let mut message = vec![0; length];
    stream.read_exact(&mut message).await.map_err(broken)?;
    Ok(message)
}

fn open(noise: &mut HandshakeState, message: &[u8]) -> Result<Hello, Refusal> {
    let mut payload = [0; HANDSHAKE_BYTES_MAX];
    let length = noise.read_message(message, &mut payload).map_err(|_| Refusal::Secret)?;
    Hello::decode(&payload[..length]).ok_or(Refusal::Protocol)
}

#[expect(clippy::needless_pass_by_value, reason = "for map_err")]
fn broken(error: io::Error) -> Refusal {
    Refusal::Broken(error.to_string())
}

/// The sending direction.
#[derive(Debug)]
pub(super) struct Sealer {
    state: Arc<StatelessTransportState>,
    nonce: u64,
}

impl Sealer {
    /// Appends `plain`, of at most [`PLAIN_BYTES_MAX`] bytes, to `out` as one sealed message behind its length.
    pub(super) fn seal(&mut self, plain: &[u8], out: &mut Vec<u8>) {
        let length = plain.len() + TAG_BYTES;
        out.extend(
            u16::try_from(length)
                .expect("the caller cuts the plaintext")
                .to_be_bytes(),
        );
        let start = out.len();
        out.resize(start + length, 0);
        self.state
            .write_message(self.nonce, plain, &mut out[start..])
            .expect("there is room, and nobody sends 2^64 messages");
        self.nonce += 1;
    }
}

/// The receiving direction.
#[derive(Debug)]
pub(super) struct Opener {
    state: Arc<StatelessTransportState>,
    nonce: u64,
}

impl Opener {
    /// Appends to `plain` what the next sealed message holds.
    pub(super) fn open(&mut self, sealed: &[u8], plain: &mut BytesMut) -> Result<(), Breach> {
        let start = plain.len();
        plain.resize(start + sealed.len(), 0);
        let opened = self.state.read_message(self.nonce, sealed, &mut plain[start..]);
        plain.truncate(start + opened.as_ref().copied().unwrap_or(0));
        self.nonce += 1;
        opened.map(drop).map_err(|_| Breach::Unsealed)
    }
}

/// The library's primitives, with the node's own source of random bytes.
struct Resolver(Arc<dyn Entropy>);

impl CryptoResolver for Resolver {
    fn resolve_rng(&self) -> Option<Box<dyn Random>> {
        Some(Box::new(Draw(self.0.clone())))
    }

    fn resolve_dh(&self, choice: &DHChoice) -> Option<Box<dyn Dh>> {
        DefaultResolver.resolve_dh(choice)
    }

    fn resolve_hash(&self, choice: &HashChoice) -> Option<Box<dyn Hash>> {
        DefaultResolver.resolve_hash(choice)
    }

    fn resolve_cipher(&self, choice: &CipherChoice) -> Option<Box<dyn Cipher>> {
        DefaultResolver.resolve_cipher(choice)
    }
}

struct Draw(Arc<dyn Entropy>);

impl Random for Draw {
    fn try_fill_bytes(&mut self, bytes: &mut [u8]) -> Result<(), snow::Error> {
        self.0.fill(bytes);
        Ok(())
    }
}
