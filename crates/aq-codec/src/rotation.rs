//! The rotation of a row: random signs, then a Hadamard transform of each block.

use aq_kernels::hadamard::{MAX_SIZE, transform};

/// A block Hadamard rotation `R = D H` of the input axis, orthonormal: `D` are signs drawn from `seed`, `H` transforms blocks.
///
/// ```text
/// forward: x -> H (D x)      backward: x -> D (H x), as H is its own inverse
/// sign of column j: minus where bit j % 64 of word j / 64 is set
/// word k: output k of splitmix64 started at `seed`
/// ```
///
/// A *regular* rotation has fixed signs: minus where an odd number of the base-4 digits of the column in its block are 3. Rotated columns in
/// another order and with other signs are then those that a power of the regular Hadamard matrix of size 4 gives ([`Rotation::regular_column`]).
///
/// Rows of a weight and inputs of a layer rotated alike give the same outputs (Ashkboos et al., "QuaRot", 2024, arXiv 2404.00456).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rotation {
    block: usize,
    signs: Signs,
}

/// Where the signs of a rotation come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Signs {
    Seed(u64),
    Regular,
}

impl Rotation {
    /// The smallest block that is worth its time.
    pub const MIN_BLOCK: usize = 8;
    /// The largest block.
    pub const MAX_BLOCK: usize = MAX_SIZE;

    /// The rotation of rows of `cols` weights in the largest blocks there are: the greatest power of two that divides `cols`, at most 1024.
    /// `None` when that is below 8.
    ///
    /// ```
    /// use aq_codec::Rotation;
    /// let block = |cols| Rotation::new(cols, 0).map(Rotation::block);
    /// assert_eq!((block(1152), block(3584), block(4096)), (Some(128), Some(512), Some(1024)));
    /// assert_eq!(block(27), None);
    /// ```
    pub fn new(cols: usize, seed: u64) -> Option<Self> {
        let block = (1usize << cols.trailing_zeros().min(MAX_SIZE.trailing_zeros())).min(cols);
        Self::with_block(block, cols, seed)
    }

    /// The rotation in blocks of `block`; `None` unless that is a power of two from 8 to 1024 that divides `cols`.
    pub fn with_block(block: usize, cols: usize, seed: u64) -> Option<Self> {
        let good = block.is_power_of_two() && (Self::MIN_BLOCK..=Self::MAX_BLOCK).contains(&block);
        (good && cols.is_multiple_of(block)).then_some(Self { block, signs: Signs::Seed(seed) })
    }

    /// The regular rotation in blocks of `block`; `None` unless that is a power of 4 from 16 to 1024 that divides `cols`.
    pub fn regular(block: usize, cols: usize) -> Option<Self> {
        let power_of_4 = block.trailing_zeros().is_multiple_of(2);
        let rotation = Self::with_block(block, cols, 0).filter(|_| power_of_4)?;
        Some(Self { signs: Signs::Regular, ..rotation })
    }

    /// Where column `column` of a block goes, and whether its sign changes, on the way from a regular rotation to the Kronecker power of
    ///
    /// ```text
    ///      [ 1  1  1 -1 ]
    /// H4 = [ 1  1 -1  1 ] / 2
    ///      [ 1 -1  1  1 ]
    ///      [-1  1  1  1 ]
    /// ```
    ///
    /// which is symmetric and its own inverse (the rotation of ComfyUI; `docs/int8_convrot.md` of stable-diffusion.cpp). Digit by digit in base 4, columns 1 and 2 change
    /// places, and column 3 its sign.
    ///
    /// ```
    /// use aq_codec::Rotation;
    /// let mut signs = Vec::new();
    /// let rotation = Rotation::regular(16, 16).expect("a power of 4");
    /// rotation.signs(16, &mut signs);
    /// let mut row = [0.0; 16];
    /// row[3] = 1.0;
    /// rotation.forward(&signs, &mut row);
    /// let mut regular = [0.0; 16];
    /// for (column, value) in row.into_iter().enumerate() {
    ///     let (to, negative) = Rotation::regular_column(column);
    ///     regular[to] = if negative { -value } else { value };
    /// }
    /// // Row 3 of H4 x H4: its first block is the last row of H4, the blocks after it change sign as the first row does.
    /// assert_eq!(regular[..4], [-0.25, 0.25, 0.25, 0.25]);
    /// assert_eq!(regular[12..], [0.25, -0.25, -0.25, -0.25]);
    /// ```
    pub fn regular_column(column: usize) -> (usize, bool) {
        let (mut to, mut negative, mut shift) = (0, false, 0);
        while column >> shift > 0 {
            let digit = column >> shift & 3;
            to |= [0, 2, 1, 3][digit] << shift;
            negative ^= digit == 3;
            shift += 2;
        }
        (to, negative)
    }

    /// Columns of a block.
    pub fn block(self) -> usize {
        self.block
    }

    /// What the signs are drawn from; `None` for a regular rotation.
    pub fn seed(self) -> Option<u64> {
        match self.signs {
            Signs::Seed(seed) => Some(seed),
            Signs::Regular => None,
        }
    }

    /// Fills `signs` with 1 or -1 for each of `cols` columns.
    pub fn signs(self, cols: usize, signs: &mut Vec<f32>) {
        signs.clear();
        let Signs::Seed(mut state) = self.signs else {
            let sign = |column| if Self::regular_column(column % self.block).1 { -1.0 } else { 1.0 };
            return signs.extend((0..cols).map(sign));
        };
        for start in (0..cols).step_by(64) {
            let word = splitmix64(&mut state);
            signs
                .extend((0..(cols - start).min(64)).map(|bit| if word >> bit & 1 == 1 { -1.0 } else { 1.0 }));
        }
    }

    /// Rotates each row of `signs.len()` values in place. `signs` are those of [`Rotation::signs`].
    ///
    /// # Panics
    /// When `rows` is not whole rows of whole blocks.
    ///
    /// ```
    /// let rotation = aq_codec::Rotation::new(16, 7).expect("a block of 16");
    /// let mut signs = Vec::new();
    /// rotation.signs(16, &mut signs);
    /// let mut row = [0.0; 16];
    /// row[3] = 1.0;
    /// rotation.forward(&signs, &mut row);
    /// assert!(row.iter().all(|x| x.abs() == 0.25));
    /// rotation.backward(&signs, &mut row);
    /// assert_eq!((row[2], row[3]), (0.0, 1.0));
    /// ```
    pub fn forward(self, signs: &[f32], rows: &mut [f32]) {
        multiply(signs, rows);
        transform(rows, self.block);
    }

    /// Undoes [`Rotation::forward`], up to rounding.
    ///
    /// # Panics
    /// As [`Rotation::forward`].
    pub fn backward(self, signs: &[f32], rows: &mut [f32]) {
        transform(rows, self.block);
        multiply(signs, rows);
    }
}

fn multiply(signs: &[f32], rows: &mut [f32]) {
    for row in rows.chunks_mut(signs.len().max(1)) {
        row.iter_mut().zip(signs).for_each(|(x, sign)| *x *= sign);
    }
}

/// The next word of the generator of Steele, Lea and Flood, "Fast splittable pseudorandom number generators", 2014.
fn splitmix64(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let z = (*state ^ (*state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}
