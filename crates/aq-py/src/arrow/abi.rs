//! The three structs of the Arrow C data and stream interfaces, and what owns their memory.
//!
//! <https://arrow.apache.org/docs/format/CDataInterface.html>. A struct frees what it holds when its `release` is called; whoever takes
//! it out of a capsule sets `release` to null there, so that it is called once.
#![expect(unsafe_code, reason = "the interface is one of raw pointers")]

use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::ptr::{null, null_mut};
use std::sync::Arc;

use aq_engine::Source;

use crate::mapped::Place;

/// The errno of an input that cannot be read.
const EIO: c_int = 5;

/// A type, named.
#[repr(C)]
pub(crate) struct ArrowSchema {
    format: *const c_char,
    name: *const c_char,
    metadata: *const c_char,
    flags: i64,
    n_children: i64,
    children: *mut *mut ArrowSchema,
    dictionary: *mut ArrowSchema,
    release: Option<unsafe extern "C" fn(*mut ArrowSchema)>,
    private_data: *mut c_void,
}

/// What a schema points to.
struct SchemaData {
    name: CString,
    metadata: Vec<u8>,
    children: Vec<*mut ArrowSchema>,
}

impl ArrowSchema {
    /// A type without nulls. `metadata` is stored as the interface has it: counts and lengths in front, 32 bits each.
    pub(crate) fn new(
        format: &'static CStr,
        name: &str,
        children: Vec<Self>,
        metadata: &[(&str, &str)],
    ) -> Self {
        let mut bytes = Vec::new();
        let mut put = |n: usize, text: &str| {
            bytes.extend_from_slice(&(n as i32).to_ne_bytes());
            bytes.extend_from_slice(text.as_bytes());
        };
        put(metadata.len(), "");
        metadata.iter().flat_map(|(key, value)| [key, value]).for_each(|text| put(text.len(), text));
        let mut data = SchemaData {
            name: CString::new(name).unwrap_or_default(),
            metadata: bytes,
            children: children.into_iter().map(boxed).collect(),
        };
        Self {
            format: format.as_ptr(),
            name: data.name.as_ptr(),
            metadata: if metadata.is_empty() { null() } else { data.metadata.as_ptr().cast() },
            flags: 0,
            n_children: data.children.len() as i64,
            children: data.children.as_mut_ptr(),
            dictionary: null_mut(),
            release: Some(release_schema),
            private_data: boxed(data).cast(),
        }
    }
}

/// An array: buffers and children.
#[repr(C)]
pub(crate) struct ArrowArray {
    length: i64,
    null_count: i64,
    offset: i64,
    n_buffers: i64,
    n_children: i64,
    buffers: *mut *const c_void,
    children: *mut *mut ArrowArray,
    dictionary: *mut ArrowArray,
    release: Option<unsafe extern "C" fn(*mut ArrowArray)>,
    private_data: *mut c_void,
}

/// What an array points to.
struct ArrayData {
    _buffers: Vec<Buffer>,
    pointers: Vec<*const c_void>,
    children: Vec<*mut ArrowArray>,
}

impl ArrowArray {
    /// An array without nulls: `buffers` are those behind the bitmap of nulls, which is left out.
    pub(crate) fn new(length: usize, buffers: Vec<Buffer>, children: Vec<Self>) -> Self {
        let pointers = std::iter::once(null()).chain(buffers.iter().map(Buffer::start)).collect();
        let children = children.into_iter().map(boxed).collect();
        let mut data = ArrayData { _buffers: buffers, pointers, children };
        Self {
            length: length as i64,
            null_count: 0,
            offset: 0,
            n_buffers: data.pointers.len() as i64,
            n_children: data.children.len() as i64,
            buffers: data.pointers.as_mut_ptr(),
            children: data.children.as_mut_ptr(),
            dictionary: null_mut(),
            release: Some(release_array),
            private_data: boxed(data).cast(),
        }
    }

    /// What a stream gives when it has ended.
    fn end() -> Self {
        Self {
            length: 0,
            null_count: 0,
            offset: 0,
            n_buffers: 0,
            n_children: 0,
            buffers: null_mut(),
            children: null_mut(),
            dictionary: null_mut(),
            release: None,
            private_data: null_mut(),
        }
    }
}

/// Bytes that an array points to.
pub(crate) enum Buffer {
    /// Its own, beginning at a multiple of 8 bytes as numbers ask for.
    Owned(Vec<u64>),
    /// Those of a model, which never changes and is kept.
    Borrowed { place: Place, _model: Arc<dyn Source> },
}

