//! Reading keys: which of them, at which revision, how many, in which order.
//!
//! A read fixes its revision when it begins and then asks the store for a few hundred keys at a
//! time, so the lock is held briefly however large the interval is; versions are immutable, so all
//! slices show the state at that one revision. Whoever reads decides what happens between two
//! slices: it may let others have its thread, look at what the answer weighs by now, or give up.
//!
//! The rules are etcd's, down to the odd ones:
//!
//! - `count` is the number of keys in the interval; neither limit nor filters make it smaller.
//! - The limit applies after filters and sorting, and `more` says that it cut something off.
//! - With no sort order but a sort target other than the key, the read sorts ascending, but (if
//!   there is no filter) only among the first `limit + 1` keys in key order, which is what etcd has
//!   read from its store by then.
//!
//! Memory is bounded: a read holds on to no more than twice what it may return, and one that may
//! not return what it found is refused.

use std::cmp::Ordering;
use std::ops::Bound;

use bytes::Bytes;

use crate::error::KvError;
use crate::key_value::{KeyValue, Version, pair_weight};

/// A set of neighbouring keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyInterval {
    start: Bytes,
    end: End,
}

/// An interval as an ordered map takes it.
pub type KeyBounds<'a> = (Bound<&'a [u8]>, Bound<&'a [u8]>);

#[derive(Clone, Debug, PartialEq, Eq)]
enum End {
    /// The start is the only key.
    Single,
    /// Every key from the start on.
    Open,
    /// The keys below this one.
    Before(Bytes),
}

/// In which order a range read returns keys.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SortOrder {
    /// In key order; but see the head of the module for a target other than the key.
    #[default]
    None,
    /// The smallest first.
    Ascend,
    /// The largest first.
    Descend,
}

/// What a range read sorts by. Equal ones stay in key order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SortTarget {
    /// The key.
    #[default]
    Key,
    /// How many times the key was written since its creation.
    Version,
    /// The revision that created the key.
    Create,
    /// The revision that last changed the key.
    Mod,
    /// The value.
    Value,
}

/// A range read. The fields that are numbers mean "not set" at zero, as on the wire.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RangeRequest {
    /// The first key; must not be empty.
    pub key: Bytes,
    /// The end of the interval, with the conventions of [`KeyInterval::new`].
    pub range_end: Bytes,
    /// The most keys to return; none if not positive.
    pub limit: i64,
    /// Read the state as of this revision; the current one if not positive.
    pub revision: i64,
    /// In which order.
    pub sort_order: SortOrder,
    /// Sorted by what.
    pub sort_target: SortTarget,
    /// Leave out the values.
    pub keys_only: bool,
    /// Return the count only.
    pub count_only: bool,
    /// Leave out keys last changed before this revision.
    pub min_mod_revision: i64,
    /// Leave out keys last changed after this revision.
    pub max_mod_revision: i64,
    /// Leave out keys created before this revision.
    pub min_create_revision: i64,
    /// Leave out keys created after this revision.
    pub max_create_revision: i64,
}

/// What a range read found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RangeResponse {
    /// The store's revision when the read began; not the revision that was asked for.
    pub revision: i64,
    /// The keys.
    pub kvs: Vec<KeyValue>,
    /// Whether the limit cut off keys.
    pub more: bool,
    /// How many keys the interval has, whatever limit and filters say.
    pub count: i64,
}

impl KeyInterval {
    /// The interval that a request means by `key` and `range_end`. An empty end means the one key;
    /// the end `\0` means all keys from `key` on (so key `\0` with end `\0` is every key); any
    /// other end is the first key that is not in the interval. An end that is not above the key
    /// gives an empty interval.
    ///
    /// # Errors
    ///
    /// [`KvError::KeyNotProvided`] if the key is empty.
    pub fn new(key: Bytes, range_end: Bytes) -> Result<Self, KvError> {
        if key.is_empty() {
            return Err(KvError::KeyNotProvided);
        }
        let end = match &range_end[..] {
            [] => End::Single,
            [0] => End::Open,
            _ => End::Before(range_end),
        };
        Ok(Self { start: key, end })
    }

    /// The only key, if this interval was asked for by one key.
    #[must_use]
    pub fn single(&self) -> Option<&Bytes> {
        match self.end {
            End::Single => Some(&self.start),
            End::Open | End::Before(_) => None,
        }
    }

