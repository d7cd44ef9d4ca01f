//! The bitmap family: strings as arrays of bits. Bit 0 is the highest of the first byte, and a string is followed by zeros
//! without end.

mod field;
#[cfg(test)]
mod tests;

use std::ops::RangeInclusive;

use super::string::{grow, room, size_max};
use super::{Command, Context, Failure, Flags, Group, Keys, integer, is_option, parse_integer};
use crate::engine::Engine;
use crate::store::{Lifetime, Missing};
use crate::value::{Text, Value, View};

/// A bit's place. `scale` is what a `#` before it stands for, if it may have one.
fn offset(engine: &Engine, text: &[u8], scale: Option<i64>) -> Result<usize, Failure> {
    let (text, scale) = match (text, scale) {
        ([b'#', rest @ ..], Some(scale)) => (rest, scale),
        _ => (text, 1),
    };
    let place = parse_integer(text).and_then(|place| place.checked_mul(scale));
    let place = place.and_then(|place| usize::try_from(place).ok());
    place
        .filter(|place| place / 8 < size_max(engine))
        .ok_or_else(|| Failure::err("bit offset is not an integer or out of range"))
}

fn bit_at(bytes: &[u8], offset: usize) -> u8 {
    bytes.get(offset / 8).map_or(0, |byte| byte >> (7 - offset % 8) & 1)
}

/// Makes `bytes` reach `length`. True if they did not; refused at the memory limit.
fn reach(engine: &Engine, bytes: &mut Vec<u8>, length: usize) -> Result<bool, Failure> {
    let short = bytes.len() < length;
    if short {
        room(engine, length - bytes.len())?;
        grow(bytes, length);
    }
    Ok(short)
}

fn setbit(ctx: &mut Context<'_, '_>, arguments: &[&[u8]]) -> Result<(), Failure> {
    let engine = ctx.engine;
    let offset = offset(engine, arguments[2], None)?;
    let bit = match parse_integer(arguments[3]) {
        Some(0) => 0,
        Some(1) => 1,
        _ => return Err(Failure::err("bit is not an integer or out of range")),
    };
    let key = ctx.key(arguments[1]);
    let edited = ctx.keys.edit(&key, Missing::Create, |text: &mut Text| {
        let old = bit_at(text.bytes(), offset);
        let mut result = Ok((old, false));
        text.alter(|bytes| match reach(engine, bytes, offset / 8 + 1) {
            Err(failure) => {
                result = Err(failure);
                false
            }
            Ok(grown) => {
                let mask = 1 << (7 - offset % 8);
                let byte = &mut bytes[offset / 8];
                *byte = if bit == 1 { *byte | mask } else { *byte & !mask };
                result = Ok((old, grown || old != bit));
                grown || old != bit
            }
        });
        result
    })?;
    let (old, changed) = edited.expect("the key is made if it is missing")?;
    if changed {
        ctx.notify(b'$', "setbit", &key);
    }
    ctx.reply.integer(i64::from(old));
    Ok(())
}

fn getbit(ctx: &mut Context<'_, '_>, arguments: &[&[u8]]) -> Result<(), Failure> {
    let offset = offset(ctx.engine, arguments[2], None)?;
    let key = ctx.key(arguments[1]);
    let bit = bit_at(ctx.keys.string(&key)?.unwrap_or_default(), offset);
    ctx.reply.integer(i64::from(bit));
    Ok(())
}

/// A range as it was asked for, before it is known how long the string is.
#[derive(Clone, Copy, Debug)]
struct Asked {
    start: i64,
    end: Option<i64>,
    /// Counted in bits, not bytes.
    bits: bool,
}

impl Asked {
    /// Reads `[start [end [BYTE|BIT]]]`.
    fn read(arguments: &[&[u8]]) -> Result<Option<Self>, Failure> {
        let [start, rest @ ..] = arguments else { return Ok(None) };
        let start = integer(start)?;
        let bits = match rest {
            [] | [_] => false,
            [_, unit] if is_option(unit, "BIT") => true,
            [_, unit] if is_option(unit, "BYTE") => false,
            _ => return Err(Failure::Syntax),
        };
        let end = rest.first().map(|end| integer(end)).transpose()?;
        Ok(Some(Self { start, end, bits }))
    }

