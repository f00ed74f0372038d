//! Identities of records, and the fields of JSON lines that they are made from.

use numpy::{IntoPyArray, PyArray1, PyReadonlyArray1};
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict, PyList};
use variegate_core::identity::{self, Field};
use variegate_core::jsonl::{self, Cells, Column, Want};

use crate::convert::{invalid, ragged, raise, slice};

#[derive(FromPyObject)]
enum FieldArg<'py> {
    Rows(PyReadonlyArray1<'py, u8>, PyReadonlyArray1<'py, i64>),
    Same(Bound<'py, PyBytes>),
}

#[pyfunction]
fn identity_digest<'py>(
    py: Python<'py>,
    fields: Vec<FieldArg<'py>>,
    rows: usize,
    width: usize,
) -> PyResult<Bound<'py, PyArray1<u8>>> {
    let mut views = Vec::with_capacity(fields.len());
    for field in &fields {
        views.push(match field {
            FieldArg::Rows(values, offsets) => Field::Rows(ragged(values, offsets)?),
            FieldArg::Same(bytes) => Field::Same(bytes.as_bytes()),
        });
    }
    let out = py.detach(|| identity::digest_rows(&views, rows, width)).map_err(raise)?;
    Ok(out.into_pyarray(py))
}

type RaggedBytes<'py> = (Bound<'py, PyArray1<u8>>, Bound<'py, PyArray1<i64>>);
type CellsArg<'py> = (PyReadonlyArray1<'py, u8>, PyReadonlyArray1<'py, i64>, Option<PyReadonlyArray1<'py, u8>>, bool);

#[pyfunction]
fn jsonl_objects<'py>(
    py: Python<'py>,
    names: Vec<String>,
    cells: Vec<CellsArg<'py>>,
    rows: usize,
    newline: bool,
) -> PyResult<RaggedBytes<'py>> {
    let mut columns = Vec::with_capacity(cells.len());
    for (values, offsets, present, quote) in &cells {
        let present = present.as_ref().map(|p| slice("present", p)).transpose()?;
        columns.push(Cells { values: ragged(values, offsets)?, present, quote: *quote });
    }
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let out = py.detach(|| jsonl::objects(&names, &columns, rows, newline)).map_err(raise)?;
    Ok((out.values.into_pyarray(py), out.offsets.into_pyarray(py)))
}

#[pyfunction]
fn jsonl_scan<'py>(py: Python<'py>, block: &[u8], columns: Vec<(String, String)>) -> PyResult<Bound<'py, PyDict>> {
    let mut wanted = Vec::with_capacity(columns.len());
    for (name, want) in &columns {
        let want = match want.as_str() {
            "text" => Want::Text,
            "key" => Want::Key,
            "any" => Want::Any,
            other => return Err(invalid(format!("a column must be 'text', 'key' or 'any', not '{other}'"))),
        };
        wanted.push(Column { name, want });
    }
    let scan = py.detach(|| jsonl::scan(block, &wanted));
    let fields = PyList::empty(py);
    for (field, present) in scan.fields.into_iter().zip(scan.present) {
        fields.append((field.values.into_pyarray(py), field.offsets.into_pyarray(py), present.into_pyarray(py)))?;
    }
    let problems = PyList::empty(py);
    for p in scan.problems {
        problems.append((p.line, p.start, p.end, p.reason, p.message))?;
    }
    let out = PyDict::new(py);
    out.set_item("lines", scan.lines.into_pyarray(py))?;
    out.set_item("fields", fields)?;
    out.set_item("problems", problems)?;
    out.set_item("total", scan.total)?;
    Ok(out)
}

#[pyfunction]
fn merkle_root<'py>(py: Python<'py>, hashes: PyReadonlyArray1<'py, u8>) -> PyResult<Bound<'py, PyBytes>> {
    let hashes = slice("hashes", &hashes)?;
    let root = py.detach(|| identity::merkle_root(hashes)).map_err(raise)?;
    Ok(PyBytes::new(py, &root))
}

pub fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_function(wrap_pyfunction!(identity_digest, module)?)?;
    module.add_function(wrap_pyfunction!(jsonl_objects, module)?)?;
    module.add_function(wrap_pyfunction!(jsonl_scan, module)?)?;
    module.add_function(wrap_pyfunction!(merkle_root, module)?)
}
