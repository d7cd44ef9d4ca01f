//! The store against a naive model: the same random steps on both, under a virtual clock, with every invariant checked.
//!
//! Two models run along. One is a map that does what each step says. The other knows only the changes that the store leaves
//! behind: which keys there are must follow from them alone, each change must be possible where it comes, and versions ascend.

use std::collections::{BTreeMap, BTreeSet};

use super::statistics::next_random;
use super::*;
use crate::types::DATABASES;
use crate::value::list::End;
use crate::value::{Hash, List, Text, View};

#[derive(Clone, PartialEq)]
enum Content {
    Text(Vec<u8>),
    List(Vec<Vec<u8>>),
    Hash(BTreeMap<Vec<u8>, (Vec<u8>, Option<u64>)>),
}

/// Short, as values may be large.
impl std::fmt::Debug for Content {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Text(bytes) => write!(f, "text of {} bytes", bytes.len()),
            Self::List(elements) => write!(f, "list of {}", elements.len()),
            Self::Hash(fields) => {
                let fields = fields.iter().map(|(field, (value, deadline))| {
                    (String::from_utf8_lossy(field), value.len(), deadline)
                });
                f.debug_list().entries(fields).finish()
            }
        }
    }
}

type Name = (u8, Vec<u8>);

fn shown(name: &Name) -> String {
    let (tail, length) = (name.1.len().saturating_sub(12), name.1.len());
    format!("{}/{} ({length})", name.0, String::from_utf8_lossy(&name.1[tail..]))
}

struct World {
    store: Store,
    now: Now,
    random: u64,
    /// What the steps say.
    entries: BTreeMap<Name, (Content, Option<u64>)>,
    /// What the changes say: keys that there are.
    mirror: BTreeSet<Name>,
    versions: [Version; SHARDS as usize],
    keys: Vec<Vec<u8>>,
    databases: u64,
    steps: u64,
    evicted: usize,
}

fn ms(now: Now, ms: u64) -> Now {
    Now { unix: UnixMillis(now.unix.0 + ms), monotonic_us: now.monotonic_us + ms * 1000 }
}

impl World {
    fn new(seed: u64, keys: u64, databases: u64, options: StoreOptions) -> Self {
        let store = Store::new(&options);
        store.observe(true);
        let mut random = seed;
        let keys = (0..keys).map(|number| match next_random(&mut random) % 40 {
            0 => vec![b'L'; 200 + usize::try_from(number % 2000).unwrap()],
            1 => [vec![b'L'; 5000], number.to_string().into_bytes()].concat(),
            2..10 => format!("{{tag}}{number}").into_bytes(),
            _ => format!("key:{number}").into_bytes(),
        });
        let keys: BTreeSet<_> = keys.collect();
        Self {
            store,
            now: Now { unix: UnixMillis(1_700_000_000_000 * (seed % 2)), monotonic_us: 0 },
            keys: keys.into_iter().collect(),
            random,
            entries: BTreeMap::new(),
            mirror: BTreeSet::new(),
            versions: [Version(0); SHARDS as usize],
            databases,
            steps: 0,
            evicted: 0,
        }
    }

    fn below(&mut self, bound: u64) -> u64 {
        (next_random(&mut self.random) >> 16) % bound
    }

    fn name(&mut self) -> Name {
        let at = self.below(self.keys.len() as u64);
        let database = u8::try_from(self.below(self.databases)).unwrap();
        (database, self.keys[usize::try_from(at).unwrap()].clone())
    }

    fn bytes(&mut self) -> Vec<u8> {
        let length = match self.below(40) {
            0 => 20_000,
            1 => 4_096,
            2..6 => 600,
            _ => 70,
        };
        let fill = u8::try_from(self.below(256)).unwrap();
        vec![fill; usize::try_from(self.below(length)).unwrap()]
    }

    fn away(&mut self) -> u64 {
        let magnitude = self.below(44);
        1 + self.below(1 << magnitude)
    }

