//! Repeated substrings, and what rows share with known items.

use numpy::{Element, IntoPyArray, PyArray1, PyReadonlyArray1};
use pyo3::prelude::*;
use variegate_core::dedup::{self, Hits, Ngrams, Occurrence, Repeats, Token};
use variegate_core::{Ragged, RaggedBuf};

use super::{Normalization, normalization};
use crate::convert::{invalid, ragged, raise};

type Column<'py> = Bound<'py, PyArray1<i64>>;

/// `(row, start, end, source_row, source_start)` of each span, and `mask` uint8 of each unit.
type Repeated<'py> = ([Column<'py>; 5], Bound<'py, PyArray1<u8>>);

/// `(row, start, end, item, item_start, covered)` of each span.
type Hit<'py> = [Column<'py>; 6];

/// `(words uint64[n], offsets int64[rows + 1], start int64[n], end int64[n])`: the words of texts as hashes, and where each
/// lies in its row, in bytes.
#[pyfunction]
#[allow(clippy::type_complexity)]
fn word_spans<'py>(
    py: Python<'py>,
    data: PyReadonlyArray1<'py, u8>,
    offsets: PyReadonlyArray1<'py, i64>,
    normalize: Normalization,
) -> PyResult<(Bound<'py, PyArray1<u64>>, Column<'py>, Column<'py>, Column<'py>)> {
    let (texts, normalize) = (ragged(&data, &offsets)?, normalization(normalize)?);
    let (words, start, end) = py
        .detach(|| {
            let (words, spans) = dedup::word_spans(texts, &normalize)?;
            let (start, end): (Vec<i64>, Vec<i64>) =
                spans.into_iter().map(|span| (i64::from(span.start), i64::from(span.end))).unzip();
            Ok((words, start, end))
        })
        .map_err(raise)?;
    let (start, end) = (start.into_pyarray(py), end.into_pyarray(py));
    Ok((words.values.into_pyarray(py), words.offsets.into_pyarray(py), start, end))
}

/// Windows of tokens that occur before.
#[pyfunction]
fn substring_tokens<'py>(
    py: Python<'py>,
    tokens: PyReadonlyArray1<'py, u32>,
    offsets: PyReadonlyArray1<'py, i64>,
    length: i64,
    keep: &str,
) -> PyResult<Repeated<'py>> {
    repeated(py, ragged(&tokens, &offsets)?, length, keep)
}

/// Windows of words, as hashes, that occur before.
#[pyfunction]
fn substring_words<'py>(
    py: Python<'py>,
    words: PyReadonlyArray1<'py, u64>,
    offsets: PyReadonlyArray1<'py, i64>,
    length: i64,
    keep: &str,
) -> PyResult<Repeated<'py>> {
    repeated(py, ragged(&words, &offsets)?, length, keep)
}

fn repeated<'py, T: Token>(py: Python<'py>, rows: Ragged<'_, T>, length: i64, keep: &str) -> PyResult<Repeated<'py>> {
    let keep = match keep {
        "first" => Occurrence::First,
        "none" => Occurrence::None,
        _ => return Err(invalid(format!("keep must be 'first' or 'none' (it is '{keep}')"))),
    };
    let length = window("length", length)?;
    let found = py.detach(|| dedup::substring(rows, length, keep)).map_err(raise)?;
    let Repeats { row, start, end, source_row, source_start, mask } = found;
    let columns = [row, start, end, source_row, source_start].map(|column| column.into_pyarray(py));
    Ok((columns, mask.into_pyarray(py)))
}

/// The n-grams of known items, to look for in rows.
#[pyclass(frozen, module = "variegate._core")]
struct NgramTable(Table);

enum Table {
    Tokens(Ngrams<u32>),
    Words(Ngrams<u64>),
}

