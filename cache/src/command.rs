//! Commands: the table of them, what a handler gets, and how it refuses.
//!
//! One file holds one family. Each ends in a `COMMANDS` slice, which is put together here. A handler reads its arguments, works
//! on the keys through [`Context::keys`] and writes its reply; where it refuses it returns a [`Failure`] and whatever it had
//! written is taken back. It never locks, never waits, and reads no clock. Semantics, argument rules, error texts and reply
//! shapes are Redis 7.2's; what Redis does not have is in `docs/cache.md`.

pub mod access;
pub mod bits;
pub mod client;
pub mod cluster;
pub mod config;
pub mod connection;
mod cursor;
pub mod dump;
#[cfg(test)]
mod every_command;
pub mod hash;
pub mod hyperloglog;
pub mod introspect;
pub mod key;
pub mod key_spec;
pub mod lattice;
pub mod lease;
pub mod list;
pub mod memory;
pub mod pubsub;
mod sampling;
pub mod scan;
pub mod script;
pub(crate) mod secrets;
pub mod server;
pub mod set;
pub mod sort;
pub mod sorted_set;
pub mod string;
#[cfg(test)]
pub(crate) mod testing;
pub mod transaction;

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::LazyLock;

use crate::decimal::parse_integer;
use crate::engine::Engine;
use crate::resp::Reply;
use crate::session::Session;
use crate::store::{Key, Keyspace, WrongType};
use crate::types::Now;

/// All families of commands.
static FAMILIES: &[&[Command]] = &[
    access::COMMANDS,
    bits::COMMANDS,
    client::COMMANDS,
    cluster::COMMANDS,
    config::COMMANDS,
    connection::COMMANDS,
    dump::COMMANDS,
    hash::COMMANDS,
    hyperloglog::COMMANDS,
    introspect::COMMANDS,
    key::COMMANDS,
    lattice::COMMANDS,
    lease::COMMANDS,
    list::COMMANDS,
    memory::COMMANDS,
    pubsub::COMMANDS,
    scan::COMMANDS,
    script::COMMANDS,
    server::COMMANDS,
    server::absent::COMMANDS,
    server::debug::COMMANDS,
    server::info::COMMANDS,
    server::latency::COMMANDS,
    server::monitor::COMMANDS,
    server::slow_log::COMMANDS,
    set::COMMANDS,
    sort::COMMANDS,
    sorted_set::COMMANDS,
    string::COMMANDS,
    transaction::COMMANDS,
];

/// What does the work. `arguments[0]` is the command's name as the client sent it; their number fits the arity.
pub type Handler = fn(&mut Context<'_, '_>, arguments: &[&[u8]]) -> Result<(), Failure>;

/// What a handler has to work with.
#[derive(Debug)]
pub struct Context<'c, 'e> {
    /// What all sessions share.
    pub engine: &'e Engine,
    /// The client that asks.
    pub session: &'c mut Session,
    /// The keys, with the shards locked that the command's key positions name (all, for [`Keys::All`] and within `EXEC`).
    pub keys: &'c mut Keyspace<'e>,
    /// Where the reply goes.
    pub reply: Reply<'c>,
    /// The moment of the command.
    pub now: Now,
    /// The command, for its name.
    pub command: &'static Command,
}

impl<'e> Context<'_, 'e> {
    /// Where `bytes` belongs, in the session's database.
    pub fn key<'k>(&self, bytes: &'k [u8]) -> Key<'k> {
        self.engine.store.key(self.session.database, bytes)
    }

    /// Tells those who listen that `event` happened to `key` (keyspace notifications). `class` is one of Redis's letters:
    /// `g` generic, `$` string, `l` list, `s` set, `h` hash, `z` sorted set.
    pub fn notify(&mut self, class: u8, event: &str, key: &Key<'_>) {
        // As in Redis, that a key is new is told before what made it.
        if self.engine.channels.wants(b'n') && self.keys.claim_created(key) {
            self.engine.notify(b'n', "new", key);
        }
        self.engine.notify(class, event, key);
    }
}

