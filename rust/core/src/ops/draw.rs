//! How ops draw: a roll per position, and integers where a roll hit.

use super::runs::Runs;
use crate::rng::Stream;
use crate::simd::Level;

/// The draws of one op for one row, with room that is reused from row to row.
///
/// Word `i` of a lane belongs to position `i` of the row, so that a retuned rate keeps the draws: lane 0 decides where,
/// lanes 1 to 15 decide what.
#[derive(Debug)]
pub(crate) struct Draw {
    pub(crate) stream: Stream,
    pub(crate) level: Level,
    words: Vec<u32>,
    seconds: Vec<u32>,
    thirds: Vec<u32>,
    marks: Vec<u8>,
    pub(crate) runs: Runs,
}

impl Draw {
    pub(crate) fn new(level: Level) -> Self {
        Draw {
            stream: Stream::new(0, 0, 0),
            level,
            words: Vec::new(),
            seconds: Vec::new(),
            thirds: Vec::new(),
            marks: Vec::new(),
            runs: Runs::default(),
        }
    }

    /// A roll per position, uniform in [0, 2^24): below `threshold(p)` with probability `p`. A protected position
    /// rolls 2^24 or more, which no threshold exceeds.
    pub(crate) fn rolls(&mut self, n: usize, protected: Option<&[u8]>) -> &[u32] {
        let rolls = room(&mut self.words, n);
        self.stream.fill(self.level, 0, rolls);
        match protected {
            None => rolls.iter_mut().for_each(|word| *word >>= 8),
            Some(protected) => {
                for (word, &p) in rolls.iter_mut().zip(protected) {
                    *word = *word >> 8 | u32::from(p) << 24;
                }
            }
        }
        rolls
    }

    /// The positions, ascending, whose [roll](Self::rolls) lies below `limit`.
    pub(crate) fn hits(&mut self, n: usize, protected: Option<&[u8]>, limit: u32) -> &[u32] {
        if limit == 0 {
            return &[];
        }
        let mut hits = std::mem::take(&mut self.seconds);
        room(&mut hits, n + 1);
        let mut count = 0;
        for (i, &roll) in self.rolls(n, protected).iter().enumerate() {
            hits[count] = i as u32;
            count += usize::from(roll < limit);
        }
        self.seconds = hits;
        &self.seconds[..count]
    }

    /// [`rolls`](Self::rolls), and word `i` of lane 1 for each position `i`: where more than one position in a hundred
    /// needs its integer, the whole lane costs less than [`below_at`].
    pub(crate) fn rolls_and_words(&mut self, n: usize, protected: Option<&[u8]>) -> (&[u32], &[u32]) {
        self.stream.fill(self.level, 1, room(&mut self.seconds, n));
        self.rolls(n, protected);
        (&self.words[..n], &self.seconds[..n])
    }

    /// Words `0..n` of lanes 0, 1 and 2.
    pub(crate) fn lanes(&mut self, n: usize) -> [&mut [u32]; 3] {
        let mut lanes = [room(&mut self.words, n), room(&mut self.seconds, n), room(&mut self.thirds, n)];
        for (lane, words) in lanes.iter_mut().enumerate() {
            self.stream.fill(self.level, lane as u32, words);
        }
        lanes
    }

    /// Room for a byte per position; it holds rubbish.
    pub(crate) fn marks(&mut self, n: usize) -> &mut [u8] {
        room(&mut self.marks, n)
    }
}

/// A uniform integer below `n` for position `i`: multiply-high, drawn again from the next lane while the low half
/// says that the result would be biased. Lanes `first..=15`; what the last one gives is taken (for a vocabulary of a
/// million that happens once in 2^168 draws).
#[inline]
pub(crate) fn below_at(stream: &Stream, first: u32, i: usize, n: u32) -> u32 {
    let mut lane = first;
    loop {
        let product = u64::from(stream.word(lane, i)) * u64::from(n);
        let low = product as u32;
        if low >= n || low >= n.wrapping_neg() % n || lane == 15 {
            return (product >> 32) as u32;
        }
        lane += 1;
    }
}

/// One step of [`below_at`]: the integer, and whether to draw again. `unfair` is 2^32 modulo `n`.
#[inline(always)]
pub(crate) fn below(word: u32, n: u32, unfair: u32) -> (u32, bool) {
    let product = u64::from(word) * u64::from(n);
    ((product >> 32) as u32, (product as u32) < unfair)
}

/// The first `n` elements of a scratch buffer, which grows and is never cleared.
#[inline]
pub(crate) fn room<T: Copy + Default>(buffer: &mut Vec<T>, n: usize) -> &mut [T] {
    if buffer.len() < n {
        buffer.resize(n.next_power_of_two(), T::default());
    }
    &mut buffer[..n]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::{hit, threshold};

    #[test]
    fn a_roll_is_a_hit_and_a_protected_position_never_rolls_one() {
        let mut draw = Draw::new(crate::simd::level());
        draw.stream = Stream::new(1, 2, 3);
        let protected: Vec<u8> = (0..100).map(|i| u8::from(i % 3 == 0)).collect();
        for p in [0.0, 0.3, 1.0] {
            let rolls = draw.rolls(100, Some(&protected)).to_vec();
            for (i, roll) in rolls.into_iter().enumerate() {
                let expected = hit(draw.stream.word(0, i), threshold(p)) && i % 3 != 0;
                assert_eq!(roll < threshold(p), expected, "{p} {i}");
            }
        }
    }

    #[test]
    fn integers_at_positions_are_uniform() {
        let stream = Stream::new(5, 0, 9);
        let n = 3 << 29;
        let mut thirds = [0u32; 3];
        for i in 0..30_000 {
            thirds[(below_at(&stream, 1, i, n) / (1 << 29)) as usize] += 1;
        }
        let chi: f64 = thirds.iter().map(|&c| (f64::from(c) - 1e4).powi(2) / 1e4).sum();
        assert!(chi < 27.7, "{thirds:?}");
    }
}
