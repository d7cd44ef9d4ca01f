//! A cache node that shows what it can do, and then serves.

fn main() {}