    /// The interval as the bounds of an ordered map; `None` if it has no keys.
    #[must_use]
    pub fn bounds(&self) -> Option<KeyBounds<'_>> {
        let start: &[u8] = &self.start;
        match &self.end {
            End::Single => Some((Bound::Included(start), Bound::Included(start))),
            End::Open => Some((Bound::Included(start), Bound::Unbounded)),
            End::Before(end) if start < &end[..] => {
                Some((Bound::Included(start), Bound::Excluded(end)))
            }
            End::Before(_) => None,
        }
    }

    /// The rest of the interval from `start` on.
    fn resumed_at(self, start: Bytes) -> Self {
        Self { start, end: self.end }
    }
}

/// The numbers are those of etcd's wire format.
impl TryFrom<i32> for SortOrder {
    type Error = KvError;

    fn try_from(number: i32) -> Result<Self, KvError> {
        match number {
            0 => Ok(Self::None),
            1 => Ok(Self::Ascend),
            2 => Ok(Self::Descend),
            _ => Err(KvError::InvalidSortOption),
        }
    }
}

/// The numbers are those of etcd's wire format.
impl TryFrom<i32> for SortTarget {
    type Error = KvError;

    fn try_from(number: i32) -> Result<Self, KvError> {
        match number {
            0 => Ok(Self::Key),
            1 => Ok(Self::Version),
            2 => Ok(Self::Create),
            3 => Ok(Self::Mod),
            4 => Ok(Self::Value),
            _ => Err(KvError::InvalidSortOption),
        }
    }
}

impl RangeRequest {
    /// Which main revision to read, in a store that has come to `current`.
    fn revision_to_read(&self, current: i64) -> Result<i64, KvError> {
        match self.revision {
            revision if revision > current => Err(KvError::FutureRevision),
            revision if revision > 0 => Ok(revision),
            _ => Ok(current),
        }
    }

    fn has_filter(&self) -> bool {
        self.min_mod_revision != 0
            || self.max_mod_revision != 0
            || self.min_create_revision != 0
            || self.max_create_revision != 0
    }

    fn passes_filter(&self, version: &Version) -> bool {
        let is_within = |revision: i64, min: i64, max: i64| {
            (min == 0 || revision >= min) && (max == 0 || revision <= max)
        };
        is_within(version.revision.main, self.min_mod_revision, self.max_mod_revision)
            && is_within(
                version.create_revision,
                self.min_create_revision,
                self.max_create_revision,
            )
    }

    /// The limit as a number of keys to hold.
    fn limit(&self) -> Option<usize> {
        (self.limit > 0).then(|| usize::try_from(self.limit).unwrap_or(usize::MAX))
    }
}

/// A read under way: what it has found, and where it goes on. The revision is fixed when it begins.
#[derive(Debug)]
pub(crate) struct Progress {
    /// What is still to be read; `None` at the end.
    rest: Option<KeyInterval>,
    /// The revision that is read, and the one that the store had come to.
    revision: i64,
    current: i64,
    selection: Selection,
}

impl Progress {
    /// Begins a read on a store that has come to revision `current`.
    pub(crate) fn new(
        request: RangeRequest,
        current: i64,
        bytes_max: usize,
    ) -> Result<Self, KvError> {
        let interval = KeyInterval::new(request.key.clone(), request.range_end.clone())?;
        let revision = request.revision_to_read(current)?;
        Ok(Self {
            rest: Some(interval),
            revision,
            current,
            selection: Selection::new(request, bytes_max),
        })
    }

    /// Reads the next slice: `scan(interval, revision, visit)` shows the next keys of the interval
    /// that are live at the revision and returns where to go on. `false` says that nothing is left.
    pub(crate) fn advance(
        &mut self,
        scan: impl FnOnce(&KeyInterval, i64, &mut dyn FnMut(&Bytes, &Version)) -> Option<Bytes>,
    ) -> Result<bool, KvError> {
        let Some(interval) = self.rest.take() else {
            return Ok(false);
        };
        let selection = &mut self.selection;
        let next = scan(&interval, self.revision, &mut |key, version| {
            selection.offer(key, version);
        });
        if selection.is_too_large {
            return Err(KvError::ResponseTooLarge);
        }
        self.rest = next.map(|start| interval.resumed_at(start));
        Ok(self.rest.is_some())
    }

    /// What the pairs weigh that the read holds on to.
    pub(crate) fn held_bytes(&self) -> usize {
        self.selection.kept_bytes
    }

    /// The answer, once nothing is left to read.
    pub(crate) fn finish(self) -> Result<RangeResponse, KvError> {
        assert!(self.rest.is_none(), "an answer is made of the whole interval");
        self.selection.finish(self.current)
    }
}

