//! `lattice debug`: looks inside files, with no node running on them.

use std::fmt;
use std::io::{self, Write};
use std::path::PathBuf;

use anyhow::Context;
use clap::{Args, Subcommand};
use lattice_journal::{RealDisk, inspect};

use super::Exit;
use super::output::shown;

#[derive(Debug, Subcommand)]
pub(crate) enum Debug {
    /// Print a journal's segments and frames, and verify them; exit code 9 if something is damaged
    Journal(Journal),
}

#[derive(Debug, Args)]
pub(crate) struct Journal {
    /// The directory of the journal's segments, such as DATA-DIR/group-0/log
    #[arg(value_name = "DIR")]
    directory: PathBuf,
    /// Bytes of each item to print
    #[arg(long, value_name = "BYTES", default_value_t = 64)]
    item_bytes: usize,
}

impl Debug {
    pub(crate) fn run(self) -> anyhow::Result<Exit> {
        let Self::Journal(Journal { directory, item_bytes }) = self;
        let mut out = Lines { out: io::stdout().lock(), error: None };
        let mut render = |_position, item: &[u8]| {
            let rest = item.len().saturating_sub(item_bytes);
            let more = if rest > 0 { format!(" … {rest} bytes more") } else { String::new() };
            format!("{}{more}", shown(&item[..item.len() - rest]))
        };
        let inspected = inspect(&RealDisk, &directory, &mut out, &mut render);
        // The formatter can only say that writing failed; the writer knows why.
        if let Some(error) = out.error {
            return Err(error.into());
        }
        let inspection =
            inspected.with_context(|| format!("cannot inspect {}", directory.display()))?;
        Ok(if inspection.damaged.is_empty() { Exit::Done } else { Exit::CheckFailed })
    }
}

/// Text for standard output, keeping the error that stopped it.
struct Lines<W> {
    out: W,
    error: Option<io::Error>,
}

impl<W: Write> fmt::Write for Lines<W> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.out.write_all(text.as_bytes()).map_err(|error| {
            self.error = Some(error);
            fmt::Error
        })
    }
}
