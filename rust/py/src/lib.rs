//! `variegate._core`: convert, detach, call, wrap. No algorithm lives here.

use pyo3::prelude::*;

mod batch;
mod convert;
mod dedup;
mod metrics;
mod ops;
mod template;
mod tokenize;

#[pymodule]
fn _core(module: &Bound<'_, PyModule>) -> PyResult<()> {
    variegate_core::simd::check_environment().map_err(convert::raise)?;
    module.add("__version__", env!("CARGO_PKG_VERSION"))?;
    module.add_function(wrap_pyfunction!(simd_level, module)?)?;
    batch::register(module)?;
    dedup::register(module)?;
    metrics::register(module)?;
    ops::register(module)?;
    template::register(module)?;
    tokenize::register(module)
}

/// The vector level in use: portable, avx2 or avx512.
#[pyfunction]
fn simd_level() -> &'static str {
    variegate_core::simd::level().name()
}
