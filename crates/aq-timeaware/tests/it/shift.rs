//! Layers whose input channels do not lie around 0.

use aq_timeaware::{
    ActivationOptions, ActivationPlan, Choice, Mode, Quantizer, Range, Step, TimedRows, choose,
};

const COLS: usize = 48;
const STEPS: u8 = 12;

/// 32 rows a step of `of(channel, step, noise)`, the noise about normal with a deviation of 1.
fn rows(of: impl Fn(usize, f32, f32) -> f32) -> TimedRows {
    let mut state = 5u32;
    let mut next = move || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 8) as f32 / (1 << 24) as f32 - 0.5
    };
    let mut step = |i: u8| {
        let values = (0..32 * COLS).map(|at| {
            let noise = 2.0 * (next() + next() + next());
            of(at % COLS, f32::from(i) / f32::from(STEPS - 1), noise)
        });
        Step { first: f64::from(i), last: f64::from(i), rows: values.collect() }
    };
    TimedRows { cols: COLS, steps: (0..STEPS).map(&mut step).collect() }
}

/// What a GELU makes of normal channels, one in sixteen of them `large` times as large.
fn behind_a_gelu(mean: f32, deviation: f32, large: f32) -> TimedRows {
    rows(|channel, _, noise| {
        let x = noise * deviation * if channel % 16 == 0 { large } else { 1.0 } + mean;
        x / (1.0 + (-1.702 * x).exp())
    })
}

fn chosen(rows: &TimedRows, bits: u8, mode: Mode, shift: bool) -> Choice {
    let options = ActivationOptions { bits, mode, group_size: 0, groups: 4, uniform: false, shift };
    choose(rows, &[1.0; COLS], &options)
}

/// The relative squared error of what a runtime makes of the rows.
fn applied(rows: &TimedRows, plan: &ActivationPlan) -> f64 {
    let (mut error, mut total) = (0.0, 0.0);
    for step in &rows.steps {
        let group = plan.group_of(step.first);
        let shift = plan.shift(group).map_or(vec![0.0; COLS], |s| s.values());
        for row in step.rows.chunks(COLS) {
            let moved: Vec<f32> = row.iter().zip(&shift).map(|(x, s)| x - s).collect();
            let clip = plan.clip.get(group).copied().unwrap_or(1.0);
            let range = plan.range(group).unwrap_or_else(|| Range::of(&moved).clipped(clip));
            let grid = Quantizer::new(range, plan.bits);
            for ((x, m), s) in row.iter().zip(&moved).zip(&shift) {
                error += f64::from(x - (grid.apply(*m) + s)).powi(2);
                total += f64::from(*x).powi(2);
            }
        }
    }
    error / total
}

#[test]
fn shifts_behind_a_gelu_pay_at_four_bits() {
    let rows = behind_a_gelu(-1.5, 1.0, 3.0);
    let Choice { plan, errors, reason } = chosen(&rows, 4, Mode::Static, true);
    let errors = errors.expect("there are rows");
    assert_eq!(plan.shift.len(), 1, "{reason}");
    assert!(errors.fixed < 0.7 * errors.unshifted, "{errors:?}");
    let without = chosen(&rows, 4, Mode::Static, false).plan;
    for (plan, told) in [(plan, errors.fixed), (without, errors.unshifted)] {
        assert!((applied(&rows, &plan) / told - 1.0).abs() < 1e-4, "{errors:?}");
    }
}

#[test]
fn channels_that_drift_are_shifted_by_groups_of_time() {
    let rows = rows(|channel, time, noise| {
        let center = if channel % 3 == 0 { 4.0 } else { -2.0 };
        center * if time < 0.4 { 1.0 } else { -1.0 } + 0.3 * noise
    });
    for mode in [Mode::Token, Mode::Groups] {
        let Choice { plan, errors, reason } = chosen(&rows, 8, mode, true);
        let errors = errors.expect("there are rows");
        assert!(plan.shift.len() > 1 && plan.boundaries.contains(&4.5), "{plan:?}");
        assert!(reason.contains("by group of time"), "{reason}");
        let own = if mode == Mode::Token { errors.token } else { errors.groups };
        assert!(own < 0.2 * errors.unshifted, "{errors:?}");
        assert!(errors.groups <= errors.uniform && errors.groups <= errors.fixed, "{errors:?}");
        assert!((applied(&rows, &plan) / own - 1.0).abs() < 1e-4, "{errors:?}");
    }
    let plan = chosen(&rows, 8, Mode::Static, true).plan;
    assert_eq!((plan.boundaries.len(), plan.low.len()), (0, 1), "one static range has at most one shift");
}

#[test]
fn channels_around_zero_are_not_shifted() {
    let rows = rows(|_, _, noise| noise);
    for mode in [Mode::Token, Mode::Static, Mode::Groups] {
        let Choice { plan, errors, .. } = chosen(&rows, 8, mode, true);
        assert!(plan.shift.is_empty(), "{plan:?}");
        let errors = errors.expect("there are rows");
        assert!([errors.fixed, errors.token, errors.groups].contains(&errors.unshifted));
    }
}

#[test]
fn what_follows_single_rows_is_not_chosen() {
    // One row a step: a shift for each step would make the error 0 on the rows it was made from.
    let mut rows = rows(|_, _, noise| noise);
    rows.steps.iter_mut().for_each(|step| step.rows.truncate(COLS));
    assert!(chosen(&rows, 8, Mode::Groups, true).plan.shift.is_empty());
}