    /// The bits that it means in a string of `length` bytes.
    fn within(self, length: usize) -> Option<RangeInclusive<usize>> {
        let unit = if self.bits { 1 } else { 8 };
        let size = i64::try_from(length * (8 / unit)).expect("a length in bits fits 63 bits");
        let index = |at: i64| if at < 0 { at.saturating_add(size).max(0) } else { at };
        let (start, end) = (index(self.start), index(self.end.unwrap_or(-1)).min(size - 1));
        if start > end {
            return None;
        }
        let place = |at: i64| usize::try_from(at).expect("within the string") * unit;
        Some(place(start)..=place(end) + unit - 1)
    }
}

/// The bits of a whole string.
fn all(length: usize) -> Option<RangeInclusive<usize>> {
    Asked { start: 0, end: None, bits: false }.within(length)
}

fn bitcount(ctx: &mut Context<'_, '_>, arguments: &[&[u8]]) -> Result<(), Failure> {
    if arguments.len() == 3 {
        return Err(Failure::Syntax);
    }
    let asked = Asked::read(&arguments[2..])?;
    let key = ctx.key(arguments[1]);
    let bytes = ctx.keys.string(&key)?.unwrap_or_default();
    let reversed = asked.is_some_and(|asked| {
        asked.start < 0 && asked.end.is_some_and(|end| end < 0 && asked.start > end)
    });
    let range = match asked {
        _ if reversed => None,
        Some(asked) => asked.within(bytes.len()),
        None => all(bytes.len()),
    };
    ctx.reply.integer(range.map_or(0, |range| count(bytes, &range)));
    Ok(())
}

/// How many bits of `range` are set.
fn count(bytes: &[u8], range: &RangeInclusive<usize>) -> i64 {
    let (first, last) = (range.start() / 8, range.end() / 8);
    let ones = |bytes: &[u8]| {
        let (words, rest) = bytes.as_chunks::<8>();
        let in_words = words.iter().map(|word| u64::from_le_bytes(*word).count_ones());
        let in_rest = rest.iter().map(|byte| byte.count_ones());
        in_words.chain(in_rest).map(i64::from).sum::<i64>()
    };
    let before = bytes[first] & !(0xFF >> (range.start() % 8));
    let after = bytes[last] & !(0xFF << (7 - range.end() % 8));
    ones(&bytes[first..=last]) - i64::from(before.count_ones()) - i64::from(after.count_ones())
}

fn bitpos(ctx: &mut Context<'_, '_>, arguments: &[&[u8]]) -> Result<(), Failure> {
    let bit = match integer(arguments[2])? {
        0 => 0,
        1 => 1,
        _ => return Err(Failure::err("The bit argument must be 1 or 0.")),
    };
    let asked = Asked::read(&arguments[3..])?;
    let key = ctx.key(arguments[1]);
    let Some(bytes) = ctx.keys.string(&key)? else {
        ctx.reply.integer(if bit == 1 { -1 } else { 0 });
        return Ok(());
    };
    let open = asked.is_none_or(|asked| asked.end.is_none());
    let range = asked.map_or_else(|| all(bytes.len()), |asked| asked.within(bytes.len()));
    let found = range.and_then(|range| {
        let found = first(bytes, &range, bit);
        // To the right of the string there are zeros, unless the range says where to stop.
        found.or((bit == 0 && open).then_some(range.end() + 1))
    });
    let found = found.map_or(-1, |at| i64::try_from(at).expect("a place in bits fits 63 bits"));
    ctx.reply.integer(found);
    Ok(())
}

/// The first bit of `range` that is `bit`.
fn first(bytes: &[u8], range: &RangeInclusive<usize>, bit: u8) -> Option<usize> {
    let (start, end) = (*range.start(), *range.end());
    let skip = if bit == 1 { 0 } else { 0xFF };
    let mut at = start;
    while at <= end {
        if at.is_multiple_of(8) {
            let rest = &bytes[at / 8..=end / 8];
            let dull = rest.as_chunks::<8>().0.iter().take_while(|word| **word == [skip; 8]);
            at += 64 * dull.count();
            let rest = &bytes[(at / 8).min(end / 8)..=end / 8];
            at += 8 * rest.iter().take_while(|byte| **byte == skip).count();
            if at > end {
                return None;
            }
        }
        if bit_at(bytes, at) == bit {
            return Some(at);
        }
        at += 1;
    }
    None
}

