//! Values together with deadlines: `HGETEX`, `HSETEX`, `HGETDEL`.

use super::expiry::{NOT_POSITIVE, Unit, read_fields, refuse};
use crate::command::{Context, Failure, integer, is_option, shown};
use crate::store::{Lifetime, Missing};
use crate::types::UnixMillis;
use crate::value::Hash;

pub(super) fn hgetdel(ctx: &mut Context<'_, '_>, arguments: &[&[u8]]) -> Result<(), Failure> {
    let key = ctx.key(arguments[1]);
    let fields = read_fields(&arguments[2..], NOT_POSITIVE);
    let fields = fields.map_err(|failure| refuse(ctx, &key, failure))?;
    let reply = &mut ctx.reply;
    reply.array(fields.len());
    let edited = ctx.keys.edit(&key, Missing::Skip, |hash: &mut Hash| {
        let mut removed = false;
        for field in fields {
            reply.bulk_or_null(hash.view().get(field));
            removed |= hash.remove(field);
        }
        (removed, hash.view().is_empty())
    })?;
    let Some((removed, emptied)) = edited else {
        fields.iter().for_each(|_| ctx.reply.null());
        return Ok(());
    };
    if removed {
        ctx.notify(b'h', "hdel", &key);
        if emptied {
            ctx.notify(b'g', "del", &key);
        }
    }
    Ok(())
}

/// The units by the names of the options.
const UNITS: [(&str, Unit); 4] = [
    ("EX", Unit::SECONDS),
    ("PX", Unit::MILLISECONDS),
    ("EXAT", Unit::UNIX_SECONDS),
    ("PXAT", Unit::UNIX_MILLISECONDS),
];

fn unit(option: &[u8]) -> Option<Unit> {
    UNITS.into_iter().find(|(name, _)| is_option(option, name)).map(|(_, unit)| unit)
}

pub(super) fn hgetex(ctx: &mut Context<'_, '_>, arguments: &[&[u8]]) -> Result<(), Failure> {
    let key = ctx.key(arguments[1]);
    let now = ctx.now.unix;
    let read = || {
        let (change, rest) = if let Some(unit) = unit(arguments[2]) {
            let deadline = unit.deadline(arguments[3], now, ctx.command.name)?;
            (Some(Some(deadline)), &arguments[4..])
        } else if is_option(arguments[2], "PERSIST") {
            (Some(None), &arguments[3..])
        } else {
            (None, &arguments[2..])
        };
        Ok((change, read_fields(rest, NOT_POSITIVE)?))
    };
    let (change, fields) = read().map_err(|failure| refuse(ctx, &key, failure))?;
    let reply = &mut ctx.reply;
    reply.array(fields.len());
    let edited = ctx.keys.edit(&key, Missing::Skip, |hash: &mut Hash| {
        let (mut updated, mut removed) = (false, false);
        for field in fields {
            let found = hash.view().find(field);
            reply.bulk_or_null(found.map(|it| it.value));
            match (found.map(|it| it.deadline), change) {
                (None, _) | (_, None) | (Some(None), Some(None)) => {}
                (Some(_), Some(Some(deadline))) if deadline <= now => removed |= hash.remove(field),
                (Some(_), Some(deadline)) => updated |= hash.set_deadline(field, deadline),
            }
        }
        (updated, removed, hash.view().is_empty())
    })?;
    let Some((updated, removed, emptied)) = edited else {
        fields.iter().for_each(|_| ctx.reply.null());
        return Ok(());
    };
    if updated {
        ctx.notify(b'h', if change == Some(None) { "hpersist" } else { "hexpire" }, &key);
    } else if removed {
        ctx.notify(b'h', "hdel", &key);
    }
    if emptied {
        ctx.notify(b'g', "del", &key);
    }
    Ok(())
}

/// Fields with their values, as they stand among the arguments.
type Pairs<'r, 'a> = &'r [[&'a [u8]; 2]];

