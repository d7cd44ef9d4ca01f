//! `ZADD`, `ZINCRBY`.

use crate::command::{Context, Failure, is_option};
use crate::resp::parse_double;
use crate::store::Missing;
use crate::value::SortedSet;

/// The options of `ZADD`.
#[derive(Clone, Copy, Default)]
struct Options {
    /// `NX`: members that are there stay as they are.
    only_new: bool,
    /// `XX`: none is added.
    only_present: bool,
    /// `GT`: a score changes only upwards.
    greater: bool,
    /// `LT`: a score changes only downwards.
    less: bool,
    /// `CH`: changes count too.
    changed: bool,
    /// `INCR`: the score is an increment.
    increment: bool,
}

impl Options {
    /// Reads the options at the beginning of `arguments`; returns what stands behind them.
    fn read<'a>(&mut self, arguments: &'a [&'a [u8]]) -> &'a [&'a [u8]] {
        let mut rest = arguments;
        while let [option, after @ ..] = rest {
            let flag = match option {
                _ if is_option(option, "NX") => &mut self.only_new,
                _ if is_option(option, "XX") => &mut self.only_present,
                _ if is_option(option, "GT") => &mut self.greater,
                _ if is_option(option, "LT") => &mut self.less,
                _ if is_option(option, "CH") => &mut self.changed,
                _ if is_option(option, "INCR") => &mut self.increment,
                _ => break,
            };
            *flag = true;
            rest = after;
        }
        rest
    }

    fn check(&self, pairs: usize) -> Result<(), Failure> {
        if self.only_new && self.only_present {
            return Err(Failure::err("XX and NX options at the same time are not compatible"));
        }
        let conditions = [self.only_new, self.greater, self.less];
        if conditions.into_iter().filter(|it| *it).count() > 1 {
            return Err(Failure::err(
                "GT, LT, and/or NX options at the same time are not compatible",
            ));
        }
        if self.increment && pairs > 1 {
            return Err(Failure::err("INCR option supports a single increment-element pair"));
        }
        Ok(())
    }

    /// The score that a member gets, from the one that it has; None if it stays as it is, or away.
    fn decide(&self, old: Option<f64>, given: f64) -> Result<Option<f64>, Failure> {
        let Some(old) = old else { return Ok((!self.only_present).then_some(given)) };
        if self.only_new {
            return Ok(None);
        }
        let score = if self.increment { old + given } else { given };
        if score.is_nan() {
            return Err(Failure::err("resulting score is not a number (NaN)"));
        }
        let refused = (self.less && score >= old) || (self.greater && score <= old);
        Ok((!refused).then_some(score))
    }
}

/// What has been done.
#[derive(Default)]
struct Done {
    added: usize,
    updated: usize,
    /// The last score that was decided on.
    score: Option<f64>,
}

pub(super) fn zadd(ctx: &mut Context<'_, '_>, arguments: &[&[u8]]) -> Result<(), Failure> {
    add(ctx, arguments, Options::default())
}

pub(super) fn zincrby(ctx: &mut Context<'_, '_>, arguments: &[&[u8]]) -> Result<(), Failure> {
    add(ctx, arguments, Options { increment: true, ..Options::default() })
}

fn add(
    ctx: &mut Context<'_, '_>,
    arguments: &[&[u8]],
    mut options: Options,
) -> Result<(), Failure> {
    let pairs = options.read(&arguments[2..]);
    if pairs.is_empty() || !pairs.len().is_multiple_of(2) {
        return Err(Failure::Syntax);
    }
    options.check(pairs.len() / 2)?;
    // All or nothing: no score is set before all are read.
    let (pairs, _) = pairs.as_chunks::<2>();
    for [score, _] in pairs {
        parse_double(score).ok_or(Failure::NotFloat)?;
    }
    let key = ctx.key(arguments[1]);
    let missing = if options.only_present { Missing::Skip } else { Missing::Create };
    let done = ctx.keys.edit(&key, missing, |set: &mut SortedSet| {
        let mut done = Done::default();
        for [score, member] in pairs {
            let given = parse_double(score).ok_or(Failure::NotFloat)?;
            let mut failure = None;
            set.update(member, |old| {
                let score = options.decide(old, given).unwrap_or_else(|it| {
                    failure = Some(it);
                    None
                });
                if score.is_some() {
                    done.score = score;
                    done.added += usize::from(old.is_none());
                    done.updated += usize::from(old.is_some() && old != score);
                }
                score
            });
            if let Some(failure) = failure {
                return Err(failure);
            }
        }
        Ok(done)
    })?;
    let done = done.transpose()?.unwrap_or_default();
    if done.added + done.updated > 0 {
        ctx.notify(b'z', if options.increment { "zincr" } else { "zadd" }, &key);
    }
    match (options.increment, done.score) {
        (true, Some(score)) => ctx.reply.double(score),
        (true, None) => ctx.reply.null(),
        (false, _) if options.changed => ctx.reply.count(done.added + done.updated),
        (false, _) => ctx.reply.count(done.added),
    }
    Ok(())
}
