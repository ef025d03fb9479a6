//! Presets for the three kinds of machine.

use aq_core::{BitWidth, GroupSize};

use crate::{EngineError, Result};

/// A preset: `edge`, `local` or `cloud`.
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
    /// The preset of that name.
    ///
    /// # Errors
    /// [`EngineError::Config`] for any other name.
    pub fn named(name: &str) -> Result<Self> {
        match name.to_ascii_lowercase().as_str() {
            "edge" => Ok(Self::Edge),
            "local" => Ok(Self::Local),
            "cloud" => Ok(Self::Cloud),
            _ => Err(EngineError::Config(format!("unknown profile {name:?}; use edge, local or cloud"))),
        }
    }

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Edge => "edge",
            Self::Local => "local",
            Self::Cloud => "cloud",
        }
    }

    /// Bits of a code.
    pub fn bits(self) -> BitWidth {
        let [two, _, four, _, _, eight] = BitWidth::ALL;
        match self {
            Self::Edge => two,
            Self::Local => four,
            Self::Cloud => eight,
        }
    }

    /// Weights that share a scale.
    pub fn group_size(self) -> GroupSize {
        let size = match self {
            Self::Edge | Self::Local => 64,
            Self::Cloud => 128,
        };
        GroupSize::new(size).unwrap_or(GroupSize::ROW)
    }
}
