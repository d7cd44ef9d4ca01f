//! The HyperLogLog family: how many different elements there were, in 12 KiB and within 0.81 %.

mod debug;
mod sketch;
#[cfg(test)]
mod tests;

use std::sync::atomic::Ordering;

use self::sketch::{Corrupted, REGISTERS};
use super::{Command, Context, Failure, Flags, Group, Keys};
use crate::store::{Lifetime, Missing};
use crate::value::Text;

impl From<Corrupted> for Failure {
    fn from(_: Corrupted) -> Self {
        Self::Text("INVALIDOBJ Corrupted HLL object detected".into())
    }
}

fn must_be_sketch(bytes: &[u8]) -> Result<(), Failure> {
    if sketch::is_sketch(bytes) {
        return Ok(());
    }
    Err(Failure::Text("WRONGTYPE Key is not a valid HyperLogLog string value.".into()))
}

/// `hll-sparse-max-bytes`.
fn sparse_max(ctx: &Context<'_, '_>) -> usize {
    let setting = ctx.engine.settings.hll_sparse_max_bytes.load(Ordering::Relaxed);
    usize::try_from(setting).unwrap_or(0)
}

/// Adds `elements`. True if any made a difference.
fn add(bytes: &mut Vec<u8>, elements: &[&[u8]], sparse_max: usize) -> Result<bool, Failure> {
    let mut changed = false;
    for element in elements {
        let (index, value) = sketch::place(element);
        changed |= sketch::raise(bytes, index, value, sparse_max)?;
    }
    if changed {
        sketch::outdate(bytes);
    }
    Ok(changed)
}

fn pfadd(ctx: &mut Context<'_, '_>, arguments: &[&[u8]]) -> Result<(), Failure> {
    let key = ctx.key(arguments[1]);
    let (elements, sparse_max) = (&arguments[2..], sparse_max(ctx));
    let edited = ctx.keys.edit(&key, Missing::Skip, |text: &mut Text| {
        must_be_sketch(text.bytes())?;
        let mut result = Ok(false);
        text.alter(|bytes| {
            result = add(bytes, elements, sparse_max);
            !matches!(result, Ok(false))
        });
        result
    })?;
    let changed = match edited {
        Some(changed) => changed?,
        None => {
            let mut bytes = sketch::empty();
            add(&mut bytes, elements, sparse_max)?;
            sketch::outdate(&mut bytes);
            ctx.keys.set(&key, &bytes, Lifetime::Forever);
            true
        }
    };
    if changed {
        ctx.notify(b'$', "pfadd", &key);
    }
    ctx.reply.integer(i64::from(changed));
    Ok(())
}

fn pfcount(ctx: &mut Context<'_, '_>, arguments: &[&[u8]]) -> Result<(), Failure> {
    let estimate = match arguments {
        [_, key] => count_one(ctx, key)?,
        [_, keys @ ..] => {
            let mut union = Union::new();
            union.add_all(ctx, keys)?;
            sketch::estimate(&union.histogram())
        }
        [] => 0,
    };
    ctx.reply.integer(i64::try_from(estimate).unwrap_or(i64::MAX));
    Ok(())
}

/// The estimate for one key, which keeps it: that is a write, as in Redis.
fn count_one(ctx: &mut Context<'_, '_>, key: &[u8]) -> Result<u64, Failure> {
    let key = ctx.key(key);
    let Some(bytes) = ctx.keys.string(&key)? else { return Ok(0) };
    must_be_sketch(bytes)?;
    if let Some(estimate) = sketch::cached(bytes) {
        return Ok(estimate);
    }
    let estimate = sketch::estimate(&sketch::histogram(bytes)?);
    ctx.keys.edit(&key, Missing::Skip, |text: &mut Text| {
        sketch::cache(text.bytes_mut(), estimate);
    })?;
    Ok(estimate)
}

fn pfmerge(ctx: &mut Context<'_, '_>, arguments: &[&[u8]]) -> Result<(), Failure> {
    let mut union = Union::new();
    union.add_all(ctx, &arguments[1..])?;
    let (destination, sparse_max) = (ctx.key(arguments[1]), sparse_max(ctx));
    let held = ctx.keys.string(&destination)?;
    let mut bytes = held.map_or_else(sketch::empty, <[u8]>::to_vec);
    if union.dense {
        sketch::make_dense(&mut bytes)?;
    }
    for (index, value) in union.registers.iter().enumerate() {
        if *value > 0 {
            sketch::raise(&mut bytes, index, *value, sparse_max)?;
        }
    }
    sketch::outdate(&mut bytes);
    ctx.keys.set(&destination, &bytes, Lifetime::Keep);
    ctx.notify(b'$', "pfadd", &destination);
    ctx.reply.ok();
    Ok(())
}

/// Several sketches as one: of each register the largest value.
struct Union {
    registers: Vec<u8>,
    /// Whether any of them was dense.
    dense: bool,
}

impl Union {
    fn new() -> Self {
        Self { registers: vec![0; REGISTERS], dense: false }
    }

    fn add_all(&mut self, ctx: &mut Context<'_, '_>, keys: &[&[u8]]) -> Result<(), Failure> {
        for key in keys {
            let key = ctx.key(key);
            let Some(bytes) = ctx.keys.string(&key)? else { continue };
            must_be_sketch(bytes)?;
            self.dense |= sketch::is_dense(bytes);
            sketch::each(bytes, |first, count, value| {
                for register in &mut self.registers[first..first + count] {
                    *register = value.max(*register);
                }
            })?;
        }
        Ok(())
    }

    fn histogram(&self) -> sketch::Histogram {
        let mut histogram = [0; 64];
        for value in &self.registers {
            histogram[usize::from(*value)] += 1;
        }
        histogram
    }
}

const GROW: Flags = Flags::WRITE.and(Flags::DENYOOM);

/// The family.
pub(super) const COMMANDS: &[Command] = &[
    Command::new("pfadd", -2, Keys::ONE, GROW.and(Flags::FAST), pfadd).docs(
        Group::HyperLogLog,
        "2.8.9",
        "Adds elements to a HyperLogLog, which is created if it is missing.",
    ),
    Command::new("pfcount", -2, Keys::EVERY, Flags::READONLY.and(Flags::MAY_REPLICATE), pfcount)
        .docs(
            Group::HyperLogLog,
            "2.8.9",
            "Estimates how many different elements were added to HyperLogLogs.",
        ),
    Command::new(
        "pfdebug",
        3,
        Keys::Range { first: 2, last: 2, step: 1 },
        GROW.and(Flags::ADMIN),
        debug::pfdebug,
    )
    .docs(Group::HyperLogLog, "2.8.9", "Looks into a HyperLogLog, for tests."),
    Command::new("pfmerge", -2, Keys::EVERY, GROW, pfmerge).docs(
        Group::HyperLogLog,
        "2.8.9",
        "Merges HyperLogLogs into the first one.",
    ),
    Command::new("pfselftest", 1, Keys::None, Flags::ADMIN, debug::pfselftest).docs(
        Group::HyperLogLog,
        "2.8.9",
        "Checks that HyperLogLogs estimate as well as they should.",
    ),
];
