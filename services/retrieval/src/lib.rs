//! What do we know about this? Documents cut into chunks, found by words and by meaning.

pub mod bm25;
pub mod chunk;
pub mod fusion;
pub mod html;
pub mod tokens;
pub mod words;
