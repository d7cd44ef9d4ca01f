//! The state of a simulated disk and its passage of time.
//!
//! A disk is serial. An operation that is issued at `now` starts when the one before it has ended and takes the time
//! that is drawn for it; the caller sees its result at once, the platter when that time has come. A sync therefore
//! waits in a queue until the world's time has passed its end, and only then makes durable what it covered.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::disk::file::{Change, Fate, Inode, Landing, Operation};
use crate::disk::names::{self, NameChange, NameChangeKind, Names};
use crate::disk::pages::{size_of_length, to_u64, to_usize};
use crate::disk::{DiskCounts, DiskOptions, Survival};
use crate::random::{ChaCha8Rng, Chance, below, nanos};

/// A sync that the disk has still to finish.
#[derive(Debug)]
struct Sync {
    end: u64,
    sequence: u64,
    target: Target,
    succeeds: bool,
}

/// No time that a run reaches: 146 years.
pub(super) const NEVER: u64 = u64::MAX / 4;

/// Bytes that cannot be read as they should.
#[derive(Clone, Debug)]
pub(super) struct BadRead {
    pub(super) inode: u64,
    pub(super) bytes: Range<u64>,
    /// Another offset of the file, which is read instead; an error if there is none.
    pub(super) instead: Option<u64>,
    /// Only the next read is bad.
    pub(super) once: bool,
}

/// What a sync makes durable.
#[derive(Debug)]
pub(super) enum Target {
    File(u64),
    Directory(PathBuf),
}

#[derive(Debug)]
pub(super) struct State {
    pub(super) options: DiskOptions,
    pub(super) slowdown: u32,
    pub(super) counts: DiskCounts,
    /// Grows with every crash: files and locks of an earlier generation are dead.
    pub(super) generation: u64,
    pub(super) inodes: BTreeMap<u64, Inode>,
    pub(super) visible: Names,
    /// With the time at which each was made, which a crash before it undoes.
    pub(super) directories: BTreeMap<PathBuf, u64>,
    pub(super) locks: BTreeSet<PathBuf>,
    pub(super) now: u64,
    pub(super) busy_until: u64,
    /// Until when the disk stands still; [`NEVER`] if only a power cycle helps.
    pub(super) stalled_until: u64,
    /// Numbers of the syncs, counted from the first, that fail.
    pub(super) failing_syncs: BTreeSet<u64>,
    /// Syncs say that they succeeded, and do nothing.
    pub(super) syncs_lie: bool,
    /// Numbers of the writes, counted from the first, that land elsewhere or nowhere.
    pub(super) stray_writes: BTreeMap<u64, Landing>,
    /// Places that cannot be read as they should.
    pub(super) bad_reads: Vec<BadRead>,
    /// How many more calls succeed before the machine is gone.
    pub(super) calls_left: Option<u64>,
    pub(super) gone: bool,
    /// Bytes taken up by files that have a name or are open.
    pub(super) used: u64,
    pub(super) durable: Names,
    changes: Vec<NameChange>,
    syncs: VecDeque<Sync>,
    next_inode: u64,
    next_sequence: u64,
    rng: ChaCha8Rng,
}

impl State {
    pub(super) fn new(rng: ChaCha8Rng, options: DiskOptions) -> Self {
        Self {
            options,
            slowdown: 1,
            counts: DiskCounts::default(),
            generation: 0,
            inodes: BTreeMap::new(),
            visible: Names::new(),
            directories: BTreeMap::new(),
            locks: BTreeSet::new(),
            now: 0,
            busy_until: 0,
            stalled_until: 0,
            failing_syncs: BTreeSet::new(),
            syncs_lie: false,
            stray_writes: BTreeMap::new(),
            bad_reads: Vec::new(),
            calls_left: None,
            gone: false,
            used: 0,
            durable: Names::new(),
            changes: Vec::new(),
            syncs: VecDeque::new(),
            next_inode: 0,
            next_sequence: 0,
            rng,
        }
    }

    /// Moves time forward and makes durable what was synced meanwhile.
    pub(super) fn advance(&mut self, now: u64) {
        self.now = self.now.max(now);
        while let Some(sync) = self.syncs.pop_front_if(|sync| sync.end <= self.now) {
            self.complete(sync);
        }
    }

    fn complete(&mut self, sync: Sync) {
        match sync.target {
            Target::File(inode) => {
                if let Some(inode) = self.inodes.get_mut(&inode) {
                    if sync.succeeds {
                        inode.settle(sync.sequence);
                    } else {
                        inode.forget(sync.sequence);
                    }
                }
            }
            Target::Directory(path) => {
                let (changes, durable) = (&mut self.changes, &mut self.durable);
                names::settle(changes, durable, &path, sync.sequence, sync.succeeds);
                self.collect();
            }
        }
    }

