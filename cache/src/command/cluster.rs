//! `CLUSTER` and what belongs to it, for a cluster of one: all slots are here.
//!
//! Clients of a cluster ask where slots are and go there. The address that they are told is the one by which they came, unless
//! `cluster-announce-ip` and `cluster-announce-port` say otherwise. Where slots lie is decided by the ring (DESIGN §7), so
//! the subcommands by which operators of Redis move them answer an error that names the right tool.

use super::{Command, Context, Failure, Flags, Group, Handler, Keys, help, parse_integer, shown};
use crate::clients::Mark;
use crate::slot::{SLOTS, Slot};

const STALE: Flags = Flags::STALE;
const ADMIN: Flags = Flags::STALE.and(Flags::ADMIN);
const PLACING: Flags = ADMIN.and(Flags::NO_ASYNC_LOADING);
const ANY_TIME: Flags = Flags::LOADING.and(Flags::STALE).and(Flags::FAST);

/// The family.
pub(super) const COMMANDS: &[Command] = &[
    row(
        "asking",
        1,
        Keys::None,
        Flags::FAST,
        asking,
        "Lets the next command reach a slot that is moving here.",
    ),
    row("readonly", 1, Keys::None, ANY_TIME, read_only, "Lets the connection read from a replica."),
    row("readwrite", 1, Keys::None, ANY_TIME, read_write, "Takes READONLY back."),
    row("cluster", -2, Keys::None, Flags(0), help, "A container for cluster commands.").with(&[
        row("addslots", -3, Keys::None, PLACING, placement, "Placement is the ring's."),
        row("addslotsrange", -4, Keys::None, PLACING, placement, "Placement is the ring's."),
        row("bumpepoch", 2, Keys::None, PLACING, placement, "Placement is the ring's."),
        row(
            "count-failure-reports",
            3,
            Keys::None,
            ADMIN,
            failure_reports,
            "Returns how many nodes believe that a node has failed.",
        ),
        row(
            "countkeysinslot",
            3,
            Keys::All,
            STALE,
            count_keys,
            "Returns how many keys a slot holds.",
        ),
        row("delslots", -3, Keys::None, PLACING, placement, "Placement is the ring's."),
        row("delslotsrange", -4, Keys::None, PLACING, placement, "Placement is the ring's."),
        row("failover", -2, Keys::None, PLACING, placement, "Placement is the ring's."),
        row("flushslots", 2, Keys::None, PLACING, placement, "Placement is the ring's."),
        row("forget", 3, Keys::None, PLACING, placement, "Placement is the ring's."),
        row("getkeysinslot", 4, Keys::All, STALE, get_keys, "Returns keys of a slot."),
        row("help", 2, Keys::None, Flags::LOADING.and(STALE), help, "Tells about the subcommands."),
        row("info", 2, Keys::None, STALE, info, "Returns how the cluster is."),
        row("keyslot", 3, Keys::None, STALE, key_slot, "Returns the slot of a key."),
        row("links", 2, Keys::None, STALE, links, "Returns the connections to other nodes."),
        row("meet", -4, Keys::None, PLACING, placement, "Placement is the ring's."),
        row("myid", 2, Keys::None, STALE, my_id, "Returns the node's id."),
        row("myshardid", 2, Keys::None, STALE, my_shard_id, "Returns the id of the node's shard."),
        row("nodes", 2, Keys::None, STALE, nodes, "Returns the nodes, a line each."),
        row("replicas", 3, Keys::None, ADMIN, replicas, "Returns the replicas of a node."),
        row("replicate", 3, Keys::None, PLACING, placement, "Placement is the ring's."),
        row(
            "reset",
            -2,
            Keys::None,
            ADMIN.and(Flags::NOSCRIPT),
            placement,
            "Placement is the ring's.",
        ),
        row("saveconfig", 2, Keys::None, PLACING, placement, "Placement is the ring's."),
        row("set-config-epoch", 3, Keys::None, PLACING, placement, "Placement is the ring's."),
        row("setslot", -4, Keys::None, PLACING, placement, "Placement is the ring's."),
        row(
            "shards",
            2,
            Keys::None,
            STALE,
            shards,
            "Returns the shards with their slots and nodes.",
        ),
        row("slaves", 3, Keys::None, ADMIN, replicas, "Returns the replicas of a node."),
        row("slots", 2, Keys::None, STALE, slots, "Returns which slots are on which node."),
    ]),
];

