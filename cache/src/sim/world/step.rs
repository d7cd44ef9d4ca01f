//! What happens in one step.

use std::collections::BTreeSet;

use lattice_sim::Violation;

use super::{ACTORS, DATABASES, Outcome, Sometimes, World};
use crate::session::Next;
use crate::sim::client::{Caching, PREFIX};
use crate::sim::model::{Content, Name, show_name};
use crate::sim::operation::{Life, Operation, When};
use crate::sim::reply::Answer;
use crate::sim::scan::{Scan, Scanned};
use crate::sim::waits::{Lease, Waiter, Wanted};
use crate::store::SHARDS;

fn bytes(text: impl ToString) -> Vec<u8> {
    text.to_string().into_bytes()
}

fn words(list: &[&[u8]]) -> Vec<Vec<u8>> {
    list.iter().map(|word| word.to_vec()).collect()
}

fn unexpected(what: &str, detail: String) -> Violation {
    Violation::new(what.to_owned(), detail)
}

impl World {
    /// One step: a command, time, the wheels.
    pub(super) fn step(&mut self) -> Outcome {
        match self.draw.below(100) {
            0..68 => self.act(),
            68..84 => {
                let ms = self.draw.step(&self.model);
                self.pass(ms);
                // Those whose time is over do not always notice at once.
                if self.draw.one_in(3) { Ok(()) } else { self.end_waits() }
            }
            84..94 => {
                let shard = u16::try_from(self.draw.below(SHARDS.into())).expect("a shard");
                let budget = 1 + self.draw.index(4);
                self.turn(shard, budget).map(|_| ())
            }
            94 | 95 => self.turn_to_the_end(),
            96 | 97 => self.burst(),
            _ if self.draw.one_in(2) => self.end_waits(),
            _ => self.feed(),
        }
    }

    /// A list that somebody waits for.
    fn awaited_list(&mut self) -> Option<Name> {
        let waits = self.waits.waiters.iter();
        let waits = waits.filter(|waiter| !matches!(waiter.wanted, Wanted::Loaded(_)));
        let mut lists: Vec<Name> = waits
            .flat_map(|waiter| waiter.keys().iter().map(|key| (waiter.database, key.clone())))
            .collect();
        let is_some = !lists.is_empty();
        is_some.then(|| lists.swap_remove(self.draw.index(lists.len())))
    }

    /// Somebody pushes to a list that somebody else waits for.
    fn feed(&mut self) -> Outcome {
        let Some((database, key)) = self.awaited_list() else { return Ok(()) };
        let client = (ACTORS..self.clients.len()).find(|client| {
            let actor = &self.clients[*client];
            let is_free = !self.waits.is_waiting(*client) && actor.queue.is_none();
            is_free && actor.database == database
        });
        let Some(client) = client else { return Ok(()) };
        let elements = (0..=self.draw.below(2)).map(|_| self.draw.value()).collect();
        let operation = Operation::Push { key, left: self.draw.one_in(2), elements };
        self.perform(client, &operation).map(|_| ())
    }

    /// A client that does not wait does something.
    fn act(&mut self) -> Outcome {
        let client = ACTORS + self.draw.index(self.clients.len() - ACTORS);
        if self.waits.is_waiting(client) {
            return if self.draw.one_in(30) { self.replace(client) } else { Ok(()) };
        }
        if self.clients[client].queue.is_some() {
            return self.go_on_with_transaction(client);
        }
        if self.clients[client].scan.is_some() && self.draw.one_in(2) {
            return self.go_on_with_scan(client);
        }
        if !self.clients[client].watched.is_empty() && self.draw.one_in(5) {
            return self.begin_transaction(client);
        }
        match self.draw.below(40) {
            0 => self.select(client),
            1 | 2 => self.watch(client),
            3 => self.begin_transaction(client),
            4 | 5 => self.begin_scan(client),
            6 | 7 if !self.is_limited => self.wait_for_element(client),
            8..11 if !self.is_limited => self.load(client),
            11 if self.draw.one_in(3) => {
                let operation = match self.draw.below(4) {
                    0 => Operation::FlushAll,
                    1 => Operation::Flush,
                    _ => {
                        let left = u8::try_from(self.draw.below(DATABASES.into())).expect("few");
                        Operation::Swap(left, (left + 1) % DATABASES)
                    }
                };
                self.perform(client, &operation).map(|_| ())
            }
            12 if self.draw.one_in(4) => self.replace(client),
            13..18 if self.clients[client].caching != Caching::Nothing => {
                self.read_and_cache(client)
            }
            _ => {
                let operation = self.draw.operation(self.model.now);
                self.perform(client, &operation).map(|_| ())
            }
        }
    }

