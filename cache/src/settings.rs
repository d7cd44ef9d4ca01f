//! The settings that `CONFIG GET` shows and `CONFIG SET` changes, under Redis's names.
//!
//! Each setting is one [`Row`] of a table: its name, what values it takes, and where its value lives. Those that are read on hot paths
//! are atomics with a name of their own; the others are texts. Much of what Redis can be told has no meaning here (there are no
//! background saves, no listpack thresholds): such settings are kept because tools and clients read and write them, take the
//! values that Redis takes, and say so by [`Effect::None`]. What a change entails beyond its value is done by the command
//! (`crate::command::config`), after all values of a `CONFIG SET` have been found good: so either all of them hold, or none.

mod table;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::engine::EngineOptions;
use crate::store::Policy;

pub use self::table::TABLE;

/// What values a setting takes.
#[derive(Clone, Copy, Debug)]
pub enum Kind {
    /// `yes` or `no`.
    Bool,
    /// An integer within bounds.
    Integer {
        /// The least.
        min: i64,
        /// The most.
        max: i64,
    },
    /// A number of bytes within bounds, also as `100mb`.
    Memory {
        /// The least.
        min: i64,
        /// The most.
        max: i64,
    },
    /// One of these words.
    Word(&'static [&'static str]),
    /// Any text.
    Text,
    /// What the function makes of it: the text as it is shown from then on, or what is wrong with it.
    Checked(fn(&str) -> Result<String, &'static str>),
    /// Limits of output buffers by class of client.
    OutputLimits,
}

/// What a setting does here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// What it says.
    Real,
    /// Nothing: it is kept for those who ask.
    None,
    /// It tells what is so, and cannot be changed while the node runs.
    Fixed,
}

/// One setting.
#[derive(Clone, Copy, Debug)]
pub struct Row {
    /// Its name.
    pub name: &'static str,
    /// An older name; empty for none.
    pub alias: &'static str,
    /// What values it takes.
    pub kind: Kind,
    /// Its value at first, as shown.
    pub default: &'static str,
    /// What it does.
    pub effect: Effect,
    /// Where its value lives, if it is not among the texts.
    pub cell: Option<fn(&Settings) -> &AtomicI64>,
}

/// Why a setting is not changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SettingError {
    /// There is no such setting.
    Unknown(String),
    /// A value is wrong, or the setting cannot be changed; holds its name and what is wrong.
    Refused(String, String),
}

impl fmt::Display for SettingError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unknown(name) => {
                write!(f, "ERR Unknown option or number of arguments for CONFIG SET - '{name}'")
            }
            Self::Refused(name, why) => {
                write!(f, "ERR CONFIG SET failed (possibly related to argument '{name}') - {why}")
            }
        }
    }
}

/// The classes of clients with output limits of their own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OutputClass {
    /// Those that send commands.
    Normal,
    /// Replicas. There are none, but the setting names them.
    Replica,
    /// Those that subscribe.
    PubSub,
}

/// How much may wait to be sent to a client.
#[derive(Debug, Default)]
pub struct OutputLimit {
    /// At this many bytes the client is disconnected; 0 for no limit.
    pub hard: AtomicI64,
    /// At this many bytes for `soft_s` seconds on end it is, too; 0 for no limit.
    pub soft: AtomicI64,
    /// See `soft`.
    pub soft_s: AtomicI64,
}

