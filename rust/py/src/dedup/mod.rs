//! Binding of the core's dedup module.

mod index;
mod windows;

use numpy::{IntoPyArray, PyArray1, PyArray2, PyArrayMethods, PyReadonlyArray1};
use pyo3::prelude::*;
use pyo3::types::PyDict;
use variegate_core::dedup::{self, Closure, Form, Keep, Mode, Normalize, Outcome, Params, Stats, TextUnit};

use crate::convert::{invalid, ragged, raise, slice};
use index::Units;

type Ids<'py> = PyReadonlyArray1<'py, u64>;
type Order<'py> = Option<PyReadonlyArray1<'py, i64>>;

/// Values, and int64[rows + 1] offsets.
type Rows<'py, T> = (Bound<'py, PyArray1<T>>, Bound<'py, PyArray1<i64>>);

/// `(keeper int64[rows], cluster int64[rows], similarity float32[rows], stats)`.
type Wrapped<'py> =
    (Bound<'py, PyArray1<i64>>, Bound<'py, PyArray1<i64>>, Bound<'py, PyArray1<f32>>, Bound<'py, PyDict>);

/// `(unicode, accents, case, punctuation, digits, whitespace)`: what `Normalize` of Python holds.
pub type Normalization = (Option<String>, bool, bool, bool, bool, bool);

/// How texts are normalised before they are split.
pub fn normalization(given: Normalization) -> PyResult<Normalize> {
    let (unicode, accents, case, punctuation, digits, whitespace) = given;
    let unicode = match unicode.as_deref() {
        None => None,
        Some("NFC") => Some(Form::Nfc),
        Some("NFD") => Some(Form::Nfd),
        Some("NFKC") => Some(Form::Nfkc),
        Some("NFKD") => Some(Form::Nfkd),
        Some(other) => {
            return Err(invalid(format!("unicode must be 'NFC', 'NFD', 'NFKC', 'NFKD' or None (it is '{other}')")));
        }
    };
    Ok(Normalize { unicode, accents, case, punctuation, digits, whitespace })
}

/// `(data uint8[n], offsets int64[rows + 1])`: texts as they are compared.
#[pyfunction]
fn normalize_texts<'py>(
    py: Python<'py>,
    data: PyReadonlyArray1<'py, u8>,
    offsets: PyReadonlyArray1<'py, i64>,
    normalize: Normalization,
) -> PyResult<Rows<'py, u8>> {
    let (texts, normalize) = (ragged(&data, &offsets)?, normalization(normalize)?);
    let texts = py.detach(|| normalize.texts(texts)).map_err(raise)?;
    Ok((texts.values.into_pyarray(py), texts.offsets.into_pyarray(py)))
}

/// `(tokens uint32[n], offsets int64[rows + 1])`: rows without some tokens, the others put through a map.
#[pyfunction]
fn select_tokens<'py>(
    py: Python<'py>,
    tokens: PyReadonlyArray1<'py, u32>,
    offsets: PyReadonlyArray1<'py, i64>,
    skip: PyReadonlyArray1<'py, u32>,
    fold: PyReadonlyArray1<'py, u32>,
) -> PyResult<Rows<'py, u32>> {
    let (rows, skip, fold) = (ragged(&tokens, &offsets)?, slice("skip", &skip)?, slice("fold", &fold)?);
    let rows = py.detach(|| dedup::select_tokens(rows, skip, fold)).map_err(raise)?;
    Ok((rows.values.into_pyarray(py), rows.offsets.into_pyarray(py)))
}

/// Which rows of tokens repeat another.
#[pyfunction]
fn exact_tokens<'py>(
    py: Python<'py>,
    tokens: PyReadonlyArray1<'py, u32>,
    offsets: PyReadonlyArray1<'py, i64>,
    ids: Ids<'py>,
    order: Order<'py>,
    keep: &str,
) -> PyResult<Wrapped<'py>> {
    let (rows, ids, order) = (ragged(&tokens, &offsets)?, slice("ids", &ids)?, order_slice(&order)?);
    let keep = keep_of(keep)?;
    wrap(py, py.detach(|| dedup::exact_rows(rows, ids, order, keep)).map_err(raise)?)
}

