//! Deadlines of fields: `HEXPIRE` and its like, `HTTL` and its like, `HPERSIST`.
//!
//! All take `FIELDS number field …` last, and answer with one integer a field. Of a field that is not there it is −2. A
//! deadline that has passed removes the field.

use crate::command::{Context, Failure, integer, is_option};
use crate::store::{Key, Missing};
use crate::types::UnixMillis;
use crate::value::{Hash, Kind};

/// The last deadline that a field can have, in milliseconds since the Unix epoch: Redis's bound, some 2,200 years away.
const DEADLINE_MAX: i64 = (1 << 46) - 1;

/// What is answered for a field that is not there.
const NO_FIELD: i64 = -2;
/// What is answered for a field without a deadline.
const NO_DEADLINE: i64 = -1;
/// What is answered for a field whose deadline is set or removed.
const DONE: i64 = 1;
/// What is answered for a field that does not meet the condition.
const NOT_MET: i64 = 0;
/// What is answered for a field that is removed, because its new deadline has passed.
const REMOVED: i64 = 2;

/// How a deadline is given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Unit {
    milliseconds: i64,
    from_now: bool,
}

impl Unit {
    pub(super) const SECONDS: Self = Self { milliseconds: 1_000, from_now: true };
    pub(super) const MILLISECONDS: Self = Self { milliseconds: 1, from_now: true };
    pub(super) const UNIX_SECONDS: Self = Self { milliseconds: 1_000, from_now: false };
    pub(super) const UNIX_MILLISECONDS: Self = Self { milliseconds: 1, from_now: false };

    /// The deadline that `text` gives in this unit, for the command `name`.
    pub(super) fn deadline(
        self,
        text: &[u8],
        now: UnixMillis,
        name: &str,
    ) -> Result<UnixMillis, Failure> {
        let given = integer(text)?;
        if given < 0 {
            return Err(Failure::err("invalid expire time, must be >= 0"));
        }
        let from = if self.from_now { i64::try_from(now.0).unwrap_or(i64::MAX) } else { 0 };
        let deadline = given
            .checked_mul(self.milliseconds)
            .and_then(|given| given.checked_add(from))
            .filter(|deadline| *deadline <= DEADLINE_MAX)
            .and_then(|deadline| u64::try_from(deadline).ok());
        deadline
            .map(UnixMillis)
            .ok_or_else(|| Failure::err(format_args!("invalid expire time in '{name}' command")))
    }
}

/// When a deadline is set, as against the one there is. A field without one lives for ever.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Condition {
    /// `NX`: there is none.
    Absent,
    /// `XX`: there is one.
    Present,
    /// `GT`: it becomes later.
    Later,
    /// `LT`: it becomes earlier.
    Earlier,
}

impl Condition {
    fn read(option: &[u8]) -> Option<Self> {
        let options = [
            ("NX", Self::Absent),
            ("XX", Self::Present),
            ("GT", Self::Later),
            ("LT", Self::Earlier),
        ];
        options.into_iter().find(|(name, _)| is_option(option, name)).map(|(_, it)| it)
    }

    fn is_met(self, old: Option<UnixMillis>, new: UnixMillis) -> bool {
        match self {
            Self::Absent => old.is_none(),
            Self::Present => old.is_some(),
            Self::Later => old.is_some_and(|old| new > old),
            Self::Earlier => old.is_none_or(|old| new < old),
        }
    }
}

/// The fields behind `FIELDS number`, which `arguments` begin with; `wrong` is said of a number that is none, or not positive.
pub(super) fn read_fields<'r, 'a>(
    arguments: &'r [&'a [u8]],
    wrong: &'static str,
) -> Result<&'r [&'a [u8]], Failure> {
    match arguments.first() {
        Some(word) if is_option(word, "FIELDS") => {}
        _ => {
            let text = "Mandatory argument FIELDS is missing or not at the right position";
            return Err(Failure::err(text));
        }
    }
    let number = arguments.get(1).and_then(|number| integer(number).ok());
    let number = number.and_then(|number| usize::try_from(number).ok());
    let number = number.filter(|number| *number > 0).ok_or_else(|| Failure::err(wrong))?;
    let fields = &arguments[2..];
    if fields.len() != number {
        let text = "The `numfields` parameter must match the number of arguments";
        return Err(Failure::err(text));
    }
    Ok(fields)
}

/// What Redis says of a number of fields in most commands.
pub(super) const NOT_POSITIVE: &str = "Number of fields must be a positive integer";

/// The failure that the client is told: another kind of value comes before what is wrong with the arguments.
pub(super) fn refuse(ctx: &mut Context<'_, '_>, key: &Key<'_>, failure: Failure) -> Failure {
    match ctx.keys.kind(key) {
        None | Some(Kind::Hash) => failure,
        Some(_) => Failure::WrongType,
    }
}

pub(super) fn hexpire(ctx: &mut Context<'_, '_>, arguments: &[&[u8]]) -> Result<(), Failure> {
    set(ctx, arguments, Unit::SECONDS)
}

pub(super) fn hpexpire(ctx: &mut Context<'_, '_>, arguments: &[&[u8]]) -> Result<(), Failure> {
    set(ctx, arguments, Unit::MILLISECONDS)
}

