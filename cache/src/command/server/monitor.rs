//! `MONITOR`: all commands, as they go by.

use crate::command::{Command, Context, Failure, Flags, Group, Keys};

/// The family.
pub(in crate::command) const COMMANDS: &[Command] = &[Command::new(
    "monitor",
    1,
    Keys::None,
    Flags::ADMIN.and(Flags::NOSCRIPT).and(Flags::LOADING).and(Flags::STALE),
    monitor,
)
.docs(Group::Server, "1.0.0", "Shows the client all commands that others have carried out.")];

fn monitor(ctx: &mut Context<'_, '_>, _: &[&[u8]]) -> Result<(), Failure> {
    if !ctx.session.may_wait {
        return Err(Failure::err("MONITOR isn't allowed for DENY BLOCKING client"));
    }
    ctx.engine.monitors.add(&ctx.session.client);
    ctx.reply.ok();
    Ok(())
}
