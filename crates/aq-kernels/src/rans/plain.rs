//! Decoding one state after the other, without branches.

use super::tables::{refill, step};
use super::{Decoder, LANES, LOWEST, Rows, Slots, Word};

#[inline(always)]
pub(super) fn decode(decoder: &mut Decoder<'_>, rows: Rows<'_>) {
    let mut states = decoder.states;
    for row in rows.symbols.chunks_exact_mut(rows.classes.len().max(1)) {
        for (symbols, classes) in row.iter_mut().zip(rows.classes) {
            let mut spare = Default::default();
            let window = decoder.window(&mut spare);
            let taken = group(rows.slots, classes, window, &mut states, symbols);
            decoder.taken += taken;
        }
    }
    decoder.states = states;
}

/// Decodes one symbol a lane; returns how many words were taken.
#[inline(always)]
fn group(
    slots: &[Slots],
    classes: &[u8; LANES],
    window: &[Word; LANES],
    states: &mut [u32; LANES],
    symbols: &mut [u8; LANES],
) -> usize {
    let mut taken = 0;
    for lane in 0..LANES {
        let (symbol, x) = step(&slots[usize::from(classes[lane])], states[lane]);
        let refilled = refill(x, window[taken % LANES]);
        symbols[lane] = symbol;
        states[lane] = if x < LOWEST { refilled } else { x };
        taken += usize::from(x < LOWEST);
    }
    taken
}
