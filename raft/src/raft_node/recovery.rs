//! A node as its log store remembers it, and why there may be none: what was found contradicts itself, or is another node's.

use std::time::Duration;

use rand_chacha::ChaCha8Rng;
use rand_core::SeedableRng;
use thiserror::Error;

use super::membership::MembershipHistory;
use super::quiet::Quiet;
use super::repair::Repair;
use super::{Config, RaftNode, RoleState};
use crate::effects::IoToken;
use crate::log::Log;
use crate::storage::RecoveredState;
use crate::types::{EntryId, HardState, LogIndex, NodeId, StoreId, Term};

/// Why a node cannot run.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum RecoverError {
    /// The configuration contradicts itself.
    #[error("configuration: {0}")]
    Config(&'static str),
    /// What was found on disk contradicts itself.
    #[error("the log contradicts itself: {0}")]
    Corrupt(String),
    /// The log binds this node's id to another data directory.
    #[error(
        "{node} is bound to data directory {bound}, this one is {store}: it belongs to another node, or is a copy"
    )]
    WrongStore {
        /// This node.
        node: NodeId,
        /// The directory the cluster knows.
        bound: StoreId,
        /// The directory the node was started on.
        store: StoreId,
    },
}

impl RaftNode {
    /// A node as its log store remembers it, at time `now`. The seed is for election timeouts; ChaCha8.
    pub fn recover(
        config: Config,
        state: RecoveredState,
        seed: u64,
        now: Duration,
    ) -> Result<Self, RecoverError> {
        config.validate()?;
        let snapshot = state.snapshot.as_ref();
        let snapshot_last = snapshot.map_or(EntryId::ZERO, |meta| meta.last);
        let (base, last) = (state.terms.base(), state.terms.last());
        if base.index > snapshot_last.index || last.index < snapshot_last.index {
            return Err(RecoverError::Corrupt(format!(
                "the log follows {base} and ends with {last}, the snapshot ends with {snapshot_last}"
            )));
        }
        let (base_index, base_membership) = snapshot
            .map_or((LogIndex::ZERO, config.founding.clone()), |meta| {
                (meta.last.index, meta.membership.clone())
            });
        if last.index > LogIndex::MAX || state.hard_state.term > Term::MAX {
            return Err(RecoverError::Corrupt(format!(
                "the last entry is {last} in term {}, further than any cluster comes",
                state.hard_state.term
            )));
        }
        let hard_state = recovered_hard_state(&config, state.hard_state, last.term)?;
        let membership =
            MembershipHistory::recovered(base_index, base_membership, state.memberships.clone());
        if membership.current().is_impostor(config.id, config.store) {
            let bound =
                membership.current().store_of(config.id).expect("an impostor's id is bound");
            return Err(RecoverError::WrongStore { node: config.id, bound, store: config.store });
        }
        let mut node = Self {
            rng: ChaCha8Rng::seed_from_u64(seed),
            now,
            hard_state,
            hard_state_token: IoToken(0),
            voted_store: None,
            role: RoleState::Follower { leader: None },
            log: Log::recovered(state, config.tail_bytes_max),
            membership,
            commit: snapshot_last.index,
            applying: snapshot_last.index,
            applied: snapshot_last.index,
            election_deadline: now,
            leader_contact: now,
            last_append: now,
            last_token: IoToken(0),
            batch: None,
            appended_from: None,
            outbox: Vec::new(),
            restoring: None,
            compaction: None,
            repair: Repair::default(),
            quiet: Quiet::default(),
            is_writing_snapshot: false,
            offered: None,
            is_low_on_space: false,
            is_removed: false,
            is_stopped: false,
            config,
        };
        #[cfg(feature = "sim")]
        if node.has_bug(crate::sim::PlantedBug::AppliedIndexApartFromData) {
            (node.applying, node.applied) = (base.index, base.index);
        }
        node.is_removed = node.knows_removal_of(node.config.id);
        node.reset_election_deadline();
        node.begin_repair();
        Ok(node)
    }

    /// The state machine has kept everything up to `applied` by itself: go on behind it. To be called before the first step.
    pub fn resume_at(&mut self, applied: EntryId) -> Result<(), RecoverError> {
        if applied.index <= self.commit {
            return Ok(());
        }
        if self.log.is_doubtful(applied.index) {
            return Err(RecoverError::Corrupt(format!(
                "the state machine has applied {applied}, which is damaged in the log"
            )));
        }
        if !self.log.contains(applied) {
            let last = self.log.last();
            return Err(RecoverError::Corrupt(format!(
                "the state machine has applied {applied}, the log ends with {last}"
            )));
        }
        (self.commit, self.applying, self.applied) = (applied.index, applied.index, applied.index);
        self.is_removed = self.knows_removal_of(self.config.id);
        Ok(())
    }
}

/// The hard state to start with: its term is at least that of the last entry.
fn recovered_hard_state(
    config: &Config,
    hard_state: HardState,
    last_term: Term,
) -> Result<HardState, RecoverError> {
    #[cfg(feature = "sim")]
    if config.planted_bug == Some(crate::sim::PlantedBug::ForgottenTermOnRestart) {
        return Ok(HardState { term: last_term, voted_for: None });
    }
    let _ = config;
    if hard_state.term < last_term {
        return Err(RecoverError::Corrupt(format!(
            "the term on disk is {}, the last entry's {last_term}",
            hard_state.term
        )));
    }
    Ok(hard_state)
}
