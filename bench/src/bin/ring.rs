//! Balance and movement of the ring and of the slot table, beside a hash modulo N and, with feature `peers`, other crates.
//!
//! `cargo run --release -p lattice-bench --features peers --bin ring [-- CLUSTERS KEYS]`. Each cluster has ten members of equal weight and
//! names of its own; where members own points on a circle, each has 256. Of the same keys it is asked who owns them, with ten
//! members, after an eleventh has joined, and after one of the ten has left.
#![expect(clippy::print_stdout, reason = "a program that prints tables")]

use std::collections::BTreeMap;
use std::hint::black_box;
use std::time::Instant;

use distributed_cache::ring::Ring;
use distributed_cache::ring::table::{Change, SlotTable};
use distributed_cache::slot::Slot;
use lattice_bench::table::Table;

/// Members of a cluster before it changes.
const MEMBERS: usize = 10;

/// Points of a member on the circle.
#[cfg(feature = "peers")]
const POINTS: usize = 256;

/// Something that says which member owns a key.
trait Placement {
    fn join(&mut self, name: &str);
    fn leave(&mut self, name: &str);
    fn owner(&self, key: &str) -> &str;
}

/// A hash, modulo the number of members.
#[derive(Default)]
struct Modulo(Vec<String>);

impl Placement for Modulo {
    fn join(&mut self, name: &str) {
        self.0.push(name.to_owned());
    }

    fn leave(&mut self, name: &str) {
        self.0.retain(|it| it != name);
    }

    fn owner(&self, key: &str) -> &str {
        let members = self.0.len() as u64;
        let place = Ring::<()>::place_of(key.as_bytes()) % members;
        &self.0[usize::try_from(place).expect("below a length")]
    }
}

impl Placement for Ring<String> {
    fn join(&mut self, name: &str) {
        self.add(name, name.to_owned()).expect("a new name");
    }

    fn leave(&mut self, name: &str) {
        self.remove(name).expect("it is there");
    }

    fn owner(&self, key: &str) -> &str {
        Self::owner(self, key.as_bytes()).expect("there are members")
    }
}

#[derive(Default)]
struct Slots(Option<SlotTable>);

impl Placement for Slots {
    fn join(&mut self, name: &str) {
        let change = Change::Add { name: name.to_owned(), weight: 1, zone: None };
        let table = match &self.0 {
            None => SlotTable::founding(name, 1, None, 1),
            Some(table) => table.apply(&change),
        };
        self.0 = Some(table.expect("a new name"));
    }

    fn leave(&mut self, name: &str) {
        let change = Change::Remove { name: name.to_owned() };
        self.0 = self.0.as_ref().map(|table| table.apply(&change).expect("it is there"));
    }

    fn owner(&self, key: &str) -> &str {
        self.0.as_ref().expect("there are members").primary(Slot::of(key.as_bytes()))
    }
}

#[cfg(feature = "peers")]
mod peers {
    use super::{POINTS, Placement};

    /// A point of a member, for crates that know members with one point only.
    #[derive(Clone, Debug, Hash, PartialEq, Eq)]
    pub(super) struct Point(String, usize);

    impl Placement for hashring::HashRing<Point> {
        fn join(&mut self, name: &str) {
            self.batch_add((0..POINTS).map(|number| Point(name.to_owned(), number)).collect());
        }

        fn leave(&mut self, name: &str) {
            for number in 0..POINTS {
                self.remove(&Point(name.to_owned(), number)).expect("it is there");
            }
        }

        fn owner(&self, key: &str) -> &str {
            &self.get(&key).expect("there are members").0
        }
    }

    #[derive(Clone, Debug)]
    pub(super) struct Named(String);

    impl conhash::Node for Named {
        fn name(&self) -> String {
            self.0.clone()
        }
    }

    impl Placement for conhash::ConsistentHash<Named> {
        fn join(&mut self, name: &str) {
            self.add(&Named(name.to_owned()), POINTS);
        }

        fn leave(&mut self, name: &str) {
            self.remove(&Named(name.to_owned()));
        }

        fn owner(&self, key: &str) -> &str {
            &self.get_str(key).expect("there are members").0
        }
    }

    impl Placement for consistent_hash_ring::Ring<String> {
        fn join(&mut self, name: &str) {
            self.insert(name.to_owned());
        }

        fn leave(&mut self, name: &str) {
            self.remove(name);
        }

        fn owner(&self, key: &str) -> &str {
            self.get(key)
        }
    }

    /// Jump hash knows numbers, not members: only the last can go, so it takes the place of one that leaves.
    pub(super) struct Jump(pub(super) jumphash::JumpHasher, pub(super) Vec<String>);

    impl Placement for Jump {
        fn join(&mut self, name: &str) {
            self.1.push(name.to_owned());
        }

        fn leave(&mut self, name: &str) {
            let place = self.1.iter().position(|it| it == name).expect("it is there");
            self.1.swap_remove(place);
        }

