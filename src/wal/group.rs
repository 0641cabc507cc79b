//! What the log knows of one group besides its entries, and how each operation changes it.
//!
//! Shared by the two views of a group: as submitted (`index.rs`) and as written (`ledger.rs`). Owns no entries.

use bytes::Bytes;

/// The live entries of a group: `first..next`, empty when equal.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Span {
    /// Index of the first live entry.
    pub first: u64,
    /// Index the next append must start at.
    pub next: u64,
}

impl Span {
    /// Number of live entries.
    pub fn count(self) -> u64 {
        self.next.saturating_sub(self.first)
    }
}

/// State of one group.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct GroupState {
    /// Last saved vote.
    pub vote: Option<Bytes>,
    /// Last saved committed point.
    pub committed: Option<Bytes>,
    /// Index up to which entries were purged, with the mark of the purge.
    pub purged: Option<(u64, Bytes)>,
    /// Its entries; `None` until the first append or purge, which may start anywhere.
    pub span: Option<Span>,
}

impl GroupState {
    /// The only index an append can start at; `None` = any.
    pub fn expected(&self) -> Option<u64> {
        self.span.map(|span| span.next)
    }

    /// `count` entries from `first_index` on, which must be the expected index.
    pub fn append(&mut self, first_index: u64, count: u64) {
        let span = self.span.get_or_insert(Span {
            first: first_index,
            next: first_index,
        });
        span.next = span.next.saturating_add(count);
    }

    /// Entries from `from_index` on are gone.
    pub fn truncate(&mut self, from_index: u64) {
        if let Some(span) = &mut self.span {
            span.next = span.next.min(from_index.max(span.first));
        }
    }

    /// Entries up to `upto_index` are gone. A purge below an earlier one changes nothing.
    pub fn purge(&mut self, upto_index: u64, mark: Bytes) {
        if self.purged.as_ref().is_some_and(|(upto, _)| *upto > upto_index) {
            return;
        }
        self.purged = Some((upto_index, mark));
        let first = upto_index.saturating_add(1);
        let span = self.span.get_or_insert(Span { first, next: first });
        span.first = span.first.max(first);
        span.next = span.next.max(span.first);
    }
}
