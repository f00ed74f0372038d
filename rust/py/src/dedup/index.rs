//! Binding of the search in sorted runs, and of what deduplication out of memory needs.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::PathBuf;

use numpy::{IntoPyArray, PyArray1, PyReadonlyArray1};
use pyo3::prelude::*;
use variegate_core::Ragged;
use variegate_core::dedup::{self, Hashed, Keyed, Matches, Params, Unit};

use super::{NearParams, Normalization, normalization};
use crate::convert::{invalid, ragged, raise, slice};

/// The values of rows of units: token ids and code points, or hashes of words.
#[derive(FromPyObject)]
pub enum Units<'py> {
    Narrow(PyReadonlyArray1<'py, u32>),
    Wide(PyReadonlyArray1<'py, u64>),
}

/// Rows with their keys: an object with these attributes.
#[derive(FromPyObject)]
struct Segment<'py> {
    units: Units<'py>,
    offsets: PyReadonlyArray1<'py, i64>,
    sizes: PyReadonlyArray1<'py, u32>,
    short_keys: PyReadonlyArray1<'py, u64>,
    short_rows: PyReadonlyArray1<'py, u32>,
    runs: PyReadonlyArray1<'py, u32>,
    removed: PyReadonlyArray1<'py, u8>,
}

/// Whether a segment's units are of a type, as rows with keys of it.
trait Typed: Unit + Hashed {
    fn view<'a>(segment: &'a Segment<'_>, params: &Params) -> PyResult<dedup::Segment<'a, Self>>;
}

macro_rules! typed {
    ($unit:ty, $variant:ident) => {
        impl Typed for $unit {
            fn view<'a>(segment: &'a Segment<'_>, params: &Params) -> PyResult<dedup::Segment<'a, Self>> {
                let Units::$variant(units) = &segment.units else {
                    return Err(invalid("segments must have units of one type"));
                };
                segment.view_of(ragged(units, &segment.offsets)?, params)
            }
        }
    };
}

typed!(u32, Narrow);
typed!(u64, Wide);

impl Segment<'_> {
    fn view_of<'a, T>(&'a self, rows: Ragged<'a, T>, params: &Params) -> PyResult<dedup::Segment<'a, T>> {
        let short = (slice("short_keys", &self.short_keys)?, slice("short_rows", &self.short_rows)?);
        let (sizes, runs) = (slice("sizes", &self.sizes)?, slice("runs", &self.runs)?);
        dedup::Segment::new(rows, sizes, short, runs, slice("removed", &self.removed)?, params).map_err(raise)
    }

    fn wide(&self) -> bool {
        matches!(self.units, Units::Wide(_))
    }
}

type Two<'py, A, B> = (Bound<'py, PyArray1<A>>, Bound<'py, PyArray1<B>>);

/// `(left uint32[n], right uint32[n], similarity float32[n])`.
type Found<'py> = (Bound<'py, PyArray1<u32>>, Bound<'py, PyArray1<u32>>, Bound<'py, PyArray1<f32>>);

/// `(sizes uint32[rows], short_keys uint64[s], short_rows uint32[s], runs uint32[2 bands (rows - s)])`.
type Keys<'py> =
    (Bound<'py, PyArray1<u32>>, Bound<'py, PyArray1<u64>>, Bound<'py, PyArray1<u32>>, Bound<'py, PyArray1<u32>>);

/// The keys of rows, sorted.
#[pyfunction]
fn index_keys<'py>(
    py: Python<'py>,
    params: &NearParams,
    units: Units<'py>,
    offsets: PyReadonlyArray1<'py, i64>,
) -> PyResult<Keys<'py>> {
    let made = match &units {
        Units::Narrow(units) => {
            let rows = ragged(units, &offsets)?;
            py.detach(|| dedup::keyed(rows, &params.0))
        }
        Units::Wide(units) => {
            let rows = ragged(units, &offsets)?;
            py.detach(|| dedup::keyed(rows, &params.0))
        }
    };
    let Keyed { sizes, short_keys, short_rows, runs } = made.map_err(raise)?;
    let (short_keys, short_rows) = (short_keys.into_pyarray(py), short_rows.into_pyarray(py));
    Ok((sizes.into_pyarray(py), short_keys, short_rows, runs.into_pyarray(py)))
}

