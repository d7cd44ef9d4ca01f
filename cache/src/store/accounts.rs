//! The memory that all shards and connections use together, and the limit.
//!
//! Shards publish what they occupy when it changes, which is when they take or give back a block, not with every command. What is
//! counted is what is taken from the allocator, not what is filled. As the process may occupy more than that (fragments,
//! its own code), [`Accounts::report_resident`] lowers the limit that is really applied until the process keeps to what it
//! was promised to: 1.05 times the limit, or 64 MiB above it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU8, AtomicU64, Ordering};

use super::{Memory, Policy, SHARDS};

/// Policies by the number that stands for them in an atomic.
const POLICIES: [Policy; 8] = [
    Policy::NoEviction,
    Policy::AllKeysLru,
    Policy::AllKeysLfu,
    Policy::AllKeysRandom,
    Policy::VolatileLru,
    Policy::VolatileLfu,
    Policy::VolatileRandom,
    Policy::VolatileTtl,
];

/// What all shards know of each other.
#[derive(Debug)]
pub(super) struct Accounts {
    limit: AtomicU64,
    /// The limit that is applied; all ones if there is none.
    effective: AtomicU64,
    /// Above this a shard makes room in itself before it takes another block.
    soft: AtomicU64,
    /// By how much the limit is lowered because the process occupies more than is counted.
    drift: AtomicU64,
    used: AtomicI64,
    buffers: AtomicI64,
    peak: AtomicI64,
    shards: [ShardAccount; SHARDS as usize],
    /// What gives way, by its number.
    policy: AtomicU8,
    /// Whether changes are kept.
    observed: AtomicBool,
    #[cfg(feature = "sim")]
    planted: Planted,
}

/// What only the simulator has: a bug, and a count of what cannot be seen from outside.
#[cfg(feature = "sim")]
#[derive(Debug, Default)]
struct Planted {
    bug: std::sync::OnceLock<crate::sim::PlantedBug>,
    compactions: AtomicU64,
}

#[derive(Debug, Default)]
struct ShardAccount {
    data: AtomicU64,
    overhead: AtomicU64,
}

/// What one shard occupies, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Occupied {
    /// Cells and objects.
    pub(super) data: usize,
    /// Everything else.
    pub(super) overhead: usize,
}

impl Occupied {
    /// Both.
    pub(super) fn sum(self) -> usize {
        self.data + self.overhead
    }
}

/// Memory beside keys and connections' buffers that counts against the limit: what a registry or a client keeps. It counts no more
/// once this is dropped. One made by `default` counts nowhere.
#[derive(Debug, Default)]
pub struct Charge {
    accounts: Option<Arc<Accounts>>,
    bytes: usize,
}

impl Charge {
    pub(super) fn new(accounts: Arc<Accounts>) -> Self {
        Self { accounts: Some(accounts), bytes: 0 }
    }

    /// How many bytes are counted.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Counts `bytes`, whatever was counted before.
    pub fn set(&mut self, bytes: usize) {
        if let Some(accounts) = &self.accounts
            && bytes != self.bytes
        {
            accounts.charge_buffers(signed(bytes) - signed(self.bytes));
        }
        self.bytes = bytes;
    }

    /// Counts `bytes` more.
    pub fn add(&mut self, bytes: usize) {
        self.set(self.bytes.saturating_add(bytes));
    }

    /// Counts `bytes` less.
    pub fn take(&mut self, bytes: usize) {
        self.set(self.bytes.saturating_sub(bytes));
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        self.set(0);
    }
}

fn signed(bytes: usize) -> i64 {
    i64::try_from(bytes).expect("an address space is smaller than 2^63")
}

fn unsigned(bytes: i64) -> u64 {
    u64::try_from(bytes).unwrap_or(0)
}

impl Accounts {
    pub(super) fn new(limit: u64, policy: Policy) -> Self {
        let accounts = Self {
            limit: AtomicU64::new(limit),
            effective: AtomicU64::new(u64::MAX),
            soft: AtomicU64::new(u64::MAX),
            drift: AtomicU64::new(0),
            used: AtomicI64::new(0),
            buffers: AtomicI64::new(0),
            peak: AtomicI64::new(0),
            shards: std::array::from_fn(|_| ShardAccount::default()),
            policy: AtomicU8::new(0),
            observed: AtomicBool::new(false),
            #[cfg(feature = "sim")]
            planted: Planted::default(),
        };
        accounts.set_policy(policy);
        accounts.apply();
        accounts
    }

