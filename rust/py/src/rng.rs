//! Random words as they are, so that an installation can be checked against published answers.

use pyo3::prelude::*;
use variegate_core::{rng, simd};

/// One Philox4x32-10 block.
#[pyfunction]
fn philox(counter: [u32; 4], key: [u32; 2]) -> [u32; 4] {
    rng::philox(counter, key)
}

/// The first `n` words of a lane, drawn with the instruction set in use.
#[pyfunction]
fn stream_words(py: Python<'_>, key: u64, epoch: u32, id: u64, lane: u32, n: usize) -> PyResult<Vec<u32>> {
    if lane >= 16 || n > 1 << 30 {
        return Err(crate::convert::invalid(format!("a stream has lanes 0..16 of 2^30 words: lane {lane}, {n} words")));
    }
    Ok(py.detach(|| {
        let mut words = vec![0; n];
        rng::Stream::new(key, epoch, id).fill(simd::level(), lane, &mut words);
        words
    }))
}

pub fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_function(wrap_pyfunction!(philox, module)?)?;
    module.add_function(wrap_pyfunction!(stream_words, module)?)
}
