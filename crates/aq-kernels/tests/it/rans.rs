//! Entropy coding: symbols come back, and every level gives the words, symbols and states of the twin.

use aq_kernels::rans::{
    Decoder, Frequencies, LANES, LOWEST, Share, TOTAL, encode, fill_shares, fill_slots, pop, reconstruct,
    reconstruct_codes,
};
use aq_kernels::reference;
use proptest::prelude::*;

use crate::tester::{Random, assert_same, at_every_level};

/// Frequencies of `count` symbols from `first` on, falling with the distance from the middle by `fall` out of 8.
fn table(first: usize, count: usize, fall: u32) -> Frequencies {
    let mut frequencies = [0; 256];
    let mut left = TOTAL as u32 - count as u32;
    let mut order: Vec<usize> = (0..count).collect();
    order.sort_by_key(|i| i.abs_diff(count / 2));
    for i in order {
        let more = left * fall / 8;
        frequencies[first + i] = 1 + more as u16;
        left -= more;
    }
    frequencies[first + count / 2] += left as u16;
    frequencies
}

/// Tables of every kind: one symbol, two, many even ones, few steep ones.
fn tables() -> Vec<Frequencies> {
    let mut even = [16; 256];
    (even[0], even[255]) = (1, 31);
    vec![table(0, 1, 8), table(254, 2, 3), even, table(40, 9, 4), table(5, 200, 1), table(255, 1, 1)]
}

/// A symbol drawn by its frequency.
fn draw(frequencies: &Frequencies, random: &mut Random) -> u8 {
    let mut rest = random.next() % TOTAL as u64;
    let found = frequencies.iter().position(|&f| {
        let here = rest < u64::from(f);
        rest = rest.wrapping_sub(u64::from(f));
        here
    });
    found.expect("frequencies sum to 4096") as u8
}

struct Case {
    tables: Vec<Frequencies>,
    classes: Vec<u8>,
    symbols: Vec<u8>,
    states: [u32; LANES],
    words: Vec<[u8; 2]>,
}

fn case(rows: usize, groups: usize, seed: u64) -> Case {
    let (tables, mut random) = (tables(), Random(seed));
    let classes: Vec<u8> = (0..groups * LANES).map(|_| (random.next() % tables.len() as u64) as u8).collect();
    let symbols: Vec<u8> = (0..rows)
        .flat_map(|_| &classes)
        .map(|&class| draw(&tables[usize::from(class)], &mut random))
        .collect();
    let mut states = [LOWEST; LANES];
    states.iter_mut().for_each(|s| *s += (random.next() % 65536) as u32);
    let words = reference::rans_encode(&mut states, &tables, &classes, &symbols);
    Case { tables, classes, symbols, states, words }
}

fn shapes() -> impl Iterator<Item = (usize, usize)> {
    [(0, 1), (1, 1), (1, 2), (2, 1), (3, 5), (40, 1), (7, 9), (100, 4)].into_iter()
}

#[test]
fn encoding_gives_the_words_of_the_twin() {
    for (seed, (rows, groups)) in shapes().enumerate() {
        let case = case(rows, groups, seed as u64);
        let mut shares = vec![[Share::default(); 256]; case.tables.len()];
        shares.iter_mut().zip(&case.tables).for_each(|(s, f)| fill_shares(f, s));
        let mut states = decoded(&case, case.words.as_slice()).2;
        let mut words = vec![[0xaa; 2]; case.symbols.len() + 3];
        let count = encode(&mut states, &shares, &case.classes, &case.symbols, &mut words);
        assert_eq!(states, case.states);
        assert_eq!(&words[words.len() - count..], case.words);
    }
}

/// What the twin decodes: symbols, words taken and the states at the end.
fn decoded(case: &Case, words: &[[u8; 2]]) -> (Vec<u8>, usize, [u32; LANES]) {
    let (mut states, mut symbols) = (case.states, vec![0; case.symbols.len()]);
    let taken = reference::rans_decode(&mut states, words, &case.tables, &case.classes, &mut symbols);
    (symbols, taken, states)
}

