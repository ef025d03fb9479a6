//! How results appear: complete or not at all.

use std::path::Path;

use aq_core::DType;
use aq_io::{CreateOptions, IoError, OutputFormat, Sink, create};

use crate::support::{Feed, folder, listing, opened, put, stored};

fn name(format: OutputFormat) -> String {
    match format {
        OutputFormat::Folder => "out".into(),
        other => format!("out.{}", other.name()),
    }
}

fn write(sink: &mut dyn Sink) {
    let tensors = [stored("a", &[4, 3], DType::F32), stored("b", &[], DType::BF16)];
    sink.write(&tensors, &mut Feed::new(&tensors, 0)).expect("written");
}

fn write_and_commit(path: &Path, format: OutputFormat, options: &CreateOptions) {
    let mut sink = create(path, format, options).expect("created");
    write(&mut *sink);
    let pending = sink.finish(&[("aq.tool".into(), "test".into())]).expect("finished");
    assert_eq!(opened(pending.path()).tensors().len(), 2);
    assert_eq!(pending.commit().expect("committed"), path);
}

fn force() -> CreateOptions {
    CreateOptions { force: true, ..Default::default() }
}

#[test]
fn formats_follow_the_ending() {
    let of = |path: &str| OutputFormat::from_path(Path::new(path)).ok();
    assert_eq!(of("a/b.parquet"), Some(OutputFormat::Parquet));
    assert_eq!(of("b.ARROW"), Some(OutputFormat::Arrow));
    assert_eq!(of("b.gguf"), Some(OutputFormat::Gguf));
    assert_eq!(of("b.safetensors"), Some(OutputFormat::Safetensors));
    assert_eq!(
        [of("b"), of("b.1/"), of("."), of("b.folder"), of("b.onnx")],
        [Some(OutputFormat::Folder), Some(OutputFormat::Folder), Some(OutputFormat::Folder), None, None,]
    );
    assert!(OutputFormat::ALL.iter().all(|f| OutputFormat::from_name(f.name()) == Some(*f)));
}

#[test]
fn a_result_is_there_after_the_commit_only() {
    for format in OutputFormat::ALL {
        let folder = folder();
        let path = folder.path().join(name(format));
        // Dropped before, while and after writing: nothing stays.
        for stage in 0..3 {
            let mut sink = create(&path, format, &CreateOptions::default()).expect("created");
            assert_eq!(listing(folder.path()), [format!(".{}.aq-partial", name(format))]);
            if stage > 0 {
                write(&mut *sink);
            }
            if stage > 1 {
                drop(sink.finish(&[]).expect("finished"));
            }
            // The sink or its result is gone here.
        }
        assert!(listing(folder.path()).is_empty(), "{format:?}");
        write_and_commit(&path, format, &CreateOptions::default());
        assert_eq!(listing(folder.path()), [name(format)]);
    }
}

#[test]
fn an_existing_destination_needs_force() {
    for format in OutputFormat::ALL {
        let folder = folder();
        let path = folder.path().join(name(format));
        write_and_commit(&path, format, &CreateOptions::default());
        let before = opened(&path).tensors().to_vec();
        assert!(matches!(create(&path, format, &CreateOptions::default()), Err(IoError::Exists { .. })));
        // A forced run that ends early leaves the old result.
        let mut sink = create(&path, format, &force()).expect("forced");
        write(&mut *sink);
        drop(sink.finish(&[]).expect("finished"));
        assert_eq!(opened(&path).tensors(), before);
        write_and_commit(&path, format, &force());
        assert_eq!(listing(folder.path()), [name(format)]);
    }
}

#[test]
fn a_destination_that_appears_meanwhile_is_not_replaced() {
    for format in OutputFormat::ALL {
        let folder = folder();
        let path = folder.path().join(name(format));
        let mut sink = create(&path, format, &CreateOptions::default()).expect("created");
        write(&mut *sink);
        put(folder.path(), &name(format), b"mine");
        let refused = sink.finish(&[]).expect("finished").commit();
        assert!(matches!(refused, Err(IoError::Exists { .. })));
        assert_eq!(std::fs::read(&path).expect("there"), b"mine");
        assert_eq!(listing(folder.path()), [name(format)]);
    }
}

#[test]
#[cfg(unix)]
fn a_second_writer_is_refused_and_a_dead_one_is_taken_over() {
    for format in OutputFormat::ALL {
        let folder = folder();
        let path = folder.path().join(name(format));
        let first = create(&path, format, &CreateOptions::default()).expect("created");
        assert!(matches!(create(&path, format, &CreateOptions::default()), Err(IoError::Busy { .. })));
        assert!(matches!(create(&path, format, &force()), Err(IoError::Busy { .. })));
        drop(first);
        // What a killed run leaves: a temporary that nobody holds.
        match format {
            OutputFormat::Folder | OutputFormat::Diffusers => {
                put(folder.path(), &format!(".{}.aq-partial/junk/part", name(format)), b"stale")
            }
            _ => put(folder.path(), &format!(".{}.aq-partial", name(format)), [7; 100_000]),
        };
        write_and_commit(&path, format, &CreateOptions::default());
        assert_eq!(listing(folder.path()), [name(format)]);
    }
}

#[test]
fn other_things_in_the_way_are_refused() {
    let folder = folder();
    let fails = |path: &Path, format| create(path, format, &force()).err().expect("refused").to_string();
    for format in OutputFormat::ALL {
        let missing = folder.path().join("no/such").join(name(format));
        assert!(fails(&missing, format).contains("folder that should hold it does not exist"));
    }
    put(folder.path(), "mine/notes.txt", b"keep");
    put(folder.path(), "file", b"keep");
    assert!(fails(&folder.path().join("mine"), OutputFormat::Folder).contains("remove it by hand"));
    assert!(fails(&folder.path().join("file"), OutputFormat::Folder).contains("not one"));
    assert!(fails(&folder.path().join("mine"), OutputFormat::Parquet).contains("not a regular file"));
    assert_eq!(listing(folder.path()), ["file", "mine"]);
    assert!(create(Path::new(".."), OutputFormat::Folder, &force()).is_err());
}

#[test]
#[cfg(unix)]
fn a_link_in_the_way_of_the_temporary_is_not_followed() {
    let folder = folder();
    let other = put(folder.path(), "precious", b"keep");
    std::os::unix::fs::symlink(&other, folder.path().join(".out.parquet.aq-partial")).expect("a link");
    assert!(create(&folder.path().join("out.parquet"), OutputFormat::Parquet, &force()).is_err());
    assert_eq!(std::fs::read(&other).expect("there"), b"keep");
}

#[test]
fn a_commit_that_was_cut_between_its_renames_is_undone() {
    let folder = folder();
    let path = folder.path().join("out");
    write_and_commit(&path, OutputFormat::Folder, &CreateOptions::default());
    std::fs::rename(&path, folder.path().join(".out.aq-old")).expect("renamed");
    let refused = create(&path, OutputFormat::Folder, &CreateOptions::default());
    assert!(matches!(refused, Err(IoError::Exists { .. })));
    assert_eq!(listing(folder.path()), ["out"]);
    opened(&path);
}
