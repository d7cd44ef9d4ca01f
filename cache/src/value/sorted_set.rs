//! Members ordered by score, and by name where scores are equal.
//!
//! Packed, a sorted set is one run in its order (`packed`). Large, members are kept once and found by hash (`members`), and their
//! numbers stand in a counted order (`order`): adding, removing, ranks, and the ends of ranges by rank, score or name take
//! logarithmic time.
//!
//! Every range is a range of ranks: the ends of a range by score or by name are found first. A score is never NaN.

mod members;
mod order;
mod packed;

use std::cmp::Ordering;
use std::ops::Range;

use self::members::Members;
use self::order::{Order, Place};
use self::packed::Pairs;
use super::small_bytes::allocated;
use super::{Kind, Stored, Value};

/// The most members, and the longest name in bytes, up to which Redis keeps a sorted set packed (`zset-max-listpack-entries`,
/// `zset-max-listpack-value`). Also our own bounds.
const LISTPACK: (usize, usize) = (128, 64);

/// The most bytes of the packed form: what the store keeps among its small values.
const PACKED: usize = 3072;

/// The order of members, each a score and a name. Scores that are both zero are equal, whatever their sign.
#[must_use]
pub fn compare(left: (f64, &[u8]), right: (f64, &[u8])) -> Ordering {
    left.0.partial_cmp(&right.0).unwrap_or(Ordering::Equal).then_with(|| left.1.cmp(right.1))
}

/// A score as Redis keeps it in a small set, where whole numbers are integers: zero has no sign there.
fn without_sign(score: f64) -> f64 {
    score + 0.0
}

/// An end of a range of scores.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ScoreBound {
    /// The score.
    pub score: f64,
    /// Whether the range ends before it.
    pub exclusive: bool,
}

/// An end of a range of names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NameBound<'b> {
    /// Before all names (`-`).
    Lowest,
    /// After all names (`+`).
    Highest,
    /// This name, which belongs to the range (`[`).
    Inclusive(&'b [u8]),
    /// This name, which does not (`(`).
    Exclusive(&'b [u8]),
}

impl ScoreBound {
    /// Whether `score` is too low for a range that begins here.
    fn is_above(&self, score: f64) -> bool {
        if self.exclusive { score <= self.score } else { score < self.score }
    }

    /// Whether `score` is low enough for a range that ends here.
    fn is_not_below(&self, score: f64) -> bool {
        if self.exclusive { score < self.score } else { score <= self.score }
    }
}

impl NameBound<'_> {
    fn is_above(&self, name: &[u8]) -> bool {
        match self {
            Self::Lowest => false,
            Self::Highest => true,
            Self::Inclusive(bound) => name < *bound,
            Self::Exclusive(bound) => name <= *bound,
        }
    }

    fn is_not_below(&self, name: &[u8]) -> bool {
        match self {
            Self::Lowest => false,
            Self::Highest => true,
            Self::Inclusive(bound) => name <= *bound,
            Self::Exclusive(bound) => name < *bound,
        }
    }
}

/// An owned sorted set.
#[derive(Clone, Debug, Default)]
pub struct SortedSet {
    form: Form,
    changed: bool,
}

#[derive(Clone, Debug)]
enum Form {
    Packed(Vec<u8>),
    Large(Box<Large>),
}

impl Default for Form {
    fn default() -> Self {
        Self::Packed(Vec::new())
    }
}

/// The large form.
#[derive(Clone, Debug, Default)]
struct Large {
    members: Members,
    order: Order,
    /// Whether Redis too would have given up the packed form.
    beyond_listpack: bool,
}

