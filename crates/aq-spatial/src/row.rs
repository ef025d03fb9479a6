//! How one row is quantized, whatever the strategy.

use aq_codec::{AffineRow, push_row};
use aq_core::{AffineEncoding, EncodedRows, OffsetKind, Scratch};
use aq_kernels::encode::grid_sums;

use crate::exponent::{limit, multiply, normalize, stored_exponent};
use crate::gain::{correction, restore_slope, slope_sums};
use crate::grid::{Grid, GridKind};

/// What differs between the strategies: how the grid of a group is found.
pub(crate) trait Method: Send + Sync {
    /// Whether `fit` and `settle` do for zero points what `aq_kernels::encode::encode_min_max` does in one pass.
    const WHOLE_RANGE: bool = false;

    /// The grid before rounding. Its offset is the value of code 0, for every kind of offset.
    fn fit(&self, group: &Group<'_>) -> Grid;

    /// The stored form of what [`fit`](Method::fit) found: parameters that f16 holds, a zero point where one is stored.
    ///
    /// `codes` and `decoded` are room for the group.
    fn settle(&self, group: &Group<'_>, fitted: Grid, codes: &mut [u8], decoded: &mut [f32]) -> Grid;
}

/// The weights of one group.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Group<'a> {
    pub(crate) weights: &'a [f32],
    pub(crate) importance: Option<&'a [f32]>,
    pub(crate) kind: GridKind,
}

/// Everything that the rows of a layer share.
#[derive(Debug, Clone, Copy)]
pub(crate) struct RowEncoder<'a, M> {
    pub(crate) method: &'a M,
    pub(crate) encoding: AffineEncoding,
    pub(crate) gain: bool,
    pub(crate) importance: Option<&'a [f32]>,
}

