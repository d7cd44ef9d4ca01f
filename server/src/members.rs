//! Who the members are and where they can be reached, as one node knows it.
//!
//! Two records tell about a member, as with etcd. What the others need to reach it, its peer URLs, is its *context* in Raft's membership:
//! in force with the membership itself, from the log's entry on, so a node knows whom to talk to before it has applied
//! anything. What only clients ask for, its name and client URLs, it publishes itself, when it starts, as an ordinary command to the
//! state machine.
//!
//! Founders have no context: all know them from `--initial-cluster`. The first change of the members by an operator gives them
//! theirs, in the same entry, since a node that joins later does not know that list.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use bytes::Bytes;
use lattice_kv::KvReader;
use raft_consensus::driver::Raft;
use raft_consensus::membership::{CONTEXT_MAX, Membership};
use raft_consensus::transport::grpc::GrpcTransport;
use raft_consensus::types::NodeId;

use crate::url::Url;

/// The version of a context's encoding, its first byte.
const VERSION: u8 = 1;
/// Members removed lately whose connections are kept, so that they hear of it.
const LINGERING_MAX: usize = 8;

/// What a node knows of the members. Clones share it.
#[derive(Clone, Debug)]
pub(crate) struct Members {
    raft: Raft<KvReader>,
    /// Where those are that have no context: the founders, or for a node that joins whoever was a member then.
    seeds: Arc<BTreeMap<NodeId, Vec<Url>>>,
}

/// One member.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct MemberView {
    pub(crate) id: NodeId,
    /// Empty until it has started.
    pub(crate) name: String,
    pub(crate) peer_urls: Vec<Url>,
    /// Empty until it has started.
    pub(crate) client_urls: Vec<String>,
    pub(crate) is_learner: bool,
    /// A data directory is bound to it.
    pub(crate) is_bound: bool,
}

impl Members {
    pub(crate) fn new(raft: Raft<KvReader>, seeds: BTreeMap<NodeId, Vec<Url>>) -> Self {
        Self { raft, seeds: seeds.into() }
    }

    /// The members in force on this node.
    pub(crate) fn membership(&self) -> Membership {
        self.raft.watch().borrow().membership.clone()
    }

    /// Where the other members reach `node`; empty if nobody has said.
    pub(crate) fn peer_urls(&self, node: NodeId) -> Vec<Url> {
        self.urls_in(&self.membership(), node)
    }

    fn urls_in(&self, membership: &Membership, node: NodeId) -> Vec<Url> {
        let context = membership.get(node).and_then(|member| decode(&member.context));
        context.or_else(|| self.seeds.get(&node).cloned()).unwrap_or_else(|| {
            let told = self.raft.reader().member(node).map(|told| told.peer_urls);
            told.unwrap_or_default().iter().filter_map(|url| url.parse().ok()).collect()
        })
    }

    /// The members in force, with what they have published as of `reader`, by id.
    pub(crate) fn list(&self, membership: &Membership, reader: &KvReader) -> Vec<MemberView> {
        let view = |(id, member): (NodeId, &raft_consensus::membership::Member)| {
            let told = reader.member(id);
            let (name, client_urls) =
                told.map_or_else(Default::default, |told| (told.name, told.client_urls));
            MemberView {
                id,
                name,
                peer_urls: self.urls_in(membership, id),
                client_urls,
                is_learner: !membership.is_voter(id),
                is_bound: member.store.is_some(),
            }
        };
        membership.members().map(view).collect()
    }

    /// Keeps the transport's peers what the membership in force says. Never ends by itself while the node runs.
    ///
    /// Those removed last stay for as long as this process runs: a removed node is told so over the connection that it had.
    pub(crate) async fn follow(self, me: NodeId, transport: Arc<GrpcTransport>) {
        let mut status = self.raft.watch();
        let mut peers: BTreeMap<NodeId, Vec<Url>> = (*self.seeds).clone();
        let mut lingering: VecDeque<(NodeId, Vec<Url>)> = VecDeque::new();
        loop {
            let membership = status.borrow_and_update().membership.clone();
            if !membership.is_empty() {
                let ids = membership.members().map(|(id, _)| id);
                let now = ids.map(|id| (id, self.urls_in(&membership, id))).collect();
                let before = std::mem::replace(&mut peers, now);
                lingering.extend(before);
                lingering.retain(|(id, _)| !membership.contains(*id));
                lingering.drain(..lingering.len().saturating_sub(LINGERING_MAX));
            }
            let all = peers.iter().chain(lingering.iter().map(|(id, urls)| (id, urls)));
            let all = all
                .filter(|(id, _)| **id != me)
                .map(|(id, urls)| (*id, urls.iter().map(Url::to_string).collect()));
            if let Err(error) = transport.set_peers(all.collect()) {
                tracing::warn!(%error, "a member cannot be reached");
            }
            if status.wait_for(|now| now.membership != membership).await.is_err() {
                return;
            }
        }
    }
}

/// A context that says where a member is reached: version, number of URLs, and each URL after its length. `None` if they do not fit.
pub(crate) fn encode(peer_urls: &[Url]) -> Option<Bytes> {
    let mut context = vec![VERSION, u8::try_from(peer_urls.len()).ok()?];
    for url in peer_urls {
        let url = url.to_string();
        context.extend(u16::try_from(url.len()).ok()?.to_le_bytes());
        context.extend(url.as_bytes());
    }
    (context.len() <= CONTEXT_MAX).then(|| context.into())
}

/// The peer URLs in a context; `None` if it has none, or was not written by this or an earlier version.
fn decode(context: &[u8]) -> Option<Vec<Url>> {
    let (&[VERSION, count], mut rest) = context.split_first_chunk()? else { return None };
    let mut urls = Vec::new();
    for _ in 0..count {
        let (length, after) = rest.split_first_chunk()?;
        let (url, after) = after.split_at_checked(u16::from_le_bytes(*length).into())?;
        urls.push(std::str::from_utf8(url).ok()?.parse().ok()?);
        rest = after;
    }
    (rest.is_empty() && !urls.is_empty()).then_some(urls)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn urls(texts: &[&str]) -> Vec<Url> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    #[test]
    fn a_context_keeps_the_urls() {
        let two = urls(&["http://a:1", "http://[::1]:65535"]);
        let context = encode(&two).unwrap();
        assert_eq!(decode(&context), Some(two));
        assert_eq!(decode(b""), None, "a founder's");
        assert_eq!(decode(&encode(&[]).unwrap()), None, "no URL at all");
    }

    #[test]
    fn a_context_that_is_cut_or_longer_or_of_a_later_version_has_no_urls() {
        let context = encode(&urls(&["http://a:1", "http://b:2"])).unwrap();
        for cut in 0..context.len() {
            assert_eq!(decode(&context[..cut]), None, "cut at {cut}");
        }
        assert_eq!(decode(&[&context[..], b"x"].concat()), None);
        assert_eq!(decode(&[&[VERSION + 1], &context[1..]].concat()), None);
    }

    #[test]
    fn urls_that_do_not_fit_make_no_context() {
        let long = format!("http://{}:1", "h".repeat(1000));
        assert!(encode(&urls(&[&long])).is_some());
        assert!(encode(&urls(&[&long, &long, &long])).is_none());
        let many: Vec<Url> =
            (0..300).map(|port| format!("http://a:{port}").parse().unwrap()).collect();
        assert!(encode(&many).is_none());
    }
}
