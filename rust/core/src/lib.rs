//! The algorithms of Variegate, over ragged arrays of tokens and text. No Python and no file formats in here.

pub mod collate;
mod cuts;
pub mod dedup;
mod english;
pub mod error;
mod fixed;
pub mod identity;
pub mod jsonl;
pub mod metrics;
pub mod ops;
pub mod pack;
pub mod par;
pub mod ragged;
pub mod rng;
pub mod room;
pub mod simd;
mod subword;
pub mod template;
pub mod text;
pub mod tokenize;
mod word_map;
mod words;

pub use error::{Error, Result};
pub use ragged::{Ragged, RaggedBuf};