/// A borrowed sorted set.
#[derive(Clone, Copy, Debug)]
pub enum SortedSetView<'v> {
    /// Small: one run of bytes.
    Packed(&'v [u8]),
    /// Large.
    Large(&'v SortedSet),
}

/// A view, with the large form laid open.
#[derive(Clone, Copy)]
enum Open<'v> {
    Packed(&'v [u8]),
    Large(&'v Large),
}

/// Members with their scores, in order, upwards or downwards.
#[derive(Clone, Debug)]
pub struct InOrder<'v>(Walk<'v>);

#[derive(Clone, Debug)]
enum Walk<'v> {
    Up(Pairs<'v>),
    Down(std::iter::Rev<std::vec::IntoIter<(&'v [u8], f64)>>),
    Large { large: &'v Large, place: Option<Place>, upwards: bool },
}

impl<'v> Iterator for InOrder<'v> {
    type Item = (&'v [u8], f64);

    fn next(&mut self) -> Option<Self::Item> {
        match &mut self.0 {
            Walk::Up(pairs) => pairs.next(),
            Walk::Down(pairs) => pairs.next(),
            Walk::Large { large, place, upwards } => {
                let here = (*place)?;
                let (id, score) = large.order.get(here)?;
                *place = if *upwards { large.order.next(here) } else { large.order.previous(here) };
                Some((large.members.name(id), score))
            }
        }
    }
}

impl<'v> SortedSetView<'v> {
    fn open(self) -> Open<'v> {
        match self {
            Self::Packed(run) => Open::Packed(run),
            Self::Large(set) => match &set.form {
                Form::Packed(run) => Open::Packed(run),
                Form::Large(large) => Open::Large(large),
            },
        }
    }

    /// An owned copy.
    #[must_use]
    pub fn to_owned(&self) -> SortedSet {
        match self {
            Self::Packed(bytes) => SortedSet::from_packed(bytes.to_vec()),
            Self::Large(large) => (*large).clone(),
        }
    }

    /// How many members there are.
    #[must_use]
    pub fn len(&self) -> usize {
        match self.open() {
            Open::Packed(run) => Pairs::of(run).count(),
            Open::Large(large) => large.members.len(),
        }
    }

    /// Whether there is none: never, for a set that is stored.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        match self.open() {
            Open::Packed(run) => run.is_empty(),
            Open::Large(large) => large.members.len() == 0,
        }
    }

    /// The name that Redis has for the form in which it would keep the set.
    #[must_use]
    pub fn encoding(&self) -> &'static str {
        match self.open() {
            Open::Large(large) if large.beyond_listpack => "skiplist",
            Open::Packed(_) | Open::Large(_) => "listpack",
        }
    }

    /// The score of a member.
    #[must_use]
    pub fn score(&self, member: &[u8]) -> Option<f64> {
        match self.open() {
            Open::Packed(run) => Pairs::of(run).find(|(it, _)| *it == member).map(|it| it.1),
            Open::Large(large) => Some(large.members.score(large.members.find(member)?)),
        }
    }

    /// The rank of a member, counted from the lowest, and its score.
    #[must_use]
    pub fn rank(&self, member: &[u8]) -> Option<(usize, f64)> {
        match self.open() {
            Open::Packed(run) => {
                let mut pairs = Pairs::of(run).enumerate();
                let (rank, (_, score)) = pairs.find(|(_, (it, _))| *it == member)?;
                Some((rank, score))
            }
            Open::Large(large) => {
                let id = large.members.find(member)?;
                Some((large.order.rank(&large.members, id), large.members.score(id)))
            }
        }
    }

    /// The member of rank `rank`.
    #[must_use]
    pub fn get(&self, rank: usize) -> Option<(&'v [u8], f64)> {
        self.iter_from(rank).next()
    }

    /// All members, from the lowest on.
    #[must_use]
    pub fn iter(&self) -> InOrder<'v> {
        self.iter_from(0)
    }

    /// The members from rank `rank` on, upwards.
    #[must_use]
    pub fn iter_from(&self, rank: usize) -> InOrder<'v> {
        InOrder(match self.open() {
            Open::Packed(run) => {
                let mut pairs = Pairs::of(run);
                for _ in 0..rank {
                    if pairs.next().is_none() {
                        break;
                    }
                }
                Walk::Up(pairs)
            }
            Open::Large(large) => Walk::Large { large, place: large.order.at(rank), upwards: true },
        })
    }

    /// The members below rank `rank`, downwards from the one just below it.
    #[must_use]
    pub fn iter_below(&self, rank: usize) -> InOrder<'v> {
        InOrder(match self.open() {
            Open::Packed(run) => {
                let pairs: Vec<(&[u8], f64)> = Pairs::of(run).take(rank).collect();
                Walk::Down(pairs.into_iter().rev())
            }
            Open::Large(large) => {
                let place = rank.min(large.members.len()).checked_sub(1);
                let place = place.and_then(|rank| large.order.at(rank));
                Walk::Large { large, place, upwards: false }
            }
        })
    }

    fn count_while(&self, mut condition: impl FnMut(&[u8], f64) -> bool) -> usize {
        match self.open() {
            Open::Packed(run) => Pairs::of(run).take_while(|it| condition(it.0, it.1)).count(),
            Open::Large(large) => {
                large.order.count_while(|score, id| condition(large.members.name(id), score))
            }
        }
    }

    /// The ranks of the members whose score lies between two bounds.
    #[must_use]
    pub fn ranks_by_score(&self, min: ScoreBound, max: ScoreBound) -> Range<usize> {
        let from = self.count_while(|_, score| min.is_above(score));
        let to = self.count_while(|_, score| max.is_not_below(score));
        from..to.max(from)
    }

    /// The ranks of the members whose name lies between two bounds, in a set whose scores are all the same. Of another set some
    /// range, and as in Redis none if its last member stands before the range or its first one behind it.
    #[must_use]
    pub fn ranks_by_name(&self, min: NameBound<'_>, max: NameBound<'_>) -> Range<usize> {
        let name_at = |rank| self.iter_from(rank).next().map(|member| member.0);
        let outside = match (name_at(0), name_at(self.len().saturating_sub(1))) {
            (Some(first), Some(last)) => min.is_above(last) || !max.is_not_below(first),
            _ => true,
        };
        if outside {
            return 0..0;
        }
        let from = self.count_while(|name, _| min.is_above(name));
        let to = self.count_while(|name, _| max.is_not_below(name));
        from..to.max(from)
    }

    /// Visits at least `count` members from `cursor` on, if there are so many, and returns where to go on; 0 at the end. A packed set
    /// is visited whole.
    pub fn scan(&self, cursor: u64, count: usize, mut visit: impl FnMut(&'v [u8], f64)) -> u64 {
        match self.open() {
            Open::Packed(run) => {
                Pairs::of(run).for_each(|(member, score)| visit(member, score));
                0
            }
            Open::Large(large) => large.members.scan(cursor, count, visit),
        }
    }
}

