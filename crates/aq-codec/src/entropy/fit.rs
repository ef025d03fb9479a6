//! The cheapest table for a histogram, by its exact cost.

use aq_kernels::rans::TOTAL;

use super::bits::{golomb_bits, zigzag};
use super::histogram::Histogram;
use super::log2::{BIT, cost, log2};
use super::table::{ESCAPE, MOST, Shape, Table};

/// A table with what it costs.
#[derive(Debug, Clone)]
pub(super) struct Fit {
    pub(super) shape: Shape,
    pub(super) table: Table,
    /// The table, the symbols and the escapes, in units of 1 / [`BIT`] bits.
    pub(super) cost: u64,
}

/// Values that are rarer than one in so many may be escapes.
const RARITIES: [u64; 4] = [u64::MAX, 16384, 5000, 1800];

/// The cheapest of all ranges, levels an octave, and ways to write them. The codes of a `shifted` histogram lack their low bits.
pub(super) fn fit(histogram: &Histogram, shifted: bool) -> Fit {
    let spans = RARITIES.map(|rarity| histogram.span(histogram.total() / rarity));
    let mut ranges = vec![spans[0].unwrap_or((0, 0))];
    ranges.extend(spans.into_iter().flatten());
    ranges.dedup();
    let shapes = ranges.into_iter().flat_map(|range| {
        let kinds = [true, false].into_iter().flat_map(|mirrored| (0..4).map(move |fine| (mirrored, fine)));
        kinds.map(move |(mirrored, fineness)| empty(range, mirrored, shifted, fineness))
    });
    let fits = shapes.map(|shape| fit_range(histogram, shape));
    fits.min_by_key(|fit| fit.cost).expect("at least one range")
}

/// A shape without levels yet.
fn empty((low, high): (i32, i32), mirrored: bool, shifted: bool, fineness: u32) -> Shape {
    let (low, high) = if mirrored {
        let high = high.max(-low - i32::from(shifted)).min(127 - i32::from(shifted)).max(0);
        (-high - i32::from(shifted), high)
    } else {
        (low, high.min(low + MOST as i32 - 1))
    };
    let (escape, escape_order, line, order, levels) = (0, 0, false, 0, [0; 256]);
    Shape { mirrored, shifted, escape, escape_order, low, high, fineness, line, order, levels }
}

fn fit_range(histogram: &Histogram, mut shape: Shape) -> Fit {
    let inside = histogram.sum(shape.low, shape.high);
    let escapes = histogram.total() - inside;
    let mut bits = 5;
    if escapes > 0 {
        let frequency = (escapes * TOTAL as u64 * 181 / 128 / histogram.total()).clamp(1, 2048);
        shape.escape = frequency.ilog2() + 1;
        let (order, excess) = escape_order(histogram, &shape);
        shape.escape_order = order;
        bits += 4 + excess;
    }
    fill_levels(histogram, inside, &mut shape);
    bits += range_bits(&shape) + choose_writing(&mut shape);
    let table = shape.table();
    let cost = bits * BIT + symbol_cost(histogram, &shape, &table, escapes);
    Fit { shape, table, cost }
}

/// The order in which values outside of the range take the fewest bits, and these bits.
fn escape_order(histogram: &Histogram, shape: &Shape) -> (u32, u64) {
    let bits = |order| {
        let outside = histogram.outside(shape.low, shape.high);
        outside.map(|(distance, n)| n * u64::from(golomb_bits(2 * distance, order))).sum::<u64>()
    };
    let orders = (0..16).map(|order| (order, bits(order)));
    orders.min_by_key(|&(_, bits)| bits).expect("sixteen orders")
}

fn fill_levels(histogram: &Histogram, inside: u64, shape: &mut Shape) {
    for value in if shape.mirrored { 0 } else { shape.low }..=shape.high {
        let mirror = -value - i32::from(shape.shifted);
        let twice = histogram.count(value) + histogram.count(if shape.mirrored { mirror } else { value });
        let share = (11 * BIT + log2(twice)).saturating_sub(log2(inside));
        let level = (share * (4 << shape.fineness) + BIT / 2) / BIT;
        shape.levels[shape.level_index(value)] = if twice == 0 { 0 } else { level as u16 };
    }
}

fn range_bits(shape: &Shape) -> u64 {
    u64::from(if shape.mirrored {
        golomb_bits(shape.high as u64, 2)
    } else {
        golomb_bits(zigzag(shape.low.into()), 2) + golomb_bits(shape.count() as u64 - 1, 2)
    })
}

/// Chooses how the levels are written; returns the bits they take.
fn choose_writing(shape: &mut Shape) -> u64 {
    if shape.level_count() == 1 {
        return 0;
    }
    let written = [false, true].into_iter().flat_map(|line| {
        shape.line = line;
        let mut bits = [0; 8];
        for i in 1..shape.level_count() {
            let difference = zigzag(i64::from(shape.levels[i]) - shape.expected(i));
            bits.iter_mut().zip(0..).for_each(|(b, order)| *b += u64::from(golomb_bits(difference, order)));
        }
        bits.into_iter().zip(0..).map(move |(bits, order)| (bits, line, order))
    });
    let (bits, line, order) = written.min().expect("sixteen ways");
    (shape.line, shape.order) = (line, order);
    bits + 12 + u64::from(shape.fineness)
}

fn symbol_cost(histogram: &Histogram, shape: &Shape, table: &Table, escapes: u64) -> u64 {
    let values = (shape.low..=shape.high).zip(&table.frequencies);
    let inside: u64 = values.map(|(v, &frequency)| histogram.count(v) * cost(frequency)).sum();
    if escapes == 0 { inside } else { inside + escapes * cost(table.frequencies[usize::from(ESCAPE)]) }
}