/// All settings. The atomics may be read at any time; they are written through [`Settings::set`] alone, which keeps to the bounds.
#[derive(Debug)]
#[expect(
    missing_docs,
    reason = "the names are Redis's, and documented with it; units are bytes, seconds, or as the name says"
)]
pub struct Settings {
    pub maxmemory: AtomicI64,
    /// An index into [`POLICIES`].
    pub maxmemory_policy: AtomicI64,
    pub maxclients: AtomicI64,
    pub timeout: AtomicI64,
    pub tcp_keepalive: AtomicI64,
    pub slowlog_log_slower_than: AtomicI64,
    pub slowlog_max_len: AtomicI64,
    pub latency_monitor_threshold: AtomicI64,
    pub latency_tracking: AtomicI64,
    pub acllog_max_len: AtomicI64,
    /// 0: new users may use all channels, 1: none.
    pub acl_pubsub_default: AtomicI64,
    pub tracking_table_max_keys: AtomicI64,
    pub proto_max_bulk_len: AtomicI64,
    pub client_query_buffer_limit: AtomicI64,
    pub hll_sparse_max_bytes: AtomicI64,
    output_limits: [OutputLimit; 3],
    texts: Mutex<BTreeMap<&'static str, String>>,
}

/// Policies by the names of `maxmemory-policy`.
pub const POLICIES: [(&str, Policy); 8] = [
    ("volatile-lru", Policy::VolatileLru),
    ("volatile-lfu", Policy::VolatileLfu),
    ("volatile-random", Policy::VolatileRandom),
    ("volatile-ttl", Policy::VolatileTtl),
    ("allkeys-lru", Policy::AllKeysLru),
    ("allkeys-lfu", Policy::AllKeysLfu),
    ("allkeys-random", Policy::AllKeysRandom),
    ("noeviction", Policy::NoEviction),
];

impl Default for Settings {
    fn default() -> Self {
        let settings = Self {
            maxmemory: AtomicI64::default(),
            maxmemory_policy: AtomicI64::default(),
            maxclients: AtomicI64::default(),
            timeout: AtomicI64::default(),
            tcp_keepalive: AtomicI64::default(),
            slowlog_log_slower_than: AtomicI64::default(),
            slowlog_max_len: AtomicI64::default(),
            latency_monitor_threshold: AtomicI64::default(),
            latency_tracking: AtomicI64::default(),
            acllog_max_len: AtomicI64::default(),
            acl_pubsub_default: AtomicI64::default(),
            tracking_table_max_keys: AtomicI64::default(),
            proto_max_bulk_len: AtomicI64::default(),
            client_query_buffer_limit: AtomicI64::default(),
            hll_sparse_max_bytes: AtomicI64::default(),
            output_limits: Default::default(),
            texts: Mutex::default(),
        };
        for row in TABLE {
            let value = Value::parse(row, row.default).expect("a default is a good value");
            settings.store(row, value);
        }
        settings
    }
}

/// A value that has been found good.
#[derive(Clone, Debug)]
enum Value {
    Number(i64),
    Text(String),
    OutputLimits(Vec<(OutputClass, [i64; 3])>),
}

impl Value {
    fn parse(row: &Row, text: &str) -> Result<Self, String> {
        match row.kind {
            Kind::Bool => match text {
                _ if text.eq_ignore_ascii_case("yes") => Ok(Self::of_flag(row, 1, "yes")),
                _ if text.eq_ignore_ascii_case("no") => Ok(Self::of_flag(row, 0, "no")),
                _ => Err("argument must be 'yes' or 'no'".to_owned()),
            },
            Kind::Integer { min, max } => {
                let number = text
                    .parse()
                    .map_err(|_not| "argument couldn't be parsed into an integer".to_owned())?;
                Self::bounded(row, number, min, max)
            }
            Kind::Memory { min, max } => {
                let number = parse_memory(text)
                    .ok_or_else(|| "argument must be a memory value".to_owned())?;
                Self::bounded(row, number, min, max)
            }
            Kind::Word(words) => {
                let at = words.iter().position(|word| word.eq_ignore_ascii_case(text));
                let at = at.ok_or_else(|| {
                    format!("argument(s) must be one of the following: {}", words.join(", "))
                })?;
                let number = i64::try_from(at).expect("a table of words is short");
                Ok(Self::of_flag(row, number, words[at]))
            }
            Kind::Text => Ok(Self::Text(text.to_owned())),
            Kind::Checked(check) => check(text).map(Self::Text).map_err(str::to_owned),
            Kind::OutputLimits => {
                parse_output_limits(text).map(Self::OutputLimits).map_err(str::to_owned)
            }
        }
    }

