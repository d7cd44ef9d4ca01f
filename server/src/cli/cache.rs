//! `lattice cache …`: the cache's keys, statistics and placement, from the command line.

mod client;
mod ring;

use std::collections::BTreeMap;
use std::io::Read as _;
use std::time::Duration;

use anyhow::{Context as _, bail};
use clap::{Args, Subcommand};
use serde_json::{Value, json};

pub(super) use self::client::CacheError;
use self::client::{Client, Reply};
use super::output::{json_bytes, shown};
use super::{Exit, Format, Output, seconds};

#[derive(Debug, Subcommand)]
pub(crate) enum Cache {
    /// Get the value of a key
    Get(Get),
    /// Set a key
    Set(Set),
    /// Delete keys
    Del(Del),
    /// Show how long a key has to live
    Ttl(Ttl),
    /// Show hits, misses by cause, memory and expiry
    Stats(Stats),
    /// Show the keys that are looked up most
    Hotkeys(Hotkeys),
    /// Show who holds what, and what would move
    #[command(subcommand)]
    Ring(ring::Ring),
}

/// Where a command finds the cache, and how it shows results.
#[derive(Debug, Args)]
pub(crate) struct Common {
    /// The node to ask
    #[arg(long, env = "LATTICE_CACHE", value_name = "HOST:PORT", default_value = "127.0.0.1:6379")]
    server: String,
    /// The user to authenticate as, if a password is given
    #[arg(long, env = "LATTICE_CACHE_USER", value_name = "NAME", default_value = "default")]
    user: String,
    /// The password, if one is needed; better in the environment, as others can read command lines
    #[arg(long, env = "LATTICE_CACHE_PASSWORD", value_name = "PASSWORD", hide_env_values = true)]
    password: Option<String>,
    /// Seconds to wait for a connection, and for an answer
    #[arg(long, env = "LATTICE_TIMEOUT", value_name = "SECONDS", default_value = "5", value_parser = seconds)]
    timeout: Duration,
    /// How results are shown
    #[arg(short = 'o', long, value_enum, default_value_t = Format::Table)]
    output: Format,
}

#[derive(Debug, Args)]
pub(crate) struct Get {
    key: String,
    #[command(flatten)]
    common: Common,
}

#[derive(Debug, Args)]
pub(crate) struct Set {
    key: String,
    /// The value; `-` reads standard input
    value: String,
    /// Seconds to live, to the millisecond [default: for ever]
    #[arg(long, value_name = "SECONDS", value_parser = seconds)]
    ttl: Option<Duration>,
    #[command(flatten)]
    common: Common,
}

#[derive(Debug, Args)]
pub(crate) struct Del {
    #[arg(required = true)]
    keys: Vec<String>,
    #[command(flatten)]
    common: Common,
}

#[derive(Debug, Args)]
pub(crate) struct Ttl {
    key: String,
    #[command(flatten)]
    common: Common,
}

#[derive(Debug, Args)]
pub(crate) struct Stats {
    #[command(flatten)]
    common: Common,
}

#[derive(Debug, Args)]
pub(crate) struct Hotkeys {
    /// How many, at most
    #[arg(long, value_name = "N", default_value_t = 20)]
    count: usize,
    #[command(flatten)]
    common: Common,
}

impl Cache {
    pub(crate) fn run(self) -> anyhow::Result<Exit> {
        match self {
            Self::Get(get) => get.run(),
            Self::Set(set) => set.run(),
            Self::Del(del) => del.run(),
            Self::Ttl(ttl) => ttl.run(),
            Self::Stats(stats) => stats.run(),
            Self::Hotkeys(hotkeys) => hotkeys.run(),
            Self::Ring(ring) => ring.run(),
        }
    }
}

impl Common {
    fn client(&self) -> Result<Client, CacheError> {
        let login = self.password.as_deref().map(|password| (self.user.as_str(), password));
        Client::connect(&self.server, login, self.timeout)
    }

    fn call(&self, arguments: &[&[u8]]) -> Result<Reply, CacheError> {
        self.client()?.call(arguments)
    }

    fn output(&self) -> Output {
        Output::new(self.output)
    }
}

impl Get {
    fn run(self) -> anyhow::Result<Exit> {
        let output = self.common.output();
        match self.common.call(&[b"GET", self.key.as_bytes()])? {
            Reply::Bytes(value) => {
                if self.common.output == Format::Table {
                    // As it is: a value may be a picture that goes to a file.
                    output.bytes(&value)?;
                } else {
                    output.one("", json!({ "key": self.key, "value": json_bytes(&value) }))?;
                }
                Ok(Exit::Done)
            }
            Reply::Null => {
                output.one("(not found)", json!({ "key": self.key, "value": null }))?;
                Ok(Exit::NotFound)
            }
            other => bail!("an unexpected answer to GET: {other:?}"),
        }
    }
}

impl Set {
    fn run(self) -> anyhow::Result<Exit> {
        let value = if self.value == "-" {
            let mut value = Vec::new();
            std::io::stdin().lock().read_to_end(&mut value)?;
            value
        } else {
            self.value.into_bytes()
        };
        let ttl = self.ttl.map(|ttl| ttl.as_millis().max(1).to_string());
        let mut arguments: Vec<&[u8]> = vec![b"SET", self.key.as_bytes(), &value];
        if let Some(ttl) = &ttl {
            arguments.extend([b"PX".as_slice(), ttl.as_bytes()]);
        }
        self.common.call(&arguments)?;
        self.common.output().one("OK", json!({ "key": self.key, "ok": true }))?;
        Ok(Exit::Done)
    }
}

