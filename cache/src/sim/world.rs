//! One run: the node, its clients, the clock, and the checks after every step.

mod step;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};

use lattice_sim::Violation;
use xxhash_rust::xxh3::Xxh3;

use super::PlantedBug;
use super::client::{Caching, PREFIX, SimClient};
use super::coverage::{Coverage, Sometimes};
use super::draw::{Draw, HASH_SEED};
use super::model::{Content, Entry, Model, Name, Touch, shard_of, show_name};
use super::operation::Operation;
use super::reply::{Answer, show_bytes};
use super::waits::{Settled, Waits};
use crate::engine::{Clock, Engine, EngineOptions};
use crate::session::Next;
use crate::store::{Policy, SHARDS, ShardSet, StoreOptions};
use crate::types::{Database, Now, UnixMillis};

/// A tick of the wheels, in milliseconds.
const TICK_MS: u64 = 8;

/// Databases that runs use.
pub(super) const DATABASES: u8 = 3;

/// By how much a limit may be passed, in bytes: what one command writes, and a block for each shard that needs one meanwhile.
const LIMIT_SLACK: u64 = 128 * 1024;

/// How many commands a story keeps.
const STORY: usize = 100_000;

const SUBSCRIBER: usize = 0;
const PROBE: usize = 1;
/// The first of the clients that act.
pub(super) const ACTORS: usize = 2;

#[derive(Debug)]
struct SimClock(Mutex<Now>);

impl Clock for SimClock {
    fn now(&self) -> Now {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wall_us(&self) -> u64 {
        self.now().unix.0.saturating_mul(1_000)
    }
}

pub(super) type Outcome<T = ()> = Result<T, Violation>;

/// What came back from a command, and what it set off.
#[derive(Debug)]
pub(super) struct Seen {
    pub(super) reply: Option<Answer>,
    pub(super) next: Next,
    /// Replies to clients that waited, in the order of the clients.
    arrived: Vec<(usize, Answer)>,
    /// Whether keys that the command names were evicted while it ran, so that the model cannot know when.
    pub(super) is_ambiguous: bool,
}

pub(super) struct World {
    pub(super) draw: Draw,
    clock: Arc<SimClock>,
    engine: Engine,
    pub(super) clients: Vec<SimClient>,
    pub(super) model: Model,
    pub(super) waits: Waits,
    pub(super) coverage: Arc<Coverage>,
    pub(super) is_limited: bool,
    policy: Policy,
    keeps_versions: bool,
    versions: [u64; SHARDS as usize],
    started_ms: u64,
    is_turning: bool,
    compactions: u64,
    commands: u64,
    hash: Xxh3,
    story: Vec<String>,
}

impl World {
    pub(super) fn new(seed: u64, bug: Option<PlantedBug>, coverage: Arc<Coverage>) -> Self {
        let mut draw = Draw::new(seed);
        let is_limited = draw.one_in(3);
        let policies = [
            Policy::NoEviction,
            Policy::AllKeysLru,
            Policy::AllKeysLfu,
            Policy::AllKeysRandom,
            Policy::VolatileLru,
            Policy::VolatileLfu,
            Policy::VolatileRandom,
            Policy::VolatileTtl,
        ];
        let store = StoreOptions {
            hash_seed: HASH_SEED,
            limit: if is_limited { (150 << 10) + draw.below(500 << 10) } else { 0 },
            policy: policies[draw.index(policies.len())],
            versions: draw.one_in(2),
        };
        let start = if draw.one_in(4) { 0 } else { 1_700_000_000_000 + draw.below(1 << 40) };
        let now = Now { unix: UnixMillis(start), monotonic_us: 1_000 };
        let clock = Arc::new(SimClock(Mutex::new(now)));
        let (policy, keeps_versions) = (store.policy, store.versions);
        let options = EngineOptions { store, cluster: false, seed };
        let engine = Engine::new(options, Arc::clone(&clock) as Arc<dyn Clock>);
        if let Some(bug) = bug {
            engine.store.plant(bug);
        }
        let clients = (0..ACTORS + 6).map(|_| SimClient::new(&engine)).collect();
        let mut model = Model::default();
        model.move_to(start);
        Self {
            draw,
            clock,
            engine,
            clients,
            model,
            waits: Waits::default(),
            coverage,
            is_limited,
            policy,
            keeps_versions,
            versions: [0; SHARDS as usize],
            started_ms: start,
            is_turning: false,
            compactions: 0,
            commands: 0,
            hash: Xxh3::new(),
            story: Vec::new(),
        }
    }

