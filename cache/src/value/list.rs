//! Elements in order.
//!
//! Packed, a list is one run that is walked from either end (`entries`), of at most `PACKED` bytes. Large, it is a row of such
//! runs (`chunks`): pushing and popping take the same time however long the list is; what is in the middle is found by walking
//! over chunks, some hundreds of short elements a step.

mod chunks;
mod entries;

use self::chunks::{Chunks, Walk};
use self::entries::{Entries, entry_bytes};
use super::small_bytes::allocated;
use super::{Kind, Stored, Value};

/// The most bytes of the packed form. A longer run would make every change of a small list expensive: the store copies it.
const PACKED: usize = 2048;

/// Up to how many bytes Redis keeps a list in one piece (`list-max-listpack-size` −2), for the name of its encoding.
const LISTPACK: usize = 8192;

/// An end of a list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// The head, where `LPUSH` pushes.
    Front,
    /// The tail, where `RPUSH` pushes.
    Back,
}

/// An owned list.
#[derive(Clone, Debug, Default)]
pub struct List {
    form: Form,
    changed: bool,
}

#[derive(Clone, Debug)]
enum Form {
    Packed(Vec<u8>),
    Large(Box<Chunks>),
}

impl Default for Form {
    fn default() -> Self {
        Self::Packed(Vec::new())
    }
}

/// A borrowed list.
#[derive(Clone, Copy, Debug)]
pub enum ListView<'v> {
    /// Small: one run of bytes.
    Packed(&'v [u8]),
    /// Large.
    Large(&'v List),
}

/// Elements, from both ends.
#[derive(Clone, Debug, Default)]
pub struct Elements<'v>(Walk<'v>);

impl<'v> Iterator for Elements<'v> {
    type Item = &'v [u8];

    fn next(&mut self) -> Option<&'v [u8]> {
        self.0.next()
    }
}

impl DoubleEndedIterator for Elements<'_> {
    fn next_back(&mut self) -> Option<Self::Item> {
        self.0.next_back()
    }
}

/// A view, with the large form laid open.
enum Open<'v> {
    Packed(&'v [u8]),
    Large(&'v Chunks),
}

impl<'v> ListView<'v> {
    fn open(self) -> Open<'v> {
        match self {
            Self::Packed(run) => Open::Packed(run),
            Self::Large(list) => match &list.form {
                Form::Packed(run) => Open::Packed(run),
                Form::Large(chunks) => Open::Large(chunks),
            },
        }
    }

    /// An owned copy.
    #[must_use]
    pub fn to_owned(&self) -> List {
        match self {
            Self::Packed(bytes) => List::from_packed(bytes.to_vec()),
            Self::Large(large) => (*large).clone(),
        }
    }

    /// How many elements there are.
    #[must_use]
    pub fn len(&self) -> usize {
        match self.open() {
            Open::Packed(run) => Entries::of(run).count(),
            Open::Large(chunks) => chunks.len(),
        }
    }

    /// Whether there is none: never, for a list that is stored.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.bytes() == 0
    }

    /// Bytes of all elements with their lengths.
    #[must_use]
    pub fn bytes(&self) -> usize {
        match self.open() {
            Open::Packed(run) => run.len(),
            Open::Large(chunks) => chunks.bytes(),
        }
    }

    /// The name that Redis has for the form in which it would keep the list.
    #[must_use]
    pub fn encoding(&self) -> &'static str {
        if self.bytes() <= LISTPACK { "listpack" } else { "quicklist" }
    }

    /// The element at `index`, counted from 0.
    #[must_use]
    pub fn get(&self, index: usize) -> Option<&'v [u8]> {
        self.iter_from(index).next()
    }

    /// The element at an end.
    #[must_use]
    pub fn peek(&self, end: End) -> Option<&'v [u8]> {
        match (self.open(), end) {
            (Open::Packed(run), End::Front) => Entries::of(run).next(),
            (Open::Packed(run), End::Back) => Entries::of(run).next_back(),
            (Open::Large(chunks), end) => chunks.peek(end),
        }
    }

    /// All elements.
    #[must_use]
    pub fn iter(&self) -> Elements<'v> {
        self.iter_from(0)
    }

    /// The elements from `index` on.
    #[must_use]
    pub fn iter_from(&self, index: usize) -> Elements<'v> {
        Elements(match self.open() {
            Open::Packed(run) => {
                let mut walk = Walk::of_run(run);
                for _ in 0..index {
                    if walk.next().is_none() {
                        break;
                    }
                }
                walk
            }
            Open::Large(chunks) => chunks.iter_from(index),
        })
    }

    /// The elements before `index`: to be walked backwards, from the one just before it.
    #[must_use]
    pub fn iter_before(&self, index: usize) -> Elements<'v> {
        Elements(match self.open() {
            Open::Packed(run) => {
                let mut walk = Walk::of_run(run);
                for _ in index..self.len() {
                    walk.next_back();
                }
                walk
            }
            Open::Large(chunks) => chunks.iter_before(index),
        })
    }
}

