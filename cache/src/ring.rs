//! SKELETON: the consistent-hash ring, and the slot table made from it.