impl<M: Method> RowEncoder<'_, M> {
    /// Quantizes the row in `scratch.row` and appends it to `out`.
    pub(crate) fn push(&self, scratch: &mut Scratch, out: &mut EncodedRows) {
        let exponent = self.find_grids(scratch);
        let exponent = if self.gain { self.correct_gain(scratch, exponent) } else { exponent };
        let row = AffineRow { exponent: exponent as i8, ..row_of(scratch) };
        push_row(&self.encoding, row, out);
    }

    /// Finds the grids and codes of the row in `scratch.row`, which is brought to units of `2^exponent`. Returns the exponent.
    pub(crate) fn find_grids(&self, scratch: &mut Scratch) -> i32 {
        let cols = scratch.row.len();
        scratch.codes.resize(cols, 0);
        scratch.decoded.resize(cols, 0.0);
        let exponent = normalize(&mut scratch.row);
        self.fit(scratch);
        let exponent = self.rescale(scratch, exponent);
        self.settle(scratch, exponent);
        exponent
    }

    /// Multiplies the grids of the row by a gain; codes stay. Returns the exponent to store.
    pub(crate) fn apply_gain(&self, scratch: &mut Scratch, factor: f32, exponent: i32) -> i32 {
        let stored = self.multiply_grids(scratch, factor, exponent);
        each_grid(scratch, |grid| self.kind().rounded(grid));
        each_grid(scratch, |grid| self.kind().capped(grid, limit(stored)));
        stored
    }

    fn kind(&self) -> GridKind {
        GridKind::new(&self.encoding)
    }

    /// The groups of a row, in order.
    fn groups<'r>(&'r self, row: &'r [f32]) -> impl Iterator<Item = Group<'r>> {
        let size = self.encoding.group_size.weights(row.len());
        row.chunks(size).enumerate().map(move |(i, weights)| Group {
            weights,
            importance: self.importance.map(|h| &h[i * size..][..weights.len()]),
            kind: self.kind(),
        })
    }

    fn fit(&self, scratch: &mut Scratch) {
        scratch.scales.clear();
        scratch.offsets.clear();
        for group in self.groups(&scratch.row) {
            let grid = self.method.fit(&group);
            scratch.scales.push(grid.scale);
            scratch.offsets.push(grid.offset);
        }
    }

    /// Brings row and grids from a factor of `2^exponent` to the one that is stored, and returns that.
    fn rescale(&self, scratch: &mut Scratch, exponent: i32) -> i32 {
        let stored = self.stored_exponent(scratch, exponent);
        for values in [&mut scratch.row, &mut scratch.scales, &mut scratch.offsets] {
            multiply(values, exponent - stored);
        }
        stored
    }

    fn stored_exponent(&self, scratch: &Scratch, exponent: i32) -> i32 {
        let offsets = if self.zero_points() { &[] } else { scratch.offsets.as_slice() };
        stored_exponent(&scratch.scales, offsets, exponent)
    }

    fn zero_points(&self) -> bool {
        self.encoding.offset == OffsetKind::ZeroPoint
    }

    /// Rounds the grids to what is stored and chooses the codes.
    fn settle(&self, scratch: &mut Scratch, exponent: i32) {
        let Scratch { row, decoded, codes, scales, offsets, .. } = scratch;
        let size = self.encoding.group_size.weights(row.len());
        let grids = scales.iter_mut().zip(offsets);
        let room = codes.chunks_mut(size).zip(decoded.chunks_mut(size));
        for ((group, (codes, decoded)), (scale, offset)) in self.groups(row).zip(room).zip(grids) {
            let fitted = Grid { scale: *scale, offset: *offset };
            let grid = self.method.settle(&group, fitted, codes, decoded);
            let grid = self.kind().capped(grid, limit(exponent));
            self.kind().choose_codes(grid, group.weights, codes);
            (*scale, *offset) = (grid.scale, grid.offset);
        }
    }

    /// Multiplies the grids of the row by its gain; codes stay. Returns the exponent to store.
    fn correct_gain(&self, scratch: &mut Scratch, exponent: i32) -> i32 {
        let group = self.encoding.group_size.weights(scratch.row.len());
        let (norm, product) = self.slope_sums(group, scratch);
        let Some(gain) = correction(norm, product) else { return exponent };
        let stored = self.multiply_grids(scratch, gain.factor, exponent);
        each_grid(scratch, |grid| self.kind().rounded(grid));
        if gain.exact && self.importance.is_none() {
            decode(self.kind(), group, scratch);
            restore_slope(self.kind(), group, scratch);
        }
        each_grid(scratch, |grid| self.kind().capped(grid, limit(stored)));
        stored
    }

    /// The sums that the gain is made of; those of a grid on the whole range as `encode_min_max` gives them.
    fn slope_sums(&self, group: usize, scratch: &mut Scratch) -> (f64, f64) {
        if M::WHOLE_RANGE && self.zero_points() {
            let Scratch { row, codes, scales, offsets, .. } = scratch;
            let sums = grid_sums(group, row, codes, scales, offsets);
            return (sums.norm, sums.product);
        }
        decode(self.kind(), group, scratch);
        slope_sums(self.importance, &scratch.row, &scratch.decoded)
    }

    /// Multiplies scales and offsets, but no zero points, and finds the exponent anew.
    fn multiply_grids(&self, scratch: &mut Scratch, factor: f32, exponent: i32) -> i32 {
        let zeros = if self.zero_points() { std::mem::take(&mut scratch.offsets) } else { Vec::new() };
        for values in [&mut scratch.scales, &mut scratch.offsets] {
            values.iter_mut().for_each(|v| *v *= factor);
        }
        let stored = self.rescale(scratch, exponent);
        if self.zero_points() {
            scratch.offsets = zeros;
        }
        stored
    }
}

fn each_grid(scratch: &mut Scratch, change: impl Fn(Grid) -> Grid) {
    for (scale, offset) in scratch.scales.iter_mut().zip(&mut scratch.offsets) {
        let grid = change(Grid { scale: *scale, offset: *offset });
        (*scale, *offset) = (grid.scale, grid.offset);
    }
}

/// Decodes the codes chosen so far into `scratch.decoded`.
fn decode(kind: GridKind, group: usize, scratch: &mut Scratch) {
    let mut decoded = std::mem::take(&mut scratch.decoded);
    kind.decode_row(group, row_of(scratch), &mut decoded);
    scratch.decoded = decoded;
}

fn row_of(scratch: &Scratch) -> AffineRow<'_> {
    AffineRow { codes: &scratch.codes, scales: &scratch.scales, offsets: &scratch.offsets, exponent: 0 }
}
