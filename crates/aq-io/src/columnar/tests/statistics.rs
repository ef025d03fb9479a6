//! Calibration statistics, written and read back, whole and damaged.

use std::fs::OpenOptions;
use std::io::{Seek, SeekFrom, Write};
use std::path::Path;

use super::file_of;
use crate::columnar::{BucketStatistics, LayerStatistics, StatisticsFile, StatisticsWriter};
use crate::{Result, StatisticsSink};

/// A layer of `cols` channels whose Hessian has blocks of `block`.
fn layer(name: &str, cols: usize, block: usize, buckets: usize) -> LayerStatistics {
    let vector = |from: usize, n: usize| (from..from + n).map(|v| v as f32 * 0.5).collect::<Vec<f32>>();
    let bucket = |i: usize| BucketStatistics {
        time: 1000.0 - i as f64,
        weight: 0.25 * i as f64,
        rows: 7 + i as u64,
        min: -1.5,
        max: i as f32,
        absmax: vector(i, cols),
        mean_square: vector(i + 9, cols),
        samples: (0..2 * cols * (i + 1)).map(|b| b as u8).collect(),
    };
    let values = cols / block * block * block + (cols % block) * (cols % block);
    LayerStatistics {
        layer: name.into(),
        buckets: (0..buckets).map(bucket).collect(),
        rows: 40,
        weight: 39.5,
        hessian_block: block,
        hessian: vector(3, values),
    }
}

fn bytes_of(layers: &[LayerStatistics]) -> Vec<u8> {
    let mut writer = StatisticsWriter::new(Vec::new(), Path::new("stats")).expect("a schema");
    layers.iter().for_each(|layer| writer.write(layer).expect("written"));
    writer.finish(&[("aq.time".into(), "sigma".into())]).expect("finished")
}

/// Everything a file holds.
fn read(path: &Path) -> Result<Vec<LayerStatistics>> {
    let file = StatisticsFile::open(path)?;
    let layer = |stored: &crate::StoredLayer| {
        let bucket = |b: &crate::StoredBucket| {
            let mut samples = vec![0; b.samples as usize * stored.cols * 2];
            let half = samples.len() / 2;
            file.read_samples(b, half as u64, &mut samples[half..])?;
            file.read_samples(b, 0, &mut samples[..half])?;
            let (absmax, mean_square) = (file.absmax(b)?, file.mean_square(b)?);
            let (time, weight, rows, min, max) = (b.time, b.weight, b.rows, b.min, b.max);
            Ok(BucketStatistics { time, weight, rows, min, max, absmax, mean_square, samples })
        };
        Ok(LayerStatistics {
            layer: stored.layer.clone(),
            buckets: stored.buckets.iter().map(bucket).collect::<Result<_>>()?,
            rows: stored.rows,
            weight: stored.weight,
            hessian_block: stored.hessian_block,
            hessian: file.hessian(stored)?,
        })
    };
    file.layers().iter().map(layer).collect()
}

fn small() -> Vec<LayerStatistics> {
    vec![layer("blocks.0.fc1", 5, 2, 3), layer("b", 1, 1, 1), layer("c", 4, 4, 2)]
}

#[test]
fn what_is_written_is_read() {
    let (_folder, path) = file_of(&bytes_of(&small()));
    assert_eq!(read(&path).expect("reads"), small());
    let file = StatisticsFile::open(&path).expect("opens");
    assert_eq!(file.metadata()["aq.time"], "sigma");
    assert_eq!(file.metadata()["aq.calibration"], "statistics/1");
    assert!(file.read_samples(&file.layers()[1].buckets[0], 1, &mut [0; 2]).is_err(), "past the end");
}

#[test]
fn a_sink_leaves_nothing_behind_until_it_is_committed() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("stats.parquet");
    let mut sink = StatisticsSink::create(&path, false).expect("begins");
    sink.write(&small()[0]).expect("written");
    let pending = sink.finish(&[]).expect("finished");
    assert!(!path.exists());
    pending.commit().expect("committed");
    assert_eq!(read(&path).expect("reads"), small()[..1]);
    assert!(StatisticsSink::create(&path, false).is_err(), "it is there already");
}

#[test]
fn contradictions_name_the_layer() {
    type Change = fn(&mut LayerStatistics);
    let change = |of: Change| {
        let mut layers = small();
        of(&mut layers[0]);
        let (_folder, path) = file_of(&bytes_of(&layers));
        read(&path).expect_err("refused").to_string()
    };
    let cases: [(Change, &str); 9] = [
        (|l| l.buckets.clear(), "no buckets"),
        (|l| l.hessian.truncate(8), "32 bytes in place of 36"),
        (|l| l.hessian_block = 0, "blocks of 0 columns"),
        (|l| l.hessian_block = 6, "blocks of 6 columns"),
        (|l| l.buckets[1].absmax.truncate(4), "bucket 1"),
        (|l| l.buckets[2].samples.truncate(7), "whole rows"),
        (|l| l.buckets[2].rows = 2, "30 bytes of samples are not whole rows of 2"),
        (|l| l.buckets[0].time = f64::NAN, "not finite"),
        (|l| l.weight = -1.0, "weight"),
    ];
    for (of, fact) in cases {
        let error = change(of);
        assert!(error.contains("blocks.0.fc1") && error.contains(fact), "{fact}: {error}");
    }
    let mut twice = small();
    twice[2].layer = twice[1].layer.clone();
    let (_folder, path) = file_of(&bytes_of(&twice));
    assert!(read(&path).expect_err("refused").to_string().contains("twice"));
}

#[test]
fn damage_is_an_error_or_other_numbers_and_never_a_panic() {
    let bytes = bytes_of(&small());
    let (_folder, path) = file_of(&bytes);
    let mut file = OpenOptions::new().write(true).open(&path).expect("opens");
    let mut put = |at: usize, byte: u8| {
        file.seek(SeekFrom::Start(at as u64)).and_then(|_| file.write_all(&[byte])).expect("written");
    };
    for (at, &byte) in bytes.iter().enumerate() {
        for flip in [0x01, 0x10, 0x80, 0xff] {
            put(at, byte ^ flip);
            let _ = read(&path);
        }
        put(at, byte);
    }
    assert_eq!(read(&path).expect("whole again"), small());
    for len in (0..bytes.len()).rev() {
        file.set_len(len as u64).expect("cut");
        assert!(read(&path).is_err(), "cut at {len}");
    }
}

#[test]
fn models_and_statistics_are_not_mistaken_for_each_other() {
    let (_folder, path) = file_of(&bytes_of(&small()));
    let error =
        crate::columnar::open_parquet(&path, crate::Access::Positioned).err().expect("no model").to_string();
    assert!(error.contains("other columns than a quantized model has"), "{error}");
    let model = super::bytes_of(crate::Format::Parquet, &[super::raw("a", &[2], aq_core::DType::F32)]);
    let (_folder, path) = file_of(&model);
    let error = StatisticsFile::open(&path).err().expect("no statistics").to_string();
    assert!(error.contains("other columns than a file of calibration statistics has"), "{error}");
}
