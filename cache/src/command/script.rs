//! `EVAL` and its like, for the scripts of common lock libraries: there is no scripting engine.
//!
//! A script is recognised by the SHA-1 of its text, or of its normal form: without comments and needless spaces, with one kind of quotes
//! and lower-case words in them. So what people paste from Redis's documentation is known however it is indented. What it does is then
//! done natively (`programs`), with exactly its reply. Any other script is refused with an error that names the native commands
//! which do what scripts are mostly written for.

mod programs;
mod table;

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use sha1::{Digest as _, Sha1};

use self::programs::{Answer, Input, Script};
use self::table::{Row, TABLE};
use super::{
    Command, Context, Failure, Flags, Group, Handler, Keys, help, is_option, parse_integer,
};
use crate::access::hex;

const KEYS: Keys = Keys::Counted { count: 2, store: 0 };
const EVAL: Flags = Flags::NOSCRIPT
    .and(Flags::STALE)
    .and(Flags::SKIP_MONITOR)
    .and(Flags::NO_MANDATORY_KEYS)
    .and(Flags::MAKES_ROOM)
    .and(Flags::WAKES);
const EVAL_RO: Flags = Flags::NOSCRIPT
    .and(Flags::STALE)
    .and(Flags::SKIP_MONITOR)
    .and(Flags::NO_MANDATORY_KEYS)
    .and(Flags::READONLY);

/// The family.
pub(super) const COMMANDS: &[Command] = &[
    row("eval", -3, KEYS, EVAL, "2.6.0", eval, "Carries out a script of a known library."),
    row("eval_ro", -3, KEYS, EVAL_RO, "7.0.0", eval_ro, "As EVAL, for scripts that only read."),
    row("evalsha", -3, KEYS, EVAL, "2.6.0", evalsha, "As EVAL, with the SHA-1 of a script."),
    row(
        "evalsha_ro",
        -3,
        KEYS,
        EVAL_RO,
        "7.0.0",
        evalsha_ro,
        "As EVALSHA, for scripts that only read.",
    ),
    row("script", -2, Keys::None, Flags(0), "2.6.0", help, "A container for script commands.")
        .with(&[
            sub("debug", 3, Flags::NOSCRIPT, debug, "Scripts cannot be debugged."),
            sub("exists", -3, Flags::NOSCRIPT, exists, "Tells which scripts are known."),
            sub("flush", -2, Flags::NOSCRIPT, flush, "Forgets the scripts that were loaded."),
            sub("help", 2, Flags::LOADING.and(Flags::STALE), help, "Tells about the subcommands."),
            sub(
                "kill",
                2,
                Flags::NOSCRIPT.and(Flags::ALLOW_BUSY),
                kill,
                "Ends the script under way: there never is one.",
            ),
            sub("load", 3, Flags::NOSCRIPT.and(Flags::STALE), load, "Recognises a script."),
        ]),
];

const fn row(
    name: &'static str,
    arity: i32,
    keys: Keys,
    flags: Flags,
    since: &'static str,
    run: Handler,
    summary: &'static str,
) -> Command {
    Command::new(name, arity, keys, flags, run).docs(Group::Scripting, since, summary)
}

const fn sub(
    name: &'static str,
    arity: i32,
    flags: Flags,
    run: Handler,
    summary: &'static str,
) -> Command {
    row(name, arity, Keys::None, flags, "2.6.0", run, summary)
}

/// Longer scripts are not looked at: no known one is half as long.
const TEXT_MAX: usize = 4096;
/// How many texts are remembered beyond those in the table.
const LOADED_MAX: usize = 256;

/// Texts that were recognised by their normal form, by their own SHA-1.
#[derive(Debug, Default)]
pub struct Scripts {
    loaded: Mutex<BTreeMap<String, &'static Row>>,
}

