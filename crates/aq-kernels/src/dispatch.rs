//! Which instruction set runs. The only place that makes a SIMD token.

use std::cell::Cell;
use std::sync::OnceLock;

#[cfg(target_arch = "aarch64")]
use pulp::aarch64::Neon;
#[cfg(target_arch = "x86_64")]
use pulp::x86::{V3, V4};
use pulp::{Scalar, Simd, WithSimd};

/// An instruction set that kernels are compiled for, from the plainest up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Level {
    /// What every processor of the target has.
    Scalar,
    /// 128-bit vectors of aarch64.
    Neon,
    /// 256-bit vectors of x86-64: AVX2, BMI and FMA.
    Avx2,
    /// 512-bit vectors of x86-64: AVX-512 F, BW, CD, DQ, VL.
    Avx512,
}

impl Level {
    const ALL: [Level; 4] = [Level::Scalar, Level::Neon, Level::Avx2, Level::Avx512];

    /// The name in reports and in the variable `AQ_SIMD`: `scalar`, `neon`, `avx2` or `avx512`.
    ///
    /// ```
    /// assert_eq!(aq_kernels::Level::Avx2.name(), "avx2");
    /// ```
    pub fn name(self) -> &'static str {
        match self {
            Level::Scalar => "scalar",
            Level::Neon => "neon",
            Level::Avx2 => "avx2",
            Level::Avx512 => "avx512",
        }
    }
}

impl std::fmt::Display for Level {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

/// The level that kernels called from this thread run at.
///
/// It is the best one of [`levels`], or a lower one when the environment variable `AQ_SIMD` names it: a level that this
/// machine lacks gives the best one below it, and a name that is no level changes nothing. The variable is read once.
///
/// ```
/// assert!(aq_kernels::levels().contains(&aq_kernels::level()));
/// ```
pub fn level() -> Level {
    token().level()
}

/// The levels that this machine has, from [`Level::Scalar`] up.
///
/// ```
/// assert_eq!(aq_kernels::levels()[0], aq_kernels::Level::Scalar);
/// ```
pub fn levels() -> Vec<Level> {
    Level::ALL.into_iter().filter(|&l| Token::new(l).is_some()).collect()
}

/// Runs `f` with every kernel called from this thread at `level`, for tests and benchmarks.
///
/// # Panics
/// When this machine lacks `level`.
#[doc(hidden)]
pub fn with_level<R>(level: Level, f: impl FnOnce() -> R) -> R {
    struct Restore(Option<Token>);
    impl Drop for Restore {
        fn drop(&mut self) {
            OVERRIDE.set(self.0);
        }
    }
    let token = Token::new(level).unwrap_or_else(|| panic!("this machine has no {level}"));
    let _restore = Restore(OVERRIDE.replace(Some(token)));
    f()
}

/// Runs a kernel at the level in use. `with_simd` of the kernel and all that it calls must be `#[inline(always)]`,
/// or they are compiled for the baseline.
#[inline]
pub(crate) fn run<K: WithSimd>(kernel: K) -> K::Output {
    match token() {
        Token::Scalar => Simd::vectorize(Scalar::new(), kernel),
        #[cfg(target_arch = "aarch64")]
        Token::Neon(neon) => Simd::vectorize(neon, kernel),
        #[cfg(target_arch = "x86_64")]
        Token::Avx2(v3) => Simd::vectorize(v3, kernel),
        #[cfg(target_arch = "x86_64")]
        Token::Avx512(v4) => Simd::vectorize(v4, kernel),
    }
}

/// The proof that this processor has a level.
#[derive(Clone, Copy)]
pub(crate) enum Token {
    Scalar,
    #[cfg(target_arch = "aarch64")]
    Neon(Neon),
    #[cfg(target_arch = "x86_64")]
    Avx2(V3),
    #[cfg(target_arch = "x86_64")]
    Avx512(V4),
}

impl Token {
    fn new(level: Level) -> Option<Self> {
        match level {
            Level::Scalar => Some(Token::Scalar),
            _ if cfg!(miri) => None,
            #[cfg(target_arch = "aarch64")]
            Level::Neon => Neon::try_new().map(Token::Neon),
            #[cfg(target_arch = "x86_64")]
            Level::Avx2 => V3::try_new().map(Token::Avx2),
            #[cfg(target_arch = "x86_64")]
            Level::Avx512 => V4::try_new().map(Token::Avx512),
            _ => None,
        }
    }

    fn level(self) -> Level {
        match self {
            Token::Scalar => Level::Scalar,
            #[cfg(target_arch = "aarch64")]
            Token::Neon(_) => Level::Neon,
            #[cfg(target_arch = "x86_64")]
            Token::Avx2(_) => Level::Avx2,
            #[cfg(target_arch = "x86_64")]
            Token::Avx512(_) => Level::Avx512,
        }
    }

    /// The best token whose level is not above the one named; the best of all for any other name.
    fn best(wanted: Option<&str>) -> Self {
        let limit = Level::ALL.into_iter().find(|l| Some(l.name()) == wanted).unwrap_or(Level::Avx512);
        let below = Level::ALL.into_iter().rev().filter(|&l| l <= limit);
        below.filter_map(Token::new).next().unwrap_or(Token::Scalar)
    }
}

thread_local! {
    static OVERRIDE: Cell<Option<Token>> = const { Cell::new(None) };
}

#[inline]
pub(crate) fn token() -> Token {
    static IN_USE: OnceLock<Token> = OnceLock::new();
    OVERRIDE
        .get()
        .unwrap_or_else(|| *IN_USE.get_or_init(|| Token::best(std::env::var("AQ_SIMD").ok().as_deref())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_forces_that_level_or_the_best_below_it() {
        let has = levels();
        let best = *has.last().expect("scalar is always there");
        for wanted in Level::ALL {
            let got = Token::best(Some(wanted.name())).level();
            assert!(got <= wanted);
            assert_eq!(Some(&got), has.iter().rev().find(|&&l| l <= wanted));
        }
        for other in [None, Some(""), Some("AVX2"), Some("fast")] {
            assert_eq!(Token::best(other).level(), best);
        }
    }

    #[test]
    fn an_override_ends_with_its_closure() {
        let before = level();
        for l in levels() {
            assert_eq!(with_level(l, level), l);
            assert_eq!(with_level(l, || with_level(Level::Scalar, level)), Level::Scalar);
        }
        assert!(std::panic::catch_unwind(|| with_level(Level::Scalar, || panic!("inside"))).is_err());
        assert_eq!(level(), before);
    }
}
