//! Examples at the end of `aq COMMAND --help`.

pub(crate) const QUANTIZE: &str = "\
Examples:
  aq quantize model.safetensors -o model.parquet
      4 bits a weight, for Python, pyarrow, DuckDB and polars
  aq quantize pipeline/ -o small/ --calibration samples.safetensors --report report.html
      the denoiser of a diffusers pipeline, with the errors of its layers in a page
  aq quantize model.safetensors -o model.parquet --target-size 1.9GB
      as good as fits
  aq quantize model.safetensors -o int8.safetensors --format comfy
      8 bits for ComfyUI and stable-diffusion.cpp
  aq quantize transformer/ -o small/ --format diffusers
      a folder that diffusers loads after `import arrow_quant.diffusers`
  aq quantize model.safetensors -o check.safetensors --bits 3
      the weights after quantization, for any program to make samples with
  aq quantize model.safetensors --dry-run --bits 2
      what would happen, in bytes

Every option about quantization and resources is also a key of --config and a variable: AQ_BITS=3 is --bits 3. Options go before variables,
these before the file, and that before the profile.";

pub(crate) const PLAN: &str = "\
Examples:
  aq plan model.safetensors --table
  aq plan pipeline/ --bits 3 --tensor-type 'attn.*=4' > plan.json

Every option about quantization and resources is also a key of --config and a variable: AQ_BITS=3 is --bits 3. Options go before variables,
these before the file, and that before the profile.";

pub(crate) const COMPARE: &str = "\
Examples:
  aq compare model.safetensors model.parquet
  aq compare model.safetensors model.parquet --calibration samples.safetensors --report errors.html";

pub(crate) const DEQUANTIZE: &str = "\
Examples:
  aq dequantize model.parquet -o back.safetensors
  aq dequantize model.parquet -o folder/ --dtype bf16";

pub(crate) const CONVERT: &str = "\
Examples:
  aq convert model.parquet -o model.arrow
  aq convert model.parquet -o plain/ --format safetensors --shard-size 5GB
  aq convert ls.parquet -o packed/ --format diffusers --model transformer/";

pub(crate) const MAN: &str = "\
Examples:
  aq man | man -l -
  aq man ~/.local/share/man/man1";

pub(crate) const COMPLETIONS: &str = "\
Examples:
  aq completions bash > ~/.local/share/bash-completion/completions/aq
  aq completions zsh > ~/.zfunc/_aq";
