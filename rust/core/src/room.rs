//! Room for large results.
//!
//! Fresh memory is dear: the kernel clears it page by page, which takes as long as a fast op takes to write it. So large
//! results get huge pages (`with_room`), and what a dropped result leaves serves the next one ([`Recycling`]).

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::{Mutex, TryLockError};

/// An empty vector with room for `n` values.
///
/// Where it is large, the kernel is asked to back it by huge pages, as numpy does for its arrays.
pub(crate) fn with_room<T>(n: usize) -> Vec<T> {
    let vector: Vec<T> = Vec::with_capacity(n);
    #[cfg(target_os = "linux")]
    huge(vector.as_ptr().cast_mut().cast(), n * size_of::<T>());
    vector
}

/// Advises the kernel on `bytes` bytes at `start`, if they are many. That it declines does no harm.
#[cfg(target_os = "linux")]
fn huge(start: *mut std::ffi::c_void, bytes: usize) {
    const LARGE: usize = 4 << 20;
    const PAGE: usize = 4096;
    const MADV_HUGEPAGE: i32 = 14;
    unsafe extern "C" {
        fn madvise(start: *mut std::ffi::c_void, length: usize, advice: i32) -> i32;
    }
    if bytes < LARGE {
        return;
    }
    let skip = start.align_offset(PAGE);
    // SAFETY: the range lies in one allocation of ours, starts at a page (where pages are larger than 4 KiB the call
    // fails and nothing happens), and this advice changes no contents.
    unsafe {
        madvise(start.wrapping_byte_add(skip), bytes - skip, MADV_HUGEPAGE);
    }
}

/// The system's allocator, with a store of large blocks that were freed: at most [`KEPT`] bytes, the oldest of which go
/// first.
#[derive(Debug)]
pub struct Recycling {
    store: Mutex<Store>,
}

impl Default for Recycling {
    fn default() -> Self {
        Recycling::new()
    }
}

/// How many bytes [`Recycling`] keeps.
pub const KEPT: usize = 64 << 20;
/// The size from which blocks are kept, in bytes.
const LARGE: usize = 1 << 20;

/// Freed blocks, the oldest first: where each starts, and how large it is.
#[derive(Debug)]
struct Store {
    blocks: [(usize, usize); KEPT / LARGE],
    count: usize,
    bytes: usize,
}

impl Store {
    /// Takes the youngest block of a size.
    fn take(&mut self, size: usize) -> Option<*mut u8> {
        let at = self.blocks[..self.count].iter().rposition(|block| block.1 == size)?;
        Some(self.remove(at).0)
    }

    fn remove(&mut self, at: usize) -> (*mut u8, usize) {
        let (start, size) = self.blocks[at];
        self.blocks.copy_within(at + 1..self.count, at);
        self.count -= 1;
        self.bytes -= size;
        (std::ptr::with_exposed_provenance_mut(start), size)
    }

    /// Adds a block, for which there is room.
    fn add(&mut self, start: *mut u8, size: usize) {
        self.blocks[self.count] = (start.expose_provenance(), size);
        self.count += 1;
        self.bytes += size;
    }
}

impl Recycling {
    /// With nothing in store.
    pub const fn new() -> Self {
        Recycling { store: Mutex::new(Store { blocks: [(0, 0); KEPT / LARGE], count: 0, bytes: 0 }) }
    }

    /// Calls `work` with the store, unless another thread has it (or had it when this process was forked).
    fn with<R>(&self, work: impl FnOnce(&mut Store) -> R) -> Option<R> {
        match self.store.try_lock() {
            Ok(mut store) => Some(work(&mut store)),
            Err(TryLockError::Poisoned(store)) => Some(work(&mut store.into_inner())),
            Err(TryLockError::WouldBlock) => None,
        }
    }

    /// What is asked of the system for `layout`. Large blocks come in eight sizes between a power of two and the next, so
    /// that a block fits again.
    fn block(layout: Layout) -> (Layout, bool) {
        let size = layout.size();
        if !(LARGE..=KEPT).contains(&size) || layout.align() > 16 {
            return (layout, false);
        }
        let step = 1usize << (size.ilog2() - 3);
        // SAFETY: the alignment is that of a layout, and the size far below the greatest.
        (unsafe { Layout::from_size_align_unchecked(size.next_multiple_of(step), 16) }, true)
    }
}