impl Large {
    fn of_run(run: &[u8]) -> Self {
        let mut large = Self::default();
        for (member, score) in Pairs::of(run) {
            large.insert(member, score);
        }
        large
    }

    fn insert(&mut self, member: &[u8], score: f64) {
        let id = self.members.insert(member, score);
        self.order.insert(&self.members, id);
        self.beyond_listpack |= self.members.len() > LISTPACK.0 || member.len() > LISTPACK.1;
    }

    /// Writes everything anew if most of the room is out of use.
    fn tidy(&mut self) {
        if !self.members.is_sparse() {
            return;
        }
        let mut tidied = Self { beyond_listpack: self.beyond_listpack, ..Self::default() };
        let mut place = self.order.at(0);
        while let Some(here) = place {
            if let Some((id, score)) = self.order.get(here) {
                tidied.insert(self.members.name(id), score);
            }
            place = self.order.next(here);
        }
        *self = tidied;
    }
}

impl SortedSet {
    /// The set of these members, no two of the same name. Whether it is small is seen beforehand, as Redis does for results that are
    /// stored: a large one keeps the signs of its zeros.
    ///
    /// # Panics
    /// If a score is NaN.
    #[must_use]
    pub fn of_members(members: &[(Vec<u8>, f64)]) -> Self {
        let mut set = Self::default();
        if members.len() > LISTPACK.0 || members.iter().any(|it| it.0.len() > LISTPACK.1) {
            set.form = Form::Large(Box::new(Large { beyond_listpack: true, ..Large::default() }));
        }
        for (name, score) in members {
            set.insert(name, *score);
        }
        set
    }

