//! Blocks whose groups have whole numbers for scales and minima, times a half that they share.
//!
//! Each step keeps what it finds only where the error of the weights, with the codes that are best for what is stored, is smaller:
//!
//! 1. scale and minimum of each group, free of one another, by least squares;
//! 2. `d`, and then `dmin`, from several starts around the one at which the largest group has the largest number: the numbers of all groups are rounded,
//!    and `d` and `dmin` refitted by least squares for them;
//! 3. coordinate descent: for each group the neighbours of its numbers, then `d` and `dmin` again.

use aq_codec::ggml::has_minimum;
use aq_core::GgmlType;
use aq_kernels::groups::{Free, Grid, Groups, LANES, Lanes, Sums, fit, sums};

use super::{Stored, grid, round};

/// How a type is searched.
struct Family {
    grid: Grid,
    /// Groups of a block.
    lanes: usize,
    /// The range of the scales of groups.
    scales: (f32, f32),
    /// The largest minimum of groups; 0 for none.
    top: f32,
    /// Shares of the range at which the fit of a group starts.
    fractions: &'static [f32],
}

const REFITS: usize = 2;
/// Multiples of the plain `d` and `dmin` from which they are refitted.
const STARTS: [f32; 3] = [1.0, 0.95, 1.06];

impl Family {
    fn new(kind: GgmlType) -> Self {
        let (scales, top, fractions): (_, _, &'static [f32]) = match kind {
            GgmlType::Q2_K => ((0.0, 15.0), 15.0, &[1.0, 0.86, 0.72]),
            GgmlType::Q4_K => ((0.0, 63.0), 63.0, &[1.03, 0.99, 0.95, 0.91]),
            GgmlType::Q5_K => ((0.0, 63.0), 63.0, &[1.0, 0.97, 0.94]),
            GgmlType::Q6_K => ((-128.0, 127.0), 0.0, &[1.0, 0.97]),
            GgmlType::Q3_K => ((-32.0, 31.0), 0.0, &[1.0, 0.9, 0.8, 0.7]),
            _ => ((-32.0, 31.0), 0.0, &[1.0, 0.94, 0.88, 0.82, 0.76]),
        };
        let lanes = kind.block_weights() / kind.group_weights();
        Self { grid: grid(kind), lanes, scales, top, fractions }
    }
}

/// What is stored for the groups of one or two blocks.
pub(super) fn choose<const N: usize>(kind: GgmlType, groups: &Groups<N>) -> Stored {
    let family = Family::new(kind);
    let free = if has_minimum(kind) { Free::ScaleAndMinimum } else { Free::Scale };
    let wanted = fit(groups, family.grid, free, family.fractions, REFITS);
    let mins = wanted.offset.map(|offset| -offset);
    let mut search = Search::new(&family, groups, &wanted.scale, &mins);
    search.start(&wanted.scale, &mins);
    search.descend();
    search.best
}

/// The best numbers so far, and the sums at them.
struct Search<'a, const N: usize> {
    family: &'a Family,
    groups: &'a Groups<N>,
    total: Lanes,
    best: Stored,
    sums: Sums,
}

impl<'a, const N: usize> Search<'a, N> {
    /// Begins where the largest group has the largest numbers.
    fn new(family: &'a Family, groups: &'a Groups<N>, scale: &Lanes, mins: &Lanes) -> Self {
        let largest = |x: f32, y: f32| if y.abs() > x.abs() { y } else { x };
        let (low, high) = family.scales;
        let reach = if low == 0.0 { high } else { low };
        let d = blocks(family.lanes, scale, largest).map(|s| round(s / reach));
        let dmin = blocks(family.lanes, mins, largest).map(|m| round(m / family.top.max(1.0)));
        let best = rounded(family, scale, mins, d, dmin);
        let sums = sums(groups, family.grid, &best.scale(), &best.offset());
        Self { family, groups, total: groups.total_importance(), best, sums }
    }

    /// Refits `d` and `dmin` from several starts.
    fn start(&mut self, scale: &Lanes, mins: &Lanes) {
        let first = self.best;
        for factor in STARTS {
            self.refit(rounded(self.family, scale, mins, first.d.map(|d| round(d * factor)), first.dmin));
        }
        if self.family.top > 0.0 {
            let dmin = self.best.dmin;
            for factor in STARTS {
                self.refit(rounded(self.family, scale, mins, self.best.d, dmin.map(|m| round(m * factor))));
            }
        }
    }

    /// Tries `stored`, and `d` and `dmin` of least error for its numbers and the codes that belong to it.
    fn refit(&mut self, stored: Stored) {
        let sums = self.try_blocks(stored);
        self.try_blocks(self.improved(&stored, &sums));
    }

