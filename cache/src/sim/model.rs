//! What the node has to hold: every key with its value and its deadline, in plain maps.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt;

use super::operation::{Life, Operation, When};
use super::reply::{Answer, show_bytes};
use crate::slot::{SLOTS, Slot};
use crate::store::SHARDS;

/// A database and a key.
pub(super) type Name = (u8, Vec<u8>);

/// A name as text.
pub(super) fn show_name(name: &Name) -> String {
    format!("{}/{}", name.0, show_bytes(&name.1))
}

#[derive(Clone, PartialEq)]
pub(super) enum Content {
    Text(Vec<u8>),
    List(VecDeque<Vec<u8>>),
    Set(BTreeSet<Vec<u8>>),
    Hash(BTreeMap<Vec<u8>, Vec<u8>>),
    Sorted(BTreeMap<Vec<u8>, i64>),
}

impl Content {
    /// Everything in it, as the reading command of its kind tells it.
    fn answer(&self) -> Answer {
        Answer::List(match self {
            Self::Text(bytes) => return Answer::bulk(bytes),
            Self::List(list) => list.iter().map(Answer::bulk).collect(),
            Self::Set(set) => set.iter().map(Answer::bulk).collect(),
            Self::Hash(hash) => {
                hash.iter().flat_map(|(field, value)| [field, value].map(Answer::bulk)).collect()
            }
            Self::Sorted(set) => {
                let mut members: Vec<_> =
                    set.iter().map(|(member, score)| (score, member)).collect();
                members.sort();
                members.into_iter().map(|(_, member)| Answer::bulk(member)).collect()
            }
        })
    }
}

impl fmt::Debug for Content {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.answer().show())
    }
}

#[derive(Clone, Debug, PartialEq)]
pub(super) struct Entry {
    pub(super) content: Content,
    pub(super) deadline: Option<u64>,
}

/// Something that a command did to a key, or to a whole database.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Touch {
    Written(Name),
    Removed(Name),
    Flushed(u8),
    Swapped(u8),
}

#[derive(Debug, Default)]
pub(super) struct Model {
    pub(super) now: u64,
    pub(super) entries: BTreeMap<Name, Entry>,
    /// Keys whose deadline has passed and that nobody has said to be gone, with their deadline.
    pub(super) due: BTreeMap<Name, u64>,
    /// Keys whose deadline was more than one turn of a wheel's first level away when it was set.
    pub(super) far: BTreeSet<Name>,
    /// What the command under way did, in order.
    pub(super) touches: Vec<Touch>,
}

/// One turn of a wheel's first level, in milliseconds.
const TURN_MS: u64 = 256 * 8;

/// The shard of a key.
pub(super) fn shard_of(key: &[u8]) -> u16 {
    Slot::of(key).0 / (SLOTS / SHARDS)
}

impl Model {
    /// Time passes.
    pub(super) fn move_to(&mut self, now: u64) {
        self.now = now;
        let is_due = |entry: &Entry| entry.deadline.is_some_and(|deadline| deadline <= now);
        let due = &mut self.due;
        self.entries.retain(|name, entry| match entry.deadline {
            Some(deadline) if is_due(entry) => {
                due.insert(name.clone(), deadline);
                false
            }
            _ => true,
        });
    }

    pub(super) fn get(&self, name: &Name) -> Option<&Content> {
        self.entries.get(name).map(|entry| &entry.content)
    }

    pub(super) fn text(&self, name: &Name) -> Option<&Vec<u8>> {
        match self.get(name) {
            Some(Content::Text(bytes)) => Some(bytes),
            _ => None,
        }
    }

    pub(super) fn is_live(&self, name: &Name) -> bool {
        self.entries.contains_key(name)
    }

    pub(super) fn len(&self, database: u8) -> usize {
        let of = |name: &&Name| name.0 == database;
        self.entries.keys().filter(of).count() + self.due.keys().filter(of).count()
    }

    pub(super) fn volatile(&self, database: u8) -> usize {
        let entries = self.entries.iter().filter(|(name, _)| name.0 == database);
        let due = self.due.keys().filter(|name| name.0 == database).count();
        entries.filter(|(_, entry)| entry.deadline.is_some()).count() + due
    }

