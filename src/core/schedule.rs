//! Schedules: filled in by their own commit.
