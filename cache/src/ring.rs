//! The consistent-hash ring: which member has a key, and which do when members come and go.
//!
//! A member puts *virtual nodes* on a circle of 2⁶⁴ places, 256 for each unit of its weight; a key belongs to the member whose
//! virtual node is the first at or after the key's own place (Karger et al., STOC 1997; Dynamo, SOSP 2007, §4.2). A member that
//! joins takes keys from its neighbours on the circle and from nobody else, and one that leaves hands its keys to them; with N
//! members about 1/N of the keys move, where a hash modulo N would move nearly all. Virtual nodes make the shares even: their
//! spread falls with the square root of their number. Here each of a member's 256 lies somewhere in an arc of its own, the
//! circle's 1st, 2nd, … 256th part, which makes the shares a little more even than places drawn from the whole circle.
//!
//! A place depends on the member's name and the virtual node's number alone, through xxh3 with a fixed seed, so every process
//! that knows the same members has the same ring, in every version of this library: golden tests hold it to that.
//!
//! The ring serves any keys and any type of node. The cache itself does not look keys up on it: it keeps a table of 16,384 slots
//! that is made from it and balanced further ([`table`]).
//!
//! ```
//! use distributed_cache::ring::Ring;
//!
//! let mut ring = Ring::new();
//! ring.add("a", "10.0.0.1:6379")?;
//! ring.add("b", "10.0.0.2:6379")?;
//! let before = *ring.owner(b"user:1000").expect("the ring has members");
//! ring.add("c", "10.0.0.3:6379")?;
//! let after = *ring.owner(b"user:1000").expect("the ring has members");
//! assert!(after == before || after == "10.0.0.3:6379");
//! # Ok::<(), distributed_cache::ring::RingError>(())
//! ```

mod balance;
pub mod table;

use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

/// Virtual nodes for each unit of weight. With ten members of equal weight the fullest then has about 1.11 times the mean.
pub const VIRTUAL_NODES: u32 = 256;

/// The most virtual nodes that all members may have together.
pub const VIRTUAL_NODES_MAX: u64 = 1 << 24;

/// Why the ring refuses a change.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RingError {
    /// A member of this name is there already.
    #[error("the ring has a member {0:?} already; remove it first, or change its weight")]
    Present(String),
    /// No member has this name.
    #[error("the ring has no member {0:?}")]
    Absent(String),
    /// A weight of zero would own nothing.
    #[error("member {0:?} needs a weight of at least 1")]
    ZeroWeight(String),
    /// Together the members would have too many virtual nodes.
    #[error("{0} virtual nodes in all, more than {VIRTUAL_NODES_MAX}: use smaller weights")]
    TooLarge(u64),
}

/// A member of the ring.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member<N> {
    /// What its places on the circle are made from. Unique.
    pub name: String,
    /// Its share, relative to the other members'. At least 1.
    pub weight: u32,
    /// What fails together: a rack, a data centre. Replicas go to distinct zones while there are any.
    pub zone: Option<String>,
    /// Whatever the caller wants back.
    pub node: N,
}

/// A consistent-hash ring with virtual nodes, weights and zones.
#[derive(Clone, Debug)]
pub struct Ring<N> {
    virtual_nodes: u32,
    /// In order of their names, so that the order of joining leaves no trace.
    members: Vec<Member<N>>,
    /// All virtual nodes in order of their place.
    points: Vec<Point>,
    /// For each of equally long arcs of the circle, the first point at or after its beginning: a lookup begins there and takes
    /// a step or two, however many members there are.
    starts: Vec<u32>,
}

/// A virtual node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Point {
    place: u64,
    member: u32,
}

impl<N> Default for Ring<N> {
    fn default() -> Self {
        Self::new()
    }
}

impl<N> Ring<N> {
    /// A ring without members, with [`VIRTUAL_NODES`] for each unit of weight.
    #[must_use]
    pub fn new() -> Self {
        Self::with_virtual_nodes(VIRTUAL_NODES)
    }

