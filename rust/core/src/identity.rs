//! Identities: the 128-bit `record_id` of a record and the 64-bit `id` that keys its randomness.
//!
//! Both are prefixes of SHA-256 over length-prefixed fields, so no two lists of fields collide by concatenation, and
//! anyone can recompute them with a standard tool.

use sha2::{Digest, Sha256};

use crate::error::{Error, Result};
use crate::par;
use crate::ragged::Ragged;

/// A 128-bit record identity.
pub type RecordId = [u8; 16];

/// SHA-256 over `fields`, each preceded by its length as eight little-endian bytes.
pub fn digest<'a>(fields: impl IntoIterator<Item = &'a [u8]>) -> [u8; 32] {
    let mut hash = Sha256::new();
    for field in fields {
        hash.update((field.len() as u64).to_le_bytes());
        hash.update(field);
    }
    hash.finalize().into()
}

/// The first 16 bytes of [`digest`].
pub fn hash128<'a>(fields: impl IntoIterator<Item = &'a [u8]>) -> RecordId {
    let mut id = [0; 16];
    id.copy_from_slice(&digest(fields)[..16]);
    id
}

/// The first 8 bytes of [`digest`] as a little-endian number.
pub fn hash64<'a>(fields: impl IntoIterator<Item = &'a [u8]>) -> u64 {
    let mut id = [0; 8];
    id.copy_from_slice(&digest(fields)[..8]);
    u64::from_le_bytes(id)
}

/// One field of a batch of records.
#[derive(Debug, Clone, Copy)]
pub enum Field<'a> {
    /// The same bytes in every row.
    Same(&'a [u8]),
    /// Bytes of its own for each row.
    Rows(Ragged<'a, u8>),
}

/// The first `width` bytes of [`digest`] over the fields of each row: `rows * width` bytes, rows one after another.
///
/// # Errors
/// If a field has another number of rows, or `width` is not in 1..=32.
pub fn digest_rows(fields: &[Field<'_>], rows: usize, width: usize) -> Result<Vec<u8>> {
    if !(1..=32).contains(&width) {
        return Err(Error::invalid(format!("width must be in 1..=32 bytes, not {width}")));
    }
    for (i, field) in fields.iter().enumerate() {
        if let Field::Rows(ragged) = field
            && ragged.rows() != rows
        {
            return Err(Error::invalid(format!("field {i} has {} rows, not {rows}", ragged.rows())));
        }
    }
    let tasks = rows.div_ceil(ROWS_PER_TASK).max(1);
    let parts = par::map_tasks(tasks, |task| {
        let range = task * ROWS_PER_TASK..rows.min((task + 1) * ROWS_PER_TASK);
        let mut out = Vec::with_capacity(range.len() * width);
        for row in range {
            let cells = fields.iter().map(|field| match field {
                Field::Same(bytes) => bytes,
                Field::Rows(ragged) => ragged.row(row),
            });
            out.extend_from_slice(&digest(cells)[..width]);
        }
        out
    });
    Ok(parts.concat())
}

const ROWS_PER_TASK: usize = 1024;

/// The root of the Merkle tree of RFC 6962 (section 2.1) whose entries are the 32-byte `hashes`; SHA-256 of nothing
/// where there are none.
///
/// # Errors
/// If the length is not a multiple of 32.
pub fn merkle_root(hashes: &[u8]) -> Result<[u8; 32]> {
    let (entries, rest) = hashes.as_chunks::<32>();
    if !rest.is_empty() {
        return Err(Error::invalid(format!("hashes must be 32 bytes each, but there are {} bytes", hashes.len())));
    }
    let mut level: Vec<[u8; 32]> =
        entries.iter().map(|entry| Sha256::new().chain_update([0]).chain_update(entry).finalize().into()).collect();
    // Pairing from below, with a lone last node moved up, is the split at the largest power of two of the RFC.
    while level.len() > 1 {
        level = level
            .chunks(2)
            .map(|pair| match pair {
                [left, right] => {
                    Sha256::new().chain_update([1]).chain_update(left).chain_update(right).finalize().into()
                }
                lone => lone[0],
            })
            .collect();
    }
    Ok(level.pop().unwrap_or_else(|| Sha256::digest([]).into()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The definition of RFC 6962, word for word.
    fn merkle_by_the_book(entries: &[[u8; 32]]) -> [u8; 32] {
        match entries {
            [] => Sha256::digest([]).into(),
            [one] => Sha256::digest([[0].as_slice(), one].concat()).into(),
            more => {
                let mut k = 1;
                while k * 2 < more.len() {
                    k *= 2;
                }
                let (left, right) = (merkle_by_the_book(&more[..k]), merkle_by_the_book(&more[k..]));
                Sha256::digest([[1].as_slice(), &left, &right].concat()).into()
            }
        }
    }

    proptest! {
        #[test]
        fn merkle_roots_are_those_of_the_definition(entries in prop::collection::vec(any::<[u8; 32]>(), 0..40)) {
            prop_assert_eq!(merkle_root(entries.as_flattened()).unwrap(), merkle_by_the_book(&entries));
        }

        #[test]
        fn rows_are_hashed_like_single_records(cells in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..9), 0..9), width in 1usize..=32) {
            let mut buf = crate::RaggedBuf::default();
            for cell in &cells {
                buf.values.extend_from_slice(cell);
                buf.end_row();
            }
            let out = digest_rows(&[Field::Same(b"x"), Field::Rows(buf.view())], cells.len(), width).unwrap();
            for (row, cell) in cells.iter().enumerate() {
                prop_assert_eq!(&out[row * width..(row + 1) * width], &digest([b"x".as_slice(), cell])[..width]);
            }
        }
    }

    #[test]
    fn bad_shapes_are_named() {
        let ragged = Ragged::new(&[], &[0, 0]).unwrap();
        let message = |result: Result<Vec<u8>>| result.unwrap_err().to_string();
        assert_eq!(message(digest_rows(&[], 1, 33)), "width must be in 1..=32 bytes, not 33");
        assert_eq!(message(digest_rows(&[Field::Rows(ragged)], 2, 8)), "field 0 has 1 rows, not 2");
        let short = merkle_root(&[0; 33]).unwrap_err().to_string();
        assert_eq!(short, "hashes must be 32 bytes each, but there are 33 bytes");
    }

    #[test]
    fn fields_do_not_run_into_each_other() {
        assert_ne!(digest([b"ab".as_slice(), b"c"]), digest([b"a".as_slice(), b"bc"]));
        assert_ne!(digest([b"".as_slice()]), digest([]));
    }

    /// `printf '\x01\0\0\0\0\0\0\0a' | sha256sum`
    #[test]
    fn digests_are_plain_sha256() {
        let expected = "ae6121c88ba555f64c3d812123eb799d128015541f850c5e9bf1d54c08ad8481";
        let hex: String = digest([b"a".as_slice()]).iter().map(|b| format!("{b:02x}")).collect();
        assert_eq!(hex, expected);
    }
}
