//! The slot table: for each of the 16,384 slots the ordered list of members that hold it.
//!
//! Slots lie on the ring in the order of their numbers, at equal distances, so that a member's slots form few runs. The first
//! member of a slot's list, its *primary*, is the ring's choice, corrected by a small balance pass; the others follow round the
//! ring, in distinct zones while there are any.
//!
//! A table is a function of the table before it and one change, and of nothing else. So every node that has seen the same changes
//! has the same table, bit for bit, and a change moves little: a member that joins takes its fair share, and a slot moves
//! between the others only to keep one of them below its ceiling; when a member leaves, each of its slots goes to the next
//! that has a copy, if that has room. Versions count the changes. A checksum over the encoded table shows two nodes that theirs
//! are the same.

use crc32c::crc32c;

use super::balance::Shares;
use super::{Member, Ring, RingError};
use crate::slot::{SLOTS, Slot};

/// The most members that a table can have.
pub const MEMBERS_MAX: usize = 1_024;

/// The most members that a slot's list can have.
pub const REPLICAS_MAX: u8 = 16;

/// The longest name of a member or a zone, in bytes.
pub const NAME_MAX: usize = 255;

/// Marks an encoded table, and the version of its format.
const MAGIC: [u8; 8] = *b"LATSLOT\x01";

/// One change of the membership.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// A member joins.
    Add {
        /// Its name, unique.
        name: String,
        /// Its share, relative to the others'.
        weight: u32,
        /// What it fails together with.
        zone: Option<String>,
    },
    /// A member leaves.
    Remove {
        /// Its name.
        name: String,
    },
    /// A member's share changes.
    Reweigh {
        /// Its name.
        name: String,
        /// Its new weight.
        weight: u32,
    },
    /// Slots get longer or shorter lists.
    Replicate {
        /// How many members a slot's list has, if there are so many.
        replicas: u8,
    },
}

/// Why a change is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TableError {
    /// The ring refuses it.
    #[error(transparent)]
    Ring(#[from] RingError),
    /// The last member cannot leave.
    #[error("{0:?} is the last member; its slots would belong to nobody")]
    LastMember(String),
    /// Too many members.
    #[error("a slot table has at most {MEMBERS_MAX} members")]
    TooManyMembers,
    /// A number of replicas out of range.
    #[error("{0} replicas: from 1 to {REPLICAS_MAX} are possible")]
    Replicas(u8),
    /// A name that is empty or too long.
    #[error("the name {0:?} is empty or longer than {NAME_MAX} bytes")]
    Name(String),
    /// Bytes that are damaged, or were not made by [`SlotTable::encode`].
    #[error("not a slot table: {0}")]
    Malformed(&'static str),
}

/// Which members hold which slots.
#[derive(Clone, Debug)]
pub struct SlotTable {
    version: u64,
    replicas: u8,
    ring: Ring<()>,
    /// For each slot the members that hold it, primary first, as indexes among the ring's members.
    lists: Vec<Vec<u16>>,
}

impl PartialEq for SlotTable {
    fn eq(&self, other: &Self) -> bool {
        self.version == other.version
            && self.replicas == other.replicas
            && self.ring.members() == other.ring.members()
            && self.lists == other.lists
    }
}

impl Eq for SlotTable {}

/// How even a table is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Balance {
    /// The largest share relative to the fair one by weight, among primaries.
    pub peak: f64,
    /// The same for all places in the lists.
    pub peak_with_replicas: f64,
    /// The most runs of consecutive slots that a member is the primary of.
    pub runs_max: usize,
}

/// What changes hands between two tables.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Movement {
    /// Slots with another primary.
    pub primaries: usize,
    /// Those of them whose old and new primary are members of both tables.
    pub between_old: usize,
    /// Slots that come to a member that had no copy, counted for each such member.
    pub copies: usize,
}

impl SlotTable {
    /// A table with one member, which has all slots.
    ///
    /// # Errors
    /// If the name, the weight or the number of replicas is out of range.
    pub fn founding(
        name: &str,
        weight: u32,
        zone: Option<&str>,
        replicas: u8,
    ) -> Result<Self, TableError> {
        check_replicas(replicas)?;
        let empty = Self { version: 0, replicas, ring: Ring::new(), lists: Vec::new() };
        empty.apply(&Change::Add { name: name.to_owned(), weight, zone: zone.map(str::to_owned) })
    }

