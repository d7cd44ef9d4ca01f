//! The count of `SRANDMEMBER`, `HRANDFIELD` and `ZRANDMEMBER`.

use super::{Failure, integer};

/// The most elements that one call returns with repetition. Redis has no such bound, and builds a reply of any size.
const REPEATED_MAX: usize = 1 << 24;

/// The largest reply with repetition, in bytes: a small request must not fill the memory.
const REPLY_MAX: usize = 256 << 20;

/// How many random elements are wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sample {
    /// So many different ones; all, if there are fewer.
    Different(usize),
    /// So many, each drawn from all: a negative count.
    Repeated(usize),
}

impl Sample {
    /// Reads a count.
    pub(super) fn read(text: &[u8]) -> Result<Self, Failure> {
        let count = integer(text)?;
        if count == i64::MIN {
            return Err(Failure::err(format_args!(
                "value is out of range, value must between -{0} and {0}",
                i64::MAX
            )));
        }
        let many = usize::try_from(count.unsigned_abs()).unwrap_or(usize::MAX);
        Ok(if count >= 0 { Self::Different(many) } else { Self::Repeated(many) })
    }

    /// Refuses more repetitions than a reply may hold.
    pub(super) fn bounded(self) -> Result<Self, Failure> {
        match self {
            Self::Repeated(count) if count > REPEATED_MAX => Err(out_of_range()),
            fine => Ok(fine),
        }
    }
}

/// Refuses a reply of `bytes`, if it has become too large.
pub(super) fn check_reply(bytes: usize) -> Result<(), Failure> {
    if bytes > REPLY_MAX { Err(out_of_range()) } else { Ok(()) }
}

pub(super) fn out_of_range() -> Failure {
    Failure::err("value is out of range")
}
