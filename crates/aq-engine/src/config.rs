//! The configuration file: YAML with the names of the options, one level deep.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::Value;

use crate::{EngineError, JobOptions, Result};

/// Keys that are read, in the order in which they are listed to users. The second group holds older names of the first and the
/// switches of parts that need calibration.
const KEYS: [&str; 34] = [
    "profile",
    "bits",
    "group_size",
    "rate",
    "target_bpw",
    "target_size",
    "method",
    "gain",
    "rotation",
    "low_rank",
    "act_bits",
    "act_mode",
    "act_group_size",
    "act_shift",
    "time_groups",
    "time_aware",
    "smoothing",
    "fold_smoothing",
    "calibration",
    "tensor_type",
    "component",
    "threads",
    "memory_limit",
    "streaming",
    "seed",
    "format",
    "deployment_profile",
    "bit_width",
    "num_threads",
    "streaming_mode",
    "num_time_groups",
    "enable_time_aware",
    "enable_spatial",
    "allow_requantize",
];

/// The largest configuration file that is read.
const MAX_BYTES: u64 = 1 << 20;

/// Reads a configuration file into options; what it does not name is left open.
///
/// # Errors
/// [`EngineError::Config`] that names the file, the key and what is wrong with it; an unknown key comes with the nearest known one.
pub fn read_config(path: &Path) -> Result<JobOptions> {
    let fail = |reason: String| EngineError::Config(format!("{}: {reason}", path.display()));
    let bytes = std::fs::metadata(path).map_err(aq_io::IoError::os(path))?.len();
    if bytes > MAX_BYTES {
        return Err(fail(format!("{bytes} bytes are too much for a configuration")));
    }
    let text = std::fs::read_to_string(path).map_err(aq_io::IoError::os(path))?;
    let map = parse(&text).map_err(fail)?;
    let mut options = JobOptions::default();
    for (key, value) in &map {
        set(&mut options, &key.replace('-', "_"), value).map_err(|why| fail(format!("{key}: {why}")))?;
    }
    Ok(options)
}

/// Reads options that a program gives by name: the keys of a configuration file, and `block_size`, `force`, `resume`. A null leaves its
/// option open; 0 as `group_size` is the whole row.
///
/// # Errors
/// [`EngineError::Config`] that names the key and what is wrong with it; an unknown key comes with the nearest known one.
///
/// ```
/// let given = [("bits".to_string(), 2.into()), ("group_size".to_string(), 0.into())].into();
/// let options = aq_engine::read_options(&given)?;
/// assert_eq!((options.bits, options.group_size), (Some(2), Some(0)));
/// # Ok::<(), aq_engine::EngineError>(())
/// ```
pub fn read_options(given: &BTreeMap<String, Value>) -> Result<JobOptions> {
    let mut options = JobOptions::default();
    for (key, value) in given.iter().filter(|(_, value)| !value.is_null()) {
        let done = match key.as_str() {
            "group_size" if value == 0 => {
                options.group_size = Some(0);
                Ok(())
            }
            "block_size" => string(value).map(|size| options.block_size = Some(size)),
            "force" => switch(value).map(|on| options.force = on),
            "resume" => switch(value).map(|on| options.resume = on),
            key => set(&mut options, key, value),
        };
        done.map_err(|why| EngineError::Config(format!("{key}: {why}")))?;
    }
    Ok(options)
}

fn parse(text: &str) -> Result<BTreeMap<String, Value>, String> {
    let one_line = |e: &dyn std::fmt::Display| {
        let text = e.to_string();
        let first = text.lines().next().unwrap_or_default().trim().to_string();
        format!("not a valid YAML configuration: {first}")
    };
    serde_saphyr::from_str::<Option<BTreeMap<String, Value>>>(text)
        .map(Option::unwrap_or_default)
        .map_err(|e| one_line(&e))
}

