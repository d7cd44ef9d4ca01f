//! What the proposer of a command gets back, and its form on the way from the state machine.
//!
//! The reply to a command is bytes, because Raft does not know what it carries. An outcome stays
//! inside one version of one process or goes from leader to follower for a relayed request, and
//! begins with its codec's version like everything that two builds may exchange.

use bytes::Bytes;

use crate::codec::{Decoder, Malformed, put_bytes, put_i64, put_len};
use crate::key_value::KeyValue;
use crate::lease::LeaseId;

/// The version of the codec that this build writes and reads.
const CODEC_VERSION: u8 = 1;

/// What a command did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// The store's revision after the command: `header.revision` of the response.
    pub revision: i64,
    /// What it did, by its kind.
    pub response: Response,
}

/// The part of an outcome that differs by the kind of command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Response {
    /// A key was written.
    Put {
        /// The key as it was, if that was asked for and it existed.
        prev_kv: Option<KeyValue>,
    },
    /// Keys were deleted.
    DeleteRange {
        /// How many.
        deleted: i64,
        /// They as they were, in key order, if that was asked for.
        prev_kvs: Vec<KeyValue>,
    },
    /// A member's attributes were recorded.
    PublishMember,
}

/// The bytes are not an outcome that this build knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("malformed outcome of a command")]
pub struct MalformedOutcome;

/// What the answer to a put takes at most, unless it shows the key as it was.
const CAPACITY: usize = 3 + 10;

const TAG_PUT: u8 = 1;
const TAG_DELETE_RANGE: u8 = 2;
const TAG_PUBLISH_MEMBER: u8 = 3;

impl Outcome {
    /// The reply of the state machine.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        let mut out = Vec::with_capacity(CAPACITY);
        out.push(CODEC_VERSION);
        match &self.response {
            Response::Put { prev_kv } => {
                out.push(TAG_PUT);
                put_i64(&mut out, self.revision);
                out.push(u8::from(prev_kv.is_some()));
                if let Some(key_value) = prev_kv {
                    encode_key_value(&mut out, key_value);
                }
            }
            Response::DeleteRange { deleted, prev_kvs } => {
                out.push(TAG_DELETE_RANGE);
                put_i64(&mut out, self.revision);
                put_i64(&mut out, *deleted);
                put_len(&mut out, prev_kvs.len());
                for key_value in prev_kvs {
                    encode_key_value(&mut out, key_value);
                }
            }
            Response::PublishMember => {
                out.push(TAG_PUBLISH_MEMBER);
                put_i64(&mut out, self.revision);
            }
        }
        out.into()
    }

    /// Reads a reply. Keys and values share the memory of `bytes`.
    ///
    /// # Errors
    ///
    /// [`MalformedOutcome`] if the bytes are not what [`Self::encode`] writes.
    pub fn decode(bytes: Bytes) -> Result<Self, MalformedOutcome> {
        let mut decoder = Decoder::new(bytes);
        if decoder.byte()? != CODEC_VERSION {
            return Err(MalformedOutcome);
        }
        let tag = decoder.byte()?;
        let revision = decoder.i64()?;
        let response = match tag {
            TAG_PUT => {
                let prev_kv = match decoder.flag()? {
                    true => Some(decode_key_value(&mut decoder)?),
                    false => None,
                };
                Response::Put { prev_kv }
            }
            TAG_DELETE_RANGE => {
                let deleted = decoder.i64()?;
                let count = decoder.u64()?;
                let mut prev_kvs = Vec::new();
                for _ in 0..count {
                    prev_kvs.push(decode_key_value(&mut decoder)?);
                }
                Response::DeleteRange { deleted, prev_kvs }
            }
            TAG_PUBLISH_MEMBER => Response::PublishMember,
            _ => return Err(MalformedOutcome),
        };
        decoder.finish()?;
        Ok(Self { revision, response })
    }
}

fn encode_key_value(out: &mut Vec<u8>, key_value: &KeyValue) {
    put_bytes(out, &key_value.key);
    put_i64(out, key_value.create_revision);
    put_i64(out, key_value.mod_revision);
    put_i64(out, key_value.version);
    put_i64(out, key_value.lease.0);
    put_bytes(out, &key_value.value);
}

fn decode_key_value(decoder: &mut Decoder) -> Result<KeyValue, Malformed> {
    Ok(KeyValue {
        key: decoder.bytes()?,
        create_revision: decoder.i64()?,
        mod_revision: decoder.i64()?,
        version: decoder.i64()?,
        lease: LeaseId(decoder.i64()?),
        value: decoder.bytes()?,
    })
}

impl From<Malformed> for MalformedOutcome {
    fn from(_: Malformed) -> Self {
        Self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn samples() -> Vec<Outcome> {
        let key_value = KeyValue {
            key: "k".into(),
            create_revision: 2,
            mod_revision: 300,
            version: 4,
            value: "v".into(),
            lease: LeaseId(9),
        };
        let prev_kvs = vec![key_value.clone(), KeyValue::default()];
        [
            Response::Put { prev_kv: None },
            Response::Put { prev_kv: Some(key_value) },
            Response::DeleteRange { deleted: 0, prev_kvs: Vec::new() },
            Response::DeleteRange { deleted: 2, prev_kvs },
            Response::PublishMember,
        ]
        .map(|response| Outcome { revision: 301, response })
        .into()
    }

    #[test]
    fn an_outcome_comes_back_and_every_cut_or_addition_is_malformed() {
        for outcome in samples() {
            let bytes = outcome.encode();
            assert_eq!(Outcome::decode(bytes.clone()), Ok(outcome));
            for cut in 0..bytes.len() {
                assert_eq!(Outcome::decode(bytes.slice(..cut)), Err(MalformedOutcome));
            }
            let longer = [&bytes[..], b"x"].concat();
            assert_eq!(Outcome::decode(longer.into()), Err(MalformedOutcome));
        }
    }
}