const fn row(
    name: &'static str,
    arity: i32,
    keys: Keys,
    flags: Flags,
    run: Handler,
    summary: &'static str,
) -> Command {
    Command::new(name, arity, keys, flags, run).docs(Group::Cluster, "3.0.0", summary)
}

/// Sees that this is a node of a cluster.
fn clustered(ctx: &Context<'_, '_>) -> Result<(), Failure> {
    if ctx.engine.options.cluster {
        return Ok(());
    }
    Err(Failure::err("This instance has cluster support disabled"))
}

fn placement(ctx: &mut Context<'_, '_>, _: &[&[u8]]) -> Result<(), Failure> {
    clustered(ctx)?;
    Err(Failure::err(
        "Slots, members and replicas are placed by the ring: see lattice cache ring show, and \
         lattice cache ring plan add|remove NAME",
    ))
}

fn asking(ctx: &mut Context<'_, '_>, _: &[&[u8]]) -> Result<(), Failure> {
    clustered(ctx)?;
    ctx.reply.ok();
    Ok(())
}

fn read_only(ctx: &mut Context<'_, '_>, _: &[&[u8]]) -> Result<(), Failure> {
    clustered(ctx)?;
    ctx.session.client.mark(Mark::READONLY, true);
    ctx.reply.ok();
    Ok(())
}

fn read_write(ctx: &mut Context<'_, '_>, _: &[&[u8]]) -> Result<(), Failure> {
    clustered(ctx)?;
    ctx.session.client.mark(Mark::READONLY, false);
    ctx.reply.ok();
    Ok(())
}

fn node_id(ctx: &Context<'_, '_>) -> String {
    ctx.engine.name_for("node")
}

/// Where the client is to find this node: host and port. The host is empty if the client knows it alone, as on a Unix socket.
fn address(ctx: &Context<'_, '_>) -> (String, i64) {
    let settings = &ctx.engine.settings;
    let origin = &ctx.session.client.origin;
    let ours = if origin.is_unix { None } else { origin.local_address.rsplit_once(':') };
    let (host, port) = ours.unwrap_or(("", "0"));
    let announced = settings.text("cluster-announce-ip");
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let host = if announced.is_empty() { host.to_owned() } else { announced };
    let number = |text: &str| text.parse::<i64>().ok().filter(|port| *port != 0);
    let announced = number(&settings.text("cluster-announce-port"));
    let port = announced.or_else(|| number(port)).or_else(|| number(&settings.text("port")));
    (host, port.unwrap_or(0))
}

fn my_id(ctx: &mut Context<'_, '_>, _: &[&[u8]]) -> Result<(), Failure> {
    clustered(ctx)?;
    let id = node_id(ctx);
    ctx.reply.bulk(id.as_bytes());
    Ok(())
}

fn my_shard_id(ctx: &mut Context<'_, '_>, _: &[&[u8]]) -> Result<(), Failure> {
    clustered(ctx)?;
    let id = ctx.engine.name_for("shard");
    ctx.reply.bulk(id.as_bytes());
    Ok(())
}

fn info(ctx: &mut Context<'_, '_>, _: &[&[u8]]) -> Result<(), Failure> {
    clustered(ctx)?;
    let mut text = String::new();
    for (field, value) in [
        ("cluster_state", "ok".to_owned()),
        ("cluster_slots_assigned", SLOTS.to_string()),
        ("cluster_slots_ok", SLOTS.to_string()),
        ("cluster_slots_pfail", "0".to_owned()),
        ("cluster_slots_fail", "0".to_owned()),
        ("cluster_known_nodes", "1".to_owned()),
        ("cluster_size", "1".to_owned()),
        ("cluster_current_epoch", "1".to_owned()),
        ("cluster_my_epoch", "1".to_owned()),
        ("cluster_stats_messages_sent", "0".to_owned()),
        ("cluster_stats_messages_received", "0".to_owned()),
        ("total_cluster_links_buffer_limit_exceeded", "0".to_owned()),
    ] {
        text.push_str(&format!("{field}:{value}\r\n"));
    }
    ctx.reply.verbatim("txt", &text);
    Ok(())
}