impl Scripts {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, &'static Row>> {
        self.loaded.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The script whose text has this SHA-1, in hexadecimal of either case.
    fn find(&self, sha: &[u8]) -> Option<&'static Row> {
        let sha = std::str::from_utf8(sha).ok()?.to_ascii_lowercase();
        let row = TABLE.iter().find(|row| row.exact == sha);
        row.or_else(|| self.lock().get(&sha).copied())
    }

    /// The script with this text, whose SHA-1 is remembered, and that SHA-1.
    fn recognise(&self, text: &[u8]) -> Option<(&'static Row, String)> {
        if text.len() > TEXT_MAX {
            return None;
        }
        let sha = hex(&Sha1::digest(text));
        if let Some(row) = self.find(sha.as_bytes()) {
            return Some((row, sha));
        }
        let normal = hex(&Sha1::digest(normal_form(text)));
        let row = TABLE.iter().find(|row| row.normal == normal)?;
        let mut loaded = self.lock();
        if loaded.len() >= LOADED_MAX {
            loaded.pop_first();
        }
        loaded.insert(sha.clone(), row);
        Some((row, sha))
    }
}

/// A text without what does not matter: comments, spaces but between words, the kind of quotes, the case of what is quoted.
fn normal_form(text: &[u8]) -> Vec<u8> {
    let is_word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    let (mut normal, mut rest, mut spaced) = (Vec::with_capacity(text.len()), text, false);
    while let [first, after @ ..] = rest {
        let line = |text: &[u8]| text.iter().position(|byte| *byte == b'\n').unwrap_or(text.len());
        if rest.starts_with(b"--") {
            rest = &rest[line(rest)..];
            spaced = true;
        } else if first.is_ascii_whitespace() || *first == 0x0b {
            rest = after;
            spaced = true;
        } else if matches!(first, b'"' | b'\'') {
            let end = after.iter().position(|byte| byte == first).unwrap_or(after.len());
            normal.push(b'"');
            normal.extend(after[..end].to_ascii_lowercase());
            normal.push(b'"');
            rest = after.get(end + 1..).unwrap_or_default();
            spaced = false;
        } else {
            if spaced && is_word(*first) && normal.last().is_some_and(|last| is_word(*last)) {
                normal.push(b' ');
            }
            normal.push(*first);
            rest = after;
            spaced = false;
        }
    }
    normal
}

fn eval(ctx: &mut Context<'_, '_>, arguments: &[&[u8]]) -> Result<(), Failure> {
    by_text(ctx, arguments, false)
}

fn eval_ro(ctx: &mut Context<'_, '_>, arguments: &[&[u8]]) -> Result<(), Failure> {
    by_text(ctx, arguments, true)
}

fn evalsha(ctx: &mut Context<'_, '_>, arguments: &[&[u8]]) -> Result<(), Failure> {
    by_sha(ctx, arguments, false)
}

fn evalsha_ro(ctx: &mut Context<'_, '_>, arguments: &[&[u8]]) -> Result<(), Failure> {
    by_sha(ctx, arguments, true)
}

fn no_engine() -> Failure {
    Failure::err(
        "This server has no scripting engine, and this is none of the lock scripts that it carries \
         out natively. What scripts are mostly for: SET key value IFEQ old, DELIFEQ key value, \
         PEXPIREIFEQ key value milliseconds, SET key value NX GET PX milliseconds",
    )
}

fn by_text(ctx: &mut Context<'_, '_>, arguments: &[&[u8]], read: bool) -> Result<(), Failure> {
    let count = key_count(arguments)?;
    let (row, _) = ctx.engine.scripts.recognise(arguments[1]).ok_or_else(no_engine)?;
    run(ctx, row, &arguments[3..], count, read)
}

fn by_sha(ctx: &mut Context<'_, '_>, arguments: &[&[u8]], read: bool) -> Result<(), Failure> {
    let count = key_count(arguments)?;
    let row = ctx
        .engine
        .scripts
        .find(arguments[1])
        .ok_or_else(|| Failure::Text("NOSCRIPT No matching script. Please use EVAL.".into()))?;
    run(ctx, row, &arguments[3..], count, read)
}

