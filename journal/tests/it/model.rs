//! Random operations against a model, with openings in between.

use std::collections::BTreeMap;

use lattice_journal::{Batch, Disk, JournalError, MemoryDisk, Prepared};
use proptest::collection::vec;
use proptest::prelude::*;

use crate::support::{Model, open, open_trusting, shown};

#[derive(Clone, Debug)]
enum Operation {
    Append {
        sizes: Vec<usize>,
        state: bool,
    },
    /// Batches of so many items each, appended together; the first takes back the last item.
    AppendAll {
        batches: Vec<Vec<usize>>,
    },
    /// Truncates this many items from the end, then appends.
    Replace {
        back: u64,
        sizes: Vec<usize>,
    },
    Restart {
        ahead: u64,
        sizes: Vec<usize>,
    },
    Sync,
    Mark,
    /// Keeps this many items.
    Compact {
        keep: u64,
    },
    ReplaceSegment {
        nth: usize,
    },
    /// Prepares what is to replace a segment, and drops what was prepared before.
    Prepare {
        nth: usize,
    },
    Install,
    /// Takes the seals, and writes them or not.
    Seals {
        write: bool,
    },
    Reopen {
        close: bool,
        trust: bool,
    },
}

fn operation() -> impl Strategy<Value = Operation> {
    let sizes = || vec(prop_oneof![4 => 0..40_usize, 1 => 100..700_usize], 0..5);
    prop_oneof![
        6 => (sizes(), any::<bool>()).prop_map(|(sizes, state)| Operation::Append { sizes, state }),
        3 => vec(sizes(), 0..5).prop_map(|batches| Operation::AppendAll { batches }),
        2 => (0..8_u64, sizes()).prop_map(|(back, sizes)| Operation::Replace { back, sizes }),
        1 => (0..30_u64, sizes()).prop_map(|(ahead, sizes)| Operation::Restart { ahead, sizes }),
        3 => Just(Operation::Sync),
        1 => Just(Operation::Mark),
        1 => (0..30_u64).prop_map(|keep| Operation::Compact { keep }),
        1 => (0..6_usize).prop_map(|nth| Operation::ReplaceSegment { nth }),
        1 => (0..6_usize).prop_map(|nth| Operation::Prepare { nth }),
        1 => Just(Operation::Install),
        1 => any::<bool>().prop_map(|write| Operation::Seals { write }),
        2 => any::<(bool, bool)>().prop_map(|(close, trust)| Operation::Reopen { close, trust }),
    ]
}

fn names_like(disk: &MemoryDisk, suffix: &str) -> Vec<String> {
    let names = disk.list("log".as_ref()).unwrap();
    names.into_iter().filter(|name| name.ends_with(suffix)).collect()
}

