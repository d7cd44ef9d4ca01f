//! What the known scripts do, as functions that call our own commands the way the scripts call Redis's.
//!
//! So access rules, errors, notifications and invalidations are those of the commands, and a program reads like the script it stands
//! for. Each answers exactly what the script answers: truth is 1, falsehood and nothing are null.

use crate::access::LogContext;
use crate::command::{Context, Failure, Flags, parse_integer};
use crate::resp::{Protocol, Reply};
use crate::session::resolve;
use crate::types::{DATABASES, Database};

/// What a command, or a script, answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    Null,
    Status,
    Integer(i64),
    Bytes(Vec<u8>),
    /// A value, or null, and a number.
    Pair(Option<Vec<u8>>, i64),
}

/// What a script is called with. Its keys are as many as it needs at least.
#[derive(Clone, Copy, Debug)]
pub(super) struct Input<'i> {
    pub(super) keys: &'i [&'i [u8]],
    pub(super) arguments: &'i [&'i [u8]],
}

impl<'i> Input<'i> {
    /// Key number `number`, from 1 on as scripts count.
    fn key(&self, number: usize) -> &'i [u8] {
        self.keys[number - 1]
    }

    /// Argument number `number`, from 1 on as scripts count.
    fn argument(&self, number: usize) -> Result<&'i [u8], Failure> {
        self.arguments.get(number - 1).copied().ok_or_else(|| {
            Failure::err(format_args!("The script needs {number} arguments besides its keys"))
        })
    }
}

/// A script under way: calls commands.
pub(super) struct Script<'s, 'c, 'e> {
    pub(super) ctx: &'s mut Context<'c, 'e>,
    pub(super) read_only: bool,
}

impl Script<'_, '_, '_> {
    /// Carries a command out as the session's user.
    fn call(&mut self, arguments: &[&[u8]]) -> Outcome {
        let known = resolve(arguments)?;
        let flags = known.command.flags;
        let (engine, now) = (self.ctx.engine, self.ctx.now);
        if self.read_only && flags.has(Flags::WRITE) {
            return Err(Failure::err("Write commands are not allowed from read-only scripts."));
        }
        if let Err(denied) = engine.access.check(&self.ctx.session.user, known, arguments) {
            let describe = || self.ctx.session.describe(now);
            let context = LogContext::Script;
            engine.access.note_denied(&engine.settings, &denied, context, now, describe);
            return Err(denied.into());
        }
        let bytes = arguments.iter().map(|argument| argument.len()).sum();
        if flags.has(Flags::DENYOOM) && engine.store.excess(bytes) > 0 {
            return Err(Failure::Text(
                "OOM command not allowed when used memory > 'maxmemory'.".into(),
            ));
        }
        let mut out = Vec::new();
        let mut context = Context {
            engine,
            session: self.ctx.session,
            keys: self.ctx.keys,
            reply: Reply::new(&mut out, Protocol::Resp2),
            now,
            command: known.command,
        };
        (known.command.run)(&mut context, arguments)?;
        Ok(read(&out))
    }

    /// As [`Script::call`], for a command that answers a number.
    fn number(&mut self, arguments: &[&[u8]]) -> Result<i64, Failure> {
        match self.call(arguments)? {
            Answer::Integer(number) => Ok(number),
            other => unreachable!("the commands called for a number answer one, not {other:?}"),
        }
    }

    fn get(&mut self, key: &[u8]) -> Result<Option<Vec<u8>>, Failure> {
        Ok(match self.call(&[b"get", key])? {
            Answer::Bytes(bytes) => Some(bytes),
            _ => None,
        })
    }

    /// Whether `key` holds just `token`: whether the lock is the caller's.
    fn holds(&mut self, key: &[u8], token: &[u8]) -> Result<bool, Failure> {
        Ok(self.get(key)?.as_deref() == Some(token))
    }

    fn set(&mut self, key: &[u8], token: &[u8], ms: &[u8]) -> Outcome {
        self.call(&[b"set", key, token, b"PX", ms])
    }
}

