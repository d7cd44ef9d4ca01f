//! `SLOWLOG`.

use crate::command::{Command, Context, Failure, Flags, Group, Handler, Keys, help, parse_integer};

const OPEN: Flags = Flags::LOADING.and(Flags::STALE);
const ADMIN: Flags = OPEN.and(Flags::ADMIN);

/// The family.
pub(in crate::command) const COMMANDS: &[Command] =
    &[row("slowlog", -2, Flags(0), help, "A container for slow log commands.").with(&[
        row("get", -2, ADMIN, get, "Returns the latest slow commands."),
        row("help", 2, OPEN, help, "Tells about the subcommands."),
        row("len", 2, ADMIN, length, "Returns how many slow commands are kept."),
        row("reset", 2, ADMIN, reset, "Forgets the slow commands."),
    ])];

const fn row(
    name: &'static str,
    arity: i32,
    flags: Flags,
    run: Handler,
    summary: &'static str,
) -> Command {
    Command::new(name, arity, Keys::None, flags, run).docs(Group::Server, "2.2.12", summary)
}

fn get(ctx: &mut Context<'_, '_>, arguments: &[&[u8]]) -> Result<(), Failure> {
    let count = match *arguments {
        [_, _] => 10,
        [_, _, text] => {
            let number = parse_integer(text).filter(|number| *number >= -1);
            let number = number
                .ok_or_else(|| Failure::err("count should be greater than or equal to -1"))?;
            usize::try_from(number).unwrap_or(usize::MAX)
        }
        _ => {
            return Err(Failure::err(
                "unknown subcommand or wrong number of arguments for 'GET'. Try SLOWLOG HELP.",
            ));
        }
    };
    let entries = ctx.engine.slow_log.latest(count);
    let integer = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
    ctx.reply.array(entries.len());
    for entry in entries {
        ctx.reply.array(6);
        ctx.reply.integer(integer(entry.id));
        ctx.reply.integer(integer(entry.at_s));
        ctx.reply.integer(integer(entry.us));
        ctx.reply.array(entry.arguments.len());
        entry.arguments.iter().for_each(|argument| ctx.reply.bulk(argument));
        ctx.reply.bulk(entry.address.as_bytes());
        ctx.reply.bulk(&entry.name);
    }
    Ok(())
}

fn length(ctx: &mut Context<'_, '_>, _: &[&[u8]]) -> Result<(), Failure> {
    ctx.reply.count(ctx.engine.slow_log.len());
    Ok(())
}

fn reset(ctx: &mut Context<'_, '_>, _: &[&[u8]]) -> Result<(), Failure> {
    ctx.engine.slow_log.reset();
    ctx.reply.ok();
    Ok(())
}

#[cfg(test)]
mod tests {
    use crate::command::testing::TestNode;

    #[test]
    fn slow_commands_are_listed_with_their_client() {
        let mut node = TestNode::new();
        node.run("CLIENT SETNAME me");
        node.run("CONFIG SET slowlog-log-slower-than 0");
        node.run("GET a");
        node.run("CONFIG SET slowlog-log-slower-than -1");
        let log = node.run("SLOWLOG GET 2");
        assert!(log.contains("[\"GET\", \"a\"], \"127.0.0.1:1000\", \"me\"]"), "{log}");
        node.story(
            "
            SLOWLOG GET -2 => -ERR count should be greater than or equal to -1
            SLOWLOG RESET => OK
            SLOWLOG LEN => 0
            SLOWLOG GET -1 => []
            ",
        );
        assert!(node.run("SLOWLOG HELP").starts_with("[SLOWLOG <subcommand>"));
    }
}
