//! `BITFIELD`: a string as an array of integers of any width.
//!
//! All arithmetic is done in 128 bits, so that what overflows is seen and not suffered.

use super::{offset, reach};
use crate::command::{Context, Failure, integer, is_option, parse_integer};
use crate::engine::Engine;
use crate::store::Missing;
use crate::value::Text;

/// A type such as `i16` or `u8`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Type {
    signed: bool,
    /// 1 to 64, or to 63 without sign.
    bits: u32,
}

impl Type {
    fn read(text: &[u8]) -> Result<Self, Failure> {
        let parsed = match text {
            [b'i', bits @ ..] => Some((true, bits, 64)),
            [b'u', bits @ ..] => Some((false, bits, 63)),
            _ => None,
        };
        let parsed = parsed.and_then(|(signed, bits, most)| {
            let bits = u32::try_from(parse_integer(bits)?).ok()?;
            (1..=most).contains(&bits).then_some(Self { signed, bits })
        });
        parsed.ok_or_else(|| {
            Failure::err(
                "Invalid bitfield type. Use something like i16 u8. Note that u64 is not supported but i64 is.",
            )
        })
    }

    fn min(self) -> i128 {
        if self.signed { -(1 << (self.bits - 1)) } else { 0 }
    }

    fn max(self) -> i128 {
        (1 << (self.bits - u32::from(self.signed))) - 1
    }

    /// The number whose lowest bits are those of `value`.
    fn wrap(self, value: i128) -> i128 {
        let low = value & ((1 << self.bits) - 1);
        if low > self.max() { low - (1 << self.bits) } else { low }
    }

    /// The number at `offset`; what lies beyond the string is 0.
    fn get(self, bytes: &[u8], offset: usize) -> i128 {
        let mut window = 0i128;
        for index in offset / 8..offset / 8 + 9 {
            window = window << 8 | i128::from(bytes.get(index).copied().unwrap_or(0));
        }
        self.wrap(window >> self.shift(offset))
    }

    /// Puts `value` at `offset`, which lies within the string.
    fn put(self, bytes: &mut [u8], offset: usize, value: i128) {
        let shift = self.shift(offset);
        let mask = ((1i128 << self.bits) - 1) << shift;
        let value = value << shift & mask;
        let window = bytes[offset / 8..].iter_mut().take(9).enumerate();
        for (index, byte) in window {
            let place = 64 - 8 * index;
            let part = |of: i128| u8::try_from(of >> place & 0xFF).expect("masked to a byte");
            *byte = *byte & !part(mask) | part(value);
        }
    }

    /// How far above the end of a window of nine bytes the number at `offset` ends.
    fn shift(self, offset: usize) -> u32 {
        let within = u32::try_from(offset % 8).expect("below 8");
        72 - within - self.bits
    }
}

/// What happens to a number that its type cannot hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Overflow {
    Wrap,
    Saturate,
    Fail,
}

