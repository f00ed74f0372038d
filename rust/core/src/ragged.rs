//! Ragged arrays: rows of different length in one flat buffer.

use crate::error::{Error, Result};

/// The longest row that the ops accept: 2^30 elements, so that a row index fits `i32` and a
/// random word index fits its counter (see [`crate::rng`]).
pub const MAX_ROW: usize = 1 << 30;

/// A borrowed ragged array: row `r` is `values[offsets[r]..offsets[r + 1]]`.
///
/// Offsets are validated once, here; whoever holds a `Ragged` may slice without asking again.
///
/// ```
/// use variegate_core::Ragged;
/// let rows = Ragged::new(&[5u32, 6, 7], &[0, 2, 2, 3])?;
/// assert_eq!(rows.iter().map(|row| row.len()).collect::<Vec<_>>(), [2, 0, 1]);
/// # Ok::<(), variegate_core::Error>(())
/// ```
#[derive(Debug)]
pub struct Ragged<'a, T> {
    values: &'a [T],
    offsets: &'a [i64],
}

impl<T> Clone for Ragged<'_, T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for Ragged<'_, T> {}

impl<'a, T> Ragged<'a, T> {
    /// Checks that offsets start at 0, never decrease and end at `values.len()`.
    ///
    /// # Errors
    /// Names the first row that breaks the rule, with the numbers. Cost: one pass over the offsets.
    pub fn new(values: &'a [T], offsets: &'a [i64]) -> Result<Self> {
        check_offsets(offsets, values.len())?;
        Ok(Ragged { values, offsets })
    }

    /// Number of rows.
    pub fn rows(&self) -> usize {
        self.offsets.len() - 1
    }

    /// All values, rows one after another.
    pub fn values(&self) -> &'a [T] {
        self.values
    }

    /// Start of each row, and the end of the last: `rows + 1` numbers.
    pub fn offsets(&self) -> &'a [i64] {
        self.offsets
    }

    /// The values of row `r`.
    ///
    /// # Panics
    /// If `r >= rows()`.
    #[inline]
    pub fn row(&self, r: usize) -> &'a [T] {
        &self.values[self.range(r)]
    }

    /// Where row `r` lies in [`values`](Self::values).
    #[inline]
    pub fn range(&self, r: usize) -> std::ops::Range<usize> {
        self.offsets[r] as usize..self.offsets[r + 1] as usize
    }

    /// The rows in order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &'a [T]> + '_ {
        (0..self.rows()).map(|r| self.row(r))
    }
}

/// An owned ragged array, filled row by row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RaggedBuf<T> {
    /// All values, rows one after another.
    pub values: Vec<T>,
    /// Start of each row, and the end of the last.
    pub offsets: Vec<i64>,
}

impl<T> Default for RaggedBuf<T> {
    fn default() -> Self {
        RaggedBuf { values: Vec::new(), offsets: vec![0] }
    }
}

impl<T> RaggedBuf<T> {
    /// An empty array with room for `rows` rows and `values` values.
    pub fn with_capacity(rows: usize, values: usize) -> Self {
        let mut offsets = Vec::with_capacity(rows + 1);
        offsets.push(0);
        RaggedBuf { values: Vec::with_capacity(values), offsets }
    }

    /// Ends the current row: what was pushed to `values` since the last call becomes a row.
    pub fn end_row(&mut self) {
        self.offsets.push(self.values.len() as i64);
    }

    /// The array as a borrowed view; valid by construction.
    pub fn view(&self) -> Ragged<'_, T> {
        Ragged { values: &self.values, offsets: &self.offsets }
    }

    /// Appends all rows of `other`.
    pub fn append(&mut self, other: &mut RaggedBuf<T>) {
        let base = self.values.len() as i64;
        self.values.append(&mut other.values);
        self.offsets.extend(other.offsets.drain(..).skip(1).map(|o| o + base));
    }
}

/// The rule behind [`Ragged::new`], for callers that hold only the offsets.
///
/// # Errors
/// As [`Ragged::new`].
pub fn check_offsets(offsets: &[i64], values: usize) -> Result<()> {
    let (Some(&first), Some(&last)) = (offsets.first(), offsets.last()) else {
        return Err(Error::invalid("offsets must hold rows + 1 numbers, but it is empty: pass [0] for no rows"));
    };
    if first != 0 {
        return Err(Error::invalid(format!("offsets must start at 0 (it starts at {first})")));
    }
    if let Some(row) = offsets.windows(2).position(|pair| pair[1] < pair[0]) {
        return Err(Error::invalid(format!(
            "offsets must not decrease (row {row}: {} > {})",
            offsets[row],
            offsets[row + 1]
        )));
    }
    if last as usize != values {
        return Err(Error::invalid(format!("offsets must end at the number of values ({last} != {values})")));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn message(offsets: &[i64], values: usize) -> String {
        check_offsets(offsets, values).unwrap_err().to_string()
    }

    #[test]
    fn broken_offsets_are_named() {
        assert_eq!(message(&[], 0), "offsets must hold rows + 1 numbers, but it is empty: pass [0] for no rows");
        assert_eq!(message(&[1, 2], 2), "offsets must start at 0 (it starts at 1)");
        assert_eq!(message(&[0, 40, 38], 38), "offsets must not decrease (row 1: 40 > 38)");
        assert_eq!(message(&[0, 2], 3), "offsets must end at the number of values (2 != 3)");
        assert_eq!(message(&[0, -1], 0), "offsets must not decrease (row 0: 0 > -1)");
    }

    proptest! {
        #[test]
        fn rows_survive_building_and_viewing(rows in prop::collection::vec(prop::collection::vec(any::<u32>(), 0..9), 0..9)) {
            let mut buf = RaggedBuf::default();
            for row in &rows {
                buf.values.extend_from_slice(row);
                buf.end_row();
            }
            let view = Ragged::new(&buf.values, &buf.offsets).unwrap();
            prop_assert_eq!(view.rows(), rows.len());
            prop_assert!(view.iter().eq(rows.iter().map(Vec::as_slice)));
        }

        #[test]
        fn any_offsets_are_accepted_or_refused_without_panic(offsets in prop::collection::vec(-3i64..9, 0..6), n in 0usize..9) {
            let values = vec![0u8; n];
            if let Ok(view) = Ragged::new(&values, &offsets) {
                prop_assert_eq!(view.iter().map(<[u8]>::len).sum::<usize>(), n);
            }
        }
    }
}
