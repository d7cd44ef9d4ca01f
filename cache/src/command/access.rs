//! `AUTH` and `ACL`.

use super::{
    Command, Context, Failure, Flags, Group, Keys, TABLE, help, integer, is_option, shown,
};
use crate::access::category::{CATEGORIES, belongs, each_command};
use crate::access::{LogContext, UserShown};
use crate::clients::Mark;
use crate::session::resolve;

/// For everybody, at any time.
const OPEN: Flags = Flags::NOSCRIPT.and(Flags::LOADING).and(Flags::STALE);
/// For operators.
const ADMIN: Flags = OPEN.and(Flags::ADMIN);
const HELP: Flags = Flags::LOADING.and(Flags::STALE);

/// The family.
pub(super) const COMMANDS: &[Command] = &[
    Command::new(
        "auth",
        -2,
        Keys::None,
        OPEN.and(Flags::FAST).and(Flags::NO_AUTH).and(Flags::ALLOW_BUSY),
        auth,
    )
    .docs(Group::Connection, "1.0.0", "Authenticates the connection."),
    Command::new("acl", -2, Keys::None, Flags(0), help)
        .docs(Group::Server, "6.0.0", "A container for access list commands.")
        .with(ACL),
];

const ACL: &[Command] = &[
    sub("cat", -2, OPEN, cat, "Lists the categories of commands, or the commands of one."),
    sub("deluser", -3, ADMIN, delete_user, "Deletes users, and closes their connections."),
    sub("dryrun", -4, ADMIN, dry_run, "Tells whether a user may carry out a command."),
    sub("genpass", -2, OPEN, generate_password, "Makes a password that cannot be guessed."),
    sub("getuser", 3, ADMIN, get_user, "Tells what a user may do."),
    sub("help", 2, HELP, help, "Tells about the subcommands."),
    sub("list", 2, ADMIN, list, "Lists all users with their rules."),
    sub("load", 2, ADMIN, no_file, "Reads the users from a file; there is none."),
    sub("log", -2, ADMIN, log, "Lists what was refused lately."),
    sub("save", 2, ADMIN, no_file, "Writes the users to a file; there is none."),
    sub("setuser", -3, ADMIN, set_user, "Makes or changes a user by rules."),
    sub("users", 2, ADMIN, users, "Lists the names of all users."),
    sub("whoami", 2, OPEN, who_am_i, "Tells whom the connection has authenticated as."),
];

const fn sub(
    name: &'static str,
    arity: i32,
    flags: Flags,
    run: super::Handler,
    summary: &'static str,
) -> Command {
    Command::new(name, arity, Keys::None, flags, run).docs(Group::Server, "6.0.0", summary)
}

fn auth(ctx: &mut Context<'_, '_>, arguments: &[&[u8]]) -> Result<(), Failure> {
    match *arguments {
        [_, password] => {
            if ctx.engine.access.default_has_no_password() {
                return Err(Failure::err(
                    "AUTH <password> called without any password configured for the default user. \
                     Are you sure your configuration is correct?",
                ));
            }
            authenticate(ctx, b"default", password)?;
        }
        [_, name, password] => authenticate(ctx, name, password)?,
        _ => return Err(Failure::Syntax),
    }
    ctx.reply.ok();
    Ok(())
}

/// Has the session act as the user `name`, if the password is theirs. For `AUTH` and `HELLO … AUTH`.
///
/// # Errors
/// If it is not, or the user is switched off.
pub(super) fn authenticate(
    ctx: &mut Context<'_, '_>,
    name: &[u8],
    password: &[u8],
) -> Result<(), Failure> {
    let access = &ctx.engine.access;
    if let Some(user) = access.authenticate(name, password) {
        ctx.session.become_user(user, true);
        return Ok(());
    }
    let context = context_of(ctx);
    access.note_failed_authentication(&ctx.engine.settings, name, context, ctx.now, || {
        ctx.session.describe(ctx.now)
    });
    Err(Failure::Text("WRONGPASS invalid username-password pair or user is disabled.".into()))
}

fn context_of(ctx: &Context<'_, '_>) -> LogContext {
    if ctx.session.may_wait { LogContext::TopLevel } else { LogContext::Multi }
}

