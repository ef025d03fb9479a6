//! The configuration: a YAML file, variables of the environment, and options that programs give by name.

mod environment;
mod keys;
mod kind;
mod layers;
mod schema;
mod template;

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::Value;

use crate::{EngineError, JobOptions, Result};

pub use environment::{Environment, read_environment};
pub use schema::schema;
pub use template::{config_template, write_new_file};

use keys::{KEYS, find};

/// Every name that [`read_options`] knows.
pub fn option_names() -> impl Iterator<Item = &'static str> {
    let names = KEYS.iter().flat_map(|key| std::iter::once(key.name).chain(key.aliases.iter().copied()));
    names.chain(["config", "block_size", "force", "resume"])
}

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
    options(&text).map_err(fail)
}

/// Reads options that a program gives by name: the keys of a configuration file, `config` (the path of one, which they go before), and
/// `block_size`, `force`, `resume`. A null leaves its option open; 0 as `group_size` is the whole row.
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
    let mut file = JobOptions::default();
    for (name, value) in given.iter().filter(|(_, value)| !value.is_null()) {
        let switch = || kind::Kind::Switch.check(value).map(|on| on == true);
        let done = match name.as_str() {
            "config" => {
                file = read_config(value.as_str().unwrap_or_default().as_ref())?;
                Ok(())
            }
            "group_size" if value == 0 => {
                options.group_size = Some(0);
                Ok(())
            }
            "block_size" => {
                kind::Kind::Size.check(value).map(|size| options.block_size = size.as_str().map(Into::into))
            }
            "force" => switch().map(|on| options.force = on),
            "resume" => switch().map(|on| options.resume = on),
            name => set(&mut options, name, value),
        };
        done.map_err(|why| EngineError::Config(format!("{name}: {why}")))?;
    }
    Ok(options.over(file))
}

/// The options of a file with this text.
fn options(text: &str) -> Result<JobOptions, String> {
    let mut options = JobOptions::default();
    for (name, value) in parse(text)? {
        set(&mut options, &name.replace('-', "_"), &value).map_err(|why| format!("{name}: {why}"))?;
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

fn set(options: &mut JobOptions, name: &str, value: &Value) -> Result<(), String> {
    let names = || KEYS.iter().flat_map(|key| std::iter::once(key.name).chain(key.aliases.iter().copied()));
    find(name).ok_or_else(|| unknown(name, names()))?.set(options, value)
}

/// What to say of a key that is none of `names`.
pub(crate) fn unknown<'a>(key: &str, names: impl Iterator<Item = &'a str> + Clone) -> String {
    let distance = |name: &&str| strsim::damerau_levenshtein(name, key);
    match names.clone().min_by_key(distance).filter(|name| distance(name) <= 4) {
        Some(nearest) => format!("unknown key; did you mean {nearest}?"),
        None => format!("unknown key; the keys are {}", names.collect::<Vec<_>>().join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Job, Profile, Registry};

    #[test]
    fn both_vocabularies_are_read_and_flags_win() {
        let file = options(
            "deployment_profile: edge\nbit_width: 4\ngroup_size: 128\nstreaming_mode: true\nnum_threads: 2\n",
        )
        .expect("a good file");
        assert_eq!(
            (file.bits, file.group_size, file.threads, file.streaming),
            (Some(4), Some(128), Some(2), Some(true))
        );
        let flags = JobOptions { bits: Some(8), ..JobOptions::default() };
        let both = flags.over(file);
        assert_eq!((both.bits, both.profile.as_deref()), (Some(8), Some("edge")));
        let asks = options("num_time_groups: 10\nenable_time_aware: true\nenable_spatial: false\n")
            .expect("a good file");
        assert_eq!((asks.time_groups, asks.time_aware), (Some(10), Some(true)));
        assert_eq!((asks.smoothing.as_deref(), asks.unused.len()), (Some("off"), 0));
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
            ("min_cosin: 0.9", "min_cosine"),
            ("min_cosine: 1.1", "from 0 to 1"),
            ("rules: {match: a}", "a list of rules"),
            ("rules: [{match: a, bits: 7}]", "bits"),
            ("profile: desktop", "edge, local or cloud"),
            ("bits: 4\nbits: 8", "YAML"),
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

    /// The template with the # taken from before keys, where `wanted` says so of the line before and the line.
    fn uncommented(profile: Profile, wanted: fn(&str, &str) -> bool) -> String {
        let text = config_template(profile);
        let lines: Vec<&str> = text.lines().collect();
        let line = |pair: &[&str]| match pair[1].strip_prefix('#') {
            Some(key) if !key.starts_with(' ') && !key.is_empty() && wanted(pair[0], key) => {
                format!("{key}\n")
            }
            _ => format!("{}\n", pair[1]),
        };
        lines.windows(2).map(line).collect()
    }

    #[test]
    fn every_line_of_the_template_can_be_used() {
        let all = options(&uncommented(Profile::Local, |_, _| true)).expect("every example is valid");
        let all = JobOptions { rules: Vec::new(), ..all };
        let left_open = format!("{all:?}").matches("None").count();
        assert_eq!(left_open, 2, "output and block size: {all:?}");
        let keys = uncommented(Profile::Local, |_, _| true);
        assert!(
            KEYS.iter().all(|key| keys.contains(&format!("\n{}: ", key.name)) || keys.starts_with(key.name))
        );
    }

    #[test]
    fn defaults_of_the_template_are_those_of_a_job() {
        for profile in Profile::ALL {
            let text = uncommented(profile, |before, _| before != "# For example:");
            let registry = Registry::default();
            let job = |options: JobOptions| Job::new(options, &registry).expect("a good job");
            let plain = job(JobOptions { profile: Some(profile.name().into()), ..JobOptions::default() });
            let written = job(options(&text).expect("valid"));
            assert_eq!(plain.settings(), written.settings());
            assert_eq!((plain.streaming, plain.threads), (written.streaming, written.threads));
        }
    }

    #[test]
    fn the_published_schema_is_current() {
        let published = include_str!("../../../docs/aq.schema.json");
        let published: Value = serde_json::from_str(published).expect("JSON");
        assert!(published == schema(), "run: aq init --schema > docs/aq.schema.json");
        assert_eq!(schema()["properties"]["rules"]["items"]["properties"]["dtype"]["enum"][0], "f16");
    }
}
