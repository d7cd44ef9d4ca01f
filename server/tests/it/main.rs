#![cfg(test)]
//! Whole nodes: in this process on ports that the system chose, and as processes of the built program.

mod cache;
mod cluster;
mod etcdctl;
mod events;
mod kv;
mod process;
mod processes;
mod start;
mod trouble;