    /// A ring without members, with another number of virtual nodes for each unit of weight.
    ///
    /// # Panics
    /// If `virtual_nodes` is 0.
    #[must_use]
    pub fn with_virtual_nodes(virtual_nodes: u32) -> Self {
        assert!(virtual_nodes > 0, "a member needs a virtual node");
        Self { virtual_nodes, members: Vec::new(), points: Vec::new(), starts: Vec::new() }
    }

    /// Adds a member of weight 1 without a zone.
    ///
    /// # Errors
    /// As [`Ring::add_member`].
    pub fn add(&mut self, name: impl Into<String>, node: N) -> Result<(), RingError> {
        self.add_member(Member { name: name.into(), weight: 1, zone: None, node })
    }

    /// Adds a member.
    ///
    /// # Errors
    /// If there is one of this name, if its weight is 0, or if there would be too many virtual nodes.
    pub fn add_member(&mut self, member: Member<N>) -> Result<(), RingError> {
        let Err(index) = self.find(&member.name) else {
            return Err(RingError::Present(member.name));
        };
        self.admit(&member.name, member.weight, self.total_weight())?;
        self.members.insert(index, member);
        self.rebuild();
        Ok(())
    }

    /// Removes the member of this name and returns it.
    ///
    /// # Errors
    /// If there is none.
    pub fn remove(&mut self, name: &str) -> Result<Member<N>, RingError> {
        let index = self.find(name).map_err(|_place| RingError::Absent(name.to_owned()))?;
        let member = self.members.remove(index);
        self.rebuild();
        Ok(member)
    }

    /// Changes a member's weight.
    ///
    /// # Errors
    /// If there is no such member, if the weight is 0, or if there would be too many virtual nodes.
    pub fn set_weight(&mut self, name: &str, weight: u32) -> Result<(), RingError> {
        let index = self.find(name).map_err(|_place| RingError::Absent(name.to_owned()))?;
        let others = self.total_weight() - u64::from(self.members[index].weight);
        self.admit(name, weight, others)?;
        self.members[index].weight = weight;
        self.rebuild();
        Ok(())
    }

    fn admit(&self, name: &str, weight: u32, others: u64) -> Result<(), RingError> {
        if weight == 0 {
            return Err(RingError::ZeroWeight(name.to_owned()));
        }
        let all = (others + u64::from(weight)).saturating_mul(u64::from(self.virtual_nodes));
        if all > VIRTUAL_NODES_MAX { Err(RingError::TooLarge(all)) } else { Ok(()) }
    }

    fn total_weight(&self) -> u64 {
        self.members.iter().map(|member| u64::from(member.weight)).sum()
    }

    fn find(&self, name: &str) -> Result<usize, usize> {
        self.members.binary_search_by(|member| member.name.as_str().cmp(name))
    }

    fn rebuild(&mut self) {
        self.points.clear();
        let arcs = u64::from(self.virtual_nodes);
        for (index, member) in (0..).zip(&self.members) {
            let named = xxh3_64(member.name.as_bytes());
            for number in 0..u64::from(member.weight) * u64::from(self.virtual_nodes) {
                let hash = xxh3_64_with_seed(&number.to_le_bytes(), named);
                let arc = usize::try_from(number % arcs).expect("at most 2^24 virtual nodes");
                let place = place_in(arc, self.virtual_nodes as usize, hash);
                self.points.push(Point { place, member: index });
            }
        }
        // Two points at one place would be ordered by their members' names: the same on every node.
        self.points.sort_unstable();
        let arcs = if self.points.is_empty() { 0 } else { self.points.len().next_power_of_two() };
        self.starts.clear();
        let mut next = 0;
        for arc in 0..arcs {
            let begin = arc_begin(arc, arcs);
            while self.points.get(next).is_some_and(|point| point.place < begin) {
                next += 1;
            }
            self.starts.push(u32::try_from(next).expect("there are at most 2^24 points"));
        }
    }

    /// The members, in order of their names.
    #[must_use]
    pub fn members(&self) -> &[Member<N>] {
        &self.members
    }

