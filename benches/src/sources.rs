//! Random weights of three distributions, with fixed seeds.

use rand::SeedableRng;
use rand::rngs::StdRng;
use rand_distr::{Distribution, Exp1, StandardNormal, StudentT};

/// Where weights come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs, reason = "each variant is its distribution")]
pub enum Source {
    Normal,
    Laplace,
    /// Student's t of 5 degrees of freedom.
    Student,
}

impl Source {
    /// All three.
    pub const ALL: [Source; 3] = [Source::Normal, Source::Laplace, Source::Student];

    /// The name in tables.
    pub fn name(self) -> &'static str {
        match self {
            Source::Normal => "normal",
            Source::Laplace => "laplace",
            Source::Student => "student5",
        }
    }

    /// Draws `n` weights.
    ///
    /// ```
    /// use aq_benches::sources::Source;
    /// assert_eq!(Source::Laplace.draw(3, 1), Source::Laplace.draw(5, 1)[..3]);
    /// ```
    pub fn draw(self, n: usize, seed: u64) -> Vec<f32> {
        let mut random = StdRng::seed_from_u64(seed);
        let student = StudentT::new(5.0_f32).expect("positive degrees of freedom");
        let mut one = || match self {
            Source::Normal => StandardNormal.sample(&mut random),
            Source::Laplace => {
                let (a, b): (f32, f32) = (Exp1.sample(&mut random), Exp1.sample(&mut random));
                a - b
            }
            Source::Student => student.sample(&mut random),
        };
        (0..n).map(|_| one()).collect()
    }
}