    pub(super) fn hash(&self) -> u128 {
        self.hash.digest128()
    }

    pub(super) fn commands(&self) -> u64 {
        self.commands
    }

    pub(super) fn elapsed_ms(&self) -> u64 {
        self.model.now - self.started_ms
    }

    pub(super) fn into_story(self) -> Vec<String> {
        self.story
    }

    pub(super) fn now_us(&self) -> u64 {
        self.clock.now().monotonic_us
    }

    pub(super) fn note(&self, event: Sometimes) {
        self.coverage.note(event);
    }

    fn tell(&mut self, line: String) {
        if self.story.len() < STORY {
            self.story.push(line);
        }
    }

    /// The run.
    pub(super) fn run(&mut self, steps: u64) -> Outcome {
        self.greet()?;
        for number in 0..steps {
            self.step()?;
            self.check()?;
            if number % 50 == 49 {
                self.compare()?;
            }
        }
        self.turn_to_the_end()?;
        self.compare()
    }

    fn greet(&mut self) -> Outcome {
        let words = |text: &str| -> Vec<Vec<u8>> {
            text.split(' ').map(|word| word.as_bytes().to_vec()).collect()
        };
        self.send(PROBE, &words("CONFIG SET notify-keyspace-events Exe"), None)?;
        self.send(SUBSCRIBER, &words("PSUBSCRIBE __keyevent@*__:*"), None)?;
        for client in ACTORS..self.clients.len() {
            self.introduce(client)?;
        }
        Ok(())
    }

    /// A client chooses what it is like.
    pub(super) fn introduce(&mut self, client: usize) -> Outcome {
        let words = |text: &str| -> Vec<Vec<u8>> {
            text.split(' ').map(|word| word.as_bytes().to_vec()).collect()
        };
        let caching = [
            Caching::Nothing,
            Caching::Nothing,
            Caching::All,
            Caching::NoLoop,
            Caching::OptIn,
            Caching::Broadcast,
        ][self.draw.index(6)];
        let is_resp3 = caching != Caching::Nothing || self.draw.one_in(2);
        if is_resp3 {
            self.send(client, &words("HELLO 3"), None)?;
            self.clients[client].is_resp3 = true;
        }
        let prefix = format!("CLIENT TRACKING on BCAST PREFIX {}", PREFIX.escape_ascii());
        let line = match caching {
            Caching::Nothing => None,
            Caching::All => Some("CLIENT TRACKING on"),
            Caching::NoLoop => Some("CLIENT TRACKING on NOLOOP"),
            Caching::OptIn => Some("CLIENT TRACKING on OPTIN"),
            Caching::Broadcast => Some(prefix.as_str()),
        };
        if let Some(line) = line {
            let seen = self.send(client, &words(line), None)?;
            if seen.reply != Some(Answer::ok()) {
                return Err(Violation::new("tracking begins", format!("{seen:?}")));
            }
        }
        self.clients[client].caching = caching;
        Ok(())
    }