    /// Works out what follows from the limit and the drift.
    fn apply(&self) {
        let limit = self.limit();
        #[cfg(feature = "sim")]
        let limit = match self.bug() {
            Some(crate::sim::PlantedBug::LimitForgotten) => 0,
            _ => limit,
        };
        let (effective, soft) = if limit == 0 {
            (u64::MAX, u64::MAX)
        } else {
            let effective = limit - self.drift.load(Ordering::Relaxed).min(limit / 2);
            (effective, effective - (effective / 64).min(4 << 20))
        };
        self.effective.store(effective, Ordering::Relaxed);
        self.soft.store(soft, Ordering::Relaxed);
    }

    pub(super) fn limit(&self) -> u64 {
        self.limit.load(Ordering::Relaxed)
    }

    pub(super) fn set_limit(&self, bytes: u64) {
        self.limit.store(bytes, Ordering::Relaxed);
        self.drift.store(0, Ordering::Relaxed);
        self.apply();
    }

    #[inline]
    pub(super) fn policy(&self) -> Policy {
        POLICIES[usize::from(self.policy.load(Ordering::Relaxed))]
    }

    pub(super) fn set_policy(&self, policy: Policy) {
        let number = POLICIES.iter().position(|it| *it == policy).expect("all are listed");
        self.policy.store(u8::try_from(number).expect("they are eight"), Ordering::Relaxed);
    }

    #[inline]
    pub(super) fn observed(&self) -> bool {
        self.observed.load(Ordering::Relaxed)
    }

    pub(super) fn observe(&self, observed: bool) {
        self.observed.store(observed, Ordering::Relaxed);
    }

    #[cfg(feature = "sim")]
    pub(super) fn plant(&self, bug: crate::sim::PlantedBug) {
        let _already = self.planted.bug.set(bug);
        self.apply();
    }

    #[cfg(feature = "sim")]
    pub(super) fn bug(&self) -> Option<crate::sim::PlantedBug> {
        self.planted.bug.get().copied()
    }

    #[cfg(feature = "sim")]
    pub(super) fn note_compaction(&self) {
        self.planted.compactions.fetch_add(1, Ordering::Relaxed);
    }

    #[cfg(feature = "sim")]
    pub(super) fn compactions(&self) -> u64 {
        self.planted.compactions.load(Ordering::Relaxed)
    }

    pub(super) fn charge_buffers(&self, change: i64) {
        let buffers = self.buffers.fetch_add(change, Ordering::Relaxed) + change;
        if change > 0 {
            self.peak.fetch_max(self.used.load(Ordering::Relaxed) + buffers, Ordering::Relaxed);
        }
    }

    /// Everything that is counted.
    fn total(&self) -> u64 {
        unsigned(self.used.load(Ordering::Relaxed) + self.buffers.load(Ordering::Relaxed))
    }

    /// A shard occupies something else than before.
    pub(super) fn publish(&self, shard: u16, before: Occupied, after: Occupied) {
        let account = &self.shards[usize::from(shard)];
        account.data.store(after.data as u64, Ordering::Relaxed);
        account.overhead.store(after.overhead as u64, Ordering::Relaxed);
        let change = signed(after.sum()) - signed(before.sum());
        let used = self.used.fetch_add(change, Ordering::Relaxed) + change;
        if change > 0 {
            self.peak.fetch_max(used + self.buffers.load(Ordering::Relaxed), Ordering::Relaxed);
        }
    }

    /// Whether a shard that needs another `bytes` has to find them in itself.
    #[inline]
    pub(super) fn is_scarce(&self, bytes: usize) -> bool {
        let soft = self.soft.load(Ordering::Relaxed);
        soft != u64::MAX && self.total().saturating_add(bytes as u64) > soft
    }

    /// By how much another `bytes` exceed the limit.
    #[inline]
    pub(super) fn excess(&self, bytes: usize) -> u64 {
        let effective = self.effective.load(Ordering::Relaxed);
        if effective == u64::MAX {
            return 0;
        }
        self.total().saturating_add(bytes as u64).saturating_sub(effective)
    }

    /// Whether the limit itself would be kept to: if not even so there is an excess, the process's size is why.
    pub(super) fn is_within_limit(&self) -> bool {
        self.total() <= self.limit()
    }

    /// What shard number `shard` occupies.
    pub(super) fn shard(&self, shard: u16) -> u64 {
        let account = &self.shards[usize::from(shard)];
        account.data.load(Ordering::Relaxed) + account.overhead.load(Ordering::Relaxed)
    }