/// What a read holds on to while the keys of its interval pass by.
#[derive(Debug)]
struct Selection {
    request: RangeRequest,
    bytes_max: usize,
    plan: Plan,
    kept: Vec<KeyValue>,
    kept_bytes: usize,
    is_too_large: bool,
    /// Keys seen, and those of them that pass the filters.
    seen: i64,
    matched: i64,
}

/// How the limit meets the order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Plan {
    /// The first keys in key order are the answer.
    First { keys_max: usize },
    /// The first keys in key order, then sorted among themselves.
    FirstThenSort { keys_max: usize },
    /// The best of all keys.
    Best { keys_max: usize },
}

impl Selection {
    fn new(request: RangeRequest, bytes_max: usize) -> Self {
        let limit = request.limit().unwrap_or(usize::MAX);
        let plan = match (request.sort_order, request.sort_target) {
            (SortOrder::None | SortOrder::Ascend, SortTarget::Key) => {
                Plan::First { keys_max: limit }
            }
            (SortOrder::None, _) if !request.has_filter() => {
                Plan::FirstThenSort { keys_max: limit.saturating_add(1) }
            }
            _ => Plan::Best { keys_max: limit },
        };
        Self {
            request,
            bytes_max,
            plan,
            kept: Vec::new(),
            kept_bytes: 0,
            is_too_large: false,
            seen: 0,
            matched: 0,
        }
    }

    /// Takes in the next key of the interval, in key order.
    fn offer(&mut self, key: &Bytes, version: &Version) {
        self.seen += 1;
        if self.request.count_only || self.is_too_large || !self.request.passes_filter(version) {
            return;
        }
        self.matched += 1;
        match self.plan {
            Plan::First { keys_max } | Plan::FirstThenSort { keys_max } => {
                if self.kept.len() < keys_max {
                    self.keep(key, version);
                    self.is_too_large = self.kept_bytes > self.bytes_max;
                }
            }
            Plan::Best { keys_max } => {
                // Sorting at every doubling costs little for each key and keeps no more than twice
                // the answer.
                const SLACK: usize = 64;
                self.keep(key, version);
                if self.kept.len() >= keys_max.saturating_mul(2).saturating_add(SLACK)
                    || self.kept_bytes > self.bytes_max.saturating_mul(2)
                {
                    self.sort_and_cut(keys_max);
                    self.is_too_large = self.kept_bytes > self.bytes_max;
                }
            }
        }
    }

    fn keep(&mut self, key: &Bytes, version: &Version) {
        let mut key_value = KeyValue::new(key.clone(), version);
        if self.request.keys_only && self.request.sort_target != SortTarget::Value {
            key_value.value = Bytes::new();
        }
        self.kept_bytes = self.kept_bytes.saturating_add(self.weight(&key_value));
        self.kept.push(key_value);
    }

    /// A value that is only sorted by costs nothing: it is shared with the store.
    fn weight(&self, key_value: &KeyValue) -> usize {
        if self.request.keys_only {
            pair_weight(key_value.key.len(), 0)
        } else {
            key_value.weight()
        }
    }

    fn sort_and_cut(&mut self, keys_max: usize) {
        let request = &self.request;
        self.kept.sort_by(|a, b| compare(request, a, b));
        self.cut(keys_max);
    }

    fn cut(&mut self, keys_max: usize) {
        self.kept.truncate(keys_max);
        self.kept_bytes = self.kept.iter().map(|key_value| self.weight(key_value)).sum();
    }

    fn finish(mut self, current: i64) -> Result<RangeResponse, KvError> {
        let limit = self.request.limit().unwrap_or(usize::MAX);
        match self.plan {
            Plan::First { .. } => {}
            Plan::FirstThenSort { .. } | Plan::Best { .. } => self.sort_and_cut(limit),
        }
        if self.kept_bytes > self.bytes_max {
            return Err(KvError::ResponseTooLarge);
        }
        if self.request.keys_only {
            for key_value in &mut self.kept {
                key_value.value = Bytes::new();
            }
        }
        Ok(RangeResponse {
            revision: current,
            more: self.request.limit > 0 && self.matched > self.request.limit,
            kvs: self.kept,
            count: self.seen,
        })
    }
}

/// The order that a request asks for. The sort is stable, so equal ones stay in key order.
fn compare(request: &RangeRequest, a: &KeyValue, b: &KeyValue) -> Ordering {
    let ordering = match request.sort_target {
        SortTarget::Key => a.key.cmp(&b.key),
        SortTarget::Version => a.version.cmp(&b.version),
        SortTarget::Create => a.create_revision.cmp(&b.create_revision),
        SortTarget::Mod => a.mod_revision.cmp(&b.mod_revision),
        SortTarget::Value => a.value.cmp(&b.value),
    };
    match request.sort_order {
        SortOrder::None | SortOrder::Ascend => ordering,
        SortOrder::Descend => ordering.reverse(),
    }
}

