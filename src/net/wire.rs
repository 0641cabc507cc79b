//! Frames over a sealed connection: gathers what is ready into few writes, and cuts what comes into frames. Owns the buffers
//! and the bound on silence; what frames mean is its callers' (`client.rs`, `server.rs`).

use std::io;
use std::time::Duration;

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::timeout;

use super::frame::{Breach, Decoder, Frame};
use super::session::{Opener, PLAIN_BYTES_MAX, SEALED_BYTES_MAX, Sealer};

/// A connection on which nothing comes, or nothing goes out, for this long is given up. Pings keep a healthy one busy.
pub(super) const SILENCE: Duration = Duration::from_secs(8);
/// Bytes that are written at once; what is ready beyond it goes into the next write.
const WRITE_BYTES: usize = 256 << 10;
/// Bytes asked of the socket at once.
const READ_BYTES: usize = 64 << 10;
/// Before a sealed message: its length.
const LENGTH_BYTES: usize = 2;

/// Why a connection ended.
#[derive(Debug, thiserror::Error)]
pub(super) enum End {
    /// The peer closed it, between two frames.
    #[error("the peer closed the connection")]
    Closed,
    /// Nothing came, or nothing went out.
    #[error("the peer was silent for {} s", SILENCE.as_secs())]
    Silent,
    /// The network says so.
    #[error("the connection broke: {0}")]
    Io(#[from] io::Error),
    /// What came could not be followed.
    #[error("the peer sent {0}")]
    Breach(#[from] Breach),
}

/// The receiving half.
pub(super) struct FrameReader<R> {
    io: R,
    opener: Opener,
    sealed: BytesMut,
    decoder: Decoder,
}

impl<R: AsyncRead + Unpin> FrameReader<R> {
    pub(super) fn new(io: R, opener: Opener) -> Self {
        Self {
            io,
            opener,
            sealed: BytesMut::new(),
            decoder: Decoder::default(),
        }
    }

    /// The next frame.
    pub(super) async fn next(&mut self) -> Result<Frame, End> {
        loop {
            if let Some(frame) = self.decoder.next()? {
                return Ok(frame);
            }
            if !self.open_message()? {
                self.read().await?;
            }
        }
    }

    /// Opens a sealed message, if a whole one is there.
    fn open_message(&mut self) -> Result<bool, Breach> {
        let Some(length) = self.sealed.first_chunk::<LENGTH_BYTES>() else {
            return Ok(false);
        };
        let end = LENGTH_BYTES + usize::from(u16::from_be_bytes(*length));
        if self.sealed.len() < end {
            return Ok(false);
        }
        self.opener
            .open(&self.sealed[LENGTH_BYTES..end], self.decoder.buffer())?;
        self.sealed.advance(end);
        Ok(true)
    }

    async fn read(&mut self) -> Result<(), End> {
        self.sealed.reserve(READ_BYTES);
        match timeout(SILENCE, self.io.read_buf(&mut self.sealed)).await {
            Err(_) => Err(End::Silent),
            Ok(Err(error)) => Err(error.into()),
            Ok(Ok(0)) if self.sealed.is_empty() && self.decoder.is_empty() => Err(End::Closed),
            Ok(Ok(0)) => Err(Breach::Cut.into()),
            Ok(Ok(_)) => Ok(()),
        }
    }
}

/// The sending half.
pub(super) struct FrameWriter<W> {
    io: W,
    sealer: Sealer,
    /// Not sealed yet: at most one message's.
    plain: Vec<u8>,
    /// Not written yet: at most [`WRITE_BYTES`] and one message more.
    sealed: Vec<u8>,
}

impl<W: AsyncWrite + Unpin> FrameWriter<W> {
    pub(super) fn new(io: W, sealer: Sealer) -> Self {
        Self {
            io,
            sealer,
            plain: Vec::new(),
            sealed: Vec::new(),
        }
    }

    /// Sends all of `frames`, in one write if they are small.
    pub(super) async fn send(&mut self, frames: &[Frame]) -> Result<(), End> {
        for frame in frames {
            self.put(&frame.header()).await?;
            self.put(&frame.body).await?;
        }
        self.seal();
        self.write().await
    }

    async fn put(&mut self, mut bytes: &[u8]) -> Result<(), End> {
        while !bytes.is_empty() {
            let (now, rest) = bytes.split_at(bytes.len().min(PLAIN_BYTES_MAX - self.plain.len()));
            self.plain.extend_from_slice(now);
            bytes = rest;
            if self.plain.len() == PLAIN_BYTES_MAX {
                self.seal();
            }
            if self.sealed.len() >= WRITE_BYTES {
                self.write().await?;
            }
        }
        Ok(())
    }

    fn seal(&mut self) {
        if !self.plain.is_empty() {
            self.sealer.seal(&self.plain, &mut self.sealed);
            self.plain.clear();
        }
    }

    async fn write(&mut self) -> Result<(), End> {
        let mut rest = &self.sealed[..];
        // Each part in its own time: a slow network is not a dead one.
        while !rest.is_empty() {
            match timeout(SILENCE, self.io.write(rest)).await {
                Err(_) => return Err(End::Silent),
                Ok(Ok(0)) => return Err(io::Error::from(io::ErrorKind::WriteZero).into()),
                Ok(Ok(written)) => rest = &rest[written..],
                Ok(Err(error)) => return Err(error.into()),
            }
        }
        self.sealed.clear();
        timeout(SILENCE, self.io.flush()).await.map_err(|_| End::Silent)??;
        Ok(())
    }
}

const _: () = assert!(SEALED_BYTES_MAX <= u16::MAX as usize);
