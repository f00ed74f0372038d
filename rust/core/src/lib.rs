//! The algorithms of Variegate, over ragged arrays of tokens and text. No Python and no file formats in here.

pub mod collate;
pub mod dedup;
pub mod error;
pub mod identity;
pub mod jsonl;
pub mod metrics;
pub mod ops;
pub mod pack;
pub mod par;
pub mod ragged;
pub mod rng;
mod room;
pub mod simd;
pub mod template;
pub mod text;
pub mod tokenize;

pub use error::{Error, Result};
pub use ragged::{Ragged, RaggedBuf};