/// Which texts repeat another byte by byte.
#[pyfunction]
fn exact_texts<'py>(
    py: Python<'py>,
    data: PyReadonlyArray1<'py, u8>,
    offsets: PyReadonlyArray1<'py, i64>,
    ids: Ids<'py>,
    order: Order<'py>,
    keep: &str,
) -> PyResult<Wrapped<'py>> {
    let (rows, ids, order) = (ragged(&data, &offsets)?, slice("ids", &ids)?, order_slice(&order)?);
    let keep = keep_of(keep)?;
    wrap(py, py.detach(|| dedup::exact_rows(rows, ids, order, keep)).map_err(raise)?)
}

fn keep_of(keep: &str) -> PyResult<Keep> {
    match keep {
        "longest" => Ok(Keep::Longest),
        "first" => Ok(Keep::First),
        "none" => Ok(Keep::None),
        _ => Err(invalid(format!("keep must be 'longest', 'first' or 'none' (it is '{keep}')"))),
    }
}

/// How near-duplicates are found; checked when it is made.
#[pyclass(frozen, module = "variegate._core")]
pub struct NearParams(Params);

#[pymethods]
impl NearParams {
    #[new]
    fn new(
        threshold: f64,
        ngram: i64,
        mode: &str,
        recall: f64,
        closure: &str,
        keep: &str,
        seed: u64,
    ) -> PyResult<Self> {
        let mode = match mode {
            "lsh" => Mode::Lsh,
            "exact" => Mode::Exact,
            _ => return Err(invalid(format!("mode must be 'lsh' or 'exact' (it is '{mode}')"))),
        };
        let ngram =
            usize::try_from(ngram).map_err(|_| invalid(format!("ngram must lie in 1 to 32 (it is {ngram})")))?;
        let closure = match closure {
            "leader" => Closure::Leader,
            "transitive" => Closure::Transitive,
            _ => return Err(invalid(format!("closure must be 'leader' or 'transitive' (it is '{closure}')"))),
        };
        let keep = keep_of(keep)?;
        let params = Params { threshold, ngram, mode, recall, closure, keep, seed, ..Params::default() };
        params.check().map_err(raise)?;
        Ok(NearParams(params))
    }

    /// Near-duplicates among rows of tokens, or of other units, which are not copied.
    fn tokens<'py>(
        &self,
        py: Python<'py>,
        tokens: Units<'py>,
        offsets: PyReadonlyArray1<'py, i64>,
        ids: Ids<'py>,
        order: Order<'py>,
    ) -> PyResult<Wrapped<'py>> {
        let (ids, order) = (slice("ids", &ids)?, order_slice(&order)?);
        let found = match &tokens {
            Units::Narrow(tokens) => {
                let rows = ragged(tokens, &offsets)?;
                py.detach(|| dedup::near_rows(rows, ids, order, &self.0))
            }
            Units::Wide(words) => {
                let rows = ragged(words, &offsets)?;
                py.detach(|| dedup::near_rows(rows, ids, order, &self.0))
            }
        };
        wrap(py, found.map_err(raise)?)
    }

    /// Bands of a sketch.
    #[getter]
    fn bands(&self) -> PyResult<usize> {
        self.0.bands().map_err(raise)
    }

    /// `uint64[1 + bands, rows]`: by which keys rows of tokens, or of other units, join.
    fn keys<'py>(
        &self,
        py: Python<'py>,
        tokens: Units<'py>,
        offsets: PyReadonlyArray1<'py, i64>,
    ) -> PyResult<Bound<'py, PyArray2<u64>>> {
        let (keys, rows) = match &tokens {
            Units::Narrow(tokens) => {
                let rows = ragged(tokens, &offsets)?;
                (py.detach(|| dedup::near_keys(rows, &self.0)), rows.rows())
            }
            Units::Wide(words) => {
                let rows = ragged(words, &offsets)?;
                (py.detach(|| dedup::near_keys(rows, &self.0)), rows.rows())
            }
        };
        keys.map_err(raise)?.into_pyarray(py).reshape([1 + self.bands()?, rows])
    }

    /// A deduper of parts; `unit` is token, word or char.
    fn deduper(&self, unit: &str, normalize: Normalization) -> PyResult<Deduper> {
        let normalize = &normalization(normalize)?;
        let made = match unit {
            "token" => dedup::Deduper::tokens(&self.0),
            "word" => dedup::Deduper::texts(&self.0, TextUnit::Word, normalize),
            "char" => dedup::Deduper::texts(&self.0, TextUnit::Char, normalize),
            _ => return Err(invalid(format!("unit must be 'token', 'word' or 'char' (it is '{unit}')"))),
        };
        Ok(Deduper(made.map_err(raise)?))
    }
}

