//! Template grammars.

use numpy::{IntoPyArray, PyArray1, PyReadonlyArray1};
use pyo3::prelude::*;
use pyo3::types::PyBytes;
use variegate_core::template::{self, BigUint, Expanded, Law, Sampling, Type};

use crate::convert::{raise, slice};

/// Rows: data, offsets, (row, start, end, tag index) of the spans, (values, drawn) of each binding.
type Rows<'py> = (
    Bound<'py, PyArray1<u8>>,
    Bound<'py, PyArray1<i64>>,
    (Bound<'py, PyArray1<i64>>, Bound<'py, PyArray1<i64>>, Bound<'py, PyArray1<i64>>, Bound<'py, PyArray1<u32>>),
    Vec<(Bound<'py, PyArray1<i64>>, Bound<'py, PyArray1<bool>>)>,
);

/// Draws, ids, and the index of each derivation where 64 bits hold it.
type Draws<'py> = (Bound<'py, PyArray1<u64>>, Bound<'py, PyArray1<u64>>, Option<Bound<'py, PyArray1<u64>>>);

/// A compiled grammar; see `variegate.templates.Grammar`.
#[pyclass(frozen, module = "variegate._core")]
struct Grammar(template::Grammar);

#[pymethods]
impl Grammar {
    #[new]
    #[pyo3(signature = (text, start))]
    fn new(py: Python<'_>, text: &str, start: Option<&str>) -> PyResult<Self> {
        py.detach(|| template::Grammar::compile(text, start)).map(Grammar).map_err(raise)
    }

    #[getter]
    fn start(&self) -> &str {
        self.0.start()
    }

    #[getter]
    fn canonical(&self) -> &str {
        self.0.canonical()
    }

    #[getter]
    fn fingerprint(&self) -> String {
        self.0.fingerprint()
    }

    #[getter]
    fn weighted(&self) -> bool {
        self.0.weighted()
    }

    /// (name, whether it holds integers, whether every derivation draws it).
    #[getter]
    fn bindings(&self) -> Vec<(String, bool, bool)> {
        self.0.bindings().map(|binding| (binding.name, binding.of == Type::Int, binding.always)).collect()
    }

    #[getter]
    fn strings(&self) -> Vec<&str> {
        self.0.strings().iter().map(String::as_str).collect()
    }

    #[getter]
    fn tags(&self) -> Vec<&str> {
        self.0.tags().iter().map(String::as_str).collect()
    }

    /// The number of derivations as little-endian bytes.
    fn count<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
        PyBytes::new(py, &self.0.count().to_bytes_le())
    }

    /// The derivation of an index in little-endian bytes.
    fn nth<'py>(&self, py: Python<'py>, index: &[u8]) -> PyResult<Rows<'py>> {
        let index = BigUint::from_bytes_le(index);
        let expanded = py.detach(|| self.0.nth(&index)).map_err(raise)?;
        Ok(rows(py, expanded))
    }

    /// The text of the grammar with weights estimated from derivations: indices, and more in little-endian bytes.
    fn reweight(
        &self,
        py: Python<'_>,
        indices: PyReadonlyArray1<'_, u64>,
        more: Vec<Vec<u8>>,
        floor: f64,
    ) -> PyResult<String> {
        let indices = slice("indices", &indices)?;
        let all = indices.iter().map(|&index| BigUint::from(index));
        let all = all.chain(more.iter().map(|bytes| BigUint::from_bytes_le(bytes)));
        py.detach(|| self.0.reweight(all, floor)).map_err(raise)
    }

    #[pyo3(signature = (n, *, seed, name, uniform, replace, shard))]
    #[allow(clippy::too_many_arguments)]
    fn sample<'py>(
        &self,
        py: Python<'py>,
        n: usize,
        seed: u64,
        name: &str,
        uniform: bool,
        replace: bool,
        shard: (u64, u64),
    ) -> PyResult<(Rows<'py>, Draws<'py>)> {
        let law = if uniform { Law::Uniform } else { Law::Weights };
        let how = Sampling { seed, name, rows: n, shard, law, replace };
        let sample = py.detach(|| self.0.sample(&how)).map_err(raise)?;
        let draws = (
            sample.draws.into_pyarray(py),
            sample.ids.into_pyarray(py),
            sample.indices.map(|indices| indices.into_pyarray(py)),
        );
        Ok((rows(py, sample.expanded), draws))
    }
}

fn rows(py: Python<'_>, expanded: Expanded<u8>) -> Rows<'_> {
    let Expanded { rows, spans, columns } = expanded;
    let spans = (
        spans.row.into_pyarray(py),
        spans.start.into_pyarray(py),
        spans.end.into_pyarray(py),
        spans.tag.into_pyarray(py),
    );
    let columns = columns.into_iter().map(|c| (c.values.into_pyarray(py), c.drawn.into_pyarray(py))).collect();
    (rows.values.into_pyarray(py), rows.offsets.into_pyarray(py), spans, columns)
}

pub fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_class::<Grammar>()
}
