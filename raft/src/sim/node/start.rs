//! How a node starts: it opens its data directory, makes durable what it found there, and only then hears and says anything.

use std::collections::{BTreeMap, VecDeque};
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;

use lattice_journal::Disk;
use lattice_sim::Event;
use lattice_sim::random::Rng;

use super::worker::{Worker, state_digest};
use super::writer::Writer;
use super::{GROUP, Host, PlantedBug, Running, SimNode, Workload, reason, trace};
use crate::liveness::{Liveness, LivenessTiming, ProcessId};
use crate::membership::Membership;
use crate::raft_node::{Config, RaftNode};
use crate::replica::{Input, Replica};
use crate::sim::markers;
use crate::sim::message::SimMessage;
use crate::state_machine::DurableStateMachine;
use crate::storage::{
    DataDirectory, JournalLog, JournalLogOptions, LogStore, OpenLogError, RecoveredState,
    SnapshotStore,
};
use crate::trace::TraceEvent;
use crate::types::ClusterId;

const DIRECTORY: &str = "/node";
const CLUSTER: ClusterId = ClusterId(0x51b);
/// The token of the opening of the data directory; those of the running node follow it.
const OPENED: u64 = 0;

/// What was found in a data directory. Recovery makes durable what it found, and takes its time for that.
pub(super) struct Opened<W: Workload> {
    directory: DataDirectory,
    log: JournalLog,
    recovered: RecoveredState,
    snapshots: SnapshotStore,
    machine: W::Machine,
}

impl<W: Workload> SimNode<W> {
    /// Opens the data directory, and begins once what was found there is durable. Nobody is heard before.
    pub(super) fn start(&mut self, event: &Event<SimMessage>, context: &mut Host<'_>) {
        let result = match event {
            Event::Start => self.open(context).map(|opened| {
                self.opening = Some(opened);
                context.complete_after_disk(OPENED);
            }),
            Event::Completed(OPENED) => match self.opening.take() {
                Some(opened) => self.begin(opened, context),
                None => Ok(()),
            },
            Event::Completed(_) | Event::Receive { .. } | Event::Timer => Ok(()),
        };
        if let Err(reason) = result {
            if let Some(marker) = markers::marker_of_stop(&reason) {
                context.mark(marker);
            }
            context.stop(reason);
        }
    }

    fn open(&mut self, context: &mut Host<'_>) -> Result<Opened<W>, String> {
        let disk: Arc<dyn Disk> = Arc::new(context.disk().clone());
        let setup = &self.setup;
        let mut random = || u128::from(context.rng().next_u64());
        let store = match setup.bug {
            Some(PlantedBug::AmnesiacVoterCounted) => u128::from(setup.id.0),
            _ => random() << 64 | random(),
        };
        let directory = DataDirectory::open(
            Arc::clone(&disk),
            Path::new(DIRECTORY),
            CLUSTER,
            setup.id,
            &setup.founders,
            store,
        )
        .map_err(|error| reason(&error))?;
        let mut options = JournalLogOptions::new(directory.log_id(GROUP));
        options.tail_bytes_max = setup.tail_bytes_max;
        options.journal.segment_size = setup.segment_size;
        options.journal.segment_size_max = setup.segment_size * 4;
        let home = directory.log_directory(GROUP);
        let mut opened = JournalLog::open(Arc::clone(&disk), &home, options.clone());
        if let (Err(OpenLogError::Damaged { .. }), Some(PlantedBug::DamagedLogStartsBlank)) =
            (&opened, setup.bug)
        {
            for name in disk.list(&home).map_err(|error| reason(&error))? {
                disk.remove(&home.join(name)).map_err(|error| reason(&error))?;
            }
            opened = JournalLog::open(Arc::clone(&disk), &home, options);
        }
        let (log, recovered) = opened.map_err(|error| reason(&error))?;
        if log.torn_tail().is_some() {
            context.mark(markers::TORN_TAIL);
        }
        let snapshot = recovered.snapshot.as_ref();
        let path = directory.snapshot_directory(GROUP);
        let snapshots = SnapshotStore::open_with_bug(disk, &path, snapshot, setup.bug)
            .map_err(|error| reason(&error))?;
        let mut machine = self.workload.machine();
        if let Some(meta) = snapshot {
            let mut parts = snapshots.open_parts(meta).map_err(|error| reason(&error))?;
            machine.restore(meta.last, &mut parts).map_err(|error| reason(error.as_ref()))?;
            self.doings.states.push((meta.last, state_digest(&machine)?));
        }
        Ok(Opened { directory, log, recovered, snapshots, machine })
    }

    fn begin(&mut self, opened: Opened<W>, context: &mut Host<'_>) -> Result<(), String> {
        let Opened { directory, log, recovered, snapshots, machine } = opened;
        let setup = Rc::clone(&self.setup);
        let founding = Membership::founding(directory.identity().founders.iter().copied());
        let mut config = Config::new(setup.id, directory.identity().store, founding);
        config.cluster = CLUSTER;
        config.group = GROUP;
        config.boot = context.rng().next_u64();
        config.election_timeout = setup.election_timeout.clone();
        config.heartbeat = setup.heartbeat;
        config.append_bytes_max = setup.append_bytes_max;
        config.inflight_messages_max = setup.inflight_messages_max;
        config.tail_bytes_max = setup.tail_bytes_max;
        config.kept_entries = setup.kept_entries;
        // Damage is short in a short run, and is to be repaired in several steps all the same.
        config.repaired_at_once = 2;
        config.reads = setup.reads;
        config.quiet_after = setup.quiet_after;
        config.planted_bug = setup.bug;
        let process =
            ProcessId { cluster: CLUSTER, node: setup.id, store: directory.identity().store };
        let timing = LivenessTiming::new(setup.heartbeat, &setup.election_timeout);
        let liveness = Liveness::new(process, timing, config.boot);
        let node = RaftNode::recover(config, recovered, self.seed, context.now())
            .map_err(|error| reason(&error))?;
        if node.log().is_damaged() {
            context.mark(markers::ENTRIES_DAMAGED);
        }
        for damage in node.log().damaged() {
            let (first, last) = (damage.first, damage.last);
            trace(&TraceEvent::DamageFound { first, last }, context);
        }
        let mut replica = Replica::new(node, setup.replica.clone());
        if let Some(spec) = &setup.spec {
            spec.started(replica.node());
            replica.given_out = Some(Vec::new());
        }
        let mut inputs = VecDeque::new();
        if setup.quiet_after.is_some() {
            inputs.push_back(Input::NodeEpoch(liveness.epoch()));
        }
        self.running = Some(Running {
            workload: self.workload.clone(),
            replica,
            liveness,
            reader: machine.reader(),
            machine,
            log_reader: log.reader(),
            writer: Writer::new(log),
            snapshots,
            worker: Worker::default(),
            pending: BTreeMap::new(),
            last_token: OPENED,
            inbox: Vec::new(),
            proposals: BTreeMap::new(),
            reads: BTreeMap::new(),
            last_request: 0,
            inputs,
            outputs: Vec::new(),
            is_mute: false,
            timer_at: context.now(),
            setup,
            _directory: directory,
        });
        Ok(())
    }
}
