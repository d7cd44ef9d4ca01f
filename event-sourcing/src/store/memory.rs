//! SKELETON (owner: store): the backend in memory.
