//! Room for large results.

/// An empty vector with room for `n` values.
///
/// Where it is large, the kernel is asked to back it by huge pages, as numpy does for its arrays: a result of millions
/// of tokens is written once into fresh memory, and without this most of the time goes into faulting it in, page by
/// page.
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
}
