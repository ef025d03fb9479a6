//! Random numbers that are the same on every machine.

/// SplitMix64 (Steele, Lea, Flood 2014).
pub(crate) struct Random(pub(crate) u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// In `[0, 1)`.
    pub(crate) fn uniform(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1_u64 << 53) as f64
    }

    pub(crate) fn below(&mut self, n: usize) -> usize {
        (self.uniform() * n as f64) as usize
    }

    /// The sum of 12 uniform numbers less 6: about normal, and cheap.
    pub(crate) fn near_normal(&mut self) -> f64 {
        (0..12).map(|_| self.uniform()).sum::<f64>() - 6.0
    }

    /// Normal, by the ratio of uniforms (Kinderman, Monahan 1977). The logarithm only decides whether a draw is kept, so
    /// that its last bit does not reach the result.
    pub(crate) fn normal(&mut self) -> f64 {
        let width = (2.0 / std::f64::consts::E).sqrt();
        loop {
            let u = 1.0 - self.uniform();
            let x = width * (2.0 * self.uniform() - 1.0) / u;
            if x * x <= -4.0 * u.ln() {
                return x;
            }
        }
    }

    /// Laplace of unit variance: a sum of two products of normal numbers.
    pub(crate) fn laplace(&mut self) -> f64 {
        let mut product = || self.normal() * self.normal();
        (product() + product()) / std::f64::consts::SQRT_2
    }

    /// Student-t of unit variance; `degrees` of freedom, 3 or more.
    pub(crate) fn student(&mut self, degrees: u32) -> f64 {
        let chi: f64 = (0..degrees).map(|_| self.normal().powi(2)).sum();
        self.normal() * ((f64::from(degrees) - 2.0) / chi).sqrt()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Moments 2 and 4 and the mean absolute value of `n` draws.
    fn moments(n: usize, mut draw: impl FnMut() -> f64) -> [f64; 3] {
        let mut sums = [0.0; 3];
        for x in (0..n).map(|_| draw()) {
            [x * x, x.powi(4), x.abs()].iter().zip(&mut sums).for_each(|(x, sum)| *sum += x / n as f64);
        }
        sums
    }

    fn near(got: f64, want: f64, tolerance: f64) {
        assert!((got / want - 1.0).abs() < tolerance, "{got} instead of {want}");
    }

    #[test]
    fn distributions_have_their_moments() {
        let mut random = Random(3);
        let normal = moments(200_000, || random.normal());
        [1.0, 3.0, (2.0 / std::f64::consts::PI).sqrt()]
            .iter()
            .zip(normal)
            .for_each(|(w, g)| near(g, *w, 0.03));
        let laplace = moments(200_000, || random.laplace());
        [1.0, 6.0, 0.5_f64.sqrt()].iter().zip(laplace).for_each(|(w, g)| near(g, *w, 0.05));
        let student = moments(400_000, || random.student(5));
        near(student[0], 1.0, 0.03);
        // 2 sqrt(5) Gamma(3) / (4 sqrt(pi) Gamma(5/2)), scaled to unit variance.
        near(student[2], 0.949_1 * 0.6_f64.sqrt(), 0.02);
        near(moments(400_000, || random.student(12))[1], 3.0 + 6.0 / 8.0, 0.05);
    }
}
