//! Nodes in the simulator, and the planted bugs.

mod bug;

pub use bug::PlantedBug;
