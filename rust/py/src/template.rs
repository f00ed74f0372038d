//! Template grammars.

use std::path::PathBuf;

use numpy::{Element, IntoPyArray, PyArray1, PyReadonlyArray1};
use pyo3::prelude::*;
use pyo3::types::PyBytes;
use variegate_core::template::{
    self, BigUint, Cells, Expanded, Files, Given, Law, Lexicon, Sample, Sampling, Step, Type, Wanted, What,
};

use crate::convert::{invalid, raise, slice};
use crate::tokenize::HfTokenizer;

/// Rows: data or tokens, offsets, (row, start, end, tag index) of the spans, (values, drawn) of each binding, strings that
/// rows made, the source row of each.
type Rows<'py, T = u8> = (
    Bound<'py, PyArray1<T>>,
    Bound<'py, PyArray1<i64>>,
    (Bound<'py, PyArray1<i64>>, Bound<'py, PyArray1<i64>>, Bound<'py, PyArray1<i64>>, Bound<'py, PyArray1<u32>>),
    Vec<(Bound<'py, PyArray1<i64>>, Bound<'py, PyArray1<bool>>)>,
    Vec<String>,
    Bound<'py, PyArray1<i64>>,
);

/// Draws, ids, and the index of each derivation where 64 bits hold it.
type Draws<'py> = (Bound<'py, PyArray1<u64>>, Bound<'py, PyArray1<u64>>, Option<Bound<'py, PyArray1<u64>>>);

