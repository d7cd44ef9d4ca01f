//! What members publish about themselves.
//!
//! Who votes is Raft's business. Here is only what a client asks for in a member list: names and
//! addresses, replicated like any other state, so that every member can answer for all.

use raft_consensus::types::NodeId;

use crate::codec::{Decoder, Malformed, put_bytes, put_len, put_u64};

/// A member's name and addresses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemberAttributes {
    /// Whose they are.
    pub id: NodeId,
    /// The member's name, for people.
    pub name: String,
    /// Where other members reach it.
    pub peer_urls: Vec<String>,
    /// Where clients reach it.
    pub client_urls: Vec<String>,
}

impl MemberAttributes {
    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        put_u64(out, self.id.0);
        put_bytes(out, self.name.as_bytes());
        for urls in [&self.peer_urls, &self.client_urls] {
            put_len(out, urls.len());
            for url in urls {
                put_bytes(out, url.as_bytes());
            }
        }
    }

    pub(crate) fn decode(decoder: &mut Decoder) -> Result<Self, Malformed> {
        Ok(Self {
            id: NodeId(decoder.u64()?),
            name: decoder.string()?,
            peer_urls: decode_urls(decoder)?,
            client_urls: decode_urls(decoder)?,
        })
    }
}

/// The list grows as strings are found: a count that is too high runs into the end of the input.
fn decode_urls(decoder: &mut Decoder) -> Result<Vec<String>, Malformed> {
    let count = decoder.u64()?;
    let mut urls = Vec::new();
    for _ in 0..count {
        urls.push(decoder.string()?);
    }
    Ok(urls)
}
