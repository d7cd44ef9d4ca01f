//! Members without order.
//!
//! Packed, a set is a run of members (`super::packed`) while there are at most 128 of at most 64 bytes each, or sorted integers
//! (`integers`) while there are at most 512 and all are integers. Large, it is a [`Table`]. Redis's default thresholds, so that
//! `OBJECT ENCODING` tells the same.

mod integers;

use std::collections::BTreeSet;
use std::ops::Deref;

use self::integers::{Integers, are_integers};
use super::packed::{self, Elements, Selection, below};
use super::small_bytes::{SmallBytes, allocated};
use super::table::{self, Place, Table};
use super::{Kind, Stored, Value};
use crate::decimal::Buffer;
use crate::decimal::parse_integer;

/// The most members of a packed set.
const PACKED_MEMBERS: usize = 128;
/// The longest member of a packed set, in bytes.
const PACKED_BYTES: usize = 64;
/// The most integers of a packed set.
const PACKED_INTEGERS: usize = 512;

/// An owned set.
#[derive(Clone, Debug, Default)]
pub struct Set {
    form: Form,
    changed: bool,
}

#[derive(Clone, Debug)]
enum Form {
    Packed(Vec<u8>),
    Large(Box<Table<SmallBytes>>),
}

impl Default for Form {
    fn default() -> Self {
        Self::Packed(Vec::new())
    }
}

impl table::Member for SmallBytes {
    fn name(&self) -> &[u8] {
        self.as_slice()
    }

    fn heap_bytes(&self) -> usize {
        Self::heap_bytes(self)
    }
}

/// A borrowed set.
#[derive(Clone, Copy, Debug)]
pub enum SetView<'v> {
    /// Small: one run of bytes.
    Packed(&'v [u8]),
    /// Large.
    Large(&'v Set),
}

/// What a view looks at.
#[derive(Clone, Copy, Debug)]
enum Look<'v> {
    Elements(&'v [u8]),
    Integers(Integers<'v>),
    Table(&'v Table<SmallBytes>),
}

/// A member of a set: bytes of the set's, or the text of an integer.
#[derive(Clone, Copy, Debug)]
pub enum Member<'v> {
    /// Bytes.
    Bytes(&'v [u8]),
    /// An integer's decimal text: the first `length` bytes.
    Text {
        /// The text, and room for a longer one.
        bytes: [u8; 20],
        /// How long it is.
        length: usize,
    },
}

impl Member<'_> {
    fn of_integer(value: i64) -> Self {
        let (mut buffer, mut bytes) = (Buffer::default(), [0; 20]);
        let text = buffer.integer(value);
        bytes[..text.len()].copy_from_slice(text);
        Self::Text { bytes, length: text.len() }
    }
}

impl Deref for Member<'_> {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Self::Bytes(bytes) => bytes,
            Self::Text { bytes, length } => &bytes[..*length],
        }
    }
}

