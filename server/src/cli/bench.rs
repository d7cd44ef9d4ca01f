//! `lattice bench`: a closed loop of clients against any server that speaks etcd's API.
//!
//! Each client sends its next request when the last one is answered. The first second is warm-up and does not count.
//! Errors are counted, not retried.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use clap::{Args, Subcommand, ValueEnum};
use lattice::client::Client;
use lattice::proto::etcdserverpb::{PutRequest, RangeRequest};
use serde_json::json;

use super::{Connection, Exit, Format, Output, seconds};

#[derive(Debug, Subcommand)]
pub(crate) enum Bench {
    /// Puts or gets of random keys
    Kv(Kv),
}

#[derive(Debug, Args)]
pub(crate) struct Kv {
    #[command(flatten)]
    connection: Connection,
    /// What to do
    #[arg(long, value_enum, default_value = "put")]
    op: Op,
    /// Clients that each have one request under way
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    clients: u32,
    /// Connections that they share; spread over all endpoints
    #[arg(long, default_value_t = 16, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    connections: u32,
    /// Seconds to measure, after one second of warm-up
    #[arg(long, value_name = "SECONDS", default_value = "4", value_parser = seconds)]
    seconds: Duration,
    /// Bytes of each value
    #[arg(long, value_name = "BYTES", default_value_t = 256, value_parser = clap::value_parser!(u32).range(0..=1_000_000))]
    value_size: u32,
    /// Different keys
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..=100_000_000))]
    keys: u32,
    /// How to show the result
    #[arg(short, long, value_enum, default_value = "table")]
    output: Format,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Op {
    /// Write
    Put,
    /// Read, linearizable
    Get,
    /// Read what the asked member has
    GetSerializable,
}

/// What one client, and in the end all of them, saw.
#[derive(Debug)]
struct Seen {
    latencies: Histogram,
    errors: u64,
    last_error: Option<String>,
}

/// After an error: a server that is gone fails at once, and would be asked a hundred thousand times a second.
const PAUSE: Duration = Duration::from_millis(10);
const WARM_UP: Duration = Duration::from_secs(1);

impl Bench {
    pub(crate) fn run(self) -> anyhow::Result<Exit> {
        let Self::Kv(kv) = self;
        tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()?
            .block_on(kv.run())
    }
}

impl Kv {
    async fn run(self) -> anyhow::Result<Exit> {
        let connections = self.connect().await?;
        let measuring = Arc::new(AtomicBool::new(false));
        let begin = Instant::now() + WARM_UP;
        let end = begin + self.seconds;
        let tasks: Vec<_> = (0..self.clients)
            .map(|number| {
                let index = usize::try_from(number).expect("32 bits fit") % connections.len();
                let client = connections[index].clone();
                let load = Load::new(&self, number);
                tokio::spawn(load.run(client, Arc::clone(&measuring), end))
            })
            .collect();
        tokio::time::sleep_until(begin.into()).await;
        measuring.store(true, Ordering::Relaxed);
        let mut seen = Seen::new();
        for task in tasks {
            seen.add(&task.await?);
        }
        self.report(&seen)
    }

    /// Connections to all endpoints in turn.
    async fn connect(&self) -> anyhow::Result<Vec<Client>> {
        let Connection { endpoints, timeout } = &self.connection;
        let mut connections = Vec::new();
        let wanted = usize::try_from(self.connections.min(self.clients)).expect("32 bits fit");
        for endpoint in endpoints.iter().cycle().take(wanted) {
            connections.push(Client::connect(std::slice::from_ref(endpoint), *timeout).await?);
        }
        Ok(connections)
    }

    fn report(&self, seen: &Seen) -> anyhow::Result<Exit> {
        let operations = seen.latencies.count();
        let per_second =
            u64::try_from(u128::from(operations) * 1_000_000 / self.seconds.as_micros())?;
        let at = |permille| seen.latencies.at(permille);
        let (p50, p90, p99, p999) = (at(500), at(900), at(990), at(999));
        let op = self.op.to_possible_value().map_or_else(String::new, |op| op.get_name().into());
        let ms = |us: u64| format!("{}.{:03}", us / 1000, us % 1000);
        let text = format!(
            "{op}: {per_second} ops/s  p50 {} ms  p90 {} ms  p99 {} ms  p99.9 {} ms  max {} ms\n\
             {} clients, {} connections, {} B values, {} keys, {:?}, {operations} operations, {} errors{}",
            ms(p50),
            ms(p90),
            ms(p99),
            ms(p999),
            ms(seen.latencies.max),
            self.clients,
            self.connections.min(self.clients),
            self.value_size,
            self.keys,
            self.seconds,
            seen.errors,
            seen.last_error.as_ref().map_or_else(String::new, |error| format!(" (last: {error})")),
        );
        let value = json!({
            "op": op,
            "ops_per_second": per_second,
            "p50_us": p50,
            "p90_us": p90,
            "p99_us": p99,
            "p999_us": p999,
            "max_us": seen.latencies.max,
            "clients": self.clients,
            "connections": self.connections.min(self.clients),
            "value_size": self.value_size,
            "keys": self.keys,
            "seconds": self.seconds.as_secs_f64(),
            "operations": operations,
            "errors": seen.errors,
            "last_error": seen.last_error,
        });
        Output::new(self.output).one(&text, value)?;
        Ok(if operations == 0 { Exit::CheckFailed } else { Exit::Done })
    }
}

