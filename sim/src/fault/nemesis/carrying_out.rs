//! Faults and their ends, carried out on a world. Nothing is drawn here, so a schedule does what it did the first time.

use std::time::Duration;

use super::drawing::{connection, link_cure};
use super::{Cure, Nemesis};
use crate::disk::{SECTOR, sector};
use crate::fault::{Fault, FaultKind};
use crate::process::{Address, Process};
use crate::random::{Chance, stream};
use crate::world::World;

/// A machine whose disk hung, or was given another disk, is up again after this time.
const POWER_CYCLE: Duration = Duration::from_millis(20);

impl Nemesis {
    /// Carries a fault out and writes it down. One that names nodes or files that are not there does nothing.
    pub(super) fn carry_out<P: Process>(&mut self, world: &mut World<P>, mut fault: Fault) {
        let known = |node: &Address| world.addresses().any(|address| address == *node);
        if !fault.nodes.iter().all(known) {
            return;
        }
        fault.at = world.now();
        match fault.kind {
            FaultKind::Crash => self.take_down(world, &fault, World::crash),
            FaultKind::Kill => self.take_down(world, &fault, World::kill),
            FaultKind::DiskLoss => self.take_down(world, &fault, World::wipe),
            FaultKind::CrashAll => self.crash_all(world, &fault),
            FaultKind::Pause => fault.nodes.iter().for_each(|node| world.pause(*node, fault.lasts)),
            FaultKind::ClockJump
            | FaultKind::WallClockJump
            | FaultKind::ClockDrift
            | FaultKind::ClockFreeze => self.disturb_clock(world, &fault),
            FaultKind::PartitionFull
            | FaultKind::PartitionMinority
            | FaultKind::PartitionAsymmetric
            | FaultKind::PartitionBridge => {
                world.note_fault(Address(0), format_args!("{} {:?}", fault.kind, fault.cuts));
                fault.cuts.iter().for_each(|(from, to)| world.network_mut().cut(*from, *to));
                self.cure_after(world, &fault, Cure::Partition);
            }
            FaultKind::Loss
            | FaultKind::Duplication
            | FaultKind::Reorder
            | FaultKind::Delay
            | FaultKind::FrameCorruption => self.disturb_links(world, &fault),
            FaultKind::ConnectionCut | FaultKind::HalfOpen => {
                world.note_fault(Address(0), format_args!("{} {:?}", fault.kind, fault.cuts));
                for &(from, to) in &fault.cuts {
                    world.network_mut().half_open(from, to);
                    self.cure_after(world, &fault, connection(from, to));
                }
            }
            FaultKind::SyncError
            | FaultKind::DiskFull
            | FaultKind::DiskSlow
            | FaultKind::DiskStall
            | FaultKind::DiskHang
            | FaultKind::SyncLie => self.disturb_disk(world, &fault),
            FaultKind::ReadError
            | FaultKind::MisdirectedRead
            | FaultKind::BitRot
            | FaultKind::LostWrite
            | FaultKind::MisdirectedWrite => self.damage(world, &fault),
            FaultKind::DiskSwap => {
                if let [one, other] = fault.nodes[..] {
                    swap(world, one, other);
                    self.cure_after(world, &fault, Cure::DiskSwap(one, other));
                }
            }
        }
        *self.counts.entry(fault.kind).or_default() += 1;
        self.done.push(fault);
    }

    fn cure_after<P: Process>(&mut self, world: &World<P>, fault: &Fault, cure: Cure) {
        self.cures.insert((world.now() + fault.lasts, cure));
    }

    fn take_down<P: Process>(
        &mut self,
        world: &mut World<P>,
        fault: &Fault,
        how: fn(&mut World<P>, Address),
    ) {
        for node in &fault.nodes {
            how(world, *node);
            world.restart_after(*node, fault.lasts);
        }
    }

    fn crash_all<P: Process>(&mut self, world: &mut World<P>, fault: &Fault) {
        let mut rng = stream(fault.amount.unsigned_abs(), "crash-all", 0);
        for node in &fault.nodes {
            world.crash(*node);
            world.restart_after(*node, self.options.restart.draw(&mut rng));
        }
    }

    fn disturb_clock<P: Process>(&mut self, world: &mut World<P>, fault: &Fault) {
        let by = Duration::from_nanos(fault.amount.unsigned_abs());
        for node in &fault.nodes {
            world.note_fault(*node, fault.kind);
            let mut clock = world.clock_mut(*node);
            match fault.kind {
                FaultKind::ClockJump => clock.jump(by),
                FaultKind::ClockFreeze => clock.freeze(fault.lasts),
                FaultKind::ClockDrift => {
                    clock.set_drift(i32::try_from(fault.amount).unwrap_or_default());
                    self.cure_after(world, fault, Cure::ClockDrift(*node));
                }
                _ if fault.amount < 0 => clock.jump_wall_back(by),
                _ => clock.jump_wall_forward(by),
            }
        }
    }

    fn disturb_links<P: Process>(&mut self, world: &mut World<P>, fault: &Fault) {
        let percent = u32::try_from(fault.amount.unsigned_abs()).unwrap_or(100).min(100);
        let (chance, factor) = (Chance::percent(percent), 2 + percent);
        world.note_fault(Address(0), format_args!("{} {percent}", fault.kind));
        let cure = link_cure(fault.kind);
        world.network_mut().adjust(|link| match cure {
            Cure::Loss => link.loss = chance,
            Cure::Duplication => link.duplicate = chance,
            Cure::Reorder => link.reorder = chance,
            Cure::FrameCorruption => link.corrupt = chance,
            _ => link.delay.max = link.delay.max.saturating_mul(factor),
        });
        self.cure_after(world, fault, cure);
    }

