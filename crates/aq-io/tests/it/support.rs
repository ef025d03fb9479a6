//! Small files and streams that the tests share.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};

use aq_core::{DType, EncodedRows, EncodedSlab, Encoding, StoredTensor, TensorInfo, slab_count, slab_range};
use aq_io::{Access, SlabStream, Source};
use serde_json::{Value, json};
use tempfile::TempDir;

/// A folder that goes away with the test.
pub(crate) fn folder() -> TempDir {
    tempfile::tempdir().expect("a temporary folder")
}

/// Writes a file and returns its path.
pub(crate) fn put(folder: &Path, name: &str, bytes: impl AsRef<[u8]>) -> PathBuf {
    let path = folder.join(name);
    std::fs::create_dir_all(path.parent().expect("a parent")).expect("writable");
    std::fs::write(&path, bytes).expect("writable");
    path
}

/// A safetensors file from a header as it is and data.
pub(crate) fn raw_file(header: impl AsRef<[u8]>, data: &[u8]) -> Vec<u8> {
    let header = header.as_ref();
    [&(header.len() as u64).to_le_bytes(), header, data].concat()
}

/// A good safetensors file of F32 tensors, counted up from 0.
pub(crate) fn f32_file(tensors: &[(&str, &[u64])]) -> Vec<u8> {
    let (mut header, mut data) = (serde_json::Map::new(), Vec::new());
    for (name, shape) in tensors {
        let begin = data.len();
        for i in 0..shape.iter().product::<u64>() {
            data.extend_from_slice(&(i as f32).to_le_bytes());
        }
        header.insert(name.to_string(), entry("F32", shape, begin, data.len()));
    }
    raw_file(Value::Object(header).to_string(), &data)
}

/// One entry of a header.
pub(crate) fn entry(dtype: &str, shape: &[u64], begin: usize, end: usize) -> Value {
    json!({"dtype": dtype, "shape": shape, "data_offsets": [begin, end]})
}

/// Opens a model that must be refused and returns the message.
#[track_caller]
pub(crate) fn refused(path: &Path) -> String {
    let messages = [Access::Positioned, Access::Mapped].map(|access| match aq_io::open(path, access) {
        Ok(source) => panic!("accepted {} with {} tensors", path.display(), source.tensors().len()),
        Err(error) => error.to_string(),
    });
    let [message, mapped] = messages;
    assert_eq!(message, mapped, "both ways of access say the same");
    assert!(!message.contains(char::is_control) && message.len() < 4096, "{message}");
    message
}

/// Opens a model that must be accepted.
#[track_caller]
pub(crate) fn opened(path: &Path) -> Box<dyn Source> {
    aq_io::open(path, Access::Positioned).unwrap_or_else(|e| panic!("refused: {e}"))
}

/// All bytes of every tensor with its name.
pub(crate) fn contents(source: &dyn Source) -> Vec<(StoredTensor, Vec<u8>)> {
    let read = |(index, tensor): (usize, &StoredTensor)| {
        let mut bytes = vec![0; source.stored_bytes(index) as usize];
        source.read_bytes(index, 0, &mut bytes).expect("readable");
        (tensor.clone(), bytes)
    };
    source.tensors().iter().enumerate().map(read).collect()
}

/// A tensor that is kept as it is.
pub(crate) fn stored(name: &str, shape: &[u64], dtype: DType) -> StoredTensor {
    let info = TensorInfo::new(name, shape.to_vec(), dtype).expect("a small shape");
    StoredTensor::new(info, Encoding::Raw)
}

/// Slabs of raw tensors whose byte `i` is `i * 7 + index`.
pub(crate) struct Feed(pub(crate) VecDeque<EncodedSlab>);

impl Feed {
    /// Every slab of `tensors` from tensor `first` on.
    pub(crate) fn new(tensors: &[StoredTensor], first: usize) -> Self {
        let mut slabs = VecDeque::new();
        for (tensor, t) in tensors.iter().enumerate().skip(first) {
            let size = t.info.dtype().size() as u64;
            for slab in 0..slab_count(&t.info, &t.encoding) {
                let (row_start, row_count) = slab_range(&t.info, &t.encoding, slab);
                let codes =
                    (row_start * size..(row_start + row_count) * size).map(|i| byte(tensor, i)).collect();
                let rows = EncodedRows { row_count, codes, ..EncodedRows::default() };
                slabs.push_back(EncodedSlab { tensor, row_start, rows });
            }
        }
        Self(slabs)
    }
}

/// Byte `i` of tensor `index` of a [`Feed`].
pub(crate) fn byte(index: usize, i: u64) -> u8 {
    (i.wrapping_mul(7) as u8).wrapping_add(index as u8)
}

impl SlabStream for Feed {
    fn next_slab(&mut self) -> Option<EncodedSlab> {
        self.0.pop_front()
    }

    fn recycle(&mut self, _: EncodedRows) {}
}

/// Names of all entries of a folder, in order.
pub(crate) fn listing(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).expect("readable");
    let mut names: Vec<String> =
        entries.map(|e| e.expect("readable").file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}
