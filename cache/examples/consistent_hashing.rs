//! Consistent hashing, from the ring to the slot table: who has a key, and what moves when members come and go.
//!
//! `cargo run --example consistent_hashing`. Every number that it prints is checked as well.

#![expect(clippy::print_stdout, reason = "an example prints")]

use std::collections::BTreeMap;
use std::error::Error;

use distributed_cache::ring::Ring;
use distributed_cache::ring::table::{Change, SlotTable};
use distributed_cache::slot::{SLOTS, Slot};

/// How many keys are looked up.
const KEYS: usize = 100_000;

fn main() -> Result<(), Box<dyn Error>> {
    modulo();
    ring()?;
    slot_table()?;
    println!("\nAll of this was checked.");
    Ok(())
}

fn modulo() {
    println!("1. A hash modulo N moves nearly everything.");
    let owner =
        |number: usize, members: u64| Ring::<()>::place_of(key(number).as_bytes()) % members;
    let moved = (0..KEYS).filter(|number| owner(*number, 3) != owner(*number, 4)).count();
    println!("   from 3 to 4 members: {:.1} % of the keys move\n", percent(moved, KEYS));
    assert!(percent(moved, KEYS) > 70.0, "three of four keys have another remainder");
}

fn ring() -> Result<(), Box<dyn Error>> {
    println!("2. A ring moves what the newcomer takes, and nothing else.");
    let mut before = Ring::new();
    for name in ["alpha", "beta", "gamma"] {
        before.add(name, name)?;
    }
    for key in ["user:1", "user:2", "session:9f", "cart:77"] {
        println!("   {key:<12} lies with {}", before.owner(key.as_bytes()).ok_or("no members")?);
    }
    let mut after = before.clone();
    after.add("delta", "delta")?;
    let mut moved = 0;
    let mut shares = BTreeMap::new();
    for number in 0..KEYS {
        let key = key(number);
        let old = *before.owner(key.as_bytes()).ok_or("no members")?;
        let new = *after.owner(key.as_bytes()).ok_or("no members")?;
        assert!(new == old || new == "delta", "a key moved between old members");
        *shares.entry(new).or_insert(0) += 1;
        moved += usize::from(new != old);
    }
    println!("   delta joins: {:.1} % of the keys move, all of them to it", percent(moved, KEYS));
    for (name, keys) in shares {
        println!("   {name:<6} has {:.1} %", percent(keys, KEYS));
    }
    assert!((percent(moved, KEYS) - 25.0).abs() < 4.0, "the newcomer takes about a quarter");
    Ok(())
}

fn slot_table() -> Result<(), Box<dyn Error>> {
    println!("\n3. The cache places 16,384 slots once, and balances them further.");
    let join = |name: &str| Change::Add { name: name.to_owned(), weight: 1, zone: None };
    let mut table = SlotTable::founding("alpha", 1, None, 2)?;
    for name in ["beta", "gamma", "delta"] {
        table = table.apply(&join(name))?;
    }
    let slot = Slot::of(b"{user:1}.cart");
    assert_eq!(slot, Slot::of(b"{user:1}.profile"), "a hash tag keeps keys together");
    let holders: Vec<&str> = table.holders(slot).collect();
    println!("   {{user:1}}.cart and {{user:1}}.profile: slot {}, held by {holders:?}", slot.0);
    println!("   version {}, checksum {:08x}", table.version(), table.checksum());
    println!("   the fullest member has {:.3} times the mean", table.balance().peak);
    assert!(table.balance().peak <= 1.03, "the balance pass keeps everybody below");

    let later = table.apply(&join("epsilon"))?;
    let movement = table.movement_to(&later);
    let share = percent(movement.primaries, usize::from(SLOTS));
    println!(
        "   epsilon joins: {share:.1} % of the slots get another primary, {} between old members",
        movement.between_old
    );
    assert!(share <= 110.0 / 5.0, "no more than a fifth and a tenth of that");
    assert_eq!(SlotTable::decode(&later.encode())?, later, "any node can read it");
    Ok(())
}

fn key(number: usize) -> String {
    format!("user:{number}")
}

fn percent(part: usize, whole: usize) -> f64 {
    100.0 * part as f64 / whole as f64
}