    fn of_flag(row: &Row, number: i64, text: &str) -> Self {
        if row.cell.is_some() { Self::Number(number) } else { Self::Text(text.to_owned()) }
    }

    fn bounded(row: &Row, number: i64, min: i64, max: i64) -> Result<Self, String> {
        if (min..=max).contains(&number) {
            return Ok(if row.cell.is_some() {
                Self::Number(number)
            } else {
                Self::Text(number.to_string())
            });
        }
        Err(format!("argument must be between {min} and {max} inclusive"))
    }
}

/// The policy of this name, as `maxmemory-policy` has it.
#[must_use]
pub fn policy_of(name: &str) -> Option<Policy> {
    POLICIES.iter().find(|(known, _)| *known == name).map(|(_, policy)| *policy)
}

/// A number of bytes: `100`, `100b`, `1k` (1000), `1kb` (1024), and so for `m` and `g`.
#[must_use]
pub fn parse_memory(text: &str) -> Option<i64> {
    let digits = text.find(|letter: char| !letter.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let scale = match unit.to_ascii_lowercase().as_str() {
        "" | "b" => 1,
        "k" => 1000,
        "kb" => 1 << 10,
        "m" => 1_000_000,
        "mb" => 1 << 20,
        "g" => 1_000_000_000,
        "gb" => 1 << 30,
        _ => return None,
    };
    number.parse::<i64>().ok()?.checked_mul(scale)
}

fn parse_output_limits(text: &str) -> Result<Vec<(OutputClass, [i64; 3])>, &'static str> {
    let words: Vec<&str> = text.split_ascii_whitespace().collect();
    if words.is_empty() || !words.len().is_multiple_of(4) {
        return Err("Wrong number of arguments in buffer limit configuration.");
    }
    words
        .chunks_exact(4)
        .map(|part| {
            let class = match part[0].to_ascii_lowercase().as_str() {
                "normal" => OutputClass::Normal,
                "replica" | "slave" => OutputClass::Replica,
                "pubsub" => OutputClass::PubSub,
                _ => return Err("Invalid client class specified in buffer limit configuration."),
            };
            let bad = "Error in hard, soft or soft_seconds setting in buffer limit configuration.";
            let hard = parse_memory(part[1]).ok_or(bad)?;
            let soft = parse_memory(part[2]).ok_or(bad)?;
            let soft_s = part[3].parse().ok().filter(|s| *s >= 0).ok_or(bad)?;
            Ok((class, [hard, soft, soft_s]))
        })
        .collect()
}

impl Settings {
    /// The settings of an engine that is made with `options`.
    #[must_use]
    pub fn of(options: &EngineOptions) -> Self {
        let settings = Self::default();
        settings.tell("maxmemory", &options.store.limit.min(i64::MAX.unsigned_abs()).to_string());
        let policy = POLICIES.iter().find(|(_, policy)| *policy == options.store.policy);
        settings.tell("maxmemory-policy", policy.expect("every policy has a name").0);
        settings.tell("cluster-enabled", if options.cluster { "yes" } else { "no" });
        if options.cluster {
            settings.tell("databases", "1");
        }
        settings
    }

    fn texts(&self) -> MutexGuard<'_, BTreeMap<&'static str, String>> {
        self.texts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The setting of this name or alias, whatever its case.
    #[must_use]
    pub fn find(name: &str) -> Option<&'static Row> {
        TABLE.iter().find(|row| {
            row.name.eq_ignore_ascii_case(name)
                || (!row.alias.is_empty() && row.alias.eq_ignore_ascii_case(name))
        })
    }

