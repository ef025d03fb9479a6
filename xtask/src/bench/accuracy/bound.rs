//! The least error that any code can have.

use std::f64::consts::{E, FRAC_PI_2, PI};

/// How the weights of a source are distributed.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Law {
    Normal,
    Laplace,
    /// Student-t with so many degrees of freedom.
    Student(u32),
}

impl Law {
    /// The Shannon lower bound on the relative squared error at `bits` per weight, for independent weights of this law:
    ///
    /// ```text
    /// D(R) >= exp(2 h) / (2 pi e) * 2^(-2 R)
    /// ```
    ///
    /// with the differential entropy `h` at unit variance (Shannon 1959; Cover and Thomas, Elements of Information Theory,
    /// chapter 10). It is reached for normal weights, and at high rates for the others.
    pub(crate) fn bound(self, bits: f64) -> f64 {
        (2.0 * self.entropy()).exp() / (2.0 * PI * E) * (-2.0 * bits).exp2()
    }

    /// Differential entropy at unit variance, in nats.
    fn entropy(self) -> f64 {
        match self {
            Law::Normal => 0.5 * (2.0 * PI * E).ln(),
            Law::Laplace => 1.0 + 2.0_f64.sqrt().ln(),
            Law::Student(degrees) => student_entropy(f64::from(degrees)),
        }
    }

    /// What the bound is called in a chart.
    pub(crate) fn title(self) -> &'static str {
        match self {
            Law::Normal => "bound for independent normal weights",
            Law::Laplace | Law::Student(_) => "Shannon lower bound",
        }
    }
}

/// The density is `cos(a)^(n + 1)` over its integral at `x = sqrt(n) tan(a)`; both integrals by the midpoint rule in `a`.
fn student_entropy(n: f64) -> f64 {
    const STEPS: u32 = 20_000;
    let (mut mass, mut mean) = (0.0, 0.0);
    for step in 0..STEPS {
        let cosine = (PI * (f64::from(step) + 0.5) / f64::from(STEPS) - FRAC_PI_2).cos();
        let weight = n.sqrt() * cosine.powf(n - 1.0) * PI / f64::from(STEPS);
        mass += weight;
        mean -= weight * (n + 1.0) * cosine.ln();
    }
    mass.ln() + mean / mass - 0.5 * (n / (n - 2.0)).ln()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_agree_with_closed_forms() {
        let near = |got: f64, want: f64| assert!((got / want - 1.0).abs() < 1e-4, "{got} instead of {want}");
        near(Law::Normal.bound(2.0), 0.0625);
        near(Law::Laplace.bound(0.0), E / PI);
        // h of Student-t with 5 degrees of freedom: 3 (psi(3) - psi(5/2)) + ln(sqrt(5) B(5/2, 1/2)).
        let h = 3.0 * (0.922_784_335 - 0.703_156_641) + (5.0_f64.sqrt() * 3.0 * PI / 8.0).ln();
        near(Law::Student(5).bound(0.0), (2.0 * h).exp() * 0.6 / (2.0 * PI * E));
        assert!(Law::Student(5).bound(1.0) < Law::Student(100).bound(1.0));
        near(Law::Student(5000).bound(1.0), 0.25);
    }
}
