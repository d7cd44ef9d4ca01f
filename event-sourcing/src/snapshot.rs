//! SKELETON (owner: domain): snapshots beside the stream.
