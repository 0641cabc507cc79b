//! One message between two nodes, as bytes: pure encoding and decoding. Owns the layout, which is frozen.
//!
//! ```text
//! length u32 | kind u8 | service u8 | id u64 | wall_ms u64 | log u64 | deadline_ms u32 | body        (big-endian)
//! ```
//! `length` counts what comes after it. Frames follow each other in the plaintext of a connection, whatever sealed
//! messages that is cut into (`wire.rs`).

use bytes::{Buf, Bytes, BytesMut};

use crate::limits::PEER_MESSAGE_BYTES_MAX;

const LENGTH_BYTES: usize = 4;
/// Bytes before a frame's body.
pub(super) const HEADER_BYTES: usize = 34;

/// What a frame is. Append-only.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Kind {
    /// Something to do.
    Request = 1,
    /// The answer to a request.
    Response = 2,
    /// The request was not taken: too much is being done for the caller already.
    Busy = 3,
    /// The request was not taken: this node does not know the service.
    Unserved = 4,
    /// The request was taken, but there is no answer.
    Failed = 5,
    /// Are you there, and what time is it?
    Ping = 6,
    /// The answer to a ping.
    Pong = 7,
}

impl Kind {
    fn from_byte(byte: u8) -> Option<Self> {
        use Kind::{Busy, Failed, Ping, Pong, Request, Response, Unserved};
        [Request, Response, Busy, Unserved, Failed, Ping, Pong]
            .into_iter()
            .find(|kind| *kind as u8 == byte)
    }
}

/// One message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Frame {
    pub kind: Kind,
    /// Which part of the node a request is for; 0 otherwise. Kept as a number: a newer node may know more of them.
    pub service: u8,
    /// Names a request and its answer, per connection.
    pub id: u64,
    /// The sender's wall clock when the frame was encoded.
    pub wall_ms: u64,
    /// The last frame of the sender's log that was on its disk by then: all that it has confirmed lies before.
    pub log: u64,
    /// How long the answer to a request is waited for; 0 otherwise.
    pub deadline_ms: u32,
    pub body: Bytes,
}

impl Frame {
    /// A frame without a body, for one side to say to the other about `id`.
    pub(super) fn bare(kind: Kind, id: u64) -> Self {
        Self {
            kind,
            service: 0,
            id,
            wall_ms: 0,
            log: 0,
            deadline_ms: 0,
            body: Bytes::new(),
        }
    }

    /// Bytes of the whole frame.
    pub(super) fn bytes(&self) -> usize {
        HEADER_BYTES + self.body.len()
    }

    /// What goes before the body.
    pub(super) fn header(&self) -> [u8; HEADER_BYTES] {
        let length = u32::try_from(self.bytes() - LENGTH_BYTES).expect("who queues a frame has checked its body");
        let mut header = [0; HEADER_BYTES];
        header[..4].copy_from_slice(&length.to_be_bytes());
        header[4] = self.kind as u8;
        header[5] = self.service;
        header[6..14].copy_from_slice(&self.id.to_be_bytes());
        header[14..22].copy_from_slice(&self.wall_ms.to_be_bytes());
        header[22..30].copy_from_slice(&self.log.to_be_bytes());
        header[30..].copy_from_slice(&self.deadline_ms.to_be_bytes());
        header
    }
}

/// What a sender puts into each frame at the moment of sending.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Stamp {
    pub wall_ms: u64,
    pub log: u64,
}

impl Frame {
    /// The frame as it is sent now.
    pub(super) fn stamped(self, Stamp { wall_ms, log }: Stamp) -> Self {
        Self { wall_ms, log, ..self }
    }
}

/// Why a connection's bytes cannot be followed any further.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Breach {
    /// A frame says that it is longer than any may be.
    #[error("a frame of {0} bytes: at most {PEER_MESSAGE_BYTES_MAX} are allowed")]
    Oversized(u32),
    /// The bytes are not a frame.
    #[error("bytes that are no frame")]
    Garbage,
    /// A message was not sealed by the peer, or was changed, repeated or left out on the way.
    #[error("a message that was not sealed by the peer")]
    Unsealed,
    /// The bytes end within a frame.
    #[error("the connection ended within a frame")]
    Cut,
}

impl Breach {
    /// A short name, for counters.
    pub fn name(self) -> &'static str {
        match self {
            Self::Oversized(_) => "oversized",
            Self::Garbage => "garbage",
            Self::Unsealed => "unsealed",
            Self::Cut => "cut",
        }
    }
}

/// Cuts frames from bytes as they come. Holds only what has come: a length is believed when its bytes are there.
#[derive(Debug, Default)]
pub(super) struct Decoder {
    buffer: BytesMut,
}

impl Decoder {
    /// Where further bytes are put.
    pub(super) fn buffer(&mut self) -> &mut BytesMut {
        &mut self.buffer
    }

    /// Whether the bytes so far end between two frames.
    pub(super) fn is_empty(&self) -> bool {
        self.buffer.is_empty()
    }