fn cat(ctx: &mut Context<'_, '_>, arguments: &[&[u8]]) -> Result<(), Failure> {
    match *arguments {
        [_, _] => {
            ctx.reply.array(CATEGORIES.len());
            for category in CATEGORIES {
                ctx.reply.bulk(category.as_bytes());
            }
        }
        [_, _, name] => {
            let Some(category) = CATEGORIES.iter().find(|it| is_option(name, it)) else {
                let name = shown(&name[..name.len().min(128)]);
                return Err(Failure::err(format_args!("Unknown category '{name}'")));
            };
            let mut names = Vec::new();
            each_command(|known| {
                if belongs(known, category) {
                    names.push(known.full_name);
                }
            });
            ctx.reply.array(names.len());
            for name in names {
                ctx.reply.bulk(name.as_bytes());
            }
        }
        _ => return Err(unknown_subcommand(arguments)),
    }
    Ok(())
}

/// What Redis says to a subcommand with too many arguments.
fn unknown_subcommand(arguments: &[&[u8]]) -> Failure {
    let name = shown(&arguments[1][..arguments[1].len().min(128)]);
    let container = shown(arguments[0]).to_uppercase();
    Failure::err(format_args!(
        "unknown subcommand or wrong number of arguments for '{name}'. Try {container} HELP."
    ))
}

fn set_user(ctx: &mut Context<'_, '_>, arguments: &[&[u8]]) -> Result<(), Failure> {
    let engine = ctx.engine;
    let user = engine.access.set_user(&engine.settings, arguments[2], &arguments[3..])?;
    // Who listens to what is no longer theirs to hear is disconnected.
    for client in engine.clients.all() {
        if client.subscriptions() == 0 || client.labels().user != user.name() {
            continue;
        }
        let channels = engine.channels.of(client.id);
        let channels = channels.iter().map(|(channel, is_pattern)| (&channel[..], *is_pattern));
        if !user.allows_channels(channels) {
            disconnect(ctx, &client);
        }
    }
    ctx.reply.ok();
    Ok(())
}

/// Has a client's connection closed; the client's own after the reply.
fn disconnect(ctx: &mut Context<'_, '_>, client: &crate::clients::Client) {
    if client.id == ctx.session.client.id {
        client.mark(Mark::CLOSING, true);
        ctx.session.next = crate::session::Next::Close;
    } else {
        client.kill();
    }
}

fn delete_user(ctx: &mut Context<'_, '_>, arguments: &[&[u8]]) -> Result<(), Failure> {
    let names = &arguments[2..];
    if names.contains(&&b"default"[..]) {
        return Err(Failure::err("The 'default' user cannot be removed"));
    }
    let deleted = ctx.engine.access.delete(names);
    for client in ctx.engine.clients.all() {
        let user = client.labels().user;
        if names.contains(&&*user) {
            disconnect(ctx, &client);
        }
    }
    ctx.reply.count(deleted);
    Ok(())
}

fn get_user(ctx: &mut Context<'_, '_>, arguments: &[&[u8]]) -> Result<(), Failure> {
    let Some(user) = ctx.engine.access.find(arguments[2]) else {
        ctx.reply.null();
        return Ok(());
    };
    let UserShown { flags, passwords, selectors } = user.shown();
    let reply = &mut ctx.reply;
    reply.map(6);
    reply.bulk(b"flags");
    reply.set(flags.len());
    flags.iter().for_each(|flag| reply.bulk(flag.as_bytes()));
    reply.bulk(b"passwords");
    reply.array(passwords.len());
    passwords.iter().for_each(|hash| reply.bulk(hash.as_bytes()));
    let (root, others) = selectors.split_first().expect("a user has a root selector");
    let show = |reply: &mut crate::resp::Reply<'_>, it: &crate::access::SelectorShown| {
        reply.bulk(b"commands");
        reply.bulk(it.commands.as_bytes());
        reply.bulk(b"keys");
        reply.bulk(&it.keys);
        reply.bulk(b"channels");
        reply.bulk(&it.channels);
    };
    show(reply, root);
    reply.bulk(b"selectors");
    reply.array(others.len());
    for selector in others {
        reply.map(3);
        show(reply, selector);
    }
    Ok(())
}

