//! The fault atlas: what may be damaged, so that what the protocol needs stays intact; and who is excused because of it.
//!
//! No protocol survives the loss of every copy. What a cluster of `2f + 1` promises is to survive `f`, so the disks of at most `f` nodes are
//! *spent* at one time: damaged, or lost. A node with a damaged disk that notices says so and stops, which is right; the others must go on, and
//! in the end they must agree. [`Simulation::beyond_budget`](super::Simulation::beyond_budget) lifts the bound for damage: then nobody
//! has to make progress, but still nobody may say anything wrong.
//!
//! With the tuning `damage` the budget is per *entry*: every log may be damaged, at different entries. What is hit is committed and durable
//! on every node, and was hit nowhere else, so all other copies of it are intact. Then no node is excused: each gets back what it lost.
//!
//! Two things are spared, for nobody can see their damage. The last segment of a log: bytes at its end that are not what was written look like
//! the torn tail of a crash unless a later frame vouches for them (FAST 2018). And from damage, until a committed membership binds every
//! founder to its store, all disks: a founder that cannot start because of it holds up the founding, which needs all of them. Losing a disk
//! altogether is survived at any time.

use std::ops::Range;
use std::path::Path;

use lattice_sim::random::index;
use lattice_sim::{Address, ChaCha8Rng, Chance, FaultKind, SimDisk, Target, World, draw_sector};

use super::cluster::SimProcess;
use super::node::SimNode;
use super::workload::Workload;
use crate::types::LogIndex;

/// Whether something on this disk was destroyed for good.
pub(super) fn is_spent(disk: &SimDisk) -> bool {
    let counts = disk.counts();
    counts.damaged > 0 || counts.blanked > 0
}

/// Whether its node may take durable data for lost: because it is, or because a read went wrong, which is not tried again while the
/// node runs.
fn is_suspect(disk: &SimDisk) -> bool {
    is_spent(disk) || disk.counts().bad_reads > 0
}

/// Whether another node has this disk now.
pub(super) fn is_swapped(disk: &SimDisk) -> bool {
    disk.counts().swapped % 2 == 1
}

/// What a fault may hit now.
pub(super) fn target<W: Workload>(
    world: &World<SimProcess<W>>,
    nodes: &[Address],
    is_bounded: bool,
    kind: FaultKind,
    rng: &mut ChaCha8Rng,
) -> Option<Target> {
    let node = nodes[index(rng, nodes.len())];
    let other = nodes[index(rng, nodes.len())];
    if nodes.iter().any(|node| is_swapped(world.disk(*node))) {
        return None;
    }
    let disk = world.disk(node);
    let others_that = |is: fn(&SimDisk) -> bool| {
        nodes.iter().filter(|other| **other != node && is(world.disk(**other))).count()
    };
    let is_in_budget = others_that(is_suspect) < (nodes.len() - 1) / 2;
    let may_misread =
        is_replicated(world, node) && others_that(is_spent) < (nodes.len() - 1) / 2 || !is_bounded;
    let log = |path: &Path| path.extension().is_some_and(|extension| extension == "seg");
    let last = disk.durable_files().into_iter().map(|(path, _)| path).rfind(|path| log(path));
    let sector = |allowed: &dyn Fn(&Path) -> bool, rng: &mut ChaCha8Rng| {
        let (path, sector) = draw_sector(disk, rng, allowed)?;
        Some(Target::Sector { node, path, sector })
    };
    let is_spared = |path: &Path| Some(path) == last.as_deref();
    match kind {
        FaultKind::ReadError if may_misread => sector(&|_| true, rng),
        FaultKind::MisdirectedRead if may_misread => sector(&|path| !is_spared(path), rng),
        FaultKind::BitRot | FaultKind::LostWrite | FaultKind::MisdirectedWrite => {
            let may_damage = is_in_budget && is_bound(world, nodes) || !is_bounded;
            // One small file of a few: it would be hit most of the time, and nothing else be seen.
            let with_identity = Chance::percent(10).happens(rng);
            let allowed = |path: &Path| !is_spared(path) && (with_identity || !is_identity(path));
            may_damage.then(|| sector(&allowed, rng)).flatten()
        }
        FaultKind::DiskLoss => {
            // Beyond any budget, for blank founders that are a majority found a cluster anew and nobody can know better.
            let is_lost = |node: &Address| world.disk(*node).counts().blanked > 0;
            let lost = nodes.iter().filter(|node| is_lost(node)).count();
            let may_lose = is_in_budget && (is_lost(&node) || lost < (nodes.len() - 1) / 2);
            may_lose.then_some(Target::Disk(node))
        }
        FaultKind::DiskSwap => {
            let may_swap =
                node != other && is_bound(world, nodes) && has_identity(world.disk(node));
            (may_swap && has_identity(world.disk(other))).then_some(Target::Disks(node, other))
        }
        _ => None,
    }
}

