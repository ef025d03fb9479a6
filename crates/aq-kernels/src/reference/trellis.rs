//! Twins of `trellis`.

/// Weights on either side of the seam.
const SEAM: usize = 32;
/// Weights for which every seam is tried.
const SHORT: usize = 8;

/// A pass: the cost of the cheapest path and its states. `seam` is what the first state begins with and the last goes on with.
fn best_path(
    bits: u32,
    table: &[i8],
    x: &[f32],
    importance: &[f32],
    seam: Option<usize>,
) -> (f32, Vec<usize>) {
    let (states, before) = (table.len(), table.len() >> bits);
    let closes = |low: usize| seam.is_none_or(|seam| seam == low);
    let mut least: Vec<f32> = (0..before).map(|j| if closes(j) { 0.0 } else { f32::INFINITY }).collect();
    let mut after = vec![vec![0; before]; x.len()];
    let mut costs = vec![0.0; states];
    // Of equal costs the one whose bits, read from the lowest, are smaller.
    let mut order: Vec<usize> = (0..1 << bits).collect();
    order.sort_by_key(|t| t.reverse_bits());
    for i in (0..x.len()).rev() {
        for (s, cost) in costs.iter_mut().enumerate() {
            let d = x[i] - f32::from(table[s]);
            *cost = d * d * importance[i] + least[s >> bits];
        }
        for j in 0..before {
            let better = |best: usize, &t: &usize| {
                if costs[t * before + j] < costs[best] { t * before + j } else { best }
            };
            after[i][j] = order.iter().fold(j, better);
            least[j] = costs[after[i][j]];
        }
    }
    let starts = (0..states).filter(|s| closes(s % before));
    let first = starts.reduce(|best, s| if costs[s] < costs[best] { s } else { best }).unwrap_or(0);
    let mut path = vec![first];
    for choices in after.iter().skip(1) {
        path.push(choices[path[path.len() - 1] >> bits]);
    }
    (costs[first], path)
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
        let around =
            |of: &[f32]| -> Vec<f32> { (0..2 * SEAM).map(|i| of[(i + SEAM * (n - 1)) % n]).collect() };
        let (_, path) = best_path(bits, table, &around(x), &around(&importance), None);
        pass(path[SEAM] % before)
    };
    states.iter_mut().zip(path).for_each(|(state, s)| *state = s as u8);
    cost
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
