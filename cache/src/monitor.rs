//! Who watches all commands go by (`MONITOR`).
//!
//! Each command is shown after it was run, before its shards are released, so that of two commands on one key the monitors see first what was
//! first. Passwords are not shown (`command::secrets`), nor are commands of operators, as in Redis. A monitor that does not
//! read is disconnected at the limit of output that subscribers have, and costs nobody else anything but the writing of the line.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::clients::{Client, Mark};
use crate::types::ClientId;

/// The most bytes of a command's arguments that are shown.
const SHOWN_MAX: usize = 256 << 10;

/// Clients that watch all commands.
#[derive(Debug, Default)]
pub struct Monitors {
    clients: Mutex<BTreeMap<ClientId, Arc<Client>>>,
    is_used: AtomicBool,
}

impl Monitors {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<ClientId, Arc<Client>>> {
        self.clients.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether anybody watches: what every command asks first.
    #[inline]
    pub fn is_used(&self) -> bool {
        self.is_used.load(Ordering::Relaxed)
    }

    /// Shows `client` all commands from now on.
    pub(crate) fn add(&self, client: &Arc<Client>) {
        let mut clients = self.lock();
        client.mark(Mark::MONITOR, true);
        clients.insert(client.id, Arc::clone(client));
        self.is_used.store(true, Ordering::Relaxed);
    }

    /// Shows `client` nothing any more.
    pub(crate) fn remove(&self, client: &Client) {
        if client.mark(Mark::MONITOR, false) {
            let mut clients = self.lock();
            clients.remove(&client.id);
            self.is_used.store(!clients.is_empty(), Ordering::Relaxed);
        }
    }

