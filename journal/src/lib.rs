//! An append-only, segmented log over a [`Disk`].

pub mod disk;

pub use disk::{Disk, DiskFile, DiskLock, MemoryDisk, OpenMode, RealDisk};
