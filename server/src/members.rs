//! Who the members are and where they can be reached, as one node knows it.
//!
//! Two records tell about a member, as with etcd. What the others need, its peer URLs and its name, is its *context* in Raft's membership:
//! in force with the membership itself, from the log's entry on, so a node knows whom to talk to before it has applied
//! anything. What it says of itself, its name and client URLs, it publishes when it starts, as an ordinary command to the state
//! machine. Of two names the published one counts.
//!
//! Founders have no context at first: all know them from `--initial-cluster`, names included. The first change of the members by an
//! operator gives them theirs, in the same entry, since a node that joins later does not know that list; and so does each later change
//! with names that have been published since. A member that was added has no name until it has started, which is how etcd's clients tell.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use lattice_kv::KvReader;
use raft_consensus::driver::Raft;
use raft_consensus::membership::{CONTEXT_MAX, Membership};
use raft_consensus::transport::grpc::GrpcTransport;
use raft_consensus::types::NodeId;
use tokio::time::timeout;

use crate::url::Url;

/// The version of a context's encoding, its first byte.
const VERSION: u8 = 2;
/// The version before names were part of it.
const WITHOUT_NAME: u8 = 1;
/// Members removed lately whose connections are kept, so that they hear of it.
const LINGERING_MAX: usize = 8;
/// How soon it is looked up again where a member is reached whom nobody knew how to reach.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// What a node knows of the members. Clones share it.
#[derive(Clone, Debug)]
pub(crate) struct Members {
    raft: Raft<KvReader>,
    /// Those that have no context: the founders, or for a node that joins whoever was a member then.
    seeds: Arc<Seeds>,
}

/// Members as they were known before the log said anything.
pub(crate) type Seeds = BTreeMap<NodeId, Contact>;

/// What the others need to know of a member.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Contact {
    /// Empty if it is not known.
    pub(crate) name: String,
    pub(crate) peer_urls: Vec<Url>,
}

/// One member.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct MemberView {
    pub(crate) id: NodeId,
    /// Empty if it was added and has not started yet.
    pub(crate) name: String,
    pub(crate) peer_urls: Vec<Url>,
    /// Empty until it has started.
    pub(crate) client_urls: Vec<String>,
    pub(crate) is_learner: bool,
    /// A data directory is bound to it.
    pub(crate) is_bound: bool,
}

impl Members {
    pub(crate) fn new(raft: Raft<KvReader>, seeds: Seeds) -> Self {
        Self { raft, seeds: seeds.into() }
    }

    /// The members in force on this node: whom it talks to and counts, committed or not.
    pub(crate) fn membership(&self) -> Membership {
        self.raft.watch().borrow().membership.clone()
    }

    /// The members that nothing takes back, as this node knows them: after a linearizable read, those of that moment.
    pub(crate) fn committed(&self) -> Membership {
        self.raft.watch().borrow().committed_membership.clone()
    }

    /// Where the other members reach `node`; empty if nobody has said.
    pub(crate) fn peer_urls(&self, node: NodeId) -> Vec<Url> {
        self.contact_in(&self.membership(), node).peer_urls
    }

    fn contact_in(&self, membership: &Membership, node: NodeId) -> Contact {
        let context = membership.get(node).and_then(|member| decode(&member.context));
        let context = context.unwrap_or_default();
        let seed = self.seeds.get(&node).cloned().unwrap_or_default();
        let told = self.raft.reader().member(node);
        let (told_name, told_urls) =
            told.map_or_else(Default::default, |told| (told.name, told.peer_urls));
        let name = [told_name, context.name, seed.name].into_iter().find(|name| !name.is_empty());
        let told_urls = told_urls.iter().filter_map(|url| url.parse().ok()).collect();
        let urls = [context.peer_urls, seed.peer_urls, told_urls];
        Contact {
            name: name.unwrap_or_default(),
            peer_urls: urls.into_iter().find(|urls| !urls.is_empty()).unwrap_or_default(),
        }
    }

