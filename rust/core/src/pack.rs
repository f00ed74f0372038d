//! Ragged rows into rectangles: padding, and packing several rows into blocks of one width.
//!
//! Columns of a batch have many element types; both layouts only move whole rows, so they work on bytes and an item
//! size.

use std::collections::BTreeMap;
use std::ops::Range;

/// Which end of a padded row holds the padding.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// The row first, then the padding.
    Right,
    /// The padding first, then the row.
    Left,
}

/// Writes each row into its line of a `[rows, width]` matrix, padded with `pad`.
///
/// `values` are the bytes of the flat buffer, `pad` one item; a row longer than `width` is cut at its end.
/// Returns the bytes of the matrix. Cost: one write of the output.
///
/// # Panics
/// If the offsets do not belong to `values` (see [`crate::ragged::check_offsets`]) or `pad` is empty.
pub fn pad(values: &[u8], offsets: &[i64], width: usize, side: Side, pad: &[u8]) -> Vec<u8> {
    let item = pad.len();
    let mut out = pad.repeat((offsets.len() - 1) * width);
    for (line, row) in out.chunks_exact_mut((width * item).max(1)).zip(offsets.windows(2)) {
        let length = ((row[1] - row[0]) as usize).min(width) * item;
        let start = row[0] as usize * item;
        let at = if side == Side::Left { line.len() - length } else { 0 };
        line[at..at + length].copy_from_slice(&values[start..start + length]);
    }
    out
}

/// A part of a row and where it lies in the packed blocks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Piece {
    /// The row it comes from.
    pub row: usize,
    /// Its tokens, counted over the whole flat buffer.
    pub values: Range<usize>,
    /// Its first cell, counted over all blocks.
    pub cell: usize,
    /// Its number within its block, from 1.
    pub segment: i32,
}

/// Rows laid into blocks of one width.
#[derive(Debug, Clone)]
pub struct Packing {
    /// Every piece, in row order.
    pub pieces: Vec<Piece>,
    /// Number of blocks.
    pub blocks: usize,
    width: usize,
}

impl Packing {
    /// Lays rows into blocks of `width` cells, best fit in row order: a row goes to the fullest block that still has
    /// room for it (the oldest of equals), else it opens a new one. Only a row longer than a block is cut.
    ///
    /// Empty rows have no piece. Cost: O(rows log blocks).
    ///
    /// # Panics
    /// If `width` is 0.
    pub fn new(offsets: &[i64], width: usize) -> Packing {
        assert!(width > 0, "a block must have room");
        let mut packing = Packing { pieces: Vec::with_capacity(offsets.len()), blocks: 0, width };
        let mut segments: Vec<i32> = Vec::new();
        // (room left, block) of every block that is not full.
        let mut open: BTreeMap<(usize, usize), ()> = BTreeMap::new();
        for row in 0..offsets.len() - 1 {
            let (mut start, end) = (offsets[row] as usize, offsets[row + 1] as usize);
            while start < end {
                let length = (end - start).min(width);
                let (room, block) = match open.range((length, 0)..).next() {
                    Some((&slot, ())) => {
                        open.remove(&slot);
                        slot
                    }
                    None => {
                        segments.push(0);
                        (width, segments.len() - 1)
                    }
                };
                segments[block] += 1;
                packing.pieces.push(Piece {
                    row,
                    values: start..start + length,
                    cell: block * width + (width - room),
                    segment: segments[block],
                });
                if room > length {
                    open.insert((room - length, block), ());
                }
                start += length;
            }
        }
        packing.blocks = segments.len();
        packing
    }

    /// The bytes of a `[blocks, width]` matrix of `values`, free cells holding `pad` (one item).
    pub fn place(&self, values: &[u8], pad: &[u8]) -> Vec<u8> {
        let item = pad.len();
        let mut out = pad.repeat(self.blocks * self.width);
        for piece in &self.pieces {
            let length = piece.values.len() * item;
            let (from, to) = (piece.values.start * item, piece.cell * item);
            out[to..to + length].copy_from_slice(&values[from..from + length]);
        }
        out
    }