    fn select(&mut self, client: usize) -> Outcome {
        // Clients cache by name, so one that does stays in its database.
        if self.clients[client].caching != Caching::Nothing {
            return Ok(());
        }
        let database = u8::try_from(self.draw.below(DATABASES.into())).expect("few");
        let line = words(&[b"SELECT", database.to_string().as_bytes()]);
        let seen = self.send(client, &line, None)?;
        if seen.reply != Some(Answer::ok()) {
            return Err(unexpected("a database is selected", format!("{seen:?}")));
        }
        self.clients[client].database = database;
        Ok(())
    }

    /// A client that caches reads.
    fn read_and_cache(&mut self, client: usize) -> Outcome {
        let asks = self.clients[client].caching == Caching::OptIn && !self.draw.one_in(3);
        if asks {
            self.send(client, &words(&[b"CLIENT", b"CACHING", b"YES"]), None)?;
        }
        let key = match self.clients[client].caching {
            Caching::Broadcast => {
                let number = self.draw.below(10);
                [PREFIX, number.to_string().as_bytes()].concat()
            }
            _ => self.draw.text_key(),
        };
        self.perform_asked(client, &Operation::Get(key), asks).map(|_| ())
    }

    /// Those whose time is over notice it.
    fn end_waits(&mut self) -> Outcome {
        let now_us = self.now_us();
        let over =
            self.waits.waiters.iter().filter(|it| it.until_us.is_some_and(|at| at <= now_us));
        let over: Vec<Waiter> = over.cloned().collect();
        for waiter in over {
            let mut seen = self.look_again(waiter.client)?;
            if seen.reply != Some(waiter.nothing()) || seen.next != Next::Continue {
                let detail = format!("{}: {seen:?}", waiter.show());
                return Err(unexpected("a wait ends in time", detail));
            }
            self.note(Sometimes::TimedOut);
            self.waits.waiters.retain(|it| it.client != waiter.client);
            self.see_answers(&mut seen, Vec::new())?;
        }
        Ok(())
    }

    fn wait_for_element(&mut self, client: usize) -> Outcome {
        let halves = self.draw.below(8);
        let seconds = format!("{}.{}", halves / 2, 5 * (halves % 2));
        let (wanted, line) = if self.draw.one_in(3) {
            let (from, mut to) = (self.draw.list_key(), self.draw.list_key());
            // What it gets is now and then for another one that waits.
            if self.draw.one_in(2)
                && let Some((_, awaited)) = self.awaited_list()
            {
                to = awaited;
            }
            let line = words(&[b"BLMOVE", &from, &to, b"LEFT", b"RIGHT", seconds.as_bytes()]);
            (Wanted::Moved { from, to }, line)
        } else {
            let keys: Vec<_> = (0..=self.draw.below(2)).map(|_| self.draw.list_key()).collect();
            let left = self.draw.one_in(2);
            let name: &[u8] = if left { b"BLPOP" } else { b"BRPOP" };
            let mut line = words(&[name]);
            line.extend(keys.iter().cloned());
            line.push(bytes(seconds));
            (Wanted::Element { keys, left }, line)
        };
        let database = self.clients[client].database;
        let until_us = (halves > 0).then(|| self.now_us() + halves * 500_000);
        let waiter = Waiter { client, database, wanted, until_us };
        let mut seen = self.send(client, &line, None)?;
        let expected = waiter.attempt(&mut self.model);
        if seen.reply != expected {
            let detail = format!("{}: expected {expected:?}, got {seen:?}", waiter.show());
            return Err(unexpected("a wait begins only if there is nothing", detail));
        }
        if expected.is_none() {
            self.note(Sometimes::Blocked);
            if seen.next != Next::Wait(until_us) {
                let detail = format!("{}: {seen:?}", waiter.show());
                return Err(unexpected("a wait has its time", detail));
            }
            self.waits.waiters.push(waiter);
        }
        self.settle(client, &mut seen)
    }