/// What was damaged in logs: on which node, and which entries.
pub(super) type Damaged = Vec<(Address, Range<u64>)>;

/// What a fault may hit in a log, if each entry keeps all its other copies.
pub(super) fn target_in_log<W: Workload>(
    world: &World<SimProcess<W>>,
    nodes: &[Address],
    damaged: &mut Damaged,
    rng: &mut ChaCha8Rng,
) -> Option<Target> {
    let node = nodes[index(rng, nodes.len())];
    let all: Option<Vec<&SimNode<W>>> = nodes
        .iter()
        .map(|node| match world.process(*node) {
            Some(SimProcess::Node(node)) => Some(node.as_ref()),
            Some(SimProcess::Client(_)) | None => None,
        })
        .collect();
    let (all, _) = (all?, is_bound(world, nodes).then_some(())?);
    let segments = all.get(nodes.iter().position(|other| *other == node)?)?.sealed_segments();
    let is_everywhere = |entries: &Range<u64>| {
        all.iter().filter_map(|node| node.raft()).all(|raft| {
            let through = LogIndex(entries.end.saturating_sub(1));
            let log = raft.log();
            log.base().index.0 < entries.start && raft.commit().min(log.durable()) >= through
        })
    };
    let is_hit_elsewhere = |entries: &Range<u64>| {
        damaged.iter().any(|(other, hit)| {
            *other != node && hit.start < entries.end && entries.start < hit.end
        })
    };
    let mut may = segments;
    may.retain(|(_, entries)| {
        !entries.is_empty() && is_everywhere(entries) && !is_hit_elsewhere(entries)
    });
    let number = |path: &Path| path.file_stem()?.to_str()?.split('.').next()?.parse::<u64>().ok();
    let is_log = |path: &Path| path.extension().is_some_and(|extension| extension == "seg");
    let place = |path: &Path| {
        may.iter().position(|(wanted, _)| is_log(path) && number(path) == Some(*wanted))
    };
    let may_hit = |path: &Path| place(path).is_some();
    let (path, sector) = draw_sector(world.disk(node), rng, may_hit)?;
    let (_, entries) = &may[place(&path)?];
    damaged.push((node, entries.clone()));
    Some(Target::Sector { node, path, sector })
}

/// Whether others have what this node has: a voter that is alone gets nothing back that it could not read while it was starting.
fn is_replicated<W: Workload>(world: &World<SimProcess<W>>, node: Address) -> bool {
    match world.process(node) {
        Some(SimProcess::Node(node)) => {
            node.raft().is_some_and(|raft| raft.membership().incoming().count() > 2)
        }
        Some(SimProcess::Client(_)) | None => false,
    }
}

/// Whether every node whose disk is intact runs, and has on its disk a committed membership in which all stores are bound.
fn is_bound<W: Workload>(world: &World<SimProcess<W>>, nodes: &[Address]) -> bool {
    let intact = nodes.iter().filter(|node| !is_spent(world.disk(**node)));
    intact.map(|node| world.process(*node)).all(|process| {
        let Some(SimProcess::Node(node)) = process else { return false };
        node.raft().is_some_and(|raft| {
            raft.membership_at(raft.commit().min(raft.log().durable())).is_fully_bound()
        })
    })
}

/// Whether the disk is one that has a name of its own: a blank one would become that of whoever gets it.
fn has_identity(disk: &SimDisk) -> bool {
    let files = disk.durable_files();
    files.iter().any(|(path, _)| is_identity(path))
}

fn is_identity(path: &Path) -> bool {
    path.file_name().is_some_and(|name| name == "identity")
}

/// Whether a node that ended itself for this reason has said clearly what its disk has done to it.
pub(super) fn is_clear(reason: &str) -> bool {
    ["damaged", "input/output error", "WrongStore", "belongs to"]
        .iter()
        .any(|text| reason.contains(text))
}