    /// A setting's value as `CONFIG GET` shows it.
    pub fn show(&self, row: &Row) -> String {
        if let Kind::OutputLimits = row.kind {
            let names = ["normal", "slave", "pubsub"];
            let shown = names.iter().zip(&self.output_limits).map(|(name, limit)| {
                let [hard, soft, soft_s] = [&limit.hard, &limit.soft, &limit.soft_s]
                    .map(|cell| cell.load(Ordering::Relaxed));
                format!("{name} {hard} {soft} {soft_s}")
            });
            return shown.collect::<Vec<_>>().join(" ");
        }
        let Some(cell) = row.cell else {
            return self.texts().get(row.name).cloned().unwrap_or_default();
        };
        let number = cell(self).load(Ordering::Relaxed);
        match row.kind {
            Kind::Bool => if number == 0 { "no" } else { "yes" }.to_owned(),
            Kind::Word(words) => usize::try_from(number)
                .ok()
                .and_then(|at| words.get(at))
                .map_or_else(String::new, |word| (*word).to_owned()),
            Kind::Integer { .. }
            | Kind::Memory { .. }
            | Kind::Text
            | Kind::Checked(_)
            | Kind::OutputLimits => number.to_string(),
        }
    }

    /// The value of the setting named `name`, which the table has.
    pub fn text(&self, name: &str) -> String {
        Self::find(name).map_or_else(String::new, |row| self.show(row))
    }

    fn store(&self, row: &Row, value: Value) {
        match value {
            Value::Number(number) => {
                let cell = row.cell.expect("only a setting with a cell has a number for a value");
                cell(self).store(number, Ordering::Relaxed);
            }
            Value::Text(text) => {
                self.texts().insert(row.name, text);
            }
            Value::OutputLimits(limits) => {
                for (class, [hard, soft, soft_s]) in limits {
                    let limit = self.output_limit(class);
                    limit.hard.store(hard, Ordering::Relaxed);
                    limit.soft.store(soft, Ordering::Relaxed);
                    limit.soft_s.store(soft_s, Ordering::Relaxed);
                }
            }
        }
    }

    /// Changes several settings, all or none, and returns which.
    ///
    /// # Errors
    /// If any of them is unknown, named twice, fixed, or its value is not one that it takes.
    pub fn set(&self, pairs: &[(&str, &str)]) -> Result<Vec<&'static Row>, SettingError> {
        let mut changes: Vec<(&'static Row, Value)> = Vec::new();
        for (name, text) in pairs {
            let refused = |why: String| SettingError::Refused((*name).to_owned(), why);
            let row = Self::find(name).ok_or_else(|| SettingError::Unknown((*name).to_owned()))?;
            // Redis lets these be changed: to set them to what they are anyway is no mistake.
            let settable = matches!(row.name, "bind" | "port" | "tls-port");
            if settable && self.text(row.name) == *text {
                continue;
            }
            if row.effect == Effect::Fixed {
                return Err(refused("can't set immutable config".to_owned()));
            }
            if changes.iter().any(|(other, _)| other.name == row.name) {
                return Err(refused("duplicate parameter".to_owned()));
            }
            changes.push((row, Value::parse(row, text).map_err(refused)?));
        }
        let rows = changes.iter().map(|(row, _)| *row).collect();
        for (row, value) in changes {
            self.store(row, value);
        }
        Ok(rows)
    }

    /// Says what is so about the node: for settings that nobody can change, by whoever makes it (`port`, `bind`, `cluster-enabled` …)
    /// and before it serves.
    pub fn tell(&self, name: &str, text: &str) {
        let row = Self::find(name).expect("the caller names a setting of the table");
        match Value::parse(row, text) {
            Ok(value) => self.store(row, value),
            Err(why) => debug_assert!(false, "{name} is not {text}: {why}"),
        }
    }

    /// The output limits of a class of clients.
    #[must_use]
    pub fn output_limit(&self, class: OutputClass) -> &OutputLimit {
        &self.output_limits[class as usize]
    }