impl List {
    /// A view of it.
    #[must_use]
    pub fn view(&self) -> ListView<'_> {
        match &self.form {
            Form::Packed(run) => ListView::Packed(run),
            Form::Large(_) => ListView::Large(self),
        }
    }

    /// How many elements there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.view().len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.view().is_empty()
    }

    /// Makes it large, if a run that is `growth` bytes longer would be too long.
    fn make_room(&mut self, growth: usize) {
        if let Form::Packed(run) = &mut self.form
            && run.len() + growth > PACKED
        {
            let count = Entries::of(run).count();
            self.form = Form::Large(Box::new(Chunks::from_run(std::mem::take(run), count)));
        }
    }

    /// Adds an element at an end.
    pub fn push(&mut self, end: End, element: &[u8]) {
        let needed = entry_bytes(element.len());
        self.make_room(needed);
        self.changed = true;
        match (&mut self.form, end) {
            (Form::Packed(run), End::Back) => entries::push(run, element),
            (Form::Packed(run), End::Front) => insert_at(run, 0, element),
            (Form::Large(chunks), end) => chunks.push(end, element),
        }
    }

    /// Removes the element at an end, and shows it to `take`. None if there is none.
    pub fn pop<R>(&mut self, end: End, take: impl FnOnce(&[u8]) -> R) -> Option<R> {
        let taken = take(self.view().peek(end)?);
        self.drop_elements(end, 1);
        Some(taken)
    }

    /// Drops `count` elements from an end; all, if there are fewer.
    pub fn drop_elements(&mut self, end: End, count: usize) {
        if count == 0 || self.is_empty() {
            return;
        }
        self.changed = true;
        match &mut self.form {
            Form::Packed(run) => {
                let mut entries = Entries::of(run);
                for _ in 0..count {
                    let dropped = match end {
                        End::Front => entries.next(),
                        End::Back => entries.next_back(),
                    };
                    if dropped.is_none() {
                        break;
                    }
                }
                let left = entries.bytes();
                match end {
                    End::Front => drop(run.drain(..run.len() - left)),
                    End::Back => run.truncate(left),
                }
            }
            Form::Large(chunks) => chunks.drop_elements(end, count),
        }
    }

    /// Puts `element` in the place of the one at `index`. False if none is there.
    pub fn set(&mut self, index: usize, element: &[u8]) -> bool {
        let Some(old) = self.view().get(index).map(<[u8]>::len) else { return false };
        self.make_room(entry_bytes(element.len()).saturating_sub(entry_bytes(old)));
        self.changed = true;
        match &mut self.form {
            Form::Packed(run) => {
                let at = offset_of(run, index);
                run.drain(at..at + entry_bytes(old));
                insert_at(run, at, element);
            }
            Form::Large(chunks) => chunks.set(index, element),
        }
        true
    }

    /// Puts `element` before the one at `index`; at the end, if there are no more.
    pub fn insert(&mut self, index: usize, element: &[u8]) {
        self.make_room(entry_bytes(element.len()));
        self.changed = true;
        match &mut self.form {
            Form::Packed(run) => {
                let at = offset_of(run, index);
                insert_at(run, at, element);
            }
            Form::Large(chunks) => chunks.insert(index, element),
        }
    }

    /// Removes at most `most` elements that equal `element`, from an end on. Returns how many they were.
    pub fn remove(&mut self, element: &[u8], most: usize, end: End) -> usize {
        let removed = match &mut self.form {
            Form::Packed(run) => remove_packed(run, element, most, end),
            Form::Large(chunks) => chunks.remove(element, most, end),
        };
        self.changed |= removed > 0;
        removed
    }

    /// Panics unless everything is as it should be.
    #[cfg(test)]
    fn check(&self) {
        match &self.form {
            Form::Packed(run) => assert!(run.len() <= PACKED),
            Form::Large(chunks) => chunks.check(),
        }
    }
}

