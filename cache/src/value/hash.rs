//! Fields with values.
//!
//! Packed, a hash is a run (`super::packed`) in which each field is followed by its value, while there are at most 128 and all are
//! of at most 64 bytes (Redis's default thresholds). Large, it is a [table](super::table) of pairs. A hash one of whose fields has
//! a deadline is always large.
//!
//! # Deadlines of fields
//! A view or an edit never meets a field at or after its deadline, because the store calls [`Stored::expire_parts`] before it
//! lends out a value whose [`Stored::next_deadline`] has come. So nothing here asks for the time.

mod large;

use self::large::Large;
use super::packed::{self, Elements, Selection, below};
use super::set::distinct_places;
use super::small_bytes::allocated;
use super::{Kind, Stored, Value};
use crate::store::Lifetime;
use crate::types::UnixMillis;

/// The most fields of a packed hash.
const PACKED_FIELDS: usize = 128;
/// The longest field or value of a packed hash, in bytes.
const PACKED_BYTES: usize = 64;

/// An owned hash.
#[derive(Clone, Debug, Default)]
pub struct Hash {
    form: Form,
    changed: bool,
}

#[derive(Clone, Debug)]
enum Form {
    Packed(Vec<u8>),
    Large(Large),
}

impl Default for Form {
    fn default() -> Self {
        Self::Packed(Vec::new())
    }
}

/// A borrowed hash.
#[derive(Clone, Copy, Debug)]
pub enum HashView<'v> {
    /// Small: one run of bytes.
    Packed(&'v [u8]),
    /// Large.
    Large(&'v Hash),
}

/// A field with what belongs to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Field<'v> {
    /// Its name.
    pub field: &'v [u8],
    /// Its value.
    pub value: &'v [u8],
    /// When it expires, if it ever does.
    pub deadline: Option<UnixMillis>,
}

/// What a view looks at.
#[derive(Clone, Copy, Debug)]
enum Look<'v> {
    Run(&'v [u8]),
    Large(&'v Large),
}

impl<'v> HashView<'v> {
    fn look(&self) -> Look<'v> {
        match *self {
            Self::Packed(run) => Look::Run(run),
            Self::Large(hash) => match &hash.form {
                Form::Packed(run) => Look::Run(run),
                Form::Large(large) => Look::Large(large),
            },
        }
    }

    /// An owned copy.
    #[must_use]
    pub fn to_owned(&self) -> Hash {
        match self {
            Self::Packed(bytes) => Hash::from_packed(bytes.to_vec()),
            Self::Large(large) => (*large).clone(),
        }
    }

    /// How many fields there are. Walks over them while they are a run: at most 128.
    #[must_use]
    pub fn len(&self) -> usize {
        match self.look() {
            Look::Run(run) => Elements::of(run).count() / 2,
            Look::Large(large) => large.table().len(),
        }
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        match self.look() {
            Look::Run(run) => run.is_empty(),
            Look::Large(large) => large.table().is_empty(),
        }
    }

    /// The field `field` with what belongs to it.
    #[must_use]
    pub fn find(&self, field: &[u8]) -> Option<Field<'v>> {
        match self.look() {
            Look::Run(run) => Pairs(Elements::of(run)).find(|it| it.field == field),
            Look::Large(large) => large.get(field),
        }
    }

    /// The value of `field`.
    #[must_use]
    pub fn get(&self, field: &[u8]) -> Option<&'v [u8]> {
        self.find(field).map(|it| it.value)
    }

    /// Whether `field` is there.
    #[must_use]
    pub fn contains(&self, field: &[u8]) -> bool {
        self.find(field).is_some()
    }

    /// All fields: in the order in which they came while the hash is packed, in none that means anything when it is large.
    #[must_use]
    pub fn iter(&self) -> Iter<'v> {
        Iter(match self.look() {
            Look::Run(run) => Walk::Run(Pairs(Elements::of(run))),
            Look::Large(large) => Walk::Large(large.iter()),
        })
    }

    /// Visits at least `count` fields from `cursor` on and returns where to go on, 0 at the end. A packed hash is visited whole.
    pub fn scan(&self, cursor: u64, count: usize, visit: impl FnMut(Field<'v>)) -> u64 {
        if let Look::Large(large) = self.look() {
            return large.scan(cursor, count, visit);
        }
        self.iter().for_each(visit);
        0
    }

    /// A field that `draw`'s random numbers pick, all equally likely; None if there is none.
    pub fn random(&self, draw: &mut impl FnMut() -> u64) -> Option<Field<'v>> {
        match self.look() {
            Look::Run(_) => {
                let len = self.len();
                let index = if len == 0 { return None } else { below(draw(), len) };
                self.iter().nth(index)
            }
            Look::Large(large) => large.table().pick(draw).map(|place| large.at(place)),
        }
    }

    /// Visits `count` different fields that `draw`'s random numbers pick; all, if there are fewer.
    pub fn sample(
        &self,
        count: usize,
        draw: &mut impl FnMut() -> u64,
        mut visit: impl FnMut(Field<'v>),
    ) {
        let len = self.len();
        if let Look::Large(large) = self.look()
            && count < len / 3
        {
            for place in distinct_places(large.table(), count, draw) {
                visit(large.at(place));
            }
            return;
        }
        let mut selection = Selection::new(len, count);
        self.iter().filter(|_| selection.takes(draw)).for_each(visit);
    }

    /// The name of the form, as `OBJECT ENCODING` tells it.
    #[must_use]
    pub fn encoding(&self) -> &'static str {
        match self.look() {
            Look::Run(_) => "listpack",
            Look::Large(_) => "hashtable",
        }
    }

    /// What the hash occupies beyond the entry itself, in bytes.
    #[must_use]
    pub fn heap_bytes(&self) -> usize {
        match self {
            Self::Packed(packed) => packed.len(),
            Self::Large(hash) => hash.heap_bytes(),
        }
    }
}

