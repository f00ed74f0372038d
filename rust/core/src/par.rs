//! Rows -> threads -> rows, output order fixed.
//!
//! The pool is ours, built when it is first needed. A forked child (a DataLoader worker) inherits a pool without
//! threads; it runs serially instead of waiting for them.

use std::mem::{ManuallyDrop, MaybeUninit};
use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use rayon::ThreadPool;
use rayon::prelude::*;

use crate::room::with_room;

struct Pool {
    pool: Arc<ThreadPool>,
    pid: u32,
    threads: usize,
}

static POOL: Mutex<Option<Pool>> = Mutex::new(None);
/// What the user asked for; 0 until they do.
static ASKED: AtomicUsize = AtomicUsize::new(0);
/// The process that first asked for the number of threads: a child forked from it runs serially.
static HOME: AtomicUsize = AtomicUsize::new(0);

/// How many threads the next call may use: what [`set_threads`] said, else `RAYON_NUM_THREADS`, else the processors
/// this process may run on; 1 in a process forked from one that had used the pool.
pub fn threads() -> usize {
    let pid = std::process::id() as usize;
    if HOME.compare_exchange(0, pid, Ordering::Relaxed, Ordering::Relaxed).is_err_and(|home| home != pid) {
        return 1;
    }
    match ASKED.load(Ordering::Relaxed) {
        0 => std::env::var("RAYON_NUM_THREADS")
            .ok()
            .and_then(|n| n.parse().ok())
            .filter(|&n| n > 0)
            .unwrap_or_else(|| std::thread::available_parallelism().map_or(1, usize::from)),
        n => n,
    }
}

/// Sets the number of threads of this process, from the next call on; 0 goes back to the default.
pub fn set_threads(n: usize) {
    ASKED.store(n, Ordering::Relaxed);
}

/// Calls `work` on consecutive ranges of rows and returns the results in row order.
///
/// Ranges hold about `grain` units of `weight` each (tokens, say), where `offsets` says how much lies before a row;
/// the results must not depend on where the cuts fall. With one thread, or one grain, there is one range and no pool.
pub fn map_rows<R: Send>(offsets: &[i64], grain: usize, work: impl Fn(Range<usize>) -> R + Sync) -> Vec<R> {
    let rows = offsets.len() - 1;
    let total = offsets[rows] as usize + rows;
    if total <= grain || rows < 2 {
        return vec![work(0..rows)];
    }
    if threads() == 1 {
        return vec![work(0..rows)];
    }
    let cuts = cuts(offsets, grain);
    map_tasks(cuts.len() - 1, |i| work(cuts[i]..cuts[i + 1]))
}

/// Consecutive ranges of rows of about `grain` units: range `i` is `cuts[i]..cuts[i + 1]`.
fn cuts(offsets: &[i64], grain: usize) -> Vec<usize> {
    let rows = offsets.len() - 1;
    let mut cuts = vec![0];
    let mut next = grain;
    for (row, &offset) in offsets.iter().enumerate().take(rows).skip(1) {
        let weight = offset as usize + row;
        if weight >= next {
            cuts.push(row);
            next = weight + grain;
        }
    }
    cuts.push(rows);
    cuts
}

/// Calls `step` with the number of a range and its rows on consecutive ranges, as [`map_rows`] cuts them, with one
/// state per thread, and returns the states.
///
/// Threads take ranges in turn, this thread among them; one whose step returns false takes no more, and one that came too
/// late has no state. Where [`splits`] says no, there is one range.
pub fn fold_rows<S: Send>(
    offsets: &[i64],
    grain: usize,
    init: impl Fn() -> S + Sync,
    step: impl Fn(&mut S, usize, Range<usize>) -> bool + Sync,
) -> Vec<S> {
    let pool = if splits(offsets, grain) { pool() } else { None };
    let Some(pool) = pool else {
        let mut state = init();
        step(&mut state, 0, 0..offsets.len() - 1);
        return vec![state];
    };
    let cuts = cuts(offsets, grain);
    let next = AtomicUsize::new(0);
    let take = || Some(next.fetch_add(1, Ordering::Relaxed)).filter(|&range| range + 1 < cuts.len());
    let states = Mutex::new(Vec::new());
    let fold = || {
        let Some(mut range) = take() else { return };
        let mut state = init();
        while step(&mut state, range, cuts[range]..cuts[range + 1]) {
            match take() {
                Some(another) => range = another,
                None => break,
            }
        }
        states.lock().unwrap_or_else(PoisonError::into_inner).push(state);
    };
    pool.in_place_scope(|scope| {
        (1..pool.current_num_threads()).for_each(|_| scope.spawn(|_| fold()));
        fold();
    });
    states.into_inner().unwrap_or_else(PoisonError::into_inner)
}

/// Whether [`fold_rows`] would cut these rows.
pub fn splits(offsets: &[i64], grain: usize) -> bool {
    let rows = offsets.len() - 1;
    rows > 1 && offsets[rows] as usize + rows > grain && threads() > 1
}

/// A vector of which each thread writes parts.
pub(crate) struct Shared<T> {
    values: Vec<MaybeUninit<T>>,
    start: *mut MaybeUninit<T>,
    written: AtomicUsize,
}