    /// Loads what is missing, under a lease.
    fn load(&mut self, client: usize) -> Outcome {
        if let Some(at) = self.clients[client].leases.len().checked_sub(1)
            && !self.draw.one_in(3)
        {
            let (name, token) = self.clients[client].leases.swap_remove(at);
            return self.publish(client, &name, &token);
        }
        let key = self.draw.lease_key();
        if self.draw.one_in(8) {
            let operation = match self.draw.below(3) {
                0 => Operation::Del(vec![key]),
                1 => Operation::Expire(key, self.draw.span()),
                _ => {
                    let (value, life, when) = (self.draw.value(), Life::Forever, When::Always);
                    Operation::Set { key, value, life, when }
                }
            };
            return self.perform(client, &operation).map(|_| ());
        }
        self.ask_for_lease(client, key)
    }

    fn ask_for_lease(&mut self, client: usize, key: Vec<u8>) -> Outcome {
        let name = (self.clients[client].database, key.clone());
        let longest = if self.draw.one_in(2) { 3_000 } else { 3_600_000 };
        let (lease_ms, stale_ms) = (1 + self.draw.below(longest), self.draw.below(2) * 500 + 1);
        let wait_ms = if self.draw.one_in(2) { 1 + self.draw.below(2_000) } else { 0 };
        let mut line = words(&[b"GETORLOCK", &key, lease_ms.to_string().as_bytes()]);
        line.extend([b"STALE".to_vec(), bytes(stale_ms)]);
        if wait_ms > 0 {
            line.extend([b"WAIT".to_vec(), bytes(wait_ms)]);
        }
        let mut seen = self.send(client, &line, None)?;
        let now_us = self.now_us();
        self.waits.leases.retain(|_, lease| lease.until_us > now_us);
        let value = Answer::bulk_or_null(self.model.text(&name));
        let deadline = self.model.entries.get(&name).and_then(|entry| entry.deadline);
        let is_stale = deadline.is_some_and(|at| at - self.model.now <= stale_ms);
        let standing = self.waits.leases.get(&name).cloned();
        let answer = |state: &str, value: &Answer, last: Answer| {
            Some(Answer::List(vec![Answer::bulk(state), value.clone(), last]))
        };
        let expected = match standing {
            _ if value != Answer::Null && !is_stale => answer("hit", &value, Answer::Null),
            None => {
                let token = seen.reply.as_ref().and_then(|it| it.items().get(2)?.bytes());
                let Some(token) = token.map(<[u8]>::to_vec) else {
                    let detail = format!("{}: {seen:?}", show_name(&name));
                    return Err(unexpected("a lease is granted if none stands", detail));
                };
                self.note(Sometimes::Leased);
                let until_us = now_us + lease_ms * 1_000;
                let lease = Lease { token: token.clone(), until_us };
                self.waits.leases.insert(name.clone(), lease);
                self.clients[client].leases.push((name.clone(), token.clone()));
                answer("load", &value, Answer::Bulk(token))
            }
            Some(_) if value != Answer::Null => answer("stale", &value, Answer::Null),
            Some(_) if wait_ms > 0 => None,
            Some(lease) => {
                let left = (lease.until_us - now_us).div_ceil(1_000);
                answer("wait", &value, Answer::Integer(i64::try_from(left).expect("an hour")))
            }
        };
        if seen.reply != expected {
            let name = show_name(&name);
            let detail = format!("{name}: expected {expected:?}, got {:?}", seen.reply);
            return Err(unexpected("one lease at a time", detail));
        }
        if expected.is_none() {
            let Next::Wait(until_us) = seen.next else {
                return Err(unexpected("who is not answered waits", format!("{seen:?}")));
            };
            self.note(Sometimes::LeaseWaited);
            let (database, wanted) = (name.0, Wanted::Loaded(key));
            self.waits.waiters.push(Waiter { client, database, wanted, until_us });
        }
        self.settle(client, &mut seen)
    }

