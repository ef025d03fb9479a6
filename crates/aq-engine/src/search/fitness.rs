//! What says how good a plan is: a command, or whatever a program hands in.

use std::io::Read;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::{EngineError, Result};

/// Gives a plan a score.
pub trait Fitness: Sync {
    /// What it is, in a few words.
    fn name(&self) -> String;

    /// The score of the plan in a file; lower is better. Several may be asked for at once.
    ///
    /// # Errors
    /// Whatever keeps it from scoring; the search ends with it. [`EngineError::Interrupted`] when `cancel` is set.
    fn score(&self, plan: &Path, cancel: &AtomicBool) -> Result<f64>;
}

/// A command whose last number on stdout is the score. `{plan}` in it stands for the file of the plan.
#[derive(Debug, Clone)]
pub struct CommandFitness {
    command: String,
}

/// What stands for the plan.
const PLAN: &str = "{plan}";
/// How long a signal may wait.
const POLL: Duration = Duration::from_millis(20);

impl CommandFitness {
    /// A command line for the shell.
    ///
    /// # Errors
    /// [`EngineError::Usage`] when it does not say where the plan goes.
    ///
    /// ```
    /// use aq_engine::CommandFitness;
    /// assert!(CommandFitness::new("python score.py {plan}").is_ok());
    /// assert!(CommandFitness::new("python score.py").is_err());
    /// ```
    pub fn new(command: &str) -> Result<Self> {
        if !command.contains(PLAN) {
            return Err(EngineError::Usage(format!(
                "fitness {command:?} does not say where the plan goes: {PLAN}"
            )));
        }
        Ok(Self { command: command.into() })
    }

    fn fault(&self, fact: &str) -> EngineError {
        EngineError::Fitness { fitness: self.command.clone(), reason: fact.into() }
    }

    fn start(&self, plan: &Path) -> Result<Child> {
        let line = self.command.replace(PLAN, &plan.display().to_string());
        let mut command = match cfg!(windows) {
            true => shell("cmd", "/C", &line),
            false => shell("sh", "-c", &line),
        };
        let command = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command.spawn().map_err(|e| self.fault(&e.to_string()))
    }
}

fn shell(program: &str, flag: &str, line: &str) -> Command {
    let mut command = Command::new(program);
    command.args([flag, line]);
    command
}

impl Fitness for CommandFitness {
    fn name(&self) -> String {
        self.command.clone()
    }

    fn score(&self, plan: &Path, cancel: &AtomicBool) -> Result<f64> {
        let mut child = self.start(plan)?;
        let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
        let read = |pipe: Option<Box<dyn Read + Send>>| {
            std::thread::spawn(move || {
                let mut bytes = Vec::new();
                // What was read until the pipe broke is what there is.
                let _ = pipe.map(|mut pipe| pipe.read_to_end(&mut bytes));
                String::from_utf8_lossy(&bytes).into_owned()
            })
        };
        let stdout = read(stdout.map(|pipe| Box::new(pipe) as _));
        let stderr = read(stderr.map(|pipe| Box::new(pipe) as _));
        let status = loop {
            if cancel.load(Ordering::Relaxed) {
                let _ = child.kill();
                let _ = child.wait();
                return Err(EngineError::Interrupted);
            }
            match child.try_wait().map_err(|e| self.fault(&e.to_string()))? {
                Some(status) => break status,
                None => std::thread::sleep(POLL),
            }
        };
        let (said, complaint) = (stdout.join().unwrap_or_default(), stderr.join().unwrap_or_default());
        if !status.success() {
            let last =
                complaint.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or("it said nothing");
            return Err(self.fault(&format!("{status}: {}", last.trim())));
        }
        last_number(&said).ok_or_else(|| self.fault("it printed no number on stdout"))
    }
}

/// The last word of a text that is a number.
fn last_number(text: &str) -> Option<f64> {
    let words = text.split(|c: char| c.is_whitespace() || ",;:=()[]{}\"".contains(c));
    words.rev().find_map(|word| word.parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_number_is_the_score() {
        for (text, score) in [
            ("0.5\n", Some(0.5)),
            ("step 3: loss=0.25\nscore: -1e-3 dB\n", Some(-1e-3)),
            ("{\"fid\": 12.5}", Some(12.5)),
            ("nan\n", Some(f64::NAN)),
            ("nothing to say", None),
        ] {
            let found = last_number(text);
            assert!(found == score || found.is_some_and(f64::is_nan), "{text}: {found:?}");
        }
    }

    #[cfg(unix)]
    #[test]
    fn commands_score_and_fail_by_name() {
        let run = AtomicBool::new(false);
        let score = |command: &str| CommandFitness::new(command)?.score(Path::new("p.yaml"), &run);
        assert_eq!(score("echo read {plan}; echo 7").expect("it prints a number"), 7.0);
        for (command, word) in [
            ("echo {plan} is bad >&2; exit 3", "p.yaml is bad"),
            ("echo {plan}", "no number"),
            ("no-such-program {plan}", "not found"),
        ] {
            let error = score(command).expect_err(command);
            assert!(error.to_string().contains(word) && error.exit_code() == 1, "{error}");
        }
        let stopped = AtomicBool::new(true);
        let error =
            CommandFitness::new("sleep 60; echo {plan} 1").expect("good").score(Path::new("p"), &stopped);
        assert!(matches!(error, Err(EngineError::Interrupted)));
    }
}
