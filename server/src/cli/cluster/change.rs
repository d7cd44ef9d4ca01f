//! Changing the members, one command a step; each says what comes next.

use std::fmt;

use clap::Args;
use lattice::client::Client;
use lattice::proto::etcdserverpb::Member;
use lattice::url::Url;
use serde_json::{Value, json};

use super::{Common, ask, hex, is_leader};
use crate::cli::{Exit, Output, endpoint};

#[derive(Debug, Args)]
pub(crate) struct Add {
    #[command(flatten)]
    new: New,
    /// It gets the log, and no vote until it is promoted
    #[arg(long)]
    learner: bool,
    #[command(flatten)]
    common: Common,
}

#[derive(Debug, Args)]
pub(crate) struct Which {
    /// The member's name or its id
    member: String,
    #[command(flatten)]
    common: Common,
}

#[derive(Debug, Args)]
pub(crate) struct Replace {
    /// The lost member's name or its id
    member: String,
    #[command(flatten)]
    new: New,
    #[command(flatten)]
    common: Common,
}

#[derive(Debug, Args)]
pub(crate) struct Transfer {
    /// Who is to lead, by name or id [default: a voter that is most up to date]
    to: Option<String>,
    #[command(flatten)]
    common: Common,
}

/// The new node.
#[derive(Debug, Args)]
struct New {
    /// Its name
    name: String,
    /// Where the other members will reach it
    #[arg(value_name = "PEER_URL,…", value_delimiter = ',', required = true, value_parser = endpoint)]
    peer_urls: Vec<Url>,
}

/// No member has this name or id.
#[derive(Debug)]
pub(crate) struct NoSuchMember(String);

impl Add {
    pub(crate) async fn run(self) -> anyhow::Result<Exit> {
        let client = self.common.connection.client().await?;
        self.new.add(&client, self.learner, &self.common).await
    }
}

impl Which {
    pub(crate) async fn remove(self) -> anyhow::Result<Exit> {
        let client = self.common.connection.client().await?;
        let member = find(&client, &self.member).await?;
        client.remove_member(member.id).await?;
        let text = format!(
            "{} is removed; its process ends by itself. Its data directory is of no use any more.",
            shown(&member)
        );
        self.common.tell(&text, json!({ "removed": hex(member.id), "name": member.name }))
    }

    pub(crate) async fn promote(self) -> anyhow::Result<Exit> {
        let client = self.common.connection.client().await?;
        let member = find(&client, &self.member).await?;
        client.promote_member(member.id).await?;
        let text = format!("{} votes. See `lattice cluster status`.", shown(&member));
        self.common.tell(&text, json!({ "promoted": hex(member.id), "name": member.name }))
    }
}

impl Replace {
    /// In two steps, since the new node may well have the address of the old one. In between the cluster has one member less, which was
    /// not there anyway.
    pub(crate) async fn run(self) -> anyhow::Result<Exit> {
        let client = self.common.connection.client().await?;
        let member = find(&client, &self.member).await?;
        client.remove_member(member.id).await?;
        let added = self.new.add(&client, false, &self.common).await;
        added.map_err(|error| {
            let New { name, peer_urls } = &self.new;
            error.context(format!(
                "{} is removed, but the new member is not added; go on with `lattice cluster add {name} {}`",
                shown(&member),
                joined(peer_urls)
            ))
        })
    }
}