    /// One command, as the connection would carry it out. `cached` is the key whose value the client keeps if it caches.
    pub(super) fn send(
        &mut self,
        client: usize,
        words: &[Vec<u8>],
        cached: Option<&[u8]>,
    ) -> Outcome<Seen> {
        let now = self.clock.now();
        let arguments: Vec<&[u8]> = words.iter().map(Vec::as_slice).collect();
        let mut out = Vec::new();
        let (next, _) =
            self.clients[client].session.execute(&self.engine, &arguments, now, &mut out);
        self.commands += 1;
        for word in &arguments {
            self.hash.update(&word.len().to_le_bytes());
            self.hash.update(word);
        }
        let (reply, rest) = self.read(client, &out, cached)?;
        let shown: Vec<String> = words.iter().take(12).map(|word| show_bytes(word)).collect();
        let answer = reply.as_ref().map_or("nothing".to_owned(), Answer::show);
        self.tell(format!("{client}: {} => {answer}", shown.join(" ")));
        let keys: BTreeSet<Vec<u8>> = words.iter().skip(1).cloned().collect();
        self.collect(client, reply, next, rest, &keys)
    }

    /// Has a client that waits look whether its wait is over.
    pub(super) fn look_again(&mut self, client: usize) -> Outcome<Seen> {
        let now = self.clock.now();
        let mut out = Vec::new();
        let (next, _) = self.clients[client].session.wait_is_over(&self.engine, now, &mut out);
        let (reply, rest) = self.read(client, &out, None)?;
        let answer = reply.as_ref().map_or("nothing".to_owned(), Answer::show);
        self.tell(format!("{client}: looks whether its wait is over => {answer}"));
        self.collect(client, reply, next, rest, &BTreeSet::new())
    }

    /// Reads what a client was sent: the first answer, and what came besides it.
    fn read(
        &mut self,
        client: usize,
        out: &[u8],
        cached: Option<&[u8]>,
    ) -> Outcome<(Option<Answer>, Vec<Answer>)> {
        self.hash.update(&client.to_le_bytes());
        self.hash.update(out);
        let answers = Answer::read_all(out).ok_or_else(|| {
            let detail = format!("client {client}: {}", out.escape_ascii());
            Violation::new("answers are whole", detail)
        })?;
        let (mut reply, mut rest) = (None, Vec::new());
        for answer in answers {
            match answer {
                Answer::Push(message) => {
                    let heard = self.clients[client].hear(&message);
                    match heard {
                        Some(true) => self.note(Sometimes::CacheFlushed),
                        Some(false) => self.note(Sometimes::Pushed),
                        None => {}
                    }
                }
                answer if client == SUBSCRIBER => rest.push(answer),
                answer if reply.is_none() => {
                    if let Some(key) = cached {
                        self.clients[client].cache.insert(key.to_vec(), answer.clone());
                    }
                    reply = Some(answer);
                }
                answer => rest.push(answer),
            }
        }
        Ok((reply, rest))
    }

    /// Everybody reads what they were sent; the model hears of what expired and was evicted.
    fn collect(
        &mut self,
        by: usize,
        reply: Option<Answer>,
        next: Next,
        rest: Vec<Answer>,
        named: &BTreeSet<Vec<u8>>,
    ) -> Outcome<Seen> {
        if by != SUBSCRIBER && !rest.is_empty() {
            let detail = format!("client {by} got {rest:?} besides {reply:?}");
            return Err(Violation::new("one answer for one command", detail));
        }
        let mut arrived = Vec::new();
        let mut events = if by == SUBSCRIBER { rest } else { Vec::new() };
        for client in 0..self.clients.len() {
            let mut out = Vec::new();
            self.clients[client].session.outbox().drain_into(&mut out);
            if out.is_empty() {
                continue;
            }
            let (first, rest) = self.read(client, &out, None)?;
            if client == SUBSCRIBER {
                events.extend(rest);
            } else {
                arrived.extend(first.into_iter().chain(rest).map(|answer| (client, answer)));
            }
        }
        let mut is_ambiguous = false;
        for event in events {
            is_ambiguous |= self.hear_event(&event, named)?;
        }
        Ok(Seen { reply, next, arrived, is_ambiguous })
    }

