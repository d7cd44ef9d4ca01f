//! Which member of which cluster a node is, found before it starts.
//!
//! A node with an empty directory founds the cluster that its configuration lists, or, as `existing`, joins one: it asks the listed
//! members who is in, finds itself by its peer URLs, and takes its id from there. A directory that was used decides by itself from then
//! on, whatever the list says now; only a founder that starts as `new` must still agree with its list.
//!
//! A member that lost its directory must not come back as itself: it forgot its votes and what it acknowledged. Raft would refuse it by
//! its store id; here the operator is told what to do instead.

use std::sync::Arc;
use std::time::Duration;

use lattice_journal::RealDisk;
use raft_consensus::storage::{DataDirectory, Identity};
use raft_consensus::types::{ClusterId, NodeId};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};

use crate::client::{builder, root_cause};
use crate::config::{ClusterState, Config};
use crate::founders::Founder;
use crate::members::{Contact, Seeds};
use crate::node::{Shared, StartError};
use crate::proto::forward::forward_client::ForwardClient;
use crate::proto::forward::{MemberInfo, MembersRequest, MembersResponse};
use crate::relay::change::parse_urls;
use crate::url::Url;

/// How long one member may take to say who the members are.
const ANSWER_MAX: Duration = Duration::from_secs(2);
/// How long a node that joins waits for members that are there but have no leader.
const JOIN_PATIENCE: Duration = Duration::from_secs(10);
/// How long the founders of a cluster may take to be there before the operator is told who is missing.
const FOUNDING_PATIENCE: Duration = Duration::from_secs(5);
/// How long after that before it is said again.
const FOUNDING_REMINDER: Duration = Duration::from_secs(30);
/// Between two rounds of questions.
const PAUSE: Duration = Duration::from_millis(500);
/// A node that is told of another cluster, or of its removal, hears it at once; the rest it hears from Raft.
const LOOK_MAX: Duration = Duration::from_secs(1);
/// More members than a cluster can have are not taken from an answer.
const MEMBERS_MAX: usize = 1024;

/// Which member of which cluster a node is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) cluster: ClusterId,
    pub(crate) node: NodeId,
    /// The first voters, if the node is one.
    pub(crate) founders: Vec<NodeId>,
    /// Where to reach whom, until the log says more.
    pub(crate) seeds: Seeds,
}

/// What a member is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ask {
    /// The members of this moment.
    Confirmed,
    /// The members that it knows, if it is of a cluster that is founded.
    Founded,
    /// Whatever it knows.
    Known,
}

/// Why nobody said who the members are.
enum NoAnswer {
    /// Nobody is there.
    Unreachable(String),
    /// Somebody is, and does not know at present.
    Later(String),
}

/// Finds out.
pub(crate) async fn find(config: &Config) -> Result<Place, StartError> {
    let identity = match &config.data_dir {
        Some(path) => DataDirectory::look(&RealDisk, path)?,
        None => None,
    };
    match (config.state, identity) {
        (ClusterState::Existing, None) => join(config).await,
        (ClusterState::New, None) => Ok(founder(config)),
        // A founder's: the directory's own check says what differs.
        (ClusterState::New, Some(identity)) if !identity.founders.is_empty() => Ok(founder(config)),
        (_, Some(identity)) => come_back(config, identity).await,
    }
}

fn founder(config: &Config) -> Place {
    Place {
        cluster: config.founders.cluster(),
        node: config.me().id,
        founders: config.founders.iter().map(|founder| founder.id).collect(),
        seeds: by_id(config),
    }
}

fn by_id(config: &Config) -> Seeds {
    let contact = |founder: &Founder| {
        let (name, peer_urls) = (founder.name.clone(), founder.peer_urls.clone());
        (founder.id, Contact { name, peer_urls })
    };
    config.founders.iter().map(contact).collect()
}

