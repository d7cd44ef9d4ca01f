//! Commands that look through all keys: `KEYS`, `SCAN`, `RANDOMKEY`.

use super::cursor::read_cursor;
use super::{Command, Context, Failure, Flags, Group, Keys, integer, is_option};
use crate::glob;
use crate::store::Cursor;

/// Byte strings one after the other: a long answer in one allocation.
#[derive(Default)]
struct Found {
    bytes: Vec<u8>,
    ends: Vec<usize>,
}

impl Found {
    fn push(&mut self, key: &[u8]) {
        self.bytes.extend_from_slice(key);
        self.ends.push(self.bytes.len());
    }

    fn answer(&self, ctx: &mut Context<'_, '_>) {
        ctx.reply.array(self.ends.len());
        let mut start = 0;
        for end in &self.ends {
            ctx.reply.bulk(&self.bytes[start..*end]);
            start = *end;
        }
    }
}

fn keys(ctx: &mut Context<'_, '_>, arguments: &[&[u8]]) -> Result<(), Failure> {
    let mut found = Found::default();
    if let Some(literal) = glob::literal(arguments[1]) {
        let key = ctx.key(literal);
        if ctx.keys.peek(&key).is_some() {
            found.push(literal);
        }
    } else {
        ctx.keys.scan(ctx.session.database, Cursor(0), usize::MAX, |key, _| {
            if glob::matches(arguments[1], key) {
                found.push(key);
            }
        });
    }
    found.answer(ctx);
    Ok(())
}

fn scan(ctx: &mut Context<'_, '_>, arguments: &[&[u8]]) -> Result<(), Failure> {
    let cursor = Cursor(read_cursor(arguments[1])?);
    let (mut pattern, mut count, mut kind): (&[u8], _, Option<&[u8]>) = (b"*", 10, None);
    let mut rest = arguments[2..].iter();
    while let Some(option) = rest.next() {
        let value = rest.next().ok_or(Failure::Syntax)?;
        if is_option(option, "MATCH") {
            pattern = value;
        } else if is_option(option, "COUNT") {
            count = usize::try_from(integer(value)?)
                .ok()
                .filter(|count| *count > 0)
                .ok_or(Failure::Syntax)?;
        } else if is_option(option, "TYPE") {
            kind = Some(value);
        } else {
            return Err(Failure::Syntax);
        }
    }
    let mut found = Found::default();
    let next = ctx.keys.scan(ctx.session.database, cursor, count, |key, view| {
        let is_kind =
            kind.is_none_or(|kind| kind.eq_ignore_ascii_case(view.kind().name().as_bytes()));
        if is_kind && glob::matches(pattern, key) {
            found.push(key);
        }
    });
    ctx.reply.array(2);
    ctx.reply.bulk_display(next.0);
    found.answer(ctx);
    Ok(())
}

fn randomkey(ctx: &mut Context<'_, '_>, _: &[&[u8]]) -> Result<(), Failure> {
    let key = ctx.keys.random_key(ctx.session.database, ctx.engine.draw());
    ctx.reply.bulk_or_null(key.as_deref());
    Ok(())
}

/// The family.
pub(super) const COMMANDS: &[Command] = &[
    Command::new("keys", 2, Keys::All, Flags::READONLY.and(Flags::DANGEROUS), keys).docs(
        Group::Generic,
        "1.0.0",
        "Returns all keys that match a pattern.",
    ),
    Command::new("randomkey", 1, Keys::All, Flags::READONLY, randomkey).docs(
        Group::Generic,
        "1.0.0",
        "Returns a key picked at random.",
    ),
    Command::new("scan", -2, Keys::All, Flags::READONLY, scan).docs(
        Group::Generic,
        "2.8.0",
        "Returns some keys, and a cursor to go on from.",
    ),
];

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use crate::command::testing::{TestNode, story};

    #[test]
    fn keys_are_found_by_pattern() {
        story(
            r#"
            MSET user:1 a user:2 b other c => OK
            KEYS user:[13]         => ["user:1"]
            KEYS other             => ["other"]
            KEYS none              => []
            SCAN 0 MATCH other COUNT 100 => ["0", ["other"]]
            SCAN 0 TYPE list COUNT 100 => ["0", []]
            SCAN x                 => -ERR invalid cursor
            SCAN -1                => ["0", []]
            SCAN 0 COUNT 0         => -ERR syntax error
            SCAN 0 COUNT           => -ERR syntax error
            SCAN 0 COUNT x         => -ERR value is not an integer or out of range
            RANDOMKEY              => "other"
            DEL user:1 user:2 other => 3
            RANDOMKEY              => nil
            "#,
        );
    }

    #[test]
    fn a_scan_meets_every_key_that_stays() {
        let mut node = TestNode::new();
        for number in 0..500 {
            node.run(&format!("SET key:{number} x"));
        }
        let (mut met, mut cursor, mut calls) = (BTreeSet::new(), "0".to_owned(), 0);
        loop {
            let reply = node.run(&format!("SCAN {cursor} COUNT 7"));
            let mut words = reply.split('"').skip(1).step_by(2).map(str::to_owned);
            cursor = words.next().unwrap();
            met.extend(words);
            calls += 1;
            // Others come and go meanwhile.
            node.run(&format!("SET extra:{calls} x"));
            node.run(&format!("DEL extra:{}", calls / 2));
            if cursor == "0" {
                break;
            }
        }
        assert!(calls > 50, "{calls}");
        for number in 0..500 {
            assert!(met.contains(&format!("key:{number}")), "key:{number} was missed");
        }
    }
}