    /// A keyspace event. True if the model cannot know when in the command it happened.
    fn hear_event(&mut self, event: &Answer, named: &BTreeSet<Vec<u8>>) -> Outcome<bool> {
        let parts: Vec<&[u8]> = event.items().iter().filter_map(Answer::bytes).collect();
        let [b"pmessage", _, channel, key] = parts[..] else { return Ok(false) };
        let channel = String::from_utf8_lossy(channel).into_owned();
        let database = channel.strip_prefix("__keyevent@").and_then(|it| it.split_once("__:"));
        let Some((Ok(database), kind)) = database.map(|(it, kind)| (it.parse::<u8>(), kind)) else {
            return Err(Violation::new("events have their names", channel));
        };
        let name = (database, key.to_vec());
        self.tell(format!("   {kind} {}/{}", name.0, show_bytes(&name.1)));
        if kind == "expired" {
            if self.model.due.remove(&name).is_none() {
                let there = self.model.entries.get(&name).map(|entry| entry.deadline);
                let (name, now) = (show_name(&name), self.model.now);
                let detail = format!("{name} at {now}, its deadline {there:?}");
                return Err(Violation::new("only what is due expires, and once", detail));
            }
            let was_far = self.model.far.remove(&name);
            let by_whom = match self.is_turning {
                true if was_far => Sometimes::Cascaded,
                true => Sometimes::ExpiredByWheel,
                false => Sometimes::ExpiredByRead,
            };
            self.note(by_whom);
            return Ok(false);
        }
        self.note(Sometimes::Evicted);
        let entry = self.model.entries.remove(&name);
        self.see_touches(usize::MAX, &[Touch::Removed(name.clone())]);
        let is_named = named.contains(&name.1);
        // What the command did to the keys that it names, the model has not done yet.
        if entry.is_none() && !is_named {
            return Err(Violation::new("only what is there is evicted", show_name(&name)));
        }
        let is_volatile = entry.is_some_and(|entry| entry.deadline.is_some());
        let may_go = match self.policy {
            Policy::NoEviction => false,
            Policy::AllKeysLru | Policy::AllKeysLfu | Policy::AllKeysRandom => true,
            _ => is_volatile || is_named,
        };
        if !self.is_limited || !may_go {
            let detail = format!("{}, {:?}", show_name(&name), self.policy);
            return Err(Violation::new("eviction keeps to the policy", detail));
        }
        Ok(is_named)
    }

    /// What a command did is told to all that depend on it, and whoever waited must have been answered.
    pub(super) fn settle(&mut self, by: usize, seen: &mut Seen) -> Outcome {
        let Settled { served, touches, is_chained } = self.waits.settle(&mut self.model);
        if is_chained {
            self.note(Sometimes::Chained);
        }
        if !served.is_empty() {
            self.note(Sometimes::Served);
        }
        self.see_touches(by, &touches);
        self.see_answers(seen, served)?;
        self.see_versions(&touches)
    }

    /// Those who waited got what they are to get, and go on.
    pub(super) fn see_answers(
        &mut self,
        seen: &mut Seen,
        mut served: Vec<(usize, Answer)>,
    ) -> Outcome {
        served.sort_by_key(|(client, _)| *client);
        if seen.arrived != served {
            let detail = format!("expected {served:?}, and there came {:?}", seen.arrived);
            return Err(Violation::new("who waited longest is served, and once", detail));
        }
        for (client, _) in served {
            let seen = self.look_again(client)?;
            if seen.next != Next::Continue || seen.reply.is_some() {
                let detail = format!("client {client} was served and still waits: {seen:?}");
                return Err(Violation::new("who is served goes on", detail));
            }
        }
        seen.arrived.clear();
        Ok(())
    }