#[cfg(test)]
mod tests {
    use std::ops::RangeBounds;

    use super::*;
    use crate::lease::LeaseId;
    use crate::revision::Revision;

    /// Four keys: (key, create, mod, version, value). The orders by each target all differ.
    const KEYS: [(&str, i64, i64, i64, &str); 4] =
        [("a", 4, 9, 3, "y"), ("b", 2, 8, 7, "w"), ("c", 6, 6, 1, "z"), ("d", 3, 7, 4, "x")];

    /// Reads `KEYS` in slices of one key, at revision 9.
    fn read_keys(request: &RangeRequest, bytes_max: usize) -> Result<RangeResponse, KvError> {
        let mut progress = Progress::new(request.clone(), 9, bytes_max)?;
        while progress.advance(scan_keys)? {}
        progress.finish()
    }

    /// Shows the first key of the interval.
    fn scan_keys(
        interval: &KeyInterval,
        _revision: i64,
        visit: &mut dyn FnMut(&Bytes, &Version),
    ) -> Option<Bytes> {
        let (start, end) = interval.bounds()?;
        let mut keys = KEYS
            .iter()
            .filter(|(key, ..)| RangeBounds::<[u8]>::contains(&(start, end), key.as_bytes()));
        if let Some(&(key, create_revision, mod_revision, version, value)) = keys.next() {
            let version = Version {
                revision: Revision::new(mod_revision, 0),
                create_revision,
                version,
                lease: LeaseId::NONE,
                value: value.into(),
            };
            visit(&key.into(), &version);
        }
        keys.next().map(|(key, ..)| Bytes::from_static(key.as_bytes()))
    }

    fn all() -> RangeRequest {
        RangeRequest { key: "\0".into(), range_end: "\0".into(), ..RangeRequest::default() }
    }

    fn check(request: RangeRequest, keys: &str, more: bool, count: i64) {
        let response = read_keys(&request, usize::MAX).unwrap();
        let found: Vec<&[u8]> = response.kvs.iter().map(|kv| &kv.key[..]).collect();
        assert_eq!(found.concat(), keys.as_bytes(), "{request:?}");
        assert_eq!((response.more, response.count), (more, count), "{request:?}");
        assert_eq!(response.revision, 9, "the header tells the current revision");
    }

    #[test]
    fn an_interval_is_what_key_and_end_mean() {
        let table = [
            // An empty end: the one key.
            ("b", "", "b"),
            ("bb", "", ""),
            // The end \0: all keys from the first on.
            ("b", "\0", "bcd"),
            ("\0", "\0", "abcd"),
            // Any other end is the first key outside.
            ("a", "c", "ab"),
            ("b", "b\0", "b"),
            ("e", "f", ""),
            // An end that is not above the key: nothing, and no error.
            ("c", "c", ""),
            ("c", "a", ""),
            // Two zero bytes are an ordinary end.
            ("a", "\0\0", ""),
        ];
        for (key, end, keys) in table {
            let request =
                RangeRequest { key: key.into(), range_end: end.into(), ..RangeRequest::default() };
            let count = i64::try_from(keys.len()).unwrap();
            check(request, keys, false, count);
        }
        let no_key = RangeRequest { range_end: "z".into(), ..RangeRequest::default() };
        assert_eq!(read_keys(&no_key, usize::MAX), Err(KvError::KeyNotProvided));
    }

    #[test]
    fn the_limit_cuts_after_sorting_and_more_tells_it() {
        for (limit, keys, more) in [
            (-1, "abcd", false),
            (0, "abcd", false),
            (1, "a", true),
            (3, "abc", true),
            (4, "abcd", false),
            (i64::MAX, "abcd", false),
        ] {
            check(RangeRequest { limit, ..all() }, keys, more, 4);
        }
    }

    #[test]
    fn every_target_sorts_both_ways() {
        let table = [
            (SortTarget::Key, "abcd"),
            (SortTarget::Version, "cadb"),
            (SortTarget::Create, "bdac"),
            (SortTarget::Mod, "cdba"),
            (SortTarget::Value, "bdac"),
        ];
        for (sort_target, ascending) in table {
            let descending: String = ascending.chars().rev().collect();
            for (sort_order, keys) in
                [(SortOrder::Ascend, ascending), (SortOrder::Descend, &descending)]
            {
                let request = RangeRequest { sort_order, sort_target, ..all() };
                check(request.clone(), keys, false, 4);
                check(RangeRequest { limit: 2, ..request.clone() }, &keys[..2], true, 4);
                check(RangeRequest { keys_only: true, ..request }, keys, false, 4);
            }
        }
    }