    /// `[blocks, width]` segment numbers (from 1, 0 in free cells) and position ids (from 0 in each piece).
    pub fn segments_and_positions(&self) -> (Vec<i32>, Vec<i32>) {
        let mut segments = vec![0; self.blocks * self.width];
        let mut positions = segments.clone();
        for piece in &self.pieces {
            let cells = piece.cell..piece.cell + piece.values.len();
            segments[cells.clone()].fill(piece.segment);
            positions[cells].iter_mut().zip(0..).for_each(|(cell, position)| *cell = position);
        }
        (segments, positions)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn offsets(lengths: &[i64]) -> Vec<i64> {
        std::iter::once(0)
            .chain(lengths.iter().scan(0, |sum, n| {
                *sum += n;
                Some(*sum)
            }))
            .collect()
    }

    #[test]
    fn rows_are_padded_on_either_side() {
        let values = [1u8, 2, 3];
        assert_eq!(pad(&values, &[0, 1, 1, 3], 2, Side::Right, &[9]), [1, 9, 9, 9, 2, 3]);
        assert_eq!(pad(&values, &[0, 1, 1, 3], 2, Side::Left, &[9]), [9, 1, 9, 9, 2, 3]);
        assert_eq!(pad(&[], &[0, 0, 0], 0, Side::Left, &[9]), [0u8; 0]);
    }

    #[test]
    fn a_row_goes_to_the_fullest_block_with_room() {
        let packing = Packing::new(&offsets(&[3, 2, 1, 0, 9]), 4);
        let cells: Vec<_> = packing.pieces.iter().map(|p| (p.row, p.cell, p.values.len(), p.segment)).collect();
        assert_eq!(cells, [(0, 0, 3, 1), (1, 4, 2, 1), (2, 3, 1, 2), (4, 8, 4, 1), (4, 12, 4, 1), (4, 6, 1, 2)]);
        assert_eq!(packing.blocks, 4);
    }

    proptest! {
        #[test]
        fn packing_keeps_every_value_once_and_cuts_only_long_rows(lengths in prop::collection::vec(0i64..20, 0..30), width in 1usize..12) {
            let offsets = offsets(&lengths);
            let total = offsets[offsets.len() - 1] as usize;
            let packing = Packing::new(&offsets, width);
            let values: Vec<u8> = (0..total).map(|i| (i % 251) as u8 + 1).collect();
            let placed = packing.place(&values, &[0]);
            let (segments, positions) = packing.segments_and_positions();
            prop_assert_eq!(placed.len(), packing.blocks * width);
            prop_assert_eq!(placed.iter().filter(|&&v| v != 0).count(), total);
            for (cell, &segment) in segments.iter().enumerate() {
                prop_assert_eq!(segment == 0, placed[cell] == 0);
            }
            let mut next = 0;
            for piece in &packing.pieces {
                prop_assert_eq!(piece.values.start, next);
                next = piece.values.end;
                prop_assert_eq!(piece.cell / width, (piece.cell + piece.values.len() - 1) / width);
                prop_assert_eq!(positions[piece.cell + piece.values.len() - 1] as usize + 1, piece.values.len());
                let whole = (offsets[piece.row + 1] - offsets[piece.row]) as usize;
                prop_assert!(piece.values.len() == whole || whole > width);
            }
            prop_assert_eq!(next, total);
        }

        #[test]
        fn padding_keeps_the_head_of_every_row(lengths in prop::collection::vec(0i64..9, 0..20), width in 0usize..9) {
            let offsets = offsets(&lengths);
            let values: Vec<u8> = (0..offsets[offsets.len() - 1] * 2).map(|i| i as u8).collect();
            for side in [Side::Right, Side::Left] {
                let out = pad(&values, &offsets, width, side, &[7, 7]);
                prop_assert_eq!(out.len(), lengths.len() * width * 2);
                for (row, &length) in lengths.iter().enumerate() {
                    let kept = (length as usize).min(width);
                    let at = row * width + if side == Side::Left { width - kept } else { 0 };
                    let start = offsets[row] as usize;
                    prop_assert_eq!(&out[at * 2..(at + kept) * 2], &values[start * 2..(start + kept) * 2]);
                }
            }
        }
    }
}
