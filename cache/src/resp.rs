//! The Redis serialization protocol, versions 2 and 3: frames in, replies out.
//!
//! Source: the RESP specification of Redis ("Redis serialization protocol specification", RESP3). The parser (`parse`) never
//! copies and never allocates from a declared length; replies (`reply`) are written straight into a connection's output.

pub mod double;
pub mod parse;
pub mod reply;

pub use double::{format_double, parse_double, parse_double_saturating};
pub use reply::{Protocol, Reply};
