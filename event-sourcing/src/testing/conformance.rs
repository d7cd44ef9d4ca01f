//! SKELETON (owner: store): what every backend must do, as checks that any backend can run.