    /// Where `key` lies on the circle.
    #[must_use]
    pub fn place_of(key: &[u8]) -> u64 {
        xxh3_64(key)
    }

    /// The node that owns `key`; None if the ring has no members. Takes constant time.
    #[must_use]
    pub fn owner(&self, key: &[u8]) -> Option<&N> {
        self.owner_at(Self::place_of(key)).map(|index| &self.members[index].node)
    }

    /// The index among [`Ring::members`] of the one that owns the place.
    #[must_use]
    pub fn owner_at(&self, place: u64) -> Option<usize> {
        let point = self.points.get(self.first_point(place)?)?;
        Some(point.member as usize)
    }

    /// The first point at or after `place`, going round.
    fn first_point(&self, place: u64) -> Option<usize> {
        let arcs = self.starts.len();
        if arcs == 0 {
            return None;
        }
        let mut index = self.starts[arc_of(place, arcs)] as usize;
        while self.points.get(index).is_some_and(|point| point.place < place) {
            index += 1;
        }
        Some(if index == self.points.len() { 0 } else { index })
    }

    /// The nodes that hold `key` and its copies, `count` of them or all there are: the owner, then the next ones round the
    /// circle, each in a zone that has none yet. When all zones have one, those that were passed over follow in their order.
    #[must_use]
    pub fn replicas(&self, key: &[u8], count: usize) -> Vec<&N> {
        let indexes = self.replicas_at(Self::place_of(key), count);
        indexes.into_iter().map(|index| &self.members[index].node).collect()
    }

    /// As [`Ring::replicas`], for a place, as indexes among [`Ring::members`].
    #[must_use]
    pub fn replicas_at(&self, place: u64, count: usize) -> Vec<usize> {
        self.replicas_after(place, None, count)
    }

    /// As [`Ring::replicas_at`], with `first` in the first place whoever owns it.
    fn replicas_after(&self, place: u64, first: Option<usize>, count: usize) -> Vec<usize> {
        let count = count.min(self.members.len());
        let mut chosen: Vec<usize> = first.into_iter().take(count).collect();
        let mut passed_over = Vec::new();
        let Some(start) = self.first_point(place) else { return chosen };
        for point in self.points[start..].iter().chain(&self.points[..start]) {
            if chosen.len() == count || chosen.len() + passed_over.len() == self.members.len() {
                break;
            }
            let member = point.member as usize;
            if chosen.contains(&member) || passed_over.contains(&member) {
                continue;
            }
            let zone = &self.members[member].zone;
            let is_new =
                zone.is_none() || chosen.iter().all(|chosen| self.members[*chosen].zone != *zone);
            if is_new { chosen.push(member) } else { passed_over.push(member) }
        }
        let missing = count - chosen.len();
        chosen.extend(passed_over.into_iter().take(missing));
        chosen
    }
}

/// The place `hash` within arc number `arc` of `arcs`.
fn place_in(arc: usize, arcs: usize, hash: u64) -> u64 {
    let place = (((arc as u128) << 64) + u128::from(hash)) / arcs as u128;
    u64::try_from(place).expect("an arc lies on the circle")
}

/// Where arc number `arc` of `arcs` begins. `arcs` is a power of two.
fn arc_begin(arc: usize, arcs: usize) -> u64 {
    let begin = ((arc as u128) << 64) / arcs as u128;
    u64::try_from(begin).expect("an arc begins on the circle")
}