fn list(ctx: &mut Context<'_, '_>, _: &[&[u8]]) -> Result<(), Failure> {
    let users = ctx.engine.access.all();
    ctx.reply.array(users.len());
    for user in users {
        ctx.reply.bulk(&user.line());
    }
    Ok(())
}

fn users(ctx: &mut Context<'_, '_>, _: &[&[u8]]) -> Result<(), Failure> {
    let users = ctx.engine.access.all();
    ctx.reply.array(users.len());
    for user in users {
        ctx.reply.bulk(user.name());
    }
    Ok(())
}

fn who_am_i(ctx: &mut Context<'_, '_>, _: &[&[u8]]) -> Result<(), Failure> {
    ctx.reply.bulk(ctx.session.user.name());
    Ok(())
}

fn no_file(_: &mut Context<'_, '_>, _: &[&[u8]]) -> Result<(), Failure> {
    Err(Failure::err(
        "This Redis instance is not configured to use an ACL file. Users live in memory, and are \
         made with ACL SETUSER",
    ))
}

fn generate_password(ctx: &mut Context<'_, '_>, arguments: &[&[u8]]) -> Result<(), Failure> {
    const BITS_MAX: i64 = 4096;
    let bits = match *arguments {
        [_, _] => 256,
        [_, _, bits] => integer(bits)?,
        _ => return Err(unknown_subcommand(arguments)),
    };
    if !(1..=BITS_MAX).contains(&bits) {
        return Err(Failure::err(format_args!(
            "ACL GENPASS argument must be the number of bits for the output password, a positive \
             number up to {BITS_MAX}"
        )));
    }
    let digits = usize::try_from(bits.unsigned_abs().div_ceil(4)).expect("at most 1024");
    let mut text = crate::access::hex(&ctx.engine.secret(digits.div_ceil(2)));
    text.truncate(digits);
    ctx.reply.bulk(text.as_bytes());
    Ok(())
}

fn log(ctx: &mut Context<'_, '_>, arguments: &[&[u8]]) -> Result<(), Failure> {
    let count = match *arguments {
        [_, _] => 10,
        [_, _, word] if is_option(word, "RESET") => {
            ctx.engine.access.reset_log();
            ctx.reply.ok();
            return Ok(());
        }
        [_, _, count] => integer(count)?.max(0),
        _ => return Err(unknown_subcommand(arguments)),
    };
    let entries = ctx.engine.access.refusals(usize::try_from(count).unwrap_or(0));
    let (now, reply) = (ctx.now, &mut ctx.reply);
    reply.array(entries.len());
    for entry in entries {
        reply.map(10);
        reply.bulk(b"count");
        reply.integer(i64::try_from(entry.count).unwrap_or(i64::MAX));
        reply.bulk(b"reason");
        reply.bulk(entry.reason.as_bytes());
        reply.bulk(b"context");
        reply.bulk(match entry.context {
            LogContext::TopLevel => b"toplevel",
            LogContext::Multi => b"multi",
            LogContext::Script => b"lua",
        });
        reply.bulk(b"object");
        reply.bulk(&entry.object);
        reply.bulk(b"username");
        reply.bulk(&entry.user);
        reply.bulk(b"age-seconds");
        let age_ms = entry.updated.unix.until(now.unix);
        #[expect(clippy::cast_precision_loss, reason = "an age in milliseconds is far below 2^53")]
        reply.double(age_ms as f64 / 1000.0);
        reply.bulk(b"client-info");
        reply.bulk(entry.client.as_bytes());
        let integer = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
        reply.bulk(b"entry-id");
        reply.integer(integer(entry.id));
        reply.bulk(b"timestamp-created");
        reply.integer(integer(entry.created.unix.0));
        reply.bulk(b"timestamp-last-updated");
        reply.integer(integer(entry.updated.unix.0));
    }
    Ok(())
}

