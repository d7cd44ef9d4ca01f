//! `lattice cluster`: who the members are and how they are.

mod change;

use std::time::Duration;

use clap::{Args, Subcommand};
use lattice::client::{Client, ClientError};
use lattice::proto::etcdserverpb::{Member, StatusResponse};
use lattice::url::Url;
use serde_json::{Value, json};
use thiserror::Error;
use tokio::time::timeout;

use super::{Connection, Exit, Format, Output};

pub(crate) use change::{Conflict, NoSuchMember};

#[derive(Debug, Subcommand)]
pub(crate) enum Cluster {
    /// Ask every member how it is, and tell how many more failures the cluster tolerates
    Status(Common),
    /// List the members
    Members(Common),
    /// Make a node a member, and say how to start it
    Add(change::Add),
    /// Remove a member for good
    Remove(change::Which),
    /// Give a learner its vote
    Promote(change::Which),
    /// Put a new member in the place of one whose machine or data directory is lost
    Replace(change::Replace),
    /// Hand leadership over
    Transfer(change::Transfer),
}

#[derive(Debug, Args)]
pub(crate) struct Common {
    #[command(flatten)]
    connection: Connection,
    /// How to show the result
    #[arg(short, long, value_enum, default_value = "table")]
    output: Format,
}

/// How long the members may take to say who they are of one accord.
const CONFIRMED_WITHIN: Duration = Duration::from_secs(2);

/// A member, and what it said when asked.
struct Asked {
    member: Member,
    answer: Result<StatusResponse, String>,
}

/// The cluster as its members see it together.
#[derive(Debug, PartialEq, Eq)]
enum Health {
    /// A majority follows a leader; so many more members may fail before that ends.
    Working { margin: usize, all_up: bool, refuses_writes: bool },
    /// No member knows a leader that answers, or too few follow it.
    NoQuorum,
}

impl Cluster {
    pub(crate) async fn run(self) -> anyhow::Result<Exit> {
        match self {
            Self::Status(common) => status(common).await,
            Self::Members(common) => members(common).await,
            Self::Add(add) => add.run().await,
            Self::Remove(which) => which.remove().await,
            Self::Promote(which) => which.promote().await,
            Self::Replace(replace) => replace.run().await,
            Self::Transfer(transfer) => transfer.run().await,
        }
    }
}

/// The members: of this moment, or, if nobody confirms that, as the endpoint knows them that has applied most.
async fn known_members(connection: &Connection) -> anyhow::Result<Vec<Member>> {
    let client = connection.client().await?;
    if let Ok(Ok(answer)) = timeout(CONFIRMED_WITHIN, client.members(true)).await {
        return Ok(answer.members);
    }
    let mut best =
        (client.status().await?.raft_applied_index, client.members(false).await?.members);
    for endpoint in &connection.endpoints {
        let known = async {
            let one = std::slice::from_ref(endpoint);
            let client =
                Client::connect(one, connection.timeout.min(CONFIRMED_WITHIN)).await.ok()?;
            let applied = client.status().await.ok()?.raft_applied_index;
            Some((applied, client.members(false).await.ok()?.members))
        };
        best = match known.await {
            Some(known) if known.0 > best.0 => known,
            Some(_) | None => best,
        };
    }
    Ok(best.1)
}

async fn status(common: Common) -> anyhow::Result<Exit> {
    let members = known_members(&common.connection).await?;
    let asking: Vec<_> = members
        .into_iter()
        .map(|member| tokio::spawn(ask(member, common.connection.timeout)))
        .collect();
    let mut asked = Vec::with_capacity(asking.len());
    for task in asking {
        asked.push(task.await?);
    }
    asked.sort_by(|a, b| a.member.name.cmp(&b.member.name));
    let leader_index = asked
        .iter()
        .filter_map(|asked| asked.answer.as_ref().ok())
        .filter(|answer| is_leader(answer))
        .max_by_key(|answer| answer.raft_term)
        .map(|answer| answer.raft_index);
    let items: Vec<Value> = asked.iter().map(|asked| describe(asked, leader_index)).collect();
    let health = health(&asked);
    let summary = match health {
        Health::Working { margin, .. } => json!({ "quorum": true, "margin": margin }),
        Health::NoQuorum => json!({ "quorum": false, "margin": Value::Null }),
    };
    let output = Output::new(common.output);
    let headers = ["NAME", "ID", "ROLE", "TERM", "COMMIT", "APPLIED", "LAG", "ENDPOINT", "TROUBLE"];
    output.list(&headers, summary, "members", &items, row)?;
    if common.output == Format::Table {
        output.text(&format!("\n{}\n", sentence(&health)))?;
    }
    Ok(match health {
        Health::Working { all_up: true, .. } => Exit::Done,
        Health::Working { all_up: false, .. } => Exit::Unhealthy,
        Health::NoQuorum => Exit::NoLeader,
    })
}