#[test]
fn decoding_gives_the_symbols_of_the_twin() {
    for (seed, (rows, groups)) in shapes().enumerate() {
        let case = case(rows, groups, seed as u64 + 50);
        let mut slots = vec![[0; TOTAL]; case.tables.len()];
        slots.iter_mut().zip(&case.tables).for_each(|(s, f)| fill_slots(f, s));
        for length in [case.words.len(), case.words.len() / 2, 0] {
            let words = &case.words[..length];
            let (want, taken, states) = decoded(&case, words);
            assert!(length < case.words.len() || want == case.symbols);
            at_every_level(|level| {
                let what = format!("{level}, {rows} x {groups}, {length} words");
                let mut decoder = Decoder::new(case.states, words);
                let mut got = vec![99; want.len()];
                let first = rows / 3 * case.classes.len();
                decoder.decode(&slots, &case.classes, &mut got[..first]);
                decoder.decode(&slots, &case.classes, &mut got[first..]);
                assert_same(&got, &want, &what);
                assert_eq!(decoder.overrun(), taken > length, "{what}");
                let payload = (length == case.words.len()).then(|| states.map(|x| x as u16));
                assert!(payload.is_none() || decoder.payload() == payload, "{what}");
            });
        }
    }
}

#[test]
fn a_single_state_takes_back_what_was_pushed() {
    let (frequencies, mut random) = (table(5, 200, 1), Random(9));
    let (mut shares, mut slots) = ([Share::default(); 256], [0; TOTAL]);
    fill_shares(&frequencies, &mut shares);
    fill_slots(&frequencies, &mut slots);
    let symbols: Vec<u8> = (0..5000).map(|_| draw(&frequencies, &mut random)).collect();
    let (mut state, mut words) = (LOWEST, Vec::new());
    for &symbol in symbols.iter().rev() {
        words.extend(shares[usize::from(symbol)].push(&mut state));
    }
    for symbol in symbols {
        assert_eq!(pop(&slots, &mut state, || words.pop().expect("a word")), symbol);
    }
    assert_eq!((state, words.len()), (LOWEST, 0));
}

proptest! {
    #[test]
    fn any_words_give_the_same_symbols_everywhere(
        states in prop::array::uniform32(any::<u32>()),
        words in prop::collection::vec(any::<[u8; 2]>(), 0..300),
        rows in 1usize..9,
        seed: u64,
    ) {
        let case = Case { states, words, ..case(rows, 3, seed) };
        let mut slots = vec![[0; TOTAL]; case.tables.len()];
        slots.iter_mut().zip(&case.tables).for_each(|(s, f)| fill_slots(f, s));
        let (want, taken, _) = decoded(&case, &case.words);
        at_every_level(|level| {
            let (mut decoder, mut got) = (Decoder::new(states, &case.words), vec![0; want.len()]);
            decoder.decode(&slots, &case.classes, &mut got);
            assert_same(&got, &want, level.name());
            assert_eq!(decoder.overrun(), taken > case.words.len(), "{level}");
        });
    }
}

#[test]
fn weights_from_symbols() {
    let mut random = Random(3);
    let mut values = vec![[0.0; 256]; 3];
    values.as_flattened_mut().iter_mut().for_each(|v| *v = random.normal());
    for n in (0..70).chain([500]) {
        let symbols: Vec<u8> = (0..n).map(|_| random.next() as u8).collect();
        let classes: Vec<u8> = (0..n).map(|_| (random.next() % 3) as u8).collect();
        let steps: Vec<f32> = (0..n).map(|_| random.unit()).collect();
        let mut want = vec![0.0; n];
        reference::rans_reconstruct(&symbols, &classes, &values, &steps, 0.3, &mut want);
        at_every_level(|level| {
            let mut got = vec![7.0; n];
            reconstruct(&symbols, &classes, &values, &steps, 0.3, &mut got);
            assert_same(&got, &want, level.name());
        });
    }
}

#[test]
fn weights_from_codes() {
    let mut random = Random(4);
    for n in (0..70).chain([500]) {
        let codes: Vec<i32> = (0..n).map(|_| (random.next() as i32) >> (random.next() % 32)).collect();
        let mut draw = || -> Vec<f32> { (0..n).map(|_| random.unit() - 0.5).collect() };
        let (one, two, more, steps) = (draw(), draw(), draw(), draw());
        let deltas = [&one[..], &two[..], &more[..]];
        let mut want = vec![0.0; n];
        reference::rans_reconstruct_codes(&codes, deltas, &steps, 0.3, &mut want);
        at_every_level(|level| {
            let mut got = vec![7.0; n];
            reconstruct_codes(&codes, deltas, &steps, 0.3, &mut got);
            assert_same(&got, &want, level.name());
        });
    }
}

#[test]
#[should_panic(expected = "a table for every class")]
fn a_class_without_slots_is_refused() {
    Decoder::new([LOWEST; LANES], &[]).decode(&[[0; TOTAL]], &[1; LANES], &mut [0; LANES]);
}