/// The directory says who this is. Whether that is right, and where to reach whom, the list tells, and the members if any answers at once.
async fn come_back(config: &Config, identity: Identity) -> Result<Place, StartError> {
    let Identity { cluster, node, founders, .. } = identity;
    let me = config.me();
    let is_founding_list = cluster == config.founders.cluster();
    // Who took a founder's place at its address has that list too, and another id.
    if is_founding_list && !founders.is_empty() && me.id != node {
        return Err(StartError::AnotherMember { node, name: me.name.clone() });
    }
    // An entry that was a founder's has that founder's id, whatever else the list says. One that is wrong has nobody's.
    let mut seeds = by_id(config);
    // A list that agrees with the directory needs no confirmation, but for one thing: a node that was to join a cluster, and was
    // started without saying so, waits for one of its own to be founded. Any other needs a leader's word; without a leader, what
    // somebody knows is better than nothing.
    let questions =
        if is_founding_list { &[Ask::Founded][..] } else { &[Ask::Confirmed, Ask::Founded] };
    for &question in questions {
        let asked = timeout(LOOK_MAX, ask_any(others(config), question)).await;
        let Ok(Ok(answer)) = asked else { continue };
        let found = ClusterId(answer.cluster);
        if found != cluster {
            return Err(StartError::OtherCluster { found, own: cluster });
        }
        // What one member knows may be old: it may not have heard of who came, or of who went and left an address to this node.
        if question == Ask::Confirmed {
            if is_removed(&answer, node) {
                return Err(StartError::Removed { node });
            }
            let mut listed = answer.members.iter();
            if listed.any(|member| member.id != node.0 && has_urls_of(member, me)) {
                return Err(StartError::AnotherMember { node, name: me.name.clone() });
            }
        }
        seeds.extend(contacts_of(&answer));
        break;
    }
    Ok(Place { cluster, node, founders, seeds })
}

fn has_urls_of(member: &MemberInfo, founder: &Founder) -> bool {
    parse_urls(&member.peer_urls).is_some_and(|urls| urls == founder.peer_urls)
}

/// Asks the members which of them this node is.
async fn join(config: &Config) -> Result<Place, StartError> {
    let deadline = Instant::now() + JOIN_PATIENCE;
    let answer = loop {
        match ask_any(others(config), Ask::Confirmed).await {
            Ok(answer) => break answer,
            Err(NoAnswer::Later(_)) if Instant::now() < deadline => sleep(PAUSE).await,
            Err(NoAnswer::Unreachable(reason) | NoAnswer::Later(reason)) => {
                return Err(StartError::NobodyToJoin { reason });
            }
        }
    };
    let me = config.me();
    let found = answer.members.iter().find(|member| has_urls_of(member, me));
    let urls = || me.peer_urls.iter().map(Url::to_string).collect::<Vec<_>>().join(",");
    let Some(found) = found else {
        return Err(StartError::NotListed { name: config.name.clone(), urls: urls() });
    };
    let node = NodeId(found.id);
    if found.is_bound {
        return Err(StartError::RanBefore { node, name: config.name.clone(), urls: urls() });
    }
    tracing::info!(member = format_args!("{:x}", node.0), cluster = %ClusterId(answer.cluster), "joining");
    Ok(Place {
        cluster: ClusterId(answer.cluster),
        node,
        founders: Vec::new(),
        seeds: contacts_of(&answer),
    })
}

/// Tells an operator what a new cluster waits for: it is founded when all founders are there.
pub(crate) async fn warn_until_founded(shared: Arc<Shared>, config: Config) {
    let mut status = shared.raft.watch();
    let mut patience = FOUNDING_PATIENCE;
    loop {
        let founded = status.wait_for(|now| !now.membership.is_blank() || now.is_stopped);
        if timeout(patience, founded).await.is_ok() {
            return;
        }
        let mut missing = Vec::new();
        for founder in config.founders.iter().filter(|founder| founder.name != config.name) {
            let cluster = config.founders.cluster();
            match ask_any(founder.peer_urls.clone(), Ask::Known).await {
                Ok(answer) if ClusterId(answer.cluster) == cluster => {}
                Ok(answer) => missing.push(format!(
                    "{} is of cluster {}: it has another --initial-cluster or token; or this node is to join that cluster, and needs an empty \
                     data directory and --initial-cluster-state=existing",
                    founder.name,
                    ClusterId(answer.cluster)
                )),
                Err(NoAnswer::Unreachable(reason) | NoAnswer::Later(reason)) => {
                    missing.push(format!("{} ({reason})", founder.name));
                }
            }
        }
        if !missing.is_empty() {
            tracing::warn!(
                missing = missing.join(", "),
                "the cluster is not founded yet: all of --initial-cluster must be there for that, once"
            );
            patience = FOUNDING_REMINDER;
        }
    }
}

