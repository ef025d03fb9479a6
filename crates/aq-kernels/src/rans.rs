//! Range coding with asymmetric numeral systems (rANS): symbols of one byte to 16-bit words and back.
//!
//! Source: J. Duda, "Asymmetric numeral systems" (arXiv 1311.2540); the interleaving is that of F. Giesen, "Interleaved
//! entropy coders" (arXiv 1402.3392). A symbol `s` with the frequency `f[s]` out of 4096 costs `log2(4096 / f[s])` bits.
//! With `start[s]` the sum of the frequencies before it, a state `x` in `2^16 ..< 2^32` changes by
//!
//! ```text
//! encode  when x >= f[s] * 2^20: write the word x mod 2^16, x = x div 2^16
//!         x = x div f[s] * 4096 + start[s] + x mod f[s]
//! decode  s = the symbol with start[s] <= x mod 4096 < start[s] + f[s]
//!         x = f[s] * (x div 4096) + x mod 4096 - start[s]
//!         when x < 2^16: x = x * 2^16 + the next word
//! ```
//!
//! Decoding takes back what encoding did last, so symbols are encoded from the last to the first. Symbol `i` belongs
//! to state `i mod 32`: the 32 states share one run of words and know nothing of each other, so they are decoded at once.
//! The frequencies may differ from column to column; a column whose only symbol has all 4096 costs nothing, which
//! is how rows are filled up to whole groups of 32.

mod plain;
mod tables;
#[cfg(target_arch = "x86_64")]
mod v3;
#[cfg(target_arch = "x86_64")]
mod v4;
mod weights;

use pulp::{Simd, WithSimd};

use crate::dispatch;
#[cfg(target_arch = "x86_64")]
use crate::dispatch::{Token, token};

pub use tables::{Frequencies, Share, Shares, Slots, TOTAL, fill_shares, fill_slots, pop};
pub use weights::{reconstruct, reconstruct_codes};

/// States that are decoded at once.
pub const LANES: usize = 32;

/// The smallest state between two symbols.
pub const LOWEST: u32 = 1 << 16;

/// A little-endian word of 16 bits.
pub type Word = [u8; 2];

/// Encodes rows of symbols from the last symbol to the first. Returns how many words it wrote, to the end of `words`.
///
/// `states` hold whatever they held before: [`LOWEST`] for nothing, or up to 16 bits more each, that the decoder
/// gets back at the end. `symbols` are rows of `classes.len()` symbols; column `j` has the frequencies `shares[classes[j]]`.
///
/// # Panics
/// When `classes.len()` is no multiple of [`LANES`], `symbols` are no whole rows, there are fewer words than symbols, or
/// a symbol has no share.
///
/// # Examples
/// ```
/// use aq_kernels::rans::{Decoder, LANES, LOWEST, fill_shares, fill_slots};
/// let mut frequencies = [0; 256];
/// (frequencies[0], frequencies[7]) = (3072, 1024);
/// let (mut shares, mut slots) = ([[Default::default(); 256]], [[0; 4096]]);
/// fill_shares(&frequencies, &mut shares[0]);
/// fill_slots(&frequencies, &mut slots[0]);
///
/// let symbols: Vec<u8> = (0..LANES * 100).map(|i| if i % 4 == 0 { 7 } else { 0 }).collect();
/// let (mut states, mut words) = ([LOWEST; LANES], vec![[0; 2]; symbols.len()]);
/// let count = aq_kernels::rans::encode(&mut states, &shares, &[0; LANES], &symbols, &mut words);
/// assert!(count < 160); // 3200 symbols of 0.81 bits are 162 words, less 16 bits a state.
///
/// let mut decoder = Decoder::new(states, &words[words.len() - count..]);
/// let mut back = vec![0; symbols.len()];
/// decoder.decode(&slots, &[0; LANES], &mut back);
/// assert_eq!(back, symbols);
/// assert_eq!(decoder.payload(), Some([0; LANES]));
/// ```
pub fn encode(
    states: &mut [u32; LANES],
    shares: &[Shares],
    classes: &[u8],
    symbols: &[u8],
    words: &mut [Word],
) -> usize {
    check_lengths(shares.len(), classes, symbols);
    assert!(words.len() >= symbols.len(), "room for a word a symbol");
    let mut at = words.len();
    for row in symbols.rchunks_exact(classes.len().max(1)) {
        let groups = row.as_chunks::<LANES>().0.iter().zip(classes.as_chunks::<LANES>().0);
        for (symbols, classes) in groups.rev() {
            for lane in (0..LANES).rev() {
                let share = shares[usize::from(classes[lane])][usize::from(symbols[lane])];
                if let Some(word) = share.push(&mut states[lane]) {
                    at -= 1;
                    words[at] = word;
                }
            }
        }
    }
    words.len() - at
}

