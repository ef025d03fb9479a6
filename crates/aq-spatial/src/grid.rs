//! The grid of one group: the few values its weights may take.

use aq_codec::AffineRow;
use aq_core::{AffineEncoding, OffsetKind};
use aq_kernels::affine::{dequantize_offset, dequantize_zero, quantize};
use half::f16;

/// Scale and offset of a group; the offset is a zero point where the encoding says so.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Grid {
    pub(crate) scale: f32,
    pub(crate) offset: f32,
}

/// What all grids of a row have in common.
#[derive(Debug, Clone, Copy)]
pub(crate) struct GridKind {
    pub(crate) offset: OffsetKind,
    pub(crate) max_code: u8,
}

impl GridKind {
    pub(crate) fn new(encoding: &AffineEncoding) -> Self {
        Self { offset: encoding.offset, max_code: encoding.bits.max_code() }
    }

    /// The grid with its scale and f16 offset rounded to what is stored.
    ///
    /// An f16 offset makes up for the rounding of the scale so that the middle of the grid stays where it is.
    pub(crate) fn rounded(self, grid: Grid) -> Grid {
        let scale = round(grid.scale);
        match self.offset {
            OffsetKind::ZeroPoint => Grid { scale, ..grid },
            OffsetKind::F16 => Grid { scale, offset: round(self.centred(grid, scale)) },
        }
    }

    /// The offset for which a grid of scale `scale` has the same middle as `grid`.
    pub(crate) fn centred(self, grid: Grid, scale: f32) -> f32 {
        grid.offset + (grid.scale - scale) * (f32::from(self.max_code) / 2.0)
    }

    /// The same grid, made smaller where one of its values would exceed `limit`.
    ///
    /// That is so for weights close to the largest `f32` only, whose grid may reach half a step beyond them.
    pub(crate) fn capped(self, grid: Grid, limit: f64) -> Grid {
        let (scale, low) = (f64::from(grid.scale), f64::from(self.low(grid)));
        let largest = low.abs().max((low + scale * f64::from(self.max_code)).abs());
        if largest <= limit {
            return grid;
        }
        let factor = (limit / largest * (1.0 - 2f64.powi(-9))) as f32;
        let scale = round(grid.scale * factor);
        match self.offset {
            OffsetKind::ZeroPoint => Grid { scale, ..grid },
            OffsetKind::F16 => Grid { scale, offset: round(grid.offset * factor) },
        }
    }

    /// The value of code 0.
    fn low(self, grid: Grid) -> f32 {
        match self.offset {
            OffsetKind::ZeroPoint => -(grid.offset * grid.scale),
            OffsetKind::F16 => grid.offset,
        }
    }

    /// The code of the nearest value for each weight.
    pub(crate) fn choose_codes(self, grid: Grid, weights: &[f32], codes: &mut [u8]) {
        let inverse = if grid.scale > 0.0 { 1.0 / grid.scale } else { 0.0 };
        quantize(weights, inverse, self.low(grid), self.max_code, codes);
    }

    /// The values of the codes.
    pub(crate) fn decode(self, grid: Grid, codes: &[u8], out: &mut [f32]) {
        match self.offset {
            OffsetKind::ZeroPoint => dequantize_zero(codes, grid.scale, grid.offset as u8, out),
            OffsetKind::F16 => dequantize_offset(codes, grid.scale, grid.offset, out),
        }
    }

    /// The values of all codes of a row.
    pub(crate) fn decode_row(self, group: usize, row: AffineRow<'_>, out: &mut [f32]) {
        let grids = row.scales.iter().zip(row.offsets);
        for ((codes, out), (&scale, &offset)) in row.codes.chunks(group).zip(out.chunks_mut(group)).zip(grids)
        {
            self.decode(Grid { scale, offset }, codes, out);
        }
    }
}

/// The nearest f16, ties to even; at most the largest finite one.
pub(crate) fn round(value: f32) -> f32 {
    let largest = f16::MAX.to_f32();
    f16::from_f32(value.clamp(-largest, largest)).to_f32()
}

/// The f16 that is `steps` places above the f16 `value`, which is not negative; `None` outside the finite ones.
pub(crate) fn neighbour(value: f32, steps: i32) -> Option<f32> {
    let bits = i32::from(f16::from_f32(value).to_bits()) + steps;
    let largest = i32::from(f16::MAX.to_bits());
    (0..=largest).contains(&bits).then(|| f16::from_bits(bits as u16).to_f32())
}
