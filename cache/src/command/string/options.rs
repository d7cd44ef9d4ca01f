//! The options that `SET` and `GETEX` share, and the deadlines in them.

use crate::command::{Failure, integer, is_option};
use crate::store::Lifetime;
use crate::types::UnixMillis;

/// How a deadline is given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unit {
    /// `EX`: seconds from now.
    Seconds,
    /// `PX`: milliseconds from now.
    Milliseconds,
    /// `EXAT`: seconds since the Unix epoch.
    UnixSeconds,
    /// `PXAT`: milliseconds since the Unix epoch.
    UnixMilliseconds,
}

impl Unit {
    /// The deadline that `text` gives in this unit, for the command `name`.
    pub(super) fn deadline(
        self,
        text: &[u8],
        now: UnixMillis,
        name: &str,
    ) -> Result<UnixMillis, Failure> {
        let given = integer(text)?;
        let milliseconds = match self {
            Self::Seconds | Self::UnixSeconds => given.checked_mul(1_000),
            Self::Milliseconds | Self::UnixMilliseconds => Some(given),
        };
        let from = match self {
            Self::Seconds | Self::Milliseconds => i64::try_from(now.0).ok(),
            Self::UnixSeconds | Self::UnixMilliseconds => Some(0),
        };
        let positive = milliseconds.filter(|milliseconds| *milliseconds > 0);
        let deadline = positive.zip(from).and_then(|(given, from)| from.checked_add(given));
        let deadline = deadline.and_then(|deadline| u64::try_from(deadline).ok());
        deadline
            .map(UnixMillis)
            .ok_or_else(|| Failure::err(format_args!("invalid expire time in '{name}' command")))
    }
}

/// A condition on what the key holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Condition<'a> {
    /// `NX`: nothing.
    Absent,
    /// `XX`: something.
    Present,
    /// `IFEQ`: a string that is equal.
    Equals(&'a [u8]),
}

/// What follows the key and the value.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Options<'a> {
    pub(super) condition: Option<Condition<'a>>,
    /// `GET`: the old value is the reply.
    pub(super) get: bool,
    /// `KEEPTTL`.
    pub(super) keep: bool,
    /// `PERSIST`.
    pub(super) persist: bool,
    expiry: Option<(Unit, &'a [u8])>,
}

/// Whose options they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Of {
    Set,
    GetEx,
}

impl<'a> Options<'a> {
    /// Reads `arguments`, which begin after the key and the value.
    pub(super) fn read(arguments: &[&'a [u8]], of: Of) -> Result<Self, Failure> {
        let mut options = Self::default();
        let mut rest = arguments.iter().copied();
        while let Some(option) = rest.next() {
            let free = options.condition.is_none();
            if of == Of::Set && is_option(option, "NX") && options.may_be(Condition::Absent) {
                options.condition = Some(Condition::Absent);
            } else if of == Of::Set && is_option(option, "XX") && options.may_be(Condition::Present)
            {
                options.condition = Some(Condition::Present);
            } else if of == Of::Set && is_option(option, "IFEQ") && free {
                let value = rest.next().ok_or(Failure::Syntax)?;
                options.condition = Some(Condition::Equals(value));
            } else if of == Of::Set && is_option(option, "GET") {
                options.get = true;
            } else if of == Of::Set && is_option(option, "KEEPTTL") && options.expiry.is_none() {
                options.keep = true;
            } else if of == Of::GetEx && is_option(option, "PERSIST") && options.expiry.is_none() {
                options.persist = true;
            } else {
                let unit = unit(option).ok_or(Failure::Syntax)?;
                let clash = options.expiry.is_some_and(|(given, _)| given != unit);
                if options.keep || options.persist || clash {
                    return Err(Failure::Syntax);
                }
                options.expiry = Some((unit, rest.next().ok_or(Failure::Syntax)?));
            }
        }
        Ok(options)
    }

    /// Whether `condition` may be given: once more, or as the first.
    fn may_be(&self, condition: Condition<'_>) -> bool {
        self.condition.is_none_or(|given| given == condition)
    }

    /// The deadline, if one is given.
    pub(super) fn deadline(
        &self,
        now: UnixMillis,
        name: &str,
    ) -> Result<Option<UnixMillis>, Failure> {
        self.expiry.map(|(unit, text)| unit.deadline(text, now, name)).transpose()
    }

    /// How long what is written lives.
    pub(super) fn lifetime(&self, deadline: Option<UnixMillis>) -> Lifetime {
        match deadline {
            Some(at) => Lifetime::Until(at),
            None if self.keep => Lifetime::Keep,
            None => Lifetime::Forever,
        }
    }
}

fn unit(option: &[u8]) -> Option<Unit> {
    let units = [
        ("EX", Unit::Seconds),
        ("PX", Unit::Milliseconds),
        ("EXAT", Unit::UnixSeconds),
        ("PXAT", Unit::UnixMilliseconds),
    ];
    units.into_iter().find(|(name, _)| is_option(option, name)).map(|(_, unit)| unit)
}