fn nodes(ctx: &mut Context<'_, '_>, _: &[&[u8]]) -> Result<(), Failure> {
    clustered(ctx)?;
    let (host, port) = address(ctx);
    let (id, bus, last) = (node_id(ctx), port + 10_000, SLOTS - 1);
    let line = format!("{id} {host}:{port}@{bus} myself,master - 0 0 1 connected 0-{last}\n");
    ctx.reply.verbatim("txt", &line);
    Ok(())
}

fn slots(ctx: &mut Context<'_, '_>, _: &[&[u8]]) -> Result<(), Failure> {
    clustered(ctx)?;
    let (host, port) = address(ctx);
    let id = node_id(ctx);
    let reply = &mut ctx.reply;
    reply.array(1);
    reply.array(3);
    reply.integer(0);
    reply.integer(i64::from(SLOTS - 1));
    reply.array(4);
    reply.bulk(host.as_bytes());
    reply.integer(port);
    reply.bulk(id.as_bytes());
    reply.array(0);
    Ok(())
}

fn shards(ctx: &mut Context<'_, '_>, _: &[&[u8]]) -> Result<(), Failure> {
    clustered(ctx)?;
    let (host, port) = address(ctx);
    let id = node_id(ctx);
    let reply = &mut ctx.reply;
    reply.array(1);
    reply.map(2);
    reply.bulk(b"slots");
    reply.array(2);
    reply.integer(0);
    reply.integer(i64::from(SLOTS - 1));
    reply.bulk(b"nodes");
    reply.array(1);
    reply.map(7);
    let texts: [(&str, &str); 3] = [("id", &id), ("ip", &host), ("endpoint", &host)];
    for (field, text) in texts {
        reply.bulk(field.as_bytes());
        reply.bulk(text.as_bytes());
    }
    reply.bulk(b"port");
    reply.integer(port);
    reply.bulk(b"role");
    reply.bulk(b"master");
    reply.bulk(b"replication-offset");
    reply.integer(0);
    reply.bulk(b"health");
    reply.bulk(b"online");
    Ok(())
}

fn links(ctx: &mut Context<'_, '_>, _: &[&[u8]]) -> Result<(), Failure> {
    clustered(ctx)?;
    ctx.reply.array(0);
    Ok(())
}

/// Sees that an argument is the id of a node: of this one, as long as there is no other.
fn known_node(ctx: &Context<'_, '_>, id: &[u8]) -> Result<(), Failure> {
    if id.eq_ignore_ascii_case(node_id(ctx).as_bytes()) {
        return Ok(());
    }
    Err(Failure::err(format_args!("Unknown node {}", shown(id))))
}

fn replicas(ctx: &mut Context<'_, '_>, arguments: &[&[u8]]) -> Result<(), Failure> {
    clustered(ctx)?;
    known_node(ctx, arguments[2])?;
    ctx.reply.array(0);
    Ok(())
}

fn failure_reports(ctx: &mut Context<'_, '_>, arguments: &[&[u8]]) -> Result<(), Failure> {
    clustered(ctx)?;
    known_node(ctx, arguments[2])?;
    ctx.reply.integer(0);
    Ok(())
}

fn key_slot(ctx: &mut Context<'_, '_>, arguments: &[&[u8]]) -> Result<(), Failure> {
    clustered(ctx)?;
    ctx.reply.integer(i64::from(Slot::of(arguments[2]).0));
    Ok(())
}

fn slot(text: &[u8]) -> Result<Slot, Failure> {
    let number = parse_integer(text).and_then(|number| u16::try_from(number).ok());
    let number = number.filter(|number| *number < SLOTS);
    number.map(Slot).ok_or_else(|| Failure::err("Invalid or out of range slot"))
}

fn count_keys(ctx: &mut Context<'_, '_>, arguments: &[&[u8]]) -> Result<(), Failure> {
    clustered(ctx)?;
    let count = ctx.keys.slot_len(slot(arguments[2])?);
    ctx.reply.count(count);
    Ok(())
}

fn get_keys(ctx: &mut Context<'_, '_>, arguments: &[&[u8]]) -> Result<(), Failure> {
    clustered(ctx)?;
    let invalid = || Failure::err("Invalid slot or number of keys");
    let slot = slot(arguments[2])?;
    let count = parse_integer(arguments[3]).and_then(|count| usize::try_from(count).ok());
    let keys = ctx.keys.slot_keys(slot, count.ok_or_else(invalid)?);
    ctx.reply.array(keys.len());
    keys.iter().for_each(|key| ctx.reply.bulk(key));
    Ok(())
}

