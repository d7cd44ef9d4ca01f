//! What tools ask for and this cache does not have: persistence, replication in Redis's way, modules, functions.
//!
//! Each answers an error that says what is so instead, or the truth (no modules, no functions), so that tools which only look go on.

use crate::command::{Command, Context, Failure, Flags, Group, Handler, Keys, help, is_option};

const ADMIN: Flags = Flags::ADMIN.and(Flags::NOSCRIPT);
const ADMIN_NO_LOADING: Flags = ADMIN.and(Flags::NO_ASYNC_LOADING);
const REPLICATION: Flags = ADMIN_NO_LOADING.and(Flags::STALE);
const HELP: Flags = Flags::LOADING.and(Flags::STALE);
const WRITE: Flags = Flags::WRITE.and(Flags::NOSCRIPT);

/// The family.
pub(in crate::command) const COMMANDS: &[Command] = &[
    row("save", 1, ADMIN_NO_LOADING.and(Flags::NO_MULTI), save, "Nothing is saved."),
    row("bgsave", -1, ADMIN_NO_LOADING, save, "Nothing is saved."),
    row("bgrewriteaof", 1, ADMIN_NO_LOADING, save, "Nothing is saved."),
    row("replicaof", 3, REPLICATION, replica_of, "Replicas are the ring's to choose."),
    row("slaveof", 3, REPLICATION, replica_of, "Replicas are the ring's to choose."),
    row("failover", -1, ADMIN.and(Flags::STALE), replica_of, "Replicas are the ring's to choose."),
    row("module", -2, Flags(0), help, "A container for module commands.").with(&[
        row("help", 2, HELP, help, "Tells about the subcommands."),
        row("list", 2, ADMIN, none, "Returns the modules: there are none."),
        row("load", -3, ADMIN_NO_LOADING, no_modules, "Modules are not supported."),
        row("loadex", -3, ADMIN_NO_LOADING, no_modules, "Modules are not supported."),
        row("unload", 3, ADMIN_NO_LOADING, no_modules, "Modules are not supported."),
    ]),
    function("function", -2, Flags(0), help, "A container for function commands.").with(&[
        function("delete", 3, WRITE, no_library, "Deletes a library: there are none."),
        function("dump", 2, Flags::NOSCRIPT, no_functions, "Functions are not supported."),
        function("flush", -2, WRITE, function_flush, "Deletes all libraries: there are none."),
        function("help", 2, HELP, help, "Tells about the subcommands."),
        function(
            "kill",
            2,
            Flags::NOSCRIPT.and(Flags::ALLOW_BUSY),
            nothing_runs,
            "Ends the function under way: there never is one.",
        ),
        function("list", -2, Flags::NOSCRIPT, none, "Returns the libraries: there are none."),
        function(
            "load",
            -3,
            WRITE.and(Flags::DENYOOM),
            no_functions,
            "Functions are not supported.",
        ),
        function(
            "restore",
            -3,
            WRITE.and(Flags::DENYOOM),
            no_functions,
            "Functions are not supported.",
        ),
        function(
            "stats",
            2,
            Flags::NOSCRIPT.and(Flags::ALLOW_BUSY),
            function_stats,
            "Returns the function under way: there never is one.",
        ),
    ]),
];

const fn row(
    name: &'static str,
    arity: i32,
    flags: Flags,
    run: Handler,
    summary: &'static str,
) -> Command {
    Command::new(name, arity, Keys::None, flags, run).docs(Group::Server, "1.0.0", summary)
}

const fn function(
    name: &'static str,
    arity: i32,
    flags: Flags,
    run: Handler,
    summary: &'static str,
) -> Command {
    Command::new(name, arity, Keys::None, flags, run).docs(Group::Scripting, "7.0.0", summary)
}

/// Why there is nothing to save.
pub(super) fn nothing_is_saved() -> Failure {
    Failure::err("Nothing is saved: this cache keeps its data in memory alone")
}

fn save(_: &mut Context<'_, '_>, _: &[&[u8]]) -> Result<(), Failure> {
    Err(nothing_is_saved())
}

fn replica_of(ctx: &mut Context<'_, '_>, arguments: &[&[u8]]) -> Result<(), Failure> {
    match *arguments {
        [_, no, one] if is_option(no, "NO") && is_option(one, "ONE") => {
            ctx.reply.ok();
            Ok(())
        }
        _ => Err(Failure::err(
            "Every node is a master: which nodes hold a key is decided by the ring. \
             See lattice cache ring show",
        )),
    }
}

fn no_modules(_: &mut Context<'_, '_>, _: &[&[u8]]) -> Result<(), Failure> {
    Err(Failure::err("Modules are not supported"))
}

fn no_functions(_: &mut Context<'_, '_>, _: &[&[u8]]) -> Result<(), Failure> {
    Err(Failure::err("Functions are not supported: there is no scripting engine"))
}

fn no_library(_: &mut Context<'_, '_>, _: &[&[u8]]) -> Result<(), Failure> {
    Err(Failure::err("Library not found"))
}

fn nothing_runs(_: &mut Context<'_, '_>, _: &[&[u8]]) -> Result<(), Failure> {
    Err(Failure::Text("NOTBUSY No scripts in execution right now.".into()))
}

fn none(ctx: &mut Context<'_, '_>, _: &[&[u8]]) -> Result<(), Failure> {
    ctx.reply.array(0);
    Ok(())
}

fn function_flush(ctx: &mut Context<'_, '_>, arguments: &[&[u8]]) -> Result<(), Failure> {
    match *arguments {
        [_, _] => {}
        [_, _, option] if is_option(option, "ASYNC") || is_option(option, "SYNC") => {}
        _ => {
            return Err(Failure::err("FUNCTION FLUSH only supports SYNC|ASYNC option"));
        }
    }
    ctx.reply.ok();
    Ok(())
}

fn function_stats(ctx: &mut Context<'_, '_>, _: &[&[u8]]) -> Result<(), Failure> {
    ctx.reply.map(2);
    ctx.reply.bulk(b"running_script");
    ctx.reply.null();
    ctx.reply.bulk(b"engines");
    ctx.reply.map(0);
    Ok(())
}
