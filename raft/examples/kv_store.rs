//! A key-value store as a replicated state machine: what the other examples run.
//!
//! `cargo test --example kv_store` runs its tests. Commands and snapshots are encoded with bincode 2; Raft itself does not care.

use std::collections::BTreeMap;
use std::fmt;

use bincode::{Decode, Encode, config};
use raft_consensus::state_machine::{BoxError, StateMachine};

/// What can be asked of the store.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum KvCommand {
    /// Gives `key` a value. The reply is the value it had.
    Set {
        /// Up to 1 KiB.
        key: String,
        /// Any text.
        value: String,
    },
    /// The reply is the value of `key`. A read through the log: it costs as much as a write, and is as consistent.
    Get {
        /// The key.
        key: String,
    },
    /// Removes `key`. The reply is the value it had.
    Delete {
        /// The key.
        key: String,
    },
}

/// A reply: the value found or replaced, if there was one.
pub type KvReply = Option<String>;

/// The store.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KvStore {
    values: BTreeMap<String, String>,
}

/// The longest key, in bytes.
const KEY_BYTES_MAX: usize = 1024;
/// The longest command or snapshot that is decoded, so that a length that lies allocates nothing.
const DECODE_BYTES_MAX: usize = 64 << 20;

impl KvCommand {
    /// The command as bytes for the log.
    pub fn encode(&self) -> Vec<u8> {
        bincode::encode_to_vec(self, config::standard()).expect("plain values encode")
    }
}

/// Reads a reply to a command.
pub fn decode_reply(bytes: &[u8]) -> Result<KvReply, BoxError> {
    decode(bytes)
}

impl KvStore {
    /// The value of a key.
    pub fn get(&self, key: &str) -> Option<&String> {
        self.values.get(key)
    }

    /// How many keys there are.
    pub fn len(&self) -> usize {
        self.values.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.values.is_empty()
    }
}

impl StateMachine for KvStore {
    fn apply(&mut self, command: &[u8]) -> Result<Vec<u8>, BoxError> {
        let reply: KvReply = match decode(command)? {
            // An error is a refusal, the same on every replica, that leaves the store as it was.
            KvCommand::Set { key, .. } if key.len() > KEY_BYTES_MAX => {
                return Err(format!("a key of {} bytes is too long", key.len()).into());
            }
            KvCommand::Set { key, value } => self.values.insert(key, value),
            KvCommand::Get { key } => self.values.get(&key).cloned(),
            KvCommand::Delete { key } => self.values.remove(&key),
        };
        Ok(bincode::encode_to_vec(reply, config::standard())?)
    }

    fn snapshot(&self) -> Result<Option<Vec<u8>>, BoxError> {
        Ok(Some(bincode::encode_to_vec(&self.values, config::standard())?))
    }

    fn restore(&mut self, snapshot: &[u8]) -> Result<(), BoxError> {
        self.values = decode(snapshot)?;
        Ok(())
    }
}

impl fmt::Display for KvStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(&self.values).finish()
    }
}

fn decode<T: Decode<()>>(bytes: &[u8]) -> Result<T, BoxError> {
    let config = config::standard().with_limit::<DECODE_BYTES_MAX>();
    let (value, used) = bincode::decode_from_slice(bytes, config)?;
    if used == bytes.len() { Ok(value) } else { Err("bytes are left over".into()) }
}

/// Run by itself, the example applies a few commands to one store, without any Raft around it.
#[expect(clippy::print_stdout, reason = "an example prints")]
fn main() -> Result<(), BoxError> {
    let mut store = KvStore::default();
    let set = |key: &str, value: &str| KvCommand::Set { key: key.into(), value: value.into() };
    for command in [
        set("language", "Rust"),
        set("language", "Rust 2024"),
        KvCommand::Get { key: "language".into() },
        KvCommand::Delete { key: "language".into() },
        KvCommand::Get { key: "language".into() },
    ] {
        let reply = decode_reply(&store.apply(&command.encode())?)?;
        println!("{command:?} -> {reply:?}");
    }
    println!("{} keys are left", store.len());
    if store.is_empty() && store.get("language").is_none() {
        Ok(())
    } else {
        Err("the store should be empty again".into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(key: &str, value: &str) -> KvCommand {
        KvCommand::Set { key: key.into(), value: value.into() }
    }

    fn apply(store: &mut KvStore, command: &KvCommand) -> KvReply {
        decode_reply(&store.apply(&command.encode()).unwrap()).unwrap()
    }

    #[test]
    fn what_was_set_is_got_until_it_is_deleted() {
        let mut store = KvStore::default();
        let get = KvCommand::Get { key: "k".into() };
        assert_eq!(apply(&mut store, &get), None);
        assert_eq!(apply(&mut store, &set("k", "1")), None);
        assert_eq!(apply(&mut store, &set("k", "2")), Some("1".into()));
        assert_eq!(apply(&mut store, &get), Some("2".into()));
        assert_eq!(apply(&mut store, &KvCommand::Delete { key: "k".into() }), Some("2".into()));
        assert_eq!(apply(&mut store, &get), None);
    }

    #[test]
    fn a_snapshot_restores_the_same_store() {
        let mut store = KvStore::default();
        for number in 0..100 {
            apply(&mut store, &set(&format!("key{number}"), &format!("value{number}")));
        }
        let snapshot = store.snapshot().unwrap().unwrap();
        let mut restored = KvStore::default();
        apply(&mut restored, &set("left", "over"));
        restored.restore(&snapshot).unwrap();
        assert_eq!(restored, store);
    }

    #[test]
    fn a_refused_command_changes_nothing() {
        let mut store = KvStore::default();
        apply(&mut store, &set("k", "v"));
        let before = store.clone();
        assert!(store.apply(&set(&"k".repeat(2000), "v").encode()).is_err());
        assert!(store.apply(b"garbage").is_err());
        assert_eq!(store, before);
    }

    #[test]
    fn a_length_that_lies_is_an_error() {
        let mut bytes = set("k", "v").encode();
        bytes[1] = 0xfd;
        assert!(KvStore::default().apply(&bytes).is_err());
    }
}
