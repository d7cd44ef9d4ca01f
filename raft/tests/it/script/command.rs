//! The commands of the script language: a word, then arguments, some of them `name=value`.

use std::time::Duration;

use raft_consensus::types::NodeId;

use super::show::Line;
use super::world::{Filter, World};

mod client;
mod cluster;
mod disk;
mod look;
mod members;
mod network;
mod time;

/// What a script works on.
#[derive(Debug, Default)]
pub(crate) struct Scene {
    world: Option<World>,
}

/// Why a command cannot be run: the script is wrong.
pub(crate) type Fault = String;

/// A command's words.
#[derive(Debug)]
struct Words<'a> {
    plain: Vec<&'a str>,
    named: Vec<(&'a str, &'a str)>,
}

/// How much of what happened a command tells.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Tell {
    All,
    /// No messages, no writes.
    States,
    /// Only who leads.
    Elections,
}

impl Scene {
    fn world(&mut self) -> Result<&mut World, Fault> {
        self.world.as_mut().ok_or_else(|| "the script has no cluster yet".to_owned())
    }
}

impl<'a> Words<'a> {
    fn parse(rest: &'a str) -> Self {
        let (named, plain): (Vec<_>, Vec<_>) =
            rest.split_whitespace().partition(|word| word.contains('='));
        let named = named.iter().filter_map(|word| word.split_once('=')).collect();
        Self { plain, named }
    }

    /// The value of `name=value`.
    fn get(&self, name: &str) -> Option<&'a str> {
        self.named.iter().find(|(found, _)| *found == name).map(|&(_, value)| value)
    }

    fn number<T: std::str::FromStr>(&self, name: &str, default: T) -> Result<T, Fault> {
        self.get(name).map_or(Ok(default), parse_number)
    }

    fn names_are(&self, known: &[&str]) -> Result<(), Fault> {
        match self.named.iter().find(|(name, _)| !known.contains(name)) {
            Some((name, _)) => Err(format!("{name}= is not known here")),
            None => Ok(()),
        }
    }

    fn node(&self) -> Result<NodeId, Fault> {
        self.plain.first().ok_or_else(|| "which node?".to_owned()).and_then(|word| parse_node(word))
    }

    /// All plain words as nodes.
    fn nodes(&self) -> Result<Vec<NodeId>, Fault> {
        self.plain.iter().map(|word| parse_node(word)).collect()
    }

    /// `2->1`, `2->`, `->1`, a message's name: together or alone.
    fn filter(&self) -> Result<Filter, Fault> {
        let mut filter = Filter::default();
        let end = |word: &str| if word.is_empty() { Ok(None) } else { parse_node(word).map(Some) };
        for word in &self.plain {
            match word.split_once("->") {
                Some((from, to)) => (filter.from, filter.to) = (end(from)?, end(to)?),
                None => filter.kind = Some((*word).to_owned()),
            }
        }
        Ok(filter)
    }
}

fn parse_number<T: std::str::FromStr>(word: &str) -> Result<T, Fault> {
    word.parse().ok().ok_or_else(|| format!("{word} is not a number"))
}

fn parse_node(word: &str) -> Result<NodeId, Fault> {
    parse_number(word).map(NodeId)
}

fn parse_duration(word: &str) -> Result<Duration, Fault> {
    let digits = word.strip_suffix("ms").ok_or_else(|| format!("{word} is not in ms"))?;
    parse_number(digits).map(Duration::from_millis)
}

/// Runs one line of a script and returns what is to be seen. A command after `quietly` tells only who leads: it sets the scene.
pub(crate) fn run(scene: &mut Scene, line: &str) -> Result<Vec<String>, Fault> {
    let (line, is_quiet) = line.strip_prefix("quietly ").map_or((line, false), |line| (line, true));
    let (name, rest) = line.split_once(' ').unwrap_or((line, ""));
    let words = Words::parse(rest);
    let mut tell = Tell::All;
    let mut shown = Vec::new();
    match name {
        "cluster" => cluster::cluster(scene, &words)?,
        "given" => cluster::given(scene.world()?, &words)?,
        "crash" => cluster::crash(scene.world()?, &words)?,
        "restart" => cluster::restart(scene.world()?, &words)?,
        "wipe" => cluster::wipe(scene.world()?, &words)?,
        "advance" => time::advance(scene.world()?, &words)?,
        "campaign" => time::campaign(scene.world()?, &words)?,
        "heartbeat" => time::heartbeat(scene.world()?, &words)?,
        "elect" => {
            tell = Tell::Elections;
            time::elect(scene.world()?, &words)?;
        }
        "win" => {
            tell = Tell::Elections;
            time::win(scene.world()?, &words)?;
        }
        "deliver" => network::deliver(scene.world()?, &words)?,
        "repeat" => network::repeat(scene.world()?, &words)?,
        "drop" => network::drop_messages(scene.world()?, &words)?,
        "delay" => network::delay(scene.world()?, &words)?,
        "undelay" => scene.world()?.undelay(),
        "partition" => network::partition(scene.world()?, rest)?,
        "cut" => network::cut(scene.world()?, &words)?,
        "heal" => scene.world()?.heal(),
        "stabilize" => {
            tell = Tell::States;
            scene.world()?.stabilize();
        }
        "persist" => disk::persist(scene.world()?, &words)?,
        "fail" => disk::fail(scene.world()?, &words)?,
        "snapshot" => disk::snapshot(scene.world()?, &words)?,
        "ask" => time::ask(scene.world()?, &words)?,
        "damage" => disk::damage(scene.world()?, &words)?,
        "propose" => client::propose(scene.world()?, &words)?,
        "read" => client::read(scene.world()?, &words)?,
        "join" => members::join(scene.world()?, &words)?,
        "change" => members::change(scene.world()?, &words)?,
        "transfer" => members::transfer(scene.world()?, &words)?,
        "log" => shown = look::log(scene.world()?, &words)?,
        "status" => shown = look::status(scene.world()?, &words)?,
        "progress" => shown = look::progress(scene.world()?, &words)?,
        "machine" => shown = look::machine(scene.world()?, &words)?,
        "flight" => shown = look::flight(scene.world()?),
        _ => return Err("no such command".to_owned()),
    }
    if is_quiet {
        tell = Tell::Elections;
    }
    let world = scene.world()?;
    world.check_all();
    let told =
        world.take_lines().into_iter().filter(|line| is_told(line, tell)).map(|line| line.text);
    // Without the messages that it came with, a state stands for itself.
    let told = told.map(|text| if tell == Tell::All { text } else { text.trim_start().to_owned() });
    Ok(told.chain(shown).collect())
}

fn is_told(line: &Line, tell: Tell) -> bool {
    match tell {
        Tell::All => true,
        Tell::States => !line.is_message,
        Tell::Elections => line.is_election,
    }
}