/// The arc in which `place` lies.
fn arc_of(place: u64, arcs: usize) -> usize {
    usize::try_from((u128::from(place) * arcs as u128) >> 64).expect("below the number of arcs")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ring(names: impl IntoIterator<Item = String>) -> Ring<String> {
        let mut ring = Ring::new();
        for name in names {
            ring.add(name.clone(), name).unwrap();
        }
        ring
    }

    fn keys() -> impl Iterator<Item = Vec<u8>> {
        (0..20_000).map(|number: u32| format!("key:{number}").into_bytes())
    }

    #[test]
    fn places_are_the_same_in_every_version() {
        let ring = ring(["a".to_owned(), "b".to_owned(), "c".to_owned()]);
        let owners: String = (0..32)
            .map(|number| ring.owner(format!("key:{number}").as_bytes()).unwrap().as_str())
            .collect();
        assert_eq!(owners, GOLDEN_OWNERS);
    }

    const GOLDEN_OWNERS: &str = "acaaababcbabccbbcaabbcabccababaa";

    #[test]
    fn the_lookup_agrees_with_a_search_of_all_points() {
        let ring = ring((0..7).map(|number| format!("node{number}")));
        for key in keys() {
            let place = Ring::<String>::place_of(&key);
            let after =
                ring.points.partition_point(|point| point.place < place) % ring.points.len();
            assert_eq!(ring.owner_at(place), Some(ring.points[after].member as usize));
        }
        for place in [0, 1, u64::MAX, ring.points[0].place, ring.points.last().unwrap().place] {
            let after =
                ring.points.partition_point(|point| point.place < place) % ring.points.len();
            assert_eq!(ring.owner_at(place), Some(ring.points[after].member as usize));
        }
    }

    #[test]
    fn a_joining_member_takes_keys_and_moves_none_between_others() {
        let before = ring((0..5).map(|number| format!("node{number}")));
        let mut after = before.clone();
        after.add("node5", "node5".to_owned()).unwrap();
        let mut moved = 0;
        for key in keys() {
            let (old, new) = (before.owner(&key).unwrap(), after.owner(&key).unwrap());
            assert!(old == new || new == "node5");
            moved += usize::from(old != new);
        }
        let share = moved as f64 / 20_000.0;
        assert!((share - 1.0 / 6.0).abs() < 0.04, "{share}");
        after.remove("node5").unwrap();
        assert!(keys().all(|key| before.owner(&key) == after.owner(&key)));
    }

    #[test]
    fn the_order_of_joining_leaves_no_trace() {
        let forward = ring((0..9).map(|number| format!("node{number}")));
        let backward = ring((0..9).rev().map(|number| format!("node{number}")));
        assert!(keys().all(|key| forward.replicas(&key, 3) == backward.replicas(&key, 3)));
    }

    #[test]
    fn a_member_of_twice_the_weight_has_twice_the_keys() {
        let mut ring = ring((0..4).map(|number| format!("node{number}")));
        ring.set_weight("node0", 2).unwrap();
        let share =
            keys().filter(|key| ring.owner(key).unwrap() == "node0").count() as f64 / 20_000.0;
        assert!((share - 0.4).abs() < 0.04, "{share}");
    }

    #[test]
    fn replicas_lie_in_distinct_zones_while_there_are_any() {
        let mut ring = Ring::new();
        for number in 0..9 {
            ring.add_member(Member {
                name: format!("node{number}"),
                weight: 1,
                zone: Some(format!("zone{}", number % 3)),
                node: number,
            })
            .unwrap();
        }
        for key in keys() {
            let replicas = ring.replicas(&key, 5);
            let mut zones: Vec<_> = replicas[..3].iter().map(|number| **number % 3).collect();
            zones.sort_unstable();
            assert_eq!(zones, [0, 1, 2]);
            let mut distinct = replicas.clone();
            distinct.sort_unstable();
            distinct.dedup();
            assert_eq!(distinct.len(), 5, "{replicas:?}");
            assert_eq!(Some(replicas[0]), ring.owner(&key));
        }
    }

    #[test]
    fn impossible_changes_are_refused() {
        let mut ring = ring(["a".to_owned()]);
        assert_eq!(ring.add("a", String::new()), Err(RingError::Present("a".into())));
        assert_eq!(ring.remove("b").unwrap_err(), RingError::Absent("b".into()));
        assert_eq!(ring.set_weight("a", 0), Err(RingError::ZeroWeight("a".into())));
        assert!(matches!(ring.set_weight("a", u32::MAX), Err(RingError::TooLarge(_))));
        assert_eq!(Ring::<()>::new().owner(b"key"), None);
        assert!(Ring::<()>::new().replicas(b"key", 3).is_empty());
    }
}