/// What stands between the key and the fields of `HSETEX`.
#[derive(Clone, Copy, Debug)]
struct Options {
    life: Lifetime,
    /// `FXX`, `FNX`: all fields are there, or none is.
    all_there: Option<bool>,
}

impl Options {
    /// Reads `arguments` up to `FIELDS number`, and returns what follows.
    fn read<'r, 'a>(
        arguments: &'r [&'a [u8]],
        now: UnixMillis,
        name: &'static str,
    ) -> Result<(Self, Pairs<'r, 'a>), Failure> {
        let mut options = Self { life: Lifetime::Forever, all_there: None };
        let mut rest = arguments.iter();
        while let Some(option) = rest.next() {
            if is_option(option, "FIELDS") {
                return Ok((options, read_pairs(rest.as_slice(), name)?));
            }
            let condition = [("FXX", true), ("FNX", false)];
            let condition = condition.into_iter().find(|(name, _)| is_option(option, name));
            let unit = unit(option);
            if let Some((_, all)) = condition {
                if options.all_there.replace(all).is_some() {
                    let text = "Only one of FXX or FNX arguments can be specified";
                    return Err(Failure::err(text));
                }
            } else if unit.is_some() || is_option(option, "KEEPTTL") {
                if options.life != Lifetime::Forever {
                    let text =
                        "Only one of EX, PX, EXAT, PXAT or KEEPTTL arguments can be specified";
                    return Err(Failure::err(text));
                }
                options.life = match unit {
                    None => Lifetime::Keep,
                    Some(unit) => {
                        let text =
                            rest.next().ok_or_else(|| Failure::err("missing expire time"))?;
                        Lifetime::Until(unit.deadline(text, now, name)?)
                    }
                };
            } else {
                let option = shown(option);
                return Err(Failure::err(format_args!("unknown argument: {option}")));
            }
        }
        Err(Failure::Arity(name))
    }
}

/// The pairs behind `FIELDS`: `arguments` begin with their number.
fn read_pairs<'r, 'a>(
    arguments: &'r [&'a [u8]],
    name: &'static str,
) -> Result<Pairs<'r, 'a>, Failure> {
    let [number, pairs @ ..] = arguments else { return Err(Failure::Arity(name)) };
    if pairs.len() < 2 {
        return Err(Failure::Arity(name));
    }
    let number = integer(number).ok().filter(|number| (1..=i64::from(i32::MAX)).contains(number));
    let number = number.and_then(|number| usize::try_from(number).ok());
    let number = number.ok_or_else(|| Failure::err("invalid number of fields"))?;
    match pairs.as_chunks::<2>() {
        (pairs, []) if pairs.len() == number => Ok(pairs),
        _ => Err(Failure::Arity(name)),
    }
}

pub(super) fn hsetex(ctx: &mut Context<'_, '_>, arguments: &[&[u8]]) -> Result<(), Failure> {
    let key = ctx.key(arguments[1]);
    let now = ctx.now.unix;
    let (options, pairs) = Options::read(&arguments[2..], now, ctx.command.name)?;
    let passed = matches!(options.life, Lifetime::Until(at) if at <= now);
    let edited = ctx.keys.edit(&key, Missing::Create, |hash: &mut Hash| {
        let there = |[field, _]: &[&[u8]; 2]| hash.view().contains(field);
        let met = match options.all_there {
            None => true,
            Some(true) => pairs.iter().all(there),
            Some(false) => !pairs.iter().any(there),
        };
        if !met {
            return None;
        }
        for [field, value] in pairs {
            if passed {
                hash.remove(field);
            } else {
                hash.set(field, value, options.life);
            }
        }
        Some(hash.view().is_empty())
    })?;
    let Some(Some(emptied)) = edited else {
        ctx.reply.integer(0);
        return Ok(());
    };
    ctx.notify(b'h', "hset", &key);
    if let Lifetime::Until(_) = options.life {
        ctx.notify(b'h', if passed { "hdel" } else { "hexpire" }, &key);
    }
    if emptied {
        ctx.notify(b'g', "del", &key);
    }
    ctx.reply.integer(1);
    Ok(())
}
