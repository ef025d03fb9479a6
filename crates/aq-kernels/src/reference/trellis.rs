//! Twins of `trellis`.

/// Weights on either side of the seam.
const SEAM: usize = 32;
/// Weights for which every seam is tried.
const SHORT: usize = 8;

/// Costs behind the last weight by what its state goes on with, for a stream that closes with `seam`.
fn start(before: usize, seam: Option<usize>) -> Vec<f32> {
    (0..before).map(|j| if seam.is_none_or(|seam| seam == j) { 0.0 } else { f32::INFINITY }).collect()
}

/// One weight further on: the cost of each state, and which states the least costs behind the weight before are of.
fn extend(bits: u32, table: &[i8], x: f32, importance: f32, least: &mut [f32]) -> (Vec<f32>, Vec<usize>) {
    let before = least.len();
    let cost = |(s, &value): (usize, &i8)| {
        let d = x - f32::from(value);
        d * d * importance + least[s >> bits]
    };
    let costs: Vec<f32> = table.iter().enumerate().map(cost).collect();
    // Of equal costs the one whose bits, read from the lowest, are smaller.
    let mut order: Vec<usize> = (0..1 << bits).collect();
    order.sort_by_key(|t| t.reverse_bits());
    let best = |j: usize| {
        let better = |best: usize, &t: &usize| {
            if costs[t * before + j] < costs[best] { t * before + j } else { best }
        };
        order.iter().fold(j, better)
    };
    let after: Vec<usize> = (0..before).map(best).collect();
    least.iter_mut().zip(&after).for_each(|(least, &s)| *least = costs[s]);
    (costs, after)
}

/// The cheapest state that begins with `seam`.
fn cheapest(costs: &[f32], before: usize, seam: Option<usize>) -> usize {
    let starts = (0..costs.len()).filter(|s| seam.is_none_or(|seam| seam == s % before));
    starts.reduce(|best, s| if costs[s] < costs[best] { s } else { best }).unwrap_or(0)
}

/// The path on from `first`, by the choices of the weights after it.
fn path(bits: u32, first: usize, after: &[Vec<usize>]) -> Vec<usize> {
    let mut path = vec![first];
    for choices in after {
        path.push(choices[path[path.len() - 1] >> bits]);
    }
    path
}

/// A pass: the cost of the cheapest path and its states. `seam` is what the first state begins with and the last goes on with.
fn best_path(
    bits: u32,
    table: &[i8],
    x: &[f32],
    importance: &[f32],
    seam: Option<usize>,
) -> (f32, Vec<usize>) {
    let mut least = start(table.len() >> bits, seam);
    let (mut after, mut costs) = (vec![Vec::new(); x.len()], Vec::new());
    for i in (0..x.len()).rev() {
        (costs, after[i]) = extend(bits, table, x[i], importance[i], &mut least);
    }
    let first = cheapest(&costs, least.len(), seam);
    (costs[first], path(bits, first, &after[1..]))
}

/// What the last state and the first of a long sequence should share.
fn seam_of(bits: u32, table: &[i8], x: &[f32], importance: &[f32]) -> usize {
    let n = x.len();
    let around = |of: &[f32]| -> Vec<f32> { (0..2 * SEAM).map(|i| of[(i + SEAM * (n - 1)) % n]).collect() };
    best_path(bits, table, &around(x), &around(importance), None).1[SEAM] % (table.len() >> bits)
}

pub fn trellis_encode_with_feedback(
    bits: u8,
    table: &[i8],
    x: &mut [f32],
    feedback: crate::trellis::Feedback<'_>,
    states: &mut [u8],
) {
    let (n, width, original) = (x.len(), u32::from(bits), x.to_vec());
    let h = feedback.importance;
    if n <= SHORT {
        trellis_encode(bits, table, x, Some(h), states);
        return;
    }
    let seam = seam_of(width, table, x, h);
    let (mut least, mut after) = (start(table.len() >> bits, Some(seam)), vec![Vec::new(); n]);
    for i in (0..n).rev() {
        let costs;
        (costs, after[i]) = extend(width, table, x[i], h[i], &mut least);
        if i % 8 != 0 {
            continue;
        }
        let first = cheapest(&costs, least.len(), (i == 0).then_some(seam));
        let path = path(width, first, &after[i + 1..]);
        states[i..].iter_mut().zip(&path).for_each(|(state, &s)| *state = s as u8);
        for k in i + 8..n.min(i + 16) {
            let error = original[k] - f32::from(table[path[k - i]]);
            let row = &feedback.matrix[k * feedback.stride..];
            x[..i].iter_mut().zip(row).for_each(|(x, factor)| *x -= error * factor);
        }
    }
}

