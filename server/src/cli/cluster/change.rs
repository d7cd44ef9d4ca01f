//! Changing the members, one command a step; each says what comes next.
//!
//! Any of them may be given again when its answer was lost: what is done already is found done, said so, and counts as success. What cannot
//! be told from a mistake is refused: the removal of somebody who is no member, a name that several have.

use std::fmt;

use clap::Args;
use lattice::client::Client;
use lattice::proto::etcdserverpb::Member;
use lattice::url::Url;
use serde_json::{Value, json};
use tonic::Code;

use super::{Common, NoStatus, ask, hex, is_leader, status_of};
use crate::cli::{Exit, Output, beyond_loopback, endpoint};

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
    /// The member's name, its id or a peer URL of it
    member: String,
    #[command(flatten)]
    common: Common,
}

#[derive(Debug, Args)]
pub(crate) struct Replace {
    /// The lost member's name, its id or a peer URL of it
    member: String,
    #[command(flatten)]
    new: New,
    /// Also if it cannot be told whether the member still runs, as another one answers at its client URL
    #[arg(long)]
    force: bool,
    #[command(flatten)]
    common: Common,
}

#[derive(Debug, Args)]
pub(crate) struct Transfer {
    /// Who is to lead, by name, id or peer URL [default: a voter that is most up to date]
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

/// No member is meant.
#[derive(Debug)]
pub(crate) struct NoSuchMember(String);

/// The members do not allow what was asked for.
#[derive(Debug)]
pub(crate) enum Conflict {
    /// Several members have this name.
    Ambiguous { name: String, candidates: Vec<Member> },
    /// Somebody else has this peer URL.
    UrlTaken { url: Url, by: Box<Member> },
    /// Somebody else has this name.
    NameTaken(Box<Member>),
    /// Somebody else answers for it.
    Unseen { lost: Box<Member>, other: u64 },
}

impl Add {
    pub(crate) async fn run(self) -> anyhow::Result<Exit> {
        let Self { new, learner, common } = self;
        let client = common.connection.client().await?;
        let members = client.members(true).await?.members;
        let has_name = |member: &&Member| member.name == new.name;
        if let Some(member) = members.iter().find(has_name)
            && !same_urls(member, &new.peer_urls)
        {
            return Err(Conflict::NameTaken(Box::new(member.clone())).into());
        }
        let answer = match client.add_member(&new.peer_urls, learner).await {
            Ok(answer) => answer,
            // Perhaps by this very command, whose answer was lost.
            Err(error) if error.code() == Some(Code::FailedPrecondition) => {
                let members = client.members(true).await?.members;
                let Some(member) = new.find_among(&members, None)? else {
                    return Err(error.into());
                };
                return common.tell_new("is already", &new, member, &members);
            }
            Err(error) => return Err(error.into()),
        };
        let member = answer.member.unwrap_or_default();
        common.tell_new("is", &new, &member, &answer.members)
    }
}

impl Which {
    pub(crate) async fn remove(self) -> anyhow::Result<Exit> {
        let client = self.common.connection.client().await?;
        let member = find(&client, &self.member).await?;
        match client.remove_member(member.id).await {
            Ok(_) => {}
            // Somebody else was faster.
            Err(error) if error.code() == Some(Code::NotFound) => {}
            Err(error) => return Err(error.into()),
        }
        let text = format!(
            "{} is removed; its process ends by itself. Its data directory is of no use any more.",
            shown(&member)
        );
        self.common.tell(&text, json!({ "removed": hex(member.id), "name": member.name }))
    }

