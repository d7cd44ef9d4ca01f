//! What `INFO` counts: per command, per connection, per byte.
//!
//! Each worker thread has a [`Tally`] that it alone writes: plain loads and stores of relaxed atomics on cache lines that nobody else
//! writes, so that counting costs a command a nanosecond or two. [`Totals`] adds the tallies up when somebody asks. A reset does not
//! touch them (it would race with their writers): it remembers what they held and subtracts that from then on.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use crate::command::{CommandId, TABLE};
use crate::types::Now;

/// How a command ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It did its work.
    Done,
    /// It began, and answered an error.
    Failed,
    /// It waited, for which it was counted as done, and then answered an error.
    FailedLate,
    /// It was refused before it began: not allowed, no memory, wrong number of arguments.
    Rejected,
}

/// What is counted besides commands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Counter {
    /// Connections taken.
    ConnectionsReceived,
    /// Connections refused at `maxclients`.
    ConnectionsRejected,
    /// Bytes read from clients.
    BytesIn,
    /// Bytes written to clients.
    BytesOut,
    /// Reads from sockets.
    Reads,
    /// Writes to sockets.
    Writes,
    /// Clients disconnected because their output limit was passed.
    OutputLimitDisconnections,
    /// Clients disconnected because their query buffer limit was passed.
    QueryLimitDisconnections,
    /// Errors answered, of whatever kind.
    Errors,
    /// Failed authentications, and refusals by access control.
    AccessDenied,
}

const COUNTERS: usize = Counter::AccessDenied as usize + 1;

/// Four buckets an octave, in microseconds, up to more than an hour.
const BUCKETS: usize = 128;

type Buckets = Box<[AtomicU64]>;

#[derive(Debug, Default)]
struct CommandTally {
    calls: AtomicU64,
    us: AtomicU64,
    rejected: AtomicU64,
    failed: AtomicU64,
    histogram: OnceLock<Buckets>,
}

/// One thread's counters: written by it alone, read by all.
#[derive(Debug)]
pub struct Tally {
    commands: Box<[CommandTally]>,
    counters: [AtomicU64; COUNTERS],
}

impl Default for Tally {
    fn default() -> Self {
        Self {
            commands: (0..TABLE.count()).map(|_| CommandTally::default()).collect(),
            counters: [const { AtomicU64::new(0) }; COUNTERS],
        }
    }
}

/// Adds without a locked instruction: the caller is the cell's only writer.
fn bump(cell: &AtomicU64, by: u64) {
    cell.store(cell.load(Ordering::Relaxed).wrapping_add(by), Ordering::Relaxed);
}

impl Tally {
    /// Counts a call that took `us` microseconds.
    pub fn count(&self, command: CommandId, us: u64, outcome: Outcome) {
        let tally = &self.commands[usize::from(command.0)];
        if outcome == Outcome::Rejected {
            bump(&tally.rejected, 1);
            return;
        }
        if outcome == Outcome::FailedLate {
            bump(&tally.failed, 1);
            return;
        }
        bump(&tally.calls, 1);
        bump(&tally.us, us);
        if outcome == Outcome::Failed {
            bump(&tally.failed, 1);
        }
        let histogram =
            tally.histogram.get_or_init(|| (0..BUCKETS).map(|_| AtomicU64::new(0)).collect());
        bump(&histogram[bucket_of(us)], 1);
    }

    /// Adds `by` to a counter.
    pub fn add(&self, counter: Counter, by: u64) {
        bump(&self.counters[counter as usize], by);
    }
}

/// The bucket of a duration: exact below 4 µs, then four to an octave.
fn bucket_of(us: u64) -> usize {
    if us < 4 {
        return usize::try_from(us).expect("below 4");
    }
    let octave = us.ilog2();
    let quarter = (us >> (octave - 2)) & 3;
    let bucket = (u64::from(octave) - 1) * 4 + quarter;
    usize::try_from(bucket).unwrap_or(BUCKETS).min(BUCKETS - 1)
}

/// The longest duration that falls into `bucket`, in microseconds.
fn bucket_limit(bucket: usize) -> u64 {
    if bucket < 4 {
        return bucket as u64;
    }
    let (octave, quarter) = (bucket / 4 + 1, bucket % 4);
    (((5 + quarter) as u64) << (octave - 2)) - 1
}

