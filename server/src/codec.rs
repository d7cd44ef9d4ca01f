//! How messages become bytes on a call, and what memory that takes.
//!
//! The library's own codec begins every message, however small, with a buffer of eight kilobytes, in each direction: with requests and
//! answers of some hundred bytes, getting and giving back those buffers is most of what allocation costs a node. Here a message that is
//! written gets as much as it needs, and one that is read a little, which grows if it needs more.

use std::fmt;
use std::marker::PhantomData;

use prost::Message;
use tonic::Status;
use tonic::codec::{BufferSettings, EncodeBuf, Encoder};
use tonic_prost::ProstDecoder;

/// What a call begins with, in bytes: room for a usual request or answer.
const BUFFER: usize = 512;
/// With so many bytes written, a stream of messages hands them on. The library's default.
const HANDED_ON: usize = 32 << 10;

/// The codec of all services of this crate: `T` is written, `U` is read.
pub(crate) struct Codec<T, U>(PhantomData<(T, U)>);

/// Writes messages.
pub(crate) struct ExactEncoder<T>(PhantomData<T>);

fn buffers() -> BufferSettings {
    BufferSettings::new(BUFFER, HANDED_ON)
}

impl<T, U> Default for Codec<T, U> {
    fn default() -> Self {
        Self(PhantomData)
    }
}

impl<T, U> fmt::Debug for Codec<T, U> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Codec")
    }
}

impl<T> fmt::Debug for ExactEncoder<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ExactEncoder")
    }
}

impl<T, U> tonic::codec::Codec for Codec<T, U>
where
    T: Message + 'static,
    U: Message + Default + 'static,
{
    type Encode = T;
    type Decode = U;
    type Encoder = ExactEncoder<T>;
    type Decoder = ProstDecoder<U>;

    fn encoder(&mut self) -> ExactEncoder<T> {
        ExactEncoder(PhantomData)
    }

    fn decoder(&mut self) -> ProstDecoder<U> {
        ProstDecoder::new(buffers())
    }
}

impl<T: Message> Encoder for ExactEncoder<T> {
    type Item = T;
    type Error = Status;

    fn encode(&mut self, message: T, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        buffer.reserve(message.encoded_len());
        message.encode_raw(buffer);
        Ok(())
    }

    fn buffer_settings(&self) -> BufferSettings {
        buffers()
    }
}
