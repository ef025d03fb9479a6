//! Products of a quantized layer with its inputs, on all cores.

use aq_kernels::WeightsMut;
use aq_kernels::decode::{Grids, Offsets, dequantize};
use aq_kernels::pack::packed_len;
use aq_kernels::product::{
    BlockI8, Matrix, MatrixOffsets, TOKENS, TokenI8, interleave, matmul_i8 as product, matvec_f32, matvec_i8,
};
use half::f16;
use numpy::{PyArray1, PyReadonlyArray1};
use pyo3::prelude::*;
use rayon::prelude::*;

use crate::errors::refused;

/// Rows that a thread works on at a time.
const ROWS: usize = 64;

/// Rows of packed codes with one grid a group, as the `affine` codec stores them.
struct Packed<'a> {
    bits: u8,
    group: usize,
    cols: usize,
    rows: usize,
    codes: &'a [u8],
    scales: &'a [f16],
    offsets: MatrixOffsets<'a>,
}

/// Offsets of groups: `zeros` (one byte each) or `offsets` (one f16 each), the other one empty.
type Given<'py> = (
    u8,
    usize,
    usize,
    PyReadonlyArray1<'py, u8>,
    PyReadonlyArray1<'py, f16>,
    PyReadonlyArray1<'py, f16>,
    PyReadonlyArray1<'py, u8>,
);

impl<'a> Packed<'a> {
    /// Checks that all lengths fit; the number of rows follows from them.
    fn new(given: &'a Given<'_>) -> PyResult<Self> {
        let (bits, group, cols, codes, scales, offsets, zeros) = given;
        let (bits, cols, group) = (*bits, *cols, (*group).clamp(1, (*cols).max(1)));
        let (codes, scales) = (codes.as_slice()?, scales.as_slice()?);
        let (offsets, zeros) = (offsets.as_slice()?, zeros.as_slice()?);
        let groups = cols.div_ceil(group).max(1);
        let rows = scales.len() / groups;
        let offsets =
            if zeros.is_empty() { MatrixOffsets::Value(offsets) } else { MatrixOffsets::Zero(zeros) };
        let count = match offsets {
            MatrixOffsets::Value(offsets) => offsets.len(),
            MatrixOffsets::Zero(zeros) => zeros.len(),
        };
        let packed = Self { bits, group, cols, rows, codes, scales, offsets };
        let fits = matches!(bits, 2..=6 | 8) && [scales.len(), count] == [rows * groups; 2];
        if !fits || Some(codes.len()) != packed.row_bytes().checked_mul(rows) {
            return Err(refused("the lengths of codes, scales and offsets do not fit together"));
        }
        Ok(packed)
    }

    fn groups(&self) -> usize {
        self.cols.div_ceil(self.group)
    }

    fn row_bytes(&self) -> usize {
        let (whole, rest) = (self.cols / self.group, self.cols % self.group);
        whole * packed_len(self.bits, self.group) + packed_len(self.bits, rest)
    }

    /// Up to [`ROWS`] rows from row `first` on.
    fn rows(&self, first: usize) -> Matrix<'a> {
        let range = first..(first + ROWS).min(self.rows);
        let of = |each: usize| range.start * each..range.end * each;
        let groups = of(self.groups());
        Matrix {
            bits: self.bits,
            group: self.group,
            cols: self.cols,
            packed: &self.codes[of(self.row_bytes())],
            scales: &self.scales[groups.clone()],
            offsets: match self.offsets {
                MatrixOffsets::Zero(zeros) => MatrixOffsets::Zero(&zeros[groups]),
                MatrixOffsets::Value(offsets) => MatrixOffsets::Value(&offsets[groups]),
            },
        }
    }

    /// The number of tokens in `x`, for products of `width`-column alignment.
    fn tokens(&self, len: usize, align: usize) -> PyResult<usize> {
        let fits = matches!(self.bits, 2 | 4 | 8) && (self.group.is_multiple_of(align) || self.groups() == 1);
        if !fits || self.cols == 0 || !len.is_multiple_of(self.cols) {
            return Err(refused("there is no product for these bits, groups and inputs"));
        }
        Ok(len / self.cols)
    }
}

/// The products of f32 tokens with every row: `rows * tokens` values, those of a row together.
#[pyfunction]
pub(crate) fn matmul_f32<'py>(
    py: Python<'py>,
    given: Given<'_>,
    x: PyReadonlyArray1<'_, f32>,
) -> PyResult<Bound<'py, PyArray1<f32>>> {
    let (packed, x) = (Packed::new(&given)?, x.as_slice()?);
    let tokens = packed.tokens(x.len(), 16)?;
    let mut y = vec![0.0; packed.rows * tokens];
    py.detach(|| {
        let blocks = y.par_chunks_mut((ROWS * tokens).max(1)).enumerate();
        blocks.for_each_init(Vec::new, |column: &mut Vec<f32>, (i, y)| {
            let matrix = packed.rows(i * ROWS);
            column.resize(y.len() / tokens, 0.0);
            for (t, x) in x.chunks(packed.cols).enumerate() {
                matvec_f32(&matrix, x, column);
                column.iter().zip(y[t..].iter_mut().step_by(tokens)).for_each(|(v, y)| *y = *v);
            }
        });
    });
    Ok(PyArray1::from_vec(py, y))
}

