//! The edge at which a failing run leaves the simulation: its trace and its page become files.
#![expect(clippy::disallowed_methods, reason = "a trace for people is written to a real disk")]

use std::fs::{self, File};
use std::io::{self, BufWriter};
use std::path::{Path, PathBuf};

use crate::check::Page;
use crate::process::Process;
use crate::world::World;

/// Writes the page of a failing run as `directory/SEED.html`.
pub(super) fn write_page(page: &Page, directory: &Path, seed: u64) -> io::Result<PathBuf> {
    fs::create_dir_all(directory)?;
    let path = directory.join(format!("{seed}.html"));
    fs::write(&path, page.html())?;
    Ok(path)
}

/// Writes the trace of a world as `directory/SEED.jsonl`.
pub(super) fn write_trace<P: Process>(
    world: &World<P>,
    directory: &Path,
    seed: u64,
) -> io::Result<PathBuf> {
    fs::create_dir_all(directory)?;
    let path = directory.join(format!("{seed}.jsonl"));
    world.write_trace(BufWriter::new(File::create(&path)?))?;
    Ok(path)
}
