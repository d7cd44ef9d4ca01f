//! The format of `DUMP`, version 1: see `docs/formats.md`, "Dumped values".
//!
//! The bytes come from clients. The checksum keeps accidents out and is no protection against anybody, so everything behind it is
//! checked as well: lengths against what is left, members for being different, numbers for being numbers. Nothing is allocated for
//! a count that was only declared.

use crc32c::crc32c;

use crate::store::Lifetime;
use crate::types::UnixMillis;
use crate::value::list::End;
use crate::value::{Hash, Kind, List, Set, SortedSet, Text, Value, View};

const MAGIC: &[u8; 4] = b"LDMP";
const VERSION: u8 = 1;

fn number_of(kind: Kind) -> u8 {
    match kind {
        Kind::String => 0,
        Kind::List => 1,
        Kind::Set => 2,
        Kind::SortedSet => 3,
        Kind::Hash => 4,
    }
}

/// What is wrong with a payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Damage {
    /// It is none of ours, of another version, or its checksum does not fit.
    Envelope,
    /// What it holds makes no sense.
    Content,
}

/// A value as bytes.
pub(super) fn write(view: &View<'_>) -> Vec<u8> {
    let mut out = MAGIC.to_vec();
    out.push(VERSION);
    out.push(number_of(view.kind()));
    match view {
        View::String(bytes) => out.extend_from_slice(bytes),
        View::List(list) => list.iter().for_each(|element| push(&mut out, element)),
        View::Set(set) => set.iter().for_each(|member| push(&mut out, &member)),
        View::SortedSet(set) => {
            for (member, score) in set.iter() {
                push(&mut out, member);
                out.extend_from_slice(&score.to_bits().to_le_bytes());
            }
        }
        View::Hash(hash) => {
            for field in hash.iter() {
                push(&mut out, field.field);
                push(&mut out, field.value);
                let deadline = field.deadline.map_or(0, |deadline| deadline.0);
                out.extend_from_slice(&deadline.to_le_bytes());
            }
        }
    }
    let checksum = crc32c(&out);
    out.extend_from_slice(&checksum.to_le_bytes());
    out
}

fn push(out: &mut Vec<u8>, bytes: &[u8]) {
    let length = u32::try_from(bytes.len()).expect("an element is at most 512 MiB long");
    out.extend_from_slice(&length.to_le_bytes());
    out.extend_from_slice(bytes);
}

/// The value in `payload`. None if all of its fields have expired by `now`.
pub(super) fn read(payload: &[u8], now: UnixMillis) -> Result<Option<Value>, Damage> {
    let (body, checksum) = payload.split_last_chunk::<4>().ok_or(Damage::Envelope)?;
    let content = body.strip_prefix(MAGIC).and_then(|rest| rest.strip_prefix(&[VERSION]));
    let (kind, content) = content.and_then(<[u8]>::split_first).ok_or(Damage::Envelope)?;
    if crc32c(body) != u32::from_le_bytes(*checksum) {
        return Err(Damage::Envelope);
    }
    let mut parts = Parts(content);
    // An empty collection would be no key; a string may well be empty.
    if content.is_empty() && *kind != number_of(Kind::String) {
        return Err(Damage::Content);
    }
    let value = match kind {
        0 => Value::String(Text::from(content.to_vec())),
        1 => parts.list()?,
        2 => parts.set()?,
        3 => parts.sorted_set()?,
        4 => return parts.hash(now),
        _ => return Err(Damage::Content),
    };
    Ok(Some(value))
}

/// What is left to read.
struct Parts<'p>(&'p [u8]);

impl<'p> Parts<'p> {
    fn fixed<const N: usize>(&mut self) -> Result<[u8; N], Damage> {
        let (fixed, rest) = self.0.split_first_chunk().ok_or(Damage::Content)?;
        self.0 = rest;
        Ok(*fixed)
    }

    fn element(&mut self) -> Result<&'p [u8], Damage> {
        let length = u32::from_le_bytes(self.fixed()?);
        let length = usize::try_from(length).expect("32 bits fit");
        let (element, rest) = self.0.split_at_checked(length).ok_or(Damage::Content)?;
        self.0 = rest;
        Ok(element)
    }

    fn list(&mut self) -> Result<Value, Damage> {
        let mut list = List::default();
        while !self.0.is_empty() {
            list.push(End::Back, self.element()?);
        }
        Ok(Value::List(list))
    }

    fn set(&mut self) -> Result<Value, Damage> {
        let mut set = Set::default();
        while !self.0.is_empty() {
            if !set.insert(self.element()?) {
                return Err(Damage::Content);
            }
        }
        Ok(Value::Set(set))
    }

    fn sorted_set(&mut self) -> Result<Value, Damage> {
        let mut set = SortedSet::default();
        while !self.0.is_empty() {
            let member = self.element()?;
            let score = f64::from_bits(u64::from_le_bytes(self.fixed()?));
            if score.is_nan() || set.insert(member, score).is_some() {
                return Err(Damage::Content);
            }
        }
        Ok(Value::SortedSet(set))
    }

    fn hash(&mut self, now: UnixMillis) -> Result<Option<Value>, Damage> {
        let mut hash = Hash::default();
        while !self.0.is_empty() {
            let (field, value) = (self.element()?, self.element()?);
            // Fields that have expired are put in too, so that twins are seen.
            let lifetime = match u64::from_le_bytes(self.fixed()?) {
                0 => Lifetime::Forever,
                at => Lifetime::Until(UnixMillis(at)),
            };
            if !hash.set(field, value, lifetime) {
                return Err(Damage::Content);
            }
        }
        let is_over = |deadline: UnixMillis| deadline <= now;
        let expired: Vec<Vec<u8>> = hash
            .view()
            .iter()
            .filter(|field| field.deadline.is_some_and(is_over))
            .map(|field| field.field.to_vec())
            .collect();
        for field in expired {
            hash.remove(&field);
        }
        Ok((!hash.view().is_empty()).then_some(Value::Hash(hash)))
    }
}
