//! The protocols that clients speak. Each module converts between a protocol's messages and the node's own types.

pub(crate) mod admin;
pub(crate) mod etcd;