impl<'v> SetView<'v> {
    fn look(&self) -> Look<'v> {
        let packed = match *self {
            Self::Packed(packed) => packed,
            Self::Large(set) => match &set.form {
                Form::Packed(packed) => packed,
                Form::Large(table) => return Look::Table(table),
            },
        };
        if are_integers(packed) {
            Look::Integers(Integers::of(packed))
        } else {
            Look::Elements(packed)
        }
    }

    /// An owned copy.
    #[must_use]
    pub fn to_owned(&self) -> Set {
        match self {
            Self::Packed(bytes) => Set::from_packed(bytes.to_vec()),
            Self::Large(large) => (*large).clone(),
        }
    }

    /// How many members there are. Walks over them while they are a run: at most 128.
    #[must_use]
    pub fn len(&self) -> usize {
        match self.look() {
            Look::Elements(run) => Elements::of(run).count(),
            Look::Integers(integers) => integers.len(),
            Look::Table(table) => table.len(),
        }
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        match self.look() {
            Look::Elements(run) => run.is_empty(),
            Look::Integers(integers) => integers.len() == 0,
            Look::Table(table) => table.is_empty(),
        }
    }

    /// Whether `member` is one.
    #[must_use]
    pub fn contains(&self, member: &[u8]) -> bool {
        match self.look() {
            Look::Elements(run) => Elements::of(run).any(|it| it == member),
            Look::Integers(integers) => {
                parse_integer(member).is_some_and(|value| integers.find(value).is_ok())
            }
            Look::Table(table) => table.find(member).is_some(),
        }
    }

    /// All members: integers in ascending order, others in no order that means anything.
    #[must_use]
    pub fn iter(&self) -> Iter<'v> {
        Iter(match self.look() {
            Look::Elements(run) => Walk::Elements(Elements::of(run)),
            Look::Integers(integers) => Walk::Integers(integers, 0),
            Look::Table(table) => Walk::Table(table.iter()),
        })
    }

    /// Visits at least `count` members from `cursor` on and returns where to go on, 0 at the end. A packed set is visited whole.
    pub fn scan(&self, cursor: u64, count: usize, mut visit: impl FnMut(Member<'v>)) -> u64 {
        if let Look::Table(table) = self.look() {
            return table.scan(cursor, count, |member| visit(Member::Bytes(member.as_slice())));
        }
        self.iter().for_each(visit);
        0
    }

    /// A member that `draw`'s random numbers pick, all equally likely; None if there is none.
    pub fn random(&self, draw: &mut impl FnMut() -> u64) -> Option<Member<'v>> {
        match self.look() {
            Look::Elements(run) => {
                let len = self.len();
                let index = if len == 0 { return None } else { below(draw(), len) };
                Elements::of(run).nth(index).map(Member::Bytes)
            }
            Look::Integers(integers) => {
                Some(Member::of_integer(integers.at(below(draw(), integers.len()))))
            }
            Look::Table(table) => {
                table.pick(draw).map(|place| Member::Bytes(table.at(place).as_slice()))
            }
        }
    }

    /// Visits `count` different members that `draw`'s random numbers pick; all, if there are fewer.
    pub fn sample(
        &self,
        count: usize,
        draw: &mut impl FnMut() -> u64,
        mut visit: impl FnMut(Member<'v>),
    ) {
        let len = self.len();
        if let Look::Table(table) = self.look()
            && count < len / 3
        {
            for place in distinct_places(table, count, draw) {
                visit(Member::Bytes(table.at(place).as_slice()));
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
            Look::Elements(_) => "listpack",
            Look::Integers(_) => "intset",
            Look::Table(_) => "hashtable",
        }
    }

    /// What the set occupies beyond the entry itself, in bytes.
    #[must_use]
    pub fn heap_bytes(&self) -> usize {
        match self {
            Self::Packed(packed) => packed.len(),
            Self::Large(set) => set.heap_bytes(),
        }
    }
}

/// `count` different places of `table`. `count` is well below the number of members, so that few draws hit a place again.
pub(super) fn distinct_places<M: table::Member>(
    table: &Table<M>,
    count: usize,
    draw: &mut impl FnMut() -> u64,
) -> BTreeSet<Place> {
    let mut places = BTreeSet::new();
    while places.len() < count {
        let Some(place) = table.pick(draw) else { break };
        places.insert(place);
    }
    places
}

/// The members of a set.
#[derive(Clone, Debug)]
pub struct Iter<'v>(Walk<'v>);