/// All similar pairs of a row of `left` and one of `right`.
#[pyfunction]
fn index_matches<'py>(
    py: Python<'py>,
    params: &NearParams,
    left: Segment<'py>,
    right: Segment<'py>,
) -> PyResult<Found<'py>> {
    fn run<T: Typed>(py: Python<'_>, params: &Params, left: &Segment<'_>, right: &Segment<'_>) -> PyResult<Matches> {
        let (left, right) = (T::view(left, params)?, T::view(right, params)?);
        py.detach(|| dedup::matches(&left, &right, params)).map_err(raise)
    }
    let run = if left.wide() { run::<u64> } else { run::<u32> };
    Ok(found(py, run(py, &params.0, &left, &right)?))
}

/// For each row of `left` the first similar one of `right`; with `earlier` the first before it, in one segment.
#[pyfunction]
fn index_first_matches<'py>(
    py: Python<'py>,
    params: &NearParams,
    left: Segment<'py>,
    right: Segment<'py>,
    earlier: bool,
) -> PyResult<Found<'py>> {
    fn run<T: Typed>(
        py: Python<'_>,
        params: &Params,
        left: &Segment<'_>,
        right: &Segment<'_>,
        earlier: bool,
    ) -> PyResult<Matches> {
        let (left, right) = (T::view(left, params)?, T::view(right, params)?);
        py.detach(|| dedup::first_matches(&left, &right, earlier, params)).map_err(raise)
    }
    let run = if left.wide() { run::<u64> } else { run::<u32> };
    Ok(found(py, run(py, &params.0, &left, &right, earlier)?))
}

/// One band of segments laid end to end, without the rows that are gone: the keys, then the rows.
#[pyfunction]
fn index_merge_run<'py>(
    py: Python<'py>,
    params: &NearParams,
    segments: Vec<Segment<'py>>,
    band: usize,
) -> PyResult<Bound<'py, PyArray1<u32>>> {
    fn run<T: Typed>(py: Python<'_>, params: &Params, segments: &[Segment<'_>], band: usize) -> PyResult<Vec<u32>> {
        let views = segments.iter().map(|segment| T::view(segment, params)).collect::<PyResult<Vec<_>>>()?;
        py.detach(|| dedup::merge_run(&views, band)).map_err(raise)
    }
    let run = if segments.iter().any(Segment::wide) { run::<u64> } else { run::<u32> };
    Ok(run(py, &params.0, &segments, band)?.into_pyarray(py))
}

/// The rows without a shingle of segments laid end to end, without those that are gone: their keys, and they.
#[pyfunction]
fn index_merge_short<'py>(
    py: Python<'py>,
    params: &NearParams,
    segments: Vec<Segment<'py>>,
) -> PyResult<Two<'py, u64, u32>> {
    fn run<T: Typed>(py: Python<'_>, params: &Params, segments: &[Segment<'_>]) -> PyResult<(Vec<u64>, Vec<u32>)> {
        let views = segments.iter().map(|segment| T::view(segment, params)).collect::<PyResult<Vec<_>>>()?;
        py.detach(|| dedup::merge_short(&views)).map_err(raise)
    }
    let run = if segments.iter().any(Segment::wide) { run::<u64> } else { run::<u32> };
    let (keys, rows) = run(py, &params.0, &segments)?;
    Ok((keys.into_pyarray(py), rows.into_pyarray(py)))
}

