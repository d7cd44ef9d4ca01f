//! The names of the kinds. They are part of the format: a test fixes them.

/// A node took another role: follower, candidate, leader, learner.
pub const ROLE: &str = "role";
/// A node's term changed.
pub const TERM: &str = "term";
/// A node gave its vote.
pub const VOTE: &str = "vote";
/// A message left.
pub const MESSAGE_SENT: &str = "message_sent";
/// A message arrived and was handled.
pub const MESSAGE_DELIVERED: &str = "message_delivered";
/// A message was lost, cut off, or found nobody.
pub const MESSAGE_DROPPED: &str = "message_dropped";
/// Entries were appended to a log.
pub const APPENDED: &str = "appended";
/// Entries were cut off the end of a log.
pub const TRUNCATED: &str = "truncated";
/// The commit index moved.
pub const COMMITTED: &str = "committed";
/// Entries were applied to a state machine.
pub const APPLIED: &str = "applied";
/// A snapshot was taken, sent or installed.
pub const SNAPSHOT: &str = "snapshot";
/// The members of a group changed.
pub const MEMBERSHIP: &str = "membership";
/// The placement of the cache changed.
pub const RING: &str = "ring";
/// A member's state changed in the eyes of another.
pub const GOSSIP: &str = "gossip";
/// An entry of the cache changed.
pub const CACHE: &str = "cache";
/// An event was appended to a stream.
pub const EVENT: &str = "event";
/// A projection moved on.
pub const PROJECTION: &str = "projection";
/// A fault was injected or healed.
pub const FAULT: &str = "fault";
/// A process started, was woken, or stopped.
pub const PROCESS: &str = "process";
/// A client began an operation.
pub const CLIENT_INVOKE: &str = "client_invoke";
/// An operation succeeded.
pub const CLIENT_OK: &str = "client_ok";
/// An operation failed and had no effect.
pub const CLIENT_FAIL: &str = "client_fail";
/// The outcome of an operation is not known.
pub const CLIENT_INFO: &str = "client_info";

/// Every kind that this project writes.
pub const ALL: [&str; 23] = [
    ROLE,
    TERM,
    VOTE,
    MESSAGE_SENT,
    MESSAGE_DELIVERED,
    MESSAGE_DROPPED,
    APPENDED,
    TRUNCATED,
    COMMITTED,
    APPLIED,
    SNAPSHOT,
    MEMBERSHIP,
    RING,
    GOSSIP,
    CACHE,
    EVENT,
    PROJECTION,
    FAULT,
    PROCESS,
    CLIENT_INVOKE,
    CLIENT_OK,
    CLIENT_FAIL,
    CLIENT_INFO,
];