fn set(options: &mut JobOptions, key: &str, value: &Value) -> Result<(), String> {
    match key {
        "profile" | "deployment_profile" => options.profile = Some(string(value)?),
        "bits" | "bit_width" => options.bits = Some(bits(value)?),
        "group_size" => options.group_size = Some(group_size(value)?),
        "rate" => options.rate = Some(number(value)?),
        "target_bpw" => options.target_bpw = Some(number(value)?),
        "target_size" => options.target_size = Some(string(value)?),
        "method" => options.method = Some(string(value)?),
        "gain" => options.gain = Some(switch(value)?),
        "low_rank" => options.low_rank = Some(off_or_text(value)?),
        "fold_smoothing" => options.fold_smoothing = Some(switch(value)?),
        "smoothing" => options.smoothing = Some(off_or_text(value)?),
        "rotation" => options.rotation = Some(switch(value)?),
        "calibration" => options.calibration = Some(string(value)?.into()),
        "tensor_type" => options.tensor_types = strings(value)?,
        "component" => options.components = strings(value)?,
        "threads" | "num_threads" => options.threads = threads(value)?,
        "memory_limit" => options.memory_limit = Some(string(value)?),
        "streaming" | "streaming_mode" => options.streaming = switch(value)?,
        "seed" => options.seed = Some(whole(value)?),
        "format" => options.format = Some(string(value)?),
        "allow_requantize" => options.allow_requantize = switch(value)?,
        "act_bits" => options.act_bits = Some(small(value)?),
        "act_mode" => options.act_mode = Some(string(value)?),
        "act_group_size" => options.act_group_size = Some(small(value)?),
        "act_shift" => options.act_shift = Some(switch(value)?),
        "num_time_groups" | "time_groups" if whole(value)? == 0 => options.time_aware = Some(false),
        "num_time_groups" | "time_groups" => options.time_groups = Some(small(value)?),
        "enable_time_aware" | "time_aware" => options.time_aware = Some(switch(value)?),
        "enable_spatial" if !switch(value)? => options.smoothing = Some("off".into()),
        "enable_spatial" => drop(options.smoothing.get_or_insert("auto".into())),
        other => return Err(unknown(other)),
    }
    Ok(())
}

fn unknown(key: &str) -> String {
    let nearest = KEYS.iter().min_by_key(|k| strsim::damerau_levenshtein(k, key));
    match nearest.filter(|k| strsim::damerau_levenshtein(k, key) <= 4) {
        Some(nearest) => format!("unknown key; did you mean {nearest}?"),
        None => format!("unknown key; the keys are {}", KEYS.join(", ")),
    }
}

fn string(value: &Value) -> Result<String, String> {
    match value {
        Value::String(s) => Ok(s.clone()),
        Value::Number(n) => Ok(n.to_string()),
        other => Err(format!("expected text, found {other}")),
    }
}

fn strings(value: &Value) -> Result<Vec<String>, String> {
    match value {
        Value::Array(items) => items.iter().map(string).collect(),
        one => Ok(vec![string(one)?]),
    }
}

fn switch(value: &Value) -> Result<bool, String> {
    match value {
        Value::Bool(b) => Ok(*b),
        Value::String(s) if s.eq_ignore_ascii_case("on") => Ok(true),
        Value::String(s) if s.eq_ignore_ascii_case("off") => Ok(false),
        other => Err(format!("expected true or false, found {other}")),
    }
}

/// `auto`, a number, or a switch: YAML reads `off` as false.
fn off_or_text(value: &Value) -> Result<String, String> {
    match value {
        Value::Bool(false) => Ok("off".into()),
        other => string(other),
    }
}

fn whole(value: &Value) -> Result<u64, String> {
    value.as_u64().ok_or_else(|| format!("expected a whole number, found {value}"))
}

fn small<T: TryFrom<u64>>(value: &Value) -> Result<T, String> {
    T::try_from(whole(value)?).map_err(|_| format!("{value} is too large"))
}

fn number(value: &Value) -> Result<f64, String> {
    value.as_f64().ok_or_else(|| format!("expected a number, found {value}"))
}

fn bits(value: &Value) -> Result<u8, String> {
    u8::try_from(whole(value)?)
        .ok()
        .filter(|&b| aq_core::BitWidth::new(b).is_ok())
        .ok_or_else(|| format!("expected 2, 3, 4, 5, 6 or 8 bits, found {value}"))
}

/// A group size; the whole row is asked for by leaving groups to a rule or by `--group-size 0`, since a 0 in a file is far more
/// often a mistake.
fn group_size(value: &Value) -> Result<u32, String> {
    u32::try_from(whole(value)?)
        .ok()
        .filter(|&g| g != 0 && aq_core::GroupSize::new(g).is_ok())
        .ok_or_else(|| format!("expected a multiple of 8 from 16 to 1024, found {value}"))
}

/// Threads; 0 means all cores.
fn threads(value: &Value) -> Result<Option<usize>, String> {
    let n = usize::try_from(whole(value)?).map_err(|e| e.to_string())?;
    Ok((n != 0).then_some(n))
}

