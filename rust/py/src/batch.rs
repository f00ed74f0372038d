//! Batches: building them from Python lists, checking them, laying them out; identities of rows; threads.

use numpy::{IntoPyArray, PyArray1, PyReadonlyArray1};
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyTuple};
use variegate_core::pack::{Packing, Side};
use variegate_core::{RaggedBuf, identity, pack, par, ragged, simd, text};

use crate::convert::{self, invalid, raise, slice};

/// Raises unless `offsets` start at 0, never decrease and end at `values`.
#[pyfunction]
fn check_offsets(offsets: PyReadonlyArray1<'_, i64>, values: usize) -> PyResult<()> {
    ragged::check_offsets(slice("offsets", &offsets)?, values).map_err(raise)
}

/// Flat tokens and offsets of a sequence of rows; see `convert::token_rows`.
#[pyfunction]
#[allow(clippy::type_complexity)]
fn token_rows<'py>(
    py: Python<'py>,
    rows: &Bound<'py, PyAny>,
) -> PyResult<(Bound<'py, PyArray1<u32>>, Bound<'py, PyArray1<i64>>)> {
    let RaggedBuf { values, offsets } = convert::token_rows(rows)?;
    Ok((values.into_pyarray(py), offsets.into_pyarray(py)))
}

/// UTF-8 bytes and offsets of a sequence of `str`.
#[pyfunction]
#[allow(clippy::type_complexity)]
fn text_rows<'py>(
    py: Python<'py>,
    texts: &Bound<'py, PyAny>,
) -> PyResult<(Bound<'py, PyArray1<u8>>, Bound<'py, PyArray1<i64>>)> {
    let mut buf = RaggedBuf::default();
    for (row, text) in texts.try_iter()?.enumerate() {
        let text = text?;
        let Ok(text) = text.cast::<pyo3::types::PyString>() else {
            return Err(invalid(format!("texts must be str (row {row} is {})", text.get_type().name()?)));
        };
        let utf8 = text.to_cow().map_err(|_| {
            invalid(format!(
                "texts must be valid Unicode (row {row} has a lone surrogate): encode it with errors='replace'"
            ))
        })?;
        buf.values.extend_from_slice(utf8.as_bytes());
        buf.end_row();
    }
    Ok((buf.values.into_pyarray(py), buf.offsets.into_pyarray(py)))
}

/// Raises unless every row is valid UTF-8 by itself.
#[pyfunction]
fn check_utf8(py: Python<'_>, data: PyReadonlyArray1<'_, u8>, offsets: PyReadonlyArray1<'_, i64>) -> PyResult<()> {
    let rows = convert::ragged(&data, &offsets)?;
    py.detach(|| text::check(rows)).map_err(raise)
}

/// The row identities of contracts: H64(source, content of the row).
///
/// `values` are the bytes of the flat buffer, `item` how many make one element.
#[pyfunction]
fn content_ids<'py>(
    py: Python<'py>,
    source: &str,
    values: PyReadonlyArray1<'py, u8>,
    item: usize,
    offsets: PyReadonlyArray1<'py, i64>,
) -> PyResult<Bound<'py, PyArray1<u64>>> {
    let (values, offsets) = (slice("values", &values)?, slice("offsets", &offsets)?);
    ragged::check_offsets(offsets, values.len() / item.max(1)).map_err(raise)?;
    let ids = py.detach(|| {
        par::map_rows(offsets, 1 << 16, |rows| {
            rows.map(|row| {
                let (start, end) = (offsets[row] as usize * item, offsets[row + 1] as usize * item);
                identity::hash64([source.as_bytes(), &values[start..end]])
            })
            .collect::<Vec<_>>()
        })
        .concat()
    });
    Ok(ids.into_pyarray(py))
}