    /// Contexts that are to be written down with the next change: of members that have none, and of those whose name is news.
    pub(crate) fn unwritten<'a>(
        &'a self,
        membership: &'a Membership,
    ) -> impl Iterator<Item = (NodeId, Bytes)> + 'a {
        membership.members().filter_map(|(id, member)| {
            let known = self.contact_in(membership, id);
            let written = decode(&member.context).unwrap_or_default();
            let is_news = member.context.is_empty() || known.name != written.name;
            let context = encode(&known).filter(|_| is_news && !known.peer_urls.is_empty())?;
            Some((id, context))
        })
    }

    /// The name of a member, or of one that was; empty if nobody has said.
    pub(crate) fn name(&self, node: NodeId) -> String {
        self.contact_in(&self.membership(), node).name
    }

    /// The members of `membership`, with what they have published as of `reader`, by id.
    pub(crate) fn list(&self, membership: &Membership, reader: &KvReader) -> Vec<MemberView> {
        let view = |(id, member): (NodeId, &raft_consensus::membership::Member)| {
            let Contact { name, peer_urls } = self.contact_in(membership, id);
            MemberView {
                id,
                name,
                peer_urls,
                client_urls: reader.member(id).map(|told| told.client_urls).unwrap_or_default(),
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
        let mut peers: BTreeMap<NodeId, Vec<Url>> =
            self.seeds.iter().map(|(id, contact)| (*id, contact.peer_urls.clone())).collect();
        let mut lingering: VecDeque<(NodeId, Vec<Url>)> = VecDeque::new();
        let (mut silent, mut is_first) = (Vec::new(), true);
        loop {
            let membership = status.borrow_and_update().membership.clone();
            if !membership.is_empty() {
                let ids = membership.members().map(|(id, _)| id);
                let now = ids.map(|id| (id, self.contact_in(&membership, id).peer_urls)).collect();
                let before = std::mem::replace(&mut peers, now);
                // Where another member is reached now, nobody else is. And who was known to be gone from the start has had its time.
                lingering.extend(before.into_iter().filter(|_| !is_first));
                let is_taken = |url: &Url| peers.values().flatten().any(|taken| taken == url);
                lingering
                    .retain(|(id, urls)| !membership.contains(*id) && !urls.iter().any(is_taken));
                is_first = false;
                lingering.drain(..lingering.len().saturating_sub(LINGERING_MAX));
            }
            let all = peers.iter().chain(lingering.iter().map(|(id, urls)| (id, urls)));
            let all = all
                .filter(|(id, _)| **id != me)
                .map(|(id, urls)| (*id, urls.iter().map(Url::to_string).collect()));
            if let Err(error) = transport.set_peers(all.collect()) {
                tracing::warn!(%error, "a member cannot be reached");
            }
            let unknown = peers.iter().filter(|(id, urls)| **id != me && urls.is_empty());
            let unknown: Vec<NodeId> = unknown.map(|(id, _)| *id).collect();
            if unknown != silent {
                for id in &unknown {
                    tracing::warn!(
                        member = format_args!("{:x}", id.0),
                        "nobody has said yet where this member is reached: give its peer URL in --initial-cluster"
                    );
                }
                silent = unknown;
            }
            let changed = status.wait_for(|now| now.membership != membership);
            // What a member published may be heard of later, when what is in the log is applied.
            let changed = match silent.is_empty() {
                true => Ok(changed.await),
                false => timeout(LOOK_AGAIN, changed).await,
            };
            if let Ok(Err(_stopped)) = changed {
                return;
            }
        }
    }
}

/// A context: version, number of URLs, each URL after its length, and the name after its length. `None` if they do not fit.
pub(crate) fn encode(contact: &Contact) -> Option<Bytes> {
    let Contact { name, peer_urls } = contact;
    let mut context = vec![VERSION, u8::try_from(peer_urls.len()).ok()?];
    let urls = peer_urls.iter().map(Url::to_string);
    for text in urls.chain([name.clone()]) {
        context.extend(u16::try_from(text.len()).ok()?.to_le_bytes());
        context.extend(text.as_bytes());
    }
    (context.len() <= CONTEXT_MAX).then(|| context.into())
}

/// What a context says; `None` if it is empty, or was not written by this or an earlier version.
pub(crate) fn decode(context: &[u8]) -> Option<Contact> {
    let (&[version, count], mut rest) = context.split_first_chunk()?;
    let mut text = || {
        let (length, after) = rest.split_first_chunk()?;
        let (text, after) = after.split_at_checked(u16::from_le_bytes(*length).into())?;
        rest = after;
        std::str::from_utf8(text).ok()
    };
    let mut peer_urls = Vec::new();
    for _ in 0..count {
        peer_urls.push(text()?.parse().ok()?);
    }
    let name = match version {
        WITHOUT_NAME => "",
        VERSION => text()?,
        _ => return None,
    };
    let contact = Contact { name: name.to_owned(), peer_urls };
    (rest.is_empty() && !contact.peer_urls.is_empty()).then_some(contact)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn contact(name: &str, urls: &[&str]) -> Contact {
        let peer_urls = urls.iter().map(|text| text.parse().unwrap()).collect();
        Contact { name: name.into(), peer_urls }
    }

    #[test]
    fn a_context_keeps_name_and_urls() {
        for name in ["n1", ""] {
            let two = contact(name, &["http://a:1", "http://[::1]:65535"]);
            assert_eq!(decode(&encode(&two).unwrap()), Some(two));
        }
        assert_eq!(decode(b""), None, "a founder's");
        assert_eq!(decode(&encode(&contact("n1", &[])).unwrap()), None, "no URL at all");
    }

    /// These bytes are in logs.
    #[test]
    fn a_context_of_the_first_version_has_no_name() {
        let bytes = [&[1, 1, 10, 0], &b"http://a:1"[..]].concat();
        assert_eq!(decode(&bytes), Some(contact("", &["http://a:1"])));
    }

    #[test]
    fn a_context_that_is_cut_or_longer_or_of_a_later_version_says_nothing() {
        let context = encode(&contact("n1", &["http://a:1", "http://b:2"])).unwrap();
        for cut in 0..context.len() {
            assert_eq!(decode(&context[..cut]), None, "cut at {cut}");
        }
        assert_eq!(decode(&[&context[..], b"x"].concat()), None);
        assert_eq!(decode(&[&[VERSION + 1], &context[1..]].concat()), None);
    }

    #[test]
    fn urls_that_do_not_fit_make_no_context() {
        let long = format!("http://{}:1", "h".repeat(1000));
        assert!(encode(&contact("n", &[&long])).is_some());
        assert!(encode(&contact("n", &[&long, &long, &long])).is_none());
        let peer_urls = (0..300).map(|port| format!("http://a:{port}").parse().unwrap()).collect();
        assert!(encode(&Contact { peer_urls, ..Contact::default() }).is_none());
    }
}
