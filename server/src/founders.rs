//! The members that a cluster is founded with, and the ids that follow from them.
//!
//! Nobody hands out ids: every node computes the same ones from the same `--initial-cluster` and
//! `--initial-cluster-token`, so a node that was given another list or token has another cluster id and is turned away
//! at the first handshake. A member's id is the 64-bit XXH3 of token, name and sorted peer URLs; the cluster's id is that
//! of the token and the sorted member ids. Both are for telling apart, not for secrecy. They are written into the data
//! directory when it is made: changing a founder's name or peer URL afterwards makes it another member.

use std::collections::BTreeMap;

use raft_consensus::types::{ClusterId, NodeId};
use thiserror::Error;
use xxhash_rust::xxh3::Xxh3;

use crate::url::Url;

/// One founding member.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Founder {
    /// Its id.
    pub id: NodeId,
    /// Its name, unique in the cluster.
    pub name: String,
    /// Where the other members reach it, in ascending order; at least one.
    pub peer_urls: Vec<Url>,
}

/// The founding members of a cluster, by name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Founders {
    cluster: ClusterId,
    members: BTreeMap<String, Founder>,
}

/// Why a list of members does not make a cluster.
#[derive(Debug, Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum FoundersError {
    /// No member at all.
    #[error("the initial cluster has no members")]
    Empty,
    /// An item is not `name=url`.
    #[error("`{0}` in the initial cluster is not of the form name=http://host:port")]
    Form(String),
    /// A URL of a member cannot be used.
    #[error("the initial cluster has a bad URL for {name}: {error}")]
    Url {
        /// The member.
        name: String,
        /// What is wrong.
        error: crate::url::UrlError,
    },
    /// Two members share a URL.
    #[error("{first} and {second} have the same peer URL {url}")]
    Shared {
        /// One of the two.
        first: String,
        /// The other.
        second: String,
        /// Their URL.
        url: Url,
    },
    /// Two members got the same id.
    #[error("{first} and {second} get the same id: give one of them another name")]
    Collision {
        /// One of the two.
        first: String,
        /// The other.
        second: String,
    },
}

impl Founders {
    /// Founders from items of the form `name=url`; a name may come several times, once for each of its URLs.
    pub fn parse<'a>(
        token: &str,
        items: impl IntoIterator<Item = &'a str>,
    ) -> Result<Self, FoundersError> {
        let mut members: BTreeMap<String, Vec<Url>> = BTreeMap::new();
        for item in items.into_iter().map(str::trim).filter(|item| !item.is_empty()) {
            let (name, url) = item
                .split_once('=')
                .filter(|(name, _)| !name.is_empty())
                .ok_or_else(|| FoundersError::Form(item.into()))?;
            let url =
                url.parse().map_err(|error| FoundersError::Url { name: name.into(), error })?;
            members.entry(name.into()).or_default().push(url);
        }
        Self::new(token, members)
    }

    /// Founders with these names and peer URLs.
    pub fn new(
        token: &str,
        members: impl IntoIterator<Item = (String, Vec<Url>)>,
    ) -> Result<Self, FoundersError> {
        let mut founders = BTreeMap::new();
        for (name, mut peer_urls) in members {
            peer_urls.sort();
            peer_urls.dedup();
            if peer_urls.is_empty() {
                return Err(FoundersError::Form(name));
            }
            let id = member_id(token, &name, &peer_urls);
            founders.insert(name.clone(), Founder { id, name, peer_urls });
        }
        if founders.is_empty() {
            return Err(FoundersError::Empty);
        }
        refuse_duplicates(&founders)?;
        let mut ids: Vec<NodeId> = founders.values().map(|founder| founder.id).collect();
        ids.sort();
        Ok(Self { cluster: cluster_id(token, &ids), members: founders })
    }

    /// The cluster's id.
    #[must_use]
    pub fn cluster(&self) -> ClusterId {
        self.cluster
    }

    /// The member of this name.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&Founder> {
        self.members.get(name)
    }

    /// The member with this id.
    #[must_use]
    pub fn by_id(&self, id: NodeId) -> Option<&Founder> {
        self.iter().find(|founder| founder.id == id)
    }

    /// All members, by name.
    pub fn iter(&self) -> impl Iterator<Item = &Founder> {
        self.members.values()
    }
}

