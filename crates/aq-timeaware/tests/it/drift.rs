//! A layer whose inputs grow while the model runs.

use aq_timeaware::{ActivationOptions, ActivationPlan, Choice, Mode, Quantizer, Step, TimedRows, choose};

const COLS: usize = 64;

/// 20 steps whose largest input is `growth(0 ..= 1)`.
fn rows(growth: impl Fn(f32) -> f32) -> TimedRows {
    let mut state = 1u32;
    let mut next = move || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 8) as f32 / (1 << 23) as f32 - 1.0
    };
    let mut step = |i: u8| {
        let factor = growth(f32::from(i) / 19.0);
        let rows = (0..32 * COLS).map(|_| factor * next()).collect();
        Step { first: f64::from(i) * 50.0, last: f64::from(i) * 50.0, rows }
    };
    TimedRows { cols: COLS, steps: (0..20).map(&mut step).collect() }
}

/// Sixteen times as large at the end, most of it in the last third, as noise levels rise.
fn sixteenfold() -> TimedRows {
    rows(|u| 16f32.powf(u * u))
}

fn chosen(rows: &TimedRows, bits: u8, mode: Mode, groups: usize) -> Choice {
    choose(
        rows,
        &[1.0; COLS],
        &ActivationOptions { bits, mode, group_size: 0, groups, uniform: false, shift: false },
    )
}

/// Squared error of each step over its squares.
fn by_step(rows: &TimedRows, plan: &ActivationPlan) -> Vec<f64> {
    let error = |step: &Step| {
        let range = plan.range(plan.group_of(step.first)).expect("a stored range");
        let grid = Quantizer::new(range, plan.bits);
        let squares =
            |of: &dyn Fn(f32) -> f32| step.rows.iter().map(|&x| f64::from(of(x)).powi(2)).sum::<f64>();
        squares(&|x| x - grid.apply(x)) / squares(&|x| x)
    };
    rows.steps.iter().map(error).collect()
}

#[test]
fn ten_groups_cut_the_error_of_a_growing_layer_fivefold() {
    for bits in [8, 4] {
        let rows = sixteenfold();
        let errors = chosen(&rows, bits, Mode::Groups, 10).errors.expect("there are rows");
        assert!(errors.groups * 5.0 < errors.fixed, "{bits} bits: {errors:?}");
        assert!(errors.groups <= errors.uniform && errors.uniform < errors.fixed, "{errors:?}");
    }
}

#[test]
fn the_error_relative_to_each_step_falls_as_far_under_steady_growth() {
    let rows = rows(|u| 16f32.powf(u));
    let mean = |mode| {
        let errors = by_step(&rows, &chosen(&rows, 8, mode, 10).plan);
        errors.iter().sum::<f64>() / errors.len() as f64
    };
    assert!(mean(Mode::Groups) * 5.0 < mean(Mode::Static));
}

#[test]
fn measured_errors_are_those_of_the_plan() {
    let rows = sixteenfold();
    for mode in [Mode::Static, Mode::Groups] {
        let Choice { plan, errors, .. } = chosen(&rows, 6, mode, 5);
        let squares = |s: &Step| s.rows.iter().map(|&x| f64::from(x).powi(2)).sum::<f64>();
        let total: f64 = rows.steps.iter().map(squares).sum();
        let error: f64 = by_step(&rows, &plan).iter().zip(&rows.steps).map(|(e, s)| e * squares(s)).sum();
        let errors = errors.expect("there are rows");
        let told = if mode == Mode::Static { errors.fixed } else { errors.groups };
        assert!((error / total / told - 1.0).abs() < 1e-4, "{error} {told}");
    }
}

#[test]
fn groups_that_buy_nothing_are_left_out() {
    let Choice { plan, reason, .. } = chosen(&rows(|_| 1.0), 8, Mode::Groups, 10);
    assert_eq!((plan.mode, plan.boundaries.len(), plan.low.len()), (Mode::Static, 0, 1));
    assert!(reason.contains("left out"), "{reason}");
}

#[test]
fn columns_count_as_the_weights_they_meet() {
    // One column is a hundred times as large, and the layer hardly looks at it.
    let mut rows = rows(|_| 1.0);
    rows.steps.iter_mut().for_each(|s| s.rows.iter_mut().step_by(COLS).for_each(|x| *x *= 100.0));
    let options = ActivationOptions {
        bits: 4,
        mode: Mode::Static,
        group_size: 0,
        groups: 1,
        uniform: false,
        shift: false,
    };
    let mut weights = [1.0; COLS];
    let blind = choose(&rows, &weights, &options);
    weights[0] = 1e-6;
    let seeing = choose(&rows, &weights, &options);
    assert!(seeing.plan.high[0] < 0.5 * blind.plan.high[0], "{seeing:?} {blind:?}");
}

#[test]
fn dynamic_ranges_are_clipped_where_that_helps() {
    let plan = |bits| chosen(&rows(|_| 1.0), bits, Mode::Token, 10).plan;
    assert_eq!(plan(8).clip, [] as [f32; 0], "evenly spread values lose nothing to 8 bits");
    let mut spiky = rows(|_| 1.0);
    spiky.steps.iter_mut().for_each(|s| s.rows.iter_mut().for_each(|x| *x = x.powi(5)));
    let clipped = chosen(&spiky, 2, Mode::Token, 10);
    assert!(clipped.plan.clip.first().is_some_and(|&c| c < 1.0), "{clipped:?}");
    let grouped = ActivationOptions {
        bits: 4,
        mode: Mode::Token,
        group_size: 16,
        groups: 1,
        uniform: false,
        shift: false,
    };
    let fine = choose(&spiky, &[1.0; COLS], &grouped);
    assert_eq!(fine.plan.group_size, 16);
    let coarse = chosen(&spiky, 4, Mode::Token, 1).errors.expect("rows").token;
    assert!(fine.errors.expect("rows").token < coarse);
}

#[test]
fn layers_without_usable_rows_take_ranges_of_tokens() {
    let huge = TimedRows { cols: 1, steps: vec![Step { rows: vec![3e38, -3e38], ..Step::default() }] };
    for rows in [huge, TimedRows { cols: 1, steps: vec![] }] {
        let choice = choose(
            &rows,
            &[1.0],
            &ActivationOptions {
                bits: 8,
                mode: Mode::Static,
                group_size: 0,
                groups: 1,
                uniform: false,
                shift: false,
            },
        );
        assert_eq!((choice.plan.mode, choice.errors), (Mode::Token, None));
    }
}
