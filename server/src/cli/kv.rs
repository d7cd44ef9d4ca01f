//! `lattice kv`: keys and values from the command line.

use std::io::Read;

use bytes::Bytes;
use clap::{Args, Subcommand, ValueEnum};
use lattice::proto::etcdserverpb::range_request::{SortOrder, SortTarget};
use lattice::proto::etcdserverpb::{DeleteRangeRequest, PutRequest, RangeRequest};
use lattice::proto::mvccpb::KeyValue;
use serde_json::{Value, json};

use super::output::{json_bytes, shown};
use super::{Connection, Exit, Format, Output};

#[derive(Debug, Subcommand)]
pub(crate) enum Kv {
    /// Write a key
    Put(Put),
    /// Read a key or a range of keys
    Get(Get),
    /// Delete a key or a range of keys
    #[command(visible_alias = "rm")]
    Del(Del),
}

#[derive(Debug, Args)]
pub(crate) struct Put {
    /// The key
    key: String,
    /// The value; `-` reads it from standard input
    value: String,
    /// Show the pair as it was before
    #[arg(long)]
    prev_kv: bool,
    #[command(flatten)]
    common: Common,
}

#[derive(Debug, Args)]
pub(crate) struct Get {
    #[command(flatten)]
    range: Keys,
    /// Read as of this revision
    #[arg(long, value_name = "REVISION", default_value_t = 0)]
    rev: i64,
    /// Show at most this many keys
    #[arg(long, value_name = "KEYS", default_value_t = 0)]
    limit: i64,
    /// Leave out the values
    #[arg(long)]
    keys_only: bool,
    /// Show only how many keys there are
    #[arg(long)]
    count_only: bool,
    /// Show only the values, as they are, each with a line end
    #[arg(long, conflicts_with_all = ["keys_only", "count_only"])]
    print_value_only: bool,
    /// Read what the asked member has, without asking the others: fast, possibly stale
    #[arg(long)]
    serializable: bool,
    /// Sort by this
    #[arg(long, value_enum, default_value = "key")]
    sort_by: SortBy,
    /// Sort in this order
    #[arg(long, value_enum, default_value = "none")]
    order: Order,
    #[command(flatten)]
    common: Common,
}

#[derive(Debug, Args)]
pub(crate) struct Del {
    #[command(flatten)]
    range: Keys,
    /// Show the pairs that were deleted
    #[arg(long)]
    prev_kv: bool,
    #[command(flatten)]
    common: Common,
}

/// Which keys.
#[derive(Debug, Args)]
struct Keys {
    /// The key, or the first of a range
    key: String,
    /// The end of the range, exclusive
    range_end: Option<String>,
    /// All keys that begin with KEY
    #[arg(long, conflicts_with = "range_end")]
    prefix: bool,
    /// All keys from KEY on
    #[arg(long, conflicts_with_all = ["range_end", "prefix"])]
    from_key: bool,
}

