//! What a fault is to be, drawn: whom it hits, how hard, for how long.

use std::time::Duration;

use super::{Atlas, Cure, Nemesis};
use crate::disk::SECTOR;
use crate::fault::{Fault, FaultKind, Target};
use crate::process::{Address, Process};
use crate::random::{Chance, below, between, index, nanos, shuffle};
use crate::world::World;

/// A connection that breaks is made anew within this time.
const RECONNECT_MS: u64 = 200;

impl Nemesis {
    /// Draws a fault of this kind; `None` if the world has no place for it now.
    pub(super) fn draw<P: Process>(
        &mut self,
        world: &World<P>,
        kind: FaultKind,
        atlas: Atlas<'_, P>,
    ) -> Option<Fault> {
        let mut fault = Fault::new(world.now(), kind);
        match kind {
            FaultKind::Crash | FaultKind::Kill => {
                fault.nodes.push(self.running_target(world)?);
                fault.lasts = self.options.restart.draw(&mut self.rng);
            }
            FaultKind::CrashAll => {
                fault.nodes.clone_from(&self.options.targets);
                // When each starts again follows from this number.
                fault.amount = signed(below(&mut self.rng, 1 << 32));
            }
            FaultKind::Pause => {
                fault.nodes.push(self.running_target(world)?);
                fault.lasts = self.options.lasts.draw(&mut self.rng);
            }
            FaultKind::ClockJump
            | FaultKind::WallClockJump
            | FaultKind::ClockDrift
            | FaultKind::ClockFreeze => self.draw_clock(&mut fault)?,
            FaultKind::PartitionFull
            | FaultKind::PartitionMinority
            | FaultKind::PartitionAsymmetric
            | FaultKind::PartitionBridge => self.draw_partition(&mut fault)?,
            FaultKind::Loss
            | FaultKind::Duplication
            | FaultKind::Reorder
            | FaultKind::Delay
            | FaultKind::FrameCorruption => {
                self.lasting(&mut fault, link_cure(kind))?;
                fault.amount = signed(between(&mut self.rng, 1, 30));
            }
            FaultKind::ConnectionCut | FaultKind::HalfOpen => self.draw_connection(&mut fault)?,
            FaultKind::SyncError
            | FaultKind::DiskFull
            | FaultKind::DiskSlow
            | FaultKind::DiskStall
            | FaultKind::DiskHang
            | FaultKind::SyncLie => self.draw_disk(world, &mut fault)?,
            FaultKind::ReadError
            | FaultKind::MisdirectedRead
            | FaultKind::BitRot
            | FaultKind::LostWrite
            | FaultKind::MisdirectedWrite
            | FaultKind::DiskLoss
            | FaultKind::DiskSwap => {
                let target = atlas(world, kind, &mut self.rng)?;
                self.draw_damage(world, target, &mut fault)?;
            }
        }
        Some(fault)
    }

    /// A fault that lasts, unless one like it is going on already.
    fn lasting(&mut self, fault: &mut Fault, cure: Cure) -> Option<()> {
        if self.awaits(cure) {
            return None;
        }
        fault.lasts = self.options.lasts.draw(&mut self.rng);
        Some(())
    }

    /// One of the targets, whatever its state.
    fn any_target(&mut self) -> Option<Address> {
        let targets = &self.options.targets;
        (!targets.is_empty()).then(|| targets[index(&mut self.rng, targets.len())])
    }

    /// A target that is up, if enough others are.
    fn running_target<P: Process>(&mut self, world: &World<P>) -> Option<Address> {
        let targets = self.options.targets.iter().copied();
        let running: Vec<Address> =
            targets.filter(|target| world.is_up(*target) && !world.is_paused(*target)).collect();
        (running.len() > self.options.up_min).then(|| running[index(&mut self.rng, running.len())])
    }

    fn draw_clock(&mut self, fault: &mut Fault) -> Option<()> {
        let target = self.any_target()?;
        fault.nodes.push(target);
        match fault.kind {
            FaultKind::ClockDrift => {
                self.lasting(fault, Cure::ClockDrift(target))?;
                fault.amount = signed(between(&mut self.rng, 0, self.options.drift_ppm.into()));
            }
            FaultKind::ClockFreeze => fault.lasts = self.options.lasts.draw(&mut self.rng),
            _ => fault.amount = signed(nanos(self.options.jump.draw(&mut self.rng))),
        }
        // The monotonic clock never goes back.
        let may_be_negative =
            matches!(fault.kind, FaultKind::ClockDrift | FaultKind::WallClockJump);
        if may_be_negative && Chance::percent(50).happens(&mut self.rng) {
            fault.amount = -fault.amount;
        }
        Some(())
    }