    pub(super) fn see_touches(&mut self, by: usize, touches: &[Touch]) {
        if touches.is_empty() {
            return;
        }
        let model = &self.model;
        for (number, client) in self.clients.iter_mut().enumerate() {
            for touch in touches {
                match touch {
                    Touch::Written(name) | Touch::Removed(name) => {
                        client.is_dirty |= client.watched.contains_key(name);
                        if number == by && client.caching == Caching::NoLoop {
                            client.cache.remove(&name.1);
                        }
                    }
                    Touch::Flushed(database) => {
                        let existed = |(name, it): (&Name, &bool)| name.0 == *database && *it;
                        client.is_dirty |= client.watched.iter().any(existed);
                    }
                    Touch::Swapped(database) => {
                        let changed = |(name, existed): (&Name, &bool)| {
                            name.0 == *database && (*existed || model.is_live(name))
                        };
                        client.is_dirty |= client.watched.iter().any(changed);
                        client.scan.as_mut().into_iter().for_each(super::scan::Scan::forgive);
                    }
                }
            }
            client.scan.as_mut().into_iter().for_each(|scan| scan.see(model));
        }
    }

    /// Every write has a version above all that its shard had before.
    fn see_versions(&mut self, touches: &[Touch]) -> Outcome {
        if !self.keeps_versions {
            return Ok(());
        }
        let mut newest = self.versions;
        for touch in touches {
            let Touch::Written(name) = touch else { continue };
            if !self.model.is_live(name) {
                continue;
            }
            let shard = shard_of(&name.1);
            let now = self.clock.now();
            let key = self.engine.store.key(Database(name.0), &name.1);
            let mut keys = self.engine.store.lock(ShardSet::one(shard), now);
            let version = keys.version(&key).map_or(0, |version| version.0);
            drop(keys);
            if version <= self.versions[usize::from(shard)] {
                let detail = format!(
                    "{} has {version:x}, the shard had {:x}",
                    show_name(name),
                    self.versions[usize::from(shard)]
                );
                return Err(Violation::new("versions ascend", detail));
            }
            let newest = &mut newest[usize::from(shard)];
            *newest = version.max(*newest);
        }
        self.versions = newest;
        Ok(())
    }

    /// Carries out an operation on node and model.
    pub(super) fn perform(&mut self, client: usize, operation: &Operation) -> Outcome<Answer> {
        self.perform_asked(client, operation, false)
    }

    /// As [`World::perform`]; `asked` if the client has asked to cache what it reads.
    pub(super) fn perform_asked(
        &mut self,
        client: usize,
        operation: &Operation,
        asked: bool,
    ) -> Outcome<Answer> {
        let cached = match operation {
            Operation::Get(key) if self.clients[client].caches(key, asked) => Some(&key[..]),
            _ => None,
        };
        let database = self.clients[client].database;
        let is_swap = matches!(operation, Operation::Swap(..));
        if is_swap {
            // What expires meanwhile does so under its new name.
            self.apply(database, operation, &Answer::ok(), false)?;
        }
        let mut seen = self.send(client, &operation.words(), cached)?;
        let Some(told) = seen.reply.clone() else {
            let detail = format!("{}: {seen:?}", operation.show());
            return Err(Violation::new("a command is answered", detail));
        };
        if self.is_refusal(&told) {
            self.note(Sometimes::Refused);
        } else if !(is_swap && told == Answer::ok()) {
            self.apply(database, operation, &told, seen.is_ambiguous)?;
        }
        if seen.is_ambiguous {
            self.resync(database, operation)?;
        }
        if let Operation::Del(keys) = operation {
            // Whoever is loading one of them may have read what is out of date now.
            for key in keys {
                self.waits.forget(&(database, key.clone()));
            }
        }
        self.settle(client, &mut seen)?;
        match operation {
            Operation::Flush | Operation::FlushAll => self.note(Sometimes::Flushed),
            Operation::Swap(..) => self.note(Sometimes::Swapped),
            _ => {}
        }
        Ok(told)
    }

    pub(super) fn is_refusal(&self, answer: &Answer) -> bool {
        let refused = |text: &str| text.starts_with("OOM") || text.starts_with("EXECABORT");
        self.is_limited && matches!(answer, Answer::Error(text) if refused(text))
    }