    /// Takes note of what the process occupies.
    ///
    /// What it occupies beyond what is counted is either lost to fragments, or free and only not yet given back. In both cases
    /// the store may grow by what is left until the aim, and so that is the limit to apply: memory that is free is used first, and
    /// as it is, the limit rises again. The process may grow somewhat faster than the store, therefore a quarter is kept back.
    pub(super) fn report_resident(&self, resident: u64) {
        let limit = self.limit();
        if limit == 0 {
            return;
        }
        // Aimed at somewhat less than what is promised, as there is time between two reports.
        let aim = limit.saturating_add((limit / 40).max(32 << 20));
        let total = self.total();
        let applied = self.effective.load(Ordering::Relaxed);
        let effective = if resident.saturating_sub(total) <= aim - limit {
            limit
        } else if resident <= aim {
            total.saturating_add((aim - resident) / 4 * 3)
        } else {
            // By half: memory that is given back takes a while until it is no longer resident.
            applied.min(total).saturating_sub((resident - aim).div_ceil(2))
        };
        self.drift.store(limit - effective.clamp(limit / 2, limit), Ordering::Relaxed);
        self.apply();
    }

    pub(super) fn memory(&self) -> Memory {
        let sum = |part: fn(&ShardAccount) -> &AtomicU64| {
            self.shards.iter().map(|shard| part(shard).load(Ordering::Relaxed)).sum()
        };
        Memory {
            used: self.total(),
            peak: unsigned(self.peak.load(Ordering::Relaxed)),
            data: sum(|shard| &shard.data),
            overhead: sum(|shard| &shard.overhead),
            buffers: unsigned(self.buffers.load(Ordering::Relaxed)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GIB: u64 = 1 << 30;

    fn occupied(accounts: &Accounts, bytes: u64) {
        let before = Occupied { data: accounts.shard(3).try_into().unwrap(), overhead: 0 };
        let after = Occupied { data: bytes.try_into().unwrap(), overhead: 0 };
        accounts.publish(3, before, after);
    }

    #[test]
    fn a_process_that_is_somewhat_larger_than_what_is_counted_changes_nothing() {
        let accounts = Accounts::new(GIB, Policy::AllKeysLru);
        for used in [0, GIB / 2, GIB] {
            occupied(&accounts, used);
            accounts.report_resident(used + (30 << 20));
            assert_eq!(accounts.excess(0), 0);
        }
    }

    #[test]
    fn fragments_lower_the_limit_before_the_process_is_too_large() {
        let accounts = Accounts::new(GIB, Policy::AllKeysLru);
        let mut used = 0;
        let mut resident = 0;
        // The process takes a third more than what is counted; the store fills up.
        for _ in 0..200 {
            used = (used + (16 << 20)).min(accounts.effective.load(Ordering::Relaxed));
            occupied(&accounts, used);
            resident = used + used / 3;
            accounts.report_resident(resident);
            assert!(resident <= GIB + GIB / 20, "{resident}");
        }
        assert!(resident > GIB, "what there is is used: {resident}");
    }

    #[test]
    fn memory_that_is_only_not_given_back_is_used_again() {
        let accounts = Accounts::new(GIB, Policy::AllKeysLru);
        occupied(&accounts, GIB);
        accounts.report_resident(GIB);
        occupied(&accounts, 0);
        let mut used = 0;
        for _ in 0..2_000 {
            accounts.report_resident(GIB);
            used = (used + (1 << 20)).min(accounts.effective.load(Ordering::Relaxed));
            occupied(&accounts, used);
        }
        assert_eq!(used, GIB);
    }

    #[test]
    fn at_least_half_of_the_limit_stays() {
        let accounts = Accounts::new(GIB, Policy::AllKeysLru);
        occupied(&accounts, GIB);
        for _ in 0..100 {
            accounts.report_resident(4 * GIB);
        }
        assert_eq!(accounts.excess(0), GIB / 2);
    }

    #[test]
    fn what_is_published_and_charged_is_summed() {
        let accounts = Accounts::new(0, Policy::NoEviction);
        assert!(!accounts.is_scarce(usize::MAX / 2));
        let occupied = Occupied { data: 100, overhead: 20 };
        accounts.publish(0, Occupied::default(), occupied);
        accounts.publish(15, Occupied::default(), occupied);
        accounts.publish(0, occupied, Occupied::default());
        accounts.charge_buffers(1_000);
        accounts.charge_buffers(-900);
        let memory = accounts.memory();
        assert_eq!(
            (memory.used, memory.data, memory.overhead, memory.buffers),
            (220, 100, 20, 100)
        );
        assert_eq!(memory.peak, 1_120);
        assert_eq!((accounts.shard(0), accounts.shard(15)), (0, 120));
    }
}