/// Waits until it is certain that this node is a member no more.
pub(crate) async fn removed(shared: &Shared, patience: Duration) {
    let mut status = shared.raft.watch();
    loop {
        // While there is a leader, it tells.
        let news = status.wait_for(|now| now.is_removed || now.leader.is_none()).await;
        match news.map(|now| now.is_removed) {
            Ok(true) => return,
            Ok(false) => {}
            Err(_stopped) => std::future::pending().await,
        }
        let led = status.wait_for(|now| now.is_removed || now.leader.is_some());
        if timeout(patience, led).await.is_ok() {
            continue;
        }
        let members = &shared.members;
        let known = members.membership();
        let others = known.members().map(|(id, _)| id).filter(|id| *id != shared.id);
        let urls: Vec<Url> = others.flat_map(|id| members.peer_urls(id)).collect();
        if let Ok(answer) = ask_any(urls, Ask::Confirmed).await
            && ClusterId(answer.cluster) == shared.cluster
            && is_removed(&answer, shared.id)
        {
            return;
        }
    }
}

fn is_removed(answer: &MembersResponse, node: NodeId) -> bool {
    node.0 <= answer.last_id && answer.members.iter().all(|member| member.id != node.0)
}

fn contacts_of(answer: &MembersResponse) -> Seeds {
    let contact = |member: &MemberInfo| {
        let peer_urls = parse_urls(&member.peer_urls)?;
        Some((NodeId(member.id), Contact { name: member.name.clone(), peer_urls }))
    };
    answer.members.iter().take(MEMBERS_MAX).filter_map(contact).collect()
}

/// Where the other members of the list are.
fn others(config: &Config) -> Vec<Url> {
    let others = config.founders.iter().filter(|founder| founder.name != config.name);
    others.flat_map(|founder| founder.peer_urls.clone()).collect()
}

/// The first answer of any of these, who are asked at the same time.
async fn ask_any(urls: Vec<Url>, question: Ask) -> Result<MembersResponse, NoAnswer> {
    let mut asking: JoinSet<_> = urls.into_iter().map(|url| ask(url, question)).collect();
    let mut reasons = Vec::new();
    let mut is_anybody_there = false;
    while let Some(answer) = asking.join_next().await {
        match answer {
            Ok(Ok(answer)) => return Ok(answer),
            Ok(Err(NoAnswer::Unreachable(reason))) => reasons.push(reason),
            Ok(Err(NoAnswer::Later(reason))) => {
                is_anybody_there = true;
                reasons.push(reason);
            }
            Err(panicked) => reasons.push(panicked.to_string()),
        }
    }
    reasons.sort();
    if reasons.is_empty() {
        reasons.push("no other member is listed".into());
    }
    let reason = reasons.join("; ");
    Err(if is_anybody_there { NoAnswer::Later(reason) } else { NoAnswer::Unreachable(reason) })
}

async fn ask(url: Url, question: Ask) -> Result<MembersResponse, NoAnswer> {
    let Ok(channel) = builder(&url, ANSWER_MAX).connect().await else {
        return Err(NoAnswer::Unreachable(format!("{url}: nobody is there")));
    };
    let mut client = ForwardClient::new(channel);
    let request = MembersRequest { as_known: question != Ask::Confirmed };
    let why = match timeout(ANSWER_MAX, client.members(request)).await {
        Ok(Ok(answer)) if question == Ask::Founded && answer.get_ref().members.is_empty() => {
            "its cluster is not founded yet".into()
        }
        Ok(Ok(answer)) => return Ok(answer.into_inner()),
        Ok(Err(status)) if status.message().is_empty() => root_cause(&status),
        Ok(Err(status)) => status.message().to_owned(),
        Err(_elapsed) => format!("no answer within {ANSWER_MAX:?}"),
    };
    Err(NoAnswer::Later(format!("{url}: {why}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_missing_was_removed_unless_it_is_to_come() {
        let member = MemberInfo { id: 7, ..MemberInfo::default() };
        let answer = MembersResponse { cluster: 1, last_id: 9, members: vec![member] };
        assert!(is_removed(&answer, NodeId(9)) && is_removed(&answer, NodeId(3)));
        assert!(!is_removed(&answer, NodeId(7)) && !is_removed(&answer, NodeId(10)));
    }
}