/// The fields of a run.
#[derive(Clone, Debug)]
struct Pairs<'v>(Elements<'v>);

impl<'v> Iterator for Pairs<'v> {
    type Item = Field<'v>;

    fn next(&mut self) -> Option<Field<'v>> {
        let field = self.0.next()?;
        let value = self.0.next()?;
        Some(Field { field, value, deadline: None })
    }
}

/// The fields of a hash.
#[derive(Clone, Debug)]
pub struct Iter<'v>(Walk<'v>);

#[derive(Clone, Debug)]
enum Walk<'v> {
    Run(Pairs<'v>),
    Large(large::Iter<'v>),
}

impl<'v> Iterator for Iter<'v> {
    type Item = Field<'v>;

    fn next(&mut self) -> Option<Field<'v>> {
        match &mut self.0 {
            Walk::Run(pairs) => pairs.next(),
            Walk::Large(fields) => fields.next(),
        }
    }
}

impl Hash {
    /// A view of it.
    #[must_use]
    pub fn view(&self) -> HashView<'_> {
        match &self.form {
            Form::Packed(run) => HashView::Packed(run),
            Form::Large(_) => HashView::Large(self),
        }
    }

    /// Sets `field` to `value`, for as long as `life` says. True if it was not there. A deadline that has passed is for the
    /// caller to see.
    pub fn set(&mut self, field: &[u8], value: &[u8], life: Lifetime) -> bool {
        self.changed = true;
        if let Form::Packed(run) = &mut self.form
            && !matches!(life, Lifetime::Until(_))
            && let Some(created) = set_packed(run, field, value)
        {
            return created;
        }
        self.grow().set(field, value, life)
    }

    /// Makes it large, if it is not.
    fn grow(&mut self) -> &mut Large {
        if let Form::Packed(run) = &self.form {
            let mut large = Large::default();
            for it in Pairs(Elements::of(run)) {
                large.set(it.field, it.value, Lifetime::Forever);
            }
            self.form = Form::Large(large);
        }
        match &mut self.form {
            Form::Large(large) => large,
            Form::Packed(_) => unreachable!("it was just made large"),
        }
    }

    /// Sets or removes the deadline of `field`. False if the field is not there. A deadline that has passed is for the caller to
    /// see.
    pub fn set_deadline(&mut self, field: &[u8], deadline: Option<UnixMillis>) -> bool {
        let Some(found) = self.view().find(field) else { return false };
        if found.deadline != deadline {
            self.changed = true;
            self.grow().set_deadline(field, deadline);
        }
        true
    }

    /// Removes `field`. False if it is not there.
    pub fn remove(&mut self, field: &[u8]) -> bool {
        let removed = match &mut self.form {
            Form::Packed(run) => match locate(run, field) {
                Ok((from, _, to)) => {
                    packed::replace(run, from..to, &[]);
                    true
                }
                Err(_) => false,
            },
            Form::Large(large) => large.remove(field),
        };
        self.changed |= removed;
        removed
    }
}