#[cfg(test)]
mod tests {
    use crate::clients::{Origin, Outbox};
    use crate::command::testing::{TestClock, TestNode, run, story};
    use crate::engine::{Engine, EngineOptions};
    use crate::session::Session;
    use crate::store::StoreOptions;

    fn clustered() -> (Engine, Session) {
        let clock = TestClock::new();
        let options = EngineOptions { store: StoreOptions::default(), cluster: true, seed: 7 };
        let engine = Engine::new(options, clock);
        let origin = Origin {
            address: "10.0.0.9:5000".to_owned(),
            local_address: "10.0.0.1:7000".to_owned(),
            ..Origin::default()
        };
        let client = engine.clients.connect(origin, engine.clock.now(), Outbox::default());
        let session = Session::new(&engine, client, engine.totals.tally());
        (engine, session)
    }

    #[test]
    fn a_standalone_node_knows_no_cluster() {
        story(
            "
            CLUSTER KEYSLOT foo => -ERR This instance has cluster support disabled
            CLUSTER NODES => -ERR This instance has cluster support disabled
            READONLY => -ERR This instance has cluster support disabled
            ",
        );
    }

    #[test]
    fn a_cluster_of_one_has_all_slots_where_the_client_came_to() {
        let (engine, mut session) = clustered();
        let mut ask = |line: &str| run(&engine, &mut session, line);
        let id = ask("CLUSTER MYID");
        assert_eq!(id.len(), 42);
        assert_eq!(ask("CLUSTER SLOTS"), format!("[[0, 16383, [\"10.0.0.1\", 7000, {id}, []]]]"));
        let id = id.trim_matches('"');
        assert_eq!(
            ask("CLUSTER NODES"),
            format!("\"{id} 10.0.0.1:7000@17000 myself,master - 0 0 1 connected 0-16383\\n\"")
        );
        assert!(ask("CLUSTER INFO").contains("cluster_state:ok"));
        assert!(ask("CLUSTER SHARDS").contains("\"health\", \"online\""));
        assert_eq!(ask(&format!("CLUSTER REPLICAS {id}")), "[]");
        assert_eq!(ask("CLUSTER REPLICAS x"), "-ERR Unknown node x");
        assert!(ask("CLUSTER ADDSLOTS 1").contains("lattice cache ring"));
    }

    #[test]
    fn keys_of_a_slot_are_counted_and_listed() {
        let (engine, mut session) = clustered();
        let mut ask = |line: &str| run(&engine, &mut session, line);
        ask("SET {foo}a 1");
        ask("SET {foo}b 1");
        assert_eq!(ask("CLUSTER COUNTKEYSINSLOT 12182"), "2");
        assert_eq!(ask("CLUSTER GETKEYSINSLOT 12182 1").matches("foo").count(), 1);
        assert_eq!(ask("CLUSTER GETKEYSINSLOT 12182 100").matches("foo").count(), 2);
        assert_eq!(ask("CLUSTER COUNTKEYSINSLOT 16384"), "-ERR Invalid or out of range slot");
        assert_eq!(ask("CLUSTER GETKEYSINSLOT 1 -1"), "-ERR Invalid slot or number of keys");
    }

    #[test]
    fn in_a_cluster_keys_share_a_slot_and_there_is_one_database() {
        let (engine, mut session) = clustered();
        let mut ask = |line: &str| run(&engine, &mut session, line);
        assert!(ask("MSET a 1 b 2").starts_with("-CROSSSLOT"));
        assert_eq!(ask("MSET {t}a 1 {t}b 2"), "OK");
        assert_eq!(ask("SELECT 1"), "-ERR SELECT is not allowed in cluster mode");
        assert_eq!(ask("SWAPDB 0 1"), "-ERR SWAPDB is not allowed in cluster mode");
        assert_eq!(ask("ASKING"), "OK");
    }

    #[test]
    fn a_standalone_node_has_sixteen_databases() {
        let mut node = TestNode::new();
        node.story(
            "
            SET a 1 => OK
            SWAPDB 0 15 => OK
            DBSIZE => 0
            SELECT 15 => OK
            GET a => \"1\"
            SWAPDB 0 16 => -ERR DB index is out of range
            SWAPDB x 1 => -ERR invalid first DB index
            FLUSHDB ASYNC => OK
            DBSIZE => 0
            FLUSHALL NOW => -ERR syntax error
            ",
        );
    }
}
