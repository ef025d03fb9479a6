//! Which calibration rows strategies do not see.

/// Evenly spread rows of a layer that strategies do not see; the report measures on them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct HeldOut {
    rows: u64,
}

/// Every so many rows one is held out.
const HOLD_OUT: u64 = 8;
/// Fewer rows than this are too few to hold any out.
const MIN_ROWS: u64 = 64;

impl HeldOut {
    /// The most rows that are held out.
    pub(crate) const MOST: u64 = 128;

    /// Those of a layer with `rows` rows.
    pub(crate) fn of(rows: u64) -> Self {
        Self { rows }
    }

    /// Whether row `row` is one of them.
    pub(crate) fn holds(self, row: u64) -> bool {
        let every = HOLD_OUT.max(self.rows.div_ceil(Self::MOST));
        self.rows >= MIN_ROWS && row % every == every - 1
    }
}
