//! Windows: every run of `length` units, of any length, as one 32-bit hash; and tables of them.
//!
//! Hashes are made by doubling: that of `2k` units is a mixture of those of its halves, so a window takes a logarithmic
//! number of steps, each of which runs over a block of windows in vector registers. A hash only proposes: whoever
//! finds two windows of one hash compares their units.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::error::{Error, Result};
use crate::room::with_room;
use crate::simd::{Level, multiversion};

/// The longest window.
pub const MAX_WINDOW: usize = 1 << 16;

/// How far ahead windows are looked up.
pub const AHEAD: usize = 12;

/// How many windows are hashed at a time.
pub const BLOCK: usize = 2048;

/// What rows are made of: token ids are `u32`, words are 64-bit hashes.
pub trait Token: Copy + Eq + Send + Sync + std::fmt::Debug {
    /// Hashes the windows that start at `units[0]`, `units[1]`, ... into the first `units.len() + 1 - length` values
    /// of `out`; both buffers are as long as `units`, which is at least `length`.
    fn hashes(level: Level, units: &[Self], length: usize, out: &mut [u32], spare: &mut [u32]);
}

/// A unit as a 32-bit hash.
trait Scatter: Copy {
    fn scatter(self) -> u32;
}

impl Scatter for u32 {
    #[inline(always)]
    fn scatter(self) -> u32 {
        let mixed = self.wrapping_mul(0x9E37_79B1);
        (mixed ^ mixed >> 15).wrapping_mul(0x85EB_CA77)
    }
}

impl Scatter for u64 {
    #[inline(always)]
    fn scatter(self) -> u32 {
        (self.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 32) as u32
    }
}

impl Token for u32 {
    fn hashes(level: Level, units: &[u32], length: usize, out: &mut [u32], spare: &mut [u32]) {
        hashes_u32(level, units, length, out, spare);
    }
}

impl Token for u64 {
    fn hashes(level: Level, units: &[u64], length: usize, out: &mut [u32], spare: &mut [u32]) {
        hashes_u64(level, units, length, out, spare);
    }
}

multiversion! { fn hashes_u32(units: &[u32], length: usize, out: &mut [u32], spare: &mut [u32]) = hashes_body }
multiversion! { fn hashes_u64(units: &[u64], length: usize, out: &mut [u32], spare: &mut [u32]) = hashes_body }

#[inline(always)]
fn hashes_body<T: Scatter>(units: &[T], length: usize, out: &mut [u32], spare: &mut [u32]) {
    let steps = length.ilog2() + u32::from(!length.is_power_of_two());
    // The last step writes to `out`.
    let (mut from, mut to) = if steps.is_multiple_of(2) { (out, spare) } else { (spare, out) };
    for (hash, &unit) in from.iter_mut().zip(units) {
        *hash = unit.scatter();
    }
    let mut covered = 1;
    while covered < length {
        // The second half of the last step may overlap the first.
        let step = covered.min(length - covered);
        let count = units.len() + 1 - covered - step;
        for ((hash, &left), &right) in to[..count].iter_mut().zip(&from[..count]).zip(&from[step..]) {
            *hash = (left ^ left >> 15).wrapping_mul(0x2C1B_3C6D).wrapping_add(right);
        }
        (from, to) = (to, from);
        covered += step;
    }
}

/// Hashes windows of one length, a block at a time.
#[derive(Debug, Clone)]
pub struct Windows {
    length: usize,
    level: Level,
    out: Vec<u32>,
    spare: Vec<u32>,
}

impl Windows {
    /// Windows of `length` units.
    pub fn new(length: usize, level: Level) -> Self {
        debug_assert!(length >= 1);
        Windows { length, level, out: vec![], spare: vec![] }
    }