/// Where `field` begins in a run, where its value begins, and where that ends; or, if it is not there, how many there are.
fn locate(run: &[u8], field: &[u8]) -> Result<(usize, usize, usize), usize> {
    let (mut elements, mut len) = (Elements::of(run), 0);
    loop {
        let from = elements.offset();
        let Some(name) = elements.next() else { return Err(len) };
        let middle = elements.offset();
        elements.next();
        if name == field {
            return Ok((from, middle, elements.offset()));
        }
        len += 1;
    }
}

/// Sets a field of a packed hash, unless it must become large first: then None. True if the field was not there.
fn set_packed(run: &mut Vec<u8>, field: &[u8], value: &[u8]) -> Option<bool> {
    if field.len() > PACKED_BYTES || value.len() > PACKED_BYTES {
        return None;
    }
    match locate(run, field) {
        Ok((_, from, to)) => {
            packed::replace(run, from..to, &[value]);
            Some(false)
        }
        Err(len) if len >= PACKED_FIELDS => None,
        Err(_) => {
            packed::push(run, field);
            packed::push(run, value);
            Some(true)
        }
    }
}

impl Stored for Hash {
    const KIND: Kind = Kind::Hash;

    fn from_packed(bytes: Vec<u8>) -> Self {
        Self { form: Form::Packed(bytes), changed: false }
    }

    fn packed(&self) -> Option<&[u8]> {
        match &self.form {
            Form::Packed(run) => Some(run),
            Form::Large(_) => None,
        }
    }

    fn into_packed(self) -> Result<Vec<u8>, Self> {
        match self.form {
            Form::Packed(run) => Ok(run),
            Form::Large(_) => Err(self),
        }
    }

    fn is_empty(&self) -> bool {
        self.view().is_empty()
    }

    fn take_changed(&mut self) -> bool {
        std::mem::take(&mut self.changed)
    }

    fn heap_bytes(&self) -> usize {
        match &self.form {
            Form::Packed(run) => allocated(run.capacity()),
            Form::Large(large) => large.heap_bytes(),
        }
    }

    fn next_deadline(&self) -> Option<UnixMillis> {
        match &self.form {
            Form::Packed(_) => None,
            Form::Large(large) => large.next_deadline(),
        }
    }

    fn expire_parts(&mut self, now: UnixMillis, most: usize) -> usize {
        let expired = match &mut self.form {
            Form::Packed(_) => 0,
            Form::Large(large) => large.expire(now, most),
        };
        self.changed |= expired > 0;
        expired
    }

    fn into_value(self) -> Value {
        Value::Hash(self)
    }

