//! The two forms of a frequency table, and one state's step in either direction.

use super::{LOWEST, Word};

/// The sum of all frequencies of a table.
pub const TOTAL: usize = 1 << BITS;

const BITS: u32 = 12;
const MASK: u32 = TOTAL as u32 - 1;

/// How often each symbol occurs, out of [`TOTAL`].
pub type Frequencies = [u16; 256];

/// What decoding looks up for each of the 4096 remainders of a state: symbol, frequency less 1 and place within the
/// share in 8, 12 and 12 bits, from the highest bit down.
pub type Slots = [u32; TOTAL];

/// The shares of all symbols, for encoding.
pub type Shares = [Share; 256];

/// The part of the 4096 remainders that belongs to a symbol.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Share {
    start: u16,
    frequency: u16,
}

impl Share {
    /// Encodes the symbol of this share into one state; the word that leaves it, if one does.
    ///
    /// # Panics
    /// When the share is empty.
    #[inline(always)]
    pub fn push(self, state: &mut u32) -> Option<Word> {
        let frequency = u32::from(self.frequency);
        let full = *state >> (32 - BITS) >= frequency;
        let word = (*state as u16).to_le_bytes();
        let x = if full { *state >> 16 } else { *state };
        *state = ((x / frequency) << BITS) + x % frequency + u32::from(self.start);
        full.then_some(word)
    }
}

/// Decodes a symbol from one state. `next` gives the next word when one is needed.
///
/// ```
/// use aq_kernels::rans::{fill_shares, fill_slots, pop};
/// let mut frequencies = [0; 256];
/// (frequencies[3], frequencies[200]) = (4000, 96);
/// let (mut shares, mut slots) = ([Default::default(); 256], [0; 4096]);
/// fill_shares(&frequencies, &mut shares);
/// fill_slots(&frequencies, &mut slots);
/// let mut state = 70_000;
/// assert_eq!(shares[200].push(&mut state), None);
/// assert_eq!(pop(&slots, &mut state, || unreachable!("nothing was written")), 200);
/// assert_eq!(state, 70_000);
/// ```
#[inline(always)]
pub fn pop(slots: &Slots, state: &mut u32, next: impl FnOnce() -> Word) -> u8 {
    let (symbol, x) = step(slots, *state);
    *state = if x < LOWEST { refill(x, next()) } else { x };
    symbol
}

/// The symbol of a state, and the state before that symbol, perhaps without its lowest 16 bits.
#[inline(always)]
pub(super) fn step(slots: &Slots, x: u32) -> (u8, u32) {
    let slot = slots[(x & MASK) as usize];
    ((slot >> 24) as u8, ((slot >> BITS & MASK) + 1) * (x >> BITS) + (slot & MASK))
}

#[inline(always)]
pub(super) fn refill(x: u32, word: Word) -> u32 {
    x << 16 | u32::from(u16::from_le_bytes(word))
}

/// Fills in the slots of a table.
///
/// # Panics
/// When the frequencies do not sum to [`TOTAL`].
pub fn fill_slots(frequencies: &Frequencies, slots: &mut Slots) {
    check_sum(frequencies);
    let mut rest = slots.as_mut_slice();
    for (symbol, &frequency) in frequencies.iter().enumerate().filter(|(_, f)| **f > 0) {
        let (own, after) = rest.split_at_mut(usize::from(frequency));
        let common = (symbol as u32) << 24 | (u32::from(frequency) - 1) << BITS;
        for (place, slot) in own.iter_mut().enumerate() {
            *slot = common | place as u32;
        }
        rest = after;
    }
}

/// Fills in the shares of a table.
///
/// # Panics
/// When the frequencies do not sum to [`TOTAL`].
pub fn fill_shares(frequencies: &Frequencies, shares: &mut Shares) {
    check_sum(frequencies);
    let mut start = 0;
    for (share, &frequency) in shares.iter_mut().zip(frequencies) {
        *share = Share { start, frequency };
        start += frequency;
    }
}

fn check_sum(frequencies: &Frequencies) {
    let sum: usize = frequencies.iter().map(|&f| usize::from(f)).sum();
    assert_eq!(sum, TOTAL, "the sum of all frequencies");
}