/// A run of words that is being decoded.
#[derive(Debug, Clone)]
pub struct Decoder<'a> {
    states: [u32; LANES],
    words: &'a [Word],
    taken: usize,
}

impl<'a> Decoder<'a> {
    /// Starts with the states that the encoder ended with.
    pub fn new(states: [u32; LANES], words: &'a [Word]) -> Self {
        Self { states, words, taken: 0 }
    }

    /// Decodes the next rows of `classes.len()` symbols; column `j` has the frequencies of `slots[classes[j]]`.
    ///
    /// Any words give some symbols; words after the last one are 0.
    ///
    /// # Panics
    /// When `classes.len()` is no multiple of [`LANES`], `symbols` are no whole rows, or a class has no slots.
    pub fn decode(&mut self, slots: &[Slots], classes: &[u8], symbols: &mut [u8]) {
        check_lengths(slots.len(), classes, symbols);
        let rows = Rows { slots, classes: classes.as_chunks().0, symbols: symbols.as_chunks_mut().0 };
        match () {
            #[cfg(target_arch = "x86_64")]
            () if matches!(token(), Token::Avx512(_)) => v4::decode(self, rows),
            #[cfg(target_arch = "x86_64")]
            () if matches!(token(), Token::Avx2(_)) => v3::decode(self, rows),
            () => dispatch::run(Plain { decoder: self, rows }),
        }
    }

    /// Whether more words were asked for than there are.
    pub fn overrun(&self) -> bool {
        self.taken > self.words.len()
    }

    /// The 16 bits that each state held before the first symbol was encoded, the last one decoded; `None` unless just
    /// that symbol and the last word were reached.
    pub fn payload(&self) -> Option<[u16; LANES]> {
        let done = self.taken == self.words.len() && self.states.iter().all(|x| x >> 16 == 1);
        done.then(|| self.states.map(|x| x as u16))
    }

    /// The next 32 words.
    #[inline(always)]
    fn window<'w>(&'w self, spare: &'w mut [Word; LANES]) -> &'w [Word; LANES] {
        let rest = self.words.get(self.taken..).unwrap_or(&[]);
        if let Some(window) = rest.first_chunk() {
            return window;
        }
        spare[..rest.len()].copy_from_slice(rest);
        spare
    }
}

/// Symbols of whole rows in groups of one a lane, with what decodes them.
struct Rows<'a> {
    slots: &'a [Slots],
    classes: &'a [[u8; LANES]],
    symbols: &'a mut [[u8; LANES]],
}

struct Plain<'a, 'w> {
    decoder: &'a mut Decoder<'w>,
    rows: Rows<'a>,
}

impl WithSimd for Plain<'_, '_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        plain::decode(self.decoder, self.rows);
    }
}

fn check_lengths(tables: usize, classes: &[u8], symbols: &[u8]) {
    assert!(classes.len().is_multiple_of(LANES), "whole groups of columns");
    assert!(symbols.len().is_multiple_of(classes.len().max(1)), "whole rows of symbols");
    let last = classes.iter().fold(0, |last, &class| last.max(class));
    assert!(classes.is_empty() || usize::from(last) < tables, "a table for every class");
}
