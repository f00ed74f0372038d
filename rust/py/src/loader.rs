//! What loaders need: dict rows into flat arrays, keys into identities, ragged rows into int64 matrices.

use numpy::{
    IntoPyArray, PyArray1, PyArrayDescrMethods, PyReadonlyArray1, PyReadwriteArray2, PyUntypedArray,
    PyUntypedArrayMethods,
};
use pyo3::exceptions::PyKeyError;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyList, PyString};
use variegate_core::pack::Side;
use variegate_core::{Ragged, RaggedBuf, collate, identity};

use crate::convert::{self, invalid, slice};

/// Flat tokens and offsets of `row[field]` over a sequence of mappings; see `convert::push_row`.
///
/// Lists and integer arrays or tensors are taken; whatever else iterates is read item by item.
#[pyfunction]
#[allow(clippy::type_complexity)]
fn gather_tokens<'py>(
    py: Python<'py>,
    rows: &Bound<'py, PyAny>,
    field: &Bound<'py, PyString>,
) -> PyResult<(Bound<'py, PyArray1<u32>>, Bound<'py, PyArray1<i64>>)> {
    let mut buf = RaggedBuf::default();
    for (r, row) in rows.try_iter()?.enumerate() {
        let value = get(&row?, field, r)?
            .ok_or_else(|| invalid(format!("row {r} has no '{field}': every row must be a dict that has it")))?;
        convert::push_row(&mut buf.values, r, &flat(value)?)?;
        buf.end_row();
    }
    Ok((buf.values.into_pyarray(py), buf.offsets.into_pyarray(py)))
}

/// Identities from `row[field]` over a sequence of mappings; see [`key_ids`].
#[pyfunction]
fn gather_ids<'py>(
    py: Python<'py>,
    rows: &Bound<'py, PyAny>,
    field: &Bound<'py, PyString>,
) -> PyResult<Bound<'py, PyArray1<u64>>> {
    let mut ids = Vec::with_capacity(rows.len()?);
    for (r, row) in rows.try_iter()?.enumerate() {
        let key = get(&row?, field, r)?.ok_or_else(|| {
            invalid(format!(
                "row {r} has no '{field}', which keys its randomness: give every row an int or str key, or pass \
                 ids='content' or ids='position'"
            ))
        })?;
        ids.push(key_id(&key, field, r)?);
    }
    Ok(ids.into_pyarray(py))
}

/// One identity per key: an int in 0..2^64 is its own, a str is hashed.
#[pyfunction]
fn key_ids<'py>(
    py: Python<'py>,
    keys: &Bound<'py, PyAny>,
    field: &Bound<'py, PyString>,
) -> PyResult<Bound<'py, PyArray1<u64>>> {
    let mut ids = Vec::new();
    for (r, key) in keys.try_iter()?.enumerate() {
        ids.push(key_id(&key?, field, r)?);
    }
    Ok(ids.into_pyarray(py))
}

/// Writes ragged `values` (uint32 or int32) into an int64 matrix `[rows, width]`, padded with `pad`.
#[pyfunction]
fn pad_into<'py>(
    py: Python<'py>,
    values: &Bound<'py, PyAny>,
    offsets: PyReadonlyArray1<'py, i64>,
    out: PyReadwriteArray2<'py, i64>,
    left: bool,
    pad: i64,
) -> PyResult<()> {
    if let Ok(values) = values.extract::<PyReadonlyArray1<'_, u32>>() {
        fill(py, convert::ragged(&values, &offsets)?, out, |rows, out| collate::pad_into(rows, side(left), pad, out))
    } else if let Ok(values) = values.extract::<PyReadonlyArray1<'_, i32>>() {
        fill(py, convert::ragged(&values, &offsets)?, out, |rows, out| collate::pad_into(rows, side(left), pad, out))
    } else {
        Err(invalid("values must be a one-dimensional uint32 or int32 array"))
    }
}

/// Writes 1 on the cells of an int64 matrix that `pad_into` gives a value, and 0 on the others.
#[pyfunction]
fn mask_into<'py>(
    py: Python<'py>,
    offsets: PyReadonlyArray1<'py, i64>,
    out: PyReadwriteArray2<'py, i64>,
    left: bool,
) -> PyResult<()> {
    let ends = slice("offsets", &offsets)?;
    let nothing = vec![(); ends.last().map_or(0, |&n| n.max(0) as usize)];
    let rows = Ragged::new(&nothing, ends).map_err(convert::raise)?;
    fill(py, rows, out, |rows, out| collate::mask_into(rows, side(left), out))
}

