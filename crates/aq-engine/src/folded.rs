//! A model some of whose tensors are scaled by rows and columns as they are read.

use aq_core::{CoreError, DType, TensorInfo};
use aq_io::Source;

use crate::overlay::{Overlay, View, read_elements};

/// How a tensor is changed: `((w + before[row]) / rows[row]) * cols[col] - before[row]`, computed in f64 and rounded once to f32.
/// What is empty changes nothing.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Change {
    pub(crate) before: Vec<f32>,
    pub(crate) rows: Vec<f32>,
    pub(crate) cols: Vec<f32>,
}

impl Change {
    fn apply(&self, first: u64, cols: u64, values: &mut [f32]) {
        let of = |list: &[f32], i: u64, none: f32| f64::from(list.get(i as usize).copied().unwrap_or(none));
        for (at, value) in (first..).zip(values) {
            let (row, col) = (at / cols, at % cols);
            let before = of(&self.before, row, 0.0);
            let scaled = (f64::from(*value) + before) / of(&self.rows, row, 1.0) * of(&self.cols, col, 1.0);
            *value = (scaled - before) as f32;
        }
    }
}

/// A source with changes; changed tensors are of type F32.
pub(crate) type FoldedSource<'a> = Overlay<'a, Change>;

impl View for Change {
    fn shown(&self, stored: &TensorInfo) -> Result<TensorInfo, CoreError> {
        stored.with_dtype(DType::F32)
    }

    fn read(&self, source: &dyn Source, index: usize, start: u64, dst: &mut [u8]) -> aq_io::Result<()> {
        let info = &source.tensors()[index].info;
        // A vector has a row for each element, as its factors do.
        let cols = if info.shape().len() < 2 { 1 } else { info.cols() };
        read_elements((source, index), DType::F32, start, dst, |first, values| {
            self.apply(first, cols, values);
            Ok(())
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_and_columns_are_scaled() {
        let change = Change { rows: vec![2.0, 4.0], cols: vec![1.0, 10.0, 100.0], before: Vec::new() };
        let mut values = [3.0, 4.0, 8.0, 8.0];
        change.apply(1, 3, &mut values);
        assert_eq!(values, [15.0, 200.0, 2.0, 20.0]);
    }

    #[test]
    fn a_modulation_keeps_what_it_stands_for() {
        // The scale of a modulation is used as 1 + v.
        let change = Change { rows: vec![4.0], before: vec![1.0], cols: Vec::new() };
        let mut values = [0.5];
        change.apply(0, 1, &mut values);
        assert_eq!(1.0 + values[0], 1.5 / 4.0);
    }
}
