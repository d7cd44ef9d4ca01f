//! Which keys have which tag, within a bound of bytes.

use std::collections::{BTreeMap, BTreeSet};

/// What a key in the index costs beyond its bytes, estimated: its place in an ordered set, and the allocator's share.
const PER_KEY: usize = 48;

/// What a tag costs beyond its bytes and its keys.
const PER_TAG: usize = 96;

#[derive(Debug)]
pub(super) struct Tags {
    keys: BTreeMap<Box<str>, BTreeSet<Box<[u8]>>>,
    bytes: usize,
    limit: usize,
}

impl Tags {
    pub(super) fn new(limit: usize) -> Self {
        Self { keys: BTreeMap::new(), bytes: 0, limit }
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(super) fn is_over(&self) -> bool {
        self.bytes > self.limit
    }

    pub(super) fn add(&mut self, tag: &str, key: &[u8]) {
        if !self.keys.contains_key(tag) {
            self.keys.insert(tag.into(), BTreeSet::new());
            self.bytes += tag.len() + PER_TAG;
        }
        let keys = self.keys.get_mut(tag).expect("it was made sure of");
        if keys.insert(key.into()) {
            self.bytes += key.len() + PER_KEY;
        }
    }

    /// The keys of `tag`, which is no more.
    pub(super) fn take(&mut self, tag: &str) -> Vec<Box<[u8]>> {
        let Some(keys) = self.keys.remove(tag) else { return Vec::new() };
        let bytes: usize = keys.iter().map(|key| key.len() + PER_KEY).sum();
        self.bytes -= bytes + tag.len() + PER_TAG;
        keys.into_iter().collect()
    }

    /// Lets those keys stay that `is_there` says so of.
    pub(super) fn retain(&mut self, is_there: impl Fn(&[u8]) -> bool) {
        let mut freed = 0;
        self.keys.retain(|tag, keys| {
            keys.retain(|key| {
                let stays = is_there(key);
                freed += if stays { 0 } else { key.len() + PER_KEY };
                stays
            });
            let stays = !keys.is_empty();
            freed += if stays { 0 } else { tag.len() + PER_TAG };
            stays
        });
        self.bytes -= freed;
    }

    /// The tag with the most keys, while there is too much. Below nine tenths of the limit it is not, so that room is made for
    /// many keys at once.
    pub(super) fn largest_if_over(&self) -> Option<String> {
        if self.bytes <= self.limit / 10 * 9 {
            return None;
        }
        let largest = self.keys.iter().max_by_key(|(_, keys)| keys.len());
        largest.map(|(tag, _)| tag.to_string())
    }

    pub(super) fn clear(&mut self) {
        self.keys.clear();
        self.bytes = 0;
    }
}
