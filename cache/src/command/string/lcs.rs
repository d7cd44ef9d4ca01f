//! `LCS`: the longest common subsequence of two strings.
//!
//! The textbook's table: cell (i, j) holds the length for the first i bytes of one and the first j of the other. Time and room
//! are the product of the lengths; the room is bounded by [`TABLE_MAX`], and where only the length is asked for two rows do.
//! Of several longest subsequences the one is told that Redis finds: walking back from the ends, a tie goes to the second string.

use crate::command::{Context, Failure, integer, is_option};
use crate::value::View;

/// The most room for the table, in bytes.
const TABLE_MAX: u64 = 128 << 20;

/// The most cells that are computed where only the length is asked for: a second or so.
const CELLS_MAX: u64 = 1 << 29;

#[derive(Default)]
struct Options {
    length: bool,
    indexes: bool,
    with_length: bool,
    length_min: i64,
}

impl Options {
    fn read(arguments: &[&[u8]]) -> Result<Self, Failure> {
        let mut options = Self::default();
        let mut rest = arguments.iter();
        while let Some(option) = rest.next() {
            if is_option(option, "IDX") {
                options.indexes = true;
            } else if is_option(option, "LEN") {
                options.length = true;
            } else if is_option(option, "WITHMATCHLEN") {
                options.with_length = true;
            } else if is_option(option, "MINMATCHLEN") {
                options.length_min = integer(rest.next().ok_or(Failure::Syntax)?)?.max(0);
            } else {
                return Err(Failure::Syntax);
            }
        }
        if options.length && options.indexes {
            return Err(Failure::err(
                "If you want both the length and indexes, please just use IDX.",
            ));
        }
        Ok(options)
    }
}

pub(super) fn lcs(ctx: &mut Context<'_, '_>, arguments: &[&[u8]]) -> Result<(), Failure> {
    let mut lengths = [0_u64; 2];
    for (length, argument) in lengths.iter_mut().zip(&arguments[1..3]) {
        let key = ctx.key(argument);
        *length = match ctx.keys.get(&key) {
            None => 0,
            Some(View::String(bytes)) => bytes.len() as u64,
            Some(_) => return Err(Failure::err("The specified keys must contain string values")),
        };
    }
    let options = Options::read(&arguments[3..])?;
    // Nothing is copied before it is known to be small enough; nor if there is nothing to be found in it.
    let cells = (lengths[0] + 1).saturating_mul(lengths[1] + 1);
    let wanted = if options.length { CELLS_MAX } else { TABLE_MAX / 4 };
    if cells > wanted {
        return Err(Failure::err(
            "Insufficient memory, transient memory for LCS exceeds proto-max-bulk-len",
        ));
    }
    let mut strings = [Vec::new(), Vec::new()];
    if !lengths.contains(&0) {
        for (string, argument) in strings.iter_mut().zip(&arguments[1..3]) {
            let key = ctx.key(argument);
            if let Some(View::String(bytes)) = ctx.keys.peek(&key) {
                *string = bytes.to_vec();
            }
        }
    }
    let [left, right] = &strings;
    if options.length {
        ctx.reply.count(length(left, right));
        return Ok(());
    }
    let found = Common::of(left, right);
    if options.indexes {
        let enough = |run: &&Run| run.length as u64 >= options.length_min.unsigned_abs();
        let runs: Vec<&Run> = found.runs.iter().filter(enough).collect();
        ctx.reply.map(2);
        ctx.reply.bulk(b"matches");
        ctx.reply.array(runs.len());
        for run in runs {
            ctx.reply.array(2 + usize::from(options.with_length));
            for start in [run.left, run.right] {
                ctx.reply.array(2);
                ctx.reply.count(start);
                ctx.reply.count(start + run.length - 1);
            }
            if options.with_length {
                ctx.reply.count(run.length);
            }
        }
        ctx.reply.bulk(b"len");
        ctx.reply.count(found.bytes.len());
    } else {
        ctx.reply.bulk(&found.bytes);
    }
    Ok(())
}

/// The length alone.
fn length(left: &[u8], right: &[u8]) -> usize {
    let mut row = vec![0usize; right.len() + 1];
    for byte in left {
        let mut diagonal = 0;
        for (index, other) in right.iter().enumerate() {
            let above = row[index + 1];
            row[index + 1] = if byte == other { diagonal + 1 } else { above.max(row[index]) };
            diagonal = above;
        }
    }
    row[right.len()]
}

/// A stretch that the two strings have in common.
#[derive(Debug, PartialEq, Eq)]
struct Run {
    /// Where it begins in the first.
    left: usize,
    /// Where it begins in the second.
    right: usize,
    length: usize,
}

/// A longest common subsequence.
struct Common {
    bytes: Vec<u8>,
    /// Its stretches, the last first.
    runs: Vec<Run>,
}

impl Common {
    fn of(left: &[u8], right: &[u8]) -> Self {
        let width = right.len() + 1;
        let mut table = vec![0u32; (left.len() + 1) * width];
        for (i, byte) in left.iter().enumerate() {
            for (j, other) in right.iter().enumerate() {
                table[(i + 1) * width + j + 1] = if byte == other {
                    table[i * width + j] + 1
                } else {
                    table[i * width + j + 1].max(table[(i + 1) * width + j])
                };
            }
        }
        let (mut i, mut j) = (left.len(), right.len());
        let mut common = Self { bytes: Vec::new(), runs: Vec::new() };
        let mut adjoining = false;
        while i > 0 && j > 0 {
            if left[i - 1] == right[j - 1] {
                (i, j) = (i - 1, j - 1);
                common.bytes.push(left[i]);
                match common.runs.last_mut().filter(|_| adjoining) {
                    Some(run) => *run = Run { left: i, right: j, length: run.length + 1 },
                    None => common.runs.push(Run { left: i, right: j, length: 1 }),
                }
                adjoining = true;
            } else {
                adjoining = false;
                if table[(i - 1) * width + j] > table[i * width + j - 1] { i -= 1 } else { j -= 1 }
            }
        }
        common.bytes.reverse();
        common
    }
}