    /// The hashes of all windows of `units`, which are not fewer than a window has.
    #[inline]
    pub fn hashes<T: Token>(&mut self, units: &[T]) -> &[u32] {
        if self.out.len() < units.len() {
            self.out.resize(units.len(), 0);
            self.spare.resize(units.len(), 0);
        }
        let (out, spare) = (&mut self.out[..units.len()], &mut self.spare[..units.len()]);
        T::hashes(self.level, units, self.length, out, spare);
        &out[..units.len() + 1 - self.length]
    }

    /// How many windows to hash at a time, so that what they share with the next block counts for little.
    pub fn block(&self) -> usize {
        BLOCK.max(2 * self.length)
    }
}

/// Refuses a length that windows cannot have.
///
/// # Errors
/// Names the parameter and the value.
pub fn check_length(name: &str, length: usize) -> Result<()> {
    if !(1..=MAX_WINDOW).contains(&length) {
        return Err(Error::invalid(format!("{name} must lie in 1 to {MAX_WINDOW} (it is {length})")));
    }
    Ok(())
}

/// How many units two slices have in common at their start.
#[inline]
pub fn common_start<T: Token>(a: &[T], b: &[T]) -> usize {
    const STEP: usize = 16;
    let n = a.len().min(b.len());
    let mut at = 0;
    while at + STEP <= n && a[at..at + STEP] == b[at..at + STEP] {
        at += STEP;
    }
    at + a[at..n].iter().zip(&b[at..n]).take_while(|(x, y)| x == y).count()
}

/// How many units two slices have in common at their end.
#[inline]
pub fn common_end<T: Token>(a: &[T], b: &[T]) -> usize {
    a.iter().rev().zip(b.iter().rev()).take_while(|(x, y)| x == y).count()
}

/// A set of hashes in so many bits that few others seem to be in it. Threads may add to it at once.
#[derive(Debug)]
pub struct Bits {
    words: Vec<AtomicU64>,
    shift: u32,
}

impl Bits {
    /// Room for `count` hashes; of other hashes one in sixteen, or fewer, will seem to be in the set.
    pub fn new(count: usize) -> Self {
        let bits = (count * 16).next_power_of_two().clamp(64, 1 << 32);
        let mut words = with_room(bits / 64);
        words.resize_with(bits / 64, AtomicU64::default);
        Bits { words, shift: 32 - bits.ilog2() }
    }

    #[inline(always)]
    fn place(&self, hash: u32) -> (usize, u64) {
        let bit = hash.wrapping_mul(0x9E37_79B1) >> self.shift;
        (bit as usize / 64, 1 << (bit % 64))
    }

    /// Adds a hash; whether it seemed to be there already.
    #[inline]
    pub fn insert(&self, hash: u32) -> bool {
        let (word, bit) = self.place(hash);
        // A bit never goes away again.
        self.words[word].load(Ordering::Relaxed) & bit != 0
            || self.words[word].fetch_or(bit, Ordering::Relaxed) & bit != 0
    }

    /// Adds a hash where no other thread does.
    #[inline]
    pub fn add(&mut self, hash: u32) {
        let (word, bit) = self.place(hash);
        *self.words[word].get_mut() |= bit;
    }

    /// Writes which of the hashes seem to be in the set, by number, and returns how many; `out` is as long as `hashes`.
    #[inline]
    pub fn select(&self, level: Level, hashes: &[u32], out: &mut [u32]) -> usize {
        select(level, self, hashes, out)
    }

    /// Whether a hash seems to be in the set.
    #[inline(always)]
    pub fn has(&self, hash: u32) -> bool {
        let (word, bit) = self.place(hash);
        self.words[word].load(Ordering::Relaxed) & bit != 0
    }
}

multiversion! { fn select(bits: &Bits, hashes: &[u32], out: &mut [u32]) -> usize = select_body }

#[inline(always)]
fn select_body(bits: &Bits, hashes: &[u32], out: &mut [u32]) -> usize {
    let mut count = 0;
    for (number, &hash) in (0..).zip(hashes) {
        // Written anyway, and counted where the hash is there: no branch to guess.
        out[count] = number;
        count += usize::from(bits.has(hash));
    }
    count
}

