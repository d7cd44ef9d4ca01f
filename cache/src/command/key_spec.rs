//! What commands do with their keys: read, insert, update, delete.
//!
//! Where keys stand is said by [`Keys`] in the table of commands; here is what becomes of them, which access control asks and `COMMAND`
//! tells. Commands with one run of keys are listed by what they do with it; those whose keys play several parts have a row each.
//! Facts as in Redis's own command table.

use std::sync::LazyLock;

use super::{Flags, Keys, Known, TABLE};

/// Whether a key is read, and whether it is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Access {
    /// Its value, or a part of it, is told or goes elsewhere.
    pub read: bool,
    /// It is inserted, updated or deleted.
    pub write: bool,
}

impl Access {
    /// Neither: whether it is there, or how long it is, is all that is asked.
    pub const NONE: Self = Self { read: false, write: false };
    /// Both.
    pub const BOTH: Self = Self { read: true, write: true };

    /// What either has.
    #[must_use]
    pub const fn or(self, other: Self) -> Self {
        Self { read: self.read || other.read, write: self.write || other.write }
    }
}

/// Where a run of keys begins and which arguments it has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// From argument `first` on; `last` counts from there, or from the end if negative.
    Range {
        /// The first.
        first: usize,
        /// The last, from the first.
        last: isize,
        /// The distance.
        step: usize,
    },
    /// Argument `count` is their number, and they follow it.
    Counted {
        /// Where the number stands.
        count: usize,
    },
    /// It cannot be said by a position.
    Unknown,
}

/// One run of keys that play one part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeySpec {
    /// What becomes of them, in Redis's words.
    pub flags: &'static str,
    /// Where they are.
    pub place: Place,
}

impl KeySpec {
    /// Whether they are read or written; None if they are no keys (channels of sharded pub/sub).
    #[must_use]
    pub fn access(&self) -> Option<Access> {
        let has = |word: &str| self.flags.split(' ').any(|flag| flag == word);
        if has("not_key") {
            return None;
        }
        let write = has("insert") || has("update") || has("delete");
        Some(Access { read: has("access"), write })
    }
}

const fn at(first: usize, flags: &'static str) -> KeySpec {
    KeySpec { flags, place: Place::Range { first, last: 0, step: 1 } }
}

const fn rest(first: usize, flags: &'static str) -> KeySpec {
    KeySpec { flags, place: Place::Range { first, last: -1, step: 1 } }
}

const fn counted(count: usize, flags: &'static str) -> KeySpec {
    KeySpec { flags, place: Place::Counted { count } }
}

const fn somewhere(flags: &'static str) -> KeySpec {
    KeySpec { flags, place: Place::Unknown }
}

const READ: &str = "RO access";
const LOOK: &str = "RO";
const POP: &str = "RW access delete";
const CHANGE: &str = "RW access update";
const INSERT: &str = "RW insert";
const OVERWRITE: &str = "OW update";

/// What becomes of the one run of keys of these commands. A command that is not here reads its keys if it only reads, and else
/// reads and updates them.
const ONE_PART: &[(&str, &[&str])] = &[
    (
        LOOK,
        &[
            "exists",
            "hexists",
            "hlen",
            "hstrlen",
            "httl",
            "hpttl",
            "hexpiretime",
            "hpexpiretime",
            "llen",
            "memory|usage",
            "object|encoding",
            "object|freq",
            "object|idletime",
            "object|refcount",
            "scard",
            "sismember",
            "strlen",
            "touch",
            "type",
            "watch",
            "zcard",
        ],
    ),
    (
        INSERT,
        &["append", "hsetnx", "linsert", "lpush", "lpushx", "pfadd", "rpush", "rpushx", "sadd"],
    ),
    (
        "RW update",
        &[
            "expire",
            "expireat",
            "hmset",
            "hset",
            "hexpire",
            "hpexpire",
            "hexpireat",
            "hpexpireat",
            "hpersist",
            "lset",
            "persist",
            "pexpire",
            "pexpireat",
            "pexpireifeq",
            "setrange",
            "zadd",
        ],
    ),
    (
        "RW delete",
        &[
            "hdel",
            "lrem",
            "ltrim",
            "srem",
            "zrem",
            "zremrangebylex",
            "zremrangebyrank",
            "zremrangebyscore",
        ],
    ),
    (
        POP,
        &[
            "blmpop", "blpop", "brpop", "bzmpop", "bzpopmax", "bzpopmin", "delifeq", "getdel",
            "hgetdel", "lmpop", "lpop", "rpop", "spop", "zmpop", "zpopmax", "zpopmin",
        ],
    ),
    ("RM delete", &["del", "unlink"]),
    (OVERWRITE, &["mset", "psetex", "restore", "setex"]),
    ("OW insert", &["msetnx", "setnx"]),
    ("RW access update variable_flags", &["set", "bitfield"]),
    ("RW access", &["pfcount"]),
    ("not_key", &["spublish", "ssubscribe", "sunsubscribe"]),
];