    fn publish(&mut self, client: usize, name: &Name, token: &[u8]) -> Outcome {
        if self.clients[client].database != name.0 {
            return Ok(());
        }
        let now_us = self.now_us();
        let lease = self.waits.leases.get(name);
        let holds = lease.is_some_and(|it| it.token == token && it.until_us > now_us);
        let gives_up = self.draw.one_in(6);
        let (value, span) = (self.draw.value(), self.draw.span());
        let span_text = bytes(span);
        let line = match gives_up {
            true => words(&[b"UNLEASE", &name.1, token]),
            false => words(&[b"SETWITHLEASE", &name.1, token, &value, b"PX", &span_text]),
        };
        let mut seen = self.send(client, &line, None)?;
        if seen.reply != Some(Answer::Integer(holds.into())) {
            let detail = format!("{}: holds {holds}, got {:?}", show_name(name), seen.reply);
            return Err(unexpected("only a standing lease publishes", detail));
        }
        self.note(if holds { Sometimes::LeasePublished } else { Sometimes::LeaseVoided });
        if !holds {
            return self.settle(client, &mut seen);
        }
        self.waits.leases.remove(name);
        if gives_up {
            self.waits.forget(name);
            return self.settle(client, &mut seen);
        }
        let (life, when) = (Life::For(span), When::Always);
        let operation = Operation::Set { key: name.1.clone(), value, life, when };
        self.apply(name.0, &operation, &Answer::ok(), false)?;
        self.settle(client, &mut seen)
    }

    fn watch(&mut self, client: usize) -> Outcome {
        let database = self.clients[client].database;
        let mut keys: BTreeSet<Vec<u8>> =
            (0..=self.draw.below(2)).map(|_| self.draw.any_key()).collect();
        // What expires soon is more likely to do so before EXEC.
        let volatile = self.model.entries.iter().filter(|(name, _)| name.0 == database);
        let soon = volatile.filter_map(|(name, entry)| Some((entry.deadline?, &name.1))).min();
        if let Some((_, key)) = soon
            && self.draw.one_in(2)
        {
            keys.insert(key.clone());
        }
        let mut line = words(&[b"WATCH"]);
        line.extend(keys.iter().cloned());
        let mut seen = self.send(client, &line, None)?;
        let actor = &mut self.clients[client];
        if !actor.is_dirty {
            for key in keys {
                let name = (database, key);
                let is_there = self.model.is_live(&name);
                actor.watched.entry(name).or_insert(is_there);
            }
        }
        self.settle(client, &mut seen)
    }

    fn begin_transaction(&mut self, client: usize) -> Outcome {
        let seen = self.send(client, &words(&[b"MULTI"]), None)?;
        if seen.reply != Some(Answer::ok()) {
            return Err(unexpected("a transaction begins", format!("{seen:?}")));
        }
        self.clients[client].queue = Some(Vec::new());
        Ok(())
    }

    fn go_on_with_transaction(&mut self, client: usize) -> Outcome {
        match self.draw.below(8) {
            0..4 => {
                let operation = self.draw.queued(self.model.now);
                let mut seen = self.send(client, &operation.words(), None)?;
                match &seen.reply {
                    Some(Answer::Simple(text)) if text == "QUEUED" => {
                        let queue = self.clients[client].queue.as_mut();
                        queue.into_iter().for_each(|queue| queue.push(operation.clone()));
                    }
                    Some(answer) if self.is_refusal(answer) => {
                        self.clients[client].is_broken = true;
                    }
                    other => return Err(unexpected("a command is queued", format!("{other:?}"))),
                }
                self.settle(client, &mut seen)
            }
            4 if self.draw.one_in(3) => {
                let seen = self.send(client, &words(&[b"DISCARD"]), None)?;
                if seen.reply != Some(Answer::ok()) {
                    return Err(unexpected("a transaction is given up", format!("{seen:?}")));
                }
                self.end_transaction(client);
                Ok(())
            }
            _ => self.execute(client),
        }
    }

