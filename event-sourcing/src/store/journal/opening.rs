//! Steps of opening a log: parts of complete segments from their index files, and the hash chain up to the end.

use std::ops::Range;

use lattice_journal::{Reader, TornTail};

use super::blocks::Fault;
use super::chain::Chain;
use super::directory::Directory;
use super::error::OpenError;
use super::index_file::Binding;
#[cfg(feature = "sim")]
use super::memtable::Memtable;
use super::part::Part;
use super::records;
use crate::event::Position;
use crate::read::ReadError;

/// What opening a log has found that is no damage, and mends unless nothing is to be changed.
#[derive(Clone, Debug, Default)]
pub(super) struct Found {
    /// The end that a crash has torn off.
    pub(super) torn: Option<TornTail>,
    /// Index files that are stale or damaged.
    pub(super) unfit_index_files: u64,
}

/// The part of a complete segment.
#[derive(Debug)]
pub(super) struct OpenedPart {
    pub(super) part: Part,
    /// Positions whose events cannot be read.
    pub(super) damaged: Vec<Range<u64>>,
    /// There is an index file, and it does not fit.
    pub(super) unfit: bool,
}

/// The part of a complete segment, from its index file or else from its events. Then the file is made again, if `mends`.
pub(super) fn open_part(
    directory: &Directory,
    reader: &Reader,
    binding: &Binding,
    mends: bool,
) -> Result<OpenedPart, OpenError> {
    let segment = binding.segment;
    let unfit = match directory.open_index(binding) {
        Ok((file, filter)) => {
            let part = Part::in_file(file, filter);
            return Ok(OpenedPart { part, damaged: Vec::new(), unfit: false });
        }
        Err(Fault::Damaged) => {
            tracing::warn!(segment, "the index file of a segment is stale or damaged: not used");
            true
        }
        Err(Fault::Io(error)) if error.kind() == std::io::ErrorKind::NotFound => {
            tracing::info!(segment, "a segment has no index file: its events are read");
            false
        }
        Err(Fault::Io(error)) => {
            tracing::warn!(segment, %error, "an index file cannot be read: not used");
            true
        }
    };
    let loaded = records::load(reader, binding.positions.clone())?;
    let part = Part::frozen(binding, loaded.memtable);
    // What is not whole must not be taken for the index of the whole later.
    let mends = mends && loaded.damaged.is_empty();
    if mends && let Err(error) = directory.write_index(&part, binding) {
        tracing::warn!(segment, %error, "an index file could not be written");
    }
    Ok(OpenedPart { part, damaged: loaded.damaged, unfit })
}

/// From which offset on ids are not known after a restart: a defect that is planted.
#[cfg(feature = "sim")]
pub(super) fn forgotten_from(memtable: &Memtable) -> Option<u32> {
    let positions = memtable.positions();
    let last = (positions.end - positions.start).saturating_sub(1);
    match () {
        () if planted!(IdsForgottenAtRestart) => Some(0),
        () if planted!(TailTwice) => u32::try_from(last).ok(),
        () => None,
    }
}

/// Takes the chain from the last complete block to the end of the log.
pub(super) fn continue_chain(
    mut chain: Chain,
    reader: &Reader,
    head: Position,
) -> Result<Chain, ReadError> {
    while chain.count() < head.0 {
        let range = chain.count() + 1..head.0 + 1;
        records::read(reader, range, 1 << 20, |bytes, decoded| {
            chain.push(&records::leaf(bytes, &decoded.entry));
        })?;
    }
    Ok(chain)
}
