//! Scans that go on while others write, and what they owe.

use std::collections::BTreeSet;

use lattice_sim::Violation;

use super::model::{Content, Model, Name};

/// What is scanned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Scanned {
    /// The keys of a database.
    Keys(u8),
    /// The elements of a key.
    Elements(Name),
}

/// A scan under way.
#[derive(Debug)]
pub(super) struct Scan {
    pub(super) what: Scanned,
    pub(super) cursor: Vec<u8>,
    /// What was there from the beginning until now.
    owed: BTreeSet<Vec<u8>>,
    found: Vec<Vec<u8>>,
    /// Whether nothing that is scanned has changed since the beginning.
    pub(super) is_quiet: bool,
    begun_with: usize,
    calls: usize,
}

fn members(model: &Model, what: &Scanned) -> BTreeSet<Vec<u8>> {
    match what {
        Scanned::Keys(database) => {
            let names = model.entries.keys().filter(|name| name.0 == *database);
            names.map(|name| name.1.clone()).collect()
        }
        Scanned::Elements(name) => match model.get(name) {
            Some(Content::Set(set)) => set.clone(),
            Some(Content::Hash(hash)) => hash.keys().cloned().collect(),
            Some(Content::Sorted(set)) => set.keys().cloned().collect(),
            _ => BTreeSet::new(),
        },
    }
}

impl Scan {
    pub(super) fn begin(model: &Model, what: Scanned) -> Self {
        let owed = members(model, &what);
        Self {
            what,
            cursor: b"0".to_vec(),
            begun_with: owed.len(),
            owed,
            found: Vec::new(),
            is_quiet: true,
            calls: 0,
        }
    }

    /// Something has changed: what is gone is owed no more.
    pub(super) fn see(&mut self, model: &Model) {
        self.is_quiet = false;
        match &self.what {
            Scanned::Keys(database) => {
                let database = *database;
                self.owed.retain(|key| model.is_live(&(database, key.clone())));
            }
            Scanned::Elements(name) => {
                let content = model.get(name);
                self.owed.retain(|member| match content {
                    Some(Content::Set(set)) => set.contains(member),
                    Some(Content::Hash(hash)) => hash.contains_key(member),
                    Some(Content::Sorted(set)) => set.contains_key(member),
                    _ => false,
                });
            }
        }
    }

    /// All that was owed is owed no more: other keys stand under the names.
    pub(super) fn forgive(&mut self) {
        self.is_quiet = false;
        self.owed.clear();
    }

    pub(super) fn is_large(&self) -> bool {
        self.begun_with > 200
    }

    /// One answer: what it names has to be there. True if it was the last one.
    pub(super) fn take(
        &mut self,
        model: &Model,
        cursor: &[u8],
        found: Vec<Vec<u8>>,
    ) -> Result<bool, Violation> {
        let there = members(model, &self.what);
        if let Some(stranger) = found.iter().find(|it| !there.contains(*it)) {
            let detail = format!("{:?} is not there", String::from_utf8_lossy(stranger));
            return Err(Violation::new("a scan returns what is there", detail));
        }
        self.found.extend(found);
        self.calls += 1;
        self.cursor = cursor.to_vec();
        if cursor != b"0" {
            let bound = 40 * (self.begun_with + there.len()) + 100;
            if self.calls > bound {
                let detail = format!("{} calls for {} elements", self.calls, self.begun_with);
                return Err(Violation::new("a scan ends", detail));
            }
            return Ok(false);
        }
        let found: BTreeSet<&Vec<u8>> = self.found.iter().collect();
        if let Some(missed) = self.owed.iter().find(|it| !found.contains(it)) {
            let detail = format!(
                "{:?} was there throughout and was missed ({:?}, {} calls, {} at the beginning)",
                String::from_utf8_lossy(missed),
                self.what,
                self.calls,
                self.begun_with
            );
            return Err(Violation::new("a scan misses nothing", detail));
        }
        if self.is_quiet && found.len() < self.found.len() {
            let detail = format!("{} of {} found", self.found.len() - found.len(), found.len());
            return Err(Violation::new("a quiet scan returns nothing twice", detail));
        }
        Ok(true)
    }
}
