//! The low-rank part of a layer: what it is made of, and whether it is worth its bytes.

use aq_codec::{LowRank, MAX_RANK, Side};
use aq_core::{InputRows, LowRankPlan, StrategyError, TensorInfo};
use aq_kernels::metric::{dot, sum_squares};

use super::subspace::{InputWeights, JUDGE, Thin, WeightedError};

/// Ranks that are tried when the plan names none.
const RANKS: [usize; 4] = [4, 8, 16, 32];
/// Input rows that are used to judge by, at most.
const JUDGES: usize = 64;
/// A part that saves less than this over more bits is not worth the trouble.
const MARGIN: f64 = 0.98;

/// A low-rank part as it is stored.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Part {
    scales: Vec<u8>,
    left: Vec<u8>,
    right: Vec<u8>,
}

/// Errors of the outputs without and with a part, and its bits for each weight.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Merit {
    pub(super) rank: usize,
    pub(super) before: f64,
    pub(super) after: f64,
    pub(super) bits_per_weight: f64,
}

impl Merit {
    /// What so many more bits of code would leave of the error: a quarter for each.
    pub(super) fn of_more_bits(&self) -> f64 {
        let mut power = 1.0 - self.bits_per_weight * std::f64::consts::LN_2 * 2.0 / f64::from(1 << 20);
        (0..20).for_each(|_| power *= power);
        power
    }

    /// The error left over, in units of what more bits would leave.
    fn cost(&self) -> f64 {
        self.after / (self.before * self.of_more_bits())
    }

    pub(super) fn pays(&self) -> bool {
        self.cost() < MARGIN
    }
}

impl Part {
    pub(super) fn stored(&self) -> LowRank<'_> {
        LowRank { scales: &self.scales, left: &self.left, right: &self.right }
    }

    /// The part of `rank` components nearest to the error: its rows and columns as signed bytes.
    ///
    /// With orthonormal directions `U` of the outputs it is `U (U^T E)`, which errs least by `H` for any `H` that `U` belongs to.
    pub(super) fn fit(error: &WeightedError<'_>, rank: usize, seed: u64) -> Result<Self, StrategyError> {
        let left = error.directions(rank, seed)?;
        let right = error.transposed(&left);
        let mut part = Self::default();
        let (a, b) = (steps(&left, rank), steps(&right, rank));
        part.scales = a.iter().zip(&b).flat_map(|(a, b)| (a * b).to_le_bytes()).collect();
        let rows = left.values.chunks_exact(left.width);
        part.left =
            rows.flat_map(|row| row[..rank].iter().zip(&a).map(|(&v, &step)| byte(v, step))).collect();
        let columns = (0..rank).flat_map(|k| (0..error.cols).map(move |j| (j, k)));
        part.right = columns.map(|(j, k)| byte(right.row(j)[k], b[k])).collect();
        Ok(part)
    }

    /// The first `rank` components.
    pub(super) fn truncated(&self, rank: usize, cols: usize) -> Self {
        let all = self.stored().rank();
        let rows = self.left.chunks_exact(all.max(1));
        Self {
            scales: self.scales[..rank * 4].to_vec(),
            left: rows.flat_map(|row| row[..rank].iter().copied()).collect(),
            right: self.right[..rank * cols].to_vec(),
        }
    }

    /// The best of the ranks that the plan allows, by the input rows that were not fitted to.
    pub(super) fn best_rank(
        &self,
        error: &WeightedError<'_>,
        info: &TensorInfo,
    ) -> Result<Merit, StrategyError> {
        let ranks: Vec<usize> = RANKS.into_iter().filter(|&r| r < self.stored().rank()).collect();
        let ranks = [ranks, vec![self.stored().rank()]].concat();
        let mut sums = vec![0f64; ranks.len() + 1];
        let judges = judges(error)?;
        let mut left_over = vec![0.0; error.cols];
        for (i, row) in error.error.chunks_exact(error.cols).enumerate() {
            left_over.copy_from_slice(row);
            let mut done = 0;
            sums[0] += judged(&judges, error.inputs, &left_over);
            for (sum, &rank) in sums[1..].iter_mut().zip(&ranks) {
                self.stored().subtract(i, done..rank, &mut left_over);
                *sum += judged(&judges, error.inputs, &left_over);
                done = rank;
            }
        }
        let merits = ranks.iter().zip(&sums[1..]).map(|(&rank, &after)| {
            let bytes =
                Side { low_rank: Some(self.truncated(rank, error.cols).stored()), ..Side::default() }.bytes();
            let bits_per_weight = bytes.len() as f64 * 8.0 / info.elements() as f64;
            Merit { rank, before: sums[0], after, bits_per_weight }
        });
        Ok(merits.min_by(|a, b| a.cost().total_cmp(&b.cost())).expect("at least one rank"))
    }
}

/// The rank to fit for a plan in a layer of that shape.
pub(super) fn largest_rank(plan: LowRankPlan, info: &TensorInfo) -> usize {
    let most = (info.rows().min(info.cols()) / 4).min(MAX_RANK as u64) as usize;
    match plan {
        LowRankPlan::Off => 0,
        LowRankPlan::Auto => RANKS[RANKS.len() - 1].min(most),
        LowRankPlan::Rank(rank) => usize::from(rank).min(most),
    }
}

/// The step of each component: its largest magnitude over 127.
fn steps(matrix: &Thin, rank: usize) -> Vec<f32> {
    let mut largest = vec![0f32; rank];
    for row in matrix.values.chunks_exact(matrix.width) {
        largest.iter_mut().zip(row).for_each(|(largest, v)| *largest = largest.max(v.abs()));
    }
    largest.iter().map(|largest| largest / 127.0).collect()
}

fn byte(value: f32, step: f32) -> u8 {
    let steps = if step > 0.0 { (value / step).round_ties_even() } else { 0.0 };
    steps.clamp(-127.0, 127.0) as i8 as u8
}

/// Input rows that the directions were not fitted to.
fn judges(error: &WeightedError<'_>) -> Result<Vec<f32>, StrategyError> {
    let InputWeights::Rows(inputs) = error.inputs else { return Ok(Vec::new()) };
    let (mut n, mut judges) = (0, Vec::new());
    inputs.visit(&mut |block, _| {
        for x in block.chunks_exact(error.cols) {
            n += 1;
            if n % JUDGE == 0 && judges.len() < JUDGES * error.cols {
                judges.extend_from_slice(x);
            }
        }
    })?;
    Ok(judges)
}

/// The squared error of the outputs that a row of errors makes.
fn judged(judges: &[f32], inputs: InputWeights<'_>, error: &[f32]) -> f64 {
    match inputs {
        InputWeights::Rows(_) => judges.chunks_exact(error.len()).map(|x| dot(x, error).powi(2)).sum(),
        InputWeights::Diagonal(h) => {
            error.iter().zip(h).map(|(&e, &h)| f64::from(h) * f64::from(e) * f64::from(e)).sum()
        }
        InputWeights::Equal => sum_squares(error),
    }
}

/// How the directions of the inputs of a layer count.
pub(super) fn input_weights<'a>(
    inputs: Option<&'a dyn InputRows>,
    importance: Option<&'a [f32]>,
) -> InputWeights<'a> {
    match (inputs, importance) {
        (Some(inputs), _) => InputWeights::Rows(inputs),
        (None, Some(importance)) => InputWeights::Diagonal(importance),
        (None, None) => InputWeights::Equal,
    }
}