    /// A view of it.
    #[must_use]
    pub fn view(&self) -> SortedSetView<'_> {
        match &self.form {
            Form::Packed(run) => SortedSetView::Packed(run),
            Form::Large(_) => SortedSetView::Large(self),
        }
    }

    /// How many members there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.view().len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.view().is_empty()
    }

    /// Sets the score of a member to what `decide` makes of its present one, None if it is not there; nothing happens if that is
    /// None. A score that is the same counts as no change.
    ///
    /// # Panics
    /// If the score is NaN.
    pub fn update(&mut self, member: &[u8], decide: impl FnOnce(Option<f64>) -> Option<f64>) {
        match &mut self.form {
            Form::Packed(run) => {
                let found = packed::find(run, member);
                let old = found.ok().map(|(score, _, _)| score);
                let Some(score) = decide(old).filter(|score| old != Some(*score)) else { return };
                assert!(!score.is_nan(), "a score is a number");
                self.changed = true;
                let len = match found {
                    Ok((old, from, to)) => {
                        packed::rescore(run, from, to, old, without_sign(score));
                        return;
                    }
                    Err(len) => len,
                };
                let outgrows = len >= LISTPACK.0 || member.len() > LISTPACK.1;
                let score = if outgrows { score } else { without_sign(score) };
                if outgrows || run.len() + packed::pair_bytes(member) > PACKED {
                    let mut large = Box::new(Large::of_run(run));
                    large.insert(member, score);
                    self.form = Form::Large(large);
                    return;
                }
                packed::insert(run, member, score);
            }
            Form::Large(large) => {
                let id = large.members.find(member);
                let old = id.map(|id| large.members.score(id));
                let Some(score) = decide(old).filter(|score| old != Some(*score)) else { return };
                assert!(!score.is_nan(), "a score is a number");
                self.changed = true;
                let score = if large.beyond_listpack { score } else { without_sign(score) };
                match id {
                    None => large.insert(member, score),
                    Some(id) => {
                        large.order.remove(&large.members, id);
                        large.members.set_score(id, score);
                        large.order.insert(&large.members, id);
                    }
                }
            }
        }
    }

    /// Sets the score of a member. The score it had.
    ///
    /// # Panics
    /// If the score is NaN.
    pub fn insert(&mut self, member: &[u8], score: f64) -> Option<f64> {
        let mut before = None;
        self.update(member, |old| {
            before = old;
            Some(score)
        });
        before
    }

    /// Removes a member. The score it had.
    pub fn remove(&mut self, member: &[u8]) -> Option<f64> {
        let score = match &mut self.form {
            Form::Packed(run) => {
                let (score, from, to) = packed::find(run, member).ok()?;
                run.drain(from..to);
                score
            }
            Form::Large(large) => {
                let id = large.members.find(member)?;
                let score = large.members.score(id);
                large.order.remove(&large.members, id);
                large.members.remove(id);
                large.tidy();
                score
            }
        };
        self.changed = true;
        Some(score)
    }

    /// Removes the members of these ranks, as many as there are, and shows them to `removed` in order. How many they were.
    pub fn remove_ranks(
        &mut self,
        ranks: Range<usize>,
        mut removed: impl FnMut(&[u8], f64),
    ) -> usize {
        let (from, to) = (ranks.start, ranks.end.min(self.len()));
        if from >= to {
            return 0;
        }
        self.changed = true;
        match &mut self.form {
            Form::Packed(run) => packed::remove_ranks(run, from, to, removed),
            Form::Large(large) => {
                let Large { members, order, .. } = &mut **large;
                order.remove_ranks(from, to, |id, score| {
                    removed(members.name(id), score);
                    members.remove(id);
                });
                large.tidy();
            }
        }
        to - from
    }
}

