//! Ragged rows of UTF-8.

use crate::error::{Error, Result};
use crate::ragged::Ragged;

/// Checks that every row is valid UTF-8 by itself.
///
/// # Errors
/// Names the first row that is not, and the byte where it breaks. Cost: one pass over the bytes.
pub fn check(rows: Ragged<'_, u8>) -> Result<()> {
    // The whole buffer in one pass; then no row may start inside a character.
    let whole = std::str::from_utf8(rows.values());
    if let Ok(text) = whole
        && rows.offsets().iter().all(|&at| text.is_char_boundary(at as usize))
    {
        return Ok(());
    }
    for (r, row) in rows.iter().enumerate() {
        if let Err(error) = std::str::from_utf8(row) {
            return Err(Error::invalid(format!("text must be UTF-8 (row {r}, byte {})", error.valid_up_to())));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn rows_are_accepted_exactly_when_each_is_utf8(bytes in prop::collection::vec(prop_oneof![Just(0xC3u8), Just(0xA9), Just(b'a')], 0..12), cut in 0usize..13) {
            let cut = cut.min(bytes.len());
            let offsets = [0, cut as i64, bytes.len() as i64];
            let valid = std::str::from_utf8(&bytes[..cut]).is_ok() && std::str::from_utf8(&bytes[cut..]).is_ok();
            prop_assert_eq!(check(Ragged::new(&bytes, &offsets).unwrap()).is_ok(), valid);
        }
    }

    #[test]
    fn the_row_and_the_byte_are_named() {
        let error = check(Ragged::new(b"ab\xC3", &[0, 1, 3]).unwrap()).unwrap_err();
        assert_eq!(error.to_string(), "text must be UTF-8 (row 1, byte 1)");
    }
}
