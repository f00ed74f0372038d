//! Ops: a compiled pipeline, run over flat arrays.

use numpy::{IntoPyArray, PyArray1, PyReadonlyArray1};
use pyo3::prelude::*;
use pyo3::types::PyDict;
use variegate_core::Ragged;
use variegate_core::ops::{self, Call, Column, Domain, LineageOut, Neighbours, Spans, SpansOut, Stats, Texts, Tokens};

use crate::convert::{self, raise, slice};
use crate::tokenize::HfTokenizer;

/// Row, start, end and tag number of each span.
type SpanArrays<'py> =
    (PyReadonlyArray1<'py, i64>, PyReadonlyArray1<'py, i64>, PyReadonlyArray1<'py, i64>, PyReadonlyArray1<'py, i32>);

/// Name, values as bytes, and the bytes of one value for an inserted token.
type ColumnArray<'py> = (String, PyReadonlyArray1<'py, u8>, Vec<u8>);

/// An op, or a composition of ops, compiled from its JSON spec.
#[pyclass(frozen, module = "variegate._core")]
struct Pipeline {
    inner: ops::Pipeline,
}

#[pymethods]
impl Pipeline {
    #[new]
    fn new(spec: &str) -> PyResult<Self> {
        Ok(Pipeline { inner: ops::Pipeline::from_json(spec).map_err(raise)? })
    }

    /// `token` or `text`.
    #[getter]
    fn domain(&self) -> &'static str {
        match self.inner.domain() {
            Domain::Token => "token",
            Domain::Text => "text",
        }
    }

    /// The path of each op, which keys its draws.
    #[getter]
    fn paths(&self) -> Vec<&str> {
        self.inner.paths()
    }

    /// Whether some op writes the column `labels`.
    #[getter]
    fn labels(&self) -> bool {
        self.inner.labels()
    }

    /// Whether some op makes targets.
    #[getter]
    fn targets(&self) -> bool {
        self.inner.targets()
    }

    /// The columns that some op reads, and the bytes of one value.
    #[getter]
    fn reads(&self) -> Vec<(&str, usize)> {
        self.inner.reads()
    }

    /// The span tags that some op protects or reads, in the order of their numbers.
    #[getter]
    fn tags(&self) -> Vec<String> {
        self.inner.tags().to_vec()
    }

    /// Runs over a batch of tokens; the result lacks what is as it was.
    #[allow(clippy::too_many_arguments)]
    fn run_tokens<'py>(
        &self,
        py: Python<'py>,
        tokens: PyReadonlyArray1<'py, u32>,
        offsets: PyReadonlyArray1<'py, i64>,
        ids: PyReadonlyArray1<'py, u64>,
        columns: Vec<ColumnArray<'py>>,
        spans: Option<SpanArrays<'py>>,
        tokenizer: Option<Bound<'py, HfTokenizer>>,
        seed: u64,
        epoch: u32,
        variant: u64,
        return_source: bool,
    ) -> PyResult<Bound<'py, PyDict>> {
        let rows: Ragged<'_, u32> = convert::ragged(&tokens, &offsets)?;
        let mut batch = Tokens::new(rows, slice("ids", &ids)?).map_err(raise)?;
        for (name, bytes, fill) in &columns {
            let mut wide = [0; 8];
            wide.iter_mut().zip(fill).for_each(|(wide, &byte)| *wide = byte);
            let column = Column { name, bytes: slice(name, bytes)?, width: fill.len(), fill: wide };
            batch = batch.column(column).map_err(raise)?;
        }
        if let Some(arrays) = &spans {
            batch = batch.spans(borrow(arrays)?).map_err(raise)?;
        }
        if let Some(tokenizer) = &tokenizer {
            batch = batch.tokenizer(&tokenizer.get().0);
        }
        let call = Call { seed, epoch, variant, return_source };
        let out = py.detach(|| self.inner.run_tokens(&batch, call)).map_err(raise)?;

        let result = PyDict::new(py);
        result.set_item("tokens", out.tokens.into_pyarray(py))?;
        if let Some(offsets) = out.offsets {
            result.set_item("offsets", offsets.into_pyarray(py))?;
        }
        result.set_item("columns", wrap_columns(py, &columns, out.columns)?)?;
        if let (Some(source), Some(edited)) = (out.source, out.edited) {
            result.set_item("source", source.into_pyarray(py))?;
            result.set_item("edited", edited.into_pyarray(py))?;
        }
        if let Some(targets) = out.targets {
            let inner = PyDict::new(py);
            inner.set_item("tokens", targets.tokens.into_pyarray(py))?;
            inner.set_item("offsets", targets.offsets.into_pyarray(py))?;
            inner.set_item("columns", wrap_columns(py, &columns, targets.columns)?)?;
            if let (Some(source), Some(edited)) = (targets.source, targets.edited) {
                inner.set_item("source", source.into_pyarray(py))?;
                inner.set_item("edited", edited.into_pyarray(py))?;
            }
            result.set_item("targets", inner)?;
        }
        self.finish(py, &result, out.spans, out.lineage, &out.stats)?;
        Ok(result)
    }

    /// Runs over a batch of text; the result lacks what is as it was.
    #[allow(clippy::too_many_arguments)]
    fn run_texts<'py>(
        &self,
        py: Python<'py>,
        data: PyReadonlyArray1<'py, u8>,
        offsets: PyReadonlyArray1<'py, i64>,
        ids: PyReadonlyArray1<'py, u64>,
        spans: Option<SpanArrays<'py>>,
        seed: u64,
        epoch: u32,
        variant: u64,
        return_source: bool,
    ) -> PyResult<Bound<'py, PyDict>> {
        let rows: Ragged<'_, u8> = convert::ragged(&data, &offsets)?;
        let mut batch = Texts::new(rows, slice("ids", &ids)?).map_err(raise)?;
        if let Some(arrays) = &spans {
            batch = batch.spans(borrow(arrays)?).map_err(raise)?;
        }
        let call = Call { seed, epoch, variant, return_source };
        let out = py.detach(|| self.inner.run_texts(&batch, call)).map_err(raise)?;

        let result = PyDict::new(py);
        result.set_item("data", out.text.into_pyarray(py))?;
        result.set_item("offsets", out.offsets.into_pyarray(py))?;
        if let Some(edits) = out.edits {
            let (row, start) = (edits.row.into_pyarray(py), edits.start.into_pyarray(py));
            result.set_item("edits", (row, start, edits.end.into_pyarray(py), edits.length.into_pyarray(py)))?;
        }
        self.finish(py, &result, out.spans, out.lineage, &out.stats)?;
        Ok(result)
    }
}