/// Which hashes come more than once, and a few others.
#[derive(Debug)]
pub struct Recurring {
    once: Bits,
    twice: Bits,
}

impl Recurring {
    /// Room for `count` hashes.
    pub fn new(count: usize) -> Self {
        Recurring { once: Bits::new(count), twice: Bits::new(count) }
    }

    /// Counts a hash.
    #[inline]
    pub fn add(&self, hash: u32) {
        if self.once.insert(hash) {
            self.twice.insert(hash);
        }
    }

    /// Whether a hash was added more than once; of those that were not, some seem so too.
    #[inline]
    pub fn has(&self, hash: u32) -> bool {
        self.twice.has(hash)
    }
}

/// Different windows, numbered in the order in which they come, each by a hash and a place where it lies.
#[derive(Debug, Clone)]
pub struct Table {
    /// Hash in the upper half, number plus one in the lower; 0 is free.
    slots: Vec<u64>,
    places: Vec<u64>,
}

impl Default for Table {
    fn default() -> Self {
        Table::with_room(500)
    }
}

impl Table {
    /// Room for `count` windows, before it has to grow.
    pub fn with_room(count: usize) -> Self {
        let size = (2 * count + 2).next_power_of_two();
        let mut slots = with_room(size);
        slots.resize(size, 0);
        Table { slots, places: vec![] }
    }

    /// Where each window lies, by number.
    pub fn places(&self) -> &[u64] {
        &self.places
    }

    #[inline]
    fn slot(&self, hash: u32) -> usize {
        let spread = u64::from(hash.wrapping_mul(0x85EB_CA6B)) << 32 | u64::from(hash);
        (spread >> (64 - self.slots.len().ilog2())) as usize
    }

    /// Asks the processor to have the place of a hash at hand.
    #[inline]
    pub fn prefetch(&self, hash: u32) {
        #[cfg(target_arch = "x86_64")]
        {
            use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
            // SAFETY: a prefetch reads nothing, and SSE is in the baseline.
            unsafe { _mm_prefetch::<_MM_HINT_T0>(self.slots.as_ptr().wrapping_add(self.slot(hash)).cast()) }
        }
        #[cfg(not(target_arch = "x86_64"))]
        let _ = hash;
    }

    /// The number of the window with this hash for whose place `equal` holds; else the free slot.
    #[inline]
    fn probe(&self, hash: u32, mut equal: impl FnMut(u64) -> bool) -> std::result::Result<u32, usize> {
        let mut at = self.slot(hash);
        loop {
            let slot = self.slots[at];
            if slot == 0 {
                return Err(at);
            }
            if (slot >> 32) as u32 == hash {
                let number = slot as u32 - 1;
                if equal(self.places[number as usize]) {
                    return Ok(number);
                }
            }
            at = (at + 1) & (self.slots.len() - 1);
        }
    }

    /// The number of a window.
    #[inline]
    pub fn find(&self, hash: u32, equal: impl FnMut(u64) -> bool) -> Option<u32> {
        self.probe(hash, equal).ok()
    }

    /// The number of a window, and whether it was there before; it lies at `place`.
    #[inline]
    pub fn find_or_insert(&mut self, hash: u32, place: u64, equal: impl FnMut(u64) -> bool) -> (u32, bool) {
        match self.probe(hash, equal) {
            Ok(number) => (number, true),
            Err(free) => {
                let number = self.places.len() as u32;
                self.slots[free] = u64::from(hash) << 32 | u64::from(number + 1);
                self.places.push(place);
                if self.places.len() * 2 > self.slots.len() {
                    self.grow();
                }
                (number, false)
            }
        }
    }

