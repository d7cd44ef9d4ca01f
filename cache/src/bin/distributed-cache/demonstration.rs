//! The guided demonstration: what the parts of a cache do, shown on a node that serves already.
//!
//! Commands go the way that a client's go, but for the socket; expiry happens in real time, by the node's own workers.

use std::io::Write;
use std::sync::Arc;
use std::time::Duration;

use distributed_cache::clients::{Origin, Outbox};
use distributed_cache::engine::Engine;
use distributed_cache::ring::Ring;
use distributed_cache::ring::table::{Change, SlotTable};
use distributed_cache::session::Session;
use distributed_cache::slot::{SLOTS, Slot};
use distributed_cache::types::Database;

/// How many keys are looked up on the ring.
const RING_KEYS: u32 = 100_000;

/// How many keys expire at one moment.
const VOLATILE_KEYS: u32 = 50_000;

/// In how many milliseconds they do.
const LIFETIME_MS: u64 = 1500;

/// How often the demonstration looks whether they have gone.
const LOOK: Duration = Duration::from_millis(2);

/// How many looks it takes at most.
const LOOKS_MAX: u32 = 5000;

/// Shows everything, on `engine`, which a server serves, and tells `out` of it.
///
/// # Errors
/// If a part does not do what it promises, or `out` takes nothing more.
pub(crate) fn run(engine: &Engine, out: &mut impl Write) -> anyhow::Result<()> {
    show_ring(out)?;
    let mut client = Client::connect(engine);
    show_values(&mut client, out)?;
    show_expiry(engine, &mut client, out)?;
    show_statistics(engine, &mut client, out)?;
    client.session.end(engine);
    Ok(())
}

fn show_ring(out: &mut impl Write) -> anyhow::Result<()> {
    writeln!(
        out,
        "1. Who has a key? Three members on a consistent-hash ring, 256 virtual nodes each.\n"
    )?;
    let mut table = SlotTable::founding("alpha", 1, None, 2)?;
    for name in ["beta", "gamma"] {
        table = table.apply(&joins(name))?;
    }
    for key in ["user:1000", "user:1001", "session:9f3a", "{cart:7}:items", "{cart:7}:total"] {
        let slot = Slot::of(key.as_bytes());
        let holders: Vec<&str> = table.holders(slot).collect();
        writeln!(
            out,
            "   {key:<16} slot {:>5} of {SLOTS}, lies with {}",
            slot.0,
            holders.join(", its copy with ")
        )?;
    }
    writeln!(
        out,
        "   The ring places slots, and a key lies in its slot; keys with the same {{tag}} share one."
    )?;
    writeln!(out, "   The fullest member has {:.2} times the mean.\n", table.balance().peak)?;

    writeln!(out, "   A fourth member, delta, joins:")?;
    let larger = table.apply(&joins("delta"))?;
    let (mut moved, mut elsewhere, mut modulo) = (0_u32, 0_u32, 0_u32);
    for number in 0..RING_KEYS {
        let key = format!("user:{number}");
        let slot = Slot::of(key.as_bytes());
        let (before, after) = (table.primary(slot), larger.primary(slot));
        moved += u32::from(before != after);
        elsewhere += u32::from(before != after && after != "delta");
        let place = Ring::<()>::place_of(key.as_bytes());
        modulo += u32::from(place % 3 != place % 4);
    }
    writeln!(out, "     {:>5.1} % of {RING_KEYS} keys moved to delta", percent(moved - elsewhere))?;
    writeln!(
        out,
        "     {:>5.1} % moved between members that were there before",
        percent(elsewhere)
    )?;
    writeln!(
        out,
        "     {:>5.1} % would have moved with a hash modulo the number of members\n",
        percent(modulo)
    )?;
    anyhow::ensure!(percent(moved) < 30.0, "a member of four took more than its share");
    Ok(())
}

fn joins(name: &str) -> Change {
    Change::Add { name: name.to_owned(), weight: 1, zone: None }
}

fn percent(keys: u32) -> f64 {
    f64::from(keys) * 100.0 / f64::from(RING_KEYS)
}

fn show_values(client: &mut Client<'_>, out: &mut impl Write) -> anyhow::Result<()> {
    writeln!(out, "2. Values with and without a deadline, as redis-cli would show them.\n")?;
    client.show("SET greeting hello", out)?;
    client.show("GET greeting", out)?;
    client.show("SET session:9f3a alice PX 400", out)?;
    client.show("PTTL session:9f3a", out)?;
    client.show("GET session:9f3a", out)?;
    pause(Duration::from_millis(450));
    writeln!(out, "   … 450 milliseconds later …")?;
    client.show("GET session:9f3a", out)?;
    client.show("INCR visits", out)?;
    client.show("ZADD scores 42 alice 17 bob", out)?;
    client.show("ZRANGE scores 0 -1 WITHSCORES", out)?;
    writeln!(out)?;
    Ok(())
}

