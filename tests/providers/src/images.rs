//! Pictures: small in bytes, real in form, the same for the same name.
//!
//! Invariants:
//! - Every picture is a PNG of the size it was asked in.

use crate::replay::Random;
use flate2::{Compression, Crc, write::ZlibEncoder};
use std::io::Write as _;

/// The name under which a picture for `prompt` is served.
pub(crate) fn name(prompt: &str, at: usize, size: (u32, u32)) -> String {
    let seed = Random::of(prompt).next().wrapping_add(u64::try_from(at).unwrap_or(0));
    format!("{seed:016x}-{}x{}.png", size.0, size.1)
}

/// The picture of a name that [`name`] made.
pub(crate) fn named(name: &str) -> Option<Vec<u8>> {
    let (seed, size) = name.strip_suffix(".png")?.split_once('-')?;
    Some(png(u64::from_str_radix(seed, 16).ok()?, parse_size(size)?))
}

/// `1024x1536`.
pub(crate) fn parse_size(size: &str) -> Option<(u32, u32)> {
    let (width, height) = size.split_once('x')?;
    let (width, height) = (width.parse().ok()?, height.parse().ok()?);
    let fits = |side: u32| (1..=4096).contains(&side);
    (fits(width) && fits(height)).then_some((width, height))
}

/// Stripes in black and white, one bit a pixel.
fn png(seed: u64, (width, height): (u32, u32)) -> Vec<u8> {
    let stripe = seed.to_le_bytes();
    let row: Vec<u8> = std::iter::once(0) // no filter
        .chain((0..width.div_ceil(8)).zip(stripe.into_iter().cycle()).map(|(_, byte)| byte))
        .collect();
    let mut pixels = ZlibEncoder::new(Vec::new(), Compression::fast());
    for _ in 0..height {
        // Writing to memory does not fail.
        let _ = pixels.write_all(&row);
    }
    let mut header = Vec::from(width.to_be_bytes());
    header.extend(height.to_be_bytes());
    header.extend([1, 0, 0, 0, 0]); // one bit, greyscale
    let mut out = b"\x89PNG\r\n\x1a\n".to_vec();
    chunk(&mut out, *b"IHDR", &header);
    chunk(&mut out, *b"IDAT", &pixels.finish().unwrap_or_default());
    chunk(&mut out, *b"IEND", &[]);
    out
}

fn chunk(out: &mut Vec<u8>, kind: [u8; 4], data: &[u8]) {
    let mut sum = Crc::new();
    sum.update(&kind);
    sum.update(data);
    out.extend(u32::try_from(data.len()).unwrap_or(0).to_be_bytes());
    out.extend(kind);
    out.extend(data);
    out.extend(sum.sum().to_be_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_picture_is_known_by_its_name() {
        let name = name("a goose", 0, (16, 4));
        let png = named(&name).unwrap();
        assert!(png.starts_with(b"\x89PNG\r\n\x1a\n\0\0\0\x0dIHDR\0\0\0\x10\0\0\0\x04\x01\0"));
        assert!(png.ends_with(b"IEND\xae\x42\x60\x82"));
        assert_eq!(named(&name).unwrap(), png);
        assert!(named("nothing.png").is_none() && named("0-0x9.png").is_none());
    }
}