/// Which arguments are keys. What `COMMAND` tells and clients of a cluster route by, and what is locked.
#[derive(Clone, Copy, Debug)]
pub enum Keys {
    /// None.
    None,
    /// From `first` to `last` (negative: counted from the end) every `step`-th; the name is number 0.
    Range {
        /// The first.
        first: usize,
        /// The last.
        last: isize,
        /// The distance.
        step: usize,
    },
    /// Their number is argument `count`, and they follow it. `store`, if not 0, is one more key.
    Counted {
        /// Where the number stands.
        count: usize,
        /// Where the destination stands, 0 for none.
        store: usize,
    },
    /// As the function says, by their index; for commands whose keys hide behind options.
    Found(fn(&[&[u8]]) -> Vec<usize>),
    /// No argument is a key, but the command looks at all of them: all shards are locked.
    All,
}

impl Keys {
    /// One key, the first argument.
    pub const ONE: Self = Self::Range { first: 1, last: 1, step: 1 };
    /// The first two arguments.
    pub const TWO: Self = Self::Range { first: 1, last: 2, step: 1 };
    /// All arguments.
    pub const EVERY: Self = Self::Range { first: 1, last: -1, step: 1 };

    /// Calls `visit` with the index of each key of a call whose arity is right. A count that is no number or too large names
    /// none: the handler refuses it.
    pub fn each(&self, arguments: &[&[u8]], mut visit: impl FnMut(usize)) {
        match *self {
            Self::None | Self::All => {}
            Self::Range { first, last, step } => {
                let last = match usize::try_from(last) {
                    Ok(last) => last,
                    Err(_) => arguments.len().saturating_sub(last.unsigned_abs()),
                };
                (first..=last)
                    .step_by(step)
                    .filter(|index| *index < arguments.len())
                    .for_each(visit);
            }
            Self::Counted { count, store } => {
                if store != 0 && store < arguments.len() {
                    visit(store);
                }
                let number = arguments.get(count).and_then(|text| parse_integer(text));
                let number = number.and_then(|number| usize::try_from(number).ok()).unwrap_or(0);
                if number <= arguments.len().saturating_sub(count + 1) {
                    (count + 1..=count + number).for_each(visit);
                }
            }
            Self::Found(find) => find(arguments).into_iter().for_each(visit),
        }
    }
}

/// What a command is like, as a set of bits. Names and meanings are those of `COMMAND`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Flags(pub u32);

impl Flags {
    /// Changes data.
    pub const WRITE: Self = Self(1);
    /// Only reads.
    pub const READONLY: Self = Self(1 << 1);
    /// May need memory, and is refused at the limit.
    pub const DENYOOM: Self = Self(1 << 2);
    /// For operators.
    pub const ADMIN: Self = Self(1 << 3);
    /// About publishing and subscribing.
    pub const PUBSUB: Self = Self(1 << 4);
    /// Not inside a script.
    pub const NOSCRIPT: Self = Self(1 << 5);
    /// May wait.
    pub const BLOCKING: Self = Self(1 << 6);
    /// Also while data is loaded at the start. Only told, as the next.
    pub const LOADING: Self = Self(1 << 7);
    /// Also on a replica that has lost its master.
    pub const STALE: Self = Self(1 << 8);
    /// Not shown to monitors.
    pub const SKIP_MONITOR: Self = Self(1 << 9);
    /// Not in the slow log.
    pub const SKIP_SLOWLOG: Self = Self(1 << 10);
    /// Takes constant or logarithmic time.
    pub const FAST: Self = Self(1 << 11);
    /// Before authentication too.
    pub const NO_AUTH: Self = Self(1 << 12);
    /// May replicate.
    pub const MAY_REPLICATE: Self = Self(1 << 13);
    /// Not within `MULTI`.
    pub const NO_MULTI: Self = Self(1 << 14);
    /// Keys cannot be told from positions alone.
    pub const MOVABLE_KEYS: Self = Self(1 << 15);
    /// Also while a script of somebody else has run for too long. Only told: no script runs for long here.
    pub const ALLOW_BUSY: Self = Self(1 << 16);
    /// Dangerous in the hands of an application.
    pub const DANGEROUS: Self = Self(1 << 17);
    /// May make a list or a sorted set that somebody waits for: while anybody waits, all shards are locked.
    pub const WAKES: Self = Self(1 << 18);
    /// Not while a replica loads its master's data in the background. Only told: nothing is loaded here.
    pub const NO_ASYNC_LOADING: Self = Self(1 << 19);

    /// May be called without keys though it takes some.
    pub const NO_MANDATORY_KEYS: Self = Self(1 << 22);

    /// Looks at keys that no argument names: all shards are locked.
    pub const ALL_SHARDS: Self = Self(1 << 20);