    fn file(&mut self, name: &Name, deadline: Option<u64>) {
        if deadline.is_some_and(|deadline| deadline > self.now + TURN_MS) {
            self.far.insert(name.clone());
        } else {
            self.far.remove(name);
        }
    }

    fn written(&mut self, name: &Name) {
        self.touches.push(Touch::Written(name.clone()));
    }

    fn put(&mut self, name: &Name, content: Content, deadline: Option<u64>) {
        if deadline.is_some_and(|deadline| deadline <= self.now) {
            self.remove(name);
            return;
        }
        self.file(name, deadline);
        self.entries.insert(name.clone(), Entry { content, deadline });
        self.written(name);
    }

    pub(super) fn remove(&mut self, name: &Name) -> bool {
        let found = self.entries.remove(name).is_some();
        if found {
            self.touches.push(Touch::Removed(name.clone()));
        }
        found
    }

    fn set_deadline(&mut self, name: &Name, deadline: Option<u64>) -> bool {
        let Some(entry) = self.entries.get_mut(name) else { return false };
        if deadline.is_some_and(|deadline| deadline <= self.now) {
            return self.remove(name);
        }
        entry.deadline = deadline;
        self.file(name, deadline);
        self.written(name);
        true
    }

    /// Changes a collection and removes it if nothing is left; `change` says whether it did anything.
    fn edit<R>(
        &mut self,
        name: &Name,
        empty: Content,
        change: impl FnOnce(&mut Content) -> (R, bool),
    ) -> R {
        let is_new = !self.entries.contains_key(name);
        let entry =
            self.entries.entry(name.clone()).or_insert(Entry { content: empty, deadline: None });
        let (result, changed) = change(&mut entry.content);
        let is_empty = match &entry.content {
            Content::Text(_) => false,
            Content::List(it) => it.is_empty(),
            Content::Set(it) => it.is_empty(),
            Content::Hash(it) => it.is_empty(),
            Content::Sorted(it) => it.is_empty(),
        };
        if is_empty {
            self.entries.remove(name);
            if !is_new {
                self.touches.push(Touch::Removed(name.clone()));
            }
        } else if changed {
            self.written(name);
        }
        result
    }

    pub(super) fn push(&mut self, name: &Name, left: bool, element: &[u8]) -> usize {
        self.edit(name, Content::List(VecDeque::new()), |content| {
            let Content::List(list) = content else { unreachable!("kinds have their own names") };
            if left {
                list.push_front(element.to_vec());
            } else {
                list.push_back(element.to_vec());
            }
            (list.len(), true)
        })
    }

    pub(super) fn pop(&mut self, name: &Name, left: bool) -> Option<Vec<u8>> {
        if !self.is_live(name) {
            return None;
        }
        self.edit(name, Content::List(VecDeque::new()), |content| {
            let Content::List(list) = content else { unreachable!("kinds have their own names") };
            let element = if left { list.pop_front() } else { list.pop_back() };
            let changed = element.is_some();
            (element, changed)
        })
    }

    /// The first element of one list becomes the last of another, or of the same.
    pub(super) fn move_element(&mut self, from: &Name, to: &Name) -> Option<Vec<u8>> {
        if from != to {
            let element = self.pop(from, true)?;
            self.push(to, false, &element);
            return Some(element);
        }
        let Some(Content::List(list)) = self.entries.get_mut(from).map(|it| &mut it.content) else {
            return None;
        };
        let element = list.front().cloned();
        list.rotate_left(1);
        self.written(from);
        element
    }

    pub(super) fn flush(&mut self, database: u8) {
        self.entries.retain(|name, _| name.0 != database);
        self.due.retain(|name, _| name.0 != database);
        self.touches.push(Touch::Flushed(database));
    }

    pub(super) fn swap(&mut self, left: u8, right: u8) {
        if left == right {
            return;
        }
        let other = |database: u8| match database {
            it if it == left => right,
            it if it == right => left,
            it => it,
        };
        let entries = std::mem::take(&mut self.entries).into_iter();
        self.entries = entries.map(|((db, key), entry)| ((other(db), key), entry)).collect();
        let due = std::mem::take(&mut self.due).into_iter();
        self.due = due.map(|((db, key), deadline)| ((other(db), key), deadline)).collect();
        self.touches.push(Touch::Swapped(left));
        self.touches.push(Touch::Swapped(right));
    }

