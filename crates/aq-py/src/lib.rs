//! The native half of the Python package `arrow_quant`.
//!
//! It turns Python values into those of [`aq_engine`] and back, and holds no logic of its own but the products in `product.rs`, which run
//! quantized layers. The package under `python/arrow_quant` is what users see; names here may change with it.
#![deny(unsafe_code)]

mod arrow;
mod errors;
mod job;
mod mapped;
mod product;
mod search;
mod source;
mod statistics;

/// `arrow_quant._native`.
#[pyo3::pymodule]
mod _native {
    /// The version of the package.
    #[expect(non_upper_case_globals, reason = "what Python calls it")]
    #[pymodule_export]
    const __version__: &str = env!("CARGO_PKG_VERSION");
    #[pymodule_export]
    use crate::job::{compare, convert, option_names, plan, quantize};
    #[pymodule_export]
    use crate::product::{decode_rows, matmul_f32, matmul_i8};
    #[pymodule_export]
    use crate::search::search;
    #[pymodule_export]
    use crate::source::{Source, cosine_similarity, simd_level};
    #[pymodule_export]
    use crate::statistics::{StatisticsWriter, hessian_block};
}