async fn members(common: Common) -> anyhow::Result<Exit> {
    let client = common.connection.client().await?;
    let members = client.members(false).await?.members;
    let items: Vec<Value> = members
        .iter()
        .map(|member| {
            json!({
                "id": hex(member.id),
                "name": member.name,
                "peer_urls": member.peer_ur_ls,
                "client_urls": member.client_ur_ls,
                "learner": member.is_learner,
            })
        })
        .collect();
    let headers = ["ID", "NAME", "PEER URLS", "CLIENT URLS", "LEARNER"];
    Output::new(common.output).list(&headers, json!({}), "members", &items, |item| {
        ["id", "name", "peer_urls", "client_urls", "learner"].map(|field| cell(&item[field])).into()
    })?;
    Ok(Exit::Done)
}

async fn ask(member: Member, timeout: Duration) -> Asked {
    let answer = status_of(&member, timeout).await.map_err(|error| error.to_string());
    Asked { member, answer }
}

/// Why a member does not say how it is.
#[derive(Debug, Error)]
enum NoStatus {
    #[error("has not told its client URLs yet")]
    Untold,
    #[error(
        "another member, {:x}, answers at its client URL: it must be told where clients reach it (--advertise-client-urls)", .0
    )]
    AnotherMember(u64),
    #[error(transparent)]
    Client(#[from] ClientError),
}

/// Asks a member itself: what answers at its addresses may be somebody else, such as this machine's own node at a loopback address.
async fn status_of(member: &Member, timeout: Duration) -> Result<StatusResponse, NoStatus> {
    let urls: Vec<Url> = member.client_ur_ls.iter().filter_map(|url| url.parse().ok()).collect();
    if urls.is_empty() {
        return Err(NoStatus::Untold);
    }
    let status = Client::connect(&urls, timeout).await?.status().await?;
    match status.header.map(|header| header.member_id) {
        Some(id) if id != member.id => Err(NoStatus::AnotherMember(id)),
        Some(_) | None => Ok(status),
    }
}

fn is_leader(answer: &StatusResponse) -> bool {
    answer.leader != 0 && answer.header.is_some_and(|header| header.member_id == answer.leader)
}

fn health(asked: &[Asked]) -> Health {
    let voters = || asked.iter().filter(|asked| !asked.member.is_learner);
    let answers = || voters().filter_map(|asked| asked.answer.as_ref().ok());
    let Some(leader) = answers().filter(|answer| is_leader(answer)).max_by_key(|a| a.raft_term)
    else {
        return Health::NoQuorum;
    };
    let following = answers()
        .filter(|answer| answer.leader == leader.leader && answer.raft_term == leader.raft_term)
        .count();
    let majority = voters().count() / 2 + 1;
    let is_well = |asked: &Asked| matches!(&asked.answer, Ok(answer) if answer.errors.is_empty());
    let all_up = following == voters().count() && asked.iter().all(is_well);
    let refuses_writes = leader.errors.iter().any(|error| error.contains("NOSPACE"));
    match following.checked_sub(majority) {
        Some(margin) => Health::Working { margin, all_up, refuses_writes },
        None => Health::NoQuorum,
    }
}

fn sentence(health: &Health) -> String {
    match health {
        Health::Working { refuses_writes: true, .. } => "Reads work. Writes are refused: the leader's disk is nearly full.".into(),
        Health::Working { margin: 0, .. } => "Working. One more failure stops it.".into(),
        Health::Working { margin: 1, .. } => "Working. Tolerates 1 more failure.".into(),
        Health::Working { margin, .. } => format!("Working. Tolerates {margin} more failures."),
        Health::NoQuorum => "Not working: no majority follows a leader. Start the members that are down (a new cluster needs all of \
                             them the first time); if a majority is lost for good, see `lattice recover --help`."
            .into(),
    }
}

