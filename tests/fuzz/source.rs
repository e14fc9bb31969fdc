//! Where a case's choices come from: bytes that its seed and its number decide, read by `arbitrary`.

use std::ops::RangeInclusive;

use arbitrary::Unstructured;
use lara_models::random::{Draws, Purpose};

/// The choices of one case. When its bytes are used up, every further choice falls on the first.
pub(crate) struct Source<'a>(Unstructured<'a>);

/// The bytes of case number `case`.
pub(crate) fn bytes_of(seed: u64, case: u64) -> Vec<u8> {
    let mut draws = Draws::new(seed, Purpose::Shuffle, case >> 32, case);
    (0..1024).flat_map(|_| draws.bits().to_le_bytes()).collect()
}

/// Whole numbers at which something in a reader may turn over.
const WHOLE: [i128; 30] = [
    0,
    1,
    2,
    3,
    7,
    8,
    16,
    -1,
    -2,
    127,
    128,
    255,
    256,
    1000,
    65_535,
    65_536,
    1 << 24,
    (1 << 31) - 1,
    1 << 31,
    (1 << 32) - 1,
    1 << 32,
    1 << 53,
    9_000_000_000_000_000_000,
    (1 << 63) - 1,
    1 << 63,
    -(1 << 63),
    (1 << 64) - 1,
    1 << 64,
    (1 << 63) + 4,
    (1 << 62) + 1,
];

/// Other numbers as they may stand in a text.
const BROKEN: [&str; 16] = [
    "0.0",
    "-0.0",
    "0.5",
    "1e-9",
    "1e-46",
    "1e-300",
    "1e38",
    "3.5e38",
    "1e308",
    "1e400",
    "nan",
    "-nan",
    "inf",
    "-inf",
    "0.99999999",
    "1e9",
];

impl<'a> Source<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self(Unstructured::new(bytes))
    }

    /// A number of the range.
    pub(crate) fn range(&mut self, range: RangeInclusive<usize>) -> usize {
        let first = *range.start();
        self.0.int_in_range(range).unwrap_or(first)
    }

    /// True `times` out of `of`.
    pub(crate) fn chance(&mut self, times: usize, of: usize) -> bool {
        self.range(1..=of) <= times
    }

    /// One of them.
    pub(crate) fn pick<T: Copy>(&mut self, items: &[T]) -> T {
        items[self.range(0..=items.len() - 1)]
    }

    /// An index, by weights.
    pub(crate) fn weighted(&mut self, weights: &[usize]) -> usize {
        let mut at = self.range(1..=weights.iter().sum());
        weights
            .iter()
            .position(|&weight| {
                at <= weight || {
                    at -= weight;
                    false
                }
            })
            .unwrap_or(0)
    }

    /// A whole number that is likely to be trouble.
    pub(crate) fn whole(&mut self) -> i128 {
        if self.chance(2, 3) { self.pick(&WHOLE) } else { self.range(0..=300) as i128 }
    }

    /// As [`whole`](Self::whole), as the 64 bits of a file.
    pub(crate) fn word(&mut self) -> u64 {
        self.whole() as u64
    }

    /// The text of a number.
    pub(crate) fn number(&mut self) -> String {
        if self.chance(1, 2) { self.whole().to_string() } else { self.pick(&BROKEN).to_owned() }
    }

    /// Up to `most` bytes.
    pub(crate) fn noise(&mut self, most: usize) -> Vec<u8> {
        let length = self.range(0..=most);
        self.0.bytes(length.min(self.0.len())).unwrap_or_default().to_vec()
    }

    /// A text of up to `most` characters, some of which no writer expects.
    pub(crate) fn text(&mut self, most: usize) -> String {
        const CHARACTERS: [char; 24] = [
            'a',
            'b',
            'q',
            'Z',
            '0',
            '9',
            '.',
            '_',
            '-',
            ' ',
            '/',
            '\\',
            '"',
            '\'',
            '\n',
            '\t',
            '\0',
            '\u{7f}',
            'é',
            '\u{202e}',
            '\u{1f600}',
            '=',
            '[',
            '#',
        ];
        (0..self.range(0..=most)).map(|_| self.pick(&CHARACTERS)).collect()
    }

    /// Damages `bytes` in a few places: cut short, lengthened, turned bits, numbers at their limits, parts moved.
    pub(crate) fn damage(&mut self, bytes: &mut Vec<u8>) {
        for _ in 0..self.range(1..=4) {
            let at = self.range(0..=bytes.len());
            match self.range(0..=7) {
                0 => bytes.truncate(at),
                1 => bytes.extend(self.noise(64)),
                2 if at < bytes.len() => bytes[at] ^= 1 << self.range(0..=7),
                3 if at < bytes.len() => bytes[at] = self.pick(&[0, 1, 0x7f, 0x80, 0xff, b'{', b'"', b'[', b'9']),
                4 => {
                    let end = (at + self.range(1..=64)).min(bytes.len());
                    bytes.drain(at..end);
                }
                5 => {
                    let end = (at + self.range(1..=64)).min(bytes.len());
                    let part = bytes[at..end].to_vec();
                    let to = self.range(0..=bytes.len());
                    bytes.splice(to..to, part);
                }
                6 => {
                    let word = self.word();
                    let word = if self.chance(1, 2) { word.to_le_bytes() } else { word.to_be_bytes() };
                    let width = self.pick(&[1, 2, 4, 8]).min(bytes.len() - at);
                    bytes[at..at + width].copy_from_slice(&word[..width]);
                }
                _ => {
                    let insert = self.noise(16);
                    bytes.splice(at..at, insert);
                }
            }
        }
    }
}