fn key_count(arguments: &[&[u8]]) -> Result<usize, Failure> {
    let count = parse_integer(arguments[2]).ok_or(Failure::NotInteger)?;
    let count = usize::try_from(count)
        .map_err(|_negative| Failure::err("Number of keys can't be negative"))?;
    if count > arguments.len() - 3 {
        return Err(Failure::err("Number of keys can't be greater than number of args"));
    }
    Ok(count)
}

fn run(
    ctx: &mut Context<'_, '_>,
    row: &'static Row,
    arguments: &[&[u8]],
    count: usize,
    read_only: bool,
) -> Result<(), Failure> {
    if count < row.keys {
        return Err(Failure::err(format_args!(
            "The script of {} needs {} keys",
            row.source, row.keys
        )));
    }
    let (keys, arguments) = arguments.split_at(count);
    let answer = (row.run)(&mut Script { ctx, read_only }, Input { keys, arguments })?;
    let reply = &mut ctx.reply;
    match answer {
        Answer::Null => reply.null(),
        Answer::Status => reply.ok(),
        Answer::Integer(number) => reply.integer(number),
        Answer::Bytes(bytes) => reply.bulk(&bytes),
        Answer::Pair(value, number) => {
            reply.array(2);
            reply.bulk_or_null(value.as_deref());
            reply.integer(number);
        }
    }
    Ok(())
}

fn load(ctx: &mut Context<'_, '_>, arguments: &[&[u8]]) -> Result<(), Failure> {
    let (_, sha) = ctx.engine.scripts.recognise(arguments[2]).ok_or_else(no_engine)?;
    ctx.reply.bulk(sha.as_bytes());
    Ok(())
}

fn exists(ctx: &mut Context<'_, '_>, arguments: &[&[u8]]) -> Result<(), Failure> {
    ctx.reply.array(arguments.len() - 2);
    for sha in &arguments[2..] {
        ctx.reply.integer(i64::from(ctx.engine.scripts.find(sha).is_some()));
    }
    Ok(())
}

fn flush(ctx: &mut Context<'_, '_>, arguments: &[&[u8]]) -> Result<(), Failure> {
    match *arguments {
        [_, _] => {}
        [_, _, option] if is_option(option, "ASYNC") || is_option(option, "SYNC") => {}
        _ => return Err(Failure::err("SCRIPT FLUSH only support SYNC|ASYNC option")),
    }
    ctx.engine.scripts.lock().clear();
    ctx.reply.ok();
    Ok(())
}

fn kill(_: &mut Context<'_, '_>, _: &[&[u8]]) -> Result<(), Failure> {
    Err(Failure::Text("NOTBUSY No scripts in execution right now.".into()))
}