/// One command's counts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CommandCounts {
    /// Calls that began.
    pub calls: u64,
    /// What they took together, in microseconds.
    pub us: u64,
    /// Calls that were refused before they began.
    pub rejected: u64,
    /// Calls that answered an error.
    pub failed: u64,
    histogram: Vec<u64>,
}

impl CommandCounts {
    /// The duration that the share `percent` of the calls did not exceed, in microseconds.
    #[must_use]
    pub fn percentile(&self, percent: f64) -> u64 {
        let total: u64 = self.histogram.iter().sum();
        #[expect(clippy::cast_precision_loss, reason = "a count of calls needs no 53 bits to rank")]
        let rank = (total as f64 * percent / 100.0).ceil().max(1.0);
        let mut seen = 0u64;
        for (bucket, count) in self.histogram.iter().enumerate() {
            seen += count;
            #[expect(clippy::cast_precision_loss, reason = "as above")]
            if *count > 0 && seen as f64 >= rank {
                return bucket_limit(bucket);
            }
        }
        0
    }

    /// How many calls took at most 1, 2, 4, 8 … microseconds, where that differs from the entry before.
    #[must_use]
    pub fn cumulative(&self) -> Vec<(u64, u64)> {
        let mut rows = Vec::new();
        let (mut seen, mut bucket, mut shown) = (0u64, 0, 0);
        for octave in 0..40u32 {
            let limit = 1u64 << octave;
            // A bucket belongs to the first power of two that its durations do not pass; 2^n itself opens a bucket, so a
            // duration of exactly 2^n above 4 counts with the next.
            while bucket < self.histogram.len() && (bucket_limit(bucket) <= limit || octave == 39) {
                seen += self.histogram[bucket];
                bucket += 1;
            }
            if seen > shown {
                rows.push((limit, seen));
                shown = seen;
            }
        }
        rows
    }

    fn add(&mut self, tally: &CommandTally) {
        self.calls += tally.calls.load(Ordering::Relaxed);
        self.us += tally.us.load(Ordering::Relaxed);
        self.rejected += tally.rejected.load(Ordering::Relaxed);
        self.failed += tally.failed.load(Ordering::Relaxed);
        if let Some(histogram) = tally.histogram.get() {
            self.histogram.resize(BUCKETS, 0);
            for (sum, bucket) in self.histogram.iter_mut().zip(histogram) {
                *sum += bucket.load(Ordering::Relaxed);
            }
        }
    }

    fn subtract(&mut self, earlier: &Self) {
        self.calls -= earlier.calls.min(self.calls);
        self.us -= earlier.us.min(self.us);
        self.rejected -= earlier.rejected.min(self.rejected);
        self.failed -= earlier.failed.min(self.failed);
        for (sum, earlier) in self.histogram.iter_mut().zip(&earlier.histogram) {
            *sum -= (*earlier).min(*sum);
        }
    }
}

/// The counts of all threads, added up at one moment.
#[derive(Clone, Debug)]
pub struct Counts {
    commands: Vec<CommandCounts>,
    counters: [u64; COUNTERS],
}

impl Counts {
    fn zero() -> Self {
        Self { commands: vec![CommandCounts::default(); TABLE.count()], counters: [0; COUNTERS] }
    }

    /// One command's.
    #[must_use]
    pub fn command(&self, id: CommandId) -> &CommandCounts {
        &self.commands[usize::from(id.0)]
    }

    /// One counter's.
    #[must_use]
    pub fn counter(&self, counter: Counter) -> u64 {
        self.counters[counter as usize]
    }

    /// Commands that were carried out, all together.
    #[must_use]
    pub fn calls(&self) -> u64 {
        self.commands.iter().map(|command| command.calls).sum()
    }
}

/// How many kinds of error are told apart; a client that makes codes up gains nothing.
const ERROR_CODES_MAX: usize = 128;

/// How many samples a rate is the mean of.
const SAMPLES: usize = 16;
/// The least time between two samples, in microseconds.
const SAMPLE_US: u64 = 100_000;