impl Buffer {
    /// A copy of `bytes`.
    pub(crate) fn copy(bytes: &[u8]) -> Self {
        let word = |bytes: &[u8]| {
            let mut word = [0; 8];
            word[..bytes.len()].copy_from_slice(bytes);
            u64::from_ne_bytes(word)
        };
        Self::Owned(bytes.chunks(8).map(word).collect())
    }

    fn start(&self) -> *const c_void {
        match self {
            Self::Owned(words) => words.as_ptr().cast(),
            Self::Borrowed { place, .. } => place.start().cast(),
        }
    }
}

/// Record batches, made one by one.
pub(crate) trait Batches: Send {
    /// Their schema.
    fn schema(&self) -> ArrowSchema;

    /// The next one; none when there are no more.
    ///
    /// # Errors
    /// Why it cannot be made.
    fn next_batch(&mut self) -> Option<Result<ArrowArray, String>>;
}

/// A stream of record batches.
#[repr(C)]
pub(crate) struct ArrowArrayStream {
    get_schema: unsafe extern "C" fn(*mut Self, *mut ArrowSchema) -> c_int,
    get_next: unsafe extern "C" fn(*mut Self, *mut ArrowArray) -> c_int,
    get_last_error: unsafe extern "C" fn(*mut Self) -> *const c_char,
    release: Option<unsafe extern "C" fn(*mut Self)>,
    private_data: *mut c_void,
}

/// What a stream points to.
struct StreamData {
    batches: Box<dyn Batches>,
    error: CString,
}

impl ArrowArrayStream {
    /// A stream of what `batches` makes.
    pub(crate) fn new(batches: Box<dyn Batches>) -> Self {
        Self {
            get_schema,
            get_next,
            get_last_error,
            release: Some(release_stream),
            private_data: boxed(StreamData { batches, error: CString::default() }).cast(),
        }
    }
}

fn boxed<T>(value: T) -> *mut T {
    Box::into_raw(Box::new(value))
}

macro_rules! released {
    ($($kind:ident),*) => {$(
        impl Drop for $kind {
            fn drop(&mut self) {
                if let Some(release) = self.release {
                    // SAFETY: it is not released yet, and `release` is the function that it was made with.
                    unsafe { release(self) }
                }
            }
        }

        // SAFETY: what it points to is its own or shared by `Arc`s of what is `Send` and `Sync`; nothing of it is bound to a thread.
        unsafe impl Send for $kind {}
    )*};
}
released!(ArrowSchema, ArrowArray, ArrowArrayStream);

unsafe extern "C" fn release_schema(schema: *mut ArrowSchema) {
    // SAFETY: callers hand over a schema that `ArrowSchema::new` made and that is not released yet: its data and its children are boxes.
    // Whoever moved a child out has set its `release` to null.
    unsafe {
        let data = Box::from_raw((*schema).private_data.cast::<SchemaData>());
        data.children.iter().for_each(|&child| drop(Box::from_raw(child)));
        (*schema).release = None;
    }
}

unsafe extern "C" fn release_array(array: *mut ArrowArray) {
    // SAFETY: as for schemas.
    unsafe {
        let data = Box::from_raw((*array).private_data.cast::<ArrayData>());
        data.children.iter().for_each(|&child| drop(Box::from_raw(child)));
        (*array).release = None;
    }
}

unsafe extern "C" fn release_stream(stream: *mut ArrowArrayStream) {
    // SAFETY: callers hand over a stream that `ArrowArrayStream::new` made and that is not released yet.
    unsafe {
        drop(Box::from_raw((*stream).private_data.cast::<StreamData>()));
        (*stream).release = None;
    }
}

unsafe extern "C" fn get_schema(stream: *mut ArrowArrayStream, out: *mut ArrowSchema) -> c_int {
    // SAFETY: callers hand over a stream that is not released and room for a schema that holds none.
    unsafe { out.write((*(*stream).private_data.cast::<StreamData>()).batches.schema()) };
    0
}

unsafe extern "C" fn get_next(stream: *mut ArrowArrayStream, out: *mut ArrowArray) -> c_int {
    // SAFETY: callers hand over a stream that is not released, from one thread at a time, and room for an array that holds none.
    unsafe {
        let data = &mut *(*stream).private_data.cast::<StreamData>();
        match data.batches.next_batch() {
            Some(Err(error)) => {
                data.error = CString::new(error).unwrap_or_default();
                return EIO;
            }
            Some(Ok(batch)) => out.write(batch),
            None => out.write(ArrowArray::end()),
        }
    }
    0
}

unsafe extern "C" fn get_last_error(stream: *mut ArrowArrayStream) -> *const c_char {
    // SAFETY: callers hand over a stream that is not released.
    unsafe { (*(*stream).private_data.cast::<StreamData>()).error.as_ptr() }
}
