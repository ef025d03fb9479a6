//! Folders of safetensors files.

use std::path::Path;

use serde_json::{Value, json};

use crate::support::{contents, entry, f32_file, folder, opened, put, raw_file, refused};

const INDEX: &str = "model.safetensors.index.json";
const A: &str = "model-00001-of-00002.safetensors";
const B: &str = "model-00002-of-00002.safetensors";

/// Two good shards and the index `map` (tensor to shard).
fn shards(folder: &Path, map: &[(&str, &str)]) {
    put(folder, A, f32_file(&[("a.1", &[2, 3]), ("a.0", &[4])]));
    put(folder, B, f32_file(&[("b.0", &[5])]));
    let map: serde_json::Map<String, Value> = map.iter().map(|(k, v)| (k.to_string(), json!(v))).collect();
    put(folder, INDEX, json!({"metadata": {"total_size": 1}, "weight_map": map}).to_string());
}

const GOOD: [(&str, &str); 3] = [("b.0", B), ("a.0", A), ("a.1", A)];

#[track_caller]
fn check(change: impl FnOnce(&Path), words: &[&str]) {
    let folder = folder();
    let model = folder.path().join("the-model");
    shards(&model, &GOOD);
    change(&model);
    let message = refused(&model);
    for word in words.iter().chain(&["the-model"]) {
        assert!(message.contains(word), "{word:?} is not in {message:?}");
    }
}

#[test]
fn good_shards() {
    let folder = folder();
    shards(folder.path(), &GOOD);
    let source = opened(folder.path());
    let names: Vec<&str> = source.tensors().iter().map(|t| t.info.name()).collect();
    assert_eq!(names, ["a.1", "a.0", "b.0"]);
    assert_eq!(contents(&*source).iter().map(|(_, bytes)| bytes.len()).collect::<Vec<_>>(), [24, 16, 20]);
    assert_eq!(source.stored_bytes(3), 0);
    assert!(source.read_bytes(3, 0, &mut []).is_err());
}

#[test]
fn shards_that_do_not_fit_the_index() {
    let with = |map: &'static [(&str, &str)]| move |model: &Path| shards(model, map);
    check(|m| std::fs::remove_file(m.join(B)).expect("removed"), &[INDEX, B, "missing"]);
    check(with(&[("b.0", B), ("a.0", A), ("a.1", A), ("ghost", A)]), &[INDEX, A, "ghost", "missing"]);
    check(with(&[("b.0", B), ("a.0", A)]), &[A, "a.1", "not in the index"]);
    check(with(&[("b.0", A), ("a.0", A), ("a.1", A)]), &["b.0", "missing"]);
    check(|m| drop(put(m, B, &f32_file(&[("b.0", &[5])])[..70])), &[B, "truncated"]);
    check(|m| drop(put(m, B, f32_file(&[("b.0", &[5]), ("a.0", &[1])]))), &[B, "a.0", "not in the index"]);
}

#[test]
fn bad_indexes() {
    let with = |text: &'static str| move |model: &Path| drop(put(model, INDEX, text));
    check(with("weight_map: {}"), &[INDEX, "JSON", "index"]);
    check(with("{\"metadata\":{}}"), &[INDEX, "weight_map", "missing"]);
    check(with("{\"weight_map\":{}}"), &[INDEX, "weight_map", "empty"]);
    check(with("{\"weight_map\":[]}"), &[INDEX, "JSON"]);
    check(with("{\"weight_map\":{\"a\":5}}"), &[INDEX, "JSON"]);
    check(with("{\"weight_map\":{\"a\":\"x\",\"a\":\"x\"}}"), &[INDEX, "duplicate"]);
    check(with("{\"weight_map\":{},\"weight_map\":{}}"), &[INDEX, "duplicate"]);
    check(|m| drop(put(m, "other.safetensors.index.json", "{}")), &["more than one index"]);
}

#[test]
fn shard_names_stay_in_the_folder() {
    let outside =
        ["../secret.safetensors", "/etc/passwd", "../../../../../etc/passwd", "sub/b.safetensors", "..", ""];
    for name in outside {
        let change = |model: &Path| {
            put(model, "../secret.safetensors", f32_file(&[("b.0", &[5])]));
            put(model, "sub/b.safetensors", f32_file(&[("b.0", &[5])]));
            let index = json!({"weight_map": {"a.0": A, "a.1": A, "b.0": name}});
            put(model, INDEX, index.to_string());
        };
        check(change, &[INDEX, "path", "not allowed"]);
    }
}

#[test]
#[cfg(unix)]
fn links_are_followed_inside_and_into_the_cache() {
    use std::os::unix::fs::symlink;
    let relink = |model: &Path, target: &str| {
        std::fs::remove_file(model.join(B)).expect("removed");
        symlink(target, model.join(B)).expect("a link");
    };
    let shard = f32_file(&[("b.0", &[5])]);
    check(|m| (put(m, "../secret", &shard), relink(m, "../secret")).1, &[B, "outside"]);
    check(
        |m| (std::fs::create_dir(m.join("d")).expect("made"), relink(m, "d")).1,
        &[B, "not a regular file"],
    );
    check(|m| relink(m, B), &[B]);

    let folder = folder();
    let model = folder.path().join("models--x/snapshots/abc");
    shards(&model, &GOOD);
    put(folder.path(), "models--x/blobs/0123", &shard);
    relink(&model, "../../blobs/0123");
    assert_eq!(opened(&model).tensors().len(), 3);
    put(&model, "inside", &shard);
    relink(&model, "inside");
    assert_eq!(opened(&model).tensors().len(), 3);
}

#[test]
fn folders_without_an_index() {
    let folder = folder();
    let path = folder.path();
    std::fs::create_dir(path.join("empty")).expect("made");
    assert!(refused(&path.join("empty")).contains("no .safetensors file"));
    put(path, "m/diffusion_pytorch_model.safetensors", f32_file(&[("w", &[2])]));
    put(path, "m/diffusion_pytorch_model.fp16.safetensors", f32_file(&[("w", &[3])]));
    put(path, "m/config.json", "{}");
    let source = opened(&path.join("m"));
    assert_eq!((source.tensors().len(), source.stored_bytes(0)), (1, 8));
    put(path, "m/more.safetensors", f32_file(&[("v", &[2])]));
    assert_eq!(opened(&path.join("m")).tensors().len(), 2);
    put(path, "m/twice.safetensors", f32_file(&[("w", &[2])]));
    let message = refused(&path.join("m"));
    assert!(message.contains("duplicate") && message.contains("twice.safetensors"), "{message}");
    put(path, "part/m-00001-of-00003.safetensors", f32_file(&[("w", &[2])]));
    assert!(refused(&path.join("part")).contains("1 of the 3 shards of m are there"));
}

#[test]
fn calibration_samples_beside_a_model_are_no_part_of_it() {
    let folder = folder();
    let path = folder.path();
    let header =
        json!({"__metadata__": {"aq.calibration": "samples/1"}, "w": entry("F32", &[1, 1, 2], 0, 8)});
    let samples = raw_file(header.to_string(), &[0; 8]);
    put(path, "m/calib.safetensors", &samples);
    put(path, "m/model.safetensors", f32_file(&[("w", &[2])]));
    let source = opened(&path.join("m"));
    assert_eq!(source.tensors()[0].info.shape(), [2]);
    put(path, "only/calib.safetensors", &samples);
    assert!(refused(&path.join("only")).contains("only calibration samples"));
    assert_eq!(opened(&path.join("only/calib.safetensors")).tensors().len(), 1);
}
