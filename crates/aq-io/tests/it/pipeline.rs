//! Pipeline folders.

use std::path::Path;

use aq_io::Pipeline;

use crate::support::{f32_file, folder, listing, put, refused};

fn pipeline(folder: &Path) {
    let index = r#"{"_class_name":"FluxPipeline","_diffusers_version":"0.30","transformer":["diffusers","FluxTransformer2DModel"],
        "scheduler":["diffusers","FlowMatchEulerDiscreteScheduler"],"image_encoder":[null,null],"force_zeros":true}"#;
    put(folder, "model_index.json", index);
    put(folder, "transformer/config.json", "{}");
    put(folder, "transformer/diffusion_pytorch_model.safetensors", f32_file(&[("w", &[2])]));
    put(folder, "transformer/diffusion_pytorch_model.fp16.safetensors", f32_file(&[("w", &[2])]));
    put(folder, "transformer/diffusion_pytorch_model.safetensors.index.json", "{}");
    put(folder, "scheduler/scheduler_config.json", "{}");
    put(folder, "tokenizer/deep/vocab.json", "words");
    put(folder, ".git/config", "hidden");
}

#[test]
fn components() {
    let folder = folder();
    pipeline(folder.path());
    let found = Pipeline::open(folder.path()).expect("a pipeline");
    assert_eq!(found.class, "FluxPipeline");
    let list: Vec<_> =
        found.components.iter().map(|c| (c.name.as_str(), c.class.as_str(), c.has_weights)).collect();
    let expected = [
        ("transformer", "FluxTransformer2DModel", true),
        ("scheduler", "FlowMatchEulerDiscreteScheduler", false),
    ];
    assert_eq!(list, expected);
    assert!(found.component("transformer").is_ok());
    assert!(found.component("vae").expect_err("missing").to_string().contains("transformer, scheduler"));
    assert!(refused(folder.path()).contains("choose one of its components: transformer"));
}

#[test]
fn bad_indexes() {
    let folder = folder();
    let fails = |text: &str| {
        put(folder.path(), "model_index.json", text);
        Pipeline::open(folder.path()).expect_err("refused").to_string()
    };
    assert!(fails("[]").contains("JSON"));
    assert!(fails(r#"{"a":["x","y"],"a":["x","y"]}"#).contains("duplicate"));
    assert!(fails(r#"{"../up":["x","y"]}"#).contains("not allowed"));
    assert!(Pipeline::open(&folder.path().join("none")).is_err());
}

#[test]
fn the_rest_is_copied() {
    let folder = folder();
    let root = folder.path().join("model");
    pipeline(&root);
    let target = root.join("out");
    std::fs::create_dir(&target).expect("made");
    let found = Pipeline::open(&root).expect("a pipeline");
    let bytes = found.copy_rest(&target, &["transformer"]).expect("copied");
    assert_eq!(listing(&target), ["model_index.json", "scheduler", "tokenizer", "transformer"]);
    assert_eq!(listing(&target.join("transformer")), ["config.json"]);
    assert_eq!(std::fs::read(target.join("tokenizer/deep/vocab.json")).expect("there"), b"words");
    assert_eq!(bytes, 2 + 2 + 5 + std::fs::metadata(root.join("model_index.json")).expect("there").len());
}

#[test]
#[cfg(unix)]
fn links_out_of_the_pipeline_are_refused() {
    use std::os::unix::fs::symlink;
    let folder = folder();
    let root = folder.path().join("models--x/snapshots/abc");
    pipeline(&root);
    put(folder.path(), "models--x/blobs/1", "blob");
    put(folder.path(), "secret", "secret");
    symlink("../../../blobs/1", root.join("tokenizer/blob.json")).expect("a link");
    let found = Pipeline::open(&root).expect("a pipeline");
    found.copy_rest(&folder.path().join("one"), &[]).expect("copied");
    assert_eq!(std::fs::read(folder.path().join("one/tokenizer/blob.json")).expect("there"), b"blob");
    for target in [folder.path().join("secret"), folder.path().to_path_buf()] {
        let _ = std::fs::remove_file(root.join("scheduler/link"));
        symlink(target, root.join("scheduler/link")).expect("a link");
        let error = found.copy_rest(&folder.path().join("two"), &[]).expect_err("refused").to_string();
        assert!(error.contains("outside"), "{error}");
        let _ = std::fs::remove_dir_all(folder.path().join("two"));
    }
}