    /// The next whole frame.
    pub(super) fn next(&mut self) -> Result<Option<Frame>, Breach> {
        let Some(length) = self.buffer.first_chunk::<LENGTH_BYTES>() else {
            return Ok(None);
        };
        let claimed = u32::from_be_bytes(*length);
        let length = LENGTH_BYTES.saturating_add(claimed as usize);
        if length > HEADER_BYTES + PEER_MESSAGE_BYTES_MAX {
            return Err(Breach::Oversized(claimed));
        }
        if length < HEADER_BYTES {
            return Err(Breach::Garbage);
        }
        if self.buffer.len() < length {
            return Ok(None);
        }
        let mut bytes = self.buffer.split_to(length).freeze();
        bytes.advance(LENGTH_BYTES);
        Ok(Some(Frame {
            kind: Kind::from_byte(bytes.get_u8()).ok_or(Breach::Garbage)?,
            service: bytes.get_u8(),
            id: bytes.get_u64(),
            wall_ms: bytes.get_u64(),
            log: bytes.get_u64(),
            deadline_ms: bytes.get_u32(),
            body: bytes,
        }))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn decode_all(pieces: &[&[u8]]) -> Result<Vec<Frame>, Breach> {
        let mut decoder = Decoder::default();
        let mut frames = Vec::new();
        for piece in pieces {
            decoder.buffer().extend_from_slice(piece);
            while let Some(frame) = decoder.next()? {
                frames.push(frame);
            }
        }
        Ok(frames)
    }

    fn encode(frame: &Frame) -> Vec<u8> {
        [&frame.header()[..], &frame.body].concat()
    }

    fn golden() -> (Frame, Vec<u8>) {
        let frame = Frame {
            kind: Kind::Request,
            service: 2,
            id: 0x0102_0304_0506_0708,
            wall_ms: 1_772_323_200_000,
            log: 9,
            deadline_ms: 1_500,
            body: Bytes::from_static(b"body"),
        };
        let bytes = [
            &[0, 0, 0, 34, 1, 2, 1, 2, 3, 4, 5, 6, 7, 8][..],
            &[0, 0, 1, 156, 166, 177, 220, 0],
            &[0, 0, 0, 0, 0, 0, 0, 9, 0, 0, 5, 220],
            b"body",
        ];
        (frame, bytes.concat())
    }

    #[test]
    fn the_layout_is_frozen() {
        let (frame, bytes) = golden();
        assert_eq!(encode(&frame), bytes);
        assert_eq!(decode_all(&[&bytes]), Ok(vec![frame]));
        let kinds = [
            Kind::Request,
            Kind::Response,
            Kind::Busy,
            Kind::Unserved,
            Kind::Failed,
            Kind::Ping,
            Kind::Pong,
        ];
        for (number, kind) in (1u8..).zip(kinds) {
            assert_eq!(Kind::from_byte(number), Some(kind));
        }
        assert_eq!(Kind::from_byte(0), None);
        assert_eq!(Kind::from_byte(8), None);
    }

    #[test]
    fn what_is_no_frame_is_a_breach() {
        let (_, good) = golden();
        let with = |at: usize, bytes: &[u8]| {
            let mut bad = good.clone();
            bad[at..at + bytes.len()].copy_from_slice(bytes);
            decode_all(&[&bad])
        };
        assert_eq!(with(4, &[0]), Err(Breach::Garbage), "no such kind");
        assert_eq!(with(0, &[0, 0, 0, 29]), Err(Breach::Garbage), "shorter than a header");
        assert_eq!(with(0, &[255; 4]), Err(Breach::Oversized(u32::MAX)));
        let longest = u32::try_from(HEADER_BYTES - LENGTH_BYTES + PEER_MESSAGE_BYTES_MAX).expect("fits");
        assert_eq!(with(0, &longest.to_be_bytes()), Ok(vec![]), "waits for the rest");
        assert_eq!(
            with(0, &(longest + 1).to_be_bytes()),
            Err(Breach::Oversized(longest + 1))
        );
    }

    #[test]
    fn a_claimed_length_takes_no_memory() {
        let mut decoder = Decoder::default();
        let claim = u32::try_from(PEER_MESSAGE_BYTES_MAX).expect("fits").to_be_bytes();
        decoder.buffer().extend_from_slice(&claim);
        assert_eq!(decoder.next(), Ok(None));
        assert!(decoder.buffer().capacity() < 1_024);
    }

    proptest! {
        #[test]
        fn frames_come_back_however_they_are_cut(
            bodies in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..300), 1..6),
            ids in any::<[u64; 2]>(),
            cut in 1usize..400,
        ) {
            let frames: Vec<Frame> = bodies
                .into_iter()
                .map(|body| Frame { id: ids[0], wall_ms: ids[1], body: body.into(), ..golden().0 })
                .collect();
            let bytes: Vec<u8> = frames.iter().flat_map(encode).collect();
            prop_assert_eq!(decode_all(&bytes.chunks(cut).collect::<Vec<_>>()), Ok(frames));
        }

        #[test]
        fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..200), prefix in 0u32..64) {
            let _ = decode_all(&[&bytes]);
            // A plausible length, so that what is behind it is looked at as well.
            let _ = decode_all(&[&prefix.to_be_bytes(), &bytes]);
        }
    }
}