/// A reply in RESP2 of the few shapes that the called commands have.
fn read(wire: &[u8]) -> Answer {
    let end = wire.windows(2).position(|pair| pair == b"\r\n").unwrap_or(wire.len());
    match wire {
        [b':', ..] => Answer::Integer(parse_integer(&wire[1..end]).unwrap_or(0)),
        [b'$', b'-', ..] => Answer::Null,
        [b'$', ..] => Answer::Bytes(wire[end + 2..wire.len() - 2].to_vec()),
        [b'+', ..] => Answer::Status,
        _ => Answer::Null,
    }
}

type Outcome = Result<Answer, Failure>;

/// What a script does.
pub(super) type Program = fn(&mut Script<'_, '_, '_>, Input<'_>) -> Outcome;

const NO: Outcome = Ok(Answer::Integer(0));
const YES: Outcome = Ok(Answer::Integer(1));

/// Deletes the lock if it is the caller's: how many were deleted.
pub(super) fn delete_if_equal(script: &mut Script<'_, '_, '_>, input: Input<'_>) -> Outcome {
    if script.holds(input.key(1), input.argument(1)?)? {
        return script.call(&[b"del", input.key(1)]);
    }
    NO
}

/// As [`delete_if_equal`], but -1 if there is no lock.
pub(super) fn delete_or_missing(script: &mut Script<'_, '_, '_>, input: Input<'_>) -> Outcome {
    let held = script.get(input.key(1))?;
    match held {
        None => Ok(Answer::Integer(-1)),
        Some(token) if token == input.argument(1)? => script.call(&[b"del", input.key(1)]),
        Some(_) => NO,
    }
}

/// Deletes the lock if it is the caller's, and says so.
pub(super) fn release_held(script: &mut Script<'_, '_, '_>, input: Input<'_>) -> Outcome {
    if !script.holds(input.key(1), input.argument(1)?)? {
        return NO;
    }
    script.call(&[b"del", input.key(1)])?;
    YES
}

/// Sets the lock's time to live if it is the caller's: what `PEXPIRE` answers.
pub(super) fn expire_if_equal(script: &mut Script<'_, '_, '_>, input: Input<'_>) -> Outcome {
    if script.holds(input.key(1), input.argument(1)?)? {
        return script.call(&[b"pexpire", input.key(1), input.argument(2)?]);
    }
    NO
}

/// As [`expire_if_equal`], but 1 whatever `PEXPIRE` answers.
pub(super) fn reacquire_held(script: &mut Script<'_, '_, '_>, input: Input<'_>) -> Outcome {
    if !script.holds(input.key(1), input.argument(1)?)? {
        return NO;
    }
    script.call(&[b"pexpire", input.key(1), input.argument(2)?])?;
    YES
}

/// Sets the lock's time to live, or adds to it if argument 3 is 0, if it is the caller's and has one.
pub(super) fn extend_held(script: &mut Script<'_, '_, '_>, input: Input<'_>) -> Outcome {
    if !script.holds(input.key(1), input.argument(1)?)? {
        return NO;
    }
    let left = script.number(&[b"pttl", input.key(1)])?;
    if left < 0 {
        return NO;
    }
    let mut ms = input.argument(2)?.to_vec();
    if input.arguments.get(2).is_some_and(|flag| *flag == b"0") {
        let more = parse_integer(&ms).ok_or(Failure::NotInteger)?;
        ms = left.saturating_add(more).to_string().into_bytes();
    }
    script.call(&[b"pexpire", input.key(1), &ms])?;
    YES
}

/// Extends the lock if it is the caller's, takes it if it is nobody's.
pub(super) fn touch_or_set_nx(script: &mut Script<'_, '_, '_>, input: Input<'_>) -> Outcome {
    match touch_or_set_nx_status(script, input)? {
        Answer::Status => YES,
        Answer::Null => NO,
        other => Ok(other),
    }
}