pub(super) fn hexpireat(ctx: &mut Context<'_, '_>, arguments: &[&[u8]]) -> Result<(), Failure> {
    set(ctx, arguments, Unit::UNIX_SECONDS)
}

pub(super) fn hpexpireat(ctx: &mut Context<'_, '_>, arguments: &[&[u8]]) -> Result<(), Failure> {
    set(ctx, arguments, Unit::UNIX_MILLISECONDS)
}

fn set(ctx: &mut Context<'_, '_>, arguments: &[&[u8]], unit: Unit) -> Result<(), Failure> {
    let key = ctx.key(arguments[1]);
    let now = ctx.now.unix;
    let read = || {
        let deadline = unit.deadline(arguments[2], now, ctx.command.name)?;
        let condition = Condition::read(arguments[3]);
        let rest = &arguments[if condition.is_some() { 4 } else { 3 }..];
        let fields = read_fields(rest, "Parameter `numFields` should be greater than 0")?;
        Ok((deadline, condition, fields))
    };
    let (deadline, condition, fields) = read().map_err(|failure| refuse(ctx, &key, failure))?;
    let reply = &mut ctx.reply;
    reply.array(fields.len());
    let edited = ctx.keys.edit(&key, Missing::Skip, |hash: &mut Hash| {
        let (mut updated, mut removed) = (false, false);
        for field in fields {
            let result = match hash.view().find(field) {
                None => NO_FIELD,
                Some(it) if condition.is_some_and(|it_is| !it_is.is_met(it.deadline, deadline)) => {
                    NOT_MET
                }
                Some(_) if deadline <= now => {
                    removed |= hash.remove(field);
                    REMOVED
                }
                Some(_) => {
                    updated |= hash.set_deadline(field, Some(deadline));
                    DONE
                }
            };
            reply.integer(result);
        }
        (updated, removed, hash.view().is_empty())
    })?;
    let Some((updated, removed, emptied)) = edited else {
        fields.iter().for_each(|_| ctx.reply.integer(NO_FIELD));
        return Ok(());
    };
    if removed || updated {
        ctx.notify(b'h', if removed { "hdel" } else { "hexpire" }, &key);
    }
    if emptied {
        ctx.notify(b'g', "del", &key);
    }
    Ok(())
}

pub(super) fn httl(ctx: &mut Context<'_, '_>, arguments: &[&[u8]]) -> Result<(), Failure> {
    let now = ctx.now.unix;
    tell(ctx, arguments, |at| now.until(at).div_ceil(1_000))
}

pub(super) fn hpttl(ctx: &mut Context<'_, '_>, arguments: &[&[u8]]) -> Result<(), Failure> {
    let now = ctx.now.unix;
    tell(ctx, arguments, |at| now.until(at))
}

pub(super) fn hexpiretime(ctx: &mut Context<'_, '_>, arguments: &[&[u8]]) -> Result<(), Failure> {
    tell(ctx, arguments, |at| at.0.div_ceil(1_000))
}

pub(super) fn hpexpiretime(ctx: &mut Context<'_, '_>, arguments: &[&[u8]]) -> Result<(), Failure> {
    tell(ctx, arguments, |at| at.0)
}

/// Answers with what `shown` makes of the deadline of each field.
fn tell(
    ctx: &mut Context<'_, '_>,
    arguments: &[&[u8]],
    shown: impl Fn(UnixMillis) -> u64,
) -> Result<(), Failure> {
    let key = ctx.key(arguments[1]);
    let fields = read_fields(&arguments[2..], NOT_POSITIVE);
    let fields = fields.map_err(|failure| refuse(ctx, &key, failure))?;
    let hash = ctx.keys.hash(&key)?;
    ctx.reply.array(fields.len());
    for field in fields {
        ctx.reply.integer(match hash.and_then(|hash| hash.find(field)) {
            None => NO_FIELD,
            Some(it) => it.deadline.map_or(NO_DEADLINE, |at| {
                i64::try_from(shown(at)).expect("a deadline is at most 46 bits")
            }),
        });
    }
    Ok(())
}

pub(super) fn hpersist(ctx: &mut Context<'_, '_>, arguments: &[&[u8]]) -> Result<(), Failure> {
    let key = ctx.key(arguments[1]);
    let fields = read_fields(&arguments[2..], NOT_POSITIVE);
    let fields = fields.map_err(|failure| refuse(ctx, &key, failure))?;
    let reply = &mut ctx.reply;
    reply.array(fields.len());
    let changed = ctx.keys.edit(&key, Missing::Skip, |hash: &mut Hash| {
        let mut changed = false;
        for field in fields {
            reply.integer(match hash.view().find(field) {
                None => NO_FIELD,
                Some(it) if it.deadline.is_none() => NO_DEADLINE,
                Some(_) => {
                    changed |= hash.set_deadline(field, None);
                    DONE
                }
            });
        }
        changed
    })?;
    match changed {
        None => fields.iter().for_each(|_| ctx.reply.integer(NO_FIELD)),
        Some(true) => ctx.notify(b'h', "hpersist", &key),
        Some(false) => {}
    }
    Ok(())
}
