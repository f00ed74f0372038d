//! Binding of the core's metrics module.

use numpy::{IntoPyArray, PyArray1, PyReadonlyArray1};
use pyo3::prelude::*;
use pyo3::types::PyBytes;
use variegate_core::metrics::{self, Measures};

use crate::convert::{ragged, raise};

/// Mergeable token counts.
#[pyclass(module = "variegate._core", eq)]
#[derive(PartialEq)]
struct Counts(metrics::Counts);

#[pymethods]
impl Counts {
    #[new]
    fn new() -> Self {
        Counts(metrics::Counts::default())
    }

    #[staticmethod]
    fn from_bytes(py: Python<'_>, data: &Bound<'_, PyBytes>) -> PyResult<Self> {
        let data = data.as_bytes();
        py.detach(|| metrics::Counts::from_bytes(data)).map(Counts).map_err(raise)
    }

    fn to_bytes<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
        PyBytes::new(py, &py.detach(|| self.0.to_bytes()))
    }

    #[getter]
    fn rows(&self) -> u64 {
        self.0.rows()
    }

    #[getter]
    fn tokens(&self) -> u64 {
        self.0.tokens()
    }

    #[getter]
    fn types(&self) -> u64 {
        self.0.types()
    }

    fn add<'py>(
        &mut self,
        py: Python<'py>,
        tokens: PyReadonlyArray1<'py, u32>,
        offsets: PyReadonlyArray1<'py, i64>,
    ) -> PyResult<()> {
        let rows = ragged(&tokens, &offsets)?;
        py.detach(|| self.0.add(rows));
        Ok(())
    }

    fn merge(&mut self, py: Python<'_>, other: &Counts) -> PyResult<()> {
        py.detach(|| self.0.merge(&other.0)).map_err(raise)
    }

    fn subtract(&mut self, py: Python<'_>, other: &Counts) -> PyResult<()> {
        py.detach(|| self.0.subtract(&other.0)).map_err(raise)
    }

    /// The measures of a corpus with these counts and this many different rows.
    fn measures(&self, py: Python<'_>, distinct: u64, reference: Option<&Counts>) -> PyResult<Numbers> {
        let reference = reference.map(|counts| &counts.0);
        py.detach(|| Measures::new(&self.0, distinct, reference)).map(numbers).map_err(raise)
    }

    fn clone(&self, py: Python<'_>) -> Self {
        Counts(py.detach(|| self.0.clone()))
    }

    /// The tokens that occur, lowest first, and how often.
    #[allow(clippy::type_complexity)]
    fn sorted<'py>(&self, py: Python<'py>) -> (Bound<'py, PyArray1<u32>>, Bound<'py, PyArray1<u64>>) {
        let (tokens, counts): (Vec<u32>, Vec<u64>) = py.detach(|| self.0.sorted().into_iter().unzip());
        (tokens.into_pyarray(py), counts.into_pyarray(py))
    }

    fn tail<'py>(&self, py: Python<'py>) -> Bound<'py, PyArray1<u32>> {
        py.detach(|| self.0.tail()).into_pyarray(py)
    }
}

/// `(rows, tokens, types, entropy, coverage, tail_coverage, duplicate_share)`.
type Numbers = (u64, u64, u64, f64, Option<f64>, Option<f64>, f64);

fn numbers(measures: Measures) -> Numbers {
    let Measures { rows, tokens, types, entropy, coverage, tail_coverage, duplicate_share } = measures;
    (rows, tokens, types, entropy, coverage, tail_coverage, duplicate_share)
}

/// Measures a corpus in parts.
#[pyclass(module = "variegate._core")]
struct Meter(metrics::Meter);

#[pymethods]
impl Meter {
    #[new]
    fn new() -> Self {
        Meter(metrics::Meter::default())
    }

    fn add<'py>(
        &mut self,
        py: Python<'py>,
        tokens: PyReadonlyArray1<'py, u32>,
        offsets: PyReadonlyArray1<'py, i64>,
    ) -> PyResult<()> {
        let rows = ragged(&tokens, &offsets)?;
        py.detach(|| self.0.add(rows));
        Ok(())
    }

    fn merge(&mut self, py: Python<'_>, other: &Meter) -> PyResult<()> {
        py.detach(|| self.0.merge(&other.0)).map_err(raise)
    }

    fn clone(&self, py: Python<'_>) -> Self {
        Meter(py.detach(|| self.0.clone()))
    }

    fn counts(&self, py: Python<'_>) -> Counts {
        Counts(py.detach(|| self.0.counts().clone()))
    }

    fn measures(&self, py: Python<'_>, reference: Option<&Counts>) -> PyResult<Numbers> {
        let reference = reference.map(|counts| &counts.0);
        py.detach(|| self.0.measures(reference)).map(numbers).map_err(raise)
    }
}

pub fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_class::<Counts>()?;
    module.add_class::<Meter>()
}
