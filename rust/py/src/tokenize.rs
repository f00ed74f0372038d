//! Tokenizers: text batches to token batches and back.

use numpy::{IntoPyArray, PyArray1, PyReadonlyArray1};
use pyo3::prelude::*;
use variegate_core::RaggedBuf;
use variegate_core::tokenize::{Tokenizer, surround};

use crate::convert::{ragged, raise, slice};

type Tokens<'py> = (Bound<'py, PyArray1<u32>>, Bound<'py, PyArray1<i64>>);
type Bytes<'py> = (Bound<'py, PyArray1<u8>>, Bound<'py, PyArray1<i64>>);
type Ranges<'py> = (Bound<'py, PyArray1<i64>>, Bound<'py, PyArray1<i64>>);
type Located<'py> = (Tokens<'py>, Ranges<'py>);

/// A Hugging Face tokenizer.
#[pyclass(frozen, module = "variegate._core")]
pub struct HfTokenizer(pub Tokenizer);

#[pymethods]
impl HfTokenizer {
    #[new]
    fn new(py: Python<'_>, json: &str) -> PyResult<Self> {
        py.detach(|| Tokenizer::from_json(json)).map(HfTokenizer).map_err(raise)
    }

    /// A byte-level BPE trained on a batch of texts.
    #[staticmethod]
    fn train(
        py: Python<'_>,
        data: PyReadonlyArray1<'_, u8>,
        offsets: PyReadonlyArray1<'_, i64>,
        vocab_size: usize,
        special_tokens: Vec<String>,
    ) -> PyResult<Self> {
        let texts = ragged(&data, &offsets)?;
        py.detach(|| Tokenizer::train(texts, vocab_size, &special_tokens)).map(HfTokenizer).map_err(raise)
    }

    /// The text of its `tokenizer.json`.
    #[getter]
    fn json(&self) -> &str {
        self.0.json()
    }