/// Deduplication of rows that come in parts. Made by [`NearParams::deduper`].
#[pyclass(module = "variegate._core")]
struct Deduper(dedup::Deduper);

#[pymethods]
impl Deduper {
    fn add_tokens<'py>(
        &mut self,
        py: Python<'py>,
        tokens: PyReadonlyArray1<'py, u32>,
        offsets: PyReadonlyArray1<'py, i64>,
        ids: Ids<'py>,
    ) -> PyResult<()> {
        let (rows, ids) = (ragged(&tokens, &offsets)?, slice("ids", &ids)?);
        py.detach(|| self.0.add_tokens(rows, ids)).map_err(raise)
    }

    fn add_texts<'py>(
        &mut self,
        py: Python<'py>,
        data: PyReadonlyArray1<'py, u8>,
        offsets: PyReadonlyArray1<'py, i64>,
        ids: Ids<'py>,
    ) -> PyResult<()> {
        let (rows, ids) = (ragged(&data, &offsets)?, slice("ids", &ids)?);
        py.detach(|| self.0.add_texts(rows, ids)).map_err(raise)
    }

    fn result<'py>(&self, py: Python<'py>, order: Order<'py>) -> PyResult<Wrapped<'py>> {
        let order = order_slice(&order)?;
        wrap(py, py.detach(|| self.0.result(order)).map_err(raise)?)
    }
}

/// Rows joined by equal keys.
#[pyclass(module = "variegate._core")]
struct Components(dedup::Components);

#[pymethods]
impl Components {
    #[new]
    fn new(py: Python<'_>, rows: i64) -> PyResult<Self> {
        let rows = usize::try_from(rows).map_err(|_| invalid(format!("rows must not be negative (it is {rows})")))?;
        py.detach(|| dedup::Components::new(rows)).map(Components).map_err(raise)
    }

    fn join<'py>(
        &mut self,
        py: Python<'py>,
        keys: PyReadonlyArray1<'py, u64>,
        rows: PyReadonlyArray1<'py, u32>,
    ) -> PyResult<()> {
        let (keys, rows) = (slice("keys", &keys)?, slice("rows", &rows)?);
        py.detach(|| self.0.join(keys, rows)).map_err(raise)
    }

    /// The lowest row of each row's component.
    fn roots<'py>(&self, py: Python<'py>) -> Bound<'py, PyArray1<u32>> {
        py.detach(|| self.0.roots()).into_pyarray(py)
    }
}

fn order_slice<'a>(order: &'a Order<'_>) -> PyResult<&'a [i64]> {
    order.as_ref().map_or(Ok(&[]), |order| slice("order", order))
}

fn wrap(py: Python<'_>, outcome: Outcome) -> PyResult<Wrapped<'_>> {
    let Outcome { keeper, cluster, similarity, stats } = outcome;
    let Stats {
        rows,
        kept,
        exact,
        near,
        short,
        bands,
        band_width,
        compared,
        similar,
        largest_bucket,
        capped_buckets,
        capped_rows,
    } = stats;
    let dict = PyDict::new(py);
    for (name, count) in [
        ("rows", rows),
        ("kept", kept),
        ("exact", exact),
        ("near", near),
        ("short", short),
        ("bands", bands),
        ("band_width", band_width),
        ("compared", compared),
        ("similar", similar),
        ("largest_bucket", largest_bucket),
        ("capped_buckets", capped_buckets),
        ("capped_rows", capped_rows),
    ] {
        dict.set_item(name, count)?;
    }
    Ok((keeper.into_pyarray(py), cluster.into_pyarray(py), similarity.into_pyarray(py), dict))
}

pub fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    index::register(module)?;
    module.add_class::<Components>()?;
    module.add_class::<Deduper>()?;
    module.add_class::<NearParams>()?;
    windows::register(module)?;
    module.add_function(wrap_pyfunction!(normalize_texts, module)?)?;
    module.add_function(wrap_pyfunction!(select_tokens, module)?)?;
    module.add_function(wrap_pyfunction!(exact_texts, module)?)?;
    module.add_function(wrap_pyfunction!(exact_tokens, module)?)
}
