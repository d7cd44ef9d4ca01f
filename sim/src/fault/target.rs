//! What a fault hits that could destroy more than a protocol can bear.

use std::path::{Path, PathBuf};

use crate::disk::{SimDisk, is_written, sector, sectors};
use crate::process::Address;
use crate::random::{ChaCha8Rng, below, index};

/// What a scenario lets a fault hit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// One sector of a file on a node's disk.
    Sector {
        /// The node.
        node: Address,
        /// The file.
        path: PathBuf,
        /// The number of the sector, from 0.
        sector: u64,
    },
    /// A node's whole disk.
    Disk(Address),
    /// The disks of two nodes.
    Disks(Address, Address),
}

/// How many places are looked at before one gives up.
const TRIES: usize = 20;

/// Draws a durable sector in which something is written, out of the files that are allowed: each file is as likely as any other.
pub fn draw_sector(
    disk: &SimDisk,
    rng: &mut ChaCha8Rng,
    allowed: impl Fn(&Path) -> bool,
) -> Option<(PathBuf, u64)> {
    let mut files = disk.durable_files();
    files.retain(|(path, length)| *length > 0 && allowed(path));
    if files.is_empty() {
        return None;
    }
    for _ in 0..TRIES {
        let (path, length) = &files[index(rng, files.len())];
        let number = below(rng, sectors(*length));
        if is_written(&disk.durable_bytes(path, sector(number))) {
            return Some((path.clone(), number));
        }
    }
    None
}