#[derive(Debug, Args)]
struct Common {
    #[command(flatten)]
    connection: Connection,
    /// How to show the result
    #[arg(short, long, value_enum, default_value = "table")]
    output: Format,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum SortBy {
    Key,
    Version,
    Create,
    Modify,
    Value,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Order {
    None,
    Ascend,
    Descend,
}

impl Kv {
    pub(crate) async fn run(self) -> anyhow::Result<Exit> {
        match self {
            Self::Put(put) => put.run().await,
            Self::Get(get) => get.run().await,
            Self::Del(del) => del.run().await,
        }
    }
}

impl Put {
    async fn run(self) -> anyhow::Result<Exit> {
        let value = if self.value == "-" {
            let mut value = Vec::new();
            std::io::stdin().lock().read_to_end(&mut value)?;
            value.into()
        } else {
            Bytes::from(self.value)
        };
        let client = self.common.connection.client().await?;
        let request = PutRequest {
            key: self.key.into(),
            value,
            prev_kv: self.prev_kv,
            ..PutRequest::default()
        };
        let response = client.put(request).await?;
        let revision = response.header.map_or(0, |header| header.revision);
        let previous = response.prev_kv.as_ref().map_or(Value::Null, pair);
        let text = match &response.prev_kv {
            Some(previous) => format!("OK, was {}", shown(&previous.value)),
            None => "OK".into(),
        };
        let value = json!({ "revision": revision, "previous": previous });
        Output::new(self.common.output).one(&text, value)?;
        Ok(Exit::Done)
    }
}

impl Get {
    async fn run(self) -> anyhow::Result<Exit> {
        let is_range = self.range.is_range();
        let (key, range_end) = self.range.bounds();
        let client = self.common.connection.client().await?;
        let response = client
            .range(RangeRequest {
                key,
                range_end,
                limit: self.limit,
                revision: self.rev,
                sort_order: self.order.on_the_wire().into(),
                sort_target: self.sort_by.on_the_wire().into(),
                serializable: self.serializable,
                keys_only: self.keys_only,
                count_only: self.count_only,
                ..RangeRequest::default()
            })
            .await?;
        let output = Output::new(self.common.output);
        let revision = response.header.as_ref().map_or(0, |header| header.revision);
        let summary =
            json!({ "revision": revision, "count": response.count, "more": response.more });
        if self.count_only {
            output.one(&response.count.to_string(), summary)?;
        } else if self.print_value_only {
            for kv in &response.kvs {
                output.text(&format!("{}\n", String::from_utf8_lossy(&kv.value)))?;
            }
        } else {
            show(&output, summary, &response.kvs, self.keys_only)?;
        }
        let missing = response.count == 0 && !is_range;
        Ok(if missing { Exit::NotFound } else { Exit::Done })
    }
}

impl Del {
    async fn run(self) -> anyhow::Result<Exit> {
        let (key, range_end) = self.range.bounds();
        let client = self.common.connection.client().await?;
        let request = DeleteRangeRequest { key, range_end, prev_kv: self.prev_kv };
        let response = client.delete_range(request).await?;
        let output = Output::new(self.common.output);
        let revision = response.header.as_ref().map_or(0, |header| header.revision);
        let summary = json!({ "revision": revision, "deleted": response.deleted });
        if self.prev_kv {
            show(&output, summary, &response.prev_kvs, false)?;
        } else {
            output.one(&format!("{} deleted", response.deleted), summary)?;
        }
        Ok(Exit::Done)
    }
}

impl Keys {
    fn is_range(&self) -> bool {
        self.prefix || self.from_key || self.range_end.is_some()
    }

    fn bounds(self) -> (Bytes, Bytes) {
        let key = self.key.into_bytes();
        let (key, end) = if self.prefix {
            let end = prefix_end(&key);
            // The empty prefix is everything, and the empty key no key at all.
            (if key.is_empty() { vec![0] } else { key }, end)
        } else if self.from_key {
            (if key.is_empty() { vec![0] } else { key }, vec![0])
        } else {
            (key, self.range_end.unwrap_or_default().into_bytes())
        };
        (key.into(), end.into())
    }
}

/// The least key above all keys with this prefix; one zero byte, *everything from here*, if there is none.
fn prefix_end(prefix: &[u8]) -> Vec<u8> {
    match prefix.iter().rposition(|byte| *byte < 0xff) {
        Some(last) => {
            let mut end = prefix[..=last].to_vec();
            end[last] += 1;
            end
        }
        None => vec![0],
    }
}

fn show(output: &Output, summary: Value, kvs: &[KeyValue], keys_only: bool) -> anyhow::Result<()> {
    if output.format() == Format::Table {
        let headers = if keys_only {
            ["KEY", "VERSION", "CREATED", "MODIFIED"].as_slice()
        } else {
            &["KEY", "VALUE", "VERSION", "CREATED", "MODIFIED"]
        };
        let by_index: Vec<Value> = (0..kvs.len()).map(Value::from).collect();
        output.list(headers, summary, "kvs", &by_index, |index| {
            let index = index.as_u64().and_then(|index| usize::try_from(index).ok());
            let kv = &kvs[index.expect("an index of the same list")];
            let numbers = [kv.version, kv.create_revision, kv.mod_revision].map(|n| n.to_string());
            let value = (!keys_only).then(|| shown(&kv.value));
            [shown(&kv.key)].into_iter().chain(value).chain(numbers).collect()
        })?;
        return Ok(());
    }
    let items: Vec<Value> = kvs.iter().map(pair).collect();
    output.list(&[], summary, "kvs", &items, |_row| Vec::new())?;
    Ok(())
}

fn pair(kv: &KeyValue) -> Value {
    json!({
        "key": json_bytes(&kv.key),
        "value": json_bytes(&kv.value),
        "version": kv.version,
        "create_revision": kv.create_revision,
        "mod_revision": kv.mod_revision,
        "lease": kv.lease,
    })
}

impl SortBy {
    fn on_the_wire(self) -> SortTarget {
        match self {
            Self::Key => SortTarget::Key,
            Self::Version => SortTarget::Version,
            Self::Create => SortTarget::Create,
            Self::Modify => SortTarget::Mod,
            Self::Value => SortTarget::Value,
        }
    }
}

impl Order {
    fn on_the_wire(self) -> SortOrder {
        match self {
            Self::None => SortOrder::None,
            Self::Ascend => SortOrder::Ascend,
            Self::Descend => SortOrder::Descend,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_ends_at_the_next_byte_that_can_grow() {
        for (prefix, end) in [
            (b"a".as_slice(), b"b".as_slice()),
            (b"a\xff", b"b"),
            (b"\xff\xff", b"\0"),
            (b"", b"\0"),
            (b"a\xfe", b"a\xff"),
        ] {
            assert_eq!(prefix_end(prefix), end, "{prefix:?}");
        }
    }

    #[test]
    fn the_empty_prefix_is_everything() {
        let keys = Keys { key: String::new(), range_end: None, prefix: true, from_key: false };
        assert_eq!(keys.bounds(), (Bytes::from_static(b"\0"), Bytes::from_static(b"\0")));
    }
}
