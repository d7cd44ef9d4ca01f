//! `DUMP` and `RESTORE`: values as bytes.

mod format;
#[cfg(test)]
mod tests;

use super::{Command, Context, Failure, Flags, Group, Keys, integer, is_option};
use crate::store::Lifetime;
use crate::types::UnixMillis;

fn dump(ctx: &mut Context<'_, '_>, arguments: &[&[u8]]) -> Result<(), Failure> {
    let key = ctx.key(arguments[1]);
    let bytes = ctx.keys.get(&key).map(|view| format::write(&view));
    ctx.reply.bulk_or_null(bytes.as_deref());
    Ok(())
}

/// What follows the payload.
#[derive(Clone, Copy, Debug, Default)]
struct Options {
    replace: bool,
    /// The time to live is a moment since the epoch.
    absolute: bool,
    /// How long the key has not been used, in seconds.
    idle_s: Option<u64>,
    frequency: Option<u8>,
}

impl Options {
    fn read(arguments: &[&[u8]]) -> Result<Self, Failure> {
        let mut options = Self::default();
        let mut rest = arguments.iter();
        while let Some(option) = rest.next() {
            if is_option(option, "REPLACE") {
                options.replace = true;
            } else if is_option(option, "ABSTTL") {
                options.absolute = true;
            } else if is_option(option, "IDLETIME") && options.frequency.is_none() {
                let seconds = u64::try_from(integer(rest.next().ok_or(Failure::Syntax)?)?).ok();
                let complaint = || Failure::err("Invalid IDLETIME value, must be >= 0");
                options.idle_s = Some(seconds.ok_or_else(complaint)?);
            } else if is_option(option, "FREQ") && options.idle_s.is_none() {
                let frequency = u8::try_from(integer(rest.next().ok_or(Failure::Syntax)?)?).ok();
                let complaint = || Failure::err("Invalid FREQ value, must be >= 0 and <= 255");
                options.frequency = Some(frequency.ok_or_else(complaint)?);
            } else {
                return Err(Failure::Syntax);
            }
        }
        Ok(options)
    }
}

fn restore(ctx: &mut Context<'_, '_>, arguments: &[&[u8]]) -> Result<(), Failure> {
    let options = Options::read(&arguments[4..])?;
    let key = ctx.key(arguments[1]);
    let exists = ctx.keys.kind(&key).is_some();
    if exists && !options.replace {
        return Err(Failure::Text("BUSYKEY Target key name already exists.".into()));
    }
    let ttl = u64::try_from(integer(arguments[2])?)
        .ok()
        .ok_or_else(|| Failure::err("Invalid TTL value, must be >= 0"))?;
    let now = ctx.now.unix;
    let value = format::read(arguments[3], now).map_err(|damage| {
        Failure::err(match damage {
            format::Damage::Envelope => "DUMP payload version or checksum are wrong",
            format::Damage::Content => "Bad data format",
        })
    })?;
    let lifetime = match (ttl, options.absolute) {
        (0, _) => Lifetime::Forever,
        (at, true) => Lifetime::Until(UnixMillis(at)),
        (ttl, false) => Lifetime::Until(UnixMillis(now.0.saturating_add(ttl))),
    };
    let is_over = matches!(lifetime, Lifetime::Until(at) if at <= now);
    match value.filter(|_| !is_over) {
        Some(value) => {
            ctx.keys.put(&key, value, lifetime);
            if let Some(idle_s) = options.idle_s {
                ctx.keys.set_idle(&key, idle_s.saturating_mul(1000));
            }
            if let Some(frequency) = options.frequency {
                ctx.keys.set_frequency(&key, frequency);
            }
            ctx.notify(b'g', "restore", &key);
        }
        None if ctx.keys.remove(&key) => ctx.notify(b'g', "del", &key),
        None => {}
    }
    ctx.reply.ok();
    Ok(())
}

/// The family.
pub(super) const COMMANDS: &[Command] = &[
    Command::new("dump", 2, Keys::ONE, Flags::READONLY, dump).docs(
        Group::Generic,
        "2.6.0",
        "Returns a value as bytes for RESTORE.",
    ),
    Command::new(
        "restore",
        -4,
        Keys::ONE,
        Flags::WRITE.and(Flags::DENYOOM).and(Flags::WAKES).and(Flags::DANGEROUS),
        restore,
    )
    .docs(Group::Generic, "2.6.0", "Creates a key with a value that DUMP returned."),
];
