//! What goes wrong with a disk besides crashes: decay, misplaced and lost writes, bad reads, lies, stalls, and loss.
//!
//! None of this happens by itself. A test asks for it in one line, a [`Nemesis`](crate::Nemesis) as its swarm says. Whatever harms
//! data that a sync has made durable is counted in [`DiskCounts::damaged`](super::DiskCounts::damaged), so that a checker knows whom it
//! can expect to come back.

use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::disk::SimDisk;
use crate::disk::file::{Inode, Landing};
use crate::disk::names::normal;
use crate::disk::pages::to_usize;
use crate::disk::state::{BadRead, NEVER, State};
use crate::random::nanos;

impl SimDisk {
    /// The files that a power cut now would leave for sure, with their durable lengths, in the order of their names.
    pub fn durable_files(&self) -> Vec<(PathBuf, u64)> {
        let state = self.state();
        let files = state.durable.iter();
        files.map(|(path, inode)| (path.clone(), state.inodes[inode].durable.length())).collect()
    }

    /// The durable length of a file; 0 if there is no such file.
    pub fn durable_length(&self, path: &Path) -> u64 {
        let state = self.state();
        let inode = state.durable.get(&normal(path));
        inode.map_or(0, |inode| state.inodes[inode].durable.length())
    }

    /// Reads what is durable of a file, whatever the page cache shows; empty if there is no such file.
    pub fn durable_bytes(&self, path: &Path, bytes: Range<u64>) -> Vec<u8> {
        let state = self.state();
        let Some(inode) = state.durable.get(&normal(path)) else { return Vec::new() };
        let image = &state.inodes[inode].durable;
        let mut content =
            vec![0; to_usize(bytes.end.min(image.length()).saturating_sub(bytes.start))];
        image.read(&mut content, bytes.start);
        content
    }

    /// Bits flip at rest: every byte of the range is changed by `mask`, which is best not 0.
    ///
    /// # Errors
    /// If no such file is durable.
    pub fn rot(&self, path: &Path, bytes: Range<u64>, mask: u8) -> io::Result<()> {
        self.alter(path, bytes, |content| content.iter_mut().for_each(|byte| *byte ^= mask))
    }

    /// The disk forgets what was written here last: the range is as it was when its space was allocated.
    ///
    /// # Errors
    /// If no such file is durable.
    pub fn forget(&self, path: &Path, bytes: Range<u64>) -> io::Result<()> {
        self.alter(path, bytes, |content| content.fill(0))
    }

    /// A write that was meant for another place of the file has landed here: the range shows what is at `source`.
    ///
    /// # Errors
    /// If no such file is durable.
    pub fn overwrite_with(&self, path: &Path, bytes: Range<u64>, source: u64) -> io::Result<()> {
        let stray = self.durable_bytes(path, source..source + (bytes.end - bytes.start));
        self.alter(path, bytes, |content| {
            let length = content.len().min(stray.len());
            content[..length].copy_from_slice(&stray[..length]);
        })
    }

    fn alter(&self, path: &Path, bytes: Range<u64>, change: impl Fn(&mut [u8])) -> io::Result<()> {
        let mut state = self.state();
        durable_inode(&mut state, path)?.alter(bytes, change);
        state.counts.damaged += 1;
        Ok(())
    }

    /// The `nth` write from now is acknowledged, synced and never there; 1 is the next one. It shows as long as the page
    /// cache has it: until the process ends.
    pub fn lose_write_at(&self, nth: u64) {
        self.stray(nth, Landing::Nowhere);
    }

    /// The `nth` write from now lands at `offset` of its file instead, over what is there; 1 is the next one.
    pub fn misdirect_write_at(&self, nth: u64, offset: u64) {
        self.stray(nth, Landing::At(offset));
    }

    fn stray(&self, nth: u64, landing: Landing) {
        let mut state = self.state();
        let number = state.counts.writes + nth;
        state.stray_writes.insert(number, landing);
    }