/// The requests of one client.
struct Load {
    op: Op,
    keys: u32,
    value: Bytes,
    random: u64,
}

impl Load {
    fn new(bench: &Kv, number: u32) -> Self {
        let size = usize::try_from(bench.value_size).expect("32 bits fit");
        Self {
            op: bench.op,
            keys: bench.keys,
            value: vec![b'x'; size].into(),
            random: u64::from(number).wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15),
        }
    }

    async fn run(mut self, client: Client, measuring: Arc<AtomicBool>, end: Instant) -> Seen {
        let mut seen = Seen::new();
        loop {
            let start = Instant::now();
            if start >= end {
                return seen;
            }
            let result = self.request(&client).await;
            let failed = result.is_err();
            if measuring.load(Ordering::Relaxed) && Instant::now() <= end {
                seen.record(result, start.elapsed());
            }
            if failed {
                tokio::time::sleep(PAUSE).await;
            }
        }
    }

    async fn request(&mut self, client: &Client) -> Result<(), lattice::client::ClientError> {
        let key = Bytes::from(format!("bench/{:08}", self.next_key()));
        let read = |serializable| RangeRequest {
            key: key.clone(),
            serializable,
            ..RangeRequest::default()
        };
        match self.op {
            Op::Put => {
                let value = self.value.clone();
                let put = PutRequest { key, value, ..PutRequest::default() };
                client.put(put).await.map(drop)
            }
            Op::Get => client.range(read(false)).await.map(drop),
            Op::GetSerializable => client.range(read(true)).await.map(drop),
        }
    }

    /// xorshift64: good enough to spread keys, and the same keys in each run.
    fn next_key(&mut self) -> u64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        self.random % u64::from(self.keys)
    }
}

impl Seen {
    fn new() -> Self {
        Self { latencies: Histogram::new(), errors: 0, last_error: None }
    }

    fn record(&mut self, result: Result<(), lattice::client::ClientError>, latency: Duration) {
        match result {
            Ok(()) => {
                self.latencies.record(u64::try_from(latency.as_micros()).unwrap_or(u64::MAX));
            }
            Err(error) => {
                self.errors += 1;
                self.last_error = Some(error.to_string());
            }
        }
    }

    fn add(&mut self, other: &Self) {
        self.latencies.add(&other.latencies);
        self.errors += other.errors;
        if other.last_error.is_some() {
            self.last_error.clone_from(&other.last_error);
        }
    }
}

/// Counts of values in buckets that are 1/32 of their values wide: fixed memory, 3% precision.
#[derive(Debug)]
struct Histogram {
    counts: Vec<u64>,
    max: u64,
}

/// Buckets per power of two, as a power of two.
const PRECISION_BITS: u32 = 5;

impl Histogram {
    fn new() -> Self {
        let buckets = (64 - PRECISION_BITS + 1) << PRECISION_BITS;
        Self { counts: vec![0; usize::try_from(buckets).expect("a small number")], max: 0 }
    }

    fn record(&mut self, value: u64) {
        self.counts[bucket(value)] += 1;
        self.max = self.max.max(value);
    }

    fn add(&mut self, other: &Self) {
        for (mine, theirs) in self.counts.iter_mut().zip(&other.counts) {
            *mine += theirs;
        }
        self.max = self.max.max(other.max);
    }

    fn count(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// The value that `permille` of all values do not exceed; 0 if there are none.
    fn at(&self, permille: u64) -> u64 {
        let wanted = (self.count() * permille).div_ceil(1000).max(1);
        let mut seen = 0;
        for (index, count) in self.counts.iter().enumerate() {
            seen += count;
            if seen >= wanted {
                return highest(index).min(self.max);
            }
        }
        0
    }
}

/// Small values have a bucket each; larger ones share it with those of the same leading bits.
fn bucket(value: u64) -> usize {
    let shift = (64 - value.leading_zeros()).saturating_sub(PRECISION_BITS + 1);
    let index = (u64::from(shift) << PRECISION_BITS) + (value >> shift);
    usize::try_from(index).expect("at most 64 times 32")
}

/// The highest value of a bucket.
fn highest(index: usize) -> u64 {
    let index = u64::try_from(index).expect("a small number");
    let shift = (index >> PRECISION_BITS).saturating_sub(1);
    let leading = index - (shift << PRECISION_BITS);
    u64::try_from((u128::from(leading + 1) << shift) - 1).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_keep_three_percent() {
        let mut last = 0;
        for value in (0..5000).chain([1 << 20, (1 << 40) + 12345, u64::MAX]) {
            let index = bucket(value);
            assert!(index >= last, "{value}");
            last = index;
            let top = highest(index);
            assert!(top >= value && top - value <= value / 32, "{value} in a bucket up to {top}");
        }
        assert!(last < Histogram::new().counts.len());
    }

    #[test]
    fn quantiles_are_those_of_the_values() {
        let mut histogram = Histogram::new();
        assert_eq!(histogram.at(500), 0);
        (1..=1000).for_each(|value| histogram.record(value));
        let p50 = histogram.at(500);
        assert!((500..=516).contains(&p50), "{p50}");
        assert_eq!((histogram.at(1000), histogram.max), (1000, 1000));
    }
}
