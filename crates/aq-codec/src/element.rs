//! Elements of kept tensors as `f32`, and back.

use aq_core::DType;
use aq_kernels::float16::{widen_bf16, widen_f16};
use half::{bf16, f16};

use crate::{CodecError, float8};

/// Elements converted at a time through a buffer on the stack.
const RUN: usize = 512;

/// Reads little-endian elements of type `dtype` as numbers. The bytes need no alignment.
///
/// `F64` and the wide integers are rounded to the nearest `f32` (ties to even; a huge `F64` becomes infinite), `BOOL` is
/// 0 or 1, NaN stays NaN, every other value is exact.
///
/// # Errors
/// [`CodecError::PartLength`] when `bytes` is not whole elements, [`CodecError::OutputLength`] when `out` does not hold
/// one value an element, [`CodecError::ElementType`] for complex numbers.
///
/// # Examples
/// ```
/// use aq_codec::bytes_to_f32;
/// use aq_core::DType;
/// let mut out = [0.0; 2];
/// bytes_to_f32(DType::I16, &[1, 0, 0xff, 0xff], &mut out)?;
/// assert_eq!(out, [1.0, -1.0]);
/// bytes_to_f32(DType::F8E4M3, &[0x38, 0x7e], &mut out)?;
/// assert_eq!(out, [1.0, 448.0]);
/// # Ok::<(), aq_codec::CodecError>(())
/// ```
pub fn bytes_to_f32(dtype: DType, bytes: &[u8], out: &mut [f32]) -> Result<(), CodecError> {
    check_lengths(dtype, bytes, out.len())?;
    match dtype {
        DType::F32 => numbers(bytes, out, f32::from_le_bytes),
        DType::F64 => numbers(bytes, out, |b| f64::from_le_bytes(b) as f32),
        DType::F16 => halves(bytes, out, f16::from_le_bytes, widen_f16),
        DType::BF16 => halves(bytes, out, bf16::from_le_bytes, widen_bf16),
        DType::F8E4M3 => numbers(bytes, out, |[b]: [u8; 1]| float8::e4m3(b)),
        DType::F8E5M2 => numbers(bytes, out, |[b]: [u8; 1]| float8::e5m2(b)),
        DType::F8E8M0 => numbers(bytes, out, |[b]: [u8; 1]| float8::e8m0(b)),
        DType::I64 => numbers(bytes, out, |b| i64::from_le_bytes(b) as f32),
        DType::U64 => numbers(bytes, out, |b| u64::from_le_bytes(b) as f32),
        DType::I32 => numbers(bytes, out, |b| i32::from_le_bytes(b) as f32),
        DType::U32 => numbers(bytes, out, |b| u32::from_le_bytes(b) as f32),
        DType::I16 => numbers(bytes, out, |b| f32::from(i16::from_le_bytes(b))),
        DType::U16 => numbers(bytes, out, |b| f32::from(u16::from_le_bytes(b))),
        DType::I8 => numbers(bytes, out, |b| f32::from(i8::from_le_bytes(b))),
        DType::U8 => numbers(bytes, out, |[b]: [u8; 1]| f32::from(b)),
        DType::Bool => numbers(bytes, out, |[b]: [u8; 1]| f32::from(u8::from(b != 0))),
        DType::C64 => return Err(CodecError::ElementType(dtype)),
    }
    Ok(())
}

/// Writes `values` as little-endian elements of type `dtype`: `F32`, `F16` or `BF16`.
///
/// The narrow types round to nearest, ties to even; what is too large for `F16` becomes infinite.
///
/// # Errors
/// [`CodecError::ElementType`] for another type, [`CodecError::PartLength`] when `out` does not hold one element a value.
///
/// # Examples
/// ```
/// use aq_codec::f32_to_bytes;
/// use aq_core::DType;
/// let mut bytes = [0; 4];
/// f32_to_bytes(DType::F16, &[1.0, -2.0], &mut bytes)?;
/// assert_eq!(bytes, [0x00, 0x3c, 0x00, 0xc0]);
/// # Ok::<(), aq_codec::CodecError>(())
/// ```
pub fn f32_to_bytes(dtype: DType, values: &[f32], out: &mut [u8]) -> Result<(), CodecError> {
    if !matches!(dtype, DType::F32 | DType::F16 | DType::BF16) {
        return Err(CodecError::ElementType(dtype));
    }
    let expected = (values.len() as u64).saturating_mul(dtype.size() as u64);
    if out.len() as u64 != expected {
        return Err(CodecError::PartLength { part: "elements", got: out.len() as u64, expected });
    }
    match dtype {
        DType::F16 => write(values, out, |v| f16::from_f32(v).to_le_bytes()),
        DType::BF16 => write(values, out, |v| bf16::from_f32(v).to_le_bytes()),
        _ => write(values, out, f32::to_le_bytes),
    }
    Ok(())
}

fn check_lengths(dtype: DType, bytes: &[u8], values: usize) -> Result<(), CodecError> {
    let (size, got) = (dtype.size(), bytes.len());
    if !got.is_multiple_of(size) {
        let expected = got.next_multiple_of(size) as u64;
        return Err(CodecError::PartLength { part: "elements", got: got as u64, expected });
    }
    if got / size != values {
        return Err(CodecError::OutputLength { got: values, expected: (got / size) as u64 });
    }
    Ok(())
}

fn numbers<const N: usize>(bytes: &[u8], out: &mut [f32], number: impl Fn([u8; N]) -> f32) {
    for (&element, value) in bytes.as_chunks().0.iter().zip(out) {
        *value = number(element);
    }
}

fn halves<T: Copy + Default>(
    bytes: &[u8],
    out: &mut [f32],
    element: impl Fn([u8; 2]) -> T,
    widen: impl Fn(&[T], &mut [f32]),
) {
    let mut run = [T::default(); RUN];
    for (bytes, out) in bytes.as_chunks().0.chunks(RUN).zip(out.chunks_mut(RUN)) {
        for (&bytes, value) in bytes.iter().zip(&mut run) {
            *value = element(bytes);
        }
        widen(&run[..out.len()], out);
    }
}

fn write<const N: usize>(values: &[f32], out: &mut [u8], bytes: impl Fn(f32) -> [u8; N]) {
    for (&value, element) in values.iter().zip(out.as_chunks_mut().0) {
        *element = bytes(value);
    }
}
