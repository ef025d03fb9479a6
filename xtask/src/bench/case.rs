//! One measurement beside its baseline, as `results.json` holds it.

use std::fmt;

use anyhow::{Context, ensure};
use serde_json::{Map, Value, json};

use crate::statistics::Measured;

/// The name of the format of `results.json`.
pub(crate) const SCHEMA: &str = "aq.bench/1";

/// One measurement beside its baseline.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Case {
    pub(crate) suite: String,
    pub(crate) name: String,
    pub(crate) params: Map<String, Value>,
    pub(crate) unit: String,
    pub(crate) own: Measured,
    pub(crate) baseline: String,
    pub(crate) base: Measured,
    /// How many times better than the baseline: above 1 is faster or smaller.
    pub(crate) ratio: f64,
    /// More about the result that does not tell cases apart.
    pub(crate) detail: Map<String, Value>,
}

/// What is measured and against what.
pub(crate) struct Title<'a> {
    pub(crate) suite: &'a str,
    pub(crate) name: &'a str,
    pub(crate) params: Value,
    pub(crate) unit: &'a str,
    pub(crate) baseline: &'a str,
}

impl Case {
    /// A case whose figures are better the higher they are.
    pub(crate) fn higher(title: Title<'_>, own: Measured, base: Measured) -> Self {
        Case::new(title, own, base, own.value / base.value)
    }

    /// A case whose figures are better the lower they are.
    pub(crate) fn lower(title: Title<'_>, own: Measured, base: Measured) -> Self {
        Case::new(title, own, base, base.value / own.value)
    }

    fn new(title: Title<'_>, own: Measured, base: Measured, ratio: f64) -> Self {
        let Title { suite, name, params, unit, baseline } = title;
        let params = params.as_object().cloned().unwrap_or_default();
        let [suite, name, unit, baseline] = [suite, name, unit, baseline].map(str::to_owned);
        Case { suite, name, params, unit, own, baseline, base, ratio, detail: Map::new() }
    }

    pub(crate) fn to_json(&self) -> Value {
        let Measured { value, min, max, runs } = self.own;
        let base = &self.base;
        json!({"suite": self.suite, "name": self.name, "params": self.params, "value": value, "unit": self.unit,
               "min": min, "max": max, "runs": runs, "ratio": self.ratio,
               "detail": self.detail, "baseline": {"name": self.baseline, "value": base.value, "min": base.min, "max": base.max,
                            "runs": base.runs}})
    }

    fn from_json(case: &Value) -> Option<Self> {
        let text = |value: &Value| value.as_str().map(str::to_owned);
        let measured = |v: &Value| {
            let number = |key: &str| v[key].as_f64();
            let runs = usize::try_from(v["runs"].as_u64()?).ok()?;
            Some(Measured { value: number("value")?, min: number("min")?, max: number("max")?, runs })
        };
        Some(Case {
            suite: text(&case["suite"])?,
            name: text(&case["name"])?,
            params: case["params"].as_object()?.clone(),
            unit: text(&case["unit"])?,
            own: measured(case)?,
            baseline: text(&case["baseline"]["name"])?,
            base: measured(&case["baseline"])?,
            ratio: case["ratio"].as_f64()?,
            detail: case["detail"].as_object().cloned().unwrap_or_default(),
        })
    }
}

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.suite, self.name)?;
        self.params.values().try_for_each(|value| match value {
            Value::String(text) => write!(f, " {text}"),
            other => write!(f, " {other}"),
        })?;
        write!(f, " against {}", self.baseline)
    }
}

/// The cases of a `results.json`.
pub(crate) fn read(results: &Value) -> anyhow::Result<Vec<Case>> {
    ensure!(results["schema"] == SCHEMA, "schema {} instead of {SCHEMA:?}", results["schema"]);
    let cases = results["cases"].as_array().context("there are no cases")?;
    cases.iter().map(|c| Case::from_json(c).with_context(|| format!("not a case: {c}"))).collect()
}

#[cfg(test)]
pub(crate) fn example(name: &str, value: f64) -> Case {
    let title =
        Title { suite: "speed", name, params: json!({"bits": 4}), unit: "MB/s", baseline: "cp & fsync" };
    Case::higher(title, Measured::of(&[value]), Measured::of(&[2.0]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_case_survives_its_file() {
        let case = example("ls", 4.0);
        let file = json!({"schema": SCHEMA, "host": {}, "cases": [case.to_json()]});
        assert_eq!(read(&file).unwrap(), [case]);
        assert!(read(&json!({"schema": "aq.bench/0", "cases": []})).is_err());
        assert!(read(&json!({"schema": SCHEMA, "cases": [{"suite": "speed"}]})).is_err());
    }

    #[test]
    fn a_ratio_above_one_is_better() {
        let title = || Title { suite: "s", name: "n", params: json!({}), unit: "u", baseline: "b" };
        let (own, base) = (Measured::of(&[2.0]), Measured::of(&[8.0]));
        assert_eq!(Case::higher(title(), own, base).ratio, 0.25);
        assert_eq!(Case::lower(title(), own, base).ratio, 4.0);
        assert_eq!(example("ls", 1.0).to_string(), "speed ls 4 against cp & fsync");
    }
}