    /// May need memory in some cases: room is made before it begins, and it refuses by itself if there is none.
    pub const MAKES_ROOM: Self = Self(1 << 21);

    /// Both.
    #[must_use]
    pub const fn and(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Whether all of `other` are set.
    #[must_use]
    pub const fn has(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }
}

/// A command's family in the documentation, and its category in access control.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names are Redis's")]
pub enum Group {
    Generic,
    String,
    Bitmap,
    HyperLogLog,
    List,
    Set,
    SortedSet,
    Hash,
    PubSub,
    Transactions,
    Connection,
    Server,
    Scripting,
    Cluster,
    /// What Redis does not have.
    Lattice,
}

/// One command or subcommand.
#[derive(Debug)]
pub struct Command {
    /// Its name in lower case; for a subcommand without its container's.
    pub name: &'static str,
    /// How many arguments it takes, its name (and its container's) included; negative: at least so many.
    pub arity: i32,
    /// Which of them are keys.
    pub keys: Keys,
    /// What it is like.
    pub flags: Flags,
    /// Its family.
    pub group: Group,
    /// The version of Redis that brought it.
    pub since: &'static str,
    /// What it does, in a sentence.
    pub summary: &'static str,
    /// What does the work; never called for a container.
    pub run: Handler,
    /// Its subcommands, if it is a container.
    pub subcommands: &'static [Self],
}

impl Command {
    /// A command without subcommands. The rest is set with the methods below, so that a table has one row a command.
    #[must_use]
    pub const fn new(
        name: &'static str,
        arity: i32,
        keys: Keys,
        flags: Flags,
        run: Handler,
    ) -> Self {
        Self {
            name,
            arity,
            keys,
            flags,
            group: Group::Generic,
            since: "1.0.0",
            summary: "",
            run,
            subcommands: &[],
        }
    }

    /// With what the documentation says.
    #[must_use]
    pub const fn docs(mut self, group: Group, since: &'static str, summary: &'static str) -> Self {
        self.group = group;
        self.since = since;
        self.summary = summary;
        self
    }

    /// With subcommands, which take the place of the handler.
    #[must_use]
    pub const fn with(mut self, subcommands: &'static [Self]) -> Self {
        self.subcommands = subcommands;
        self
    }

    /// Whether all shards are locked for it, whatever keys it names.
    #[must_use]
    pub fn needs_all_shards(&self) -> bool {
        matches!(self.keys, Keys::All) || self.flags.has(Flags::ALL_SHARDS)
    }

    /// Whether `arguments` are as many as it takes.
    #[must_use]
    pub fn takes(&self, arguments: usize) -> bool {
        let wanted = self.arity.unsigned_abs() as usize;
        if self.arity >= 0 { arguments == wanted } else { arguments >= wanted }
    }
}

/// A command's number in the table, for counters and access rules. Containers and subcommands have one each.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct CommandId(pub u16);

/// A command as the table knows it.
#[derive(Debug)]
pub struct Known {
    /// Its number.
    pub id: CommandId,
    /// `get`, or `client|id`.
    pub full_name: &'static str,
    /// The command.
    pub command: &'static Command,
    /// Its subcommands by name.
    pub subcommands: BTreeMap<&'static str, Self>,
}

/// The table, by name.
#[derive(Debug)]
pub struct Table {
    commands: BTreeMap<&'static str, Known>,
    count: u16,
}

/// Every command there is.
pub static TABLE: LazyLock<Table> = LazyLock::new(Table::build);

impl Table {
    fn build() -> Self {
        let mut next = 0;
        let mut number = || {
            next += 1;
            CommandId(next - 1)
        };
        let mut commands = BTreeMap::new();
        for command in FAMILIES.iter().copied().flatten() {
            let id = number();
            let subcommands = command.subcommands.iter().map(|subcommand| {
                let full_name = format!("{}|{}", command.name, subcommand.name);
                let known = Known {
                    id: number(),
                    full_name: Box::leak(full_name.into_boxed_str()),
                    command: subcommand,
                    subcommands: BTreeMap::new(),
                };
                (subcommand.name, known)
            });
            let subcommands = subcommands.collect();
            let known = Known { id, full_name: command.name, command, subcommands };
            let twin = commands.insert(command.name, known);
            assert!(twin.is_none(), "command {} is in the table twice", command.name);
        }
        Self { commands, count: next }
    }

    /// How many numbers there are.
    #[must_use]
    pub fn count(&self) -> usize {
        usize::from(self.count)
    }

