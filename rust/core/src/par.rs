//! Rows -> threads -> rows, output order fixed.
//!
//! The pool is ours, built when it is first needed. A forked child (a DataLoader worker) inherits a pool without
//! threads; it runs serially instead of waiting for them.

use std::mem::MaybeUninit;
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

/// What a thread did in [`fold_rows`]: its state, and the numbers of the ranges that went into it, in turn.
#[derive(Debug)]
pub struct Folded<S> {
    /// The state.
    pub state: S,
    /// The ranges: ascending for the first thread, descending for the others.
    pub ranges: Vec<usize>,
}

/// Calls `step` on consecutive ranges of rows, as [`map_rows`] cuts them, with one state per thread.
///
/// The first thread takes ranges from the front and the others take them from the back, until none is left. So the
/// state of the first, which is the first of the result, covers the rows up to some row, and appending to it what the
/// others have is all that is left to do. A thread whose step returns false takes no more ranges. A thread that came
/// too late is not in the result, but the first always is.
pub fn fold_rows<S: Send>(
    offsets: &[i64],
    grain: usize,
    init: impl Fn(usize) -> S + Sync,
    step: impl Fn(&mut S, Range<usize>) -> bool + Sync,
) -> Vec<Folded<S>> {
    let rows = offsets.len() - 1;
    let pool = if splits(offsets, grain) { pool() } else { None };
    let Some(pool) = pool else {
        let mut state = init(0);
        step(&mut state, 0..rows);
        return vec![Folded { state, ranges: vec![0] }];
    };
    let cuts = cuts(offsets, grain);
    let left = Mutex::new(0..cuts.len() - 1);
    let fold = |thread: usize| {
        let take = || {
            let mut left = left.lock().unwrap_or_else(PoisonError::into_inner);
            if thread == 0 { left.next() } else { left.next_back() }
        };
        let mut next = take();
        if next.is_none() && thread > 0 {
            return None;
        }
        let mut folded = Folded { state: init(thread), ranges: Vec::new() };
        while let Some(range) = next {
            folded.ranges.push(range);
            let more = step(&mut folded.state, cuts[range]..cuts[range + 1]);
            next = if more { take() } else { None };
        }
        Some(folded)
    };
    pool.broadcast(|context| fold(context.index())).into_iter().flatten().collect()
}

/// Whether [`fold_rows`] would cut these rows.
pub fn splits(offsets: &[i64], grain: usize) -> bool {
    let rows = offsets.len() - 1;
    rows > 1 && offsets[rows] as usize + rows > grain && threads() > 1
}

/// A vector of a known length, of which each thread writes parts.
pub(crate) struct Shared<T> {
    values: Vec<T>,
    start: *mut T,
    n: usize,
    written: AtomicUsize,
}

// SAFETY: threads only call `write`, whose callers keep to parts of their own.
unsafe impl<T: Send> Sync for Shared<T> {}

impl<T: Copy> Shared<T> {
    pub(crate) fn new(n: usize) -> Self {
        let mut values = with_room(n);
        let start = values.as_mut_ptr();
        Shared { values, start, n, written: AtomicUsize::new(0) }
    }

    /// Writes the values from place `at` on.
    ///
    /// # Safety
    /// No other call may write these places.
    pub(crate) unsafe fn write(&self, at: usize, values: &[T]) {
        assert!(at + values.len() <= self.n);
        // SAFETY: the places lie within the vector's room and belong to this call.
        unsafe { self.start.add(at).copy_from_nonoverlapping(values.as_ptr(), values.len()) }
        self.written.fetch_add(values.len(), Ordering::Relaxed);
    }

    /// The vector.
    ///
    /// # Panics
    /// If some place was not written.
    pub(crate) fn finish(mut self) -> Vec<T> {
        assert_eq!(self.written.into_inner(), self.n, "every place must be written");
        // SAFETY: no place was written twice, so all `n` were.
        unsafe { self.values.set_len(self.n) }
        self.values
    }
}

/// Appends parts to a vector, copied by all threads.
pub(crate) fn append<T: Copy + Send + Sync>(all: &mut Vec<T>, parts: &[&[T]]) {
    /// Elements per task.
    const PIECE: usize = 1 << 16;
    let more = parts.iter().map(|part| part.len()).sum();
    all.reserve(more);
    let mut room = &mut all.spare_capacity_mut()[..more];
    let mut tasks = Vec::new();
    for piece in parts.iter().flat_map(|part| part.chunks(PIECE)) {
        let (here, rest) = room.split_at_mut(piece.len());
        tasks.push((here, piece));
        room = rest;
    }
    let copy = |(to, from): (&mut [MaybeUninit<T>], &[T])| {
        to.iter_mut().zip(from).for_each(|(to, &from)| {
            to.write(from);
        });
    };
    match pool().filter(|_| tasks.len() > 1) {
        Some(pool) => pool.install(|| tasks.into_par_iter().for_each(copy)),
        None => tasks.into_iter().for_each(copy),
    }
    // SAFETY: the tasks wrote each of the `more` elements behind the last.
    unsafe { all.set_len(all.len() + more) }
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

            let folded = fold_rows(&offsets, grain, |_| Vec::new(), |state, range| {
                state.push(range);
                true
            });
            prop_assert!(folded[0].ranges.is_sorted() && folded[0].ranges.first().is_none_or(|&range| range == 0));
            let mut found: Vec<_> = folded.into_iter().flat_map(|f| f.ranges.into_iter().zip(f.state)).collect();
            found.sort_unstable_by_key(|found| found.0);
            prop_assert!(found.into_iter().flat_map(|(_, range)| range).eq(0..lengths.len()));
        }

        #[test]
        fn what_threads_share_is_whole(lengths in prop::collection::vec(0i64..50, 1..40), grain in 1usize..50) {
            let mut offsets = vec![0];
            for n in &lengths {
                offsets.push(offsets[offsets.len() - 1] + n);
            }
            let n = offsets[lengths.len()] as usize;
            let shared = Shared::new(n);
            fold_rows(&offsets, grain, |_| (), |(), range| {
                let (from, to) = (offsets[range.start] as usize, offsets[range.end] as usize);
                // SAFETY: ranges do not overlap.
                unsafe { shared.write(from, &(from..to).collect::<Vec<_>>()) }
                true
            });
            prop_assert!(shared.finish().into_iter().eq(0..n));
        }

        #[test]
        fn parts_are_appended_in_order(parts in prop::collection::vec(prop::collection::vec(any::<u16>(), 0..9), 0..9), large in 0usize..3) {
            let mut all: Vec<u16> = (0..1000).collect();
            let tail = vec![7; large << 16];
            let mut parts: Vec<&[u16]> = parts.iter().map(Vec::as_slice).collect();
            parts.push(&tail);
            append(&mut all, &parts);
            prop_assert_eq!(all, [(0..1000).collect(), parts.concat()].concat());
        }
    }
}
