//! Decoding with AVX2: 32 states are four vectors.
#![expect(unsafe_code, reason = "gathers from the slots, and calls of functions that need AVX2")]

use std::arch::x86_64::*;

use pulp::cast;

use super::{Decoder, LANES, Rows, Slots, TOTAL, Word};

/// Lanes of a vector.
const PART: usize = LANES / 4;

/// For each set of lanes, which word a lane takes: as many as lanes before it are in the set.
static ORDER: [[u32; PART]; 256] = order();

const fn order() -> [[u32; PART]; 256] {
    let mut order = [[0; PART]; 256];
    let mut i = 0;
    while i < 256 * PART {
        let (set, lane) = (i / PART, i % PART);
        order[set][lane] = (set & ((1 << lane) - 1)).count_ones();
        i += 1;
    }
    order
}

/// The caller has seen that the level is AVX2 and that every class has slots.
pub(super) fn decode(decoder: &mut Decoder<'_>, rows: Rows<'_>) {
    // SAFETY: the level AVX2 has AVX2 and POPCNT.
    unsafe { decode_rows(decoder, rows) }
}

#[target_feature(enable = "avx2,popcnt")]
fn decode_rows(decoder: &mut Decoder<'_>, rows: Rows<'_>) {
    let mut states: [__m256i; 4] = cast(decoder.states);
    for row in rows.symbols.chunks_exact_mut(rows.classes.len().max(1)) {
        for (symbols, classes) in row.iter_mut().zip(rows.classes) {
            let mut spare = Default::default();
            let window = decoder.window(&mut spare);
            let classes: [[u8; PART]; 4] = cast(*classes);
            let mut found = [_mm256_setzero_si256(); 4];
            for part in 0..4 {
                found[part] = step(rows.slots, classes[part], &mut states[part]);
            }
            let mut taken = 0;
            for state in &mut states {
                taken += refill(state, &window[taken..taken + PART]);
            }
            decoder.taken += taken;
            *symbols = narrow(found);
        }
    }
    decoder.states = cast(states);
}

/// Decodes one symbol of each lane.
#[inline]
#[target_feature(enable = "avx2,popcnt")]
fn step(slots: &[Slots], classes: [u8; PART], states: &mut __m256i) -> __m256i {
    let mask = _mm256_set1_epi32(TOTAL as i32 - 1);
    let classes = _mm_cvtsi64_si128(i64::from_le_bytes(classes));
    let tables = _mm256_slli_epi32::<12>(_mm256_cvtepu8_epi32(classes));
    let index = _mm256_or_si256(tables, _mm256_and_si256(*states, mask));
    // SAFETY: a class is below `slots.len()`, which `Decoder::decode` has asserted, and the rest of an index below 4096.
    let slot = unsafe { _mm256_i32gather_epi32::<4>(slots.as_ptr().cast(), index) };
    let frequency = _mm256_and_si256(_mm256_srli_epi32::<12>(slot), mask);
    let quotient = _mm256_srli_epi32::<12>(*states);
    let product = _mm256_add_epi32(_mm256_mullo_epi32(frequency, quotient), quotient);
    *states = _mm256_add_epi32(product, _mm256_and_si256(slot, mask));
    _mm256_srli_epi32::<24>(slot)
}

/// Gives a word to each lane that needs one; returns how many did.
#[inline]
#[target_feature(enable = "avx2,popcnt")]
fn refill(states: &mut __m256i, words: &[Word]) -> usize {
    let words: [Word; PART] = *words.first_chunk().expect("a word a lane");
    let short = _mm256_cmpeq_epi32(_mm256_srli_epi32::<16>(*states), _mm256_setzero_si256());
    let set = _mm256_movemask_ps(_mm256_castsi256_ps(short)) as usize;
    let words = _mm256_permutevar8x32_epi32(_mm256_cvtepu16_epi32(cast(words)), cast(ORDER[set]));
    let refilled = _mm256_or_si256(_mm256_slli_epi32::<16>(*states), words);
    *states = _mm256_blendv_epi8(*states, refilled, short);
    set.count_ones() as usize
}

/// The lanes of four vectors, all below 256, as bytes in order.
#[inline]
#[target_feature(enable = "avx2,popcnt")]
fn narrow([a, b, c, d]: [__m256i; 4]) -> [u8; LANES] {
    let (ab, cd) = (_mm256_packus_epi32(a, b), _mm256_packus_epi32(c, d));
    let mixed = _mm256_packus_epi16(ab, cd);
    let order: __m256i = cast([0_u32, 4, 1, 5, 2, 6, 3, 7]);
    cast(_mm256_permutevar8x32_epi32(mixed, order))
}
