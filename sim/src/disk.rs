//! A disk that forgets what POSIX allows it to forget.
//!
//! [`SimDisk`] implements the journal's [`Disk`] over memory. Each file has two images, the visible and the durable
//! one, and a list of the operations between them; names work the same way. A sync moves what it covers to the durable
//! side, once its time has passed. At a crash ([`SimDisk::crash`]) every operation that no sync covered is kept, lost,
//! or torn, in any combination: seeded, so that the same seed loses the same bytes.
//!
//! - Writes tear at sectors of 512 bytes, and now and then at any byte.
//! - A new, renamed or removed name is only safe after [`Disk::sync_dir`]. A file whose creation is lost is gone, with
//!   all its synced content. Changes that touch the same name keep their order; others do not.
//! - After a failed sync the operations that it covered stay visible and never become durable, not even by a later
//!   sync that succeeds, unless they are written again.
//! - Directories are durable at once: that is what [`Disk::create_dir`] promises.
//!
//! A disk can be used without a world: its latencies are zero and its time stands still, so a sync is done when it
//! returns. In a world every call takes time. A caller sees the result at once, but a crash at time T undoes what starts
//! after T, and a sync that ends after T has not happened. Reads take no time: they are answered from the page cache.
//!
//! Worse than crashes is what is done only when a test or a nemesis asks for it: bits that rot at rest, writes that are lost or
//! land elsewhere, reads that fail or see another place, syncs that lie, a disk that stands still for a while or for ever, one
//! that is replaced by a blank one or by another node's. What was damaged is counted, so that a checker knows whom it may excuse.
//!
//! Left out so far: reads after a failed sync that still see the clean but lost pages after the process has been restarted.

mod damage;
mod file;
mod handle;
mod names;
mod options;
mod pages;
mod state;

use std::fmt;
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use lattice_journal::{Disk, DiskFile, DiskLock, OpenMode};

use crate::disk::handle::{SimFile, SimLock};
use crate::disk::names::normal;
use crate::disk::state::{State, Target};
use crate::random::{Chance, nanos, stream};

pub(crate) use crate::disk::damage::{is_written, sector, sectors};
pub use crate::disk::file::SECTOR;
pub use crate::disk::options::{DiskCounts, DiskLatency, DiskOptions, Survival};

/// The longest file, in bytes: one tebibyte. Offsets beyond it are refused as invalid.
pub const FILE_LENGTH_MAX: u64 = 1 << 40;

/// A simulated disk; clones are handles to the same one.
///
/// ```
/// use std::path::Path;
/// use lattice_journal::{Disk, OpenMode};
/// use lattice_sim::{SimDisk, Survival};
///
/// let disk = SimDisk::new(1);
/// let file = disk.open(Path::new("log"), OpenMode::CreateNew)?;
/// file.write_at(b"kept", 0)?;
/// file.sync_data()?;
/// disk.sync_dir(Path::new(""))?;
/// file.write_at(b"lost", 4)?;
///
/// disk.crash_with(Survival::Nothing);
/// let file = disk.open(Path::new("log"), OpenMode::Read)?;
/// assert_eq!(file.length()?, 4);
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Clone)]
pub struct SimDisk {
    state: Arc<Mutex<State>>,
}

impl SimDisk {
    /// An empty disk without latency, limit or faults. What crashes take is drawn from `seed`.
    pub fn new(seed: u64) -> Self {
        Self::with_options(seed, DiskOptions::default())
    }

    /// An empty disk.
    pub fn with_options(seed: u64, options: DiskOptions) -> Self {
        Self::numbered(seed, 0, options)
    }