#[derive(Clone, Debug)]
enum Walk<'v> {
    Elements(Elements<'v>),
    Integers(Integers<'v>, usize),
    Table(table::Iter<'v, SmallBytes>),
}

impl<'v> Iterator for Iter<'v> {
    type Item = Member<'v>;

    fn next(&mut self) -> Option<Member<'v>> {
        match &mut self.0 {
            Walk::Elements(elements) => elements.next().map(Member::Bytes),
            Walk::Integers(integers, next) => (*next < integers.len()).then(|| {
                *next += 1;
                Member::of_integer(integers.at(*next - 1))
            }),
            Walk::Table(members) => members.next().map(|it| Member::Bytes(it.as_slice())),
        }
    }
}

impl Set {
    /// A view of it.
    #[must_use]
    pub fn view(&self) -> SetView<'_> {
        match &self.form {
            Form::Packed(packed) => SetView::Packed(packed),
            Form::Large(_) => SetView::Large(self),
        }
    }

    /// Adds `member`. False if it is there.
    pub fn insert(&mut self, member: &[u8]) -> bool {
        let added = match &mut self.form {
            Form::Packed(packed) => insert_packed(packed, member),
            Form::Large(table) => Some(insert_large(table, member)),
        };
        let added = added.unwrap_or_else(|| insert_large(self.grow(), member));
        self.changed |= added;
        added
    }

    /// Makes it large, if it is not.
    fn grow(&mut self) -> &mut Table<SmallBytes> {
        if let Form::Packed(_) = &self.form {
            let mut table = Box::<Table<SmallBytes>>::default();
            for member in self.view().iter() {
                table.insert(SmallBytes::from(&*member));
            }
            self.form = Form::Large(table);
        }
        match &mut self.form {
            Form::Large(table) => table,
            Form::Packed(_) => unreachable!("it was just made large"),
        }
    }

    /// Removes `member`. False if it is not there.
    pub fn remove(&mut self, member: &[u8]) -> bool {
        let removed = match &mut self.form {
            Form::Packed(packed) if are_integers(packed) => {
                let integers = Integers::of(packed);
                let found = parse_integer(member).and_then(|value| integers.find(value).ok());
                found.map(|index| integers::remove_at(packed, index)).is_some()
            }
            Form::Packed(packed) => {
                let mut elements = Elements::of(packed);
                let mut from = 0;
                let found = loop {
                    match elements.next() {
                        None => break false,
                        Some(it) if it == member => break true,
                        Some(_) => from = elements.offset(),
                    }
                };
                if found {
                    let to = elements.offset();
                    packed::replace(packed, from..to, &[]);
                }
                found
            }
            Form::Large(table) => table.remove(member).is_some(),
        };
        self.changed |= removed;
        removed
    }

    /// Removes all members.
    pub fn clear(&mut self) {
        self.changed |= !self.view().is_empty();
        self.form = Form::default();
    }

    /// Removes a member that `draw`'s random numbers pick, all equally likely.
    pub fn take_random(&mut self, draw: &mut impl FnMut() -> u64) -> Option<Vec<u8>> {
        if let Form::Large(table) = &mut self.form {
            let place = table.pick(draw)?;
            self.changed = true;
            return Some(table.remove_at(place).as_slice().to_vec());
        }
        let member = self.view().random(draw)?.to_vec();
        self.remove(&member);
        Some(member)
    }
}

/// Adds `member` to a packed set, unless it must become large first: then None.
fn insert_packed(packed: &mut Vec<u8>, member: &[u8]) -> Option<bool> {
    if packed.is_empty() || are_integers(packed) {
        let len = if packed.is_empty() { 0 } else { Integers::of(packed).len() };
        if let Some(value) = parse_integer(member) {
            if len < PACKED_INTEGERS {
                return Some(integers::insert(packed, value));
            }
            return Integers::of(packed).find(value).is_ok().then_some(false);
        }
        if len >= PACKED_MEMBERS || member.len() > PACKED_BYTES {
            return None;
        }
        let mut run = Vec::with_capacity(packed.len() + member.len() + 1);
        for it in SetView::Packed(packed).iter() {
            packed::push(&mut run, &it);
        }
        packed::push(&mut run, member);
        *packed = run;
        return Some(true);
    }
    let mut len = 0;
    for it in Elements::of(packed) {
        if it == member {
            return Some(false);
        }
        len += 1;
    }
    if len >= PACKED_MEMBERS || member.len() > PACKED_BYTES {
        return None;
    }
    packed::push(packed, member);
    Some(true)
}

fn insert_large(table: &mut Table<SmallBytes>, member: &[u8]) -> bool {
    table.insert_new(member, || SmallBytes::from(member))
}

