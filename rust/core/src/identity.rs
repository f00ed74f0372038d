//! Identities: the 128-bit `record_id` of a record and the 64-bit `id` that keys its randomness.
//!
//! Both are prefixes of SHA-256 over length-prefixed fields, so no two lists of fields collide by concatenation, and
//! anyone can recompute them with a standard tool.

use sha2::{Digest, Sha256};

/// A 128-bit record identity.
pub type RecordId = [u8; 16];

/// SHA-256 over `fields`, each preceded by its length as eight little-endian bytes.
pub fn digest<'a>(fields: impl IntoIterator<Item = &'a [u8]>) -> [u8; 32] {
    let mut hash = Sha256::new();
    for field in fields {
        hash.update((field.len() as u64).to_le_bytes());
        hash.update(field);
    }
    hash.finalize().into()
}

/// The first 16 bytes of [`digest`].
pub fn hash128<'a>(fields: impl IntoIterator<Item = &'a [u8]>) -> RecordId {
    let mut id = [0; 16];
    id.copy_from_slice(&digest(fields)[..16]);
    id
}

/// The first 8 bytes of [`digest`] as a little-endian number.
pub fn hash64<'a>(fields: impl IntoIterator<Item = &'a [u8]>) -> u64 {
    let mut id = [0; 8];
    id.copy_from_slice(&digest(fields)[..8]);
    u64::from_le_bytes(id)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_do_not_run_into_each_other() {
        assert_ne!(digest([b"ab".as_slice(), b"c"]), digest([b"a".as_slice(), b"bc"]));
        assert_ne!(digest([b"".as_slice()]), digest([]));
    }

    /// `printf '\x01\0\0\0\0\0\0\0a' | sha256sum`
    #[test]
    fn digests_are_plain_sha256() {
        let expected = "ae6121c88ba555f64c3d812123eb799d128015541f850c5e9bf1d54c08ad8481";
        let hex: String = digest([b"a".as_slice()]).iter().map(|b| format!("{b:02x}")).collect();
        assert_eq!(hex, expected);
    }
}