    fn end_transaction(&mut self, client: usize) -> (Vec<Operation>, bool, bool) {
        let actor = &mut self.clients[client];
        let queue = actor.queue.take().unwrap_or_default();
        let watches = !std::mem::take(&mut actor.watched).is_empty();
        let is_dirty = std::mem::take(&mut actor.is_dirty);
        actor.is_broken = false;
        (queue, watches, is_dirty)
    }

    fn execute(&mut self, client: usize) -> Outcome {
        let is_broken = self.clients[client].is_broken;
        let dirty_before = self.clients[client].is_dirty;
        let mut seen = self.send(client, &words(&[b"EXEC"]), None)?;
        let database = self.clients[client].database;
        let Some(told) = seen.reply.clone() else {
            return Err(unexpected("a transaction is answered", format!("{seen:?}")));
        };
        let (queue, watches, is_dirty) = self.end_transaction(client);
        if self.is_refusal(&told) {
            return self.settle(client, &mut seen);
        }
        // What was evicted while it ran may have been before it began, or after.
        let may_be_dirty = is_dirty != dirty_before;
        let ran = told != Answer::Null;
        if is_broken || (!may_be_dirty && ran == is_dirty) {
            let detail = format!("broken {is_broken}, dirty {is_dirty}, answered {}", told.show());
            return Err(unexpected("EXEC runs if nothing watched has changed", detail));
        }
        if watches {
            self.note(if ran { Sometimes::Executed } else { Sometimes::Aborted });
        }
        if ran {
            if told.items().len() != queue.len() {
                return Err(unexpected("each command of a transaction is answered", told.show()));
            }
            // The model cannot know what was evicted between which commands.
            let is_ambiguous = self.is_limited;
            for (operation, told) in queue.iter().zip(told.items()) {
                self.apply(database, operation, told, is_ambiguous)?;
            }
            if is_ambiguous {
                for operation in &queue {
                    self.resync(database, operation)?;
                }
            }
        }
        self.settle(client, &mut seen)
    }

    fn begin_scan(&mut self, client: usize) -> Outcome {
        let database = self.clients[client].database;
        let large: Vec<Name> = self
            .model
            .entries
            .iter()
            .filter(|(name, entry)| {
                name.0 == database
                    && match &entry.content {
                        Content::Set(set) => set.len() > 100,
                        Content::Hash(hash) => hash.len() > 100,
                        Content::Sorted(set) => set.len() > 100,
                        _ => false,
                    }
            })
            .map(|(name, _)| name.clone())
            .collect();
        let what = match self.draw.below(6) {
            0..4 => Scanned::Keys(database),
            4 if !large.is_empty() => {
                let at = self.draw.index(large.len());
                Scanned::Elements(large[at].clone())
            }
            _ => Scanned::Elements((database, self.draw.collection_key())),
        };
        self.clients[client].scan = Some(Scan::begin(&self.model, what));
        // Sometimes in one go, with nothing in between.
        if self.draw.one_in(3) {
            while self.clients[client].scan.is_some() {
                self.go_on_with_scan(client)?;
            }
        }
        Ok(())
    }

    fn go_on_with_scan(&mut self, client: usize) -> Outcome {
        let Some(mut scan) = self.clients[client].scan.take() else { return Ok(()) };
        let database = self.clients[client].database;
        let mut line = match &scan.what {
            Scanned::Keys(of) | Scanned::Elements((of, _)) if *of != database => return Ok(()),
            Scanned::Keys(_) => words(&[b"SCAN"]),
            Scanned::Elements((_, key)) => {
                let name: &[u8] = match key[0] {
                    b't' => b"SSCAN",
                    b'h' => b"HSCAN",
                    _ => b"ZSCAN",
                };
                words(&[name, key])
            }
        };
        let count = if self.draw.one_in(2) { 1 } else { 1 + self.draw.below(30) };
        line.extend([scan.cursor.clone(), b"COUNT".to_vec(), bytes(count)]);
        let mut seen = self.send(client, &line, None)?;
        let reply = seen.reply.clone().unwrap_or(Answer::Null);
        let (Some(cursor), Some(found)) =
            (reply.items().first().and_then(Answer::bytes), reply.items().get(1))
        else {
            return Err(unexpected("a scan is answered", reply.show()));
        };
        let has_values = matches!(&scan.what, Scanned::Elements((_, key)) if key[0] != b't');
        let step = if has_values { 2 } else { 1 };
        let found = found.items().iter().step_by(step);
        let found = found.filter_map(|it| it.bytes().map(<[u8]>::to_vec)).collect();
        if scan.take(&self.model, cursor, found)? {
            self.note(match (&scan.what, scan.is_quiet) {
                (Scanned::Elements(_), _) if scan.is_large() => Sometimes::ElementsScanned,
                (_, true) => Sometimes::ScannedInQuiet,
                (_, false) => Sometimes::ScannedAmidWrites,
            });
        } else {
            self.clients[client].scan = Some(scan);
        }
        self.settle(client, &mut seen)
    }

