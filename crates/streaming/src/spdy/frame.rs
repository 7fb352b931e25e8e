//! Frames on the wire (SPDY protocol draft 3.1, section 2.2).

use bytes::{Buf, BufMut, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt};

use super::SpdyError;

const VERSION: u16 = 3;
const FLAG_FIN: u8 = 0x01;
/// Longest control frame that is read, bytes.
const MAX_CONTROL: usize = 64 * 1024;
/// Piece in which long data frames are read, bytes.
const PIECE: usize = 32 * 1024;
const STREAM_MASK: u32 = 0x7fff_ffff;

/// A frame; header blocks are still compressed.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Frame {
    SynStream {
        stream: u32,
        fin: bool,
        block: Bytes,
    },
    SynReply {
        stream: u32,
        fin: bool,
        block: Bytes,
    },
    Reset {
        stream: u32,
        status: u32,
    },
    Ping {
        id: u32,
    },
    GoAway,
    Headers {
        stream: u32,
        fin: bool,
        block: Bytes,
    },
    Data {
        stream: u32,
        fin: bool,
        data: Bytes,
    },
    /// SETTINGS, WINDOW_UPDATE, NOOP, CREDENTIAL and what is unknown: without effect here.
    Ignored,
}

fn control(kind: u16, flags: u8, payload: &[u8]) -> Bytes {
    let mut out = BytesMut::with_capacity(8 + payload.len());
    out.put_u16(0x8000 | VERSION);
    out.put_u16(kind);
    // Payloads are bounded far below 2^24.
    out.put_u32(u32::from(flags) << 24 | u32::try_from(payload.len()).unwrap_or(0));
    out.put_slice(payload);
    out.freeze()
}

fn with_block(stream: u32, gap: usize, block: &[u8]) -> BytesMut {
    let mut payload = BytesMut::with_capacity(4 + gap + block.len());
    payload.put_u32(stream & STREAM_MASK);
    payload.put_bytes(0, gap);
    payload.put_slice(block);
    payload
}

impl Frame {
    /// The bytes of the frame. Data is at most 2^24 - 1 bytes long.
    pub(super) fn encode(&self) -> Bytes {
        let fin = |fin: bool| if fin { FLAG_FIN } else { 0 };
        match self {
            Self::SynStream { stream, fin: end, block } => control(1, fin(*end), &with_block(*stream, 6, block)),
            Self::SynReply { stream, fin: end, block } => control(2, fin(*end), &with_block(*stream, 0, block)),
            Self::Headers { stream, fin: end, block } => control(8, fin(*end), &with_block(*stream, 0, block)),
            Self::Reset { stream, status } => {
                let mut payload = with_block(*stream, 0, &[]);
                payload.put_u32(*status);
                control(3, 0, &payload)
            }
            Self::Ping { id } => control(6, 0, &id.to_be_bytes()),
            Self::GoAway => control(7, 0, &[0; 8]),
            Self::Ignored => Bytes::new(),
            Self::Data { stream, fin: end, data } => {
                let mut out = BytesMut::with_capacity(8 + data.len());
                out.put_u32(stream & STREAM_MASK);
                out.put_u32(u32::from(fin(*end)) << 24 | u32::try_from(data.len()).unwrap_or(0));
                out.put_slice(data);
                out.freeze()
            }
        }
    }

    fn control(kind: u16, flags: u8, mut payload: Bytes) -> Result<Self, SpdyError> {
        const SHORT: SpdyError = SpdyError::Protocol("control frame too short");
        let fin = flags & FLAG_FIN != 0;
        let number = |payload: &mut Bytes| payload.try_get_u32().map_err(|_| SHORT);
        Ok(match kind {
            1 => {
                let stream = number(&mut payload)? & STREAM_MASK;
                if payload.len() < 6 {
                    return Err(SHORT);
                }
                payload.advance(6);
                Self::SynStream { stream, fin, block: payload }
            }
            2 => Self::SynReply { stream: number(&mut payload)? & STREAM_MASK, fin, block: payload },
            3 => Self::Reset { stream: number(&mut payload)? & STREAM_MASK, status: number(&mut payload)? },
            6 => Self::Ping { id: number(&mut payload)? },
            7 => Self::GoAway,
            8 => Self::Headers { stream: number(&mut payload)? & STREAM_MASK, fin, block: payload },
            _ => Self::Ignored,
        })
    }
}