    /// The table after `change`.
    ///
    /// # Errors
    /// If the change is impossible.
    pub fn apply(&self, change: &Change) -> Result<Self, TableError> {
        let (ring, replicas) = self.changed_ring(change)?;
        let mut primaries = self.carried_over(&ring);
        let weights: Vec<u64> =
            ring.members().iter().map(|member| u64::from(member.weight)).collect();
        let mut shares = Shares::new(&mut primaries, &weights);
        if let Change::Add { name, .. } = change {
            let newcomer = ring.find(name).expect("it was added");
            let is_wanted = |slot: &usize| ring.owner_at(place_of(*slot)) == Some(newcomer);
            shares.welcome(newcomer, (0..usize::from(SLOTS)).filter(is_wanted));
        }
        shares.inherit(|slot| self.heirs(slot, &ring));
        shares.level();
        let list_of = |(slot, primary): (usize, &Option<usize>)| {
            let list = ring.replicas_after(place_of(slot), *primary, usize::from(replicas));
            let index = |index| u16::try_from(index).expect("at most 1,024 members");
            list.into_iter().map(index).collect()
        };
        let lists = primaries.iter().enumerate().map(list_of).collect();
        Ok(Self { version: self.version + 1, replicas, ring, lists })
    }

    /// The ring and the number of replicas after `change`.
    fn changed_ring(&self, change: &Change) -> Result<(Ring<()>, u8), TableError> {
        let mut ring = self.ring.clone();
        match change {
            Change::Add { name, weight, zone } => {
                check_name(name)?;
                zone.as_ref().map_or(Ok(()), |zone| check_name(zone))?;
                if ring.members().len() == MEMBERS_MAX {
                    return Err(TableError::TooManyMembers);
                }
                let (name, weight, zone) = (name.clone(), *weight, zone.clone());
                ring.add_member(Member { name, weight, zone, node: () })?;
            }
            Change::Remove { name } => {
                ring.remove(name)?;
                if ring.members().is_empty() {
                    return Err(TableError::LastMember(name.clone()));
                }
            }
            Change::Reweigh { name, weight } => ring.set_weight(name, *weight)?,
            Change::Replicate { replicas } => {
                check_replicas(*replicas)?;
                return Ok((ring, *replicas));
            }
        }
        Ok((ring, self.replicas))
    }

    /// Each slot's primary, as an index into the new ring's members, if it is still one.
    fn carried_over(&self, ring: &Ring<()>) -> Vec<Option<usize>> {
        let members = self.ring.members().iter();
        let renumbered: Vec<Option<usize>> =
            members.map(|member| ring.find(&member.name).ok()).collect();
        let carried = |slot: usize| {
            let primary = self.lists.get(slot)?.first()?;
            renumbered[usize::from(*primary)]
        };
        (0..usize::from(SLOTS)).map(carried).collect()
    }

    /// Who may get a slot that has lost its primary: those that have a copy, then the new ring's choice.
    fn heirs(&self, slot: usize, ring: &Ring<()>) -> Vec<usize> {
        let holders = self.lists.get(slot).into_iter().flatten();
        let renumbered =
            |index: &u16| ring.find(&self.ring.members()[usize::from(*index)].name).ok();
        holders.filter_map(renumbered).chain(ring.owner_at(place_of(slot))).collect()
    }

    /// How many changes made it.
    #[must_use]
    pub fn version(&self) -> u64 {
        self.version
    }

    /// How many members a slot's list has at most.
    #[must_use]
    pub fn replicas(&self) -> u8 {
        self.replicas
    }

    /// The members, in order of their names.
    #[must_use]
    pub fn members(&self) -> &[Member<()>] {
        self.ring.members()
    }

    /// The names of the members that hold `slot`, primary first.
    pub fn holders(&self, slot: Slot) -> impl Iterator<Item = &str> {
        let list = &self.lists[usize::from(slot.0 % SLOTS)];
        list.iter().map(|index| self.ring.members()[usize::from(*index)].name.as_str())
    }

    /// The name of the member that coordinates `slot`.
    #[must_use]
    pub fn primary(&self, slot: Slot) -> &str {
        self.holders(slot).next().expect("every slot has a primary")
    }

    /// The runs of consecutive slots whose primary is `name`, first and last.
    #[must_use]
    pub fn runs(&self, name: &str) -> Vec<(Slot, Slot)> {
        let mut runs: Vec<(Slot, Slot)> = Vec::new();
        for slot in (0..SLOTS).map(Slot).filter(|slot| self.primary(*slot) == name) {
            match runs.last_mut() {
                Some((_, last)) if last.0 + 1 == slot.0 => *last = slot,
                _ => runs.push((slot, slot)),
            }
        }
        runs
    }