impl Del {
    fn run(self) -> anyhow::Result<Exit> {
        let mut arguments: Vec<&[u8]> = vec![b"DEL"];
        arguments.extend(self.keys.iter().map(|key| key.as_bytes()));
        let deleted = self.common.call(&arguments)?.integer()?;
        self.common.output().one(&format!("{deleted} deleted"), json!({ "deleted": deleted }))?;
        Ok(Exit::Done)
    }
}

impl Ttl {
    fn run(self) -> anyhow::Result<Exit> {
        let output = self.common.output();
        let left = self.common.call(&[b"PTTL", self.key.as_bytes()])?.integer()?;
        let (text, value) = match left {
            -2 => ("(not found)".to_owned(), Value::Null),
            -1 => ("for ever".to_owned(), Value::Null),
            left => {
                let left = Duration::from_millis(u64::try_from(left).unwrap_or(0));
                (format!("{} s", left.as_secs_f64()), left.as_secs_f64().into())
            }
        };
        output.one(&text, json!({ "key": self.key, "found": left != -2, "ttl_seconds": value }))?;
        Ok(if left == -2 { Exit::NotFound } else { Exit::Done })
    }
}

/// What `stats` shows of `INFO`: the field, and what it is.
const STATS: &[(&str, &str)] = &[
    ("uptime_in_seconds", "seconds since the start"),
    ("connected_clients", "clients connected"),
    ("total_commands_processed", "commands processed"),
    ("used_memory", "bytes used, as the limit counts them"),
    ("used_memory_peak", "the most bytes used"),
    ("used_memory_rss", "bytes that the process occupies"),
    ("maxmemory", "the limit in bytes, 0 for none"),
    ("maxmemory_policy", "what gives way at the limit"),
    ("keyspace_hits", "lookups that found a value"),
    ("keyspace_misses", "lookups that found none"),
    ("keyspace_misses_never_seen", "… of keys not known to have been there"),
    ("keyspace_misses_expired", "… of keys that had expired"),
    ("keyspace_misses_evicted", "… of keys that had been evicted"),
    ("keyspace_misses_deleted", "… of keys that had been deleted"),
    ("expired_keys", "keys removed at their deadline"),
    ("expiry_lag_max_ms", "the longest that one was kept past it, in ms"),
    ("evicted_keys", "keys that gave way at the limit"),
];

impl Stats {
    fn run(self) -> anyhow::Result<Exit> {
        let mut client = self.common.client()?;
        let info = client.call(&[b"INFO", b"everything"])?.bytes()?;
        let info = String::from_utf8_lossy(&info).into_owned();
        let fields: BTreeMap<&str, &str> =
            info.lines().filter_map(|line| line.split_once(':')).collect();
        let databases: Vec<(&str, &str)> = fields
            .iter()
            .filter(|(name, _)| name.strip_prefix("db").is_some_and(|n| n.parse::<u8>().is_ok()))
            .map(|(name, value)| (*name, *value))
            .collect();
        let items =
            STATS.iter().filter_map(|(name, what)| Some((*name, *fields.get(name)?, *what)));
        let items = items.chain(databases.into_iter().map(|(name, keys)| (name, keys, "")));
        let items: Vec<Value> = items
            .map(|(name, value, what)| {
                let value =
                    value.parse::<i64>().map_or_else(|_| json!(value), |value| json!(value));
                json!({ "name": name, "value": value, "what": what })
            })
            .collect();
        self.common.output().list(&["NAME", "VALUE", ""], json!({}), "stats", &items, |item| {
            ["name", "value", "what"].iter().map(|field| text(&item[field])).collect()
        })?;
        Ok(Exit::Done)
    }
}

impl Hotkeys {
    fn run(self) -> anyhow::Result<Exit> {
        let hot = self.common.call(&[b"LATTICE", b"HOTKEYS"])?;
        let items: Vec<Value> = hot
            .array()?
            .into_iter()
            .take(self.count)
            .map(|entry| {
                let entry = entry.fields()?;
                let field = |name: &str| entry.get(name).context("a field is missing");
                Ok(json!({
                    "key": json_bytes(&field("key")?.clone().bytes()?),
                    "database": field("database")?.clone().integer()?,
                    "lookups": field("lookups")?.clone().integer()?,
                    "error": field("error")?.clone().integer()?,
                }))
            })
            .collect::<anyhow::Result<_>>()?;
        let headers = ["KEY", "DB", "LOOKUPS ABOUT", "AT MOST TOO HIGH BY"];
        self.common.output().list(&headers, json!({}), "hotkeys", &items, |item| {
            let key = item["key"]
                .as_str()
                .map_or_else(|| item["key"].to_string(), |key| shown(key.as_bytes()));
            vec![key, text(&item["database"]), text(&item["lookups"]), text(&item["error"])]
        })?;
        Ok(Exit::Done)
    }
}

/// A JSON value as a cell of a table.
fn text(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}
