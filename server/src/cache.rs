//! The cache of a node: its own threads, its own port, nothing shared with Raft.
//!
//! It is one node's for now: members of a cluster have caches that do not know each other.

use std::hash::{BuildHasher as _, RandomState};
use std::net::SocketAddr;
use std::sync::Arc;

use distributed_cache::engine::{Engine, EngineOptions};
use distributed_cache::net::clock::SystemClock;
use distributed_cache::net::{BindError, Server, ServerOptions};
use distributed_cache::ring::table::SlotTable;
use distributed_cache::store::StoreOptions;

use crate::config::{CacheConfig, guard};
use crate::node::StartError;

/// How many members hold a slot once there are others (DESIGN §7).
const REPLICAS: u8 = 3;

/// Takes the cache's port. `name` is the node's, and stands in the slot table.
pub(crate) fn bind(
    config: &CacheConfig,
    name: &str,
    insecure_no_auth: bool,
) -> Result<(Server, Arc<Engine>), StartError> {
    let failed = |source| StartError::Cache(BindError::Address { address: UNKNOWN, source });
    let addresses = config.listen.resolve().map_err(failed)?;
    guard("cache-listen", &config.listen, &addresses, insecure_no_auth)?;
    let clock = Arc::new(SystemClock::new());
    let store = StoreOptions {
        hash_seed: secret(),
        limit: config.maxmemory,
        policy: config.policy,
        versions: false,
    };
    let options = EngineOptions { store, cluster: false, seed: secret() };
    let engine = Arc::new(Engine::new(options, clock.clone()));
    if let Some(password) = &config.password {
        engine.require_password(password);
    }
    // A name that no table can hold is refused by the cluster's configuration as well.
    if let Ok(table) = SlotTable::founding(name, 1, None, REPLICAS) {
        engine.place(table);
    }
    // The first address only, as for the other ports.
    let listen = addresses.into_iter().take(1).collect();
    let options = ServerOptions { listen, clock: Some(clock), ..ServerOptions::default() };
    Ok((Server::bind(options, Arc::clone(&engine))?, engine))
}

/// What an error shows where a name stands for no address at all.
const UNKNOWN: SocketAddr =
    SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED), 0);

/// A number that no client can guess.
fn secret() -> u64 {
    RandomState::new().hash_one("cache")
}
