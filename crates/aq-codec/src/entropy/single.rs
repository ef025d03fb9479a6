//! Symbols in the words of one state, for runs that are too short for 32.

use aq_kernels::rans::{LOWEST, Share, Slots, Word, pop};

/// Encodes from the last symbol to the first.
#[derive(Debug, Clone)]
pub(super) struct Single {
    state: u32,
    /// The last one first.
    words: Vec<Word>,
}

impl Default for Single {
    fn default() -> Self {
        Self { state: LOWEST, words: Vec::new() }
    }
}

impl Single {
    /// Empties it and keeps its memory.
    pub(super) fn clear(&mut self) {
        self.state = LOWEST;
        self.words.clear();
    }

    #[inline]
    pub(super) fn push(&mut self, share: Share) {
        self.words.extend(share.push(&mut self.state));
    }

    /// Words that [`finish`](Self::finish) gives: none when no symbol cost anything.
    pub(super) fn len(&self) -> usize {
        if self.is_untouched() { 0 } else { self.words.len() + 2 }
    }

    fn is_untouched(&self) -> bool {
        self.state == LOWEST && self.words.is_empty()
    }

    /// What there is now, to come back to.
    pub(super) fn mark(&self) -> (u32, usize) {
        (self.state, self.words.len())
    }

    /// Takes back what was pushed after `mark`.
    pub(super) fn rewind(&mut self, mark: (u32, usize)) {
        self.state = mark.0;
        self.words.truncate(mark.1);
    }

    /// The words in the order of reading, the state first, its high half before the low one.
    pub(super) fn finish(&self) -> impl Iterator<Item = Word> {
        let state = [(self.state >> 16) as u16, self.state as u16].map(u16::to_le_bytes);
        let state = state.into_iter().take(if self.is_untouched() { 0 } else { 2 });
        state.chain(self.words.iter().rev().copied())
    }
}

/// Decodes from the first symbol on. Every call takes the same words.
#[derive(Debug, Clone)]
pub(super) struct SingleReader {
    state: u32,
    taken: usize,
}

impl SingleReader {
    pub(super) fn new(words: &[Word]) -> Self {
        let [high, low, ..] = *words else { return Self { state: LOWEST, taken: 0 } };
        let [high, low] = [high, low].map(|w| u32::from(u16::from_le_bytes(w)));
        Self { state: high << 16 | low, taken: 2 }
    }

    /// Decodes a symbol for each class. Words after the last one are 0.
    pub(super) fn read(&mut self, words: &[Word], slots: &[Slots], classes: &[u8], symbols: &mut [u8]) {
        let Self { state, taken } = self;
        for (symbol, &class) in symbols.iter_mut().zip(classes) {
            *symbol = pop(&slots[usize::from(class)], state, || {
                let word = words.get(*taken).copied().unwrap_or_default();
                *taken += 1;
                word
            });
        }
    }

    /// Whether more words were asked for than there are.
    pub(super) fn overrun(&self, words: &[Word]) -> bool {
        self.taken > words.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use aq_kernels::rans::{TOTAL, fill_shares, fill_slots};

    #[test]
    fn a_rewound_run_is_as_if_never_pushed() {
        let mut frequencies = [0; 256];
        (frequencies[1], frequencies[2]) = (96, 4000);
        let (mut shares, mut slots) = ([Share::default(); 256], [0; TOTAL]);
        fill_shares(&frequencies, &mut shares);
        fill_slots(&frequencies, &mut slots);
        let mut single = Single::default();
        assert_eq!(single.finish().count(), 0);
        [1, 2, 1].into_iter().for_each(|s| single.push(shares[s]));
        let mark = single.mark();
        (0..50).for_each(|_| single.push(shares[1]));
        single.rewind(mark);
        let words: Vec<Word> = single.finish().collect();
        assert_eq!(words.len(), single.len());
        let (mut reader, mut symbols) = (SingleReader::new(&words), [0; 3]);
        reader.read(&words, &[slots], &[0; 3], &mut symbols);
        assert_eq!((symbols, reader.overrun(&words)), ([1, 2, 1], false));
        reader.read(&words, &[slots], &[0; 99], &mut [0; 99]);
        assert!(reader.overrun(&words));
    }
}
