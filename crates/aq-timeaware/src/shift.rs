//! What is taken off input channels before they are rounded.

use serde::{Deserialize, Serialize};

/// A number for each input channel, in signed bytes: `codes[c] * scale`, in `f32`, is taken off channel `c` before it is rounded and
/// added again after.
///
/// Channels that are large on one side, or lie around a value that is not 0, then share a narrower range. Their sum with the weights is the
/// same for all tokens of a group of times, so it costs nothing while the model runs (Wei et al., Outlier Suppression+, EMNLP 2023;
/// for inputs behind a GELU Liu et al., TaQ-DiT, arXiv 2411.14172).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Shift {
    /// Finite, at least 0.
    pub scale: f32,
    /// One for each channel; base64 of the bytes where it is stored.
    #[serde(with = "base64_bytes")]
    pub codes: Vec<i8>,
}

/// The largest code.
const TOP: f64 = 127.0;

impl Shift {
    /// The shift nearest to `values`, whose scale is their largest magnitude over 127, rounding half to even.
    ///
    /// ```
    /// use aq_timeaware::Shift;
    /// let shift = Shift::nearest(&[0.5, -1.27, 0.0]);
    /// assert_eq!(shift.codes, [50, -127, 0]);
    /// assert_eq!(shift.values(), [0.5, -1.27, 0.0]);
    /// ```
    pub fn nearest(values: &[f64]) -> Self {
        let most = values.iter().fold(0.0, |most: f64, v| most.max(v.abs()));
        let scale = (most / TOP) as f32;
        let code = |&v: &f64| (v / f64::from(scale)).round_ties_even().clamp(-TOP, TOP) as i8;
        let codes = if scale > 0.0 { values.iter().map(code).collect() } else { vec![0; values.len()] };
        Self { scale, codes }
    }

    /// What is taken off each channel.
    pub fn values(&self) -> Vec<f32> {
        self.codes.iter().map(|&code| f32::from(code) * self.scale).collect()
    }
}

/// Signed bytes as text.
mod base64_bytes {
    use base64::Engine;
    use base64::prelude::BASE64_STANDARD;
    use serde::{Deserialize, Deserializer, Serializer, de};

    pub(super) fn serialize<S: Serializer>(codes: &[i8], to: S) -> Result<S::Ok, S::Error> {
        let bytes: Vec<u8> = codes.iter().map(|&code| code as u8).collect();
        to.serialize_str(&BASE64_STANDARD.encode(bytes))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<i8>, D::Error> {
        let bytes = BASE64_STANDARD.decode(String::deserialize(from)?).map_err(de::Error::custom)?;
        Ok(bytes.into_iter().map(|byte| byte as i8).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn values_are_near_and_stored_as_they_are(values in proptest::collection::vec(-9f64..9.0, 0..50)) {
            let shift = Shift::nearest(&values);
            for (value, got) in values.iter().zip(shift.values()) {
                prop_assert!((value - f64::from(got)).abs() <= 0.500_001 * f64::from(shift.scale));
            }
            let text = serde_json::to_string(&shift).expect("it is plain data");
            prop_assert_eq!(serde_json::from_str::<Shift>(&text).expect("it was just written"), shift);
        }
    }

    #[test]
    fn channels_around_zero_have_no_scale() {
        assert_eq!(Shift::nearest(&[0.0, -0.0]), Shift { scale: 0.0, codes: vec![0, 0] });
    }
}
