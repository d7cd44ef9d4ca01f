//! Hit ratios of the store's eviction, beside plain sampled LRU (as Redis has it) and, with feature `peers`, moka and `quick_cache`.
//!
//! `cargo run --release -p lattice-bench --features peers --bin hit_ratio [-- KEYS LOOKUPS]`. Every cache counts entries, all of one
//! size; a miss inserts. The first quarter of a trace warms up and is not counted.
#![expect(clippy::print_stdout, reason = "a program that prints tables")]

use std::collections::HashMap;

use distributed_cache::store::Policy;
use distributed_cache::store::eviction::{Candidate, Eviction, Meta, SAMPLE, SAMPLE_MAX};
use distributed_cache::types::{Now, UnixMillis};
use lattice_bench::table::Table;
use lattice_bench::trace::{Load, Random, mix};

/// A cache that is asked for keys and takes up what it misses.
trait Cache {
    /// Whether the key is there; if not, it is afterwards.
    fn look_up(&mut self, key: u64) -> bool;
}

/// Entries by key, so placed that one can be drawn at random.
struct Entries<T> {
    places: HashMap<u64, usize>,
    entries: Vec<(u64, T)>,
}

impl<T> Default for Entries<T> {
    fn default() -> Self {
        Self { places: HashMap::new(), entries: Vec::new() }
    }
}

impl<T> Entries<T> {
    fn find(&mut self, key: u64) -> Option<&mut T> {
        let place = *self.places.get(&key)?;
        Some(&mut self.entries[place].1)
    }

    fn push(&mut self, key: u64, entry: T) {
        self.places.insert(key, self.entries.len());
        self.entries.push((key, entry));
    }

    fn remove(&mut self, place: usize) -> (u64, T) {
        let removed = self.entries.swap_remove(place);
        self.places.remove(&removed.0);
        if let Some(moved) = self.entries.get(place) {
            self.places.insert(moved.0, place);
        }
        removed
    }

    fn draw(&self, random: &mut Random) -> usize {
        usize::try_from(random.below(self.entries.len() as u64)).expect("below a length")
    }
}

/// The store's eviction, in as many shards as the store has, with the share of the capacity for each.
struct Lattice {
    shards: Vec<(Eviction, Entries<Meta>)>,
    capacity: usize,
    random: Random,
    lookups: u64,
}

impl Lattice {
    fn new(capacity: usize, policy: Policy) -> Self {
        let shards = (0..16).map(|seed| (Eviction::new(policy, seed), Entries::default()));
        Self { shards: shards.collect(), capacity: capacity / 16, random: Random(1), lookups: 0 }
    }
}

fn hash(key: u64) -> u64 {
    mix(key.wrapping_mul(0x9E37_79B9_7F4A_7C15))
}

fn high_half(hash: u64) -> u32 {
    u32::try_from(hash >> 32).expect("the upper half")
}

impl Cache for Lattice {
    fn look_up(&mut self, key: u64) -> bool {
        // A hundred thousand lookups a second.
        self.lookups += 1;
        let now = Now { unix: UnixMillis(0), monotonic_us: self.lookups * 10 };
        let shard = usize::try_from(hash(key) & 15).expect("four bits");
        let (eviction, entries) = &mut self.shards[shard];
        if let Some(meta) = entries.find(key) {
            *meta = eviction.on_use(*meta, now);
            return true;
        }
        if entries.entries.len() >= self.capacity {
            let (mut sample, mut places) = (Vec::new(), Vec::new());
            let chosen = loop {
                for _ in 0..SAMPLE {
                    let place = entries.draw(&mut self.random);
                    let (key, meta) = entries.entries[place];
                    let hash = high_half(hash(key));
                    sample.push(Candidate { hash, meta, bytes: 1, deadline: None });
                    places.push(place);
                }
                if let Some(chosen) = eviction.choose(&sample, sample.len() < SAMPLE_MAX, now) {
                    break places[chosen];
                }
            };
            let (key, meta) = entries.remove(chosen);
            eviction.on_evict(high_half(hash(key)), meta);
        }
        let meta = eviction.on_insert(high_half(hash(key)), entries.entries.len(), now);
        entries.push(key, meta);
        false
    }
}

/// The one of five entries that was not used for longest goes (Redis's default, without its pool of earlier samples).
struct SampledLru {
    entries: Entries<u64>,
    capacity: usize,
    random: Random,
    lookups: u64,
}