    pub(crate) async fn promote(self) -> anyhow::Result<Exit> {
        let client = self.common.connection.client().await?;
        let member = find(&client, &self.member).await?;
        let value = json!({ "promoted": hex(member.id), "name": member.name });
        if !member.is_learner {
            let text = format!("{} votes already.", shown(&member));
            return self.common.tell(&text, value);
        }
        client.promote_member(member.id).await?;
        let text = format!("{} votes. See `lattice cluster status`.", shown(&member));
        self.common.tell(&text, value)
    }
}

impl Replace {
    /// In one change of the members: there is no step at which it could stop half done.
    pub(crate) async fn run(self) -> anyhow::Result<Exit> {
        let Self { member, new, force, common } = self;
        let client = common.connection.client().await?;
        let members = client.members(true).await?.members;
        let lost = match find_among(&members, &member) {
            Ok(lost) => {
                // Whoever has other addresses only moves; with the same ones, this is what a replaced member looks like.
                if same_urls(lost, &new.peer_urls) {
                    match status_of(lost, common.connection.timeout).await {
                        Ok(_) => {
                            let text = format!(
                                "{} runs, and has these peer URLs: there is nothing to replace.",
                                shown(lost)
                            );
                            let value = json!({ "running": hex(lost.id), "name": lost.name });
                            return common.tell(&text, value);
                        }
                        // It may well run.
                        Err(NoStatus::AnotherMember(other)) if !force => {
                            return Err(
                                Conflict::Unseen { lost: Box::new(lost.clone()), other }.into()
                            );
                        }
                        Err(_) => {}
                    }
                }
                new.find_among(&members, Some(lost.id))?;
                lost.id
            }
            Err(error) if error.is::<NoSuchMember>() => {
                if let Some(done) = new.find_among(&members, None)? {
                    return common.tell_new("is already", &new, done, &members);
                }
                // The cluster knows whom it has removed, by id.
                u64::from_str_radix(&member, 16).map_err(|_not_an_id| error)?
            }
            Err(error) => return Err(error),
        };
        let id = client.replace_member(lost, &new.peer_urls).await?;
        let members = client.members(true).await?.members;
        let added = Member { id, is_learner: true, ..Member::default() };
        common.tell_new("is", &new, &added, &members)
    }
}

impl Transfer {
    pub(crate) async fn run(self) -> anyhow::Result<Exit> {
        let client = self.common.connection.client().await?;
        let mut asked = Vec::new();
        for member in client.members(true).await?.members {
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
        if leader.member.id == target.id {
            let value = json!({ "to": hex(target.id), "name": target.name });
            return self.common.tell(&format!("{} leads already.", shown(&target)), value);
        }
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
    /// The member that has exactly these peer URLs, if it can be this one; `except` is about to give up its own.
    fn find_among<'a>(
        &self,
        members: &'a [Member],
        except: Option<u64>,
    ) -> Result<Option<&'a Member>, Conflict> {
        for member in members.iter().filter(|member| Some(member.id) != except) {
            if same_urls(member, &self.peer_urls)
                && (member.name.is_empty() || member.name == self.name)
            {
                return if except.is_none() {
                    Ok(Some(member))
                } else {
                    Err(self.taken_by(member))
                };
            }
            let is_theirs = |url: &&Url| member.peer_ur_ls.contains(&url.to_string());
            if self.peer_urls.iter().any(|url| is_theirs(&url)) {
                return Err(self.taken_by(member));
            }
        }
        Ok(None)
    }

    fn taken_by(&self, member: &Member) -> Conflict {
        let theirs = self.peer_urls.iter().find(|url| member.peer_ur_ls.contains(&url.to_string()));
        let url = theirs.unwrap_or(&self.peer_urls[0]).clone();
        Conflict::UrlTaken { url, by: Box::new(member.clone()) }
    }
}

impl Common {
    fn tell(&self, text: &str, value: Value) -> anyhow::Result<Exit> {
        Output::new(self.output).one(text, value)?;
        Ok(Exit::Done)
    }

    /// Tells of a member that is to be started.
    fn tell_new(
        &self,
        is: &str,
        new: &New,
        member: &Member,
        members: &[Member],
    ) -> anyhow::Result<Exit> {
        let New { name, peer_urls } = new;
        let (id, learner) = (hex(member.id), member.is_learner);
        let start = start_command(name, peer_urls, member.id, members);
        let then = "It gets its vote by itself when it has caught up, unless it was added with --learner: then say \
                    `lattice cluster promote`. See `lattice cluster status`.";
        let text = if member.name.is_empty() {
            format!(
                "{name} {is} member {id}. Start it, with an empty data directory:\n\n  {start}\n\n{then}"
            )
        } else {
            format!("{name} {is} member {id}, and has started before.")
        };
        self.tell(&text, json!({ "added": id, "name": name, "learner": learner, "start": start }))
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
        "lattice serve --name={name} --initial-cluster-state=existing --listen-peer-urls={} --initial-cluster={}{}",
        joined(peer_urls),
        list.join(","),
        beyond_loopback(peer_urls)
    )
}

async fn find(client: &Client, member: &str) -> anyhow::Result<Member> {
    let members = client.members(true).await?.members;
    find_among(&members, member).cloned()
}

/// The member of this id, name or peer URL. An id is nobody else's; a name may be.
fn find_among<'a>(members: &'a [Member], wanted: &str) -> anyhow::Result<&'a Member> {
    let by_id = members.iter().find(|member| hex(member.id) == wanted.to_lowercase());
    let url = endpoint(wanted).ok().map(|url| url.to_string());
    let is_meant = |member: &&Member| {
        member.name == wanted || url.as_ref().is_some_and(|url| member.peer_ur_ls.contains(url))
    };
    let candidates: Vec<&Member> = members.iter().filter(is_meant).collect();
    match (by_id, &candidates[..]) {
        (Some(member), []) | (None, &[member]) => Ok(member),
        (Some(member), &[same]) if same.id == member.id => Ok(member),
        (None, []) => Err(NoSuchMember(wanted.into()).into()),
        _ => {
            let candidates = candidates.into_iter().chain(by_id).cloned().collect();
            Err(Conflict::Ambiguous { name: wanted.into(), candidates }.into())
        }
    }
}

