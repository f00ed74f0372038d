//! What crosses the boundary: numpy arrays in as slices, vectors out as arrays, core errors as exceptions.

use numpy::{Element, PyReadonlyArray1};
use pyo3::prelude::*;
use pyo3::types::{PyList, PyString};
use variegate_core::{Error, Ragged, RaggedBuf};

/// Turns a core error into `variegate.errors.InvalidInput`; a syntax error carries `line` and `column`.
pub fn raise(error: Error) -> PyErr {
    Python::attach(|py| {
        let made = py.import("variegate.errors").and_then(|errors| {
            let exception = errors.getattr("InvalidInput")?.call1((error.to_string(),))?;
            if let Some((line, column)) = error.position() {
                exception.setattr("line", line)?;
                exception.setattr("column", column)?;
            }
            Ok(exception)
        });
        made.map_or_else(|import_failed| import_failed, PyErr::from_value)
    })
}

/// `InvalidInput` with a message of the binding's own.
pub fn invalid(message: impl Into<String>) -> PyErr {
    raise(Error::invalid(message))
}

/// A one-dimensional array as a slice, without a copy; refuses strides.
pub fn slice<'a, T: Element>(name: &str, array: &'a PyReadonlyArray1<'_, T>) -> PyResult<&'a [T]> {
    array.as_slice().map_err(|_| invalid(format!("{name} must be C-contiguous: pass numpy.ascontiguousarray({name})")))
}

/// Values and offsets as a validated ragged view, without a copy.
pub fn ragged<'a, T: Element>(
    values: &'a PyReadonlyArray1<'_, T>,
    offsets: &'a PyReadonlyArray1<'_, i64>,
) -> PyResult<Ragged<'a, T>> {
    Ragged::new(slice("values", values)?, slice("offsets", offsets)?).map_err(raise)
}

/// Rows of token ids (a sequence of lists, tuples or integer arrays) as one ragged buffer.
///
/// An id outside 0..=u32::MAX, or not an integer, is an error that names its row and position.
pub fn token_rows(rows: &Bound<'_, PyAny>) -> PyResult<RaggedBuf<u32>> {
    let mut buf = RaggedBuf::default();
    for (r, row) in rows.try_iter()?.enumerate() {
        push_row(&mut buf.values, r, &row?)?;
        buf.end_row();
    }
    Ok(buf)
}

/// Appends the ids of one row; `r` is its number, for messages.
pub fn push_row(values: &mut Vec<u32>, r: usize, row: &Bound<'_, PyAny>) -> PyResult<()> {
    if let Ok(row) = row.cast::<PyList>() {
        values.reserve(row.len());
        for (i, id) in row.iter().enumerate() {
            values.push(token_id(&id, r, i)?);
        }
    } else if let Ok(array) = row.extract::<PyReadonlyArray1<'_, u32>>() {
        values.extend(array.as_array());
    } else if let Ok(array) = row.extract::<PyReadonlyArray1<'_, i64>>() {
        for (i, &id) in array.as_array().iter().enumerate() {
            values.push(u32::try_from(id).map_err(|_| out_of_range(r, i, &id.to_string()))?);
        }
    } else if row.is_instance_of::<PyString>() {
        return Err(invalid(format!("row {r} is a str, not token ids: use TextBatch, or encode it with a Tokenizer")));
    } else {
        let items = row.try_iter().map_err(|_| {
            let kind = row.get_type().name().map_or_else(|_| "?".into(), |name| name.to_string());
            invalid(format!("row {r} must be a sequence of token ids, not {kind}"))
        })?;
        for (i, id) in items.enumerate() {
            values.push(token_id(&id?, r, i)?);
        }
    }
    Ok(())
}

fn token_id(id: &Bound<'_, PyAny>, r: usize, i: usize) -> PyResult<u32> {
    id.extract::<u32>().map_err(|_| out_of_range(r, i, &id.repr().map_or_else(|_| "?".into(), |repr| repr.to_string())))
}

fn out_of_range(r: usize, i: usize, id: &str) -> PyErr {
    invalid(format!("a token id must be an integer in 0..=4294967295 (row {r}, position {i}: {id})"))
}