impl JobOptions {
    /// These options, with what they leave open taken from `lower`.
    pub fn over(self, lower: JobOptions) -> JobOptions {
        let list = |high: Vec<String>, low: Vec<String>| if high.is_empty() { low } else { high };
        JobOptions {
            input: self.input,
            output: self.output.or(lower.output),
            format: self.format.or(lower.format),
            components: list(self.components, lower.components),
            bits: self.bits.or(lower.bits),
            group_size: self.group_size.or(lower.group_size),
            rate: self.rate.or(lower.rate),
            target_bpw: self.target_bpw.or(lower.target_bpw),
            target_size: self.target_size.or(lower.target_size),
            method: self.method.or(lower.method),
            profile: self.profile.or(lower.profile),
            calibration: self.calibration.or(lower.calibration),
            tensor_types: list(self.tensor_types, lower.tensor_types),
            gain: self.gain.or(lower.gain),
            rotation: self.rotation.or(lower.rotation),
            low_rank: self.low_rank.or(lower.low_rank),
            act_bits: self.act_bits.or(lower.act_bits),
            act_mode: self.act_mode.or(lower.act_mode),
            act_group_size: self.act_group_size.or(lower.act_group_size),
            act_shift: self.act_shift.or(lower.act_shift),
            time_groups: self.time_groups.or(lower.time_groups),
            time_aware: self.time_aware.or(lower.time_aware),
            smoothing: self.smoothing.or(lower.smoothing),
            fold_smoothing: self.fold_smoothing.or(lower.fold_smoothing),
            threads: self.threads.or(lower.threads),
            memory_limit: self.memory_limit.or(lower.memory_limit),
            block_size: self.block_size.or(lower.block_size),
            streaming: self.streaming || lower.streaming,
            force: self.force || lower.force,
            resume: self.resume || lower.resume,
            allow_requantize: self.allow_requantize || lower.allow_requantize,
            seed: self.seed.or(lower.seed),
            unused: list(self.unused, lower.unused),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(text: &str) -> Result<JobOptions, String> {
        let mut options = JobOptions::default();
        for (key, value) in parse(text)? {
            set(&mut options, &key, &value).map_err(|why| format!("{key}: {why}"))?;
        }
        Ok(options)
    }

    #[test]
    fn both_vocabularies_are_read_and_flags_win() {
        let file = options(
            "deployment_profile: edge\nbit_width: 4\ngroup_size: 128\nstreaming_mode: true\nnum_threads: 2\n",
        )
        .expect("a good file");
        assert_eq!(
            (file.bits, file.group_size, file.threads, file.streaming),
            (Some(4), Some(128), Some(2), true)
        );
        let flags = JobOptions { bits: Some(8), ..JobOptions::default() };
        let both = flags.over(file);
        assert_eq!((both.bits, both.profile.as_deref()), (Some(8), Some("edge")));
        let asks = options("num_time_groups: 10\nenable_time_aware: true\nenable_spatial: false\n")
            .expect("a good file");
        assert_eq!((asks.time_groups, asks.time_aware), (Some(10), Some(true)));
        assert_eq!(asks.unused, [] as [&str; 0]);
        let acts =
            options("act_bits: 8\nact_mode: groups\nact_group_size: 64\ntime_groups: 0\n").expect("good");
        assert_eq!((acts.act_bits, acts.act_group_size, acts.time_aware), (Some(8), Some(64), Some(false)));
        assert_eq!(acts.act_mode.as_deref(), Some("groups"));
    }

    #[test]
    fn wrong_values_and_keys_are_named() {
        for (text, word) in [
            ("bit_width: 3.5", "bit_width"),
            ("bit_width: 0", "bit_width"),
            ("group_size: 0", "group_size"),
            ("bitwidth: 2", "bit_width"),
            ("bit_width: [4\n}: :", "YAML"),
            ("- 4", "YAML"),
            ("streaming: 3", "true or false"),
        ] {
            let error = options(text).expect_err(text);
            assert!(error.contains(word), "{text}: {error}");
            assert_eq!(error.lines().count(), 1, "{error}");
        }
    }

    #[test]
    fn an_alias_bomb_is_refused() {
        let mut bomb = String::from("a: &a [x,x,x,x,x,x,x,x,x,x]\n");
        for i in 1..10u8 {
            let (this, last) = (char::from(b'a' + i), char::from(b'a' + i - 1));
            let items = vec![format!("*{last}"); 10].join(",");
            bomb.push_str(&format!("{this}: &{this} [{items}]\n"));
        }
        assert!(options(&bomb).is_err());
    }
}
