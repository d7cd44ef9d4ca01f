//! Commands that a run draws, and their words. Names of keys begin with the kind of value that they hold, so no command meets the
//! wrong kind: that is what the differential fuzzer is for.

use super::reply::show_bytes;

/// How long a string lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Life {
    Forever,
    Keep,
    For(u64),
    Until(u64),
}

/// `NX` and `XX`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum When {
    Always,
    Missing,
    There,
}

type Bytes = Vec<u8>;

/// A command that answers at once.
#[derive(Clone, Debug)]
pub(super) enum Operation {
    Set {
        key: Bytes,
        value: Bytes,
        life: Life,
        when: When,
    },
    Get(Bytes),
    GetDel(Bytes),
    /// With another deadline, or none.
    GetEx(Bytes, Option<u64>),
    Append(Bytes, Bytes),
    Incr(Bytes),
    Del(Vec<Bytes>),
    Exists(Vec<Bytes>),
    Expire(Bytes, u64),
    ExpireAt(Bytes, u64),
    Persist(Bytes),
    Ttl(Bytes),
    Rename(Bytes, Bytes),
    Copy(Bytes, Bytes, bool),
    Push {
        key: Bytes,
        left: bool,
        elements: Vec<Bytes>,
    },
    Pop {
        key: Bytes,
        left: bool,
    },
    Move {
        from: Bytes,
        to: Bytes,
    },
    Range(Bytes),
    SetAdd(Bytes, Vec<Bytes>),
    SetRemove(Bytes, Vec<Bytes>),
    SetPop(Bytes),
    Members(Bytes),
    HashSet(Bytes, Vec<Bytes>, Bytes),
    HashDel(Bytes, Vec<Bytes>),
    Fields(Bytes),
    SortedAdd(Bytes, Vec<Bytes>, i64),
    SortedRemove(Bytes, Vec<Bytes>),
    Ranked(Bytes),
    Size,
    Flush,
    FlushAll,
    Swap(u8, u8),
}

fn words(head: &[&str], rest: &[&Bytes]) -> Vec<Bytes> {
    let head = head.iter().map(|word| word.as_bytes().to_vec());
    head.chain(rest.iter().map(|word| (*word).clone())).collect()
}

fn several(name: &str, key: Option<&Bytes>, rest: &[Bytes]) -> Vec<Bytes> {
    let rest: Vec<&Bytes> = key.into_iter().chain(rest).collect();
    words(&[name], &rest)
}

impl Operation {
    /// The command as a client sends it.
    pub(super) fn words(&self) -> Vec<Bytes> {
        let number = |number: &u64| number.to_string().into_bytes();
        match self {
            Self::Set { key, value, life, when } => {
                let mut all = words(&["SET"], &[key, value]);
                match life {
                    Life::Forever => {}
                    Life::Keep => all.push(b"KEEPTTL".to_vec()),
                    Life::For(ms) => all.extend([b"PX".to_vec(), number(ms)]),
                    Life::Until(at) => all.extend([b"PXAT".to_vec(), number(at)]),
                }
                match when {
                    When::Always => {}
                    When::Missing => all.push(b"NX".to_vec()),
                    When::There => all.push(b"XX".to_vec()),
                }
                all
            }
            Self::Get(key) => words(&["GET"], &[key]),
            Self::GetDel(key) => words(&["GETDEL"], &[key]),
            Self::GetEx(key, Some(ms)) => words(&["GETEX"], &[key, &b"PX".to_vec(), &number(ms)]),
            Self::GetEx(key, None) => words(&["GETEX"], &[key, &b"PERSIST".to_vec()]),
            Self::Append(key, more) => words(&["APPEND"], &[key, more]),
            Self::Incr(key) => words(&["INCR"], &[key]),
            Self::Del(keys) => several("DEL", None, keys),
            Self::Exists(keys) => several("EXISTS", None, keys),
            Self::Expire(key, ms) => words(&["PEXPIRE"], &[key, &number(ms)]),
            Self::ExpireAt(key, at) => words(&["PEXPIREAT"], &[key, &number(at)]),
            Self::Persist(key) => words(&["PERSIST"], &[key]),
            Self::Ttl(key) => words(&["PTTL"], &[key]),
            Self::Rename(from, to) => words(&["RENAME"], &[from, to]),
            Self::Copy(from, to, false) => words(&["COPY"], &[from, to]),
            Self::Copy(from, to, true) => words(&["COPY"], &[from, to, &b"REPLACE".to_vec()]),
            Self::Push { key, left, elements } => {
                several(if *left { "LPUSH" } else { "RPUSH" }, Some(key), elements)
            }
            Self::Pop { key, left } => words(&[if *left { "LPOP" } else { "RPOP" }], &[key]),
            Self::Move { from, to } => {
                let ends = [b"LEFT".to_vec(), b"RIGHT".to_vec()];
                words(&["LMOVE"], &[from, to, &ends[0], &ends[1]])
            }
            Self::Range(key) => words(&["LRANGE"], &[key, &b"0".to_vec(), &b"-1".to_vec()]),
            Self::SetAdd(key, members) => several("SADD", Some(key), members),
            Self::SetRemove(key, members) => several("SREM", Some(key), members),
            Self::SetPop(key) => words(&["SPOP"], &[key]),
            Self::Members(key) => words(&["SMEMBERS"], &[key]),
            Self::HashSet(key, fields, value) => {
                let pairs: Vec<Bytes> =
                    fields.iter().flat_map(|field| [field.clone(), value.clone()]).collect();
                several("HSET", Some(key), &pairs)
            }
            Self::HashDel(key, fields) => several("HDEL", Some(key), fields),
            Self::Fields(key) => words(&["HGETALL"], &[key]),
            Self::SortedAdd(key, members, score) => {
                let score = score.to_string().into_bytes();
                let pairs: Vec<Bytes> =
                    members.iter().flat_map(|member| [score.clone(), member.clone()]).collect();
                several("ZADD", Some(key), &pairs)
            }
            Self::SortedRemove(key, members) => several("ZREM", Some(key), members),
            Self::Ranked(key) => words(&["ZRANGE"], &[key, &b"0".to_vec(), &b"-1".to_vec()]),
            Self::Size => words(&["DBSIZE"], &[]),
            Self::Flush => words(&["FLUSHDB"], &[]),
            Self::FlushAll => words(&["FLUSHALL"], &[]),
            Self::Swap(left, right) => {
                words(&["SWAPDB"], &[&number(&u64::from(*left)), &number(&u64::from(*right))])
            }
        }
    }

    /// The command as text, short.
    pub(super) fn show(&self) -> String {
        let words: Vec<String> = self.words().iter().take(12).map(|it| show_bytes(it)).collect();
        words.join(" ")
    }

    /// The keys that it names.
    pub(super) fn keys(&self) -> Vec<Bytes> {
        match self {
            Self::Del(keys) | Self::Exists(keys) => keys.clone(),
            Self::Rename(one, other) | Self::Copy(one, other, _) => {
                vec![one.clone(), other.clone()]
            }
            Self::Move { from, to } => vec![from.clone(), to.clone()],
            Self::Size | Self::Flush | Self::FlushAll | Self::Swap(..) => Vec::new(),
            _ => self.words().into_iter().skip(1).take(1).collect(),
        }
    }

    /// Whether the order of its answer means nothing.
    pub(super) fn is_unordered(&self) -> bool {
        matches!(self, Self::Members(_) | Self::Fields(_))
    }
}