fn describe(asked: &Asked, leader_index: Option<u64>) -> Value {
    let Asked { member, answer } = asked;
    let mut item = json!({
        "name": member.name,
        "id": hex(member.id),
        "endpoint": member.client_ur_ls.first(),
    });
    match answer {
        Ok(answer) => {
            item["role"] = match () {
                () if is_leader(answer) => "leader",
                () if member.is_learner => "learner",
                () => "follower",
            }
            .into();
            item["term"] = answer.raft_term.into();
            item["commit"] = answer.raft_index.into();
            item["applied"] = answer.raft_applied_index.into();
            item["lag"] =
                leader_index.map(|index| index.saturating_sub(answer.raft_applied_index)).into();
            item["version"] = answer.version.clone().into();
            item["db_size"] = answer.db_size.into();
            item["trouble"] = answer.errors.join("; ").into();
        }
        Err(error) => {
            item["role"] = "unreachable".into();
            item["trouble"] = error.as_str().into();
        }
    }
    item
}

fn row(item: &Value) -> Vec<String> {
    ["name", "id", "role", "term", "commit", "applied", "lag", "endpoint", "trouble"]
        .map(|field| cell(&item[field]))
        .into()
}

fn cell(value: &Value) -> String {
    match value {
        Value::Null => "-".into(),
        Value::String(text) => text.clone(),
        Value::Array(items) => items.iter().map(cell).collect::<Vec<String>>().join(","),
        other @ (Value::Bool(_) | Value::Number(_) | Value::Object(_)) => other.to_string(),
    }
}

/// Ids are shown as etcd's tools show them.
fn hex(id: u64) -> String {
    format!("{id:x}")
}

#[cfg(test)]
mod tests {
    use lattice::proto::etcdserverpb::ResponseHeader;

    use super::*;

    fn up(id: u64, leader: u64, term: u64) -> Asked {
        let header = ResponseHeader { member_id: id, ..ResponseHeader::default() };
        let answer = StatusResponse {
            header: Some(header),
            leader,
            raft_term: term,
            ..StatusResponse::default()
        };
        Asked { member: Member { id, ..Member::default() }, answer: Ok(answer) }
    }

    fn down() -> Asked {
        Asked { member: Member::default(), answer: Err("refused".into()) }
    }

    #[test]
    fn the_margin_counts_those_who_follow_the_leader() {
        let working = |margin, all_up| Health::Working { margin, all_up, refuses_writes: false };
        assert_eq!(health(&[up(1, 1, 2), up(2, 1, 2), up(3, 1, 2)]), working(1, true));
        assert_eq!(health(&[up(1, 1, 2), up(2, 1, 2), down()]), working(0, false));
        assert_eq!(health(&[up(1, 1, 2), down(), down()]), Health::NoQuorum);
        assert_eq!(health(&[up(1, 1, 1)]), working(0, true));
        let five = [up(1, 1, 2), up(2, 1, 2), up(3, 1, 2), up(4, 1, 2), up(5, 1, 2)];
        assert_eq!(health(&five), working(2, true));
    }

    #[test]
    fn a_leader_of_the_past_does_not_count() {
        let asked = [up(1, 1, 2), up(2, 3, 4), up(3, 3, 4)];
        let working = Health::Working { margin: 0, all_up: false, refuses_writes: false };
        assert_eq!(health(&asked), working);
        assert_eq!(health(&[up(2, 1, 2), up(3, 1, 2), down()]), Health::NoQuorum);
    }

    #[test]
    fn a_full_disk_is_no_health() {
        let low = |mut asked: Asked| {
            let alarm = "memberID:1 alarm:NOSPACE ".to_owned();
            asked.answer.as_mut().unwrap().errors.push(alarm);
            asked
        };
        let found = |refuses_writes| Health::Working { margin: 1, all_up: false, refuses_writes };
        assert_eq!(health(&[low(up(1, 1, 2)), up(2, 1, 2), up(3, 1, 2)]), found(true));
        assert_eq!(health(&[up(1, 1, 2), low(up(2, 1, 2)), up(3, 1, 2)]), found(false));
    }
}
