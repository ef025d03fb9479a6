//! Decoding with AVX-512: 32 states are two vectors.
#![expect(unsafe_code, reason = "gathers from the slots, and calls of functions that need AVX-512")]

use std::arch::x86_64::*;

use pulp::cast;

use super::{Decoder, LANES, Rows, Slots, TOTAL, Word};

/// Lanes of a vector.
const HALF: usize = LANES / 2;

/// The caller has seen that the level is AVX-512 and that every class has slots.
pub(super) fn decode(decoder: &mut Decoder<'_>, rows: Rows<'_>) {
    // SAFETY: the level AVX-512 has F, BW, CD, DQ and VL.
    unsafe { decode_rows(decoder, rows) }
}

#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,popcnt")]
fn decode_rows(decoder: &mut Decoder<'_>, rows: Rows<'_>) {
    let [mut low, mut high]: [__m512i; 2] = cast(decoder.states);
    for row in rows.symbols.chunks_exact_mut(rows.classes.len().max(1)) {
        for (symbols, classes) in row.iter_mut().zip(rows.classes) {
            let mut spare = Default::default();
            let window = decoder.window(&mut spare);
            let [a, b]: [[u8; HALF]; 2] = cast(*classes);
            let first = step(rows.slots, a, &mut low);
            let second = step(rows.slots, b, &mut high);
            let taken = refill(&mut low, &window[..HALF]);
            let taken = taken + refill(&mut high, &window[taken..taken + HALF]);
            decoder.taken += taken;
            *symbols = cast([first, second]);
        }
    }
    decoder.states = cast([low, high]);
}

/// Decodes one symbol of each lane.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,popcnt")]
fn step(slots: &[Slots], classes: [u8; HALF], states: &mut __m512i) -> __m128i {
    let mask = _mm512_set1_epi32(TOTAL as i32 - 1);
    let tables = _mm512_slli_epi32::<12>(_mm512_cvtepu8_epi32(cast(classes)));
    let index = _mm512_or_si512(tables, _mm512_and_si512(*states, mask));
    // SAFETY: a class is below `slots.len()`, which `Decoder::decode` has asserted, and the rest of an index below 4096.
    let slot = unsafe { _mm512_i32gather_epi32::<4>(index, slots.as_ptr().cast()) };
    let frequency = _mm512_and_si512(_mm512_srli_epi32::<12>(slot), mask);
    let quotient = _mm512_srli_epi32::<12>(*states);
    let product = _mm512_add_epi32(_mm512_mullo_epi32(frequency, quotient), quotient);
    *states = _mm512_add_epi32(product, _mm512_and_si512(slot, mask));
    _mm512_cvtepi32_epi8(_mm512_srli_epi32::<24>(slot))
}

/// Gives a word to each lane that needs one; returns how many did.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,popcnt")]
fn refill(states: &mut __m512i, words: &[Word]) -> usize {
    let words: [Word; HALF] = *words.first_chunk().expect("a word a lane");
    let short = _mm512_cmplt_epu32_mask(*states, _mm512_set1_epi32(1 << 16));
    let words = _mm512_maskz_expand_epi32(short, _mm512_cvtepu16_epi32(cast(words)));
    *states = _mm512_mask_or_epi32(*states, short, _mm512_slli_epi32::<16>(*states), words);
    short.count_ones() as usize
}
