//! Kernels at each level, timed by the program `kernels` of the package `aq-benches`.

use anyhow::{Context, ensure};
use serde_json::{Value, json};

use super::case::{Case, Title};
use super::{Found, Setting};
use crate::process::{self, cargo, program};
use crate::statistics::Measured;

/// Builds and runs it.
pub(crate) fn run(setting: &Setting, found: &mut Found) -> anyhow::Result<()> {
    process::run(&mut cargo(&["build", "--release", "--package", "aq-benches", "--bin", "kernels"]))?;
    let (runs, mebibytes) = (setting.runs.to_string(), if setting.quick { "64" } else { "256" });
    let path = setting.target.join("release").join(format!("kernels{}", std::env::consts::EXE_SUFFIX));
    eprintln!("> kernels {runs} {mebibytes}");
    let output = program(path).args([&runs, mebibytes]).output()?;
    ensure!(output.status.success(), "kernels: {}", String::from_utf8_lossy(&output.stderr));
    let lines = String::from_utf8(output.stdout)?;
    let rows = lines.lines().map(Row::parse).collect::<anyhow::Result<Vec<Row>>>()?;
    found.cases.extend(cases(&rows));
    found.notes.push(format!(
        "simd: GB/s counts what a kernel reads or writes, whichever is more; out of cache means {mebibytes} MiB of f32 \
         weights; the twin is a plain loop that stays scalar and runs in cache only"
    ));
    Ok(())
}

/// One line of the program.
struct Row {
    kernel: String,
    bits: u64,
    kind: String,
    level: String,
    place: String,
    unit: String,
    rate: Measured,
}

impl Row {
    fn parse(line: &str) -> anyhow::Result<Self> {
        let value: Value = serde_json::from_str(line)?;
        let row = || {
            let text = |key: &str| value[key].as_str().map(str::to_owned);
            let seconds: Option<Vec<f64>> = value["seconds"].as_array()?.iter().map(Value::as_f64).collect();
            Some(Row {
                kernel: text("kernel")?,
                bits: value["bits"].as_u64()?,
                kind: text("type")?,
                level: text("level")?,
                place: text("place")?,
                unit: text("unit").unwrap_or_else(|| "GB/s".to_owned()),
                rate: Measured::rate(value["bytes"].as_f64()? / 1e9, &seconds?),
            })
        };
        row().with_context(|| format!("not a timing: {line}"))
    }

    fn is_baseline(&self) -> bool {
        matches!(&*self.level, "twin" | "memcpy" | "memset" | "read")
    }

    fn is_beside(&self, other: &Row) -> bool {
        (&self.kernel, self.bits, &self.kind, &self.place)
            == (&other.kernel, other.bits, &other.kind, &other.place)
    }
}

/// Every level beside every baseline of the same kernel, data and place.
fn cases(rows: &[Row]) -> Vec<Case> {
    let mut cases = Vec::new();
    for row in rows.iter().filter(|row| !row.is_baseline()) {
        for base in rows.iter().filter(|base| base.is_baseline() && base.is_beside(row)) {
            let params = json!({"bits": row.bits, "type": row.kind, "level": row.level, "place": row.place});
            let title =
                Title { suite: "simd", name: &row.kernel, params, unit: &row.unit, baseline: &base.level };
            cases.push(Case::higher(title, row.rate, base.rate));
        }
    }
    cases
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_level_is_put_beside_the_baselines_of_its_place() {
        let line = |level: &str, place: &str, seconds: f64| {
            let line = json!({"kernel": "quantize", "bits": 4, "type": "f32", "level": level, "place": place,
                              "bytes": 2_000_000_000_u64, "seconds": [seconds]});
            Row::parse(&line.to_string()).unwrap()
        };
        let rows = [line("avx2", "cache", 1.0), line("twin", "cache", 4.0), line("memcpy", "memory", 1.0)];
        let cases = cases(&rows);
        assert_eq!(cases.len(), 1);
        assert_eq!((cases[0].ratio, cases[0].own.value, &*cases[0].baseline), (4.0, 2.0, "twin"));
        assert!(Row::parse("{}").is_err());
    }
}