/// As [`touch_or_set_nx`], with the answer of the command that was called last.
pub(super) fn touch_or_set_nx_status(script: &mut Script<'_, '_, '_>, input: Input<'_>) -> Outcome {
    let (key, token) = (input.key(1), input.argument(1)?);
    if script.holds(key, token)? {
        return script.call(&[b"pexpire", key, input.argument(2)?]);
    }
    script.call(&[b"set", key, token, b"NX", b"PX", input.argument(2)?])
}

/// Takes the lock if it is nobody's and argument 3 says so, or if it is the caller's.
pub(super) fn lock_or_extend(script: &mut Script<'_, '_, '_>, input: Input<'_>) -> Outcome {
    let (key, token) = (input.key(1), input.argument(1)?);
    let free = script.number(&[b"exists", key])? == 0;
    let may_take = input.arguments.get(2).is_some_and(|word| *word == b"yes");
    if (free && may_take) || script.holds(key, token)? {
        return script.set(key, token, input.argument(2)?);
    }
    Ok(Answer::Null)
}

/// Who holds the lock, and for how long.
pub(super) fn value_and_ttl(script: &mut Script<'_, '_, '_>, input: Input<'_>) -> Outcome {
    let value = script.get(input.key(1))?;
    let left = script.number(&[b"pttl", input.key(1)])?;
    Ok(Answer::Pair(value, left))
}

/// For how long the lock is the caller's; -3 if it is not.
pub(super) fn ttl_if_equal(script: &mut Script<'_, '_, '_>, input: Input<'_>) -> Outcome {
    if script.holds(input.key(1), input.argument(1)?)? {
        return script.call(&[b"pttl", input.key(1)]);
    }
    Ok(Answer::Integer(-3))
}

/// For how long the lock is the caller's; 0 if it is not, or for ever.
pub(super) fn remaining_if_equal(script: &mut Script<'_, '_, '_>, input: Input<'_>) -> Outcome {
    if !script.holds(input.key(1), input.argument(1)?)? {
        return NO;
    }
    Ok(Answer::Integer(script.number(&[b"pttl", input.key(1)])?.max(0)))
}

/// Takes the lock if it is nobody's, or if what it holds begins with the first so many bytes of the caller's token.
pub(super) fn obtain(script: &mut Script<'_, '_, '_>, input: Input<'_>) -> Outcome {
    let (key, token) = (input.key(1), input.argument(1)?);
    let (length, ms) = (input.argument(2)?, input.argument(3)?);
    let taken = script.call(&[b"set", key, token, b"NX", b"PX", ms])?;
    if taken == Answer::Status {
        return Ok(taken);
    }
    let length = parse_integer(length).ok_or(Failure::NotInteger)?;
    let end = length.saturating_sub(1).to_string();
    let held = script.call(&[b"getrange", key, b"0", end.as_bytes()])?;
    let prefix = &token[..usize::try_from(length).unwrap_or(0).min(token.len())];
    if held == Answer::Bytes(prefix.to_vec()) {
        return script.set(key, token, ms);
    }
    Ok(Answer::Null)
}

fn lock_all(script: &mut Script<'_, '_, '_>, keys: &[&[u8]], token: &[u8], ms: &[u8]) -> Outcome {
    for key in keys {
        script.set(key, token, ms)?;
    }
    Ok(Answer::Integer(i64::try_from(keys.len()).unwrap_or(i64::MAX)))
}

/// Takes all locks, if none is anybody's: how many.
pub(super) fn redlock_lock(script: &mut Script<'_, '_, '_>, input: Input<'_>) -> Outcome {
    for key in input.keys {
        if script.number(&[b"exists", key])? == 1 {
            return NO;
        }
    }
    lock_all(script, input.keys, input.argument(1)?, input.argument(2)?)
}

/// Releases those locks that are the caller's: how many.
pub(super) fn redlock_unlock(script: &mut Script<'_, '_, '_>, input: Input<'_>) -> Outcome {
    let mut count = 0;
    for key in input.keys {
        if script.holds(key, input.argument(1)?)? {
            script.call(&[b"del", key])?;
            count += 1;
        }
    }
    Ok(Answer::Integer(count))
}