        fn owner(&self, key: &str) -> &str {
            let members = u32::try_from(self.1.len()).expect("few");
            let place = self.0.slot(&key, members);
            &self.1[usize::try_from(place).expect("below a length")]
        }
    }
}

type Make = fn() -> Box<dyn Placement>;

fn ours() -> Vec<(&'static str, Make)> {
    vec![
        ("hash modulo N", || Box::<Modulo>::default()),
        ("lattice ring", || Box::new(Ring::<String>::new())),
        ("lattice slot table", || Box::<Slots>::default()),
    ]
}

#[cfg(feature = "peers")]
fn others() -> Vec<(&'static str, Make)> {
    vec![
        ("hashring", || Box::new(hashring::HashRing::<peers::Point>::new())),
        ("conhash", || Box::new(conhash::ConsistentHash::<peers::Named>::new())),
        ("consistent_hash_ring", || {
            Box::new(consistent_hash_ring::RingBuilder::default().vnodes(POINTS).build())
        }),
        ("jumphash", || {
            Box::new(peers::Jump(jumphash::JumpHasher::new_with_keys(1, 2), Vec::new()))
        }),
    ]
}

#[cfg(not(feature = "peers"))]
fn others() -> Vec<(&'static str, Make)> {
    Vec::new()
}

/// What a change of the membership moved, as shares of the keys.
#[derive(Clone, Copy, Default)]
struct Moved {
    /// All that have another owner.
    all: f64,
    /// Those whose old and new owners were both there before and after.
    needlessly: f64,
}

fn moved(before: &[String], after: &[String], changed: &str) -> Moved {
    let pairs = before.iter().zip(after);
    let moved: Vec<_> = pairs.filter(|(before, after)| before != after).collect();
    let needlessly = moved.iter().filter(|(before, after)| *before != changed && *after != changed);
    Moved {
        all: share(moved.len(), before.len()),
        needlessly: share(needlessly.count(), before.len()),
    }
}

#[expect(clippy::cast_precision_loss, reason = "counts far below 2^53")]
fn share(part: usize, whole: usize) -> f64 {
    part as f64 / whole as f64
}

fn mean(values: impl ExactSizeIterator<Item = f64>) -> f64 {
    let count = values.len();
    values.sum::<f64>() / share(count, 1)
}

fn main() {
    let mut arguments = std::env::args().skip(1).map(|it| it.parse::<usize>().expect("a number"));
    let clusters = arguments.next().unwrap_or(40);
    let count = arguments.next().unwrap_or(400_000);
    let keys: Vec<String> = (0..count).map(|number| format!("key:{number}")).collect();
    let mut table = Table::new(&[
        "10 members",
        "peak/mean, median",
        "worst",
        "join moves × 11",
        "between old, %",
        "leave moves × 10",
        "between others, %",
        "ns a lookup",
    ]);
    for (name, make) in ours().into_iter().chain(others()) {
        let (mut peaks, mut joins, mut leaves, mut nanoseconds) = (vec![], vec![], vec![], vec![]);
        for cluster in 0..clusters {
            let member = |number: usize| format!("cluster{cluster}-node{number}");
            let mut placement = make();
            (0..MEMBERS).for_each(|number| placement.join(&member(number)));
            let owners = |placement: &dyn Placement| -> Vec<String> {
                keys.iter().map(|key| placement.owner(key).to_owned()).collect()
            };
            let before = owners(&*placement);
            let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
            before.iter().for_each(|owner| *counts.entry(owner).or_default() += 1);
            let peak = counts.values().max().copied().unwrap_or(0);
            peaks.push(share(peak * MEMBERS, count));
            let began = Instant::now();
            for key in &keys {
                black_box(placement.owner(black_box(key)));
            }
            nanoseconds.push(began.elapsed().as_secs_f64() * 1e9 / share(count, 1));
            let newcomer = member(MEMBERS);
            placement.join(&newcomer);
            joins.push(moved(&before, &owners(&*placement), &newcomer));
            let mut placement = make();
            (0..MEMBERS).for_each(|number| placement.join(&member(number)));
            let gone = member(3);
            placement.leave(&gone);
            leaves.push(moved(&before, &owners(&*placement), &gone));
        }
        peaks.sort_by(f64::total_cmp);
        nanoseconds.sort_by(f64::total_cmp);
        let middle = clusters / 2;
        let all = |moves: &[Moved]| mean(moves.iter().map(|it| it.all));
        let needlessly = |moves: &[Moved]| mean(moves.iter().map(|it| it.needlessly * 100.0));
        table.row(vec![
            name.to_owned(),
            format!("{:.3}", peaks[middle]),
            format!("{:.3}", peaks[clusters - 1]),
            format!("{:.2}", all(&joins) * share(MEMBERS + 1, 1)),
            format!("{:.2}", needlessly(&joins)),
            format!("{:.2}", all(&leaves) * share(MEMBERS, 1)),
            format!("{:.2}", needlessly(&leaves)),
            format!("{:.0}", nanoseconds[middle]),
        ]);
    }
    println!("{clusters} clusters, {count} keys\n");
    println!("{}", table.render());
}