fn bytes(salt: u64, size: usize) -> Vec<u8> {
    salt.to_le_bytes().into_iter().cycle().take(size).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    #[test]
    fn a_journal_does_what_its_model_does(operations in vec(operation(), 1..60)) {
        let disk = MemoryDisk::new();
        let (mut journal, _) = open_trusting(&disk, 800).unwrap();
        let mut prepared: Option<(Prepared, BTreeMap<u64, Vec<u8>>)> = None;
        let mut model = Model::new();
        // The log after each batch since the last operation that made it durable.
        let mut since = vec![model.clone()];
        for (salt, operation) in (1..).zip(operations) {
            let items = |sizes: &[usize]| sizes.iter().map(|size| bytes(salt, *size)).collect();
            let batch = match &operation {
                Operation::Append { sizes, state } => Some(Batch {
                    first: model.next,
                    items: items(sizes),
                    state: state.then(|| bytes(salt, 20)),
                    ..Batch::default()
                }),
                Operation::Replace { back, sizes } => {
                    let first = (model.next - (*back).min(model.next)).max(journal.positions().start);
                    let items = items(sizes);
                    Some(Batch { truncate_from: Some(first), first, items, ..Batch::default() })
                }
                Operation::Restart { ahead, sizes } => {
                    let first = model.next + ahead;
                    let items = items(sizes);
                    Some(Batch { restart_at: Some(first), first, items, ..Batch::default() })
                }
                _ => None,
            };
            if let Some(batch) = batch {
                journal.append(&batch).unwrap();
                model.apply(&batch);
            }
            if let Operation::AppendAll { batches: sizes } = &operation {
                let taken_back = model.next > journal.positions().start;
                let mut first = model.next - u64::from(taken_back);
                let mut truncate_from = taken_back.then_some(first);
                let mut batches = Vec::new();
                for sizes in sizes {
                    let batch = Batch {
                        truncate_from: truncate_from.take(),
                        first,
                        items: items(sizes),
                        state: (sizes.len() == 1).then(|| bytes(salt, 20)),
                        ..Batch::default()
                    };
                    first += u64::try_from(sizes.len()).unwrap();
                    model.apply(&batch);
                    since.push(model.clone());
                    batches.push(batch);
                }
                journal.append_all(&batches).unwrap();
                prop_assert_eq!(journal.positions().end, model.next);
                continue;
            }
            match operation {
                Operation::AppendAll { .. } => unreachable!("it was carried out"),
                Operation::Append { .. } | Operation::Replace { .. } | Operation::Restart { .. } => {
                    since.push(model.clone());
                    continue;
                }
                Operation::Sync => {
                    journal.sync().unwrap();
                }
                Operation::Mark => journal.mark().unwrap(),
                Operation::Compact { keep } => {
                    let keep_from = model.next.saturating_sub(keep);
                    journal.compact(keep_from).unwrap();
                    let start = journal.positions().start;
                    prop_assert!(model.items.range(keep_from..).all(|(position, _)| *position >= start));
                    model.items = model.items.split_off(&start);
                }
                Operation::ReplaceSegment { nth } => {
                    let segments = journal.segments();
                    if let Some(segment) = segments.get(nth).filter(|segment| segment.sealed) {
                        let mut new = Vec::new();
                        journal.replace_segment(segment.number, &mut |position, old| {
                            let bytes = (position % 2 == 0).then(|| bytes(salt, old.len() / 2 + 3));
                            new.extend(bytes.clone().map(|bytes| (position, bytes)));
                            bytes
                        }).unwrap();
                        for (position, bytes) in new {
                            if model.items.contains_key(&position) {
                                model.items.insert(position, bytes);
                            }
                        }
                    } else {
                        journal.sync().unwrap();
                    }
                }
                Operation::Prepare { nth } => {
                    journal.sync().unwrap();
                    let segments = journal.segments();
                    prepared = None;
                    if let Some(segment) = segments.get(nth).filter(|segment| segment.sealed) {
                        let mut new = BTreeMap::new();
                        let ready = journal.rewriter(segment.number).unwrap().prepare(&mut |position, old| {
                            let old: &[u8] = old;
                            assert_eq!(old, model.items[&position]);
                            new.insert(position, bytes(salt, old.len() / 3 + 5));
                            Some(new[&position].clone())
                        }).unwrap();
                        prop_assert_eq!(ready.segment(), segment.number);
                        prepared = Some((ready, new));
                    }
                }
                Operation::Install => {
                    journal.sync().unwrap();
                    if let Some((ready, new)) = prepared.take() {
                        let number = ready.segment();
                        let segments = journal.segments();
                        let held = segments.iter().find(|segment| segment.number == number);
                        let held = held.map(|segment| segment.positions.clone());
                        match journal.install(ready) {
                            Ok(()) => {
                                for position in held.unwrap() {
                                    let bytes = new[&position].clone();
                                    prop_assert!(model.items.insert(position, bytes).is_some());
                                }
                            }
                            // It was dropped or replaced since.
                            Err(JournalError::NoSuchSegment { .. }) => {}
                            Err(error) => panic!("{error}"),
                        }
                    }
                }
                Operation::Seals { write } => {
                    journal.sync().unwrap();
                    for seal in journal.take_seals() {
                        if write {
                            seal.write().unwrap();
                        }
                    }
                }
                Operation::Reopen { close, trust } => {
                    prepared = None;
                    if close {
                        journal.close().unwrap();
                    } else {
                        journal.sync().unwrap();
                        drop(journal);
                    }
                    let opened = if trust { open_trusting(&disk, 800) } else { open(&disk, 800) };
                    let (opened, recovery) = opened.unwrap();
                    prop_assert_eq!(&recovery.damaged, &[]);
                    prop_assert_eq!(&recovery.torn, &None);
                    journal = opened;
                }
            }
            since = vec![model.clone()];
            prop_assert_eq!(&shown(&journal), &model);
            prop_assert_eq!(journal.reader().positions(), journal.positions());
            prop_assert_eq!(journal.reader().verify_all().unwrap(), []);
            let leftovers = names_like(&disk, ".tmp");
            prop_assert_eq!(leftovers.len(), usize::from(prepared.is_some()), "{:?}", leftovers);
        }
        // What was not synced may be gone, whole batches of it; a rotation may have synced some.
        drop(prepared);
        drop(journal);
        let (journal, recovery) = open_trusting(&disk, 800).unwrap();
        prop_assert_eq!(&recovery.damaged, &[]);
        prop_assert!(since.contains(&shown(&journal)));
    }
}