    /// What the model holds at a name now.
    fn expected(&mut self, name: &Name) -> Option<(Content, Option<u64>)> {
        let now = self.now.unix.0;
        let (content, deadline) = self.entries.get_mut(name)?;
        let mut gone = deadline.is_some_and(|deadline| deadline <= now);
        if let Content::Hash(fields) = content {
            fields.retain(|_, (_, deadline)| deadline.is_none_or(|deadline| deadline > now));
            gone |= fields.is_empty();
        }
        if gone {
            self.entries.remove(name);
        }
        self.entries.get(name).cloned()
    }

    /// One locked command: `run` on the store, and then what its changes say.
    fn with<R>(&mut self, run: impl FnOnce(&Store, &mut Keyspace<'_>) -> R) -> R {
        let (result, changes) = {
            let mut keys = self.store.lock(ShardSet::ALL, self.now);
            let result = run(&self.store, &mut keys);
            (result, keys.take_changes())
        };
        for change in changes {
            self.note(&change);
        }
        result
    }

    fn note(&mut self, change: &Change) {
        let name = (change.database.0, change.key.to_vec());
        let shard = shard_of(change.slot);
        match change.cause {
            Cause::Flushed => self.mirror.retain(|it| it.0 != name.0),
            Cause::Swapped => return,
            _ => {
                assert!(change.version > self.versions[shard], "versions ascend");
                self.versions[shard] = change.version;
                assert_eq!(Slot::of(&change.key), change.slot);
            }
        }
        let dead = |entries: &BTreeMap<Name, (Content, Option<u64>)>, now: u64| {
            entries.get(&name).is_none_or(|(content, deadline)| match content {
                Content::Hash(fields) => {
                    let live = |deadline: &Option<u64>| deadline.is_none_or(|at| at > now);
                    !live(deadline) || !fields.values().any(|(_, deadline)| live(deadline))
                }
                Content::Text(_) | Content::List(_) => deadline.is_some_and(|at| at <= now),
            })
        };
        match change.cause {
            Cause::Created => assert!(self.mirror.insert(name), "created what was there"),
            Cause::Written | Cause::PartsExpired => {
                assert!(self.mirror.contains(&name), "wrote what was not there");
            }
            Cause::Deleted => assert!(self.mirror.remove(&name), "deleted what was not there"),
            Cause::Expired | Cause::LastPartExpired => {
                assert!(dead(&self.entries, self.now.unix.0), "{} expired too early", shown(&name));
                assert!(self.mirror.remove(&name), "expired what was not there");
            }
            Cause::Evicted => {
                assert!(self.mirror.remove(&name), "evicted what was not there");
                self.entries.remove(&name);
                self.evicted += 1;
            }
            Cause::Flushed | Cause::Swapped => {}
        }
    }

    fn compare(&mut self, name: &Name) {
        let expected = self.expected(name);
        let found = self.with(|store, keys| {
            let key = store.key(Database(name.0), &name.1);
            let content = keys.get(&key).map(content_of);
            let deadline = keys.deadline(&key);
            assert_eq!(content.is_some(), deadline.is_some());
            assert_eq!(content.is_some(), keys.memory_of(&key).is_some());
            content.zip(deadline)
        });
        let found = found.map(|(content, deadline)| (content, deadline.map(|at| at.0)));
        assert_eq!(found, expected, "{} at step {}", shown(name), self.steps);
    }

    fn lifetime(&mut self) -> (Lifetime, u64) {
        let at = self.now.unix.0 + self.away();
        match self.below(6) {
            0 | 1 => (Lifetime::Until(UnixMillis(at)), at),
            2 => (Lifetime::Keep, 0),
            3 if self.below(8) == 0 => (Lifetime::Until(self.now.unix), 0),
            _ => (Lifetime::Forever, 0),
        }
    }

    fn write(&mut self, name: &Name, content: Content) {
        let (lifetime, at) = self.lifetime();
        let old = self.expected(name);
        let direct = self.below(2) == 0;
        self.with(|store, keys| {
            let key = store.key(Database(name.0), &name.1);
            match &content {
                Content::Text(bytes) if direct => keys.set(&key, bytes, lifetime),
                _ => keys.put(&key, value_of(&content), lifetime),
            }
        });
        let deadline = match lifetime {
            Lifetime::Forever => None,
            Lifetime::Until(_) => Some(at),
            Lifetime::Keep => old.and_then(|(_, deadline)| deadline),
        };
        if deadline == Some(0) {
            self.entries.remove(name);
        } else {
            self.entries.insert(name.clone(), (content, deadline));
        }
    }

    fn append(&mut self, name: &Name) {
        let more = self.bytes();
        let missing = if self.below(4) == 0 { Missing::Skip } else { Missing::Create };
        let old = self.expected(name);
        let result = self.with(|store, keys| {
            let key = store.key(Database(name.0), &name.1);
            keys.edit(&key, missing, |text: &mut Text| {
                text.bytes_mut().extend_from_slice(&more);
                text.bytes().len()
            })
        });
        match old {
            None if missing == Missing::Skip => assert_eq!(result, Ok(None)),
            None => {
                assert_eq!(result, Ok(Some(more.len())));
                self.entries.insert(name.clone(), (Content::Text(more), None));
            }
            // Evicted meanwhile: the store wrote it anew, with the same value.
            Some((Content::Text(bytes), deadline)) => {
                let bytes = [bytes, more].concat();
                assert_eq!(result, Ok(Some(bytes.len())));
                self.entries.insert(name.clone(), (Content::Text(bytes), deadline));
            }
            Some(_) => assert_eq!(result, Err(WrongType)),
        }
    }

    fn push_and_pop(&mut self, name: &Name) {
        let element = self.bytes();
        let (push, pops) = (self.below(3) > 0, self.below(6));
        let old = self.expected(name);
        let result = self.with(|store, keys| {
            let key = store.key(Database(name.0), &name.1);
            keys.edit(&key, Missing::Create, |list: &mut List| {
                if push {
                    list.push(End::Back, &element);
                }
                for _ in 1..pops {
                    list.pop(End::Front, |_| ());
                }
            })
        });
        let (mut elements, deadline) = match old {
            None => (Vec::new(), None),
            Some((Content::List(elements), deadline)) => (elements, deadline),
            Some(_) => return assert_eq!(result, Err(WrongType)),
        };
        assert_eq!(result, Ok(Some(())));
        elements.extend(push.then_some(element));
        elements.drain(..usize::try_from(pops.saturating_sub(1)).unwrap().min(elements.len()));
        if elements.is_empty() {
            self.entries.remove(name);
        } else {
            self.entries.insert(name.clone(), (Content::List(elements), deadline));
        }
    }

    fn edit_hash(&mut self, name: &Name) {
        let field = self.below(300).to_string().into_bytes();
        let value = self.bytes();
        let at = self.now.unix.0 + self.away();
        let (remove, life) = match self.below(5) {
            0 => (true, Lifetime::Keep),
            1 | 2 => (false, Lifetime::Until(UnixMillis(at))),
            _ => (false, Lifetime::Forever),
        };
        let old = self.expected(name);
        let result = self.with(|store, keys| {
            let key = store.key(Database(name.0), &name.1);
            keys.edit(&key, Missing::Create, |hash: &mut Hash| {
                if remove { hash.remove(&field) } else { hash.set(&field, &value, life) }
            })
        });
        let (mut fields, deadline) = match old {
            None => (BTreeMap::new(), None),
            Some((Content::Hash(fields), deadline)) => (fields, deadline),
            Some(_) => return assert_eq!(result, Err(WrongType)),
        };
        assert!(result.is_ok());
        if remove {
            fields.remove(&field);
        } else {
            fields.insert(field, (value, (life != Lifetime::Forever).then_some(at)));
        }
        if fields.is_empty() {
            self.entries.remove(name);
        } else {
            self.entries.insert(name.clone(), (Content::Hash(fields), deadline));
        }
    }

    fn set_deadline(&mut self, name: &Name) {
        let at = self.now.unix.0 + self.away();
        let deadline = match self.below(8) {
            0 => Some(self.now.unix.0),
            1 | 2 => None,
            _ => Some(at),
        };
        let there = self.expected(name).is_some();
        let found = self.with(|store, keys| {
            let key = store.key(Database(name.0), &name.1);
            keys.set_deadline(&key, deadline.map(UnixMillis))
        });
        assert_eq!(found, there);
        if deadline == Some(self.now.unix.0) {
            self.entries.remove(name);
        } else if let Some((_, old)) = self.entries.get_mut(name) {
            *old = deadline;
        }
    }

    fn take(&mut self, name: &Name) {
        let expected = self.expected(name);
        let remove = self.below(2) == 0;
        self.with(|store, keys| {
            let key = store.key(Database(name.0), &name.1);
            if remove {
                assert_eq!(keys.remove(&key), expected.is_some());
            } else {
                let taken = keys.take(&key);
                let taken = taken.map(|(value, at)| (content_of(value.view()), at.map(|at| at.0)));
                assert_eq!(taken, expected);
            }
        });
        self.entries.remove(name);
    }

    /// Time passes, and the wheels turn until nothing is due.
    fn pass(&mut self) {
        let away = self.away();
        self.now = ms(self.now, away);
        if self.below(4) == 0 {
            return;
        }
        for shard in 0..SHARDS {
            while self.with(|_, keys| keys.advance(shard, 7)) {}
        }
        let late = self.now.unix.0.saturating_sub(expiry::TICK_MS);
        for (name, (content, deadline)) in &self.entries {
            let parts_live = match content {
                Content::Hash(fields) => {
                    fields.values().any(|(_, deadline)| deadline.is_none_or(|at| at > late))
                }
                Content::Text(_) | Content::List(_) => true,
            };
            if deadline.is_some_and(|at| at <= late) || !parts_live {
                assert!(!self.mirror.contains(name), "{} was kept past its deadline", shown(name));
            }
        }
    }

    fn whole(&mut self) {
        let mut scanned = BTreeSet::new();
        let mut lens = 0;
        for database in 0..DATABASES {
            let names = self.with(|_, keys| {
                let mut names = Vec::new();
                let mut cursor = Cursor(0);
                loop {
                    cursor = keys.scan(Database(database), cursor, 3, |key, _| {
                        names.push((database, key.to_vec()));
                    });
                    if cursor == Cursor(0) {
                        return names;
                    }
                }
            });
            lens += self.with(|_, keys| keys.len(Database(database)));
            let count = names.len();
            scanned.extend(names);
            let mine = scanned.iter().filter(|name| name.0 == database).count();
            assert_eq!(mine, count, "a quiet scan visits each key once");
        }
        let names: Vec<_> = self.entries.keys().cloned().collect();
        let live = names.into_iter().filter(|name| self.expected(name).is_some());
        let live: BTreeSet<_> = live.collect();
        let differing: Vec<_> = scanned.symmetric_difference(&live).map(shown).collect();
        assert!(differing.is_empty(), "{differing:?} at step {}", self.steps);
        assert_eq!(lens, self.mirror.len(), "keys that there are follow from the changes");
        self.with(|_, keys| keys.check());
    }

    fn step(&mut self) {
        self.steps += 1;
        let name = self.name();
        match self.below(100) {
            0..25 => {
                let bytes = self.bytes();
                self.write(&name, Content::Text(bytes));
            }
            25..28 => {
                let elements = (0..=self.below(40)).map(|_| self.bytes()).collect();
                self.write(&name, Content::List(elements));
            }
            28..38 => self.append(&name),
            38..48 => self.push_and_pop(&name),
            48..60 => self.edit_hash(&name),
            60..72 => self.set_deadline(&name),
            72..82 => self.take(&name),
            82..84 => self.pass(),
            84 => {
                let draw = self.below(u64::MAX);
                let drawn = self.with(|_, keys| keys.random_key(Database(name.0), draw));
                if let Some(key) = drawn {
                    assert!(self.expected(&(name.0, key)).is_some());
                }
            }
            85 if self.below(20) == 0 => {
                let all = self.below(2) == 0;
                let database = (!all).then_some(Database(name.0));
                self.with(|_, keys| keys.flush(database));
                self.entries.retain(|it, _| !all && it.0 != name.0);
            }
            85 if self.databases > 1 => {
                let other = self.name().0;
                self.with(|_, keys| keys.swap(Database(name.0), Database(other)));
                let swap = |database: u8| match database {
                    it if it == name.0 => other,
                    it if it == other => name.0,
                    it => it,
                };
                let entries = std::mem::take(&mut self.entries);
                let mirror = std::mem::take(&mut self.mirror);
                self.entries =
                    entries.into_iter().map(|(it, entry)| ((swap(it.0), it.1), entry)).collect();
                self.mirror = mirror.into_iter().map(|it| (swap(it.0), it.1)).collect();
            }
            _ => self.compare(&name),
        }
        self.compare(&name);
        if self.steps.is_multiple_of(500) {
            self.whole();
        }
    }
}

fn content_of(view: View<'_>) -> Content {
    match view {
        View::String(bytes) => Content::Text(bytes.to_vec()),
        View::List(view) => Content::List(view.iter().map(|it| it.to_vec()).collect()),
        View::Hash(view) => {
            let fields = view.iter().map(|field| {
                let deadline = field.deadline.map(|at| at.0);
                (field.field.to_vec(), (field.value.to_vec(), deadline))
            });
            Content::Hash(fields.collect())
        }
        View::Set(_) | View::SortedSet(_) => unreachable!("the model makes none"),
    }
}

fn value_of(content: &Content) -> crate::value::Value {
    use crate::value::Stored as _;
    match content {
        Content::Text(bytes) => Text::from(bytes.clone()).into_value(),
        Content::List(elements) => {
            let mut list = List::default();
            elements.iter().for_each(|element| list.push(End::Back, element));
            list.into_value()
        }
        Content::Hash(_) => unreachable!("hashes are made by edits"),
    }
}

#[test]
fn the_store_does_what_a_map_does() {
    for (seed, keys, databases, versions) in
        [(1, 40, 2, false), (2, 400, 3, true), (3, 3_000, 1, false), (4, 1_000, 16, true)]
    {
        let mut world =
            World::new(seed, keys, databases, StoreOptions { versions, ..<_>::default() });
        for _ in 0..12_000 {
            world.step();
        }
        world.whole();
    }
}

#[test]
fn what_gives_way_is_told_and_everything_else_stays() {
    let policies = [
        Policy::AllKeysLru,
        Policy::AllKeysLfu,
        Policy::AllKeysRandom,
        Policy::VolatileLru,
        Policy::VolatileTtl,
        Policy::VolatileRandom,
    ];
    for (seed, policy) in (10..).zip(policies) {
        let limit = 1 << 20;
        let options = StoreOptions { limit, policy, ..StoreOptions::default() };
        let mut world = World::new(seed, 4_000, 2, options);
        for round in 0..6_000 {
            world.step();
            // As the engine does before a command that needs memory.
            let mut barren = ShardSet::NONE;
            while world.store.excess(0) > 0 {
                let Some(shard) = world.store.fattest(barren) else { break };
                if world.with(|_, keys| keys.evict(shard, 1 << 30)) == 0 {
                    barren.merge(ShardSet::one(shard));
                }
                if barren == ShardSet::ALL {
                    break;
                }
            }
            let is_volatile = matches!(
                policy,
                Policy::VolatileLru | Policy::VolatileTtl | Policy::VolatileRandom
            );
            if round % 100 == 0 && !is_volatile {
                let used = world.store.memory().used;
                assert!(used <= limit, "{used} of {limit} at step {round} by {policy:?}");
            }
        }
        world.whole();
        assert!(world.evicted > 100, "{} keys gave way by {policy:?}", world.evicted);
    }
}

#[test]
fn a_scan_visits_what_is_there_throughout_exactly_once_however_the_tables_grow_and_shrink() {
    for (seed, tagged) in [(1, false), (2, true)] {
        let store = Store::new(&StoreOptions::default());
        let now = Now { unix: UnixMillis(1_000_000), monotonic_us: 0 };
        let mut keys = store.lock(ShardSet::ALL, now);
        let mut random = seed;
        let name = |number: u64, stays: bool| {
            let tag = if tagged { "{t}" } else { "" };
            format!("{tag}{}{number}", if stays { "stays:" } else { "moves:" }).into_bytes()
        };
        for number in 0..2_000 {
            keys.set(&store.key(Database(0), &name(number, true)), b"v", Lifetime::Forever);
        }
        let mut seen = BTreeMap::new();
        let (mut cursor, mut moving) = (Cursor(0), 0u64..0);
        let mut rounds = 0;
        loop {
            cursor = keys.scan(Database(0), cursor, 10, |key, _| {
                *seen.entry(key.to_vec()).or_insert(0) += 1;
            });
            if cursor == Cursor(0) {
                break;
            }
            rounds += 1;
            // Grows to tens of thousands in the one slot, and shrinks again, while the scan is under way.
            for _ in 0..next_random(&mut random) % 1_200 {
                if rounds % 100 < 50 {
                    let key = name(moving.end, false);
                    keys.set(&store.key(Database(0), &key), b"v", Lifetime::Forever);
                    moving.end += 1;
                } else if let Some(number) = moving.next() {
                    keys.remove(&store.key(Database(0), &name(number, false)));
                }
            }
        }
        keys.check();
        for number in 0..2_000 {
            assert_eq!(seen.get(&name(number, true)), Some(&1), "key {number}");
        }
    }
}

#[test]
fn a_random_key_is_any_key_with_the_same_probability() {
    let store = Store::new(&StoreOptions::default());
    let mut keys = store.lock(ShardSet::ALL, Now::default());
    for number in 0..50 {
        let key = if number < 25 { format!("{{t}}{number}") } else { number.to_string() };
        keys.set(&store.key(Database(0), key.as_bytes()), b"v", Lifetime::Forever);
    }
    let mut drawn = BTreeMap::new();
    let mut random = 1;
    for _ in 0..50_000 {
        let key = keys.random_key(Database(0), next_random(&mut random)).unwrap();
        *drawn.entry(key).or_insert(0) += 1;
    }
    assert_eq!(drawn.len(), 50);
    assert!(drawn.values().all(|count| (850..1_150).contains(count)), "{drawn:?}");
}

#[test]
fn deadlines_set_anew_without_end_cost_no_memory_without_end() {
    let store = Store::new(&StoreOptions::default());
    let mut now = Now { unix: UnixMillis(1_700_000_000_000), monotonic_us: 0 };
    let key = store.key(Database(0), b"session");
    let shard = u16::try_from(shard_of(key.slot())).unwrap();
    let mut most = 0;
    for round in 0..300_000u64 {
        let mut keys = store.lock(ShardSet::ALL, now);
        keys.remove(&key);
        let away = 3_600_000 + round * 7919 % 1_000_000;
        keys.set(&key, b"v", Lifetime::Until(UnixMillis(now.unix.0 + away)));
        if round % 500 == 0 {
            now = ms(now, 5);
            drop(keys);
            let mut keys = store.lock(ShardSet::ALL, now);
            while keys.advance(shard, 100) {}
            most = most.max(store.memory().used);
        }
    }
    store.lock(ShardSet::ALL, now).check();
    assert!(most < 300_000, "{most} bytes for one key");
}

#[test]
fn a_database_that_is_flushed_gives_all_its_memory_back() {
    let store = Store::new(&StoreOptions::default());
    let mut keys = store.lock(ShardSet::ALL, Now::default());
    for number in 0..200_000u32 {
        let key = number.to_string();
        let database = Database(u8::try_from(number % 2).unwrap());
        keys.set(&store.key(database, key.as_bytes()), &[0; 100], Lifetime::Forever);
    }
    let both = store.memory().used;
    keys.flush(Some(Database(1)));
    keys.check();
    assert_eq!((keys.len(Database(0)), keys.len(Database(1))), (100_000, 0));
    for _ in 0..64 {
        (0..SHARDS).for_each(|shard| assert!(!keys.advance(shard, 1)));
    }
    keys.check();
    assert!(store.memory().used < both * 7 / 10);
    keys.flush(None);
    let left = store.memory().used;
    assert!(left < 4096, "{left} bytes are left: buffers that are used again");
}
