//! `variegate._core`: convert, detach, call, wrap. No algorithm lives here.

use pyo3::prelude::*;
use variegate_core::room::Recycling;

mod batch;
mod convert;
mod dedup;
mod identity;
mod loader;
mod metrics;
mod ops;
mod rng;
mod template;
mod tokenize;

/// Results are dropped from Python, batch after batch; the next ones take their memory.
#[global_allocator]
static ROOM: Recycling = Recycling::new();

#[pymodule]
fn _core(module: &Bound<'_, PyModule>) -> PyResult<()> {
    variegate_core::simd::check_environment().map_err(convert::raise)?;
    module.add("__version__", env!("CARGO_PKG_VERSION"))?;
    batch::register(module)?;
    dedup::register(module)?;
    identity::register(module)?;
    loader::register(module)?;
    metrics::register(module)?;
    ops::register(module)?;
    rng::register(module)?;
    template::register(module)?;
    tokenize::register(module)
}