// SAFETY: blocks come from the system's allocator and go back to it with the layout that `block` gives both times; a block in
// the store is nobody's, and leaves it when it is handed out.
unsafe impl GlobalAlloc for Recycling {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let (block, large) = Self::block(layout);
        let stored = if large { self.with(|store| store.take(block.size())).flatten() } else { None };
        // SAFETY: as above.
        stored.unwrap_or_else(|| unsafe { System.alloc(block) })
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        let (block, large) = Self::block(layout);
        let stored = if large { self.with(|store| store.take(block.size())).flatten() } else { None };
        let Some(start) = stored else {
            // SAFETY: as above.
            return unsafe { System.alloc_zeroed(block) };
        };
        // SAFETY: a stored block is of this size.
        unsafe { start.write_bytes(0, layout.size()) }
        start
    }

    unsafe fn dealloc(&self, start: *mut u8, layout: Layout) {
        let (block, large) = Self::block(layout);
        let kept = large
            && self
                .with(|store| {
                    while store.bytes + block.size() > KEPT {
                        let (oldest, size) = store.remove(0);
                        // SAFETY: as above; kept blocks are aligned to 16.
                        unsafe { System.dealloc(oldest, Layout::from_size_align_unchecked(size, 16)) }
                    }
                    store.add(start, block.size());
                })
                .is_some();
        if !kept {
            // SAFETY: as above.
            unsafe { System.dealloc(start, block) }
        }
    }

    unsafe fn realloc(&self, start: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        let (old, _) = Self::block(layout);
        // SAFETY: the caller promises that the size is not too large for the alignment.
        let (new, _) = Self::block(unsafe { Layout::from_size_align_unchecked(size, layout.align()) });
        if new.size() == old.size() && new.size() >= LARGE {
            return start;
        }
        // SAFETY: as above; the alignments agree or are at most that of every allocation.
        unsafe { System.realloc(start, old, new.size()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_is_room_and_it_can_be_written() {
        for n in [0, 1, 1 << 19, (1 << 20) + 7] {
            let mut vector: Vec<u64> = with_room(n);
            assert!(vector.is_empty() && vector.capacity() >= n);
            vector.extend(0..n as u64);
            assert_eq!(vector.len(), n);
        }
    }

    #[test]
    fn what_is_freed_is_handed_out_again_and_the_store_is_bounded() {
        let room = Recycling::new();
        let layout = |size| Layout::from_size_align(size, 8).unwrap();
        // SAFETY: every block is freed once, with its layout.
        unsafe {
            let first = room.alloc(layout(5 << 20));
            room.dealloc(first, layout(5 << 20));
            let again = room.alloc(layout((5 << 20) - 1000));
            assert_eq!(again, first);
            let grown = room.realloc(again, layout((5 << 20) - 1000), 5 << 20);
            assert_eq!(grown, first);
            room.dealloc(grown, layout(5 << 20));
            let many: Vec<_> =
                (0..40).map(|i| layout((i + 1) << 18)).map(|layout| (room.alloc(layout), layout)).collect();
            for (i, (start, layout)) in many.iter().enumerate() {
                start.write_bytes(i as u8, layout.size());
            }
            for (i, (start, layout)) in many.iter().enumerate() {
                assert!((0..layout.size()).step_by(4096).all(|at| *start.add(at) == i as u8));
                room.dealloc(*start, *layout);
                let store = room.store.lock().unwrap();
                let sum: usize = store.blocks[..store.count].iter().map(|block| block.1).sum();
                assert!(sum == store.bytes && sum <= KEPT);
            }
            let zeroed = room.alloc_zeroed(layout(3 << 20));
            assert!((0..3 << 20).all(|at| *zeroed.add(at) == 0));
            room.dealloc(zeroed, layout(3 << 20));
            let store = room.store.into_inner().unwrap();
            for (start, size) in &store.blocks[..store.count] {
                System.dealloc(
                    std::ptr::with_exposed_provenance_mut(*start),
                    Layout::from_size_align(*size, 16).unwrap(),
                );
            }
        }
    }
}
