//! Trellis codes over full sequences of 256 weights.

/// Weights of a sequence.
const SEQUENCE: usize = 256;
/// Weights on either side of the seam.
const SEAM: usize = 32;

/// The states of a sequence: the seam first, then the best path that closes there.
///
/// # Panics
/// When there are not 256 weights, or more than 256 values in `table`.
#[inline(never)]
pub fn trellis_encode(bits: u32, table: &[i8], x: &[f32], states: &mut [u8]) {
    let mut near = [0.0; 2 * SEAM];
    near[..SEAM].copy_from_slice(&x[SEQUENCE - SEAM..]);
    near[SEAM..].copy_from_slice(&x[..SEAM]);
    let mut path = [0; SEAM + 1];
    best_path(bits, table, &near, None, &mut path);
    best_path(bits, table, x, Some(usize::from(path[SEAM]) % (table.len() >> bits)), states);
}

/// The states of the cheapest path, as many as there is room for.
fn best_path(bits: u32, table: &[i8], x: &[f32], seam: Option<usize>, path: &mut [u8]) {
    let before = table.len() >> bits;
    let (mut costs, mut least, mut choices) = ([0.0_f32; 256], [0.0_f32; 64], [[0_u8; 64]; SEQUENCE]);
    if let Some(seam) = seam {
        least = [f32::INFINITY; 64];
        least[seam] = 0.0;
    }
    for (&x, choices) in x.iter().zip(&mut choices).rev() {
        for (s, &value) in table.iter().enumerate() {
            let d = x - f32::from(value);
            costs[s] = d * d + least[s >> bits];
        }
        for j in 0..before {
            let mut best = j;
            for t in 1..1_u32 << bits {
                // Of equal costs the one whose bits, read from the lowest, are smaller.
                let s = (t.reverse_bits() >> (32 - bits)) as usize * before + j;
                best = if costs[s] < costs[best] { s } else { best };
            }
            (least[j], choices[j]) = (costs[best], best as u8);
        }
    }
    let (first, step) = seam.map_or((0, 1), |seam| (seam, before));
    let mut state = first;
    for s in (first..table.len()).step_by(step) {
        state = if costs[s] < costs[state] { s } else { state };
    }
    for (i, out) in path.iter_mut().enumerate() {
        state = if i > 0 { usize::from(choices[i][state >> bits]) } else { state };
        *out = state as u8;
    }
}

/// The weights of a stream of 256 codes.
///
/// # Panics
/// When `out` has no 256 weights, or the stream is shorter than their codes.
#[inline(never)]
pub fn trellis_decode(bits: usize, table: &[i8], stream: &[u8], scale: f32, out: &mut [f32]) {
    let mut closed = [0; SEQUENCE / 2 + 1];
    closed[..stream.len()].copy_from_slice(stream);
    closed[stream.len()] = stream[0];
    for (i, out) in out[..SEQUENCE].iter_mut().enumerate() {
        let (byte, shift) = (i * bits / 8, i * bits % 8);
        let word = u16::from(closed[byte]) | u16::from(*closed.get(byte + 1).unwrap_or(&0)) << 8;
        *out = f32::from(table[usize::from(word >> shift) & (table.len() - 1)]) * scale;
    }
}