    fn set(&mut self, name: &Name, value: &[u8], life: Life, when: When) -> Answer {
        let is_there = self.is_live(name);
        if (when == When::Missing && is_there) || (when == When::There && !is_there) {
            return Answer::Null;
        }
        let deadline = match life {
            Life::Forever => None,
            Life::Keep => self.entries.get(name).and_then(|entry| entry.deadline),
            Life::For(ms) => Some(self.now + ms),
            Life::Until(at) => Some(at),
        };
        self.put(name, Content::Text(value.to_vec()), deadline);
        Answer::ok()
    }

    fn set_members(&mut self, name: &Name, members: &[Vec<u8>], add: bool) -> Answer {
        let count = self.edit(name, Content::Set(BTreeSet::new()), |content| {
            let Content::Set(set) = content else { unreachable!("kinds have their own names") };
            let change = |member: &&Vec<u8>| {
                if add { set.insert((*member).clone()) } else { set.remove(*member) }
            };
            let count = members.iter().filter(change).count();
            (count, count > 0)
        });
        Answer::count(count)
    }

    fn hash_fields(&mut self, name: &Name, fields: &[Vec<u8>], value: Option<&[u8]>) -> Answer {
        let count = self.edit(name, Content::Hash(BTreeMap::new()), |content| {
            let Content::Hash(hash) = content else { unreachable!("kinds have their own names") };
            let change = |field: &&Vec<u8>| match value {
                Some(value) => hash.insert((*field).clone(), value.to_vec()).is_none(),
                None => hash.remove(*field).is_some(),
            };
            let count = fields.iter().filter(change).count();
            (count, value.is_some() || count > 0)
        });
        Answer::count(count)
    }

    fn sorted_members(&mut self, name: &Name, members: &[Vec<u8>], score: Option<i64>) -> Answer {
        let count = self.edit(name, Content::Sorted(BTreeMap::new()), |content| {
            let Content::Sorted(set) = content else { unreachable!("kinds have their own names") };
            let (mut count, mut changed) = (0, false);
            for member in members {
                let before = match score {
                    Some(score) => set.insert(member.clone(), score),
                    None => set.remove(member),
                };
                count += usize::from(before.is_none() == score.is_some());
                changed |= before != score;
            }
            (count, changed)
        });
        Answer::count(count)
    }

    /// Everything in a collection, as the reading command of its kind tells it.
    pub(super) fn whole(&self, name: &Name) -> Answer {
        self.get(name).map_or(Answer::List(Vec::new()), Content::answer)
    }