    /// All commands by name, without subcommands.
    pub fn iter(&self) -> impl Iterator<Item = &Known> {
        self.commands.values()
    }

    /// The command of this name, whatever its case.
    #[must_use]
    pub fn find(&self, name: &[u8]) -> Option<&Known> {
        let mut lower = [0u8; 32];
        let lower = lower.get_mut(..name.len())?;
        lower.copy_from_slice(name);
        lower.make_ascii_lowercase();
        self.commands.get(std::str::from_utf8(lower).ok()?)
    }
}

impl Known {
    /// The subcommand of this name, whatever its case.
    #[must_use]
    pub fn find(&self, name: &[u8]) -> Option<&Self> {
        let lower = name.to_ascii_lowercase();
        self.subcommands.get(std::str::from_utf8(&lower).ok()?)
    }
}

/// The handler of every container's `HELP`: what the table says about its subcommands.
///
/// # Errors
/// None.
pub fn help(ctx: &mut Context<'_, '_>, arguments: &[&[u8]]) -> Result<(), Failure> {
    let known = TABLE.find(arguments[0]).expect("the command was found by this name");
    ctx.reply.array(1 + 2 * known.subcommands.len());
    let name = known.full_name.to_uppercase();
    ctx.reply.simple(&format!("{name} <subcommand> [<arg> [value] [opt] ...]. Subcommands are:"));
    let takes_more = |command: &Command| command.arity < 0 || command.arity > 2;
    let subcommands = known.subcommands.values().map(|subcommand| subcommand.command);
    for command in subcommands.clone().filter(|command| command.name != "help") {
        let more = if takes_more(command) { " [<arg> ...]" } else { "" };
        ctx.reply.simple(&format!("{}{more}", command.name.to_uppercase()));
        ctx.reply.simple(&format!("    {}", command.summary));
    }
    for command in subcommands.filter(|command| command.name == "help") {
        ctx.reply.simple("HELP");
        ctx.reply.simple(&format!("    {}", command.summary));
    }
    Ok(())
}

/// Why a command is refused: the error as the client gets it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Failure {
    /// The key holds another kind of value.
    WrongType,
    /// Arguments that make no sense together.
    Syntax,
    /// An argument, or a value, that should be an integer.
    NotInteger,
    /// An argument, or a value, that should be a floating-point number.
    NotFloat,
    /// A number outside of its range.
    OutOfRange,
    /// The key is needed, and missing.
    NoSuchKey,
    /// The number of arguments does not fit; holds the command's full name.
    Arity(&'static str),
    /// The error whole, code first: `ERR …`.
    Text(Cow<'static, str>),
}

impl Failure {
    /// There is no memory left for a command that needs some.
    #[must_use]
    pub const fn out_of_memory() -> Self {
        Self::Text(Cow::Borrowed("OOM command not allowed when used memory > 'maxmemory'."))
    }

    /// An error with the code `ERR`.
    pub fn err(text: impl fmt::Display) -> Self {
        Self::Text(format!("ERR {text}").into())
    }
}

/// Bytes of a client to be shown in an error: up to the first zero, as Redis shows them.
pub(crate) fn shown(bytes: &[u8]) -> Cow<'_, str> {
    let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
    String::from_utf8_lossy(&bytes[..end])
}

impl From<WrongType> for Failure {
    fn from(_: WrongType) -> Self {
        Self::WrongType
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::WrongType => write!(f, "{WrongType}"),
            Self::Syntax => f.write_str("ERR syntax error"),
            Self::NotInteger => f.write_str("ERR value is not an integer or out of range"),
            Self::NotFloat => f.write_str("ERR value is not a valid float"),
            Self::OutOfRange => f.write_str("ERR index out of range"),
            Self::NoSuchKey => f.write_str("ERR no such key"),
            Self::Arity(name) => write!(f, "ERR wrong number of arguments for '{name}' command"),
            Self::Text(text) => f.write_str(text),
        }
    }
}

/// The integer in an argument.
///
/// # Errors
/// [`Failure::NotInteger`] if it is none.
pub fn integer(text: &[u8]) -> Result<i64, Failure> {
    parse_integer(text).ok_or(Failure::NotInteger)
}

/// Whether an argument is the option `name`, whatever its case. `name` is in upper case.
#[must_use]
pub fn is_option(argument: &[u8], name: &str) -> bool {
    argument.eq_ignore_ascii_case(name.as_bytes())
}