impl Overflow {
    fn apply(self, kind: Type, value: i128) -> Option<i128> {
        if (kind.min()..=kind.max()).contains(&value) {
            return Some(value);
        }
        match self {
            Self::Wrap => Some(kind.wrap(value)),
            Self::Saturate => Some(value.clamp(kind.min(), kind.max())),
            Self::Fail => None,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Action {
    Get,
    Set(i64, Overflow),
    Add(i64, Overflow),
}

#[derive(Clone, Copy, Debug)]
struct Operation {
    kind: Type,
    offset: usize,
    action: Action,
}

impl Operation {
    fn read_all(engine: &Engine, mut rest: &[&[u8]]) -> Result<Vec<Self>, Failure> {
        let mut operations = Vec::new();
        let mut overflow = Overflow::Wrap;
        loop {
            let (place, change, after) = match rest {
                [] => return Ok(operations),
                [name, how, after @ ..] if is_option(name, "OVERFLOW") => {
                    overflow = match *how {
                        how if is_option(how, "WRAP") => Overflow::Wrap,
                        how if is_option(how, "SAT") => Overflow::Saturate,
                        how if is_option(how, "FAIL") => Overflow::Fail,
                        _ => return Err(Failure::err("Invalid OVERFLOW type specified")),
                    };
                    rest = after;
                    continue;
                }
                [name, kind, at, after @ ..] if is_option(name, "GET") => {
                    ([*kind, *at], None, after)
                }
                [name, kind, at, value, after @ ..] if is_option(name, "SET") => {
                    ([*kind, *at], Some((false, *value)), after)
                }
                [name, kind, at, value, after @ ..] if is_option(name, "INCRBY") => {
                    ([*kind, *at], Some((true, *value)), after)
                }
                _ => return Err(Failure::Syntax),
            };
            let kind = Type::read(place[0])?;
            let offset = offset(engine, place[1], Some(i64::from(kind.bits)))?;
            let action = match change {
                None => Action::Get,
                Some((false, value)) => Action::Set(integer(value)?, overflow),
                Some((true, value)) => Action::Add(integer(value)?, overflow),
            };
            operations.push(Self { kind, offset, action });
            rest = after;
        }
    }

    fn writes(&self) -> bool {
        self.action != Action::Get
    }

    /// Bytes that a string must have for it.
    fn reach(&self) -> usize {
        let bits = usize::try_from(self.kind.bits).expect("at most 64");
        (self.offset + bits).div_ceil(8)
    }

    /// Carries it out. What to answer, and whether the string changed.
    fn apply(&self, bytes: &mut [u8]) -> (Option<i128>, bool) {
        let old = self.kind.get(bytes, self.offset);
        let (new, told) = match self.action {
            Action::Get => return (Some(old), false),
            Action::Set(value, overflow) => {
                // A negative number for a type without sign is the large one with the same bits.
                let value = if self.kind.signed {
                    i128::from(value)
                } else {
                    i128::from(value.cast_unsigned())
                };
                let new = overflow.apply(self.kind, value);
                (new, new.map(|_| old))
            }
            Action::Add(by, overflow) => {
                let new = overflow.apply(self.kind, old + i128::from(by));
                (new, new)
            }
        };
        if let Some(new) = new {
            self.kind.put(bytes, self.offset, new);
        }
        (told, new.is_some_and(|new| new != old))
    }
}

pub(super) fn bitfield(ctx: &mut Context<'_, '_>, arguments: &[&[u8]]) -> Result<(), Failure> {
    let operations = Operation::read_all(ctx.engine, &arguments[2..])?;
    if operations.iter().any(Operation::writes) {
        change(ctx, arguments[1], &operations)
    } else {
        read(ctx, arguments[1], &operations)
    }
}

pub(super) fn bitfield_ro(ctx: &mut Context<'_, '_>, arguments: &[&[u8]]) -> Result<(), Failure> {
    let operations = Operation::read_all(ctx.engine, &arguments[2..])?;
    if operations.iter().any(Operation::writes) {
        return Err(Failure::err("BITFIELD_RO only supports the GET subcommand"));
    }
    read(ctx, arguments[1], &operations)
}

fn answer(value: i128) -> i64 {
    i64::try_from(value).expect("every type fits 64 bits with a sign")
}

fn read(ctx: &mut Context<'_, '_>, key: &[u8], operations: &[Operation]) -> Result<(), Failure> {
    let key = ctx.key(key);
    let bytes = ctx.keys.string(&key)?.unwrap_or_default();
    ctx.reply.array(operations.len());
    for operation in operations {
        ctx.reply.integer(answer(operation.kind.get(bytes, operation.offset)));
    }
    Ok(())
}

fn change(ctx: &mut Context<'_, '_>, key: &[u8], operations: &[Operation]) -> Result<(), Failure> {
    let key = ctx.key(key);
    let (engine, reply) = (ctx.engine, &mut ctx.reply);
    let writes = operations.iter().filter(|operation| operation.writes());
    let length = writes.map(Operation::reach).max().unwrap_or(0);
    let edited = ctx.keys.edit(&key, Missing::Create, |text: &mut Text| {
        let mut result = Ok(false);
        text.alter(|bytes| match reach(engine, bytes, length) {
            Err(failure) => {
                result = Err(failure);
                false
            }
            Ok(grown) => {
                let mut changed = grown;
                reply.array(operations.len());
                for operation in operations {
                    let (told, altered) = operation.apply(bytes);
                    changed |= altered;
                    match told {
                        Some(value) => reply.integer(answer(value)),
                        None => reply.null(),
                    }
                }
                result = Ok(changed);
                changed
            }
        });
        result
    })?;
    if edited.expect("the key is made if it is missing")? {
        ctx.notify(b'$', "setbit", &key);
    }
    Ok(())
}
