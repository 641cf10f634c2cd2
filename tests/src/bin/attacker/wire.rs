//! What the attacks write and read themselves: frames, and fields of protobuf.

use std::io;

use futures::{AsyncReadExt as _, AsyncWriteExt as _};
use libp2p::Stream;

/// Nobody sends the attacker more.
const MAX_FRAME_BYTES: usize = 1 << 20;

/// How the length of a frame is written.
#[derive(Clone, Copy)]
pub(crate) enum Framing {
    /// Four bytes, the highest first.
    Fixed,
    /// As in protobuf.
    Varint,
}

impl Framing {
    pub(crate) async fn read(self, stream: &mut Stream) -> io::Result<Vec<u8>> {
        let length = match self {
            Self::Fixed => {
                let mut length = [0; 4];
                stream.read_exact(&mut length).await?;
                u32::from_be_bytes(length) as usize
            }
            Self::Varint => {
                let (mut length, mut byte, mut shift) = (0, [0x80], 0);
                while byte[0] & 0x80 != 0 && shift < 28 {
                    stream.read_exact(&mut byte).await?;
                    length |= usize::from(byte[0] & 0x7F) << shift;
                    shift += 7;
                }
                length
            }
        };
        assert!(length <= MAX_FRAME_BYTES, "a frame of {length} bytes");
        let mut body = vec![0; length];
        stream.read_exact(&mut body).await?;
        Ok(body)
    }

    pub(crate) async fn write(self, stream: &mut Stream, body: &[u8]) -> io::Result<()> {
        let mut frame = match self {
            Self::Fixed => u32::try_from(body.len()).unwrap().to_be_bytes().to_vec(),
            Self::Varint => varint(body.len()),
        };
        frame.extend(body);
        stream.write_all(&frame).await?;
        stream.flush().await
    }
}

/// A field of protobuf that has bytes, or fields of its own.
pub(crate) fn field(number: u8, bytes: &[u8]) -> Vec<u8> {
    let mut field = vec![number << 3 | 2];
    field.extend(varint(bytes.len()));
    field.extend(bytes);
    field
}

fn varint(mut value: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    while value >= 0x80 {
        bytes.push(u8::try_from(value & 0x7F).unwrap() | 0x80);
        value >>= 7;
    }
    bytes.push(u8::try_from(value).unwrap());
    bytes
}