pub fn trellis_encode(
    bits: u8,
    table: &[i8],
    x: &[f32],
    importance: Option<&[f32]>,
    states: &mut [u8],
) -> f32 {
    let (n, bits) = (x.len(), u32::from(bits));
    if n == 0 {
        return 0.0;
    }
    let importance = importance.map_or(vec![1.0; n], <[f32]>::to_vec);
    let before = table.len() >> bits;
    let pass = |seam: usize| best_path(bits, table, x, &importance, Some(seam));
    let (cost, path) = if n <= SHORT {
        (1..before).map(pass).fold(pass(0), |best, found| if found.0 < best.0 { found } else { best })
    } else {
        pass(seam_of(bits, table, x, &importance))
    };
    states.iter_mut().zip(path).for_each(|(state, s)| *state = s as u8);
    cost
}

pub fn trellis_descend(descent: crate::trellis::Descent<'_>, errors: &[f32], states: &mut [u8]) -> usize {
    let (n, bits, len) = (states.len(), usize::from(descent.bits), descent.table.len());
    let h = |i: usize, j: usize| descent.hessian[i * descent.stride + j];
    let holders = (len.ilog2() as usize).div_ceil(bits);
    let dot = |j: usize| errors.iter().enumerate().fold(0.0, |sum, (i, e)| sum + e * h(i, j));
    let mut residual: Vec<f32> = (0..n).map(dot).collect();
    let mut moved = 0;
    for i in (0..descent.passes).flat_map(|_| 0..n).filter(|_| n >= 8) {
        let at: Vec<usize> = (0..holders).map(|a| (i + n - a) % n).collect();
        let own = usize::from(states[i]) % (1 << bits);
        let mut best = (0.0, vec![0.0; holders], vec![]);
        for code in (0..1 << bits).filter(|&code| code != own) {
            let change = |a: usize| ((code ^ own) << (a * bits)) % len;
            let new: Vec<usize> =
                at.iter().enumerate().map(|(a, &t)| usize::from(states[t]) ^ change(a)).collect();
            let value = |s: usize| f32::from(descent.table[s]);
            let moves = new.iter().zip(&at);
            let d: Vec<f32> =
                moves.map(|(&s, &t)| (value(s) - value(usize::from(states[t]))) * descent.scale).collect();
            let gain = (0..holders).fold(0.0, |gain, a| {
                let twice = residual[at[a]] + residual[at[a]];
                gain + d[a] * (0..holders).fold(twice, |rest, b| rest - h(at[a], at[b]) * d[b])
            });
            if gain > best.0 {
                best = (gain, d, new);
            }
        }
        let (gain, d, new) = best;
        if gain > 0.0 {
            moved += 1;
            for a in 0..holders {
                states[at[a]] = new[a] as u8;
                (0..n).for_each(|j| residual[j] -= d[a] * h(at[a], j));
            }
        }
    }
    moved
}

pub fn trellis_pack(bits: u8, states: &[u8], out: &mut [u8]) {
    out.fill(0);
    for (i, state) in states.iter().enumerate() {
        super::put(out, i * usize::from(bits), usize::from(bits), *state);
    }
}

pub fn trellis_decode(bits: u8, table: &[i8], stream: &[u8], scale: f32, factor: f32, out: &mut [f32]) {
    let total = out.len() * usize::from(bits);
    for (i, out) in out.iter_mut().enumerate() {
        let bit = |l: usize| {
            let at = (i * usize::from(bits) + l) % total;
            usize::from(stream[at / 8] >> (at % 8) & 1) << l
        };
        let state: usize = (0..table.len().ilog2() as usize).map(bit).sum();
        *out = f32::from(table[state]) * scale * factor;
    }
}