    /// Has the model do what the node has done, and compares the answers.
    pub(super) fn apply(
        &mut self,
        database: u8,
        operation: &Operation,
        told: &Answer,
        is_ambiguous: bool,
    ) -> Outcome {
        let expected = self.model.run(database, operation, told);
        let (expected, told) = if operation.is_unordered() {
            (expected.sorted(), told.clone().sorted())
        } else {
            (expected, told.clone())
        };
        if expected != told && !is_ambiguous {
            let detail = format!(
                "{} in database {database} at {}: expected {}, got {}",
                operation.show(),
                self.model.now,
                expected.show(),
                told.show()
            );
            return Err(Violation::new("answers are those of the model", detail));
        }
        Ok(())
    }

    /// Takes over what the node holds under the keys that an operation names.
    pub(super) fn resync(&mut self, database: u8, operation: &Operation) -> Outcome {
        for key in operation.keys() {
            let name = (database, key);
            let entry = self.probe(&name)?;
            match entry {
                Some(entry) => _ = self.model.entries.insert(name, entry),
                None => _ = self.model.entries.remove(&name),
            }
        }
        Ok(())
    }

    /// Asks the node for all about a key.
    fn probe(&mut self, name: &Name) -> Outcome<Option<Entry>> {
        let mut ask = |words: &[&[u8]]| {
            let words: Vec<Vec<u8>> = words.iter().map(|word| word.to_vec()).collect();
            let seen = self.send(PROBE, &words, None)?;
            Ok(seen.reply.unwrap_or(Answer::Null))
        };
        ask(&[b"SELECT", name.0.to_string().as_bytes()])?;
        let key = &name.1[..];
        let deadline = match ask(&[b"PEXPIRETIME", key])? {
            Answer::Integer(-2) => return Ok(None),
            Answer::Integer(at) => u64::try_from(at).ok(),
            _ => None,
        };
        let answer = match key[0] {
            b'l' => ask(&[b"LRANGE", key, b"0", b"-1"])?,
            b't' => ask(&[b"SMEMBERS", key])?,
            b'h' => ask(&[b"HGETALL", key])?,
            b'z' => ask(&[b"ZRANGE", key, b"0", b"-1", b"WITHSCORES"])?,
            _ => ask(&[b"GET", key])?,
        };
        let bytes = |answer: &Answer| answer.bytes().unwrap_or_default().to_vec();
        let items = answer.items();
        let pairs = items.chunks_exact(2).map(|pair| (bytes(&pair[0]), bytes(&pair[1])));
        let score = |text: Vec<u8>| {
            std::str::from_utf8(&text).ok().and_then(|text| text.parse().ok()).unwrap_or(i64::MIN)
        };
        let content = match key[0] {
            b'l' => Content::List(items.iter().map(bytes).collect()),
            b't' => Content::Set(items.iter().map(bytes).collect()),
            b'h' => Content::Hash(pairs.collect()),
            b'z' => Content::Sorted(pairs.map(|(member, text)| (member, score(text))).collect()),
            _ => Content::Text(bytes(&answer)),
        };
        Ok(Some(Entry { content, deadline }))
    }

    /// Time passes.
    pub(super) fn pass(&mut self, ms: u64) {
        {
            let mut now = self.clock.0.lock().unwrap_or_else(PoisonError::into_inner);
            now.unix.0 += ms;
            now.monotonic_us += ms * 1_000;
        }
        self.model.move_to(self.model.now + ms);
        self.hash.update(&ms.to_le_bytes());
        self.tell(format!("   {ms} ms pass: {}", self.model.now));
        for client in &mut self.clients {
            let (model, watched) = (&self.model, &client.watched);
            client.is_dirty |= watched.iter().any(|(name, was)| *was && !model.is_live(name));
            client.scan.as_mut().into_iter().for_each(|scan| scan.see(model));
        }
    }

    /// A shard's wheel turns, if only a bit. True if there is more to do.
    pub(super) fn turn(&mut self, shard: u16, budget: usize) -> Outcome<bool> {
        let more = self.engine.advance(shard, budget);
        self.is_turning = true;
        let seen = self.collect(SUBSCRIBER, None, Next::Continue, Vec::new(), &BTreeSet::new());
        self.is_turning = false;
        let compactions = self.engine.store.compactions();
        if compactions > self.compactions {
            self.note(Sometimes::Compacted);
            self.compactions = compactions;
        }
        let mut seen = seen?;
        self.see_answers(&mut seen, Vec::new())?;
        Ok(more)
    }