    /// SHA-256 of `json`, in hexadecimal.
    fn fingerprint(&self, py: Python<'_>) -> String {
        py.detach(|| self.0.fingerprint()).iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// One more than the largest id.
    #[getter]
    fn vocab_size(&self) -> usize {
        self.0.vocab_size()
    }

    fn token_to_id(&self, token: &str) -> Option<u32> {
        self.0.token_to_id(token)
    }

    fn id_to_token(&self, id: u32) -> Option<String> {
        self.0.id_to_token(id)
    }

    /// The ids of the special tokens, in order.
    fn special_ids<'py>(&self, py: Python<'py>) -> Bound<'py, PyArray1<u32>> {
        PyArray1::from_slice(py, self.0.special_ids())
    }

    /// The bytes of every token, flat, and their offsets.
    fn token_bytes<'py>(&self, py: Python<'py>) -> Bytes<'py> {
        let table = self.0.token_bytes();
        (PyArray1::from_slice(py, &table.values), PyArray1::from_slice(py, &table.offsets))
    }

    /// uint8[vocab_size]: 1 where a token's bytes are whole characters.
    fn whole_characters<'py>(&self, py: Python<'py>) -> Bound<'py, PyArray1<u8>> {
        py.detach(|| self.0.whole_characters()).into_pyarray(py)
    }

    /// Tokens and offsets of a batch of texts.
    fn encode<'py>(
        &self,
        py: Python<'py>,
        data: PyReadonlyArray1<'py, u8>,
        offsets: PyReadonlyArray1<'py, i64>,
        special_tokens: bool,
    ) -> PyResult<Tokens<'py>> {
        let texts = ragged(&data, &offsets)?;
        let tokens = py.detach(|| self.0.encode(texts, special_tokens)).map_err(raise)?;
        Ok(arrays(py, tokens))
    }

    /// Tokens and offsets of a batch of texts, and first and last byte + 1 of each token in its row.
    fn encode_with_offsets<'py>(
        &self,
        py: Python<'py>,
        data: PyReadonlyArray1<'py, u8>,
        offsets: PyReadonlyArray1<'py, i64>,
        special_tokens: bool,
    ) -> PyResult<Located<'py>> {
        let texts = ragged(&data, &offsets)?;
        let encoded = py.detach(|| self.0.encode_with_offsets(texts, special_tokens)).map_err(raise)?;
        Ok((arrays(py, encoded.tokens), (encoded.starts.into_pyarray(py), encoded.ends.into_pyarray(py))))
    }

    /// First and last byte + 1 of each token that encodes a batch of texts.
    fn offsets<'py>(
        &self,
        py: Python<'py>,
        data: PyReadonlyArray1<'py, u8>,
        data_offsets: PyReadonlyArray1<'py, i64>,
        tokens: PyReadonlyArray1<'py, u32>,
        offsets: PyReadonlyArray1<'py, i64>,
        trimmed: bool,
    ) -> PyResult<Ranges<'py>> {
        let (texts, tokens) = (ragged(&data, &data_offsets)?, ragged(&tokens, &offsets)?);
        let (starts, ends) = py.detach(|| self.0.offsets(texts, tokens, trimmed)).map_err(raise)?;
        Ok((starts.into_pyarray(py), ends.into_pyarray(py)))
    }

    /// The word of each token in its row, int32[n]; -1 for special tokens.
    fn word_ids<'py>(
        &self,
        py: Python<'py>,
        tokens: PyReadonlyArray1<'py, u32>,
        offsets: PyReadonlyArray1<'py, i64>,
    ) -> PyResult<Bound<'py, PyArray1<i32>>> {
        let rows = ragged(&tokens, &offsets)?;
        Ok(py.detach(|| self.0.word_ids(rows)).map_err(raise)?.into_pyarray(py))
    }

    /// What the post-processor puts before and after a text, or None if it does anything else.
    #[allow(clippy::type_complexity)]
    fn affixes<'py>(
        &self,
        py: Python<'py>,
    ) -> PyResult<Option<(Bound<'py, PyArray1<u32>>, Bound<'py, PyArray1<u32>>)>> {
        let affixes = self.0.affixes().map_err(raise)?;
        Ok(affixes.map(|(prefix, suffix)| (prefix.into_pyarray(py), suffix.into_pyarray(py))))
    }

    /// UTF-8 bytes and offsets of a batch of tokens.
    fn decode<'py>(
        &self,
        py: Python<'py>,
        tokens: PyReadonlyArray1<'py, u32>,
        offsets: PyReadonlyArray1<'py, i64>,
        skip_special_tokens: bool,
    ) -> PyResult<Bytes<'py>> {
        let rows = ragged(&tokens, &offsets)?;
        let RaggedBuf { values, offsets } = py.detach(|| self.0.decode(rows, skip_special_tokens)).map_err(raise)?;
        Ok((values.into_pyarray(py), offsets.into_pyarray(py)))
    }
}

/// Every row between `prefix` and `suffix`.
#[pyfunction]
fn surround_rows<'py>(
    py: Python<'py>,
    tokens: PyReadonlyArray1<'py, u32>,
    offsets: PyReadonlyArray1<'py, i64>,
    prefix: PyReadonlyArray1<'py, u32>,
    suffix: PyReadonlyArray1<'py, u32>,
) -> PyResult<Tokens<'py>> {
    let rows = ragged(&tokens, &offsets)?;
    let (prefix, suffix) = (slice("prefix", &prefix)?, slice("suffix", &suffix)?);
    let rows = py.detach(|| surround(rows, prefix, suffix));
    Ok(arrays(py, rows))
}

fn arrays(py: Python<'_>, rows: RaggedBuf<u32>) -> Tokens<'_> {
    (rows.values.into_pyarray(py), rows.offsets.into_pyarray(py))
}

pub fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_class::<HfTokenizer>()?;
    module.add_function(wrap_pyfunction!(surround_rows, module)?)
}
