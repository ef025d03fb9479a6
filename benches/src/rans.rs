//! Rows of symbols for timing the kernels of entropy coding.

use aq_kernels::rans::{LANES, LOWEST, Share, Slots, TOTAL, Word, encode, fill_shares, fill_slots};

/// Columns of a row.
pub const COLS: usize = 4096;

/// Symbols of one class of columns, and their words.
#[derive(Debug, Clone)]
pub struct Coded {
    /// One class for all columns.
    pub classes: Vec<u8>,
    /// What decodes that class.
    pub slots: Vec<Slots>,
    /// The states that the encoder ended with.
    pub states: [u32; LANES],
    /// The words in the order of reading.
    pub words: Vec<Word>,
    /// The symbols.
    pub symbols: Vec<u8>,
}

/// The weights of rows of [`COLS`] columns, rounded to multiples of `step`, as symbols: 0 for `-127`.
///
/// ```
/// let coded = aq_benches::rans::coded(&aq_benches::weights(8192), 1.0);
/// assert_eq!(coded.symbols.len(), 8192);
/// assert!((1000..1200).contains(&coded.words.len()));
/// ```
pub fn coded(weights: &[f32], step: f32) -> Coded {
    let symbols: Vec<u8> =
        weights.iter().map(|w| ((w / step).round().clamp(-127.0, 127.0) + 127.0) as u8).collect();
    let mut counts = [0_usize; 256];
    symbols.iter().for_each(|&s| counts[usize::from(s)] += 1);
    let share = |n: usize| if n == 0 { 0 } else { (n * TOTAL / symbols.len()).max(1) as u16 };
    let mut frequencies = counts.map(share);
    let sum: usize = frequencies.iter().map(|&f| usize::from(f)).sum();
    frequencies[127] = (usize::from(frequencies[127]) + TOTAL - sum) as u16;
    let (mut shares, mut slots) = (vec![[Share::default(); 256]], vec![[0; TOTAL]]);
    fill_shares(&frequencies, &mut shares[0]);
    fill_slots(&frequencies, &mut slots[0]);
    let (classes, mut states, mut words) = (vec![0; COLS], [LOWEST; LANES], vec![[0; 2]; symbols.len()]);
    let count = encode(&mut states, &shares, &classes, &symbols, &mut words);
    words.drain(..words.len() - count);
    Coded { classes, slots, states, words, symbols }
}