/// Extends all locks, if all are the caller's: how many.
pub(super) fn redlock_extend(script: &mut Script<'_, '_, '_>, input: Input<'_>) -> Outcome {
    for key in input.keys {
        if !script.holds(key, input.argument(1)?)? {
            return NO;
        }
    }
    lock_all(script, input.keys, input.argument(1)?, input.argument(2)?)
}

/// Runs `program` in the database that argument 1 names, without that argument.
fn in_database(script: &mut Script<'_, '_, '_>, input: Input<'_>, program: Program) -> Outcome {
    let before = script.ctx.session.database;
    let number = parse_integer(input.argument(1)?).and_then(|number| u8::try_from(number).ok());
    if let Some(number) = number.filter(|number| *number < DATABASES)
        && !script.ctx.engine.options.cluster
    {
        script.ctx.session.database = Database(number);
    }
    let outcome = program(script, Input { arguments: &input.arguments[1..], ..input });
    script.ctx.session.database = before;
    outcome
}

/// As [`redlock_lock`], in a database.
pub(super) fn redlock_lock_in(script: &mut Script<'_, '_, '_>, input: Input<'_>) -> Outcome {
    in_database(script, input, redlock_lock)
}

/// As [`redlock_unlock`], in a database.
pub(super) fn redlock_unlock_in(script: &mut Script<'_, '_, '_>, input: Input<'_>) -> Outcome {
    in_database(script, input, redlock_unlock)
}

/// As [`redlock_extend`], in a database.
pub(super) fn redlock_extend_in(script: &mut Script<'_, '_, '_>, input: Input<'_>) -> Outcome {
    in_database(script, input, redlock_extend)
}

/// Puts a signal into the list of key 2, for whoever waits for the lock.
fn signal(script: &mut Script<'_, '_, '_>, input: Input<'_>) -> Result<(), Failure> {
    script.call(&[b"del", input.key(2)])?;
    script.call(&[b"lpush", input.key(2), b"1"])?;
    script.call(&[b"pexpire", input.key(2), input.argument(2)?])?;
    Ok(())
}

/// Releases the lock if it is the caller's, and wakes one who waits: 0, or 1 if it is not.
pub(super) fn signal_release(script: &mut Script<'_, '_, '_>, input: Input<'_>) -> Outcome {
    if !script.holds(input.key(1), input.argument(1)?)? {
        return YES;
    }
    signal(script, input)?;
    script.call(&[b"del", input.key(1)])?;
    NO
}

/// Extends the lock in seconds: 0, 1 if it is not the caller's, 2 if it has no time to live.
pub(super) fn signal_extend(script: &mut Script<'_, '_, '_>, input: Input<'_>) -> Outcome {
    if !script.holds(input.key(1), input.argument(1)?)? {
        return YES;
    }
    if script.number(&[b"ttl", input.key(1)])? < 0 {
        return Ok(Answer::Integer(2));
    }
    script.call(&[b"expire", input.key(1), input.argument(2)?])?;
    NO
}

/// Releases the lock, whoever holds it, and wakes one who waits.
pub(super) fn signal_reset(script: &mut Script<'_, '_, '_>, input: Input<'_>) -> Outcome {
    signal(script, input)?;
    script.call(&[b"del", input.key(1)])
}

/// Takes the lock, or extends it if it is the caller's.
pub(super) fn spring_obtain(script: &mut Script<'_, '_, '_>, input: Input<'_>) -> Outcome {
    let (key, token, ms) = (input.key(1), input.argument(1)?, input.argument(2)?);
    match script.get(key)? {
        Some(held) if held == token => script.call(&[b"pexpire", key, ms])?,
        Some(_) => return Ok(Answer::Null),
        None => script.set(key, token, ms)?,
    };
    YES
}