fn same_urls(member: &Member, urls: &[Url]) -> bool {
    let mut urls: Vec<String> = urls.iter().map(ToString::to_string).collect();
    let mut theirs = member.peer_ur_ls.clone();
    urls.sort();
    theirs.sort();
    urls == theirs
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

impl fmt::Display for Conflict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ambiguous { name, candidates } => {
                let list = |member: &Member| {
                    format!("{} at {}", hex(member.id), member.peer_ur_ls.join(","))
                };
                let list: Vec<String> = candidates.iter().map(list).collect();
                write!(f, "`{name}` may be any of {}: say which by its id", list.join(", "))
            }
            Self::NameTaken(member) => write!(
                f,
                "{} has this name: give the new member another, or its place (`lattice cluster replace`); nothing was changed",
                shown(member)
            ),
            Self::Unseen { lost, other } => write!(
                f,
                "member {} answers at the client URL of {}, so nobody can tell whether that one still runs; if it is lost for good, \
                 say --force; nothing was changed",
                hex(*other),
                shown(lost)
            ),
            Self::UrlTaken { url, by } => {
                write!(f, "{url} is a peer URL of {}; nothing was changed", shown(by))
            }
        }
    }
}

impl std::error::Error for Conflict {}

#[cfg(test)]
mod tests {
    use super::*;

    fn member(id: u64, name: &str, url: &str) -> Member {
        let peer_ur_ls = vec![url.to_owned()];
        Member { id, name: name.into(), peer_ur_ls, ..Member::default() }
    }

    #[test]
    fn a_member_is_found_by_id_name_or_peer_url() {
        let members = [member(0xa1, "a", "http://h:1"), member(0xb2, "", "http://h:2")];
        let found = |wanted: &str| find_among(&members, wanted).map(|member| member.id).ok();
        assert_eq!(found("A1"), Some(0xa1));
        assert_eq!(found("a"), Some(0xa1));
        assert_eq!((found("http://h:2"), found("h:2")), (Some(0xb2), Some(0xb2)));
        let nobody = find_among(&members, "c").unwrap_err();
        assert!(nobody.is::<NoSuchMember>(), "{nobody}");
    }

    #[test]
    fn a_name_that_several_have_is_refused_with_their_ids() {
        let members = [
            member(0xa, "x", "http://h:1"),
            member(0xb, "x", "http://h:2"),
            member(0xc, "a", "http://h:3"),
        ];
        let error = find_among(&members, "x").unwrap_err().to_string();
        assert_eq!(
            error,
            "`x` may be any of a at http://h:1, b at http://h:2: say which by its id"
        );
        assert!(find_among(&members, "a").unwrap_err().is::<Conflict>(), "one's id, one's name");
        assert_eq!(find_among(&members, "b").unwrap().id, 0xb);
    }

    #[test]
    fn a_url_of_somebody_else_is_refused_before_anything_is_changed() {
        let members = [member(1, "a", "http://h:1"), member(2, "", "http://h:2")];
        let new = |name: &str, url: &str| New {
            name: name.into(),
            peer_urls: vec![url.parse().unwrap()],
        };
        let found =
            |new: New, except| new.find_among(&members, except).map(|it| it.map(|it| it.id));
        assert_eq!(found(new("c", "http://h:3"), None).unwrap(), None);
        assert_eq!(found(new("c", "http://h:1"), Some(1)).unwrap(), None, "it leaves");
        assert_eq!(found(new("a", "http://h:1"), None).unwrap(), Some(1), "it is there");
        assert_eq!(found(new("c", "http://h:2"), None).unwrap(), Some(2), "it has not started");
        let error = found(new("c", "http://h:1"), None).unwrap_err().to_string();
        assert_eq!(error, "http://h:1 is a peer URL of a (1); nothing was changed");
        assert!(found(new("c", "http://h:2"), Some(1)).is_err());
    }

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
             --initial-cluster=a=http://h:1,b=http://h:2,c=http://h:3 --listen-client-urls=http://h:2379 --insecure-no-auth"
        );
    }
}