impl Transfer {
    pub(crate) async fn run(self) -> anyhow::Result<Exit> {
        let client = self.common.connection.client().await?;
        let mut asked = Vec::new();
        for member in client.members().await?.members {
            asked.push(ask(member, self.common.connection.timeout).await);
        }
        let target = match &self.to {
            Some(to) => find(&client, to).await?,
            None => {
                let others =
                    asked.iter().filter(|asked| !asked.member.is_learner).filter_map(|asked| {
                        let answer =
                            asked.answer.as_ref().ok().filter(|answer| !is_leader(answer))?;
                        Some((answer.raft_applied_index, &asked.member))
                    });
                let (_, best) = others
                    .max_by_key(|(applied, _)| *applied)
                    .ok_or_else(|| NoSuchMember("to lead instead".into()))?;
                best.clone()
            }
        };
        let leads = asked.iter().filter_map(|asked| Some((asked, asked.answer.as_ref().ok()?)));
        let leads = leads.filter(|(_, answer)| is_leader(answer));
        let Some((leader, _)) = leads.max_by_key(|(_, answer)| answer.raft_term) else {
            return Ok(Exit::NoLeader);
        };
        let urls: Vec<Url> =
            leader.member.client_ur_ls.iter().filter_map(|url| url.parse().ok()).collect();
        let client = Client::connect(&urls, self.common.connection.timeout).await?;
        client.move_leader(target.id).await?;
        let text = format!("{} leads instead of {}.", shown(&target), shown(&leader.member));
        let (from, to) = (hex(leader.member.id), hex(target.id));
        self.common.tell(&text, json!({ "from": from, "to": to, "name": target.name }))
    }
}

impl New {
    async fn add(&self, client: &Client, learner: bool, common: &Common) -> anyhow::Result<Exit> {
        let Self { name, peer_urls } = self;
        let answer = client.add_member(peer_urls, learner).await?;
        let id = answer.member.map_or(0, |member| member.id);
        let start = start_command(name, peer_urls, id, &answer.members);
        let then = if learner {
            format!("When it has caught up, give it its vote: lattice cluster promote {}", hex(id))
        } else {
            "It gets its vote by itself when it has caught up; see `lattice cluster status`.".into()
        };
        let text = format!(
            "{name} is member {}. Start it, with an empty data directory:\n\n  {start}\n\n{then}",
            hex(id)
        );
        common.tell(
            &text,
            json!({ "added": hex(id), "name": name, "learner": learner, "start": start }),
        )
    }
}

impl Common {
    fn tell(&self, text: &str, value: Value) -> anyhow::Result<Exit> {
        Output::new(self.output).one(text, value)?;
        Ok(Exit::Done)
    }
}

/// The command that starts a new node; a member that has not told its name is listed by its id.
fn start_command(name: &str, peer_urls: &[Url], id: u64, members: &[Member]) -> String {
    let others = members.iter().filter(|member| member.id != id).flat_map(|member| {
        let name = if member.name.is_empty() { hex(member.id) } else { member.name.clone() };
        member.peer_ur_ls.iter().map(move |url| format!("{name}={url}"))
    });
    let own = peer_urls.iter().map(|url| format!("{name}={url}"));
    let list: Vec<String> = others.chain(own).collect();
    format!(
        "lattice serve --name={name} --initial-cluster-state=existing --listen-peer-urls={} --initial-cluster={}",
        joined(peer_urls),
        list.join(",")
    )
}

async fn find(client: &Client, member: &str) -> anyhow::Result<Member> {
    let members = client.members().await?.members;
    let found = members
        .into_iter()
        .find(|candidate| candidate.name == member || hex(candidate.id) == member.to_lowercase());
    Ok(found.ok_or_else(|| NoSuchMember(member.into()))?)
}

fn shown(member: &Member) -> String {
    if member.name.is_empty() {
        format!("member {}", hex(member.id))
    } else {
        format!("{} ({})", member.name, hex(member.id))
    }
}

fn joined(urls: &[Url]) -> String {
    urls.iter().map(ToString::to_string).collect::<Vec<_>>().join(",")
}

impl fmt::Display for NoSuchMember {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "there is no member {}; see `lattice cluster members`", self.0)
    }
}

impl std::error::Error for NoSuchMember {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_start_command_lists_all_members() {
        let url = |text: &str| vec![text.to_owned()];
        let members = [
            Member { id: 1, name: "a".into(), peer_ur_ls: url("http://h:1"), ..Member::default() },
            Member { id: 0xb, peer_ur_ls: url("http://h:2"), ..Member::default() },
            Member { id: 3, peer_ur_ls: url("http://h:3"), ..Member::default() },
        ];
        let command = start_command("c", &["http://h:3".parse().unwrap()], 3, &members);
        assert_eq!(
            command,
            "lattice serve --name=c --initial-cluster-state=existing --listen-peer-urls=http://h:3 \
             --initial-cluster=a=http://h:1,b=http://h:2,c=http://h:3"
        );
    }
}
