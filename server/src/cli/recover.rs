//! `lattice recover`: what is left to do when a majority of the members is lost for good.

use std::io::{self, IsTerminal as _, Write as _};
use std::path::PathBuf;

use clap::Args;
use lattice::recover::{Found, Recovery};
use lattice::url::Url;
use serde_json::json;

use super::{Exit, Format, Output, beyond_loopback, endpoint};

/// Makes a new cluster of one from a data directory whose node is not running.
#[derive(Debug, Args)]
pub(crate) struct Recover {
    /// Make a new cluster of this one member, with a new cluster id; the only way there is
    #[arg(long, required = true)]
    new_cluster: bool,
    /// The data directory of the member that has the newest log; it is only read
    #[arg(long, value_name = "DIR")]
    data_dir: PathBuf,
    /// Where to make the new data directory
    #[arg(long, value_name = "DIR")]
    to: PathBuf,
    /// The member's name [default: as it was]
    #[arg(long)]
    name: Option<String>,
    /// Where the members to come will reach it [default: as before]
    #[arg(long, value_name = "URL,…", value_delimiter = ',', value_parser = endpoint)]
    peer_urls: Vec<Url>,
    /// If entries of the log are damaged, keep those before them and give up the rest
    #[arg(long)]
    up_to_damage: bool,
    /// Do not ask
    #[arg(long)]
    yes: bool,
    /// How to show the result
    #[arg(short, long, value_enum, default_value = "table")]
    output: Format,
}

impl Recover {
    pub(crate) fn run(self) -> anyhow::Result<Exit> {
        let Self { data_dir: from, to, name, peer_urls, up_to_damage, .. } = self;
        let old = from.display().to_string();
        let prepared =
            Recovery { from, to: to.clone(), name, peer_urls, up_to_damage }.prepare()?;
        let told = tell(&old, prepared.found());
        if !self.yes {
            let mut error = io::stderr().lock();
            error.write_all(told.as_bytes())?;
            if !io::stdin().is_terminal() {
                writeln!(error, "nothing was changed: say --yes to do this")?;
                return Ok(Exit::Usage);
            }
            write!(error, "Make a new cluster of this one member? Type yes: ")?;
            error.flush()?;
            let mut answer = String::new();
            io::stdin().read_line(&mut answer)?;
            if answer.trim() != "yes" {
                writeln!(error, "nothing was changed")?;
                return Ok(Exit::Failed);
            }
        }
        let found = prepared.write()?;
        let start = start_command(&found, &to.display().to_string());
        let text = format!(
            "{}{} is the only member of the new cluster {}, in {}. Start it:\n\n  {start}\n\n\
             Then add the others, each with an empty data directory: lattice cluster add NAME PEER_URL",
            if self.yes { told } else { String::new() },
            found.name,
            found.cluster,
            to.display(),
        );
        let left: Vec<String> = found.left_behind.iter().map(|(id, _)| hex(id.0)).collect();
        let value = json!({
            "cluster": found.cluster.to_string(),
            "old_cluster": found.identity.cluster.to_string(),
            "member": hex(found.identity.node.0),
            "name": found.name,
            "kept_index": found.salvaged.last.index.0,
            "kept_term": found.salvaged.last.term.0,
            "log_end": found.salvaged.log_end.index.0,
            "keys": found.keys,
            "revision": found.revision,
            "left_behind": left,
            "start": start,
        });
        Output::new(self.output).one(&text, value)?;
        Ok(Exit::Done)
    }
}

/// What is kept and what may be lost, for somebody who has to decide.
fn tell(old: &str, found: &Found) -> String {
    let Found { identity, salvaged, .. } = found;
    let last = salvaged.last;
    let mut text = format!(
        "{old} is that of {} ({}), a member of cluster {}.\n\n\
         Kept: everything up to entry {} of its log, of term {}: {} keys, revision {}.",
        found.name,
        hex(identity.node.0),
        identity.cluster,
        last.index.0,
        last.term.0,
        found.keys,
        found.revision,
    );
    let snapshot = salvaged.snapshot.map_or(0, |last| last.index.0);
    if last.index.0 > snapshot {
        text.push_str(&format!(
            " The last {} entries are behind its snapshot: among them may be writes that were never acknowledged, or that the lost \
             members had decided otherwise. Nobody can tell any more; they are kept.",
            last.index.0 - snapshot
        ));
    }
    if salvaged.log_end.index > last.index {
        text.push_str(&format!(
            "\nLost: entries {} to {} of this log, for one of them is damaged.",
            last.index.0 + 1,
            salvaged.log_end.index.0
        ));
    }
    text.push_str(&format!(
        "\nLost, if there were any: writes that the others acknowledged behind entry {}.\n",
        salvaged.log_end.index.0
    ));
    if !salvaged.membership.is_voter(identity.node) {
        text.push_str("It was not a voter: another member may well have more.\n");
    }
    if !found.left_behind.is_empty() {
        let left = found.left_behind.iter().map(|(id, name)| match name.as_str() {
            "" => hex(id.0),
            name => format!("{name} ({})", hex(id.0)),
        });
        let left = left.collect::<Vec<_>>().join(", ");
        text.push_str(&format!(
            "Left behind: {left}. They stay members of the old cluster, and the new one does not talk to them.\n"
        ));
    }
    text.push_str("The old directory stays as it is.\n\n");
    text
}

fn start_command(found: &Found, to: &str) -> String {
    let urls: Vec<String> = found.peer_urls.iter().map(ToString::to_string).collect();
    format!(
        "lattice serve --name={} --data-dir={to} --initial-cluster-state=existing --listen-peer-urls={}{}",
        found.name,
        urls.join(","),
        beyond_loopback(&found.peer_urls)
    )
}

/// Ids are shown as etcd's tools show them.
fn hex(id: u64) -> String {
    format!("{id:x}")
}