    /// How many slots `name` is the primary of.
    #[must_use]
    pub fn primaries(&self, name: &str) -> usize {
        self.runs(name).iter().map(|(first, last)| usize::from(last.0 - first.0) + 1).sum()
    }

    /// How even it is.
    #[must_use]
    pub fn balance(&self) -> Balance {
        let count = self.members().len();
        let (mut primaries, mut copies, mut runs) =
            (vec![0u32; count], vec![0u32; count], vec![0usize; count]);
        for list in &self.lists {
            primaries[usize::from(list[0])] += 1;
            for index in list {
                copies[usize::from(*index)] += 1;
            }
        }
        for run in self.lists.chunk_by(|list, next| list[0] == next[0]) {
            runs[usize::from(run[0][0])] += 1;
        }
        Balance {
            peak: self.peak(&primaries),
            peak_with_replicas: self.peak(&copies),
            runs_max: runs.into_iter().max().unwrap_or(0),
        }
    }

    /// The largest of `counts` relative to what the members' weights would have it.
    fn peak(&self, counts: &[u32]) -> f64 {
        let all: f64 = counts.iter().copied().map(f64::from).sum();
        let weights = self.members().iter().map(|member| f64::from(member.weight));
        let total: f64 = weights.clone().sum();
        let relative = counts.iter().zip(weights).map(|(count, weight)| f64::from(*count) / weight);
        relative.fold(0.0, f64::max) * total / all
    }

    /// What changes hands between this table and `later`.
    #[must_use]
    pub fn movement_to(&self, later: &Self) -> Movement {
        let mut movement = Movement::default();
        for slot in (0..SLOTS).map(Slot) {
            let (old, new) = (self.primary(slot), later.primary(slot));
            if old != new {
                movement.primaries += 1;
                let both_stay = later.ring.find(old).is_ok() && self.ring.find(new).is_ok();
                movement.between_old += usize::from(both_stay);
            }
            let is_new = |name: &&str| self.holders(slot).all(|holder| holder != *name);
            movement.copies += later.holders(slot).filter(is_new).count();
        }
        movement
    }

    /// The table as bytes; the format is in `docs/formats.md`.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let places = usize::from(SLOTS) * usize::from(self.replicas);
        let mut bytes = Vec::with_capacity(64 + 2 * places);
        bytes.extend_from_slice(&MAGIC);
        bytes.extend_from_slice(&self.version.to_le_bytes());
        bytes.push(self.replicas);
        let count = u16::try_from(self.members().len()).expect("at most 1,024 members");
        bytes.extend_from_slice(&count.to_le_bytes());
        for member in self.members() {
            put_name(&mut bytes, &member.name);
            put_name(&mut bytes, member.zone.as_deref().unwrap_or(""));
            bytes.extend_from_slice(&member.weight.to_le_bytes());
        }
        for index in self.lists.iter().flatten() {
            bytes.extend_from_slice(&index.to_le_bytes());
        }
        let checksum = crc32c(&bytes);
        bytes.extend_from_slice(&checksum.to_le_bytes());
        bytes
    }

    /// The checksum of the encoded table: the same on every node that has seen the same changes.
    #[must_use]
    pub fn checksum(&self) -> u32 {
        let bytes = self.encode();
        let checksum = bytes.last_chunk().expect("an encoded table ends in its checksum");
        u32::from_le_bytes(*checksum)
    }

    /// The table that [`SlotTable::encode`] made `bytes` of.
    ///
    /// # Errors
    /// If they are damaged or something else. Nothing is allocated from a length that they declare.
    pub fn decode(bytes: &[u8]) -> Result<Self, TableError> {
        let malformed = TableError::Malformed;
        let (body, checksum) = bytes.split_last_chunk::<4>().ok_or(malformed("it is too short"))?;
        if crc32c(body) != u32::from_le_bytes(*checksum) {
            return Err(malformed("its checksum does not match"));
        }
        let mut rest = Rest(body);
        if rest.take(MAGIC.len())? != MAGIC {
            return Err(malformed("it does not begin as one of version 1 does"));
        }
        let version = u64::from_le_bytes(rest.array()?);
        let [replicas] = rest.array()?;
        check_replicas(replicas)?;
        let count = usize::from(u16::from_le_bytes(rest.array()?));
        if count == 0 || count > MEMBERS_MAX {
            return Err(malformed("its number of members is out of range"));
        }
        let mut ring = Ring::new();
        for _ in 0..count {
            let name = rest.name()?;
            check_name(&name)?;
            let zone = Some(rest.name()?).filter(|zone| !zone.is_empty());
            let weight = u32::from_le_bytes(rest.array()?);
            ring.add_member(Member { name, weight, zone, node: () })?;
        }
        let length = usize::from(replicas).min(count);
        let lists = (0..SLOTS).map(|_| rest.list(length, count)).collect::<Result<_, _>>()?;
        if !rest.0.is_empty() {
            return Err(malformed("bytes follow its end"));
        }
        Ok(Self { version, replicas, ring, lists })
    }
}