    fn grow(&mut self) {
        let size = self.slots.len() * 4;
        let mut slots = with_room(size);
        slots.resize(size, 0);
        let old = std::mem::replace(&mut self.slots, slots);
        for slot in old.into_iter().filter(|&slot| slot != 0) {
            let mut at = self.slot((slot >> 32) as u32);
            while self.slots[at] != 0 {
                at = (at + 1) & (size - 1);
            }
            self.slots[at] = slot;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn hashes<T: Token>(units: &[T], length: usize, level: Level) -> Vec<u32> {
        Windows::new(length, level).hashes(units).to_vec()
    }

    proptest! {
        #[test]
        fn a_hash_is_that_of_its_window_on_every_level(units in prop::collection::vec(any::<u32>(), 1..300), length in 1usize..80) {
            let length = length.min(units.len());
            let wide: Vec<u64> = units.iter().map(|&unit| u64::from(unit) << 20).collect();
            let lowest = Level::available().next().unwrap();
            let narrow: Vec<u32> = units.windows(length).flat_map(|window| hashes(window, length, lowest)).collect();
            let words: Vec<u32> = wide.windows(length).flat_map(|window| hashes(window, length, lowest)).collect();
            for level in Level::available() {
                prop_assert_eq!(&hashes(&units, length, level), &narrow);
                prop_assert_eq!(&hashes(&wide, length, level), &words);
            }
        }

        #[test]
        fn common_parts_are_those_of_comparing_one_by_one(a in prop::collection::vec(0u32..2, 0..70), b in prop::collection::vec(0u32..2, 0..70), shared in prop::collection::vec(0u32..9, 0..70)) {
            let (left, right) = ([&shared[..], &a].concat(), [&shared[..], &b].concat());
            let start = (0..=left.len().min(right.len())).rev().find(|&n| left[..n] == right[..n]).unwrap();
            prop_assert_eq!(common_start(&left, &right), start);
            let (left, right) = ([&a[..], &shared].concat(), [&b[..], &shared].concat());
            let end = (0..=left.len().min(right.len())).rev().find(|&n| left[left.len() - n..] == right[right.len() - n..]);
            prop_assert_eq!(common_end(&left, &right), end.unwrap());
        }

        #[test]
        fn a_table_numbers_windows_by_first_appearance_even_where_hashes_collide(values in prop::collection::vec(0u64..3000, 0..4000), mask in prop::sample::select(vec![0u32, 3, u32::MAX])) {
            let mut table = Table::default();
            let mut order: Vec<u64> = vec![];
            for &value in &values {
                let hash = (value as u32).wrapping_mul(0x9E37_79B1) & mask;
                let at = order.iter().position(|&other| other == value);
                prop_assert_eq!(table.find(hash, |place| place == value), at.map(|at| at as u32));
                let (number, there) = table.find_or_insert(hash, value, |place| place == value);
                prop_assert_eq!((number as usize, there), (at.unwrap_or(order.len()), at.is_some()));
                if at.is_none() {
                    order.push(value);
                }
            }
            prop_assert_eq!(table.places(), order);
        }

        #[test]
        fn what_was_added_twice_recurs(hashes in prop::collection::vec(any::<u32>(), 0..300)) {
            let recurring = Recurring::new(hashes.len());
            let all: Vec<u32> = hashes.iter().chain(&hashes).copied().collect();
            all.iter().for_each(|&hash| recurring.add(hash));
            prop_assert!(hashes.iter().all(|&hash| recurring.has(hash)));
        }
    }

    #[test]
    fn few_hashes_seem_to_be_where_they_are_not() {
        let recurring = Recurring::new(1 << 16);
        let level = crate::simd::level();
        let units: Vec<u32> = (0..1 << 17).collect();
        let hashes = hashes(&units, 50, level);
        let (added, others) = hashes.split_at(1 << 16);
        added.iter().for_each(|&hash| recurring.add(hash));
        assert!(added.iter().filter(|&&hash| recurring.has(hash)).count() < 1 << 13);
        assert!(others.iter().filter(|&&hash| recurring.once.has(hash)).count() < 1 << 13);
        assert!(others.iter().filter(|&&hash| recurring.has(hash)).count() < 1 << 9);
    }
}