/// A part of a derivation.
type Part = (usize, &'static str, String, Option<String>, Option<(usize, usize)>, usize, usize);

/// A compiled grammar; see `variegate.templates.Grammar`.
#[pyclass(frozen, module = "variegate._core")]
struct Grammar(template::Grammar);

#[pymethods]
impl Grammar {
    /// `lexicons` are (name, strings, weights), `values` are (name, type, decimal places, values) and `texts` (name,
    /// strings) the columns of the source rows; `root` is the folder and name of the grammar's file, and `files` stand for
    /// it where they are given.
    #[new]
    #[pyo3(signature = (text, start, lexicons, rows, values, texts, root, files))]
    #[allow(clippy::too_many_arguments)]
    fn new(
        py: Python<'_>,
        text: &str,
        start: Option<&str>,
        lexicons: Vec<(String, Vec<String>, Option<Vec<u64>>)>,
        rows: usize,
        values: Vec<(String, String, u8, PyReadonlyArray1<'_, i64>)>,
        texts: Vec<(String, Vec<String>)>,
        root: Option<(PathBuf, Option<String>)>,
        files: Option<Vec<(String, String)>>,
    ) -> PyResult<Self> {
        let lexicons = lexicons.into_iter().map(|(name, items, weights)| Lexicon { name, items, weights }).collect();
        let mut columns: Vec<(String, Cells)> =
            texts.into_iter().map(|(name, texts)| (name, Cells::Texts(texts))).collect();
        for (name, kind, places, values) in &values {
            let of = match (kind.as_str(), places) {
                ("int", _) | ("decimal", 0) => Type::Int,
                ("bool", _) => Type::Truth,
                ("date", _) => Type::Date,
                ("decimal", 1..=18) => Type::Decimal(*places),
                _ => return Err(invalid(format!("rows: column '{name}' is of no type that grammars know"))),
            };
            columns.push((name.clone(), Cells::Values(of, slice(name, values)?.to_vec())));
        }
        let files = match (files, root) {
            (Some(files), _) => Files::Known(files),
            (None, Some((root, name))) => Files::Disk { root, name },
            (None, None) => Files::None,
        };
        let given = Given { lexicons, rows, columns, files };
        py.detach(|| template::Grammar::compile_with(text, start, &given)).map(Grammar).map_err(raise)
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

    /// (name, type, decimal places, whether every derivation draws it, whether it indexes the strings that rows made).
    #[getter]
    fn bindings(&self) -> Vec<(String, &'static str, u8, bool, bool)> {
        let kind = |of| match of {
            Type::Int => ("int", 0),
            Type::Decimal(places) => ("decimal", places),
            Type::Text => ("str", 0),
            Type::Truth => ("bool", 0),
            Type::Date => ("date", 0),
        };
        let bindings = self.0.bindings().map(|binding| {
            let (kind, places) = kind(binding.of);
            (binding.name, kind, places, binding.always, binding.made)
        });
        bindings.collect()
    }

    /// Name and text of each file that the grammar includes.
    #[getter]
    fn included(&self) -> Vec<(&str, &str)> {
        self.0.included().collect()
    }

    /// Whether derivations use the source rows.
    #[getter]
    fn uses_rows(&self) -> bool {
        self.0.rows().is_some()
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

    /// The lowest index of a derivation with this text, in little-endian bytes; `wanted` has for each binding nothing, or
    /// its integer and its string, none of both where it is not drawn.
    fn index_of<'py>(
        &self,
        py: Python<'py>,
        text: &str,
        wanted: Vec<Option<(Option<i64>, Option<String>)>>,
    ) -> PyResult<Bound<'py, PyBytes>> {
        let one = |(int, text): &(Option<i64>, Option<String>)| match (int, text) {
            (Some(value), _) => Wanted::Int(*value),
            (None, Some(value)) => Wanted::Text(value.clone()),
            (None, None) => Wanted::Undrawn,
        };
        let wanted: Vec<Option<Wanted>> = wanted.iter().map(|wish| wish.as_ref().map(one)).collect();
        let index = py.detach(|| self.0.index_of(text, &wanted)).map_err(raise)?;
        Ok(PyBytes::new(py, &index.to_bytes_le()))
    }

    /// The text of a derivation, and of each of its parts: depth, kind, name, value, alternative and of how many, and the
    /// bytes of the text that came of it.
    fn explain(&self, py: Python<'_>, index: &[u8]) -> PyResult<(String, Vec<Part>)> {
        let index = BigUint::from_bytes_le(index);
        let (text, steps) = py.detach(|| self.0.explain(&index)).map_err(raise)?;
        let part = |Step { depth, what, choice, start, end }| {
            let (kind, name, value) = match what {
                What::Rule(name) => ("rule", name, None),
                What::Group => ("group", String::new(), None),
                What::Draw { name, value } => ("draw", name, Some(value)),
                What::Compute(source) => ("compute", source, None),
                What::Tag(name) => ("tag", name, None),
            };
            (depth, kind, name, value, choice, start, end)
        };
        Ok((text, steps.into_iter().map(part).collect()))
    }

    /// Each rule, and how many derivations it has in little-endian bytes; None if none calls it.
    fn rule_counts(&self) -> Vec<(&str, Option<Vec<u8>>)> {
        let counts = self.0.rule_counts().iter();
        counts.map(|(name, count)| (name.as_str(), count.as_ref().map(BigUint::to_bytes_le))).collect()
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
        Ok(drawn(py, sample))
    }

    #[pyo3(signature = (n, *, seed, name, uniform, replace, shard, tokenizer, special_tokens))]
    #[allow(clippy::too_many_arguments)]
    fn sample_tokens<'py>(
        &self,
        py: Python<'py>,
        n: usize,
        seed: u64,
        name: &str,
        uniform: bool,
        replace: bool,
        shard: (u64, u64),
        tokenizer: &HfTokenizer,
        special_tokens: bool,
    ) -> PyResult<(Rows<'py, u32>, Draws<'py>)> {
        let law = if uniform { Law::Uniform } else { Law::Weights };
        let how = Sampling { seed, name, rows: n, shard, law, replace };
        let sample = py.detach(|| self.0.sample_tokens(&how, &tokenizer.0, special_tokens)).map_err(raise)?;
        Ok(drawn(py, sample))
    }
}

fn drawn<T: Element>(py: Python<'_>, sample: Sample<T>) -> (Rows<'_, T>, Draws<'_>) {
    let draws = (
        sample.draws.into_pyarray(py),
        sample.ids.into_pyarray(py),
        sample.indices.map(|indices| indices.into_pyarray(py)),
    );
    (rows(py, sample.expanded), draws)
}

fn rows<T: Element>(py: Python<'_>, expanded: Expanded<T>) -> Rows<'_, T> {
    let Expanded { rows, spans, columns, made, sources } = expanded;
    let spans = (
        spans.row.into_pyarray(py),
        spans.start.into_pyarray(py),
        spans.end.into_pyarray(py),
        spans.tag.into_pyarray(py),
    );
    let columns = columns.into_iter().map(|c| (c.values.into_pyarray(py), c.drawn.into_pyarray(py))).collect();
    (rows.values.into_pyarray(py), rows.offsets.into_pyarray(py), spans, columns, made, sources.into_pyarray(py))
}

pub fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_class::<Grammar>()
}