    /// Many keys of one slot come, and most of them go; or many members of one collection.
    fn burst(&mut self) -> Outcome {
        let client = (ACTORS..self.clients.len()).find(|client| {
            !self.waits.is_waiting(*client) && self.clients[*client].queue.is_none()
        });
        let Some(client) = client else { return Ok(()) };
        if self.draw.one_in(4) {
            for key in self.draw.equal_hashes() {
                let (value, life, when) = (self.draw.value(), Life::Forever, When::Always);
                let key = key.clone();
                self.perform(client, &Operation::Set { key, value, life, when })?;
            }
            self.note(Sometimes::Collided);
        }
        if self.draw.one_in(3) {
            return self.burst_of_members(client);
        }
        let slot = ["{c}", "{d}"][self.draw.index(2)];
        let count = 100 + self.draw.below(400);
        let key = |number: u64| bytes(format!("s:{slot}b{number}"));
        let size = self.draw.index(400);
        let removes = self.draw.below(3) > 0;
        for number in 0..count {
            let life = match self.draw.below(4) {
                0 => Life::For(self.draw.span()),
                _ => Life::Forever,
            };
            let value = [self.draw.value(), vec![b'-'; size]].concat();
            let (key, when) = (key(number), When::Always);
            self.perform(client, &Operation::Set { key, value, life, when })?;
        }
        if removes {
            let scanner =
                (client + 1..self.clients.len()).find(|other| self.clients[*other].scan.is_some());
            for number in 0..count {
                if !self.draw.one_in(5) {
                    self.perform(client, &Operation::Del(vec![key(number)]))?;
                }
                if let Some(scanner) = scanner
                    && self.clients[scanner].queue.is_none()
                    && !self.waits.is_waiting(scanner)
                    && self.draw.one_in(4)
                {
                    self.go_on_with_scan(scanner)?;
                }
            }
            self.note(Sometimes::TableShrunk);
        }
        Ok(())
    }

    fn burst_of_members(&mut self, client: usize) -> Outcome {
        let key = self.draw.collection_key();
        let members: Vec<Vec<u8>> =
            (0..300 + self.draw.below(500)).map(|it| bytes(format!("b{it}"))).collect();
        let all = |key: Vec<u8>, members: Vec<Vec<u8>>, add: bool| match (key[0], add) {
            (b't', true) => Operation::SetAdd(key, members),
            (b't', false) => Operation::SetRemove(key, members),
            (b'h', true) => Operation::HashSet(key, members, b"1".to_vec()),
            (b'h', false) => Operation::HashDel(key, members),
            (_, true) => Operation::SortedAdd(key, members, 7),
            (_, false) => Operation::SortedRemove(key, members),
        };
        self.perform(client, &all(key.clone(), members.clone(), true))?;
        let scans = self.draw.one_in(2);
        if scans {
            let name = (self.clients[client].database, key.clone());
            self.clients[client].scan = Some(Scan::begin(&self.model, Scanned::Elements(name)));
        }
        for part in members.chunks(50) {
            if scans {
                self.go_on_with_scan(client)?;
            }
            if !self.draw.one_in(4) {
                self.perform(client, &all(key.clone(), part.to_vec(), false))?;
            }
        }
        Ok(())
    }
}