/// Extends the lock if it is the caller's.
pub(super) fn spring_renew(script: &mut Script<'_, '_, '_>, input: Input<'_>) -> Outcome {
    if !script.holds(input.key(1), input.argument(1)?)? {
        return Ok(Answer::Null);
    }
    script.call(&[b"pexpire", input.key(1), input.argument(2)?])?;
    YES
}

/// Releases the lock if it is the caller's.
pub(super) fn spring_unlock(script: &mut Script<'_, '_, '_>, input: Input<'_>) -> Outcome {
    if !script.holds(input.key(1), input.argument(1)?)? {
        return Ok(Answer::Null);
    }
    script.call(&[b"del", input.key(1)])?;
    YES
}

/// As [`spring_unlock`], and tells those who listen.
pub(super) fn spring_unlock_publish(script: &mut Script<'_, '_, '_>, input: Input<'_>) -> Outcome {
    let outcome = spring_unlock(script, input)?;
    if outcome != Answer::Null {
        script.call(&[b"publish", input.argument(2)?, input.key(1)])?;
    }
    Ok(outcome)
}

/// Takes the lock once more, if it is nobody's or the caller's: null, or for how long it is another's.
pub(super) fn redisson_lock(script: &mut Script<'_, '_, '_>, input: Input<'_>) -> Outcome {
    let (key, holder) = (input.key(1), input.argument(2)?);
    let free = script.number(&[b"exists", key])? == 0;
    if free || script.number(&[b"hexists", key, holder])? == 1 {
        script.call(&[b"hincrby", key, holder, b"1"])?;
        script.call(&[b"pexpire", key, input.argument(1)?])?;
        return Ok(Answer::Null);
    }
    script.call(&[b"pttl", key])
}

/// Extends the lock if it is the caller's.
pub(super) fn redisson_renew(script: &mut Script<'_, '_, '_>, input: Input<'_>) -> Outcome {
    let (key, holder) = (input.key(1), input.argument(2)?);
    if script.number(&[b"hexists", key, holder])? == 1 {
        script.call(&[b"pexpire", key, input.argument(1)?])?;
        return YES;
    }
    NO
}

/// Tells those who wait for a lock: an argument says whether by `PUBLISH` or by `SPUBLISH`.
fn tell(
    script: &mut Script<'_, '_, '_>,
    how: &[u8],
    channel: &[u8],
    message: &[u8],
) -> Result<(), Failure> {
    if !how.eq_ignore_ascii_case(b"publish") && !how.eq_ignore_ascii_case(b"spublish") {
        return Err(Failure::err("The script publishes by PUBLISH or SPUBLISH alone"));
    }
    script.call(&[how, channel, message])?;
    Ok(())
}

/// Releases the lock once. The answer is kept under key 3 for a while, so that a caller who has to ask again gets the same.
pub(super) fn redisson_unlock(script: &mut Script<'_, '_, '_>, input: Input<'_>) -> Outcome {
    let (key, answer, holder) = (input.key(1), input.key(3), input.argument(3)?);
    let keep_ms = input.argument(5)?;
    if let Some(kept) = script.get(answer)? {
        return Ok(parse_integer(&kept).map_or(Answer::Null, Answer::Integer));
    }
    if script.number(&[b"hexists", key, holder])? == 0 {
        return Ok(Answer::Null);
    }
    if script.number(&[b"hincrby", key, holder, b"-1"])? > 0 {
        script.call(&[b"pexpire", key, input.argument(2)?])?;
        script.set(answer, b"0", keep_ms)?;
        return NO;
    }
    script.call(&[b"del", key])?;
    tell(script, input.argument(4)?, input.key(2), input.argument(1)?)?;
    script.set(answer, b"1", keep_ms)?;
    YES
}

/// Releases the lock, whoever holds it.
pub(super) fn redisson_force_unlock(script: &mut Script<'_, '_, '_>, input: Input<'_>) -> Outcome {
    if script.number(&[b"del", input.key(1)])? == 1 {
        tell(script, input.argument(2)?, input.key(2), input.argument(1)?)?;
        return YES;
    }
    NO
}
