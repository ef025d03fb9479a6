//! Plain twins of [`crate::rans`].

use crate::rans::{Frequencies, LANES};

/// The symbol of a remainder, with its start and frequency.
fn find(frequencies: &Frequencies, remainder: u64) -> (u8, u64, u64) {
    let mut start = 0;
    for (symbol, &frequency) in frequencies.iter().enumerate() {
        let frequency = u64::from(frequency);
        if remainder < start + frequency {
            return (symbol as u8, start, frequency);
        }
        start += frequency;
    }
    unreachable!("frequencies sum to 4096")
}

/// Returns how many words were taken, those after the last one included.
pub fn rans_decode(
    states: &mut [u32; LANES],
    words: &[[u8; 2]],
    tables: &[Frequencies],
    classes: &[u8],
    symbols: &mut [u8],
) -> usize {
    let mut taken = 0;
    for (i, out) in symbols.iter_mut().enumerate() {
        let state = &mut states[i % LANES];
        let class = usize::from(classes[i % classes.len()]);
        let (symbol, start, frequency) = find(&tables[class], u64::from(*state % 4096));
        let mut x = frequency * u64::from(*state / 4096) + u64::from(*state % 4096) - start;
        if x < 1 << 16 {
            x = x * 65536 + u64::from(u16::from_le_bytes(words.get(taken).copied().unwrap_or_default()));
            taken += 1;
        }
        (*out, *state) = (symbol, x as u32);
    }
    taken
}

/// The words in the order of reading.
pub fn rans_encode(
    states: &mut [u32; LANES],
    tables: &[Frequencies],
    classes: &[u8],
    symbols: &[u8],
) -> Vec<[u8; 2]> {
    let mut words = Vec::new();
    for (i, &symbol) in symbols.iter().enumerate().rev() {
        let table = &tables[usize::from(classes[i % classes.len()])];
        let start: u64 = table[..usize::from(symbol)].iter().map(|&f| u64::from(f)).sum();
        let frequency = u64::from(table[usize::from(symbol)]);
        let mut x = u64::from(states[i % LANES]);
        if x >= frequency << 20 {
            words.push((x as u16).to_le_bytes());
            x >>= 16;
        }
        states[i % LANES] = (x / frequency * 4096 + x % frequency + start) as u32;
    }
    words.reverse();
    words
}

pub fn rans_reconstruct(
    symbols: &[u8],
    classes: &[u8],
    values: &[[f32; 256]],
    steps: &[f32],
    scale: f32,
    out: &mut [f32],
) {
    for (j, out) in out.iter_mut().enumerate() {
        *out = values[usize::from(classes[j])][usize::from(symbols[j])] * steps[j] * scale;
    }
}

pub fn rans_reconstruct_codes(
    codes: &[i32],
    deltas: [&[f32]; 3],
    steps: &[f32],
    scale: f32,
    out: &mut [f32],
) {
    for (j, out) in out.iter_mut().enumerate() {
        let value = match codes[j] {
            0 => 0.0,
            c @ (1 | -1) => c as f32 - deltas[0][j] * c as f32,
            c @ (2 | -2) => c as f32 - deltas[1][j] * c.signum() as f32,
            c => c as f32 - deltas[2][j] * c.signum() as f32,
        };
        *out = value * steps[j] * scale;
    }
}
