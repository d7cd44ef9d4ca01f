//! SKELETON: the network edge.
