//! Retry policy: filled in by its own commit.