/// Where element `index` of a run begins; the end, if there is none.
fn offset_of(run: &[u8], index: usize) -> usize {
    let mut entries = Entries::of(run);
    for _ in 0..index {
        if entries.next().is_none() {
            break;
        }
    }
    run.len() - entries.bytes()
}

/// Puts an element at byte `at` of a run.
fn insert_at(run: &mut Vec<u8>, at: usize, element: &[u8]) {
    let (needed, old) = (entry_bytes(element.len()), run.len());
    run.resize(old + needed, 0);
    run.copy_within(at..old, at + needed);
    entries::write(&mut run[at..at + needed], element);
}

fn remove_packed(run: &mut Vec<u8>, element: &[u8], most: usize, end: End) -> usize {
    let equal = Entries::of(run).filter(|it| *it == element).count();
    let removed = equal.min(most);
    if removed == 0 {
        return 0;
    }
    let first = if end == End::Front { 0 } else { equal - removed };
    let (old, mut met) = (std::mem::take(run), 0);
    run.reserve_exact(old.len());
    for it in Entries::of(&old) {
        if it == element {
            met += 1;
            if met > first && met <= first + removed {
                continue;
            }
        }
        entries::push(run, it);
    }
    removed
}

impl Stored for List {
    const KIND: Kind = Kind::List;

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
            Form::Large(chunks) => allocated(size_of::<Chunks>()) + chunks.heap_bytes(),
        }
    }

    fn into_value(self) -> Value {
        Value::List(self)
    }

    fn from_value(value: &mut Value) -> Option<&mut Self> {
        if let Value::List(it) = value { Some(it) } else { None }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use super::*;
    use crate::value::packed::below;

    fn draws(seed: u64) -> impl FnMut(usize) -> usize {
        use rand_core::{Rng as _, SeedableRng as _};
        let mut random = rand_chacha::ChaCha8Rng::seed_from_u64(seed);
        move |limit| below(random.next_u64(), limit)
    }

    fn assert_same(list: &List, model: &VecDeque<Vec<u8>>) {
        list.check();
        assert_eq!(list.len(), model.len());
        assert_eq!(list.is_empty(), model.is_empty());
        assert!(list.view().iter().eq(model.iter()));
        assert!(list.view().iter().rev().eq(model.iter().rev()));
    }

    #[test]
    fn a_list_holds_what_a_deque_holds() {
        for seed in 0..12 {
            let mut draw = draws(seed);
            let (mut list, mut model) = (List::default(), VecDeque::<Vec<u8>>::new());
            let longest = [3, 20, 300, 3_000, 9_000][below(seed * 0x1357_9BDF_0246_8ACE, 5)];
            for step in 0..3_000 {
                let length = if draw(20) == 0 { draw(longest) } else { draw(12) };
                let element = vec![b'a' + u8::try_from(draw(3)).unwrap(); length];
                let index = draw(model.len() + 1);
                let end = if draw(2) == 0 { End::Front } else { End::Back };
                match draw(if step / 500 % 2 == 0 { 12 } else { 20 }) {
                    0..6 if end == End::Front => {
                        list.push(end, &element);
                        model.push_front(element);
                    }
                    0..6 => {
                        list.push(end, &element);
                        model.push_back(element);
                    }
                    6 | 7 => {
                        list.insert(index, &element);
                        model.insert(index, element);
                    }
                    8 => {
                        assert_eq!(list.set(index, &element), index < model.len());
                        if let Some(old) = model.get_mut(index) {
                            *old = element;
                        }
                    }
                    9 => {
                        let most = 1 + draw(4);
                        let mut removed = 0;
                        while removed < most {
                            let mut found = model.iter().position(|it| *it == element);
                            if end == End::Back {
                                found = model.iter().rposition(|it| *it == element);
                            }
                            let Some(found) = found else { break };
                            model.remove(found);
                            removed += 1;
                        }
                        list.take_changed();
                        assert_eq!(list.remove(&element, most, end), removed);
                        assert_eq!(list.take_changed(), removed > 0);
                    }
                    10 => {
                        let count = draw(30).min(model.len());
                        list.drop_elements(end, count);
                        match end {
                            End::Front => drop(model.drain(..count)),
                            End::Back => model.truncate(model.len() - count),
                        }
                    }
                    _ => {
                        let popped = list.pop(end, <[u8]>::to_vec);
                        let expected = match end {
                            End::Front => model.pop_front(),
                            End::Back => model.pop_back(),
                        };
                        assert_eq!(popped, expected);
                    }
                }
                assert_eq!(list.view().get(index), model.get(index).map(Vec::as_slice));
                let before: Vec<&[u8]> = list.view().iter_before(index).rev().take(3).collect();
                let expected: Vec<&Vec<u8>> = model.iter().take(index).rev().take(3).collect();
                assert_eq!(before, expected);
                assert!(list.view().iter_from(index).take(3).eq(model.iter().skip(index).take(3)));
                if step % 100 == 0 {
                    assert_same(&list, &model);
                }
            }
            assert_same(&list, &model);
        }
    }

    #[test]
    fn a_list_of_a_million_is_pushed_and_popped_at_both_ends() {
        let mut list = List::default();
        for number in 0..500_000u32 {
            list.push(End::Front, &number.to_be_bytes());
            list.push(End::Back, &number.to_be_bytes());
        }
        assert_eq!(list.len(), 1_000_000);
        assert!(list.heap_bytes() < 7_000_000, "{}", list.heap_bytes());
        assert_eq!(list.view().get(250_000), Some(&249_999u32.to_be_bytes()[..]));
        for number in (0..500_000u32).rev() {
            assert_eq!(list.pop(End::Front, <[u8]>::to_vec).unwrap(), number.to_be_bytes());
            assert_eq!(list.pop(End::Back, <[u8]>::to_vec).unwrap(), number.to_be_bytes());
        }
        assert!(list.is_empty() && list.heap_bytes() < 4_096, "{}", list.heap_bytes());
        list.check();
    }

    #[test]
    fn a_list_becomes_large_at_its_limit_and_stays_so() {
        let mut list = List::default();
        while list.packed().is_some() {
            list.push(End::Back, b"0123456789");
        }
        assert_eq!(list.len(), PACKED / 12 + 1);
        list.drop_elements(End::Front, PACKED / 12);
        assert!(list.packed().is_none());
        assert_eq!(list.view().encoding(), "listpack");
        list.push(End::Back, &[0; LISTPACK]);
        assert_eq!(list.view().encoding(), "quicklist");
        let copy = list.view().to_owned();
        assert!(copy.view().iter().eq(list.view().iter()));
    }

    #[test]
    fn reading_changes_nothing() {
        let mut list = List::default();
        assert!(!list.take_changed());
        list.push(End::Back, b"a");
        assert!(list.take_changed());
        assert!(!list.set(5, b"b") && list.remove(b"z", 9, End::Front) == 0);
        list.drop_elements(End::Front, 0);
        assert!(!list.take_changed());
        assert_eq!(list.pop(End::Back, |it| it.to_vec()), Some(b"a".to_vec()));
        assert!(list.take_changed() && list.is_empty());
        assert_eq!(list.pop(End::Back, |_| ()), None);
        assert!(!list.take_changed());
    }
}