/// Positions in the order that `seed` and `epoch` shuffle the records into.
#[pyfunction]
fn shuffled<'py>(
    py: Python<'py>,
    ids: PyReadonlyArray1<'py, u64>,
    seed: u64,
    epoch: u32,
) -> PyResult<Bound<'py, PyArray1<i64>>> {
    let ids = slice("ids", &ids)?;
    Ok(py.detach(|| collate::shuffled(ids, seed, epoch)).into_pyarray(py))
}

fn side(left: bool) -> Side {
    if left { Side::Left } else { Side::Right }
}

fn fill<T: Sync>(
    py: Python<'_>,
    rows: Ragged<'_, T>,
    mut out: PyReadwriteArray2<'_, i64>,
    write: impl Fn(Ragged<'_, T>, &mut [i64]) + Send + Sync,
) -> PyResult<()> {
    let [lines, width] = [out.shape()[0], out.shape()[1]];
    let longest = rows.iter().map(<[T]>::len).max().unwrap_or(0);
    if lines != rows.rows() || longest > width {
        return Err(invalid(format!(
            "out must hold {} rows of at least {longest} cells (it is {lines} x {width})",
            rows.rows()
        )));
    }
    let out = out.as_slice_mut().map_err(|_| invalid("out must be C-contiguous"))?;
    py.detach(|| write(rows, out));
    Ok(())
}

/// `row[field]`, or nothing where the row lacks it.
fn get<'py>(row: &Bound<'py, PyAny>, field: &Bound<'py, PyString>, r: usize) -> PyResult<Option<Bound<'py, PyAny>>> {
    if let Ok(row) = row.cast::<PyDict>() {
        return row.get_item(field);
    }
    if row.is_instance_of::<PyList>() || row.is_instance_of::<PyString>() || !row.hasattr(intern!(row.py(), "keys"))? {
        return Err(invalid(format!("row {r} must be a dict, not {}", row.get_type().name()?)));
    }
    match row.get_item(field) {
        Ok(value) => Ok(Some(value)),
        Err(error) if error.is_instance_of::<PyKeyError>(row.py()) => Ok(None),
        Err(error) => Err(error),
    }
}

/// A tensor as an array, and an integer array of another width as int64, so that `push_row` reads it at once.
fn flat(value: Bound<'_, PyAny>) -> PyResult<Bound<'_, PyAny>> {
    if value.is_instance_of::<PyList>() {
        return Ok(value);
    }
    let value = match value.getattr_opt(intern!(value.py(), "numpy"))? {
        Some(numpy) => numpy.call0()?,
        None => value,
    };
    let narrow = value.cast::<PyUntypedArray>().is_ok_and(|array| {
        let dtype = array.dtype();
        matches!(dtype.kind(), b'i' | b'u') && (dtype.itemsize() < 8 && dtype.kind() == b'i' || dtype.itemsize() < 4)
    });
    if narrow { value.call_method1(intern!(value.py(), "astype"), ("int64",)) } else { Ok(value) }
}

fn key_id(key: &Bound<'_, PyAny>, field: &Bound<'_, PyString>, r: usize) -> PyResult<u64> {
    if let Ok(key) = key.cast::<PyString>() {
        let text = key.to_cow().map_err(|_| {
            invalid(format!("'{field}' must be valid Unicode (row {r} has a lone surrogate): use another key"))
        })?;
        return Ok(identity::hash64([b"".as_slice(), text.as_bytes()]));
    }
    key.extract::<u64>().map_err(|_| {
        let shown = key.repr().map_or_else(|_| "?".into(), |repr| repr.to_string());
        let whole = key.hasattr(intern!(key.py(), "__index__")).unwrap_or(false);
        let rule = if whole { "lie in 0..18446744073709551615" } else { "be an int or a str" };
        invalid(format!("'{field}' must {rule} (row {r}: {shown})"))
    })
}

pub fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_function(wrap_pyfunction!(gather_ids, module)?)?;
    module.add_function(wrap_pyfunction!(gather_tokens, module)?)?;
    module.add_function(wrap_pyfunction!(key_ids, module)?)?;
    module.add_function(wrap_pyfunction!(mask_into, module)?)?;
    module.add_function(wrap_pyfunction!(pad_into, module)?)?;
    module.add_function(wrap_pyfunction!(shuffled, module)?)
}