// SAFETY: threads only call `write`, whose callers keep to parts of their own.
unsafe impl<T: Send> Sync for Shared<T> {}
// SAFETY: it owns what `start` points to.
unsafe impl<T: Send> Send for Shared<T> {}

impl<T: Copy> Shared<T> {
    /// With room for `n` values.
    pub(crate) fn new(n: usize) -> Self {
        let mut values = with_room(n);
        // SAFETY: there is room, and these values need not be initialised.
        unsafe { values.set_len(n) }
        Shared { start: values.as_mut_ptr(), values, written: AtomicUsize::new(0) }
    }

    /// How many values there is room for.
    pub(crate) fn room(&self) -> usize {
        self.values.len()
    }

    /// Makes room for `n` values.
    pub(crate) fn grow(&mut self, n: usize) {
        if n > self.values.len() {
            self.values.resize(n, MaybeUninit::uninit());
            self.start = self.values.as_mut_ptr();
        }
    }

    /// Writes the values from place `at` on.
    ///
    /// # Safety
    /// No other call may write these places.
    pub(crate) unsafe fn write(&self, at: usize, values: &[T]) {
        assert!(at + values.len() <= self.values.len());
        // SAFETY: the places lie within the vector and belong to this call.
        unsafe { self.start.add(at).cast::<T>().copy_from_nonoverlapping(values.as_ptr(), values.len()) }
        self.written.fetch_add(values.len(), Ordering::Relaxed);
    }

    /// The vector of the first `n` values.
    ///
    /// # Panics
    /// If one of them was not written, or others were.
    pub(crate) fn finish(self, n: usize) -> Vec<T> {
        assert_eq!(self.written.into_inner(), n, "every place must be written");
        let mut values = ManuallyDrop::new(self.values);
        // SAFETY: no place was written twice, so the first `n` were.
        unsafe { Vec::from_raw_parts(values.as_mut_ptr().cast(), n, values.capacity()) }
    }
}

/// Calls `work` on `0..tasks` and returns the results in order, for work that is not cut by rows.
pub fn map_tasks<R: Send>(tasks: usize, work: impl Fn(usize) -> R + Sync) -> Vec<R> {
    match pool().filter(|_| tasks > 1) {
        Some(pool) => pool.install(|| (0..tasks).into_par_iter().map(&work).collect()),
        None => (0..tasks).map(work).collect(),
    }
}

/// Calls `work` inside the pool, so that the parallel iterators of another crate use our threads and not their own.
///
/// Where one thread is all there is, `work` runs on this one, and must not reach for a pool itself.
pub fn install<R: Send>(work: impl FnOnce() -> R + Send) -> R {
    match pool() {
        Some(pool) => pool.install(work),
        None => work(),
    }
}

/// The pool, or nothing where one thread is all there is.
fn pool() -> Option<Arc<ThreadPool>> {
    let threads = threads();
    if threads == 1 {
        return None;
    }
    let pid = std::process::id();
    let mut slot = POOL.lock().unwrap_or_else(PoisonError::into_inner);
    if !matches!(&*slot, Some(p) if p.pid == pid && p.threads == threads) {
        let built =
            rayon::ThreadPoolBuilder::new().num_threads(threads).thread_name(|i| format!("variegate-{i}")).build();
        let pool = Arc::new(built.ok()?);
        // Dropping a pool of another process would wait for threads that do not exist here.
        if let Some(old) = slot.replace(Pool { pool, pid, threads })
            && old.pid != pid
        {
            std::mem::forget(old);
        }
    }
    slot.as_ref().map(|p| Arc::clone(&p.pool))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn ranges_cover_every_row_once_and_in_order(lengths in prop::collection::vec(0i64..50, 0..40), grain in 1usize..200) {
            let mut offsets = vec![0];
            for n in &lengths {
                offsets.push(offsets[offsets.len() - 1] + n);
            }
            let rows: Vec<usize> = map_rows(&offsets, grain, |range| range.collect::<Vec<_>>()).concat();
            prop_assert!(rows.into_iter().eq(0..lengths.len()));

            let states = fold_rows(&offsets, grain, Vec::new, |state: &mut Vec<_>, i, range| {
                state.push((i, range));
                true
            });
            prop_assert!(states.iter().all(|state| state.is_sorted_by_key(|(i, _)| *i)));
            let mut found = states.concat();
            found.sort_unstable_by_key(|(i, _)| *i);
            prop_assert!(found.into_iter().flat_map(|(_, range)| range).eq(0..lengths.len()));
        }

        #[test]
        fn what_threads_share_is_whole(lengths in prop::collection::vec(0i64..50, 1..40), grain in 1usize..50) {
            let mut offsets = vec![0];
            for n in &lengths {
                offsets.push(offsets[offsets.len() - 1] + n);
            }
            let n = offsets[lengths.len()] as usize;
            let mut shared = Shared::new(n / 2);
            shared.grow(n + 1);
            fold_rows(&offsets, grain, || (), |(), _, range| {
                let (from, to) = (offsets[range.start] as usize, offsets[range.end] as usize);
                // SAFETY: ranges do not overlap.
                unsafe { shared.write(from, &(from..to).collect::<Vec<_>>()) }
                true
            });
            prop_assert!(shared.finish(n).into_iter().eq(0..n));
        }
    }
}