fn refuse_duplicates(members: &BTreeMap<String, Founder>) -> Result<(), FoundersError> {
    let mut urls = BTreeMap::new();
    let mut ids = BTreeMap::new();
    for Founder { id, name, peer_urls } in members.values() {
        if let Some(first) = ids.insert(*id, name.clone()) {
            return Err(FoundersError::Collision { first, second: name.clone() });
        }
        for url in peer_urls {
            if let Some(first) = urls.insert(url.clone(), name.clone()) {
                return Err(FoundersError::Shared {
                    first,
                    second: name.clone(),
                    url: url.clone(),
                });
            }
        }
    }
    Ok(())
}

fn member_id(token: &str, name: &str, peer_urls: &[Url]) -> NodeId {
    let mut hash = Xxh3::new();
    field(&mut hash, b"lattice member");
    field(&mut hash, token.as_bytes());
    field(&mut hash, name.as_bytes());
    for url in peer_urls {
        field(&mut hash, url.to_string().as_bytes());
    }
    NodeId(not_zero(hash.digest()))
}

fn cluster_id(token: &str, ids: &[NodeId]) -> ClusterId {
    let mut hash = Xxh3::new();
    field(&mut hash, b"lattice cluster");
    field(&mut hash, token.as_bytes());
    for id in ids {
        field(&mut hash, &id.0.to_le_bytes());
    }
    ClusterId(not_zero(hash.digest()))
}

/// Hashes the length first, so that two fields never run into each other.
fn field(hash: &mut Xxh3, bytes: &[u8]) {
    let length = u64::try_from(bytes.len()).expect("a length fits 64 bits");
    hash.update(&length.to_le_bytes());
    hash.update(bytes);
}

/// Zero means *nobody* on the wire.
fn not_zero(id: u64) -> u64 {
    id.max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn three(token: &str) -> Founders {
        let items = ["a=http://h:1", "b=http://h:2", "c=http://h:3", "c=http://h:4"];
        Founders::parse(token, items).unwrap()
    }

    #[test]
    fn ids_do_not_depend_on_the_order_of_the_list() {
        let other =
            Founders::parse("t", ["c=http://h:4", "b=http://h:2", "c=http://h:3", "a=http://h:1"]);
        assert_eq!(other.unwrap(), three("t"));
    }

    #[test]
    fn another_token_makes_another_cluster_of_other_members() {
        assert_ne!(three("t").cluster(), three("u").cluster());
        assert_ne!(three("t").get("a").unwrap().id, three("u").get("a").unwrap().id);
    }

    /// The ids are in data directories: this value may never change.
    #[test]
    fn ids_are_fixed_for_ever() {
        let founders = three("t");
        let ids: Vec<u64> = founders.iter().map(|founder| founder.id.0).collect();
        assert_eq!(founders.cluster().0, 4_191_915_570_714_865_231);
        let golden =
            [18_033_004_790_162_846_403, 3_767_982_947_184_309_505, 11_077_117_908_644_279_667];
        assert_eq!(ids, golden);
    }

    #[test]
    fn lists_that_make_no_cluster_are_refused() {
        let parse = |items: &[&'static str]| Founders::parse("t", items.iter().copied());
        assert_eq!(parse(&[]), Err(FoundersError::Empty));
        assert_eq!(parse(&["http://h:1"]), Err(FoundersError::Form("http://h:1".into())));
        assert_eq!(parse(&["=http://h:1"]), Err(FoundersError::Form("=http://h:1".into())));
        assert!(matches!(parse(&["a=h"]), Err(FoundersError::Url { .. })));
        assert!(matches!(
            parse(&["a=http://h:1", "b=http://h:1"]),
            Err(FoundersError::Shared { .. })
        ));
    }
}