    /// All wheels turn until nothing is left to do: then nothing is left that was due a tick ago.
    pub(super) fn turn_to_the_end(&mut self) -> Outcome {
        for shard in 0..SHARDS {
            let mut turns = 0;
            while self.turn(shard, 64)? {
                turns += 1;
                if turns > 100_000 {
                    return Err(Violation::new("the wheels come to an end", format!("{shard}")));
                }
            }
        }
        let tick = self.model.now / TICK_MS;
        let late = self.model.due.iter().find(|(_, at)| at.div_ceil(TICK_MS) <= tick);
        match late {
            None => Ok(()),
            Some((name, deadline)) => {
                let (name, now) = (show_name(name), self.model.now);
                let detail = format!("{name} was due at {deadline}, it is {now}");
                Err(Violation::new("what is due is gone within a tick", detail))
            }
        }
    }

    /// What holds after every step.
    fn check(&mut self) -> Outcome {
        for database in 0..DATABASES {
            let counted = self.engine.store.sizes(Database(database));
            let expected = (self.model.len(database), self.model.volatile(database));
            if counted != expected {
                let detail = format!("database {database}: {counted:?}, and it is {expected:?}");
                return Err(Violation::new("keys and deadlines are counted", detail));
            }
        }
        let memory = self.engine.store.memory();
        let limit = self.engine.store.limit();
        if limit > 0 && memory.used > limit + LIMIT_SLACK {
            let detail = format!("{memory:?}, the limit is {limit}");
            return Err(Violation::new("memory stays near its limit", detail));
        }
        self.check_caches()
    }

    /// What clients cache is what the node holds, but for what has expired and nobody was told of yet.
    fn check_caches(&self) -> Outcome {
        for (number, client) in self.clients.iter().enumerate() {
            for (key, cached) in &client.cache {
                let name = (0, key.clone());
                let held = Answer::bulk_or_null(self.model.text(&name));
                if *cached != held && !self.model.due.contains_key(&name) {
                    let detail = format!(
                        "client {number} ({:?}) has {} for {}, the node has {}",
                        client.caching,
                        cached.show(),
                        show_bytes(key),
                        held.show()
                    );
                    return Err(Violation::new("a client's cache is not stale", detail));
                }
            }
        }
        Ok(())
    }

    /// Everything is compared, and the parts of the store among each other.
    fn compare(&mut self) -> Outcome {
        let entries: Vec<(Name, Entry)> =
            self.model.entries.iter().map(|(name, entry)| (name.clone(), entry.clone())).collect();
        let mut counts = BTreeMap::new();
        for (name, entry) in entries {
            let found = self.probe(&name)?;
            if found.as_ref() != Some(&entry) {
                let detail = format!("{}: {found:?}, and it is {entry:?}", show_name(&name));
                return Err(Violation::new("the node holds what the model holds", detail));
            }
            *counts.entry((name.0, crate::slot::Slot::of(&name.1).0)).or_insert(0u64) += 1;
        }
        if counts.values().any(|count| *count > 100) {
            self.note(Sometimes::TableGrown);
        }
        let now = self.clock.now();
        self.engine.store.lock(ShardSet::ALL, now).check();
        let drawn = self.engine.draw();
        self.hash.update(&drawn.to_le_bytes());
        Ok(())
    }

    /// The client is gone, and another one comes.
    pub(super) fn replace(&mut self, client: usize) -> Outcome {
        let mut old = std::mem::replace(&mut self.clients[client], SimClient::new(&self.engine));
        old.session.end(&self.engine);
        self.waits.waiters.retain(|waiter| waiter.client != client);
        self.tell(format!("{client}: leaves, and another one comes"));
        self.note(Sometimes::Left);
        self.introduce(client)
    }
}