    /// The disk of node `number` in the run of `seed`.
    pub(crate) fn numbered(seed: u64, number: u64, options: DiskOptions) -> Self {
        let state = State::new(stream(seed, "disk", number), options);
        Self { state: Arc::new(Mutex::new(state)) }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // A panic of the simulated code leaves the disk as it was between two calls.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The machine loses power: only what is durable survives, and of the rest a seeded choice. Open files are dead,
    /// locks are free, and calls work again if [`SimDisk::crash_after_calls`] had ended that.
    pub fn crash(&self) {
        self.crash_with(Survival::Random);
    }

    /// As [`SimDisk::crash`], with the given choice.
    pub fn crash_with(&self, survival: Survival) {
        self.state().crash(survival);
    }

    /// The process ends and the machine lives on: all that was written is there, but not yet durable. Open files are
    /// dead and locks are free. What a failed sync covered is gone: the disk has it not, and the cache dropped it.
    pub fn kill(&self) {
        self.state().kill();
    }

    /// The next `calls` calls that change something work, and from the one after them on every call fails, until
    /// [`SimDisk::crash`] is called.
    pub fn crash_after_calls(&self, calls: u64) {
        self.state().calls_left = Some(calls);
    }

    /// The `nth` sync from now fails; 1 is the next one.
    pub fn fail_sync_at(&self, nth: u64) {
        let mut state = self.state();
        let number = state.counts.syncs + nth;
        state.failing_syncs.insert(number);
    }

    /// Takes back every [`SimDisk::fail_sync_at`] that has not come yet.
    pub fn clear_failing_syncs(&self) {
        self.state().failing_syncs.clear();
    }

    /// How often syncs fail from now on.
    pub fn set_sync_error(&self, chance: Chance) {
        self.state().options.sync_error = chance;
    }

    /// Bytes that files may take up from now on. Files that take up more already stay as they are.
    pub fn set_capacity(&self, capacity: Option<u64>) {
        self.state().options.capacity = capacity;
    }

    /// Bytes that files may take up.
    pub fn capacity(&self) -> Option<u64> {
        self.state().options.capacity
    }

    /// Bytes that files take up now.
    pub fn used(&self) -> u64 {
        self.state().used
    }

    /// How long calls take from now on.
    pub fn set_latency(&self, latency: DiskLatency) {
        self.state().options.latency = latency;
    }

    /// Every call takes `times` as long from now on; 1 is normal.
    pub fn set_slowdown(&self, times: u32) {
        self.state().slowdown = times.max(1);
    }

    /// What the disk has done so far.
    pub fn counts(&self) -> DiskCounts {
        self.state().counts
    }

    /// Moves the disk's time forward, which a world does by itself. Syncs that end by then are done.
    pub fn set_now(&self, now: Duration) {
        self.state().advance(nanos(now));
    }

    /// When everything that was issued so far is done.
    pub fn busy_until(&self) -> Duration {
        let state = self.state();
        Duration::from_nanos(state.busy_until.max(state.now))
    }

    /// Writes behind everybody's back: what is visible and what is durable both change at once, inside the length that
    /// the file has. This is how tests damage data at rest.
    ///
    /// # Errors
    /// If no such file exists.
    pub fn damage(&self, path: &Path, bytes: &[u8], offset: u64) -> io::Result<()> {
        let mut state = self.state();
        let inode = state.inode_of(&normal(path))?;
        let file = state.inodes.get_mut(&inode).expect("names lead to inodes");
        for image in [&mut file.visible, &mut file.durable] {
            let room = image.length().saturating_sub(offset);
            let length = usize::try_from(room).unwrap_or(usize::MAX).min(bytes.len());
            image.write(&bytes[..length], offset);
        }
        Ok(())
    }

    /// Cuts a file behind everybody's back, in both images.
    ///
    /// # Errors
    /// If no such file exists.
    pub fn cut(&self, path: &Path, length: u64) -> io::Result<()> {
        let mut state = self.state();
        let inode = state.inode_of(&normal(path))?;
        let file = state.inodes.get_mut(&inode).expect("names lead to inodes");
        let before = file.visible.size();
        file.visible.truncate(length);
        file.durable.truncate(length);
        let freed = before - file.visible.size();
        state.used = state.used.saturating_sub(freed);
        Ok(())
    }

    fn handle(&self, state: &mut State, inode: u64, writable: bool) -> Box<dyn DiskFile> {
        state.open_handle(inode);
        let generation = state.generation;
        Box::new(SimFile { disk: self.clone(), inode, generation, writable })
    }
}

impl fmt::Debug for SimDisk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.state();
        let names: Vec<_> = state.visible.keys().collect();
        f.debug_struct("SimDisk").field("files", &names).field("used", &state.used).finish()
    }
}

impl Disk for SimDisk {
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Box<dyn DiskFile>> {
        let (mut state, path) = (self.state(), normal(path));
        let inode = match mode {
            OpenMode::Read | OpenMode::ReadWrite => {
                state.look()?;
                state.inode_of(&path)?
            }
            OpenMode::CreateNew => {
                state.call()?;
                state.create(path)?
            }
        };
        Ok(self.handle(&mut state, inode, mode != OpenMode::Read))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut state = self.state();
        state.call()?;
        state.rename(normal(from), normal(to))
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let mut state = self.state();
        state.call()?;
        state.remove(normal(path))
    }

    fn list(&self, directory: &Path) -> io::Result<Vec<String>> {
        let (state, directory) = (self.state(), normal(directory));
        state.look()?;
        state.check_directory(&directory)?;
        let paths = state.visible.keys().chain(state.directories.keys());
        let names = paths.filter(|path| path.parent() == Some(&directory));
        let mut names: Vec<String> =
            names.filter_map(|path| Some(path.file_name()?.to_string_lossy().into())).collect();
        names.sort_unstable();
        Ok(names)
    }

    fn create_dir(&self, directory: &Path) -> io::Result<()> {
        let (mut state, directory) = (self.state(), normal(directory));
        state.call()?;
        if directory.ancestors().any(|above| state.visible.contains_key(above)) {
            return Err(io::ErrorKind::NotADirectory.into());
        }
        state.create_directory(&directory);
        Ok(())
    }

    fn sync_dir(&self, directory: &Path) -> io::Result<()> {
        let (mut state, directory) = (self.state(), normal(directory));
        state.call()?;
        state.check_directory(&directory)?;
        state.sync(Target::Directory(directory))
    }

    fn lock(&self, path: &Path) -> io::Result<Box<dyn DiskLock>> {
        let (mut state, path) = (self.state(), normal(path));
        state.call()?;
        if state.locks.contains(&path) {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        if !state.visible.contains_key(&path) {
            state.create(path.clone())?;
        }
        state.locks.insert(path.clone());
        let generation = state.generation;
        Ok(Box::new(SimLock { disk: self.clone(), path, generation }))
    }
}
