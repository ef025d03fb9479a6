//! Errors of the engine as Python exceptions, by the class of their exit code.

use aq_engine::EngineError;
use pyo3::PyErr;

mod python {
    pyo3::import_exception!(arrow_quant._errors, AqError);
    pyo3::import_exception!(arrow_quant._errors, InputError);
    pyo3::import_exception!(arrow_quant._errors, ConfigError);
    pyo3::import_exception!(arrow_quant._errors, QualityError);
    pyo3::import_exception!(arrow_quant._errors, ResourceError);
}

/// The exception that stands for `error`.
pub(crate) fn raised(error: EngineError) -> PyErr {
    let text = error.to_string();
    match (&error, error.exit_code()) {
        (EngineError::Usage(_) | EngineError::Config(_), _) => python::ConfigError::new_err(text),
        (_, 3 | 4) => python::InputError::new_err(text),
        (_, 5) => python::QualityError::new_err(text),
        (_, 6) => python::ResourceError::new_err(text),
        (_, 130) => pyo3::exceptions::PyKeyboardInterrupt::new_err(text),
        _ => python::AqError::new_err(text),
    }
}

/// A value that no option or array may have.
pub(crate) fn refused(text: impl Into<String>) -> PyErr {
    python::ConfigError::new_err(text.into())
}