/// Combines `from` into the beginning of `into`, which is at least as long, a word at a time.
fn combine(into: &mut [u8], from: &[u8], combined: impl Fn(u64, u64) -> u64) {
    let (words, rest) = into[..from.len()].as_chunks_mut::<8>();
    let (from_words, from_rest) = from.as_chunks::<8>();
    for (word, from) in words.iter_mut().zip(from_words) {
        *word = combined(u64::from_le_bytes(*word), u64::from_le_bytes(*from)).to_le_bytes();
    }
    for (byte, from) in rest.iter_mut().zip(from_rest) {
        *byte = combined(u64::from(*byte), u64::from(*from)).to_le_bytes()[0];
    }
}

fn bitop(ctx: &mut Context<'_, '_>, arguments: &[&[u8]]) -> Result<(), Failure> {
    let names = ["AND", "OR", "XOR", "NOT"];
    let operation = names.into_iter().find(|name| is_option(arguments[1], name));
    let operation = operation.ok_or(Failure::Syntax)?;
    let sources = &arguments[3..];
    if operation == "NOT" && sources.len() != 1 {
        return Err(Failure::err("BITOP NOT must be called with a single source key."));
    }
    let mut longest = 0;
    for source in sources {
        let key = ctx.key(source);
        longest = longest.max(ctx.keys.string(&key)?.map_or(0, <[u8]>::len));
    }
    room(ctx.engine, longest)?;
    let mut result: Vec<u8> = Vec::new();
    for (number, source) in sources.iter().enumerate() {
        let key = ctx.key(source);
        let bytes = match ctx.keys.peek(&key) {
            Some(View::String(bytes)) => bytes,
            _ => &[],
        };
        if number == 0 {
            result.reserve_exact(longest);
            result.extend_from_slice(bytes);
            result.resize(longest, 0);
        }
        match operation {
            "NOT" => result.iter_mut().for_each(|byte| *byte = !*byte),
            _ if number == 0 => {}
            "AND" => {
                combine(&mut result, bytes, |into, from| into & from);
                result[bytes.len()..].fill(0);
            }
            "OR" => combine(&mut result, bytes, |into, from| into | from),
            _ => combine(&mut result, bytes, |into, from| into ^ from),
        }
    }
    let destination = ctx.key(arguments[2]);
    if !result.is_empty() {
        ctx.keys.put(&destination, Value::String(Text::from(result)), Lifetime::Forever);
        ctx.notify(b'$', "set", &destination);
    } else if ctx.keys.remove(&destination) {
        ctx.notify(b'g', "del", &destination);
    }
    ctx.reply.count(longest);
    Ok(())
}

const READ: Flags = Flags::READONLY;
const READ_FAST: Flags = Flags::READONLY.and(Flags::FAST);
const GROW: Flags = Flags::WRITE.and(Flags::DENYOOM);
const FROM_SECOND: Keys = Keys::Range { first: 2, last: -1, step: 1 };

/// The family.
pub(super) const COMMANDS: &[Command] = &[
    Command::new("bitcount", -2, Keys::ONE, READ, bitcount).docs(
        Group::Bitmap,
        "2.6.0",
        "Counts the bits that are set in a string, or in a range of it.",
    ),
    Command::new("bitfield", -2, Keys::ONE, GROW, field::bitfield).docs(
        Group::Bitmap,
        "3.2.0",
        "Reads and changes integers of any width within a string.",
    ),
    Command::new("bitfield_ro", -2, Keys::ONE, READ_FAST, field::bitfield_ro).docs(
        Group::Bitmap,
        "6.0.0",
        "Reads integers of any width within a string.",
    ),
    Command::new("bitop", -4, FROM_SECOND, GROW, bitop).docs(
        Group::Bitmap,
        "2.6.0",
        "Combines strings bit by bit and stores the result.",
    ),
    Command::new("bitpos", -3, Keys::ONE, READ, bitpos).docs(
        Group::Bitmap,
        "2.8.7",
        "Finds the first bit that is set, or clear, in a string or in a range of it.",
    ),
    Command::new("getbit", 3, Keys::ONE, READ_FAST, getbit).docs(
        Group::Bitmap,
        "2.2.0",
        "Returns one bit of a string.",
    ),
    Command::new("setbit", 4, Keys::ONE, GROW, setbit).docs(
        Group::Bitmap,
        "2.2.0",
        "Sets or clears one bit of a string and returns what it was.",
    ),
];
