//! Entropy coding: one symbol after the other.

/// Symbols from the words of 32 interleaved states; a slot has a symbol, its frequency less 1 and a place in 8, 12 and 12 bits.
#[inline(never)]
pub fn rans_decode(states: &mut [u32; 32], words: &[[u8; 2]], slots: &[u32; 4096], symbols: &mut [u8]) {
    let mut words = words.iter();
    for (i, symbol) in symbols.iter_mut().enumerate() {
        let state = &mut states[i % 32];
        let slot = slots[(*state & 4095) as usize];
        *symbol = (slot >> 24) as u8;
        *state = ((slot >> 12 & 4095) + 1) * (*state >> 12) + (slot & 4095);
        if *state < 1 << 16 {
            let word = words.next().copied().unwrap_or_default();
            *state = *state << 16 | u32::from(u16::from_le_bytes(word));
        }
    }
}

/// Weights from symbols, what they stand for, the steps of columns and a scale.
#[inline(never)]
pub fn rans_reconstruct(symbols: &[u8], values: &[f32; 256], steps: &[f32], scale: f32, out: &mut [f32]) {
    for ((out, &symbol), step) in out.iter_mut().zip(symbols).zip(steps) {
        *out = values[usize::from(symbol)] * step * scale;
    }
}