#[derive(Debug, Default)]
struct Sampler {
    at_us: u64,
    last: [u64; 3],
    rates: [[u64; SAMPLES]; 3],
    next: usize,
}

/// What is going on at the moment, as means of the last samples.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rates {
    /// Commands a second.
    pub commands: u64,
    /// Bytes a second from clients.
    pub bytes_in: u64,
    /// Bytes a second to clients.
    pub bytes_out: u64,
}

/// What the operating system says of the process. Learned by the edge, once a second or so.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Process {
    /// Its number.
    pub id: u32,
    /// The path of its program.
    pub executable: String,
    /// The operating system, as `uname` tells it.
    pub system: String,
    /// Memory that it really occupies, in bytes.
    pub resident: u64,
    /// Memory that the machine has, in bytes.
    pub system_memory: u64,
    /// Processor time in user mode, in microseconds.
    pub user_us: u64,
    /// Processor time in the kernel, in microseconds.
    pub kernel_us: u64,
    /// Threads that serve clients.
    pub threads: usize,
}

#[derive(Debug, Default)]
struct Baseline {
    counts: Option<Counts>,
    errors: BTreeMap<Box<str>, u64>,
}

/// The counters of all threads.
#[derive(Debug, Default)]
pub struct Totals {
    tallies: Mutex<Vec<Arc<Tally>>>,
    baseline: Mutex<Baseline>,
    sampler: Mutex<Sampler>,
    process: Mutex<Process>,
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Totals {
    /// A tally for one more thread. What it counts stays when the thread has ended.
    pub fn tally(&self) -> Arc<Tally> {
        let tally = Arc::new(Tally::default());
        locked(&self.tallies).push(Arc::clone(&tally));
        tally
    }

    /// Bytes on the heap, but for the histograms, which come with the first call of a command.
    #[must_use]
    pub fn heap_bytes(&self) -> usize {
        let of_commands = TABLE.count() * size_of::<CommandTally>();
        locked(&self.tallies).len() * (size_of::<Tally>() + of_commands)
    }

    /// Counts an error by its code, the first word of the reply.
    pub fn note_error(&self, reply: &str) {
        let code = reply.split(' ').next().unwrap_or_default();
        let errors = &mut locked(&self.baseline).errors;
        if let Some(count) = errors.get_mut(code) {
            *count += 1;
        } else if errors.len() < ERROR_CODES_MAX && code.len() <= 32 {
            errors.insert(code.into(), 1);
        }
    }

    /// Errors by code.
    pub fn errors(&self) -> BTreeMap<Box<str>, u64> {
        locked(&self.baseline).errors.clone()
    }

    fn sum(&self) -> Counts {
        let mut sum = Counts::zero();
        for tally in locked(&self.tallies).iter() {
            for (sum, tally) in sum.commands.iter_mut().zip(&tally.commands) {
                sum.add(tally);
            }
            for (sum, counter) in sum.counters.iter_mut().zip(&tally.counters) {
                *sum += counter.load(Ordering::Relaxed);
            }
        }
        sum
    }

    /// Everything that was counted since the beginning or the last reset.
    pub fn counts(&self) -> Counts {
        let mut counts = self.sum();
        if let Some(earlier) = &locked(&self.baseline).counts {
            for (sum, earlier) in counts.commands.iter_mut().zip(&earlier.commands) {
                sum.subtract(earlier);
            }
            for (sum, earlier) in counts.counters.iter_mut().zip(&earlier.counters) {
                *sum -= (*earlier).min(*sum);
            }
        }
        counts
    }

    /// Counts from zero again (`CONFIG RESETSTAT`).
    pub fn reset(&self) {
        let counts = self.sum();
        *locked(&self.baseline) = Baseline { counts: Some(counts), errors: BTreeMap::new() };
    }

    /// Notes what the operating system says of the process.
    pub fn note_process(&self, learn: impl FnOnce(&mut Process)) {
        learn(&mut locked(&self.process));
    }

    /// What the operating system says of the process, as far as anybody has asked it.
    pub fn process(&self) -> Process {
        locked(&self.process).clone()
    }

    /// Takes a sample for [`Totals::rates`]: at most every tenth of a second, however often this is called.
    pub fn sample(&self, now: Now) {
        let mut sampler = locked(&self.sampler);
        let elapsed = now.monotonic_us.saturating_sub(sampler.at_us);
        if elapsed < SAMPLE_US {
            return;
        }
        let sum = self.sum();
        let values = [sum.calls(), sum.counter(Counter::BytesIn), sum.counter(Counter::BytesOut)];
        let next = sampler.next;
        for (kind, value) in values.into_iter().enumerate() {
            let grown = value.saturating_sub(sampler.last[kind]);
            sampler.rates[kind][next] = grown.saturating_mul(1_000_000) / elapsed;
        }
        sampler.last = values;
        sampler.at_us = now.monotonic_us;
        sampler.next = (next + 1) % SAMPLES;
    }

    /// What is going on at the moment.
    pub fn rates(&self) -> Rates {
        let sampler = locked(&self.sampler);
        let mean = |kind: usize| sampler.rates[kind].iter().sum::<u64>() / SAMPLES as u64;
        Rates { commands: mean(0), bytes_in: mean(1), bytes_out: mean(2) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_lies_within_its_bucket() {
        let mut last = 0;
        for us in (0..100_000).chain([1 << 30, (1 << 32) - 1]) {
            let bucket = bucket_of(us);
            assert!(bucket_limit(bucket) >= us, "{us}");
            assert!(bucket == 0 || bucket_limit(bucket - 1) < us, "{us}");
            assert!(bucket >= last || us < 100_000);
            last = bucket;
        }
        assert_eq!(bucket_of(u64::MAX), BUCKETS - 1);
    }

    #[test]
    fn all_threads_are_added_up_and_a_reset_begins_again() {
        let totals = Totals::default();
        let (one, two) = (totals.tally(), totals.tally());
        let id = CommandId(0);
        one.count(id, 5, Outcome::Done);
        two.count(id, 7, Outcome::Failed);
        two.count(id, 0, Outcome::Rejected);
        one.add(Counter::BytesIn, 30);
        let counts = totals.counts();
        let command = counts.command(id);
        assert_eq!((command.calls, command.us), (2, 12));
        assert_eq!((command.failed, command.rejected), (1, 1));
        assert_eq!(counts.counter(Counter::BytesIn), 30);
        totals.note_error("ERR no");
        totals.reset();
        assert_eq!(totals.counts().calls(), 0);
        assert!(totals.errors().is_empty());
        one.count(id, 3, Outcome::Done);
        assert_eq!(totals.counts().command(id).us, 3);
    }

    #[test]
    fn percentiles_and_cumulative_counts_come_from_the_same_calls() {
        let tally = Tally::default();
        for us in 1..=1000 {
            tally.count(CommandId(0), us, Outcome::Done);
        }
        let mut counts = CommandCounts::default();
        counts.add(&tally.commands[0]);
        let (median, last) = (counts.percentile(50.0), counts.percentile(99.9));
        assert!((500..=640).contains(&median), "{median}");
        assert!((999..=1279).contains(&last), "{last}");
        let rows = counts.cumulative();
        assert_eq!(rows.first(), Some(&(1, 1)));
        assert_eq!(rows.last(), Some(&(1024, 1000)));
        assert!(rows.windows(2).all(|pair| pair[0].1 < pair[1].1));
    }

    #[test]
    fn made_up_error_codes_do_not_fill_memory() {
        let totals = Totals::default();
        for number in 0..1000 {
            totals.note_error(&format!("CODE{number} words"));
        }
        totals.note_error("CODE1 again");
        let errors = totals.errors();
        assert_eq!(errors.len(), ERROR_CODES_MAX);
        assert_eq!(errors.get("CODE1"), Some(&2));
    }

    #[test]
    fn a_rate_is_the_mean_of_its_samples() {
        let totals = Totals::default();
        let tally = totals.tally();
        for tick in 1..=16u64 {
            for _ in 0..10 {
                tally.count(CommandId(0), 1, Outcome::Done);
            }
            totals.sample(Now { monotonic_us: tick * SAMPLE_US, ..Now::default() });
            totals.sample(Now { monotonic_us: tick * SAMPLE_US + 1, ..Now::default() });
        }
        assert_eq!(totals.rates().commands, 100);
    }
}