/// Reads frames; long data frames come in pieces.
pub(super) struct Reader<R> {
    input: R,
    /// Stream, end flag and bytes left of a data frame that is being read.
    open: Option<(u32, bool, usize)>,
}

impl<R: AsyncRead + Unpin> Reader<R> {
    pub(super) fn new(input: R) -> Self {
        Self { input, open: None }
    }

    /// The next frame; `None` at the end of the connection between frames.
    pub(super) async fn next(&mut self) -> Result<Option<Frame>, SpdyError> {
        if let Some((stream, fin, left)) = self.open.take() {
            return self.data(stream, fin, left).await.map(Some);
        }
        let mut head = [0; 8];
        match self.input.read(&mut head[..1]).await? {
            0 => return Ok(None),
            _ => self.input.read_exact(&mut head[1..]).await?,
        };
        let (first, second) = ((&head[..4]).get_u32(), (&head[4..]).get_u32());
        let flags = head[4];
        let length = usize::try_from(second & 0x00ff_ffff).unwrap_or(usize::MAX);
        if first & 0x8000_0000 == 0 {
            return self.data(first, flags & FLAG_FIN != 0, length).await.map(Some);
        }
        if (first >> 16) as u16 & 0x7fff != VERSION {
            return Err(SpdyError::Protocol("unsupported version"));
        }
        if length > MAX_CONTROL {
            return Err(SpdyError::Protocol("control frame too long"));
        }
        let mut payload = vec![0; length];
        self.input.read_exact(&mut payload).await?;
        Frame::control((first & 0xffff) as u16, flags, payload.into()).map(Some)
    }

    async fn data(&mut self, stream: u32, fin: bool, length: usize) -> Result<Frame, SpdyError> {
        let mut piece = vec![0; length.min(PIECE)];
        self.input.read_exact(&mut piece).await?;
        let left = length - piece.len();
        if left > 0 {
            self.open = Some((stream, fin, left));
        }
        Ok(Frame::Data { stream, fin: fin && left == 0, data: piece.into() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn read(bytes: &[u8]) -> Result<Vec<Frame>, SpdyError> {
        let mut reader = Reader::new(bytes);
        let mut frames = Vec::new();
        while let Some(frame) = reader.next().await? {
            frames.push(frame);
        }
        Ok(frames)
    }

    #[tokio::test]
    async fn frames_survive_the_wire() {
        let block = Bytes::from_static(b"block");
        let frames = [
            Frame::SynStream { stream: 1, fin: false, block: block.clone() },
            Frame::SynReply { stream: 1, fin: true, block: block.clone() },
            Frame::Headers { stream: 3, fin: false, block },
            Frame::Data { stream: 3, fin: true, data: Bytes::from_static(b"hello") },
            Frame::Reset { stream: 5, status: 7 },
            Frame::Ping { id: 9 },
            Frame::GoAway,
        ];
        let wire: Vec<u8> = frames.iter().flat_map(|frame| frame.encode().to_vec()).collect();
        assert_eq!(read(&wire).await.unwrap(), frames);
    }

    #[tokio::test]
    async fn long_data_comes_in_pieces() {
        let data = Bytes::from(vec![7; PIECE + 1]);
        let frames = read(&Frame::Data { stream: 1, fin: true, data }.encode()).await.unwrap();
        let ends: Vec<bool> = frames.iter().map(|frame| matches!(frame, Frame::Data { fin: true, .. })).collect();
        assert_eq!(ends, [false, true]);
    }

    #[tokio::test]
    async fn broken_frames_are_refused() {
        for bytes in [
            &[0x80_u8, 2, 0, 1, 0, 0, 0, 0][..],
            &[0x80, 3, 0, 1, 0, 0xff, 0xff, 0xff],
            &[0x80, 3, 0, 1, 0, 0, 0, 0],
            &[0x80, 3],
        ] {
            assert!(read(bytes).await.is_err(), "{bytes:?}");
        }
    }
}