fn found(py: Python<'_>, Matches { left, right, similarity }: Matches) -> Found<'_> {
    (left.into_pyarray(py), right.into_pyarray(py), similarity.into_pyarray(py))
}

/// The words of texts, as 64-bit hashes, and their offsets.
#[pyfunction]
fn text_words<'py>(
    py: Python<'py>,
    data: PyReadonlyArray1<'py, u8>,
    offsets: PyReadonlyArray1<'py, i64>,
    normalize: Normalization,
) -> PyResult<Two<'py, u64, i64>> {
    let (texts, normalize) = (ragged(&data, &offsets)?, normalization(normalize)?);
    let words = py.detach(|| dedup::words(texts, &normalize)).map_err(raise)?;
    Ok((words.values.into_pyarray(py), words.offsets.into_pyarray(py)))
}

/// The code points of texts in their normal form, and their offsets.
#[pyfunction]
fn text_chars<'py>(
    py: Python<'py>,
    data: PyReadonlyArray1<'py, u8>,
    offsets: PyReadonlyArray1<'py, i64>,
    normalize: Normalization,
) -> PyResult<Two<'py, u32, i64>> {
    let (texts, normalize) = (ragged(&data, &offsets)?, normalization(normalize)?);
    let chars = py.detach(|| dedup::chars(texts, &normalize)).map_err(raise)?;
    Ok((chars.values.into_pyarray(py), chars.offsets.into_pyarray(py)))
}

/// Rows that share their root with others, root after root.
#[pyfunction]
fn shared_rows<'py>(py: Python<'py>, roots: PyReadonlyArray1<'py, u32>) -> PyResult<Bound<'py, PyArray1<u32>>> {
    let roots = slice("roots", &roots)?;
    Ok(py.detach(|| dedup::shared_rows(roots)).map_err(raise)?.into_pyarray(py))
}

/// Numbers keepers by first appearance.
#[pyfunction]
fn clusters<'py>(py: Python<'py>, keeper: PyReadonlyArray1<'py, i64>) -> PyResult<Bound<'py, PyArray1<i64>>> {
    let keeper = slice("keeper", &keeper)?;
    Ok(py.detach(|| dedup::clusters(keeper)).map_err(raise)?.into_pyarray(py))
}

/// The bytes of a file from each start up to its end, one after another.
#[pyfunction]
fn read_ranges<'py>(
    py: Python<'py>,
    path: PathBuf,
    starts: PyReadonlyArray1<'py, i64>,
    ends: PyReadonlyArray1<'py, i64>,
) -> PyResult<Bound<'py, PyArray1<u8>>> {
    let (starts, ends) = (slice("starts", &starts)?, slice("ends", &ends)?);
    let ranges = starts.iter().zip(ends);
    if starts.len() != ends.len() || ranges.clone().any(|(&start, &end)| start < 0 || end < start) {
        return Err(invalid("starts and ends must be those of ranges"));
    }
    let read = || {
        let mut out = vec![0; ranges.clone().map(|(start, end)| (end - start) as usize).sum()];
        let (mut file, mut at) = (File::open(&path)?, 0);
        let mut ranges = ranges.clone().peekable();
        while let Some((&start, &end)) = ranges.next() {
            let mut end = end;
            while let Some((_, &next)) = ranges.next_if(|&(&next, _)| next == end) {
                end = next;
            }
            let count = (end - start) as usize;
            file.seek(SeekFrom::Start(start as u64))?;
            file.read_exact(&mut out[at..at + count])?;
            at += count;
        }
        std::io::Result::Ok(out)
    };
    Ok(py.detach(read)?.into_pyarray(py))
}

pub fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_function(wrap_pyfunction!(clusters, module)?)?;
    module.add_function(wrap_pyfunction!(index_first_matches, module)?)?;
    module.add_function(wrap_pyfunction!(index_keys, module)?)?;
    module.add_function(wrap_pyfunction!(index_matches, module)?)?;
    module.add_function(wrap_pyfunction!(index_merge_run, module)?)?;
    module.add_function(wrap_pyfunction!(index_merge_short, module)?)?;
    module.add_function(wrap_pyfunction!(read_ranges, module)?)?;
    module.add_function(wrap_pyfunction!(shared_rows, module)?)?;
    module.add_function(wrap_pyfunction!(text_chars, module)?)?;
    module.add_function(wrap_pyfunction!(text_words, module)?)
}
