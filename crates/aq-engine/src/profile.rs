//! Presets for the three kinds of machine.

use aq_core::{BitWidth, GroupSize};

use crate::{EngineError, Result};

/// A preset: `edge`, `local` or `cloud`. `docs/configuration.md` has the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Profile {
    /// A board or laptop with little to spare: 2 bits.
    Edge,
    /// A workstation: 4 bits.
    Local,
    /// A server: 8 bits.
    Cloud,
}

impl Profile {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Edge, Self::Local, Self::Cloud];

    /// The preset of that name.
    ///
    /// # Errors
    /// [`EngineError::Config`] for any other name.
    pub fn named(name: &str) -> Result<Self> {
        let named = Self::ALL.into_iter().find(|profile| profile.name().eq_ignore_ascii_case(name));
        named
            .ok_or_else(|| EngineError::Config(format!("unknown profile {name:?}; use edge, local or cloud")))
    }

    /// Its name.
    pub fn name(self) -> &'static str {
        self.of("edge", "local", "cloud")
    }

    /// Bits of a code.
    pub fn bits(self) -> BitWidth {
        let [two, _, four, _, _, eight] = BitWidth::ALL;
        self.of(two, four, eight)
    }

    /// Weights that share a scale, for methods with groups.
    pub fn group_size(self) -> GroupSize {
        GroupSize::new(self.of(256, 128, 64)).unwrap_or(GroupSize::ROW)
    }

    /// The most groups of timesteps.
    pub fn time_groups(self) -> u32 {
        self.of(5, 10, 20)
    }

    /// The least cosine of a tensor with its quantized form.
    pub fn min_cosine(self) -> f64 {
        self.of(0.65, 0.85, 0.95)
    }

    /// Whether the model is read in bounded pieces although it could be mapped.
    pub fn streaming(self) -> bool {
        self.of(true, false, false)
    }

    /// Worker threads: two at most for `edge`, else all cores.
    pub fn threads(self) -> usize {
        let cores = crate::job::all_cores();
        self.of(cores.min(2), cores, cores)
    }

    fn of<T>(self, edge: T, local: T, cloud: T) -> T {
        match self {
            Self::Edge => edge,
            Self::Local => local,
            Self::Cloud => cloud,
        }
    }
}