    /// Reserves the disk for `work` and answers (sequence, start, end).
    fn occupy(&mut self, work: Duration) -> (u64, u64, u64) {
        let start = self.begin();
        self.busy_until = start.saturating_add(nanos(work).saturating_mul(self.slowdown.into()));
        self.next_sequence += 1;
        (self.next_sequence, start, self.busy_until)
    }

    /// When the disk gets to what is issued now.
    fn begin(&self) -> u64 {
        self.busy_until.max(self.now).max(self.stalled_until)
    }

    /// A call that only looks: it takes no time (the page cache answers) and is not counted.
    pub(super) fn look(&self) -> io::Result<()> {
        if self.gone { Err(gone()) } else { Ok(()) }
    }

    /// A call that changes something: it is counted, and may be the one at which the machine is gone.
    pub(super) fn call(&mut self) -> io::Result<()> {
        self.look()?;
        match self.calls_left.as_mut() {
            Some(0) => {
                self.gone = true;
                return Err(gone());
            }
            Some(left) => *left -= 1,
            None => {}
        }
        self.counts.calls += 1;
        Ok(())
    }

    pub(super) fn inode_of(&self, path: &Path) -> io::Result<u64> {
        if self.directories.contains_key(path) || names::is_top(path) {
            return Err(io::ErrorKind::IsADirectory.into());
        }
        self.visible.get(path).copied().ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    pub(super) fn check_directory(&self, path: &Path) -> io::Result<()> {
        if names::is_top(path) || self.directories.contains_key(path) {
            Ok(())
        } else if self.visible.contains_key(path) {
            Err(io::ErrorKind::NotADirectory.into())
        } else {
            Err(io::ErrorKind::NotFound.into())
        }
    }

    /// Makes a directory and those above it. It is durable when its turn comes, behind all that was issued before.
    pub(super) fn create_directory(&mut self, path: &Path) {
        let start = self.begin();
        for above in path.ancestors().filter(|above| !names::is_top(above)) {
            self.directories.entry(above.to_path_buf()).or_insert(start);
        }
    }

    pub(super) fn create(&mut self, path: PathBuf) -> io::Result<u64> {
        self.check_directory(path.parent().unwrap_or(Path::new("")))?;
        if self.visible.contains_key(&path) || self.directories.contains_key(&path) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        self.next_inode += 1;
        let inode = self.next_inode;
        self.inodes.insert(inode, Inode { linked: true, ..Inode::default() });
        self.change_names(NameChangeKind::Create { path, inode });
        Ok(inode)
    }

    pub(super) fn rename(&mut self, from: PathBuf, to: PathBuf) -> io::Result<()> {
        let inode = self.inode_of(&from)?;
        self.check_directory(to.parent().unwrap_or(Path::new("")))?;
        if self.directories.contains_key(&to) {
            return Err(io::ErrorKind::IsADirectory.into());
        }
        if from == to {
            return Ok(());
        }
        let replaced = self.visible.get(&to).copied();
        self.change_names(NameChangeKind::Rename { from, to, inode });
        replaced.into_iter().for_each(|replaced| self.unlink(replaced));
        Ok(())
    }

    pub(super) fn remove(&mut self, path: PathBuf) -> io::Result<()> {
        let inode = self.inode_of(&path)?;
        self.change_names(NameChangeKind::Remove { path });
        self.unlink(inode);
        Ok(())
    }

    fn change_names(&mut self, kind: NameChangeKind) {
        let work = self.options.latency.write.draw(&mut self.rng);
        let (sequence, start, _) = self.occupy(work);
        let change = NameChange { sequence, start, kind, lost: false };
        change.apply(&mut self.visible);
        self.changes.push(change);
    }

    fn unlink(&mut self, inode: u64) {
        self.inodes.get_mut(&inode).expect("names lead to inodes").linked = false;
        self.release(inode);
    }

    /// Gives back the space of a file that has neither a name nor an open handle.
    fn release(&mut self, inode: u64) {
        let file = &self.inodes[&inode];
        if !file.linked && file.handles == 0 {
            self.used = self.used.saturating_sub(file.visible.size());
            self.collect();
        }
    }

    /// Forgets files that nothing can lead to any more.
    fn collect(&mut self) {
        let (durable, changes) = (&self.durable, &self.changes);
        self.inodes.retain(|inode, file| {
            file.linked
                || file.handles > 0
                || durable.values().any(|other| other == inode)
                || changes.iter().any(|change| change.leads_to(*inode))
        });
    }

    pub(super) fn open_handle(&mut self, inode: u64) {
        self.inodes.get_mut(&inode).expect("just looked up").handles += 1;
    }

    pub(super) fn close_handle(&mut self, inode: u64) {
        if let Some(file) = self.inodes.get_mut(&inode) {
            file.handles = file.handles.saturating_sub(1);
            self.release(inode);
        }
    }

    /// Takes the space that a file needs to be `length` bytes long.
    fn charge(&mut self, inode: u64, length: u64) -> io::Result<()> {
        let more = size_of_length(length).saturating_sub(self.inodes[&inode].visible.size());
        let used = self.used.saturating_add(more);
        if more > 0 && self.options.capacity.is_some_and(|capacity| used > capacity) {
            self.counts.full += 1;
            return Err(io::ErrorKind::StorageFull.into());
        }
        self.used = used;
        Ok(())
    }

    pub(super) fn write(&mut self, inode: u64, bytes: &[u8], offset: u64) -> io::Result<()> {
        let length = u64::try_from(bytes.len()).expect("a length in memory fits into 64 bits");
        self.charge(inode, offset + length)?;
        let latency = self.options.latency;
        let kibs = u32::try_from(length / 1024).unwrap_or(u32::MAX);
        let work = latency.write.draw(&mut self.rng) + latency.per_kib.saturating_mul(kibs);
        self.counts.bytes += length;
        self.counts.writes += 1;
        let landing = self.stray_writes.remove(&self.counts.writes).unwrap_or(Landing::InPlace);
        self.counts.damaged += u64::from(landing != Landing::InPlace);
        if landing == Landing::InPlace {
            self.mend(inode, &(offset..offset + length));
        }
        self.push(inode, work, Change::Write { offset, bytes: bytes.to_vec(), landing });
        Ok(())
    }

    pub(super) fn allocate(&mut self, inode: u64, length: u64) -> io::Result<()> {
        self.charge(inode, length)?;
        let work = self.options.latency.write.draw(&mut self.rng);
        self.push(inode, work, Change::Grow { length });
        Ok(())
    }

    /// A sector that is written over can be read again: a disk puts another in the place of one that has failed.
    fn mend(&mut self, inode: u64, written: &Range<u64>) {
        let bad_reads = std::mem::take(&mut self.bad_reads);
        for bad in bad_reads {
            let is_met = bad.inode == inode
                && bad.instead.is_none()
                && bad.bytes.start < written.end
                && bad.bytes.end > written.start;
            if !is_met {
                self.bad_reads.push(bad);
                continue;
            }
            let before = bad.bytes.start..written.start.max(bad.bytes.start);
            let behind = written.end.min(bad.bytes.end)..bad.bytes.end;
            for bytes in [before, behind].into_iter().filter(|bytes| !bytes.is_empty()) {
                self.bad_reads.push(BadRead { bytes, ..bad.clone() });
            }
        }
    }

    /// Reads as a caller does, bad places included.
    pub(super) fn read(&mut self, inode: u64, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let wanted = offset..offset.saturating_add(to_u64(buffer.len()));
        let meets = |bad: &BadRead| {
            bad.inode == inode && bad.bytes.start < wanted.end && bad.bytes.end > wanted.start
        };
        let Some(place) = self.bad_reads.iter().position(meets) else {
            return Ok(self.inodes[&inode].visible.read(buffer, offset));
        };
        let bad = self.bad_reads[place].clone();
        if bad.once {
            self.bad_reads.remove(place);
        }
        self.counts.bad_reads += 1;
        let visible = &self.inodes[&inode].visible;
        let Some(from) = bad.instead else {
            return Err(io::Error::other("input/output error on read (simulated)"));
        };
        let length = visible.read(buffer, offset);
        let start = bad.bytes.start.max(offset);
        let end = bad.bytes.end.min(offset + to_u64(length));
        if start < end {
            let place = &mut buffer[to_usize(start - offset)..to_usize(end - offset)];
            place.fill(0);
            visible.read(place, from + (start - bad.bytes.start));
        }
        Ok(length)
    }

    fn push(&mut self, inode: u64, work: Duration, change: Change) {
        let (sequence, start, _) = self.occupy(work);
        let file = self.inodes.get_mut(&inode).expect("an open file has an inode");
        file.push(Operation { sequence, start, change });
    }

    /// Begins a sync; its outcome is known to the caller at once and to the platter when its time has come.
    pub(super) fn sync(&mut self, target: Target) -> io::Result<()> {
        self.counts.syncs += 1;
        let latency = self.options.latency;
        let mut work = latency.sync.draw(&mut self.rng);
        if latency.stall.happens(&mut self.rng) {
            work += latency.stalled.draw(&mut self.rng);
        }
        let fails = self.failing_syncs.remove(&self.counts.syncs)
            || self.options.sync_error.happens(&mut self.rng);
        let (sequence, _, end) = self.occupy(work);
        if self.syncs_lie && !fails {
            // What it should have covered waits for the next one that is honest.
            self.counts.lies += 1;
            return Ok(());
        }
        self.syncs.push_back(Sync { end, sequence, target, succeeds: !fails });
        self.advance(self.now);
        if fails {
            self.counts.failed_syncs += 1;
            return Err(io::Error::other("input/output error (simulated)"));
        }
        Ok(())
    }

    /// The machine loses power now.
    pub(super) fn crash(&mut self, survival: Survival) {
        self.advance(self.now);
        self.counts.crashes += 1;
        let now = self.now;
        let flavour = Flavour::draw(survival, &mut self.rng);
        let (changes, durable, rng) = (&mut self.changes, &mut self.durable, &mut self.rng);
        names::crash(changes, durable, now, || flavour.decide(rng) != Fate::Dropped);
        for file in self.inodes.values_mut() {
            file.crash(now, &mut self.rng, |rng| flavour.decide(rng));
        }
        self.visible.clone_from(&self.durable);
        self.stalled_until = 0;
        self.restart();
    }

    /// All files and names are gone, for good.
    pub(super) fn blank(&mut self) {
        self.crash(Survival::Nothing);
        self.visible.clear();
        self.durable.clear();
        self.inodes.clear();
        self.directories.clear();
        self.bad_reads.clear();
        self.used = 0;
        self.counts.blanked += 1;
    }

    /// Two machines have lost power, and get each other's content.
    pub(super) fn swap_content(&mut self, other: &mut Self) {
        for state in [&mut *self, &mut *other] {
            state.bad_reads.clear();
            state.counts.swapped += 1;
        }
        std::mem::swap(&mut self.inodes, &mut other.inodes);
        std::mem::swap(&mut self.visible, &mut other.visible);
        std::mem::swap(&mut self.durable, &mut other.durable);
        std::mem::swap(&mut self.directories, &mut other.directories);
        std::mem::swap(&mut self.next_inode, &mut other.next_inode);
        std::mem::swap(&mut self.used, &mut other.used);
    }

    /// The process is gone and the machine lives on: what has begun is still going to be written.
    pub(super) fn kill(&mut self) {
        self.advance(self.now);
        let now = self.now;
        // The caller of a sync that is going to fail knows it already, and ends because of it.
        for sync in std::mem::take(&mut self.syncs) {
            if !sync.succeeds {
                self.complete(sync);
            }
        }
        self.changes.retain(|change| change.start <= now && !change.lost);
        self.visible.clone_from(&self.durable);
        for change in &self.changes {
            change.apply(&mut self.visible);
        }
        for file in self.inodes.values_mut() {
            file.reload(now);
            file.handles = 0;
        }
        self.restart();
    }

    /// What a crash and the end of a process have in common.
    fn restart(&mut self) {
        let now = self.now;
        self.directories.retain(|_, start| *start <= now);
        for file in self.inodes.values_mut() {
            file.linked = false;
        }
        for inode in self.visible.values() {
            self.inodes.get_mut(inode).expect("names lead to inodes").linked = true;
        }
        self.collect();
        let linked = self.inodes.values().filter(|file| file.linked);
        self.used = linked.map(|file| file.visible.size()).sum();
        self.syncs.clear();
        self.locks.clear();
        self.busy_until = self.now;
        self.calls_left = None;
        self.gone = false;
        self.generation += 1;
    }
}

/// How a crash treats what was not synced: one crash loses everything, the next hardly anything. Deciding each
/// operation by an equal coin would make the pure cases, which real power cuts often are, very rare.
#[derive(Clone, Copy, Debug)]
struct Flavour {
    dropped: Chance,
    torn: Chance,
}

impl Flavour {
    fn draw(survival: Survival, rng: &mut ChaCha8Rng) -> Self {
        let (dropped, torn) = match survival {
            Survival::Nothing => (Chance::ALWAYS, Chance::NEVER),
            Survival::Everything => (Chance::NEVER, Chance::NEVER),
            Survival::Random => match below(rng, 5) {
                0 => (Chance::ALWAYS, Chance::NEVER),
                1 => (Chance::NEVER, Chance::NEVER),
                2 => (Chance::NEVER, Chance::ALWAYS),
                3 => (Chance::percent(10), Chance::percent(20)),
                _ => (Chance::percent(50), Chance::percent(30)),
            },
        };
        Self { dropped, torn }
    }

    fn decide(self, rng: &mut ChaCha8Rng) -> Fate {
        if self.dropped.happens(rng) {
            Fate::Dropped
        } else if self.torn.happens(rng) {
            Fate::Torn
        } else {
            Fate::Kept
        }
    }
}

fn gone() -> io::Error {
    io::Error::other("crashed (simulated): the machine is gone")
}