impl Stored for SortedSet {
    const KIND: Kind = Kind::SortedSet;

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
            Form::Large(large) => {
                allocated(size_of::<Large>())
                    + large.members.heap_bytes()
                    + large.order.heap_bytes()
            }
        }
    }

    fn into_value(self) -> Value {
        Value::SortedSet(self)
    }

    fn from_value(value: &mut Value) -> Option<&mut Self> {
        if let Value::SortedSet(it) = value { Some(it) } else { None }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use super::*;
    use crate::value::packed::below;

    fn draws(seed: u64) -> impl FnMut(usize) -> usize {
        use rand_core::{Rng as _, SeedableRng as _};
        let mut random = rand_chacha::ChaCha8Rng::seed_from_u64(seed);
        move |limit| below(random.next_u64(), limit)
    }

    /// Scores by name, and names in order.
    type Model = BTreeMap<Vec<u8>, f64>;

    fn in_order(model: &Model) -> Vec<(&[u8], f64)> {
        let mut all: Vec<(&[u8], f64)> =
            model.iter().map(|(name, score)| (name.as_slice(), *score)).collect();
        all.sort_by(|left, right| compare((left.1, left.0), (right.1, right.0)));
        all
    }

    impl SortedSet {
        fn check(&self) {
            if let Form::Large(large) = &self.form {
                large.members.check();
                large.order.check(&large.members);
            }
        }
    }

    fn assert_same(set: &SortedSet, model: &Model) {
        set.check();
        let expected = in_order(model);
        assert_eq!(set.len(), model.len());
        assert!(set.view().iter().eq(expected.iter().copied()));
        assert!(set.view().iter_below(usize::MAX).eq(expected.iter().rev().copied()));
        for (rank, (name, score)) in expected.iter().enumerate().step_by(1 + model.len() / 100) {
            assert_eq!(set.view().rank(name), Some((rank, *score)));
            assert_eq!(set.view().get(rank), Some((*name, *score)));
            assert_eq!(set.view().score(name), Some(*score));
        }
    }

    fn score(draw: &mut impl FnMut(usize) -> usize) -> f64 {
        let whole = f64::from(u32::try_from(draw(200)).unwrap());
        match draw(20) {
            0 => f64::INFINITY,
            1 => f64::NEG_INFINITY,
            2 => -0.0,
            3..8 => 0.0,
            8..12 => -whole / 7.0,
            _ => whole,
        }
    }

    fn run_model(seed: u64, names: usize, steps: usize) {
        let mut draw = draws(seed);
        let (mut set, mut model) = (SortedSet::default(), Model::new());
        for step in 0..steps {
            let number = draw(names);
            let name = format!("{number:0width$}", width = 1 + number % 40).into_bytes();
            let shrinking = step / (steps / 4) % 2 == 1;
            match draw(if shrinking { 10 } else { 30 }) {
                0..6 => {
                    assert_eq!(set.remove(&name), model.remove(&name));
                }
                6 => {
                    let from = draw(model.len() + 2);
                    let to = from + draw(8 + model.len() / 50);
                    let mut removed = Vec::new();
                    set.remove_ranks(from..to, |name, score| removed.push((name.to_vec(), score)));
                    let expected: Vec<(Vec<u8>, f64)> = in_order(&model)
                        .into_iter()
                        .enumerate()
                        .filter(|(rank, _)| (from..to).contains(rank))
                        .map(|(_, (name, score))| (name.to_vec(), score))
                        .collect();
                    assert_eq!(removed, expected);
                    for (name, _) in removed {
                        model.remove(&name);
                    }
                }
                _ => {
                    let score = score(&mut draw);
                    set.take_changed();
                    let old = set.insert(&name, score);
                    assert_eq!(old, model.get(&name).copied());
                    assert_eq!(set.take_changed(), old != Some(score));
                    if old != Some(score) {
                        model.insert(name, score);
                    }
                }
            }
            if step % (steps / 20) == 0 {
                assert_same(&set, &model);
                let expected = in_order(&model);
                for _ in 0..10 {
                    let bound = |draw: &mut dyn FnMut(usize) -> usize| ScoreBound {
                        score: score(&mut |limit| draw(limit)),
                        exclusive: draw(2) == 0,
                    };
                    let (min, max) = (bound(&mut draw), bound(&mut draw));
                    let within = expected
                        .iter()
                        .filter(|(_, score)| !min.is_above(*score) && max.is_not_below(*score));
                    let ranks = set.view().ranks_by_score(min, max);
                    let listed: Vec<(&[u8], f64)> =
                        set.view().iter_from(ranks.start).take(ranks.len()).collect();
                    assert!(listed.iter().eq(within), "{min:?} {max:?}");
                }
            }
        }
        assert_same(&set, &model);
        let mut scanned = BTreeSet::new();
        let mut cursor = 0;
        loop {
            cursor = set.view().scan(cursor, 7, |name, _| assert!(scanned.insert(name.to_vec())));
            if cursor == 0 {
                break;
            }
        }
        assert!(scanned.iter().eq(model.keys()));
    }

    #[test]
    fn a_sorted_set_holds_what_a_model_holds() {
        for seed in 0..6 {
            run_model(seed, 60, 3_000);
            run_model(seed, 400, 6_000);
        }
        run_model(100, 30_000, 40_000);
    }

    #[test]
    fn names_of_one_score_lie_in_their_order() {
        let mut draw = draws(9);
        for size in [0, 1, 50, 5_000] {
            let (mut set, mut names) = (SortedSet::default(), BTreeSet::new());
            for _ in 0..size {
                let name = draw(100_000).to_string().into_bytes();
                set.insert(&name, 1.5);
                names.insert(name);
            }
            for _ in 0..200 {
                let (low, high) = (draw(100_000).to_string(), draw(100_000).to_string());
                let min = [
                    NameBound::Lowest,
                    NameBound::Inclusive(low.as_bytes()),
                    NameBound::Exclusive(low.as_bytes()),
                    NameBound::Highest,
                ][draw(4)];
                let max = [
                    NameBound::Highest,
                    NameBound::Inclusive(high.as_bytes()),
                    NameBound::Exclusive(high.as_bytes()),
                    NameBound::Lowest,
                ][draw(4)];
                let ranks = set.view().ranks_by_name(min, max);
                let listed = set.view().iter_from(ranks.start).take(ranks.len()).map(|it| it.0);
                let expected = names.iter().filter(|it| !min.is_above(it) && max.is_not_below(it));
                assert!(listed.eq(expected), "{min:?} {max:?}");
            }
        }
    }

    #[test]
    fn a_hundred_thousand_members_in_and_out() {
        let mut set = SortedSet::default();
        let count = 100_000u32;
        for number in 0..count {
            // Every number once, in a scattered order.
            let scattered = u64::from(number) * 48_271 % u64::from(count);
            let scattered = u32::try_from(scattered).unwrap();
            set.insert(format!("member:{scattered}").as_bytes(), f64::from(scattered));
        }
        assert_eq!(set.len(), 100_000);
        set.check();
        let per_member = set.heap_bytes() / 100_000;
        assert!(per_member < 75, "{per_member}");
        for number in (0..count).step_by(997) {
            let name = format!("member:{number}");
            assert_eq!(set.view().rank(name.as_bytes()).unwrap().0, number as usize);
        }
        assert_eq!(set.remove_ranks(10..99_990, |_, _| ()), 99_980);
        set.check();
        assert!(set.heap_bytes() < 100_000, "{}", set.heap_bytes());
        let left: Vec<f64> = set.view().iter().map(|it| it.1).collect();
        let expected = (0..10u32).chain(99_990..100_000).map(f64::from);
        assert!(left.into_iter().eq(expected));
        assert_eq!(set.view().encoding(), "skiplist");
    }

    #[test]
    fn a_scan_finds_whoever_is_there_throughout() {
        for seed in 0..6u64 {
            let mut draw = draws(seed);
            let mut set = SortedSet::default();
            for number in 0..1_000 {
                set.insert(format!("{number}").as_bytes(), 0.0);
            }
            let (mut seen, mut cursor) = (BTreeSet::new(), 0);
            loop {
                let count = 1 + draw(40);
                cursor = set.view().scan(cursor, count, |name, _| {
                    seen.insert(name.to_vec());
                });
                if cursor == 0 {
                    break;
                }
                for _ in 0..100 {
                    let name = format!("{}", 500 + draw(5_000));
                    if seed % 2 == 0 {
                        set.insert(name.as_bytes(), 1.0);
                    } else {
                        set.remove(name.as_bytes());
                    }
                }
            }
            for number in 0..500 {
                assert!(seen.contains(format!("{number}").as_bytes()), "seed {seed}: {number}");
            }
        }
    }

    #[test]
    fn the_packed_form_ends_where_redis_ends_it_or_before() {
        let mut set = SortedSet::default();
        for number in 0..128 {
            set.insert(format!("{number}").as_bytes(), 1.0);
        }
        assert!(set.packed().is_some() && set.view().encoding() == "listpack");
        set.insert(b"one more", 1.0);
        assert!(set.packed().is_none() && set.view().encoding() == "skiplist");
        let mut set = SortedSet::default();
        set.insert(&[b'a'; 64], 1.0);
        assert!(set.packed().is_some());
        set.insert(&[b'a'; 65], 1.0);
        assert_eq!(set.view().encoding(), "skiplist");
        // Too long for the store's small values, and still what Redis would keep in one piece.
        let mut set = SortedSet::default();
        for number in 0..100 {
            set.insert(format!("{number:064}").as_bytes(), 1.0);
        }
        assert!(set.packed().is_none() && set.view().encoding() == "listpack");
    }

    #[test]
    fn zero_has_a_sign_in_a_large_set_alone() {
        let sign = |set: &SortedSet, name: &[u8]| {
            set.view().score(name).is_some_and(f64::is_sign_negative)
        };
        let small = [(b"a".to_vec(), -0.0), (b"b".to_vec(), 1.0)];
        assert!(!sign(&SortedSet::of_members(&small), b"a"));
        let large = [(b"a".to_vec(), -0.0), (vec![b'b'; 65], 1.0)];
        let mut set = SortedSet::of_members(&large);
        assert!(sign(&set, b"a") && set.view().encoding() == "skiplist");
        set.insert(b"c", -0.0);
        assert!(sign(&set, b"c"));
    }

    #[test]
    #[should_panic(expected = "a score is a number")]
    fn nan_is_no_score() {
        SortedSet::default().insert(b"a", f64::NAN);
    }
}