    /// Does what a command does, and says what it answers. `told` is what the node answered: where chance decides, it is followed
    /// if it is one of the possible answers.
    pub(super) fn run(&mut self, database: u8, operation: &Operation, told: &Answer) -> Answer {
        use Operation as Op;
        let at = |key: &Vec<u8>| (database, key.clone());
        match operation {
            Op::Set { key, value, life, when } => self.set(&at(key), value, *life, *when),
            Op::Get(key) => Answer::bulk_or_null(self.text(&at(key))),
            Op::GetDel(key) => {
                let answer = Answer::bulk_or_null(self.text(&at(key)));
                self.remove(&at(key));
                answer
            }
            Op::GetEx(key, ms) => {
                let answer = Answer::bulk_or_null(self.text(&at(key)));
                let has = self.entries.get(&at(key)).is_some_and(|it| it.deadline.is_some());
                match ms {
                    Some(ms) => _ = self.set_deadline(&at(key), Some(self.now + ms)),
                    None if has => _ = self.set_deadline(&at(key), None),
                    None => {}
                }
                answer
            }
            Op::Append(key, more) => {
                let length = self.edit(&at(key), Content::Text(Vec::new()), |content| {
                    let Content::Text(text) = content else { unreachable!("a text") };
                    text.extend_from_slice(more);
                    (text.len(), true)
                });
                Answer::count(length)
            }
            Op::Incr(key) => {
                let number = self.edit(&at(key), Content::Text(b"0".to_vec()), |content| {
                    let Content::Text(text) = content else { unreachable!("a text") };
                    let number: i64 =
                        std::str::from_utf8(text).ok().and_then(|it| it.parse().ok()).unwrap_or(0);
                    *text = (number + 1).to_string().into_bytes();
                    (number + 1, true)
                });
                Answer::Integer(number)
            }
            Op::Del(keys) => Answer::count(keys.iter().filter(|key| self.remove(&at(key))).count()),
            Op::Exists(keys) => {
                Answer::count(keys.iter().filter(|key| self.is_live(&at(key))).count())
            }
            Op::Expire(key, ms) => {
                Answer::Integer(self.set_deadline(&at(key), Some(self.now + ms)).into())
            }
            Op::ExpireAt(key, moment) => {
                Answer::Integer(self.set_deadline(&at(key), Some(*moment)).into())
            }
            Op::Persist(key) => {
                let has = self.entries.get(&at(key)).is_some_and(|it| it.deadline.is_some());
                Answer::Integer((has && self.set_deadline(&at(key), None)).into())
            }
            Op::Ttl(key) => Answer::Integer(match self.entries.get(&at(key)) {
                None => -2,
                Some(Entry { deadline: None, .. }) => -1,
                Some(Entry { deadline: Some(deadline), .. }) => {
                    i64::try_from(deadline - self.now).expect("centuries at most")
                }
            }),
            Op::Rename(from, to) => {
                let Some(entry) = self.entries.get(&at(from)).cloned() else {
                    return Answer::Error("ERR no such key".to_owned());
                };
                if from != to {
                    self.remove(&at(from));
                    self.put(&at(to), entry.content, entry.deadline);
                }
                Answer::ok()
            }
            Op::Copy(from, to, replace) => {
                let entry = self.entries.get(&at(from)).cloned();
                let Some(entry) = entry.filter(|_| *replace || !self.is_live(&at(to))) else {
                    return Answer::Integer(0);
                };
                self.put(&at(to), entry.content, entry.deadline);
                Answer::Integer(1)
            }
            Op::Push { key, left, elements } => {
                let lengths = elements.iter().map(|it| self.push(&at(key), *left, it));
                let length = lengths.last().unwrap_or(0);
                Answer::count(length)
            }
            Op::Pop { key, left } => Answer::bulk_or_null(self.pop(&at(key), *left).as_ref()),
            Op::Move { from, to } => {
                Answer::bulk_or_null(self.move_element(&at(from), &at(to)).as_ref())
            }
            Op::Members(key) => self.whole(&at(key)),
            Op::Range(key) | Op::Fields(key) | Op::Ranked(key) => self.whole(&at(key)),
            Op::SetAdd(key, members) => self.set_members(&at(key), members, true),
            Op::SetRemove(key, members) => self.set_members(&at(key), members, false),
            Op::SetPop(key) => {
                let member = told.bytes().map(<[u8]>::to_vec);
                let has = |content: &Content| match (content, &member) {
                    (Content::Set(set), Some(member)) => set.contains(member),
                    _ => false,
                };
                match member.clone().filter(|_| self.get(&at(key)).is_some_and(has)) {
                    Some(member) => {
                        self.set_members(&at(key), &[member], false);
                        told.clone()
                    }
                    None if self.is_live(&at(key)) => Answer::bulk("one of the members"),
                    None => Answer::Null,
                }
            }
            Op::HashSet(key, fields, value) => self.hash_fields(&at(key), fields, Some(value)),
            Op::HashDel(key, fields) => self.hash_fields(&at(key), fields, None),
            Op::SortedAdd(key, members, score) => {
                self.sorted_members(&at(key), members, Some(*score))
            }
            Op::SortedRemove(key, members) => self.sorted_members(&at(key), members, None),
            Op::Size => Answer::count(self.len(database)),
            Op::Flush => {
                self.flush(database);
                Answer::ok()
            }
            Op::FlushAll => {
                (0..crate::types::DATABASES).for_each(|database| self.flush(database));
                Answer::ok()
            }
            Op::Swap(left, right) => {
                self.swap(*left, *right);
                Answer::ok()
            }
        }
    }
}