/// The bytes of a `[rows, width]` matrix; `pad` is one item.
#[pyfunction]
fn pad_rows<'py>(
    py: Python<'py>,
    values: PyReadonlyArray1<'py, u8>,
    offsets: PyReadonlyArray1<'py, i64>,
    width: usize,
    left: bool,
    pad: &Bound<'py, PyBytes>,
) -> PyResult<Bound<'py, PyArray1<u8>>> {
    let (values, offsets, pad) = (slice("values", &values)?, slice("offsets", &offsets)?, pad.as_bytes());
    ragged::check_offsets(offsets, values.len() / pad.len().max(1)).map_err(raise)?;
    let side = if left { Side::Left } else { Side::Right };
    Ok(py.detach(|| pack::pad(values, offsets, width, side, pad)).into_pyarray(py))
}

/// Rows laid into blocks of one width, best fit in row order.
#[pyclass(frozen, module = "variegate._core")]
struct Packed {
    packing: Packing,
    values: usize,
}

#[pymethods]
impl Packed {
    #[new]
    fn new(py: Python<'_>, offsets: PyReadonlyArray1<'_, i64>, width: usize) -> PyResult<Self> {
        let offsets = slice("offsets", &offsets)?;
        let values = offsets.last().map_or(0, |&n| n as usize);
        ragged::check_offsets(offsets, values).map_err(raise)?;
        if width == 0 {
            return Err(invalid("length must be at least 1 (it is 0)"));
        }
        Ok(Packed { packing: py.detach(|| Packing::new(offsets, width)), values })
    }

    /// Number of blocks.
    #[getter]
    fn blocks(&self) -> usize {
        self.packing.blocks
    }

    /// The bytes of a `[blocks, width]` matrix of `values`; `pad` is one item.
    fn place<'py>(
        &self,
        py: Python<'py>,
        values: PyReadonlyArray1<'py, u8>,
        pad: &Bound<'py, PyBytes>,
    ) -> PyResult<Bound<'py, PyArray1<u8>>> {
        let (values, pad) = (slice("values", &values)?, pad.as_bytes());
        if values.len() != self.values * pad.len() {
            return Err(invalid(format!("values must hold {} items of {} bytes", self.values, pad.len())));
        }
        Ok(py.detach(|| self.packing.place(values, pad)).into_pyarray(py))
    }

    /// `[blocks, width]` segment numbers and position ids, flat.
    #[allow(clippy::type_complexity)]
    fn segments_and_positions<'py>(&self, py: Python<'py>) -> (Bound<'py, PyArray1<i32>>, Bound<'py, PyArray1<i32>>) {
        let (segments, positions) = py.detach(|| self.packing.segments_and_positions());
        (segments.into_pyarray(py), positions.into_pyarray(py))
    }
}

/// Sets the number of threads; 0 goes back to the default.
#[pyfunction]
fn set_num_threads(n: usize) {
    par::set_threads(n);
}

/// How many threads the next call may use.
#[pyfunction]
fn get_num_threads() -> usize {
    par::threads()
}

/// The names of the instruction sets: the one in use, and all that this processor has.
#[pyfunction]
fn simd_levels<'py>(py: Python<'py>) -> PyResult<(&'static str, Bound<'py, PyTuple>)> {
    Ok((simd::level().name(), PyTuple::new(py, simd::Level::available().map(simd::Level::name).collect::<Vec<_>>())?))
}

pub fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add("RANDOMNESS_SCHEME", variegate_core::rng::SCHEME_VERSION)?;
    module.add_class::<Packed>()?;
    module.add_function(wrap_pyfunction!(check_offsets, module)?)?;
    module.add_function(wrap_pyfunction!(check_utf8, module)?)?;
    module.add_function(wrap_pyfunction!(content_ids, module)?)?;
    module.add_function(wrap_pyfunction!(get_num_threads, module)?)?;
    module.add_function(wrap_pyfunction!(pad_rows, module)?)?;
    module.add_function(wrap_pyfunction!(set_num_threads, module)?)?;
    module.add_function(wrap_pyfunction!(simd_levels, module)?)?;
    module.add_function(wrap_pyfunction!(text_rows, module)?)?;
    module.add_function(wrap_pyfunction!(token_rows, module)?)
}