fn dry_run(ctx: &mut Context<'_, '_>, arguments: &[&[u8]]) -> Result<(), Failure> {
    let access = &ctx.engine.access;
    let Some(user) = access.find(arguments[2]) else {
        let name = shown(arguments[2]);
        return Err(Failure::err(format_args!("User '{name}' not found")));
    };
    if TABLE.find(arguments[3]).is_none() {
        let name = shown(arguments[3]);
        return Err(Failure::err(format_args!("Command '{name}' not found")));
    }
    let known = resolve(&arguments[3..])?;
    match access.check(&user, known, &arguments[3..]) {
        Ok(()) => ctx.reply.ok(),
        Err(denied) => ctx.reply.bulk(&denied.in_detail()),
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use crate::command::testing::{TestNode, run, story};

    #[test]
    fn a_password_closes_the_door_for_whoever_comes_next() {
        let mut node = TestNode::new();
        assert_eq!(node.run("CONFIG SET requirepass secret"), "OK");
        let mut stranger = node.connect();
        let engine = std::sync::Arc::clone(&node.engine);
        let mut ask = |line: &str| run(&engine, &mut stranger, line);
        assert_eq!(ask("GET a"), "-NOAUTH Authentication required.");
        let wrong = "-WRONGPASS invalid username-password pair or user is disabled.";
        assert_eq!(ask("AUTH wrong"), wrong);
        assert_eq!(ask("AUTH nobody secret"), wrong);
        assert_eq!(ask("HELLO 2 AUTH default wrong"), wrong);
        assert_eq!(ask("AUTH secret"), "OK");
        assert_eq!(ask("GET a"), "nil");
        assert!(node.run("ACL LOG 1").contains("\"reason\", \"auth\""));
    }

    #[test]
    fn without_a_password_auth_says_so() {
        let mut node = TestNode::new();
        assert!(node.run("AUTH x").starts_with("-ERR AUTH <password> called without any password"));
        node.story("AUTH default anything => OK");
    }

    #[test]
    fn users_are_made_changed_shown_and_deleted() {
        story(
            "
            ACL SETUSER ann => OK
            ACL LIST => [\"user ann off sanitize-payload resetchannels -@all\", \"user default on nopass sanitize-payload ~* &* +@all\"]
            ACL SETUSER ann on nopass ~a:* %R~b:* &news +@string -set => OK
            ACL GETUSER ann => [\"flags\", [\"on\", \"nopass\", \"sanitize-payload\"], \"passwords\", [], \"commands\", \"-@all +@string -set\", \"keys\", \"~a:* %R~b:*\", \"channels\", \"&news\", \"selectors\", []]
            ACL SETUSER ann (+set ~c:*) => OK
            ACL SETUSER ann (+del ~d) (+get => -ERR Unmatched parenthesis in acl selector starting at '(+get'.
            ACL USERS => [\"ann\", \"default\"]
            ACL GETUSER bob => nil
            ACL DELUSER ann bob => 1
            ACL DELUSER default => -ERR The 'default' user cannot be removed
            ACL WHOAMI => \"default\"
            ",
        );
    }

    #[test]
    fn wrong_rules_change_nothing_and_say_why() {
        let mut node = TestNode::new();
        for (rule, why) in [
            ("+nothing", "Unknown command or category name in ACL"),
            ("+@nothing", "Unknown command or category name in ACL"),
            ("+config|get|a", "Allowing first-arg of a subcommand is not supported"),
            ("+config|", "Syntax error"),
            ("%X~a", "Syntax error"),
            ("nonsense", "Syntax error"),
            ("<pass", "The password you are trying to remove from the user does not exist"),
            ("#123", "The password hash must be exactly 64 characters"),
        ] {
            let reply = node.run(&format!("ACL SETUSER ann on {rule}"));
            let start = format!("-ERR Error in ACL SETUSER modifier '{rule}': {why}");
            assert!(reply.starts_with(&start), "{reply}");
        }
        assert_eq!(node.run("ACL GETUSER ann"), "nil");
        let reply = node.run("ACL SETUSER ann allkeys ~a");
        assert!(reply.contains("Adding a pattern after the * pattern"), "{reply}");
    }

    #[test]
    fn commands_keys_and_channels_are_refused_one_by_one() {
        let mut node = TestNode::new();
        node.run(
            "ACL SETUSER ann on >pw ~a:* %R~r:* %W~w:* +get +set +copy +config|get +select|1 &news",
        );
        node.story(
            "
            AUTH ann pw => OK
            SET a:1 x => OK
            GET a:1 => \"x\"
            GET b => -NOPERM No permissions to access a key
            GET r:1 => nil
            SET r:1 x => -NOPERM No permissions to access a key
            SET w:1 x => OK
            SET w:1 get => OK
            SET w:1 x GET => -NOPERM No permissions to access a key
            GET w:1 => -NOPERM No permissions to access a key
            COPY r:1 w:2 => 0
            COPY w:1 r:2 => -NOPERM No permissions to access a key
            DEL a:1 => -NOPERM User ann has no permissions to run the 'del' command
            CONFIG SET maxmemory 1 => -NOPERM User ann has no permissions to run the 'config|set' command
            CONFIG GET maxmemory => [\"maxmemory\", \"0\"]
            SELECT 0 => -NOPERM User ann has no permissions to run the 'select' command
            SELECT 1 => OK
            AUTH default x => OK
            ACL DRYRUN ann GET b => \"User ann has no permissions to access the \\'b\\' key\"
            ACL DRYRUN ann GET a:1 => OK
            ACL DRYRUN ann NOTHING => -ERR Command 'NOTHING' not found
            ACL DRYRUN ann GET => -ERR wrong number of arguments for 'get' command
            ACL DRYRUN nobody GET a => -ERR User 'nobody' not found
            ",
        );
        let log = node.run("ACL LOG");
        assert!(log.contains("\"count\", 3, \"reason\", \"key\""), "{log}");
        node.story("ACL LOG RESET => OK\nACL LOG => []");
    }

    #[test]
    fn a_selector_allows_what_the_root_does_not() {
        let mut node = TestNode::new();
        node.run("ACL SETUSER ann on nopass +get ~a (+set ~b) (+@read allkeys)");
        node.story(
            "
            AUTH ann x => OK
            GET a => nil
            SET b 1 => OK
            SET a 1 => -NOPERM No permissions to access a key
            STRLEN anything => 0
            ",
        );
    }

    #[test]
    fn a_change_holds_from_the_next_command_and_a_deleted_user_is_out() {
        let mut node = TestNode::new();
        node.run("ACL SETUSER ann on nopass allkeys allcommands allchannels");
        let mut other = node.connect();
        let engine = std::sync::Arc::clone(&node.engine);
        assert_eq!(run(&engine, &mut other, "AUTH ann x"), "OK");
        assert_eq!(run(&engine, &mut other, "SET a 1"), "OK");
        node.run("ACL SETUSER ann -set");
        assert!(run(&engine, &mut other, "SET a 1").starts_with("-NOPERM"));
        assert_eq!(run(&engine, &mut other, "GET a"), "\"1\"");
        node.run("ACL DELUSER ann");
        assert!(other.client.is_doomed());
        assert!(run(&engine, &mut other, "GET a").starts_with("-NOPERM"));
    }

    #[test]
    fn generated_passwords_have_the_length_asked_for_and_differ() {
        let mut node = TestNode::new();
        let (one, two) = (node.run("ACL GENPASS"), node.run("ACL GENPASS"));
        assert_eq!(one.len(), 64 + 2);
        assert_ne!(one, two);
        assert_eq!(node.run("ACL GENPASS 5").len(), 2 + 2);
        assert!(node.run("ACL GENPASS 4097").starts_with("-ERR ACL GENPASS argument"));
        assert!(node.run("ACL GENPASS 0").starts_with("-ERR ACL GENPASS argument"));
    }

    #[test]
    fn categories_hold_what_redis_says() {
        let mut node = TestNode::new();
        assert!(node.run("ACL CAT").starts_with("[\"keyspace\", \"read\""));
        assert!(node.run("ACL CAT dangerous").contains("\"flushall\""));
        assert!(node.run("ACL CAT connection").contains("\"auth\""));
        assert!(!node.run("ACL CAT read").contains("\"set\""));
        node.story("ACL CAT nothing => -ERR Unknown category 'nothing'");
    }
}
