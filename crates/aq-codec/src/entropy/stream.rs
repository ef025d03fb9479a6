//! The words of some whole rows: one run that is decoded from its start.
//!
//! Rows are filled up to whole groups of 32 columns with columns that cost nothing. A stream of up to 2^16 codes
//! is one state with its words. In a longer one, all groups but the last few are interleaved: their 32 states, then their words. The
//! last groups are the words of one more state, and these words are what the 32 states held before anything was encoded; so they take
//! no bytes, and the states cost next to none.

use aq_kernels::rans::{Decoder, LANES, LOWEST, Shares, Slots, Word, encode};

use super::single::{Single, SingleReader};
use crate::CodecError;

/// Codes of a stream, about.
const STREAM_CODES: usize = 1 << 17;
/// Codes up to which a stream is one state.
const SINGLE_CODES: usize = 1 << 16;
/// The order of the number of words.
pub(super) const WORDS_ORDER: u32 = 10;
/// The order of the number of groups that are not interleaved.
pub(super) const TAIL_ORDER: u32 = 2;

/// Rows of a stream, unless fewer are left.
pub(super) fn rows(cols: usize) -> usize {
    (STREAM_CODES / cols.max(1)).max(1)
}

/// `cols` filled up to whole groups.
pub(super) fn width(cols: usize) -> usize {
    cols.next_multiple_of(LANES)
}

/// Bits that a stream of a slab of `codes` codes takes beyond what its symbols cost, about.
pub(super) fn extra_bits(codes: usize) -> u64 {
    if codes <= SINGLE_CODES { 24 + 18 } else { 8 * LANES as u64 + 24 + 40 }
}

/// How long the pieces of a stream are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Extent {
    /// Groups at the end that are not interleaved; `None` when none is.
    pub(super) tail: Option<usize>,
    pub(super) words: usize,
    /// Bytes of escapes.
    pub(super) escapes: usize,
}

/// Encodes symbols; a reusable buffer.
#[derive(Debug, Default)]
pub(super) struct StreamWriter {
    single: Single,
    words: Vec<Word>,
}

impl StreamWriter {
    /// Appends the words of rows of `classes.len()` symbols, of which `codes` are no filling, to `out`.
    pub(super) fn write(
        &mut self,
        shares: &[Shares],
        classes: &[u8],
        symbols: &[u8],
        codes: usize,
        out: &mut Vec<u8>,
    ) -> Extent {
        let start = out.len();
        let limit = if codes <= SINGLE_CODES { usize::MAX } else { LANES };
        let tail = self.push_last_groups(shares, classes, symbols, limit);
        let main = symbols.len() / LANES - tail;
        if main == 0 {
            out.extend(self.single.finish().flatten());
        } else {
            self.interleave(shares, classes, &symbols[..main * LANES], out);
        }
        Extent { tail: (main > 0).then_some(tail), words: (out.len() - start) / 2, escapes: 0 }
    }

    /// Encodes groups from the last one on while they fit in `limit` words; returns how many do.
    fn push_last_groups(&mut self, shares: &[Shares], classes: &[u8], symbols: &[u8], limit: usize) -> usize {
        self.single.clear();
        let classes = classes.as_chunks::<LANES>().0;
        let all = symbols.as_chunks::<LANES>().0;
        for (i, symbols) in all.iter().enumerate().rev() {
            let (mark, classes) = (self.single.mark(), &classes[i % classes.len()]);
            for (&symbol, &class) in symbols.iter().zip(classes).rev() {
                self.single.push(shares[usize::from(class)][usize::from(symbol)]);
            }
            if self.single.len() > limit {
                self.single.rewind(mark);
                return all.len() - 1 - i;
            }
        }
        all.len()
    }

    fn interleave(&mut self, shares: &[Shares], classes: &[u8], symbols: &[u8], out: &mut Vec<u8>) {
        let mut states = [LOWEST; LANES];
        for (state, word) in states.iter_mut().zip(self.single.finish()) {
            *state |= u32::from(u16::from_le_bytes(word));
        }
        if self.words.len() < symbols.len() {
            self.words.resize(symbols.len(), [0; 2]);
        }
        let (rows, part) = symbols.split_at(symbols.len() / classes.len() * classes.len());
        let last = encode(&mut states, shares, &classes[..part.len()], part, &mut self.words);
        let before = self.words.len() - last;
        let first = encode(&mut states, shares, classes, rows, &mut self.words[..before]);
        out.extend(states.iter().flat_map(|x| x.to_le_bytes()));
        out.extend(self.words[before - first..].iter().flatten());
    }
}

/// Decodes the symbols of a stream, row by row.
pub(super) struct StreamReader<'a> {
    slots: &'a [Slots],
    classes: &'a [u8],
    main: Decoder<'a>,
    /// Groups that are still interleaved.
    left: usize,
    tail: Option<SingleReader>,
    /// What `tail` reads, unless it is what the states held.
    words: Option<&'a [Word]>,
    payload: [Word; LANES],
}

impl<'a> StreamReader<'a> {
    /// Starts a stream of `rows` rows of `classes.len()` symbols; `bytes` are its words.
    pub(super) fn new(
        slots: &'a [Slots],
        classes: &'a [u8],
        rows: usize,
        tail: Option<usize>,
        bytes: &'a [u8],
    ) -> Result<Self, CodecError> {
        let words = bytes.as_chunks().0;
        let groups = rows * classes.len() / LANES;
        let mut states = [0; LANES];
        let (left, words, single) = match tail {
            None => (0, words, Some(words)),
            Some(tail) => {
                let (head, words) = bytes.split_at_checked(4 * LANES).ok_or(DAMAGED)?;
                states.iter_mut().zip(head.as_chunks().0).for_each(|(x, b)| *x = u32::from_le_bytes(*b));
                (groups.checked_sub(tail).ok_or(DAMAGED)?, words.as_chunks().0, None)
            }
        };
        let main = Decoder::new(states, words);
        Ok(Self { slots, classes, main, left, tail: None, words: single, payload: [[0; 2]; LANES] })
    }

    /// Decodes the next rows.
    pub(super) fn read(&mut self, symbols: &mut [u8]) -> Result<(), CodecError> {
        let groups = self.classes.len() / LANES;
        let whole = (self.left / groups * self.classes.len()).min(symbols.len());
        let (rows, rest) = symbols.split_at_mut(whole);
        self.main.decode(self.slots, self.classes, rows);
        self.left -= whole / LANES;
        for row in rest.chunks_exact_mut(self.classes.len()) {
            let (part, rest) = row.split_at_mut(self.left * LANES);
            self.main.decode(self.slots, &self.classes[..part.len()], part);
            self.left = 0;
            self.read_tail(part.len(), rest)?;
        }
        let overrun = self.main.overrun() || self.tail.as_ref().is_some_and(|t| t.overrun(self.tail_words()));
        if overrun { Err(DAMAGED) } else { Ok(()) }
    }

    fn tail_words(&self) -> &[Word] {
        self.words.unwrap_or(&self.payload)
    }

    fn read_tail(&mut self, first: usize, symbols: &mut [u8]) -> Result<(), CodecError> {
        let mut tail = match self.tail.take() {
            Some(tail) => tail,
            None => {
                if self.words.is_none() {
                    self.payload = self.main.payload().ok_or(DAMAGED)?.map(u16::to_le_bytes);
                }
                SingleReader::new(self.tail_words())
            }
        };
        tail.read(self.tail_words(), self.slots, &self.classes[first..], symbols);
        self.tail = Some(tail);
        Ok(())
    }
}

const DAMAGED: CodecError = CodecError::Damaged { part: "codes" };