#[pymethods]
impl NgramTable {
    /// Of items of tokens.
    #[staticmethod]
    fn tokens<'py>(
        py: Python<'py>,
        tokens: PyReadonlyArray1<'py, u32>,
        offsets: PyReadonlyArray1<'py, i64>,
        ngram: i64,
        shortest: i64,
        most: i64,
    ) -> PyResult<Self> {
        table(py, ragged(&tokens, &offsets)?, ngram, shortest, most).map(Table::Tokens).map(NgramTable)
    }

    /// Of items of words, as hashes.
    #[staticmethod]
    fn words<'py>(
        py: Python<'py>,
        words: PyReadonlyArray1<'py, u64>,
        offsets: PyReadonlyArray1<'py, i64>,
        ngram: i64,
        shortest: i64,
        most: i64,
    ) -> PyResult<Self> {
        table(py, ragged(&words, &offsets)?, ngram, shortest, most).map(Table::Words).map(NgramTable)
    }

    /// Finds the items in rows of tokens.
    fn scan_tokens<'py>(
        &self,
        py: Python<'py>,
        tokens: PyReadonlyArray1<'py, u32>,
        offsets: PyReadonlyArray1<'py, i64>,
        covered: bool,
    ) -> PyResult<Hit<'py>> {
        let Table::Tokens(ngrams) = &self.0 else { return Err(invalid("the items are words, and the rows tokens")) };
        let rows = ragged(&tokens, &offsets)?;
        Ok(hits(py, py.detach(|| ngrams.scan(rows, covered))))
    }

    /// Finds the items in rows of words.
    fn scan_words<'py>(
        &self,
        py: Python<'py>,
        words: PyReadonlyArray1<'py, u64>,
        offsets: PyReadonlyArray1<'py, i64>,
        covered: bool,
    ) -> PyResult<Hit<'py>> {
        let Table::Words(ngrams) = &self.0 else { return Err(invalid("the items are tokens, and the rows words")) };
        let rows = ragged(&words, &offsets)?;
        Ok(hits(py, py.detach(|| ngrams.scan(rows, covered))))
    }

    /// `int64[items]`: how many units of each item lie in n-grams that any row had so far.
    fn covered<'py>(&self, py: Python<'py>) -> Column<'py> {
        let covered = py.detach(|| match &self.0 {
            Table::Tokens(ngrams) => ngrams.covered(),
            Table::Words(ngrams) => ngrams.covered(),
        });
        covered.into_pyarray(py)
    }

    /// How many different n-grams there are.
    #[getter]
    fn count(&self) -> usize {
        match &self.0 {
            Table::Tokens(ngrams) => ngrams.count(),
            Table::Words(ngrams) => ngrams.count(),
        }
    }
}

fn table<T: Token + Element>(
    py: Python<'_>,
    items: Ragged<'_, T>,
    ngram: i64,
    shortest: i64,
    most: i64,
) -> PyResult<Ngrams<T>> {
    let (ngram, shortest) = (window("ngram", ngram)?, window("shortest", shortest)?);
    let most = usize::try_from(most).map_err(|_| invalid(format!("max_items must not be negative (it is {most})")))?;
    let items = RaggedBuf { values: items.values().to_vec(), offsets: items.offsets().to_vec() };
    py.detach(|| Ngrams::new(items, ngram, shortest, most)).map_err(raise)
}

fn window(name: &str, value: i64) -> PyResult<usize> {
    usize::try_from(value).map_err(|_| invalid(format!("{name} must lie in 1 to 65536 (it is {value})")))
}

fn hits(py: Python<'_>, hits: Hits) -> Hit<'_> {
    let Hits { row, start, end, item, item_start, covered } = hits;
    [row, start, end, item, item_start, covered].map(|column| column.into_pyarray(py))
}

pub fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_class::<NgramTable>()?;
    module.add_function(wrap_pyfunction!(word_spans, module)?)?;
    module.add_function(wrap_pyfunction!(substring_tokens, module)?)?;
    module.add_function(wrap_pyfunction!(substring_words, module)?)
}