    /// etcd has read `limit + 1` keys when it sorts; a filter makes it read all of them.
    #[test]
    fn no_order_with_a_target_sorts_only_the_first_keys() {
        let by_create = RangeRequest { sort_target: SortTarget::Create, ..all() };
        check(by_create.clone(), "bdac", false, 4);
        check(RangeRequest { limit: 1, ..by_create.clone() }, "b", true, 4);
        check(RangeRequest { limit: 2, ..by_create.clone() }, "ba", true, 4);
        check(RangeRequest { limit: 3, ..by_create.clone() }, "bda", true, 4);
        let filtered = RangeRequest { limit: 2, min_mod_revision: 1, ..by_create };
        check(filtered, "bd", true, 4);
    }

    #[test]
    fn filters_leave_the_count_alone_and_come_before_the_limit() {
        check(RangeRequest { min_mod_revision: 8, ..all() }, "ab", false, 4);
        check(RangeRequest { max_mod_revision: 7, ..all() }, "cd", false, 4);
        check(RangeRequest { min_create_revision: 4, ..all() }, "ac", false, 4);
        check(RangeRequest { max_create_revision: 3, ..all() }, "bd", false, 4);
        check(RangeRequest { max_mod_revision: 7, limit: 1, ..all() }, "c", true, 4);
        check(RangeRequest { max_mod_revision: 7, limit: 2, ..all() }, "cd", false, 4);
        let both = RangeRequest { min_create_revision: 3, max_create_revision: 4, ..all() };
        check(both, "ad", false, 4);
        // A filter below zero is a filter still.
        check(RangeRequest { max_mod_revision: -1, ..all() }, "", false, 4);
        check(RangeRequest { min_mod_revision: -1, ..all() }, "abcd", false, 4);
    }

    #[test]
    fn count_only_returns_no_keys_and_keys_only_no_values() {
        check(RangeRequest { count_only: true, limit: 1, ..all() }, "", false, 4);
        let request = RangeRequest { keys_only: true, sort_target: SortTarget::Value, ..all() };
        let response = read_keys(&request, usize::MAX).unwrap();
        assert!(response.kvs.iter().all(|kv| kv.value.is_empty()));
        assert!(response.kvs.iter().all(|kv| kv.mod_revision > 0), "everything else is there");
    }

    #[test]
    fn a_revision_yet_to_come_is_refused() {
        for (revision, expected) in [
            (-5, Ok(())),
            (0, Ok(())),
            (9, Ok(())),
            (10, Err(KvError::FutureRevision)),
            (i64::MAX, Err(KvError::FutureRevision)),
        ] {
            let request = RangeRequest { revision, ..all() };
            assert_eq!(read_keys(&request, usize::MAX).map(|_| ()), expected, "{revision}");
        }
    }

    #[test]
    fn an_answer_that_is_too_large_is_refused_unless_the_limit_makes_it_small() {
        let pair = pair_weight(1, 1);
        for sort_order in [SortOrder::None, SortOrder::Descend] {
            for sort_target in [SortTarget::Key, SortTarget::Mod] {
                let request = RangeRequest { sort_order, sort_target, ..all() };
                assert!(read_keys(&request, 4 * pair).is_ok());
                assert_eq!(read_keys(&request, 4 * pair - 1), Err(KvError::ResponseTooLarge));
                let one = RangeRequest { limit: 1, ..request.clone() };
                assert!(read_keys(&one, 2 * pair).is_ok(), "{one:?}");
                let keys_only = RangeRequest { keys_only: true, ..request.clone() };
                assert!(read_keys(&keys_only, 4 * (pair - 1)).is_ok());
                let count_only = RangeRequest { count_only: true, ..request };
                assert!(read_keys(&count_only, 0).is_ok());
            }
        }
    }

    #[test]
    fn sort_options_have_the_numbers_of_the_wire() {
        assert_eq!(SortOrder::try_from(2), Ok(SortOrder::Descend));
        assert_eq!(SortOrder::try_from(3), Err(KvError::InvalidSortOption));
        assert_eq!(SortTarget::try_from(3), Ok(SortTarget::Mod));
        assert_eq!(SortTarget::try_from(5), Err(KvError::InvalidSortOption));
        assert_eq!(SortTarget::try_from(-1), Err(KvError::InvalidSortOption));
    }
}