    fn disturb_disk<P: Process>(&mut self, world: &mut World<P>, fault: &Fault) {
        let amount = fault.amount.unsigned_abs();
        for node in &fault.nodes {
            world.note_fault(*node, fault.kind);
            let disk = world.disk(*node);
            match fault.kind {
                FaultKind::DiskFull => {
                    self.capacities.entry(*node).or_insert(disk.capacity());
                    disk.set_capacity(Some(disk.used() + amount));
                    self.cure_after(world, fault, Cure::DiskFull(*node));
                }
                FaultKind::DiskSlow => {
                    disk.set_slowdown(u32::try_from(amount).unwrap_or(u32::MAX));
                    self.cure_after(world, fault, Cure::DiskSlow(*node));
                }
                FaultKind::SyncLie => {
                    disk.set_syncs_lie(true);
                    self.cure_after(world, fault, Cure::SyncLie(*node));
                }
                FaultKind::DiskHang => {
                    disk.hang();
                    self.cure_after(world, fault, Cure::DiskHang(*node));
                }
                FaultKind::DiskStall => disk.stall(fault.lasts),
                _ => disk.fail_sync_at(1),
            }
        }
    }

    fn damage<P: Process>(&mut self, world: &mut World<P>, fault: &Fault) {
        let (Some((path, number)), [node, ..]) = (&fault.place, &fault.nodes[..]) else { return };
        let (amount, bytes) = (fault.amount.unsigned_abs(), sector(*number));
        world.note_fault(*node, format_args!("{} {} {bytes:?}", fault.kind, path.display()));
        let disk = world.disk(*node);
        let source = amount.saturating_mul(SECTOR);
        // A file that is gone, in a shrunk run say, has nothing that could be damaged.
        let _ = match fault.kind {
            FaultKind::BitRot => {
                let mask = u8::try_from(amount & 0xff).expect("masked");
                let byte = amount >> 8;
                let one = bytes.start + byte..bytes.start + byte + 1;
                disk.rot(path, if byte < SECTOR { one } else { bytes }, mask)
            }
            FaultKind::LostWrite => disk.forget(path, bytes.start + amount.min(SECTOR)..bytes.end),
            FaultKind::MisdirectedWrite => disk.overwrite_with(path, bytes, source),
            FaultKind::MisdirectedRead => disk.misdirect_reads(path, bytes, source),
            _ => disk.fail_reads(path, bytes),
        };
        if matches!(fault.kind, FaultKind::ReadError | FaultKind::MisdirectedRead) {
            self.cure_after(world, fault, Cure::BadReads(*node));
        }
    }

    fn restore_capacity<P: Process>(&mut self, world: &World<P>, target: Address) {
        if let Some(capacity) = self.capacities.remove(&target) {
            world.disk(target).set_capacity(capacity);
        }
    }

    pub(super) fn cure<P: Process>(&mut self, world: &mut World<P>, cure: Cure) {
        world.note_fault(Address(0), format_args!("end of {cure:?}"));
        let base = world.network().base();
        match cure {
            Cure::Partition => world.network_mut().heal_cuts(),
            Cure::Loss => world.network_mut().adjust(|link| link.loss = base.loss),
            Cure::Duplication => world.network_mut().adjust(|link| link.duplicate = base.duplicate),
            Cure::Reorder => world.network_mut().adjust(|link| link.reorder = base.reorder),
            Cure::Delay => world.network_mut().adjust(|link| link.delay = base.delay),
            Cure::FrameCorruption => world.network_mut().adjust(|link| link.corrupt = base.corrupt),
            Cure::Connection(one, other) => world.network_mut().reconnect(one, other),
            Cure::ClockDrift(target) => world.clock_mut(target).set_drift(0),
            Cure::DiskFull(target) => self.restore_capacity(world, target),
            Cure::DiskSlow(target) => world.disk(target).set_slowdown(1),
            Cure::DiskHang(target) => power_cycle(world, target),
            Cure::BadReads(target) => world.disk(target).clear_bad_reads(),
            Cure::DiskSwap(one, other) => swap(world, one, other),
            Cure::SyncLie(target) => world.disk(target).set_syncs_lie(false),
        }
    }

    /// Ends all faults: the network is whole, clocks run true, disks are roomy, quick and where they belong, and everybody is up.
    /// A machine whose disk still stands still is switched off and on. A process that has met bad reads starts anew, for what it took for
    /// lost then it does not look at again while it runs. What is damaged or lost stays so.
    pub fn heal<P: Process>(&mut self, world: &mut World<P>) {
        self.end_strikes();
        world.note_fault(Address(0), "heal");
        for (_, cure) in std::mem::take(&mut self.cures) {
            if let Cure::DiskSwap(one, other) = cure {
                swap(world, one, other);
            }
        }
        world.network_mut().heal();
        for address in self.options.targets.clone() {
            world.clock_mut(address).heal();
            self.restore_capacity(world, address);
            let sync_error = world.options().disk.sync_error;
            let disk = world.disk(address);
            disk.set_slowdown(1);
            disk.set_sync_error(sync_error);
            disk.clear_failing_syncs();
            disk.clear_bad_reads();
            disk.set_syncs_lie(false);
            let has_misread = disk.counts().bad_reads > 0;
            if disk.is_stalled() {
                world.crash(address);
            } else if has_misread {
                world.kill(address);
            }
            world.resume(address);
            world.restart(address);
        }
    }
}

fn power_cycle<P: Process>(world: &mut World<P>, address: Address) {
    world.crash(address);
    world.restart_after(address, POWER_CYCLE);
}

fn swap<P: Process>(world: &mut World<P>, one: Address, other: Address) {
    world.swap_disks(one, other);
    world.restart_after(one, POWER_CYCLE);
    world.restart_after(other, POWER_CYCLE);
}
