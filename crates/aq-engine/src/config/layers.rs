//! Options over options: what a higher place leaves open is taken from a lower one.

use crate::JobOptions;

fn list<T>(high: Vec<T>, low: Vec<T>) -> Vec<T> {
    if high.is_empty() { low } else { high }
}

impl JobOptions {
    /// These options, with what they leave open taken from `lower`.
    pub fn over(self, lower: JobOptions) -> JobOptions {
        JobOptions {
            input: self.input,
            output: self.output.or(lower.output),
            format: self.format.or(lower.format),
            dtype: self.dtype.or(lower.dtype),
            shard_size: self.shard_size.or(lower.shard_size),
            base_model: self.base_model.or(lower.base_model),
            report: self.report.or(lower.report),
            components: list(self.components, lower.components),
            bits: self.bits.or(lower.bits),
            group_size: self.group_size.or(lower.group_size),
            rate: self.rate.or(lower.rate),
            target_bpw: self.target_bpw.or(lower.target_bpw),
            target_size: self.target_size.or(lower.target_size),
            sensitivity: self.sensitivity.or(lower.sensitivity),
            plan: self.plan.or(lower.plan),
            method: self.method.or(lower.method),
            profile: self.profile.or(lower.profile),
            calibration: self.calibration.or(lower.calibration),
            tensor_types: list(self.tensor_types, lower.tensor_types),
            rules: list(self.rules, lower.rules),
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
            min_cosine: self.min_cosine.or(lower.min_cosine),
            max_error: self.max_error.or(lower.max_error),
            fail_fast: self.fail_fast.or(lower.fail_fast),
            threads: self.threads.or(lower.threads),
            memory_limit: self.memory_limit.or(lower.memory_limit),
            block_size: self.block_size.or(lower.block_size),
            streaming: self.streaming.or(lower.streaming),
            force: self.force || lower.force,
            resume: self.resume || lower.resume,
            allow_requantize: self.allow_requantize.or(lower.allow_requantize),
            seed: self.seed.or(lower.seed),
            unused: list(self.unused, lower.unused),
        }
    }
}