    /// Shows a command of `by`, which ran at `wall_us` (microseconds since the Unix epoch). `arguments` have no secrets.
    pub(crate) fn show(&self, wall_us: u64, by: &Client, arguments: &[&[u8]]) {
        let line = line(wall_us, by, arguments);
        for client in self.lock().values() {
            client.outbox.put(&line);
        }
    }
}

/// `+1339518083.107412 [0 127.0.0.1:60866] "keys" "*"`, with a line break.
fn line(wall_us: u64, by: &Client, arguments: &[&[u8]]) -> Vec<u8> {
    let (seconds, fraction) = (wall_us / 1_000_000, wall_us % 1_000_000);
    let address = &by.origin.address;
    let mut line = format!("+{seconds}.{fraction:06} [{} ", by.database().0);
    match address.strip_suffix(":0") {
        Some(path) if by.origin.is_unix => line.extend(["unix:", path]),
        _ => line.push_str(address),
    }
    line.push(']');
    let mut room = SHOWN_MAX;
    for argument in arguments {
        let shown = &argument[..argument.len().min(room)];
        room -= shown.len();
        line.push_str(" \"");
        quote(shown, &mut line);
        if shown.len() < argument.len() {
            let _ = write!(line, "... ({} more bytes)", argument.len() - shown.len());
        }
        line.push('"');
        if room == 0 {
            break;
        }
    }
    line.push_str("\r\n");
    line.into_bytes()
}

/// Appends bytes as Redis quotes them.
fn quote(bytes: &[u8], line: &mut String) {
    for byte in bytes {
        match byte {
            b'"' => line.push_str("\\\""),
            b'\\' => line.push_str("\\\\"),
            b'\n' => line.push_str("\\n"),
            b'\r' => line.push_str("\\r"),
            b'\t' => line.push_str("\\t"),
            0x07 => line.push_str("\\a"),
            0x08 => line.push_str("\\b"),
            b' '..=b'~' => line.push(char::from(*byte)),
            other => {
                let _ = write!(line, "\\x{other:02x}");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::command::testing::{TestNode, run};
    use crate::session::{Next, Session};

    fn seen(session: &Session) -> String {
        let mut out = Vec::new();
        session.outbox().drain_into(&mut out);
        String::from_utf8(out).unwrap()
    }

    /// The lines that `session` has been shown, without time, place and line breaks.
    fn shown(session: &Session) -> Vec<String> {
        let command = |line: &str| line.split_once("] ").unwrap().1.to_owned();
        seen(session).lines().map(command).collect()
    }

    fn watched() -> (TestNode, Session) {
        let mut node = TestNode::new();
        let mut monitor = node.connect();
        assert_eq!(run(&node.engine, &mut monitor, "MONITOR"), "OK");
        (node, monitor)
    }

    #[test]
    fn a_command_is_shown_as_redis_shows_it() {
        let (mut node, monitor) = watched();
        node.clock.advance_ms(1);
        node.run("SELECT 3");
        node.run("SET a \"\\x00 \\\"\\r\\n\"");
        assert_eq!(
            seen(&monitor),
            "+1700000000.001000 [3 127.0.0.1:1000] \"SELECT\" \"3\"\r\n\
             +1700000000.001000 [3 127.0.0.1:1000] \"SET\" \"a\" \"\\x00 \\\"\\r\\n\"\r\n"
        );
    }

    #[test]
    fn a_transaction_is_shown_as_it_runs_and_what_fails_too() {
        let (mut node, monitor) = watched();
        for line in ["MULTI", "SET a x", "INCR a", "EXEC", "GET", "NOTHING"] {
            node.run(line);
        }
        let expected = ["\"MULTI\"", "\"SET\" \"a\" \"x\"", "\"INCR\" \"a\"", "\"EXEC\""];
        assert_eq!(shown(&monitor), expected);
    }

    #[test]
    fn secrets_and_operators_are_not_shown() {
        let (mut node, monitor) = watched();
        for line in [
            "AUTH me pass",
            "HELLO 3 AUTH me pass SETNAME n",
            "CONFIG SET requirepass pass",
            "ACL SETUSER me >pass",
            "CLIENT KILL ID 77",
        ] {
            node.run(line);
        }
        let expected = [
            "\"AUTH\" \"(redacted)\" \"(redacted)\"",
            "\"HELLO\" \"3\" \"AUTH\" \"(redacted)\" \"(redacted)\" \"SETNAME\" \"n\"",
        ];
        assert_eq!(shown(&monitor), expected);
    }

    #[test]
    fn who_does_not_read_is_disconnected_and_others_go_on() {
        let (mut node, mut slow) = watched();
        let mut other = node.connect();
        run(&node.engine, &mut other, "MONITOR");
        slow.client.outbox.set_limit(10_000);
        let value = "v".repeat(1_000);
        for _ in 0..20 {
            node.run(&format!("SET a {value}"));
        }
        assert!(slow.client.is_doomed());
        assert_eq!(shown(&other).len(), 20);
        slow.end(&node.engine);
        other.end(&node.engine);
        assert!(!node.engine.monitors.is_used());
    }

    #[test]
    fn a_monitor_is_told_in_client_list_and_ends_with_reset() {
        let (mut node, mut monitor) = watched();
        let id = monitor.client.id.0;
        assert!(node.run(&format!("CLIENT LIST ID {id}")).contains(" flags=O "));
        run(&node.engine, &mut monitor, "RESET");
        assert!(!node.engine.monitors.is_used());
        node.run("GET a");
        assert_eq!(seen(&monitor), "");
        run(&node.engine, &mut monitor, "MULTI");
        run(&node.engine, &mut monitor, "MONITOR");
        assert!(run(&node.engine, &mut monitor, "EXEC").contains("DENY BLOCKING"));
        assert_eq!(monitor.next, Next::Continue);
    }

    #[test]
    fn a_huge_argument_is_shown_in_part() {
        let (mut node, monitor) = watched();
        let value = vec![0_u8; 1 << 20];
        node.call(&[b"SET", b"a", &value]);
        let line = seen(&monitor);
        assert!(line.len() < 5 * super::SHOWN_MAX && line.contains(" more bytes)"));
    }
}