impl Pipeline {
    /// Adds what tokens and text share to a result.
    fn finish(
        &self,
        py: Python<'_>,
        result: &Bound<'_, PyDict>,
        spans: Option<SpansOut>,
        lineage: Option<LineageOut>,
        stats: &[Stats],
    ) -> PyResult<()> {
        if let Some(spans) = spans {
            let (row, start) = (spans.row.into_pyarray(py), spans.start.into_pyarray(py));
            result.set_item("spans", (row, start, spans.end.into_pyarray(py), spans.origin.into_pyarray(py)))?;
        }
        if let Some(lineage) = lineage {
            let (ids, row) = (lineage.ids.into_pyarray(py), lineage.row.into_pyarray(py));
            let (parent, variant) = (lineage.parent.into_pyarray(py), lineage.variant.into_pyarray(py));
            result.set_item("lineage", (ids, row, parent, variant))?;
        }
        let all = PyDict::new(py);
        for (path, stats) in self.inner.paths().into_iter().zip(stats) {
            let one = PyDict::new(py);
            for (name, value) in stats.named() {
                one.set_item(name, value)?;
            }
            all.set_item(path, one)?;
        }
        result.set_item("stats", all)
    }
}

fn borrow<'a>((row, start, end, tag): &'a SpanArrays<'_>) -> PyResult<Spans<'a>> {
    Ok(Spans {
        row: slice("spans.row", row)?,
        start: slice("spans.start", start)?,
        end: slice("spans.end", end)?,
        tag: slice("spans.tag", tag)?,
    })
}

/// Columns by name, as bytes; the one that the input does not have is `labels`.
fn wrap_columns<'py>(
    py: Python<'py>,
    names: &[ColumnArray<'_>],
    columns: Vec<(usize, Vec<u8>)>,
) -> PyResult<Bound<'py, PyDict>> {
    let result = PyDict::new(py);
    for (index, bytes) in columns {
        let name = names.get(index).map_or("labels", |(name, ..)| name);
        result.set_item(name, bytes.into_pyarray(py))?;
    }
    Ok(result)
}

/// Per token id: how often it occurs, how many different tokens stand before it, and how many after it.
#[pyfunction]
#[allow(clippy::type_complexity)]
fn neighbours<'py>(
    py: Python<'py>,
    tokens: PyReadonlyArray1<'py, u32>,
    offsets: PyReadonlyArray1<'py, i64>,
    vocab_size: usize,
) -> PyResult<(Bound<'py, PyArray1<u64>>, Bound<'py, PyArray1<u64>>, Bound<'py, PyArray1<u64>>)> {
    let rows: Ragged<'_, u32> = convert::ragged(&tokens, &offsets)?;
    let Neighbours { count, left, right } = py.detach(|| Neighbours::of(rows, vocab_size)).map_err(raise)?;
    Ok((count.into_pyarray(py), left.into_pyarray(py), right.into_pyarray(py)))
}

/// How many rules of rewriting a text holds.
#[pyfunction]
fn count_rules(py: Python<'_>, text: &str) -> PyResult<usize> {
    py.detach(|| ops::count_rules(text)).map_err(raise)
}

pub fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_function(wrap_pyfunction!(count_rules, module)?)?;
    module.add_function(wrap_pyfunction!(neighbours, module)?)?;
    module.add_class::<Pipeline>()
}
