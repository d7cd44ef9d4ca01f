//! SKELETON: the embedded cache.
