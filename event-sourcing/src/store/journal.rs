//! SKELETON (owner: log): the backend on disk.