    /// Reads that touch this range fail, until it is written over or [`SimDisk::clear_bad_reads`] is called. A crash does not help.
    ///
    /// # Errors
    /// If no such file exists.
    pub fn fail_reads(&self, path: &Path, bytes: Range<u64>) -> io::Result<()> {
        self.bad_read(path, bytes, None, false)
    }

    /// The next read that touches this range fails, and no other.
    ///
    /// # Errors
    /// If no such file exists.
    pub fn fail_next_read(&self, path: &Path, bytes: Range<u64>) -> io::Result<()> {
        self.bad_read(path, bytes, None, true)
    }

    /// Reads that touch this range see what is at `source` of the same file instead, until [`SimDisk::clear_bad_reads`].
    ///
    /// # Errors
    /// If no such file exists.
    pub fn misdirect_reads(&self, path: &Path, bytes: Range<u64>, source: u64) -> io::Result<()> {
        self.bad_read(path, bytes, Some(source), false)
    }

    /// The next read that touches this range sees what is at `source` of the same file instead, and no other does.
    ///
    /// # Errors
    /// If no such file exists.
    pub fn misdirect_next_read(
        &self,
        path: &Path,
        bytes: Range<u64>,
        source: u64,
    ) -> io::Result<()> {
        self.bad_read(path, bytes, Some(source), true)
    }

    fn bad_read(
        &self,
        path: &Path,
        bytes: Range<u64>,
        instead: Option<u64>,
        once: bool,
    ) -> io::Result<()> {
        let mut state = self.state();
        let inode = state.inode_of(&normal(path))?;
        state.bad_reads.push(BadRead { inode, bytes, instead, once });
        Ok(())
    }

    /// Every place can be read again as it is.
    pub fn clear_bad_reads(&self) {
        self.state().bad_reads.clear();
    }

    /// Whether syncs lie from now on: they say that they succeeded, and what they should have covered stays at the mercy of a
    /// crash, until one that does not lie. No protocol survives it.
    pub fn set_syncs_lie(&self, lie: bool) {
        self.state().syncs_lie = lie;
    }

    /// The disk finishes what was issued, and then stands still for so long.
    pub fn stall(&self, length: Duration) {
        let mut state = self.state();
        state.counts.stalls += 1;
        let until = state.busy_until.max(state.now).saturating_add(nanos(length));
        state.stalled_until = state.stalled_until.max(until);
    }

    /// The disk finishes what was issued, and nothing after that, until its machine loses power.
    pub fn hang(&self) {
        let mut state = self.state();
        state.counts.stalls += 1;
        state.stalled_until = NEVER;
    }

    /// Whether the disk stands still, or will when it has finished what was issued.
    pub fn is_stalled(&self) -> bool {
        let state = self.state();
        state.stalled_until > state.now
    }

    /// The disk is lost, and a blank one is in its place. Open files are dead and locks are free.
    pub fn blank(&self) {
        self.state().blank();
    }

    /// Two disks change places after a power cut of both machines: everything that was durable is on the other one.
    ///
    /// # Panics
    /// If both are the same disk.
    pub fn swap(&self, other: &Self) {
        assert!(!std::sync::Arc::ptr_eq(&self.state, &other.state), "a disk cannot replace itself");
        self.crash();
        other.crash();
        self.state().swap_content(&mut other.state());
    }
}

fn durable_inode<'a>(state: &'a mut State, path: &Path) -> io::Result<&'a mut Inode> {
    let inode = state.durable.get(&normal(path)).copied();
    let inode = inode.ok_or(io::ErrorKind::NotFound)?;
    Ok(state.inodes.get_mut(&inode).expect("names lead to inodes"))
}

/// The sector number `number` of a file.
pub(crate) fn sector(number: u64) -> Range<u64> {
    let start = number.saturating_mul(super::SECTOR);
    start..start + super::SECTOR
}

/// How many sectors a file of `length` bytes has.
pub(crate) fn sectors(length: u64) -> u64 {
    length.div_ceil(super::SECTOR)
}

/// Whether there is anything but zeros in these bytes.
pub(crate) fn is_written(bytes: &[u8]) -> bool {
    bytes.iter().any(|byte| *byte != 0)
}