    fn from_value(value: &mut Value) -> Option<&mut Self> {
        if let Value::Hash(it) = value { Some(it) } else { None }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use super::*;

    type Model = BTreeMap<Vec<u8>, (Vec<u8>, Option<UnixMillis>)>;

    fn draws(seed: u64) -> impl FnMut() -> u64 {
        use rand_core::{Rng as _, SeedableRng as _};
        let mut random = rand_chacha::ChaCha8Rng::seed_from_u64(seed);
        move || random.next_u64()
    }

    fn contents(hash: &Hash) -> Model {
        let fields = hash.view().iter();
        fields.map(|it| (it.field.to_vec(), (it.value.to_vec(), it.deadline))).collect()
    }

    fn check(hash: &Hash, model: &Model) {
        assert_eq!(contents(hash), *model);
        assert_eq!(hash.view().len(), model.len());
        assert_eq!(hash.is_empty(), model.is_empty());
        assert_eq!(hash.next_deadline(), model.values().filter_map(|(_, at)| *at).min());
        for hash in [hash, &hash.clone()] {
            match &hash.form {
                Form::Packed(run) => assert_eq!(contents(&Hash::from_packed(run.clone())), *model),
                Form::Large(large) => large.check(),
            }
        }
    }

    /// Random edits beside a naive map; `deadlines`: whether fields get some.
    fn run(seed: u64, fields: usize, deadlines: bool) {
        let mut draw = draws(seed);
        let (mut hash, mut model, mut now) = (Hash::default(), Model::new(), UnixMillis(1_000));
        for step in 0..3_000 {
            let field = format!("field:{}", below(draw(), fields)).into_bytes();
            let value = vec![b'v'; below(draw(), if below(draw(), 500) == 0 { 100 } else { 30 })];
            let deadline = UnixMillis(now.0 + 1 + u64::try_from(below(draw(), 200)).unwrap());
            let changed = match below(draw(), if deadlines { 12 } else { 9 }) {
                0..=4 => {
                    let created = model.insert(field.clone(), (value.clone(), None)).is_none();
                    assert_eq!(hash.set(&field, &value, Lifetime::Forever), created);
                    true
                }
                5 => {
                    let old = model.get(&field).and_then(|(_, at)| *at);
                    model.insert(field.clone(), (value.clone(), old));
                    hash.set(&field, &value, Lifetime::Keep);
                    true
                }
                6..=7 => {
                    let removed = model.remove(&field).is_some();
                    assert_eq!(hash.remove(&field), removed);
                    removed
                }
                8 => {
                    let found = hash.view().find(&field).map(|it| (it.value.to_vec(), it.deadline));
                    assert_eq!(found.as_ref(), model.get(&field));
                    false
                }
                9 => {
                    model.insert(field.clone(), (value.clone(), Some(deadline)));
                    hash.set(&field, &value, Lifetime::Until(deadline));
                    true
                }
                10 => {
                    let new = (below(draw(), 3) > 0).then_some(deadline);
                    let changes = model.get(&field).is_some_and(|(_, old)| *old != new);
                    assert_eq!(hash.set_deadline(&field, new), model.contains_key(&field));
                    model.entry(field).and_modify(|it| it.1 = new);
                    changes
                }
                _ => {
                    now.0 += u64::try_from(below(draw(), 20)).unwrap();
                    let before = model.len();
                    model.retain(|_, (_, at)| at.is_none_or(|at| at > now));
                    let expired = hash.expire_parts(now, usize::MAX);
                    assert_eq!(expired, before - model.len());
                    expired > 0
                }
            };
            assert_eq!(hash.take_changed(), changed);
            if step % 50 == 0 {
                check(&hash, &model);
            }
        }
        check(&hash, &model);
        now.0 += 1_000;
        hash.expire_parts(now, usize::MAX);
        model.retain(|_, (_, at)| at.is_none());
        check(&hash, &model);
    }

    #[test]
    fn a_hash_is_what_the_naive_map_is() {
        for seed in 0..12 {
            run(seed, [20, 150, 1_000][usize::try_from(seed % 3).unwrap()], seed % 2 == 0);
        }
    }

    #[test]
    fn the_form_changes_at_the_thresholds_and_never_back() {
        let mut hash = Hash::default();
        for number in 0..128 {
            hash.set(format!("f{number}").as_bytes(), &[b'v'; 64], Lifetime::Forever);
        }
        assert_eq!(hash.view().encoding(), "listpack");
        hash.set(b"f127", b"again", Lifetime::Forever);
        assert_eq!(hash.view().encoding(), "listpack");
        hash.set(b"f128", b"", Lifetime::Forever);
        assert_eq!((hash.view().encoding(), hash.view().len()), ("hashtable", 129));
        for number in 1..129 {
            assert!(hash.remove(format!("f{number}").as_bytes()));
        }
        assert_eq!(hash.view().encoding(), "hashtable");
        for (field, value) in [(64, 65), (65, 64)] {
            let mut hash = Hash::default();
            hash.set(&vec![b'f'; field], &vec![b'v'; value], Lifetime::Forever);
            assert_eq!(hash.view().encoding(), "hashtable");
        }
    }

    #[test]
    fn a_packed_pair_costs_two_bytes_beyond_its_own() {
        let mut hash = Hash::default();
        hash.set(b"field", b"value", Lifetime::Forever);
        assert_eq!(hash.packed().map(<[u8]>::len), Some(12));
    }

    #[test]
    fn a_field_without_a_deadline_stays_packed() {
        let mut hash = Hash::default();
        hash.set(b"field", b"value", Lifetime::Keep);
        assert!(hash.set_deadline(b"field", None));
        assert!(!hash.set_deadline(b"other", Some(UnixMillis(7))));
        assert_eq!(hash.view().encoding(), "listpack");
        assert!(hash.set_deadline(b"field", Some(UnixMillis(7))));
        assert_eq!(
            (hash.view().encoding(), hash.next_deadline()),
            ("hashtable", Some(UnixMillis(7)))
        );
    }

    #[test]
    fn a_field_goes_at_its_deadline_and_not_before() {
        let mut hash = Hash::default();
        hash.set(b"a", b"1", Lifetime::Until(UnixMillis(100)));
        hash.set(b"b", b"2", Lifetime::Forever);
        assert_eq!(hash.expire_parts(UnixMillis(99), 9), 0);
        assert_eq!(hash.expire_parts(UnixMillis(100), 9), 1);
        assert_eq!((hash.view().get(b"a"), hash.view().get(b"b")), (None, Some(&b"2"[..])));
        assert_eq!(hash.next_deadline(), None);
    }

    #[test]
    fn samples_and_scans_meet_every_field() {
        for count in [5, 100, 1_000] {
            let mut draw = draws(3);
            let mut hash = Hash::default();
            for number in 0..count {
                hash.set(format!("f{number}").as_bytes(), b"v", Lifetime::Forever);
            }
            let (mut seen, mut cursor) = (BTreeSet::new(), 0);
            loop {
                cursor = hash.view().scan(cursor, 7, |it| assert!(seen.insert(it.field.to_vec())));
                if cursor == 0 {
                    break;
                }
            }
            assert_eq!(seen.len(), count);
            for wanted in [1, count / 5, count / 2, count, count * 2] {
                let mut sampled = BTreeSet::new();
                hash.view().sample(wanted, &mut draw, |it| assert!(sampled.insert(it.field)));
                assert_eq!(sampled.len(), wanted.min(count));
            }
            let mut times = BTreeMap::<&[u8], usize>::new();
            for _ in 0..count * 50 {
                *times.entry(hash.view().random(&mut draw).unwrap().field).or_default() += 1;
            }
            assert!(times.len() == count && times.values().all(|times| (20..90).contains(times)));
        }
    }

    #[test]
    fn what_a_large_hash_occupies_is_counted() {
        let mut hash = Hash::default();
        for number in 0..10_000 {
            hash.set(format!("field:{number:06}").as_bytes(), &[b'v'; 64], Lifetime::Forever);
        }
        let beyond = hash.heap_bytes() / 10_000 - 76;
        assert!((28..45).contains(&beyond), "{beyond} bytes a field beyond its own");
    }
}
