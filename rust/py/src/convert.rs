//! What crosses the boundary: numpy arrays in as slices, vectors out as arrays, core errors as exceptions.

use numpy::{Element, PyReadonlyArray1};
use pyo3::prelude::*;
use variegate_core::{Error, Ragged};

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
