//! SKELETON: glob patterns, matched in linear time.