/// Where `slot` lies on the circle.
fn place_of(slot: usize) -> u64 {
    (slot as u64) << (64 - SLOTS.trailing_zeros())
}

fn check_replicas(replicas: u8) -> Result<(), TableError> {
    let fits = (1..=REPLICAS_MAX).contains(&replicas);
    if fits { Ok(()) } else { Err(TableError::Replicas(replicas)) }
}

fn check_name(name: &str) -> Result<(), TableError> {
    let fits = (1..=NAME_MAX).contains(&name.len());
    if fits { Ok(()) } else { Err(TableError::Name(name.to_owned())) }
}

fn put_name(bytes: &mut Vec<u8>, name: &str) {
    bytes.push(u8::try_from(name.len()).expect("names are at most 255 bytes long"));
    bytes.extend_from_slice(name.as_bytes());
}

/// What of an encoded table has not been read.
struct Rest<'b>(&'b [u8]);

impl<'b> Rest<'b> {
    fn take(&mut self, length: usize) -> Result<&'b [u8], TableError> {
        let split = self.0.split_at_checked(length);
        let (taken, rest) = split.ok_or(TableError::Malformed("it ends too early"))?;
        self.0 = rest;
        Ok(taken)
    }

    fn array<const LENGTH: usize>(&mut self) -> Result<[u8; LENGTH], TableError> {
        Ok(self.take(LENGTH)?.try_into().expect("as many were taken"))
    }

    fn name(&mut self) -> Result<String, TableError> {
        let [length] = self.array()?;
        let name = str::from_utf8(self.take(usize::from(length))?);
        Ok(name.map_err(|_source| TableError::Malformed("a name is not UTF-8"))?.to_owned())
    }

    /// A slot's list: `length` distinct numbers below `members`.
    fn list(&mut self, length: usize, members: usize) -> Result<Vec<u16>, TableError> {
        let mut list = Vec::with_capacity(length);
        for _ in 0..length {
            let index = u16::from_le_bytes(self.array()?);
            if usize::from(index) >= members || list.contains(&index) {
                return Err(TableError::Malformed("a slot's list names no member, or one twice"));
            }
            list.push(index);
        }
        Ok(list)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn add(name: &str) -> Change {
        Change::Add { name: name.to_owned(), weight: 1, zone: None }
    }

    /// A table of `count` members whose names depend on `seed`.
    fn table(seed: u64, count: usize, replicas: u8) -> SlotTable {
        let mut table = SlotTable::founding(&format!("{seed}-0"), 1, None, replicas).unwrap();
        for number in 1..count {
            table = table.apply(&add(&format!("{seed}-{number}"))).unwrap();
        }
        table
    }

    /// The peak of the ring's own choice, without the balance pass.
    fn peak_of_ring(table: &SlotTable) -> f64 {
        let mut counts = vec![0u32; table.members().len()];
        for slot in 0..usize::from(SLOTS) {
            counts[table.ring.owner_at(place_of(slot)).unwrap()] += 1;
        }
        table.peak(&counts)
    }

    #[test]
    fn two_hundred_histories_are_even_and_move_little() {
        let all = f64::from(SLOTS);
        let mut peaks = Vec::new();
        for seed in 0..200 {
            let ten = table(seed, 10, 2);
            peaks.push(peak_of_ring(&ten));
            let balance = ten.balance();
            assert!(balance.peak <= 1.03, "seed {seed}: {balance:?}");
            assert!(balance.runs_max <= 300, "seed {seed}: {balance:?}");
            let eleven = ten.apply(&add(&format!("{seed}-10"))).unwrap();
            let joined = ten.movement_to(&eleven);
            assert!(joined.primaries as f64 <= 1.1 / 11.0 * all, "seed {seed}: {joined:?}");
            assert!(joined.between_old as f64 <= 0.005 * all, "seed {seed}: {joined:?}");
            assert!(eleven.balance().peak <= 1.03, "seed {seed}");
            let gone = format!("{seed}-{}", seed % 11);
            let left = eleven.apply(&Change::Remove { name: gone }).unwrap();
            let movement = eleven.movement_to(&left);
            assert!(movement.between_old as f64 <= 0.005 * all, "seed {seed}: {movement:?}");
            assert!(left.balance().peak <= 1.03, "seed {seed}");
        }
        peaks.sort_by(f64::total_cmp);
        let (median, p99) = (peaks[100], peaks[198]);
        assert!(median <= 1.12 && p99 <= 1.20, "before the pass: median {median}, p99 {p99}");
    }

    #[test]
    fn the_same_history_gives_the_same_table_and_checksum() {
        let (one, two) = (table(7, 6, 3), table(7, 6, 3));
        assert_eq!(one, two);
        assert_eq!(one.checksum(), two.checksum());
        assert_ne!(one.checksum(), table(8, 6, 3).checksum());
        assert_eq!(one.checksum(), GOLDEN_CHECKSUM, "a table must be the same in every version");
    }

    const GOLDEN_CHECKSUM: u32 = 2_827_028_001;

    #[test]
    fn an_encoded_table_comes_back_and_a_damaged_one_does_not() {
        let table = table(1, 5, 3);
        let bytes = table.encode();
        assert_eq!(SlotTable::decode(&bytes).unwrap(), table);
        for at in (0..bytes.len()).step_by(97) {
            let mut damaged = bytes.clone();
            damaged[at] ^= 0x40;
            assert!(matches!(SlotTable::decode(&damaged), Err(TableError::Malformed(_))));
            assert!(SlotTable::decode(&bytes[..at]).is_err());
        }
        // With a checksum that matches, nonsense inside is refused too: an index of 65,535, a name of 255 bytes.
        for at in [17, 19, bytes.len() - 6] {
            let mut forged = bytes[..bytes.len() - 4].to_vec();
            forged[at..at + 2].fill(0xff);
            let checksum = crc32c(&forged);
            forged.extend_from_slice(&checksum.to_le_bytes());
            assert!(SlotTable::decode(&forged).is_err(), "byte {at}");
        }
    }

    #[test]
    fn lists_are_distinct_and_in_distinct_zones() {
        let mut table = SlotTable::founding("n0", 1, Some("z0"), 3).unwrap();
        for number in 1..9 {
            let zone = Some(format!("z{}", number % 3));
            let change = Change::Add { name: format!("n{number}"), weight: 1, zone };
            table = table.apply(&change).unwrap();
        }
        let zone_of = |name: &str| {
            let member = table.members().iter().find(|member| member.name == name).unwrap();
            member.zone.clone().unwrap()
        };
        for slot in (0..SLOTS).map(Slot) {
            let mut zones: Vec<_> = table.holders(slot).map(zone_of).collect();
            zones.sort();
            assert_eq!(zones, ["z0", "z1", "z2"]);
        }
    }

    #[test]
    fn weights_decide_shares() {
        let table = table(3, 4, 2);
        let heavy = table.apply(&Change::Reweigh { name: "3-1".into(), weight: 3 }).unwrap();
        let share = heavy.primaries("3-1") as f64 / f64::from(SLOTS);
        assert!((share - 0.5).abs() <= 0.02, "{share}");
        assert!(heavy.balance().peak <= 1.03);
    }

    #[test]
    fn a_leavers_slots_go_to_those_that_have_copies() {
        let before = table(4, 6, 3);
        let after = before.apply(&Change::Remove { name: "4-2".into() }).unwrap();
        let orphans: Vec<_> =
            (0..SLOTS).map(Slot).filter(|slot| before.primary(*slot) == "4-2").collect();
        let had_copy =
            |slot: &&Slot| before.holders(**slot).any(|name| name == after.primary(**slot));
        let inherited = orphans.iter().filter(had_copy).count();
        assert!(inherited * 10 >= orphans.len() * 8, "{inherited} of {}", orphans.len());
    }

    #[test]
    fn impossible_changes_are_refused() {
        let table = table(5, 1, 3);
        let remove = Change::Remove { name: "5-0".into() };
        assert!(matches!(table.apply(&remove), Err(TableError::LastMember(_))));
        assert!(matches!(table.apply(&add("5-0")), Err(TableError::Ring(RingError::Present(_)))));
        assert!(matches!(table.apply(&add("")), Err(TableError::Name(_))));
        let replicate = Change::Replicate { replicas: 0 };
        assert!(matches!(table.apply(&replicate), Err(TableError::Replicas(0))));
        assert_eq!(table.holders(Slot(0)).count(), 1, "one member holds it, though three may");
    }
}