impl Cache for SampledLru {
    fn look_up(&mut self, key: u64) -> bool {
        self.lookups += 1;
        if let Some(used) = self.entries.find(key) {
            *used = self.lookups;
            return true;
        }
        if self.entries.entries.len() >= self.capacity {
            let places: Vec<usize> = (0..5).map(|_| self.entries.draw(&mut self.random)).collect();
            let oldest = places.into_iter().min_by_key(|place| self.entries.entries[*place].1);
            self.entries.remove(oldest.expect("five of them"));
        }
        self.entries.push(key, self.lookups);
        false
    }
}

#[cfg(feature = "peers")]
mod peers {
    use super::Cache;

    impl Cache for moka::sync::Cache<u64, ()> {
        fn look_up(&mut self, key: u64) -> bool {
            let hit = self.get(&key).is_some();
            if !hit {
                self.insert(key, ());
            }
            hit
        }
    }

    impl Cache for quick_cache::sync::Cache<u64, ()> {
        fn look_up(&mut self, key: u64) -> bool {
            let hit = self.get(&key).is_some();
            if !hit {
                self.insert(key, ());
            }
            hit
        }
    }
}

fn caches(capacity: usize) -> Vec<(&'static str, Box<dyn Cache>)> {
    let sampled =
        SampledLru { entries: Entries::default(), capacity, random: Random(2), lookups: 0 };
    let ours: [(&'static str, Box<dyn Cache>); 3] = [
        ("lattice lru", Box::new(Lattice::new(capacity, Policy::AllKeysLru))),
        ("lattice lfu", Box::new(Lattice::new(capacity, Policy::AllKeysLfu))),
        ("sampled LRU", Box::new(sampled)),
    ];
    ours.into_iter().chain(others(capacity)).collect()
}

#[cfg(feature = "peers")]
fn others(capacity: usize) -> Vec<(&'static str, Box<dyn Cache>)> {
    vec![
        ("moka", Box::new(moka::sync::Cache::<u64, ()>::new(capacity as u64))),
        ("quick_cache", Box::new(quick_cache::sync::Cache::<u64, ()>::new(capacity))),
    ]
}

#[cfg(not(feature = "peers"))]
fn others(_capacity: usize) -> Vec<(&'static str, Box<dyn Cache>)> {
    Vec::new()
}

fn percent(part: u64, whole: u64) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "a ratio to show")]
    let ratio = part as f64 / whole as f64;
    100.0 * ratio
}

fn main() {
    let mut arguments = std::env::args().skip(1);
    let mut number =
        |default: u32| arguments.next().map_or(default, |text| text.parse().expect("a number"));
    let (keys, lookups) = (number(500_000), number(5_000_000));
    let lookups = usize::try_from(lookups).expect("32 bits fit");
    println!("Hit ratio in %, {keys} keys, {lookups} lookups, size in entries.\n");
    let names: Vec<&str> = caches(1_600).iter().map(|(name, _)| *name).collect();
    let mut table = Table::new(&[&["load", "size"], &names[..]].concat());
    let mut sums = vec![0.0; names.len()];
    let mut rows = 0.0;
    let loads = [
        Load::Zipf(0.7),
        Load::Zipf(0.9),
        Load::Zipf(1.1),
        Load::ZipfWithScans,
        Load::Loop,
        Load::Shifting,
        Load::Newest,
        Load::Mixed,
    ];
    for load in loads {
        let trace = load.trace(keys, lookups, 1);
        for share in [100, 20, 5, 2] {
            let size = usize::try_from(keys / share).expect("32 bits fit");
            let mut row = vec![load.name(), size.to_string()];
            for (column, (_, mut cache)) in caches(size).into_iter().enumerate() {
                let warm = lookups / 4;
                for key in &trace[..warm] {
                    cache.look_up(*key);
                }
                let hits = trace[warm..].iter().filter(|key| cache.look_up(**key)).count();
                let ratio = percent(hits as u64, (lookups - warm) as u64);
                sums[column] += ratio;
                row.push(format!("{ratio:.1}"));
            }
            rows += 1.0;
            table.row(row);
        }
    }
    let means = sums.iter().map(|sum| format!("{:.2}", sum / rows));
    table.row(["mean".to_owned(), String::new()].into_iter().chain(means).collect());
    println!("{}", table.render());
}