    /// At most one partition at a time: several at once are mostly a full one.
    fn draw_partition(&mut self, fault: &mut Fault) -> Option<()> {
        let mut nodes = self.options.targets.clone();
        if nodes.len() < 2 {
            return None;
        }
        self.lasting(fault, Cure::Partition)?;
        shuffle(&mut self.rng, &mut nodes);
        let mut split = |one: &[Address], other: &[Address]| {
            for (a, b) in one.iter().flat_map(|a| other.iter().map(move |b| (*a, *b))) {
                fault.cuts.extend([(a, b), (b, a)]);
            }
        };
        match fault.kind {
            FaultKind::PartitionFull => {
                for (place, node) in nodes.iter().enumerate() {
                    split(&[*node], &nodes[place + 1..]);
                }
            }
            FaultKind::PartitionMinority => {
                let few = 1 + index(&mut self.rng, ((nodes.len() - 1) / 2).max(1));
                let (few, many) = nodes.split_at(few);
                split(few, many);
            }
            FaultKind::PartitionAsymmetric => {
                let deaf = 1 + index(&mut self.rng, nodes.len() - 1);
                fault.cuts.extend(nodes[1..=deaf].iter().map(|other| (nodes[0], *other)));
            }
            _ => {
                let (left, right) = nodes[1..].split_at((nodes.len() - 1) / 2);
                split(left, right);
            }
        }
        Some(())
    }

    fn draw_connection(&mut self, fault: &mut Fault) -> Option<()> {
        let mut nodes = self.options.targets.clone();
        if nodes.len() < 2 {
            return None;
        }
        shuffle(&mut self.rng, &mut nodes);
        let (from, to) = (nodes[0], nodes[1]);
        self.lasting(fault, connection(from, to))?;
        fault.cuts.push((from, to));
        if fault.kind == FaultKind::ConnectionCut {
            fault.cuts.push((to, from));
            fault.lasts = Duration::from_millis(between(&mut self.rng, 1, RECONNECT_MS));
        }
        Some(())
    }

    fn draw_disk<P: Process>(&mut self, world: &World<P>, fault: &mut Fault) -> Option<()> {
        let target = self.any_target()?;
        fault.nodes.push(target);
        match fault.kind {
            FaultKind::DiskFull => {
                self.lasting(fault, Cure::DiskFull(target))?;
                fault.amount = signed(below(&mut self.rng, 64 << 10));
            }
            FaultKind::DiskSlow => {
                self.lasting(fault, Cure::DiskSlow(target))?;
                fault.amount = signed(between(&mut self.rng, 5, 100));
            }
            FaultKind::SyncLie => self.lasting(fault, Cure::SyncLie(target))?,
            FaultKind::DiskStall | FaultKind::DiskHang if world.disk(target).is_stalled() => {
                return None;
            }
            FaultKind::DiskHang => self.lasting(fault, Cure::DiskHang(target))?,
            FaultKind::DiskStall => {
                // From a millisecond on, each order of magnitude as likely as the others.
                let longest = nanos(self.options.lasts.max).max(1_000_000);
                let shift = below(&mut self.rng, 13);
                let length = between(&mut self.rng, 1_000_000, (longest >> shift).max(1_000_000));
                fault.lasts = Duration::from_nanos(length);
            }
            _ => {}
        }
        Some(())
    }

    fn draw_damage<P: Process>(
        &mut self,
        world: &World<P>,
        target: Target,
        fault: &mut Fault,
    ) -> Option<()> {
        match target {
            Target::Disk(node) => {
                fault.nodes.push(node);
                fault.lasts = self.options.restart.draw(&mut self.rng);
            }
            Target::Disks(one, other) => {
                fault.nodes.extend([one, other]);
                self.lasting(fault, Cure::DiskSwap(one, other))?;
            }
            Target::Sector { node, path, sector } => {
                fault.nodes.push(node);
                let rng = &mut self.rng;
                fault.amount = signed(match fault.kind {
                    // The mask, and the byte that it hits: one past the sector stands for all of it.
                    FaultKind::BitRot => {
                        let (bit, byte) = (below(rng, 8), below(rng, SECTOR));
                        let all = Chance::percent(20).happens(rng);
                        1 << bit | if all { SECTOR << 8 } else { byte << 8 }
                    }
                    // The first byte that is missing.
                    FaultKind::LostWrite => below(rng, SECTOR),
                    FaultKind::MisdirectedWrite | FaultKind::MisdirectedRead => {
                        let length = world.disk(node).durable_length(&path);
                        below(rng, crate::disk::sectors(length))
                    }
                    _ => 0,
                });
                if matches!(fault.kind, FaultKind::ReadError | FaultKind::MisdirectedRead) {
                    self.lasting(fault, Cure::BadReads(node))?;
                }
                fault.place = Some((path, sector));
            }
        }
        Some(())
    }
}

/// What ends a disturbance of all links.
pub(super) fn link_cure(kind: FaultKind) -> Cure {
    match kind {
        FaultKind::Loss => Cure::Loss,
        FaultKind::Duplication => Cure::Duplication,
        FaultKind::Reorder => Cure::Reorder,
        FaultKind::FrameCorruption => Cure::FrameCorruption,
        _ => Cure::Delay,
    }
}

/// What ends a disturbance of one connection, whichever end is named first.
pub(super) fn connection(one: Address, other: Address) -> Cure {
    Cure::Connection(one.min(other), one.max(other))
}

fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}