/// Commands whose keys play several parts.
const SEVERAL_PARTS: &[(&str, &[KeySpec])] = &[
    ("bitop", &[at(2, OVERWRITE), rest(3, READ)]),
    ("blmove", &[at(1, POP), at(2, INSERT)]),
    ("brpoplpush", &[at(1, POP), at(2, INSERT)]),
    ("copy", &[at(1, READ), at(2, OVERWRITE)]),
    ("lmove", &[at(1, POP), at(2, INSERT)]),
    ("pfmerge", &[at(1, "RW access insert"), rest(2, READ)]),
    ("rename", &[at(1, POP), at(2, OVERWRITE)]),
    ("renamenx", &[at(1, POP), at(2, "OW insert")]),
    ("rpoplpush", &[at(1, POP), at(2, INSERT)]),
    ("sdiffstore", &[at(1, OVERWRITE), rest(2, READ)]),
    ("sinterstore", &[at(1, "RW update"), rest(2, READ)]),
    ("smove", &[at(1, POP), at(2, INSERT)]),
    ("sort", &[at(1, READ), somewhere(READ), somewhere(OVERWRITE)]),
    ("sort_ro", &[at(1, READ), somewhere(READ)]),
    ("sunionstore", &[at(1, OVERWRITE), rest(2, READ)]),
    ("zdiffstore", &[at(1, OVERWRITE), counted(2, READ)]),
    ("zinterstore", &[at(1, OVERWRITE), counted(2, READ)]),
    ("zrangestore", &[at(1, OVERWRITE), at(2, READ)]),
    ("zunionstore", &[at(1, OVERWRITE), counted(2, READ)]),
];

/// The runs of keys of every command, by its number.
static SPECS: LazyLock<Vec<Vec<KeySpec>>> = LazyLock::new(|| {
    let mut specs = vec![Vec::new(); TABLE.count()];
    let mut put = |known: &Known| specs[usize::from(known.id.0)] = make_specs(known);
    for known in TABLE.iter() {
        put(known);
        known.subcommands.values().for_each(&mut put);
    }
    specs
});

/// The runs of keys of a command.
#[must_use]
pub fn specs_of(known: &Known) -> &'static [KeySpec] {
    &SPECS[usize::from(known.id.0)]
}

fn make_specs(known: &Known) -> Vec<KeySpec> {
    let name = known.full_name;
    if let Some((_, specs)) = SEVERAL_PARTS.iter().find(|(other, _)| *other == name) {
        return specs.to_vec();
    }
    let listed = ONE_PART.iter().find(|(_, names)| names.contains(&name));
    let reads = known.command.flags.has(Flags::READONLY);
    let flags = listed.map_or(if reads { READ } else { CHANGE }, |(flags, _)| flags);
    let place = match known.command.keys {
        Keys::None | Keys::All => return Vec::new(),
        Keys::Range { first, last, step } => {
            let offset = isize::try_from(first).expect("a position in a short table");
            Place::Range { first, last: if last < 0 { last } else { last - offset }, step }
        }
        Keys::Counted { count, .. } => Place::Counted { count },
        Keys::Found(_) => Place::Unknown,
    };
    vec![KeySpec { flags, place }]
}

fn covers(place: Place, arguments: usize, index: usize) -> bool {
    match place {
        Place::Range { first, last, step } => {
            let last = match usize::try_from(last) {
                Ok(last) => first + last,
                Err(_) => arguments.saturating_sub(last.unsigned_abs()),
            };
            (first..=last).contains(&index) && (index - first).is_multiple_of(step.max(1))
        }
        Place::Counted { count } => index > count,
        Place::Unknown => false,
    }
}

/// What `known` does with its key at `index`; None if that is no key.
#[must_use]
pub fn access_of(known: &Known, arguments: &[&[u8]], index: usize) -> Option<Access> {
    words_of(known, arguments, index).access()
}

/// The part that the key at `index` plays. Of keys that options name (`SORT … STORE`) it is the last of the command's parts.
#[must_use]
pub fn words_of(known: &Known, arguments: &[&[u8]], index: usize) -> KeySpec {
    let specs = specs_of(known);
    let covered = specs.iter().find(|spec| covers(spec.place, arguments.len(), index));
    let spec = covered.or(specs.last()).copied();
    let mut spec = spec.unwrap_or(somewhere(CHANGE));
    if spec.flags.ends_with("variable_flags") {
        let has = |from: usize, word: &str| {
            arguments.iter().skip(from).any(|argument| super::is_option(argument, word))
        };
        spec.flags = match known.full_name {
            // The value comes before the options, and may be called like one.
            "set" if !has(3, "GET") => OVERWRITE,
            "bitfield" if !has(2, "SET") && !has(2, "INCRBY") => READ,
            _ => CHANGE,
        };
    }
    spec
}
