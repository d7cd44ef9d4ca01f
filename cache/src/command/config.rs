//! `CONFIG`: settings are read and changed while the node serves.

use super::{Command, Context, Failure, Flags, Group, Keys, help};
use crate::engine::Engine;
use crate::glob;
use crate::settings::{Row, Settings, TABLE};

const ADMIN: Flags = Flags::ADMIN.and(Flags::NOSCRIPT).and(Flags::LOADING).and(Flags::STALE);

/// The family.
pub(super) const COMMANDS: &[Command] = &[Command::new("config", -2, Keys::None, Flags(0), help)
    .docs(Group::Server, "2.0.0", "A container for server configuration commands.")
    .with(&[
        Command::new("get", -3, Keys::None, ADMIN, get).docs(
            Group::Server,
            "2.0.0",
            "Returns the settings whose names match patterns.",
        ),
        Command::new("help", 2, Keys::None, Flags::LOADING.and(Flags::STALE), help).docs(
            Group::Server,
            "5.0.0",
            "Tells about the subcommands.",
        ),
        Command::new("resetstat", 2, Keys::All, ADMIN, reset_statistics).docs(
            Group::Server,
            "2.0.0",
            "Counts from zero again.",
        ),
        Command::new("rewrite", 2, Keys::None, ADMIN, rewrite).docs(
            Group::Server,
            "2.8.0",
            "Writes the settings to a file; there is none.",
        ),
        Command::new("set", -4, Keys::None, ADMIN, set).docs(
            Group::Server,
            "2.0.0",
            "Changes settings, all or none.",
        ),
    ])];

fn get(ctx: &mut Context<'_, '_>, arguments: &[&[u8]]) -> Result<(), Failure> {
    let patterns = &arguments[2..];
    let wanted = |name: &str| {
        !name.is_empty()
            && patterns.iter().any(|it| glob::matches_ignoring_case(it, name.as_bytes()))
    };
    let names = |row: &'static Row| [(row.name, row), (row.alias, row)];
    let rows: Vec<(&str, &Row)> =
        TABLE.iter().flat_map(names).filter(|(name, _)| wanted(name)).collect();
    ctx.reply.map(rows.len());
    for (name, row) in rows {
        ctx.reply.bulk(name.as_bytes());
        ctx.reply.bulk(ctx.engine.settings.show(row).as_bytes());
    }
    Ok(())
}

fn set(ctx: &mut Context<'_, '_>, arguments: &[&[u8]]) -> Result<(), Failure> {
    let arguments = &arguments[2..];
    if !arguments.len().is_multiple_of(2) {
        return Err(Failure::Syntax);
    }
    let texts: Vec<_> = arguments.iter().map(|text| String::from_utf8_lossy(text)).collect();
    let pairs: Vec<(&str, &str)> =
        texts.chunks_exact(2).map(|pair| (pair[0].as_ref(), pair[1].as_ref())).collect();
    let refused = |error: crate::settings::SettingError| Failure::Text(error.to_string().into());
    let rows = ctx.engine.settings.set(&pairs).map_err(refused)?;
    for (row, pair) in rows.into_iter().zip(arguments.chunks_exact(2)) {
        take_effect(ctx.engine, row);
        if row.name == "requirepass" {
            // As it came: a password need not be text.
            ctx.engine.access.set_default_password(pair[1]);
        }
    }
    ctx.reply.ok();
    Ok(())
}

/// Does what a setting's new value entails beyond being read where it matters.
pub fn take_effect(engine: &Engine, row: &Row) {
    let settings = &engine.settings;
    match row.name {
        "maxmemory" => {
            let bytes = settings.maxmemory.load(std::sync::atomic::Ordering::Relaxed);
            engine.store.set_limit(u64::try_from(bytes).unwrap_or(0));
        }
        "maxmemory-policy" => engine.store.set_policy(settings.policy()),
        "requirepass" => {
            engine.access.set_default_password(settings.show(row).as_bytes());
        }
        "notify-keyspace-events" => {
            engine.channels.set_events(&settings.show(row));
            engine.review_observation();
        }
        "tracking-table-max-keys" => {
            let keys = settings.tracking_table_max_keys.load(std::sync::atomic::Ordering::Relaxed);
            engine.tracking.set_limit(usize::try_from(keys).unwrap_or(0));
        }
        _ => {}
    }
}

/// Changes one setting of an engine as `CONFIG SET` does: for whoever makes the engine.
///
/// # Errors
/// If there is no such setting, it is fixed, or the value is not one that it takes.
pub fn set_one(
    engine: &Engine,
    name: &str,
    value: &str,
) -> Result<(), crate::settings::SettingError> {
    engine.settings.set(&[(name, value)])?;
    if let Some(row) = Settings::find(name) {
        take_effect(engine, row);
    }
    Ok(())
}

fn reset_statistics(ctx: &mut Context<'_, '_>, _: &[&[u8]]) -> Result<(), Failure> {
    ctx.engine.totals.reset();
    ctx.keys.reset_counters();
    ctx.reply.ok();
    Ok(())
}

fn rewrite(_: &mut Context<'_, '_>, _: &[&[u8]]) -> Result<(), Failure> {
    Err(Failure::err("The server is running without a config file"))
}

#[cfg(test)]
mod tests {
    use crate::command::testing::{TestNode, story};

    #[test]
    fn settings_are_read_by_patterns_and_changed_together() {
        story(
            "
            CONFIG GET maxmemory => [\"maxmemory\", \"0\"]
            CONFIG GET MAXMEMORY maxmemory-pol* => [\"maxmemory\", \"0\", \"maxmemory-policy\", \"noeviction\"]
            CONFIG GET slaveof => [\"slaveof\", \"\"]
            CONFIG GET nothing => []
            CONFIG SET maxmemory 1gb timeout 5 => OK
            CONFIG GET maxmemory timeout => [\"maxmemory\", \"1073741824\", \"timeout\", \"5\"]
            CONFIG SET timeout 9 maxclients none => -ERR CONFIG SET failed (possibly related to argument 'maxclients') - argument couldn't be parsed into an integer
            CONFIG GET timeout => [\"timeout\", \"5\"]
            CONFIG SET timeout => -ERR wrong number of arguments for 'config|set' command
            CONFIG SET timeout 1 maxclients => -ERR syntax error
            CONFIG REWRITE => -ERR The server is running without a config file
            ",
        );
    }

    #[test]
    fn a_change_takes_effect_at_once() {
        let mut node = TestNode::new();
        node.run("CONFIG SET maxmemory 12345678");
        assert_eq!(node.engine.store.limit(), 12_345_678);
        node.run("CONFIG SET requirepass x");
        assert!(!node.engine.access.is_open());
        node.run("CONFIG SET requirepass \"\"");
        assert!(node.engine.access.is_open());
    }

    #[test]
    fn resetting_counts_from_zero() {
        let mut node = TestNode::new();
        node.run("GET a");
        assert!(node.run("INFO commandstats").contains("cmdstat_get:calls=1"));
        node.run("CONFIG RESETSTAT");
        assert!(!node.run("INFO commandstats").contains("cmdstat_get"));
    }
}
