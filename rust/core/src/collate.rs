//! Ragged rows into the rectangles that training loops take, and the order in which loaders read records.

use crate::pack::Side;
use crate::ragged::Ragged;
use crate::rng::{Domain, Stream, op_key};

/// Writes each row into its line of `out`, a `[rows, width]` matrix of 64-bit integers, padded with `pad`.
///
/// `width` is `out.len() / rows`. Cost: one write of the output.
///
/// # Panics
/// If a row is longer than `width`, or `out` is not a whole number of lines.
pub fn pad_into<T: Copy + Into<i64>>(rows: Ragged<'_, T>, side: Side, pad: i64, out: &mut [i64]) {
    fill_lines(rows, side, out, |row, cells, free| {
        cells.iter_mut().zip(row).for_each(|(cell, &value)| *cell = value.into());
        free.fill(pad);
    });
}

/// Writes 1 where [`pad_into`] writes a value and 0 where it pads.
///
/// # Panics
/// As [`pad_into`].
pub fn mask_into<T>(rows: Ragged<'_, T>, side: Side, out: &mut [i64]) {
    fill_lines(rows, side, out, |_, cells, free| {
        cells.fill(1);
        free.fill(0);
    });
}

fn fill_lines<T>(rows: Ragged<'_, T>, side: Side, out: &mut [i64], fill: impl Fn(&[T], &mut [i64], &mut [i64])) {
    if out.is_empty() {
        assert!(rows.values().is_empty(), "the matrix has no cell");
        return;
    }
    assert_eq!(out.len() % rows.rows(), 0, "the matrix must have a line per row");
    let width = out.len() / rows.rows();
    for (row, line) in rows.iter().zip(out.chunks_exact_mut(width)) {
        let (cells, free) = match side {
            Side::Right => line.split_at_mut(row.len()),
            Side::Left => {
                let (free, cells) = line.split_at_mut(width - row.len());
                (cells, free)
            }
        };
        fill(row, cells, free);
    }
}

/// A permutation of the records that depends on their identities, `seed` and `epoch`, never on their positions.
///
/// Returns positions in the order to read: record `i` before record `j` where the 64-bit draw of `ids[i]` is smaller.
/// Records of equal identity stand beside each other, in position order. Cost: O(n log n).
pub fn shuffled(ids: &[u64], seed: u64, epoch: u32) -> Vec<i64> {
    let key = op_key(Domain::Ops, seed, "loaders/shuffle", 0);
    let mut drawn: Vec<(u64, u64, i64)> = ids
        .iter()
        .zip(0..)
        .map(|(&id, position)| {
            let stream = Stream::new(key, epoch, id);
            (u64::from(stream.word(0, 0)) << 32 | u64::from(stream.word(0, 1)), id, position)
        })
        .collect();
    drawn.sort_unstable();
    drawn.into_iter().map(|(_, _, position)| position).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn rows_are_padded_on_either_side() {
        let rows = Ragged::new(&[1u32, 2, u32::MAX], &[0, 1, 1, 3]).unwrap();
        let mut out = [7; 6];
        pad_into(rows, Side::Right, -1, &mut out);
        assert_eq!(out, [1, -1, -1, -1, 2, 4_294_967_295]);
        pad_into(rows, Side::Left, -1, &mut out);
        assert_eq!(out, [-1, 1, -1, -1, 2, 4_294_967_295]);
        mask_into(rows, Side::Left, &mut out);
        assert_eq!(out, [0, 1, 0, 0, 1, 1]);
        pad_into(Ragged::new(&[0i32; 0], &[0, 0]).unwrap(), Side::Left, 0, &mut []);
    }

    /// The values come from a plain Python Philox, written from the contract.
    #[test]
    fn the_order_is_pinned() {
        let ids = [11, 12, 13, 14, 15, 16];
        assert_eq!(shuffled(&ids, 7, 0), [0, 3, 2, 1, 4, 5]);
        assert_eq!(shuffled(&ids, 7, 1), [4, 1, 0, 2, 3, 5]);
        assert_eq!(shuffled(&[(1 << 63) + 5, 1 << 40, 3, u64::MAX, 0, 9], 1 << 63, 5), [1, 2, 5, 0, 4, 3]);
    }

    proptest! {
        #[test]
        fn the_order_follows_the_records(ids in prop::collection::btree_set(any::<u64>(), 0..40), seed: u64, epoch: u32, turn: usize) {
            let ids: Vec<u64> = ids.into_iter().collect();
            let order = shuffled(&ids, seed, epoch);
            let mut sorted = order.clone();
            sorted.sort_unstable();
            prop_assert!(sorted.into_iter().eq(0..ids.len() as i64));
            let mut turned = ids.clone();
            turned.rotate_left(turn % ids.len().max(1));
            let by_id = |ids: &[u64], order: &[i64]| order.iter().map(|&i| ids[i as usize]).collect::<Vec<_>>();
            prop_assert_eq!(by_id(&ids, &order), by_id(&turned, &shuffled(&turned, seed, epoch)));
        }

        #[test]
        fn a_padded_matrix_holds_the_rows_and_nothing_else(lengths in prop::collection::vec(0usize..9, 1..20), more in 0usize..3) {
            let mut offsets = vec![0i64];
            for &n in &lengths {
                offsets.push(offsets[offsets.len() - 1] + n as i64);
            }
            let values: Vec<u32> = (1..=offsets[lengths.len()] as u32).collect();
            let rows = Ragged::new(&values, &offsets).unwrap();
            let width = lengths.iter().max().unwrap() + more;
            for side in [Side::Right, Side::Left] {
                let (mut out, mut mask) = (vec![-7; lengths.len() * width], vec![-7; lengths.len() * width]);
                pad_into(rows, side, 0, &mut out);
                mask_into(rows, side, &mut mask);
                for (r, row) in rows.iter().enumerate() {
                    let line = &out[r * width..][..width];
                    let at = if side == Side::Left { width - row.len() } else { 0 };
                    prop_assert!(line[at..at + row.len()].iter().zip(row).all(|(&cell, &value)| cell == i64::from(value)));
                    prop_assert_eq!(line.iter().filter(|&&cell| cell == 0).count(), width - row.len());
                }
                prop_assert!(out.iter().zip(&mask).all(|(&cell, &on)| on == i64::from(cell != 0)));
            }
        }
    }
}