    /// Moves the numbers of each group to better neighbours, then `d` and `dmin`.
    fn descend(&mut self) {
        let (low, high) = self.family.scales;
        let moves: &[(f32, f32)] = match self.family.top > 0.0 {
            true => &[
                (1.0, 0.0),
                (-1.0, 0.0),
                (0.0, 1.0),
                (0.0, -1.0),
                (1.0, 1.0),
                (-1.0, -1.0),
                (1.0, -1.0),
                (-1.0, 1.0),
            ],
            false => &[(1.0, 0.0), (-1.0, 0.0)],
        };
        for &(by, over) in moves {
            let mut moved = self.best;
            for l in 0..LANES {
                moved.scales[l] = (moved.scales[l] + by).clamp(low, high);
                moved.mins[l] = (moved.mins[l] + over).clamp(0.0, self.family.top);
            }
            let sums = self.measure(&moved);
            let better: [bool; LANES] = std::array::from_fn(|l| sums.squares[l] < self.sums.squares[l]);
            self.take(&moved, &sums, better);
        }
        self.try_blocks(self.improved(&self.best, &self.sums));
    }

    fn measure(&self, stored: &Stored) -> Sums {
        sums(self.groups, self.family.grid, &stored.scale(), &stored.offset())
    }

    /// Takes `stored` for the blocks whose error it lowers. Returns the sums at it.
    fn try_blocks(&mut self, stored: Stored) -> Sums {
        let sums = self.measure(&stored);
        let add = |a: f32, b: f32| a + b;
        let error = blocks(self.family.lanes, &sums.squares, add);
        let least = blocks(self.family.lanes, &self.sums.squares, add);
        self.take(&stored, &sums, std::array::from_fn(|l| error[l] < least[l]));
        sums
    }

    fn take(&mut self, stored: &Stored, sums: &Sums, better: [bool; LANES]) {
        let pairs = [
            (&mut self.best.d, &stored.d),
            (&mut self.best.dmin, &stored.dmin),
            (&mut self.best.scales, &stored.scales),
            (&mut self.best.mins, &stored.mins),
            (&mut self.sums.squares, &sums.squares),
            (&mut self.sums.product, &sums.product),
            (&mut self.sums.residuals, &sums.residuals),
            (&mut self.sums.code_squares, &sums.code_squares),
            (&mut self.sums.codes, &sums.codes),
        ];
        for (mine, other) in pairs {
            (0..LANES).for_each(|l| mine[l] = if better[l] { other[l] } else { mine[l] });
        }
    }

    /// `d` and `dmin` of least error for the numbers of `stored` and the codes of `sums`.
    fn improved(&self, stored: &Stored, sums: &Sums) -> Stored {
        let add =
            |of: &dyn Fn(usize) -> f32| blocks(self.family.lanes, &std::array::from_fn(of), |a, b| a + b);
        let (scales, mins) = (&stored.scales, &stored.mins);
        let ss = add(&|l| scales[l] * scales[l] * sums.code_squares[l]);
        let sr = add(&|l| scales[l] * sums.product[l]);
        let mut next = *stored;
        if self.family.top == 0.0 {
            (0..LANES).for_each(|l| next.d[l] = round(stored.d[l] + ratio(sr[l], ss[l])));
            return next;
        }
        let sm = add(&|l| -scales[l] * mins[l] * sums.codes[l]);
        let mm = add(&|l| mins[l] * mins[l] * self.total[l]);
        let mr = add(&|l| -mins[l] * sums.residuals[l]);
        for l in 0..LANES {
            let det = ss[l] * mm[l] - sm[l] * sm[l];
            let (by, over) = match det > 1e-6 * ss[l] * mm[l] {
                true => ((sr[l] * mm[l] - mr[l] * sm[l]) / det, (mr[l] * ss[l] - sr[l] * sm[l]) / det),
                false => (ratio(sr[l], ss[l]), 0.0),
            };
            next.d[l] = round((stored.d[l] + by).max(0.0));
            next.dmin[l] = round((stored.dmin[l] + over).max(0.0));
        }
        next
    }
}

fn ratio(a: f32, b: f32) -> f32 {
    if b > 0.0 { a / b } else { 0.0 }
}

/// The whole numbers nearest to what is wanted, for `d` and `dmin`.
fn rounded(family: &Family, scale: &Lanes, mins: &Lanes, d: Lanes, dmin: Lanes) -> Stored {
    let number = |x: f32, unit: f32, low: f32, high: f32| match unit == 0.0 {
        true => 0.0,
        false => (x / unit).round_ties_even().clamp(low, high),
    };
    let (low, high) = family.scales;
    Stored {
        d,
        dmin,
        scales: std::array::from_fn(|l| number(scale[l], d[l], low, high)),
        mins: std::array::from_fn(|l| number(mins[l], dmin[l], 0.0, family.top)),
    }
}

/// In every lane what `op` makes of all lanes of its block, from the first to the last.
fn blocks(lanes: usize, x: &Lanes, op: impl Fn(f32, f32) -> f32) -> Lanes {
    let mut out = [0.0; LANES];
    for (x, out) in x.chunks(lanes).zip(out.chunks_mut(lanes)) {
        out.fill(x.iter().copied().reduce(&op).unwrap_or(0.0));
    }
    out
}
