//! The bytes of tokens, laid out to be joined fast.

use crate::ragged::Ragged;

/// Bytes that are copied for every token, however short it is: one load and one store.
const CELL: usize = 16;
const UNKNOWN: u32 = u32::MAX;

/// The bytes of every token, the short ones in cells of one width.
#[derive(Debug, Default)]
pub(super) struct Pieces {
    cells: Vec<[u8; CELL]>,
    lengths: Vec<u32>,
}

impl Pieces {
    /// Lays out the bytes of the tokens; `known` tells which ids there are.
    pub(super) fn new(bytes: Ragged<'_, u8>, known: &[bool]) -> Self {
        let cell = |piece: &[u8]| {
            let mut cell = [0; CELL];
            cell.iter_mut().zip(piece).for_each(|(to, &from)| *to = from);
            cell
        };
        let length = |(piece, &known): (&[u8], &bool)| if known { piece.len() as u32 } else { UNKNOWN };
        Pieces { cells: bytes.iter().map(cell).collect(), lengths: bytes.iter().zip(known).map(length).collect() }
    }

    /// The number of bytes of a token that there is.
    #[inline]
    pub(super) fn length(&self, id: u32) -> u32 {
        self.lengths[id as usize]
    }

    /// Appends the bytes of a row's tokens, but for the `skipped` ones (ascending), to `out`.
    ///
    /// # Errors
    /// The position of a token that there is not.
    pub(super) fn join(
        &self,
        row: &[u32],
        bytes: Ragged<'_, u8>,
        skipped: &[u32],
        out: &mut Vec<u8>,
    ) -> Result<(), usize> {
        let mut room = CELL;
        for (i, &id) in row.iter().enumerate() {
            match self.lengths.get(id as usize) {
                Some(&length) if length != UNKNOWN => room += length as usize,
                _ => return Err(i),
            }
        }
        let mut at = out.len();
        out.resize(at + room, 0);
        for &id in row {
            if !skipped.is_empty() && skipped.binary_search(&id).is_ok() {
                continue;
            }
            let length = self.lengths[id as usize] as usize;
            match length {
                0..=CELL => out[at..at + CELL].copy_from_slice(&self.cells[id as usize]),
                _ => out[at..at + length].copy_from_slice(bytes.row(id as usize)),
            }
            at += length;
        }
        out.truncate(at);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn joined_rows_are_the_tokens_bytes_in_order(
            tokens in prop::collection::vec(prop::option::weighted(0.9, prop::collection::vec(any::<u8>(), 0..40)), 1..9),
            row in prop::collection::vec(0u32..10, 0..30),
            skipped in prop::collection::btree_set(0u32..9, 0..3),
        ) {
            let (mut values, mut offsets) = (Vec::new(), vec![0]);
            for token in &tokens {
                values.extend(token.iter().flatten());
                offsets.push(values.len() as i64);
            }
            let bytes = Ragged::new(&values, &offsets).unwrap();
            let known: Vec<bool> = tokens.iter().map(Option::is_some).collect();
            let skipped: Vec<u32> = skipped.into_iter().collect();
            let mut out = b"before".to_vec();
            let joined = Pieces::new(bytes, &known).join(&row, bytes, &skipped, &mut out);
            let unknown = row.iter().position(|&id| !tokens.get(id as usize).is_some_and(Option::is_some));
            prop_assert_eq!(joined.err(), unknown);
            let mut expected = b"before".to_vec();
            if unknown.is_none() {
                for &id in row.iter().filter(|id| !skipped.contains(id)) {
                    expected.extend(tokens[id as usize].as_ref().unwrap());
                }
            }
            prop_assert_eq!(out, expected);
        }
    }
}