    /// What gives way at the memory limit.
    pub fn policy(&self) -> Policy {
        let index = usize::try_from(self.maxmemory_policy.load(Ordering::Relaxed)).unwrap_or(0);
        POLICIES.get(index).map_or(Policy::NoEviction, |(_, policy)| *policy)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_defaults_are_good_and_shown_as_written() {
        let settings = Settings::default();
        let mut names = std::collections::BTreeSet::new();
        for row in TABLE {
            assert!(names.insert(row.name), "{} is there twice", row.name);
            assert!(row.alias.is_empty() || names.insert(row.alias), "{} twice", row.alias);
            assert_eq!(settings.show(row), row.default, "{}", row.name);
        }
    }

    #[test]
    fn several_settings_change_together_or_not_at_all() {
        let settings = Settings::default();
        let bad = settings.set(&[("maxmemory", "100mb"), ("maxclients", "0")]);
        assert!(matches!(bad, Err(SettingError::Refused(name, _)) if name == "maxclients"));
        assert_eq!(settings.text("maxmemory"), "0");
        let rows = settings.set(&[("MAXMEMORY", "100mb"), ("maxclients", "7")]);
        assert_eq!(rows.map(|rows| rows.len()), Ok(2));
        assert_eq!(settings.text("maxmemory"), "104857600");
        assert_eq!(settings.maxclients.load(Ordering::Relaxed), 7);
    }

    #[test]
    fn what_cannot_be_set_says_why() {
        let settings = Settings::default();
        for (pairs, text) in [
            (
                &[("nothing", "1")][..],
                "Unknown option or number of arguments for CONFIG SET - 'nothing'",
            ),
            (&[("databases", "3")], "can't set immutable config"),
            (&[("port", "1")], "can't set immutable config"),
            (&[("timeout", "1"), ("timeout", "2")], "duplicate parameter"),
            (&[("timeout", "x")], "argument couldn't be parsed into an integer"),
            (&[("maxmemory", "1xb")], "argument must be a memory value"),
            (&[("maxmemory-policy", "x")], "one of the following: volatile-lru, volatile-lfu"),
            (&[("appendonly", "maybe")], "argument must be 'yes' or 'no'"),
            (&[("notify-keyspace-events", "KEq")], "Invalid event class character"),
            (&[("client-output-buffer-limit", "wrong 1 2 3")], "Invalid client class"),
        ] {
            let error = settings.set(pairs).unwrap_err().to_string();
            assert!(error.contains(text), "{error}");
        }
    }

    #[test]
    fn memory_is_read_with_its_unit() {
        for (text, bytes) in [
            ("100", Some(100)),
            ("1k", Some(1000)),
            ("1Kb", Some(1024)),
            ("2mb", Some(2 << 20)),
            ("3GB", Some(3 << 30)),
            ("", None),
            ("-1", None),
            ("1tb", None),
            ("9223372036854775807gb", None),
        ] {
            assert_eq!(parse_memory(text), bytes, "{text}");
        }
    }

    #[test]
    fn output_limits_change_by_class() {
        let settings = Settings::default();
        settings.set(&[("client-output-buffer-limit", "normal 1mb 2kb 60")]).unwrap();
        let limit = settings.output_limit(OutputClass::Normal);
        assert_eq!(limit.hard.load(Ordering::Relaxed), 1 << 20);
        assert!(settings.text("client-output-buffer-limit").contains("pubsub 33554432 8388608 60"));
    }

    #[test]
    fn event_classes_are_shown_in_redis_order() {
        let settings = Settings::default();
        for (set, shown) in [("KEA", "AKE"), ("xElK", "lxKE"), ("g$lshzxetdK", "AK"), ("", "")] {
            settings.set(&[("notify-keyspace-events", set)]).unwrap();
            assert_eq!(settings.text("notify-keyspace-events"), shown);
        }
    }
}
