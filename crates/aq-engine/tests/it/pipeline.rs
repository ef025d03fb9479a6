//! A diffusers pipeline: its denoiser is quantized, the rest is copied.

use aq_engine::JobOptions;

use crate::model::{quantize, tensors, write};

fn pipeline() -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let root = folder.path().join("pipe");
    for component in ["transformer", "vae", "scheduler"] {
        std::fs::create_dir_all(root.join(component)).expect("made");
        std::fs::write(root.join(component).join("config.json"), "{}").expect("written");
    }
    for component in ["transformer", "vae"] {
        write(&root.join(component).join("diffusion_pytorch_model.safetensors"), &tensors());
    }
    let index = r#"{"_class_name": "TestPipeline", "_diffusers_version": "0.42.1",
        "transformer": ["diffusers", "TestTransformer"], "vae": ["diffusers", "AutoencoderKL"],
        "scheduler": ["diffusers", "DDIMScheduler"]}"#;
    std::fs::write(root.join("model_index.json"), index).expect("written");
    folder
}

#[test]
fn the_denoiser_is_quantized_and_the_rest_copied() {
    let folder = pipeline();
    let (input, output) = (folder.path().join("pipe"), folder.path().join("out"));
    let options = JobOptions { input: input.clone(), output: Some(output.clone()), ..JobOptions::default() };
    let report = quantize(options).expect("quantizes");
    assert!(report.tensors.iter().all(|t| t.stored.info.name().starts_with("transformer.")));
    assert!(output.join("transformer/manifest.json").is_file());
    assert!(!output.join("transformer/diffusion_pytorch_model.safetensors").exists());
    for file in [
        "model_index.json",
        "transformer/config.json",
        "scheduler/config.json",
        "vae/diffusion_pytorch_model.safetensors",
    ] {
        assert_eq!(std::fs::read(input.join(file)).ok(), std::fs::read(output.join(file)).ok(), "{file}");
    }
    let verified = aq_engine::verify(&output.join("transformer"), &false.into()).expect("sound");
    assert_eq!(verified.tensors, tensors().len());
}

#[test]
fn steps_down_name_the_component() {
    let folder = pipeline();
    let options = |name: &str, fail_fast: bool| JobOptions {
        input: folder.path().join("pipe"),
        output: Some(folder.path().join(name)),
        bits: Some(2),
        min_cosine: Some(0.999),
        fail_fast: Some(fail_fast),
        resume: fail_fast,
        ..JobOptions::default()
    };
    let report = quantize(options("out", false)).expect("quantizes");
    assert!(!report.fallbacks.is_empty());
    for row in &report.fallbacks {
        let tensor = row.tensor.as_deref().expect("a tensor");
        assert!(report.tensors.iter().any(|t| t.stored.info.name() == tensor), "{tensor}");
    }
    assert_eq!(quantize(options("none", true)).expect_err("a miss").exit_code(), 5);
    let left: Vec<_> =
        std::fs::read_dir(folder.path()).expect("readable").map(|e| e.expect("readable")).collect();
    assert_eq!(left.len(), 2, "the pipeline and the first output: {left:?}");
}

#[test]
fn one_component_fits_one_file_and_two_do_not() {
    let folder = pipeline();
    let options = |components: &[&str]| JobOptions {
        input: folder.path().join("pipe"),
        output: Some(folder.path().join("out.parquet")),
        components: components.iter().map(ToString::to_string).collect(),
        ..JobOptions::default()
    };
    assert_eq!(quantize(options(&["transformer", "vae"])).expect_err("two").exit_code(), 2);
    let error = quantize(options(&["tokenizer"])).expect_err("not there");
    assert!(error.to_string().contains("transformer, vae"), "{error}");
    quantize(options(&["vae"])).expect("one component");
}