/// The products of 8-bit tokens with every row, in the same order; `scales` has one factor a token.
#[pyfunction]
pub(crate) fn matmul_i8<'py>(
    py: Python<'py>,
    given: Given<'_>,
    x: PyReadonlyArray1<'_, i8>,
    scales: PyReadonlyArray1<'_, f32>,
) -> PyResult<Bound<'py, PyArray1<f32>>> {
    let (packed, x, scales) = (Packed::new(&given)?, x.as_slice()?, scales.as_slice()?);
    let tokens = packed.tokens(x.len(), 4)?;
    if scales.len() != tokens {
        return Err(refused(format!("{} scales for {tokens} tokens", scales.len())));
    }
    Ok(PyArray1::from_vec(py, py.detach(|| products_i8(&packed, x, scales))))
}

fn products_i8(packed: &Packed<'_>, x: &[i8], scales: &[f32]) -> Vec<f32> {
    let tokens = scales.len();
    let blocks: Vec<Block> = x
        .par_chunks(packed.cols * TOKENS)
        .zip(scales.par_chunks(TOKENS))
        .map(|(x, scales)| Block::new(packed, x, scales))
        .collect();
    let mut y = vec![0.0; packed.rows * tokens];
    let rows = y.par_chunks_mut((ROWS * tokens).max(1)).enumerate();
    rows.for_each_init(Vec::new, |out: &mut Vec<[f32; TOKENS]>, (i, y)| {
        let matrix = packed.rows(i * ROWS);
        out.resize(y.len() / tokens, [0.0; TOKENS]);
        for (b, block) in blocks.iter().enumerate() {
            block.multiply(&matrix, out);
            for (out, y) in out.iter().zip(y.chunks_mut(tokens)) {
                y[b * TOKENS..][..block.tokens].copy_from_slice(&out[..block.tokens]);
            }
        }
    });
    y
}

/// Up to [`TOKENS`] tokens as the kernels take them.
struct Block {
    tokens: usize,
    values: Vec<[[i8; 4]; TOKENS]>,
    sums: Vec<[i32; TOKENS]>,
    scales: [f32; TOKENS],
    /// Values and sums of the only token, if there is one alone.
    alone: Option<(Vec<i8>, Vec<i32>)>,
}

impl Block {
    fn new(packed: &Packed<'_>, x: &[i8], scales: &[f32]) -> Self {
        let sum = |values: &[i8]| values.iter().map(|&v| i32::from(v)).sum();
        let sums: Vec<Vec<i32>> =
            x.chunks(packed.cols).map(|x| x.chunks(packed.group).map(sum).collect()).collect();
        let mut block = Self {
            tokens: scales.len(),
            values: Vec::new(),
            sums: Vec::new(),
            scales: [0.0; TOKENS],
            alone: None,
        };
        block.scales[..scales.len()].copy_from_slice(scales);
        if let ([scale], [sums]) = (scales, &sums[..]) {
            block.alone = Some((x.to_vec(), sums.clone()));
            block.scales[0] = *scale;
            return block;
        }
        let tokens = x.chunks(packed.cols).zip(&sums).zip(scales);
        let tokens: Vec<_> = tokens.map(|((values, sums), &scale)| TokenI8 { values, sums, scale }).collect();
        block.values.resize(packed.cols.div_ceil(4), [[0; 4]; TOKENS]);
        block.sums.resize(packed.groups(), [0; TOKENS]);
        interleave(&tokens, &mut block.values, &mut block.sums);
        block
    }

    /// The products with each row of `matrix`; those of missing tokens mean nothing.
    fn multiply(&self, matrix: &Matrix<'_>, out: &mut [[f32; TOKENS]]) {
        let Some((values, sums)) = &self.alone else {
            let block = BlockI8 { values: &self.values, sums: &self.sums, scales: &self.scales };
            return product(matrix, block, out);
        };
        let mut y = [0.0; ROWS];
        let y = &mut y[..out.len()];
        matvec_i8(matrix, TokenI8 { values, sums, scale: self.scales[0] }, y);
        out.iter_mut().zip(y).for_each(|(out, y)| out[0] = *y);
    }
}

/// The weights of every row as f32, before row exponents and side data.
#[pyfunction]
pub(crate) fn decode_rows<'py>(py: Python<'py>, given: Given<'_>) -> PyResult<Bound<'py, PyArray1<f32>>> {
    let packed = Packed::new(&given)?;
    let mut out = vec![0.0; packed.rows * packed.cols];
    py.detach(|| {
        let blocks = out.par_chunks_mut((ROWS * packed.cols).max(1)).enumerate();
        blocks.for_each_init(Default::default, |grids, (i, out)| {
            decode_block(&packed.rows(i * ROWS), grids, out)
        });
    });
    Ok(PyArray1::from_vec(py, out))
}

/// Scales and offsets of a row.
type RowGrids = (Vec<f32>, Vec<f32>);

fn decode_block(matrix: &Matrix<'_>, (scales, offsets): &mut RowGrids, out: &mut [f32]) {
    let groups = matrix.cols.div_ceil(matrix.group);
    let bytes = matrix.packed.len() * matrix.cols / out.len().max(1);
    let widen = |from: &[f16], to: &mut Vec<f32>| {
        to.clear();
        to.extend(from.iter().map(|v| v.to_f32()));
    };
    for (r, out) in out.chunks_mut(matrix.cols).enumerate() {
        let range = r * groups..(r + 1) * groups;
        widen(&matrix.scales[range.clone()], scales);
        let offsets = match matrix.offsets {
            MatrixOffsets::Zero(zeros) => Offsets::Zero(&zeros[range]),
            MatrixOffsets::Value(values) => {
                widen(&values[range], offsets);
                Offsets::Value(offsets)
            }
        };
        let grids = Grids { scales, offsets, factor: 1.0 };
        let codes = &matrix.packed[r * bytes..][..bytes];
        dequantize(matrix.bits, matrix.group, codes, grids, WeightsMut::F32(out));
    }
}
