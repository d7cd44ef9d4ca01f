//! `lattice cache ring …`: who holds which slots, and how much would move if the membership changed.
//!
//! The table comes from a running node, or is made of `--member`s given here, for a cluster that is only thought of.

use anyhow::{Context as _, ensure};
use clap::{Args, Subcommand};
use distributed_cache::ring::table::{Change, Movement, SlotTable};
use distributed_cache::slot::{SLOTS, Slot};
use serde_json::{Value, json};

use super::{Common, text};
use crate::cli::Exit;

#[derive(Debug, Subcommand)]
pub(crate) enum Ring {
    /// Show the members, their slots and how even they are
    Show(Show),
    /// Show who holds a key
    Lookup(Lookup),
    /// Show what would move; changes nothing
    #[command(subcommand)]
    Plan(Plan),
}

#[derive(Debug, Args)]
pub(crate) struct Source {
    /// Instead of asking a node: a member of a cluster that is only thought of. Once for each, in the order of joining
    #[arg(long = "member", value_name = "NAME[,WEIGHT[,ZONE]]")]
    members: Vec<Member>,
    /// How many members hold a slot, for such a cluster
    #[arg(long, value_name = "N", default_value_t = 3)]
    replicas: u8,
    #[command(flatten)]
    common: Common,
}

#[derive(Debug, Args)]
pub(crate) struct Show {
    #[command(flatten)]
    source: Source,
}

#[derive(Debug, Args)]
pub(crate) struct Lookup {
    key: String,
    #[command(flatten)]
    source: Source,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Plan {
    /// If this member joined
    Add {
        /// Its name, and perhaps its weight and its zone
        #[arg(value_name = "NAME[,WEIGHT[,ZONE]]")]
        member: Member,
        #[command(flatten)]
        source: Source,
    },
    /// If this member left
    Remove {
        /// Its name
        name: String,
        #[command(flatten)]
        source: Source,
    },
}

/// A member as written on the command line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Member {
    name: String,
    weight: u32,
    zone: Option<String>,
}

impl std::str::FromStr for Member {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut parts = text.split(',');
        let name = parts.next().unwrap_or_default().to_owned();
        let weight = parts.next().filter(|weight| !weight.is_empty()).map_or(Ok(1), str::parse);
        let weight =
            weight.map_err(|_no_number| "the weight after the first comma must be a number")?;
        let zone = parts.next().map(str::to_owned);
        match parts.next() {
            Some(_) => Err("at most a name, a weight and a zone".into()),
            None => Ok(Self { name, weight, zone }),
        }
    }
}

impl Member {
    fn join(self) -> Change {
        Change::Add { name: self.name, weight: self.weight, zone: self.zone }
    }
}

impl Source {
    fn table(&self) -> anyhow::Result<SlotTable> {
        let mut members = self.members.iter().cloned();
        let Some(first) = members.next() else {
            let bytes = self.common.call(&[b"LATTICE", b"RING"])?.bytes()?;
            return SlotTable::decode(&bytes).context("the node's slot table cannot be read");
        };
        let mut table =
            SlotTable::founding(&first.name, first.weight, first.zone.as_deref(), self.replicas)?;
        for member in members {
            table = table.apply(&member.join())?;
        }
        Ok(table)
    }
}

impl Ring {
    pub(crate) fn run(self) -> anyhow::Result<Exit> {
        match self {
            Self::Show(show) => show.run(),
            Self::Lookup(lookup) => lookup.run(),
            Self::Plan(plan) => plan.run(),
        }
    }
}

impl Show {
    fn run(self) -> anyhow::Result<Exit> {
        let table = self.source.table()?;
        let balance = table.balance();
        let items: Vec<Value> = table
            .members()
            .iter()
            .map(|member| {
                let slots = table.primaries(&member.name);
                json!({
                    "name": member.name,
                    "weight": member.weight,
                    "zone": member.zone,
                    "slots": slots,
                    "share_percent": percent(slots),
                    "ranges": table.runs(&member.name).len(),
                })
            })
            .collect();
        let summary = json!({
            "version": table.version(),
            "checksum": format!("{:08x}", table.checksum()),
            "replicas": table.replicas(),
            "peak_to_fair": balance.peak,
        });
        let headers = ["NAME", "WEIGHT", "ZONE", "SLOTS", "SHARE %", "RANGES"];
        let fields = ["name", "weight", "zone", "slots", "share_percent", "ranges"];
        self.source.common.output().list(&headers, summary, "members", &items, |item| {
            fields
                .iter()
                .map(|field| if item[field].is_null() { "-".into() } else { text(&item[field]) })
                .collect()
        })?;
        Ok(Exit::Done)
    }
}

impl Lookup {
    fn run(self) -> anyhow::Result<Exit> {
        let table = self.source.table()?;
        let slot = Slot::of(self.key.as_bytes());
        let holders: Vec<&str> = table.holders(slot).collect();
        let line = format!("slot {}: {}", slot.0, holders.join(", "));
        let value = json!({ "key": self.key, "slot": slot.0, "holders": holders });
        self.source.common.output().one(&line, value)?;
        Ok(Exit::Done)
    }
}

impl Plan {
    fn run(self) -> anyhow::Result<Exit> {
        let (change, source) = match self {
            Self::Add { member, source } => (member.join(), source),
            Self::Remove { name, source } => (Change::Remove { name }, source),
        };
        let before = source.table()?;
        let after = before.apply(&change)?;
        let movement = before.movement_to(&after);
        ensure!(after.version() == before.version() + 1, "a change makes the next version");
        let value = json!({
            "version": after.version(),
            "primaries_moved": movement.primaries,
            "primaries_moved_percent": percent(movement.primaries),
            "between_old_members": movement.between_old,
            "copies_made": movement.copies,
            "peak_to_fair": after.balance().peak,
        });
        source.common.output().one(&told(&movement, &after), value)?;
        Ok(Exit::Done)
    }
}

fn told(movement: &Movement, after: &SlotTable) -> String {
    format!(
        "{:.2} % of the slots, and so of the keys, would get another primary: {} of {SLOTS}, {} of them between members \
         that stay\n{} copies of slots would be made\nthe fullest member would have {:.3} times its fair share",
        percent(movement.primaries),
        movement.primaries,
        movement.between_old,
        movement.copies,
        after.balance().peak,
    )
}

/// A number of slots as a share of all, in hundredths of a percent.
fn percent(slots: usize) -> f64 {
    (10_000.0 * slots as f64 / f64::from(SLOTS)).round() / 100.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_are_read_from_the_command_line() {
        let member = |name: &str, weight, zone: Option<&str>| Member {
            name: name.into(),
            weight,
            zone: zone.map(str::to_owned),
        };
        assert_eq!("a".parse(), Ok(member("a", 1, None)));
        assert_eq!("a,3".parse(), Ok(member("a", 3, None)));
        assert_eq!("a,,z".parse(), Ok(member("a", 1, Some("z"))));
        for wrong in ["a,b", "a,1,z,x"] {
            assert!(wrong.parse::<Member>().is_err(), "{wrong}");
        }
    }
}