impl<'m> FromIterator<&'m [u8]> for Set {
    fn from_iter<I: IntoIterator<Item = &'m [u8]>>(members: I) -> Self {
        let mut set = Self::default();
        for member in members {
            set.insert(member);
        }
        set
    }
}

impl Stored for Set {
    const KIND: Kind = Kind::Set;

    fn from_packed(bytes: Vec<u8>) -> Self {
        Self { form: Form::Packed(bytes), changed: false }
    }

    fn packed(&self) -> Option<&[u8]> {
        match &self.form {
            Form::Packed(packed) => Some(packed),
            Form::Large(_) => None,
        }
    }

    fn into_packed(self) -> Result<Vec<u8>, Self> {
        match self.form {
            Form::Packed(packed) => Ok(packed),
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
            Form::Packed(packed) => allocated(packed.capacity()),
            Form::Large(table) => allocated(size_of::<Table<SmallBytes>>()) + table.heap_bytes(),
        }
    }

    fn into_value(self) -> Value {
        Value::Set(self)
    }

    fn from_value(value: &mut Value) -> Option<&mut Self> {
        if let Value::Set(it) = value { Some(it) } else { None }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn draws(seed: u64) -> impl FnMut() -> u64 {
        use rand_core::{Rng as _, SeedableRng as _};
        let mut random = rand_chacha::ChaCha8Rng::seed_from_u64(seed);
        move || random.next_u64()
    }

    fn members(set: &Set) -> BTreeSet<Vec<u8>> {
        set.view().iter().map(|member| member.to_vec()).collect()
    }

    /// A member of one of several flavours: short text, integers, and sometimes something long.
    fn member(flavour: usize, draw: &mut impl FnMut() -> u64) -> Vec<u8> {
        let number = below(draw(), 700);
        match (flavour, below(draw(), 100)) {
            (0, _) => number.to_string().into_bytes(),
            (1, _) => format!("member:{number}").into_bytes(),
            (2, 0) => vec![b'x'; 60 + number % 10],
            (2, 1..=30) => format!("-{number}").into_bytes(),
            (2, _) => format!("0{number}").into_bytes(),
            _ => (u64::MAX / (1 + number as u64)).to_string().into_bytes(),
        }
    }

    #[test]
    fn a_set_is_what_the_naive_set_is() {
        for seed in 0..40 {
            let flavour = usize::try_from(seed % 4).unwrap();
            let mut draw = draws(seed);
            let (mut set, mut model) = (Set::default(), BTreeSet::new());
            for step in 0..3_000 {
                let member = member(flavour, &mut draw);
                let growing = (step / 700) % 2 == 0;
                let before = members_changed(&mut set);
                assert!(!before);
                match below(draw(), 10) {
                    0 => assert_eq!(set.view().contains(&member), model.contains(&member)),
                    1 if model.len() > 5 => {
                        let taken = set.take_random(&mut draw).unwrap();
                        assert!(model.remove(&taken));
                        assert!(members_changed(&mut set));
                    }
                    choice if (choice < 8) == growing => {
                        let added = model.insert(member.clone());
                        assert_eq!(set.insert(&member), added);
                        assert_eq!(members_changed(&mut set), added);
                    }
                    _ => {
                        let removed = model.remove(&member);
                        assert_eq!(set.remove(&member), removed);
                        assert_eq!(members_changed(&mut set), removed);
                    }
                }
                assert_eq!(set.view().len(), model.len());
                assert_eq!(set.is_empty(), model.is_empty());
                if step % 100 == 0 {
                    assert_eq!(members(&set), model);
                    let packed = set.clone().into_packed().map(Set::from_packed);
                    assert_eq!(members(&packed.unwrap_or_else(|set| set)), model);
                    if let Form::Large(table) = &set.form {
                        table.check();
                    }
                }
            }
        }
    }

    fn members_changed(set: &mut Set) -> bool {
        set.take_changed()
    }

    #[test]
    fn the_form_changes_at_the_thresholds_and_never_back() {
        let mut set = Set::default();
        for number in 0..512 {
            set.insert(number.to_string().as_bytes());
            assert_eq!(set.view().encoding(), "intset");
        }
        set.insert(b"511");
        assert_eq!(set.view().encoding(), "intset");
        set.insert(b"512");
        assert_eq!(set.view().encoding(), "hashtable");
        for number in 1..=512 {
            set.remove(number.to_string().as_bytes());
        }
        assert_eq!(set.view().encoding(), "hashtable");

        let mut set: Set = [&b"1"[..], b"-20"].into_iter().collect();
        set.insert(b"01");
        assert_eq!(set.view().encoding(), "listpack");
        for number in 0..125 {
            set.insert(format!("m{number}").as_bytes());
        }
        assert_eq!((set.view().encoding(), set.view().len()), ("listpack", 128));
        assert_eq!(set.clone().into_packed().map(|packed| packed.len()).ok(), Some(524));
        set.insert(b"one more");
        assert_eq!((set.view().encoding(), set.view().len()), ("hashtable", 129));

        let mut set: Set = [[b'a'; 64].as_slice()].into_iter().collect();
        assert_eq!(set.view().encoding(), "listpack");
        set.insert(&[b'b'; 65]);
        assert_eq!(set.view().encoding(), "hashtable");
        let mut set: Set =
            (0..200).map(|number| number.to_string()).fold(Set::default(), |mut set, it| {
                set.insert(it.as_bytes());
                set
            });
        set.insert(b"text");
        assert_eq!((set.view().encoding(), set.view().len()), ("hashtable", 201));
    }

    #[test]
    fn a_number_that_is_not_written_canonically_is_no_integer() {
        let mut set: Set = [&b"7"[..]].into_iter().collect();
        for other in [&b"07"[..], b"+7", b"7 ", b"-0", b"", b"9223372036854775808"] {
            assert!(!set.view().contains(other));
            assert!(set.insert(other), "{other:?}");
        }
        assert_eq!(set.view().len(), 7);
    }

    #[test]
    fn samples_are_different_members_and_all_are_equally_likely() {
        for (count, text) in [(100, "m"), (100, ""), (400, ""), (400, "m")] {
            let mut draw = draws(7);
            let mut set = Set::default();
            for number in 0..count {
                set.insert(format!("{text}{number}").as_bytes());
            }
            let mut times = std::collections::BTreeMap::<Vec<u8>, usize>::new();
            for wanted in [1, 10, count / 2, count - 1, count, count + 5] {
                let mut sampled = BTreeSet::new();
                set.view().sample(wanted, &mut draw, |member| {
                    assert!(sampled.insert(member.to_vec()));
                });
                assert_eq!(sampled.len(), wanted.min(count));
                assert!(sampled.is_subset(&members(&set)));
            }
            for _ in 0..count * 20 {
                let mut note = |member: Member<'_>| *times.entry(member.to_vec()).or_default() += 1;
                set.view().sample(5, &mut draw, &mut note);
                note(set.view().random(&mut draw).unwrap());
            }
            assert_eq!(times.len(), count);
            assert!(times.values().all(|times| (60..200).contains(times)), "{times:?}");
        }
    }

    #[test]
    fn a_scan_meets_every_member() {
        for count in [3, 128, 129, 5_000] {
            let mut set = Set::default();
            for number in 0..count {
                set.insert(format!("member {number}").as_bytes());
            }
            let (mut seen, mut cursor, mut steps) = (BTreeSet::new(), 0, 0);
            loop {
                cursor =
                    set.view().scan(cursor, 100, |member| assert!(seen.insert(member.to_vec())));
                steps += 1;
                if cursor == 0 {
                    break;
                }
            }
            assert_eq!(seen, members(&set));
            assert!(steps <= count / 100 + 1);
        }
        assert_eq!(Set::default().view().scan(u64::MAX, 10, |_| panic!("nothing to see")), 0);
    }

    #[test]
    fn what_a_large_set_occupies_is_counted() {
        let mut set = Set::default();
        for number in 0..10_000 {
            set.insert(format!("member:{number:09}").as_bytes());
        }
        let each = set.heap_bytes() / 10_000;
        assert!((28..36).contains(&each), "{each} bytes a member of 16");
    }
}
