//! Tables of values give the bits of their twins, at every level.

use aq_kernels::codebook::{self, Table};
use aq_kernels::reference::codebook as twin;

use crate::tester::{Random, assert_same, at_every_level, check_all};

fn tables() -> [Table; 3] {
    [
        Table::new(&[-1.51, -0.453, 0.453, 1.51]),
        Table::new(&[-2.0, -1.0, -0.5, 0.0, 0.25, 0.5, 1.0, 3.0]),
        Table::new(&std::array::from_fn::<f32, 16, _>(|i| i as f32 * 0.25 - 2.0)),
    ]
}

#[test]
fn nearest_values() {
    check_all(|x, what| {
        for table in tables() {
            for inverse in [1.0, 0.3, 0.0, 1e30] {
                let [mut got, mut want] = [vec![99; x.len()], vec![77; x.len()]];
                codebook::nearest(&table, x, inverse, &mut got);
                twin::nearest(&table, x, inverse, &mut want);
                assert_same(&got, &want, &format!("{what}, {inverse}"));
            }
        }
    });
}

#[test]
fn weights_on_a_limit_get_the_lower_code() {
    let table = Table::new(&[-1.0, 0.0, 1.0, 2.0]);
    let x = [f32::NAN, f32::NEG_INFINITY, -0.5, -0.49, -0.0, 0.5, 0.51, 1.5, 1.6, f32::INFINITY];
    at_every_level(|level| {
        for repeat in 1..5 {
            let mut codes = vec![9; 10 * repeat];
            codebook::nearest(&table, &x.repeat(repeat), 1.0, &mut codes);
            assert_eq!(codes, [0, 0, 0, 1, 1, 1, 2, 2, 3, 3].repeat(repeat), "{level}");
        }
    });
}

#[test]
fn fitted_scales() {
    let mut random = Random(4);
    let importance: Vec<f32> = (0..3100).map(|_| random.unit() * 100.0).collect();
    check_all(|x, what| {
        for table in tables() {
            for h in [None, Some(&importance[..x.len()])] {
                let (got, want) = (codebook::fit(&table, x, h, 0.9), twin::fit(&table, x, h, 0.9));
                assert_same(&[got.product, got.square], &[want.product, want.square], what);
            }
        }
    });
}

#[test]
fn values_of_codes() {
    let codes: Vec<u8> = (0..3100).map(|i| (i * 89 % 256) as u8).collect();
    let values = std::array::from_fn(|i| 1.0 / (i as f32 - 7.5));
    check_all(|x, what| {
        let codes = &codes[x.len() % 17..][..x.len()];
        let [mut got, mut want] = [vec![9.0; x.len()], vec![7.0; x.len()]];
        codebook::look_up(&values, codes, &mut got);
        twin::look_up(&values, codes, &mut want);
        assert_same(&got, &want, what);
    });
}