fn show_expiry(
    engine: &Engine,
    client: &mut Client<'_>,
    out: &mut impl Write,
) -> anyhow::Result<()> {
    writeln!(
        out,
        "3. Expiry: {VOLATILE_KEYS} keys with one deadline, and nobody asks for them again.\n"
    )?;
    let (before, _) = engine.store.sizes(Database(0));
    let deadline = engine.clock.now().unix.0 + LIFETIME_MS;
    for number in 0..VOLATILE_KEYS {
        let key = format!("volatile:{number}");
        let reply = client.ask(&["SET", &key, "soon gone", "PXAT", &deadline.to_string()])?;
        if reply != "OK" {
            writeln!(out, "   {reply}\n   This node has no room for that; on to the next part.\n")?;
            return Ok(());
        }
    }
    let (held, _) = engine.store.sizes(Database(0));
    writeln!(
        out,
        "   written: the node holds {held} keys in {} kB",
        engine.store.memory().data / 1024
    )?;
    for _ in 0..LOOKS_MAX {
        let left = engine.store.sizes(Database(0)).0.saturating_sub(before);
        let now = engine.clock.now().unix.0;
        if left == 0 {
            let late = now.saturating_sub(deadline);
            writeln!(
                out,
                "   gone:    the last of them was removed within {late} ms of the deadline"
            )?;
            writeln!(
                out,
                "   The timing wheel finds what is due; nothing is sampled, nothing is left behind.\n"
            )?;
            return Ok(());
        }
        pause(LOOK);
    }
    anyhow::bail!("keys are left long after their deadline")
}

fn show_statistics(
    engine: &Engine,
    client: &mut Client<'_>,
    out: &mut impl Write,
) -> anyhow::Result<()> {
    writeln!(out, "4. Statistics: misses say why.\n")?;
    for line in ["GET greeting", "GET no-such-key", "GET session:9f3a"] {
        client.ask(&words(line))?;
    }
    client.ask(&["DEL", "visits"])?;
    client.ask(&["GET", "visits"])?;
    let (counters, memory) = (engine.store.counters(), engine.store.memory());
    writeln!(out, "   hits                 {:>8}", counters.hits)?;
    writeln!(out, "   misses, never seen   {:>8}", counters.misses_never_seen)?;
    writeln!(out, "   misses, expired      {:>8}", counters.misses_expired)?;
    writeln!(out, "   misses, deleted      {:>8}", counters.misses_deleted)?;
    writeln!(out, "   expired keys         {:>8}", counters.expired)?;
    writeln!(
        out,
        "   latest expiry        {:>8} ms after its deadline",
        counters.expiry_lag_max_ms
    )?;
    writeln!(
        out,
        "   memory               {:>8} kB used, {} kB at most so far\n",
        memory.used / 1024,
        memory.peak / 1024
    )?;
    Ok(())
}

/// A client within the program.
struct Client<'e> {
    engine: &'e Engine,
    session: Session,
}

impl<'e> Client<'e> {
    fn connect(engine: &'e Engine) -> Self {
        let now = engine.clock.now();
        let client = engine.clients.connect(Origin::default(), now, Outbox::default());
        let mut session = Session::new(engine, client, engine.totals.tally());
        // Whoever starts the program need not tell it the password that they gave it.
        let user = Arc::clone(engine.access.default_user());
        session.become_user(user, true);
        Self { engine, session }
    }

    /// The reply to a command, as a person reads it.
    fn ask(&mut self, arguments: &[&str]) -> anyhow::Result<String> {
        let arguments: Vec<&[u8]> = arguments.iter().map(|word| word.as_bytes()).collect();
        let mut reply = Vec::new();
        self.session.execute(self.engine, &arguments, self.engine.clock.now(), &mut reply);
        let reply = String::from_utf8(reply)?;
        Ok(shown(&mut reply.split("\r\n")))
    }

    fn show(&mut self, line: &str, out: &mut impl Write) -> anyhow::Result<()> {
        let reply = self.ask(&words(line))?;
        writeln!(out, "   > {line}\n     {reply}")?;
        Ok(())
    }
}

fn words(line: &str) -> Vec<&str> {
    line.split(' ').collect()
}

/// A reply in RESP2 whose lines come from `lines`. No text of the demonstration has a line break in it.
fn shown<'r>(lines: &mut impl Iterator<Item = &'r str>) -> String {
    let line = lines.next().unwrap_or_default();
    let (kind, rest) = line.split_at(line.len().min(1));
    match kind {
        "+" => rest.to_owned(),
        ":" => format!("(integer) {rest}"),
        "$" if rest == "-1" => "(nil)".to_owned(),
        "$" => format!("{:?}", lines.next().unwrap_or_default()),
        "*" => {
            let count = rest.parse().unwrap_or(0);
            (0..count).map(|_| shown(lines)).collect::<Vec<_>>().join(", ")
        }
        _ => format!("(error) {rest}"),
    }
}

#[expect(clippy::disallowed_methods, reason = "it shows what happens as time passes")]
fn pause(time: Duration) {
    std::thread::sleep(time);
}

#[cfg(test)]
mod tests {
    use distributed_cache::engine::EngineOptions;
    use distributed_cache::net::clock::SystemClock;
    use distributed_cache::net::{Server, ServerOptions};
    use distributed_cache::store::StoreOptions;

    use super::*;

    #[test]
    fn the_demonstration_shows_what_it_promises() {
        let clock = Arc::new(SystemClock::new());
        let options = EngineOptions { store: StoreOptions::default(), cluster: false, seed: 1 };
        let engine = Arc::new(Engine::new(options, clock));
        engine.require_password("secret");
        let server = Server::bind(ServerOptions::default(), Arc::clone(&engine)).unwrap();
        let server = server.start().unwrap();
        let mut shown = Vec::new();
        run(&engine, &mut shown).unwrap();
        let shown = String::from_utf8(shown).unwrap();
        assert!(!shown.contains("(error)"), "{shown}");
        assert!(shown.contains("> GET session:9f3a\n     \"alice\""), "{shown}");
        assert!(shown.contains("> GET session:9f3a\n     (nil)"), "{shown}");
        assert!(engine.clients.is_empty());
        server.stop().unwrap();
    }
}