fn debug(_: &mut Context<'_, '_>, _: &[&[u8]]) -> Result<(), Failure> {
    Err(no_engine())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::testing::{TestNode, story};

    #[test]
    fn each_text_and_each_program_is_there_once() {
        let mut texts: Vec<_> = TABLE.iter().map(|row| row.exact).collect();
        texts.sort_unstable();
        texts.dedup();
        assert_eq!(texts.len(), TABLE.len());
        for row in TABLE {
            assert!(row.exact.len() == 40 && row.normal.len() == 40, "{}", row.source);
            let twins = TABLE.iter().filter(|other| other.normal == row.normal);
            let keys: Vec<_> = twins.map(|twin| twin.keys).collect();
            assert!(keys.iter().all(|count| *count == row.keys), "{}", row.source);
        }
    }

    #[test]
    fn a_normal_form_has_no_comments_spaces_and_kinds_of_quotes() {
        let normal =
            normal_form(b"-- why\nif  redis.call('GET' , KEYS[1])\n== ARGV[1] then return 0 end");
        assert_eq!(normal, b"if redis.call(\"get\",KEYS[1])==ARGV[1]then return 0 end");
        assert_eq!(normal_form(b"'open"), b"\"open\"");
        assert_eq!(normal_form(b"a -- end"), b"a");
    }

    #[test]
    fn the_release_of_the_documentation_is_known_however_it_is_written() {
        story(
            r#"
            SET lock me => OK
            EVAL "if redis.call('get', KEYS[1]) == ARGV[1] then return redis.call('del', KEYS[1]) else return 0 end" 1 lock you => 0
            SCRIPT LOAD "if redis.call('get', KEYS[1])==ARGV[1] then return redis.call('DEL', KEYS[1]) else return 0 end" => "7f9a4479e38100f592beb887fd4f85550b6ce4a8"
            SCRIPT EXISTS 7F9A4479e38100f592beb887fd4f85550b6ce4a8 0000000000000000000000000000000000000000 => [1, 0]
            EVALSHA 7f9a4479e38100f592beb887fd4f85550b6ce4a8 1 lock me => 1
            EXISTS lock => 0
            SCRIPT FLUSH => OK
            SCRIPT EXISTS 7f9a4479e38100f592beb887fd4f85550b6ce4a8 => [0]
            "#,
        );
    }

    #[test]
    fn unknown_scripts_and_wrong_calls_are_refused() {
        let mut node = TestNode::new();
        assert!(node.run("EVAL \"return 1\" 0").starts_with("-ERR This server has no scripting"));
        node.story(
            "
            EVALSHA ffffffffffffffffffffffffffffffffffffffff 0 => -NOSCRIPT No matching script. Please use EVAL.
            EVALSHA x -1 => -ERR Number of keys can't be negative
            EVALSHA x 2 a => -ERR Number of keys can't be greater than number of args
            EVALSHA x y => -ERR value is not an integer or out of range
            SCRIPT KILL => -NOTBUSY No scripts in execution right now.
            SCRIPT FLUSH NOW => -ERR SCRIPT FLUSH only support SYNC|ASYNC option
            ",
        );
    }

    /// The SHA-1 of the script of this source, as the package sends it.
    fn sha(source: &str) -> &'static str {
        TABLE.iter().find(|row| row.source == source).unwrap().exact
    }

    fn with_shas(story: &str, sources: &[(&str, &str)]) -> String {
        sources.iter().fold(story.to_owned(), |story, (name, source)| {
            story.replace(&format!("EVALSHA {name} "), &format!("EVALSHA {} ", sha(source)))
        })
    }

    #[test]
    fn redis_py_locks() {
        let sources = [
            ("release", "redis-py: Lock.release"),
            ("extend", "redis-py: Lock.extend"),
            ("reacquire", "redis-py: Lock.reacquire"),
        ];
        story(&with_shas(
            "
            SET lock me NX PX 10000 => OK
            EVALSHA extend 1 lock you 5000 0 => 0
            EVALSHA extend 1 lock me 5000 0 => 1
            PTTL lock => 15000
            EVALSHA extend 1 lock me 5000 1 => 1
            PTTL lock => 5000
            EVALSHA reacquire 1 lock me 7000 => 1
            PTTL lock => 7000
            EVALSHA reacquire 1 lock you 7000 => 0
            EVALSHA release 1 lock you => 0
            EVALSHA release 1 lock me => 1
            EVALSHA release 1 lock me => 0
            SET forever me => OK
            EVALSHA extend 1 forever me 5000 0 => 0
            LPUSH list a => 1
            EVALSHA release 1 list me => -WRONGTYPE Operation against a key holding the wrong kind of value
            EVALSHA release 0 => -ERR The script of redis-py: Lock.release needs 1 keys
            EVALSHA release 1 lock => -ERR The script needs 1 arguments besides its keys
            ",
            &sources,
        ));
    }

    #[test]
    fn redlocks_of_several_keys() {
        let sources = [
            ("lock", "node-redlock 4: lockScript"),
            ("extend", "node-redlock 4: extendScript"),
            ("unlock", "node-redlock 4: unlockScript"),
            ("lock-in", "@sesamecare-oss/redlock: ACQUIRE_SCRIPT"),
            ("unlock-in", "@sesamecare-oss/redlock: RELEASE_SCRIPT"),
        ];
        story(&with_shas(
            "
            EVALSHA lock 2 a b me 1000 => 2
            EVALSHA lock 2 b c you 1000 => 0
            EXISTS c => 0
            EVALSHA extend 2 a b me 5000 => 2
            PTTL b => 5000
            EVALSHA extend 2 a b you 5000 => 0
            EVALSHA unlock 2 a b you => 0
            EVALSHA unlock 3 a b c me => 2
            EVALSHA lock-in 1 a 3 me 1000 => 1
            EXISTS a => 0
            SELECT 3 => OK
            GET a => \"me\"
            SELECT 0 => OK
            EVALSHA unlock-in 1 a 3 me => 1
            ",
            &sources,
        ));
    }

    #[test]
    fn redsync_and_redislock() {
        let sources = [
            ("unlock", "redsync: unlock"),
            ("touch", "redsync: extend with SetNX"),
            ("obtain", "bsm/redislock: obtain"),
            ("ttl", "bsm/redislock: ttl"),
            ("locked", "pottery: Redlock.locked"),
            ("rb-lock", "redlock-rb: lock"),
            ("rb-left", "redlock-rb: remaining time"),
        ];
        story(&with_shas(
            "
            EVALSHA unlock 1 a me => -1
            EVALSHA touch 1 a me 1000 => 1
            EVALSHA touch 1 a me 2000 => 1
            EVALSHA touch 1 a you 2000 => 0
            EVALSHA locked 1 a me => 2000
            EVALSHA locked 1 a you => 0
            EVALSHA ttl 1 a me => 2000
            EVALSHA ttl 1 a you => -3
            EVALSHA unlock 1 a you => 0
            EVALSHA unlock 1 a me => 1
            EVALSHA obtain 1 b token-1 5 1000 => OK
            EVALSHA obtain 1 b token-2 5 2000 => OK
            GET b => \"token-2\"
            EVALSHA obtain 1 b other 5 1000 => nil
            EVALSHA rb-lock 1 c me 1000 no => nil
            EVALSHA rb-lock 1 c me 1000 yes => OK
            EVALSHA rb-left 1 c => [\"me\", 1000]
            EVALSHA rb-left 1 d => [nil, -2]
            ",
            &sources,
        ));
    }

    #[test]
    fn spring_and_redisson() {
        let sources = [
            ("obtain", "Spring Integration: obtain"),
            ("unlock", "Spring Integration: unlock"),
            ("lock", "Redisson: RLock.tryLock"),
            ("release", "Redisson: RLock.unlock"),
            ("renew", "Redisson: RLock renewal"),
        ];
        story(&with_shas(
            "
            EVALSHA obtain 1 a me 1000 => 1
            EVALSHA obtain 1 a me 1000 => 1
            EVALSHA obtain 1 a you 1000 => nil
            EVALSHA unlock 1 a you => nil
            EVALSHA unlock 1 a me => 1
            EVALSHA lock 1 b 30000 me:1 => nil
            EVALSHA lock 1 b 30000 me:1 => nil
            EVALSHA lock 1 b 30000 you:1 => 30000
            EVALSHA renew 1 b 40000 me:1 => 1
            EVALSHA renew 1 b 40000 you:1 => 0
            EVALSHA release 3 b channel answer1 0 30000 me:1 publish 1000 => 0
            EVALSHA release 3 b channel answer1 0 30000 me:1 publish 1000 => 0
            EVALSHA release 3 b channel answer2 0 30000 you:1 publish 1000 => nil
            HGETALL b => [\"me:1\", \"1\"]
            ",
            &sources,
        ));
    }
}
