//! Zip archives as PyTorch writes them: entries that are stored as they are, with the long offsets of Zip64 in large files.

use std::collections::BTreeMap;
use std::ops::Range;

/// What an archive begins with.
pub(super) const BEGINNING: &[u8] = b"PK\x03\x04";

const LOCAL: u32 = 0x0403_4b50;
const CENTRAL: u32 = 0x0201_4b50;
const END: u32 = 0x0605_4b50;
const END_64: u32 = 0x0606_4b50;
const LOCATOR_64: u32 = 0x0706_4b50;
/// Bytes of the records without what varies.
const LOCAL_LEN: usize = 30;
const CENTRAL_LEN: usize = 46;
const END_LEN: usize = 22;
const LOCATOR_LEN: usize = 20;
/// The longest comment at an archive's end.
const COMMENT: usize = 65_535;
/// What stands for a number that Zip64 has elsewhere.
const ELSEWHERE: u64 = 0xffff_ffff;

/// The entries of an archive: where their bytes lie, and their checksums.
pub(super) struct Archive<'a> {
    bytes: &'a [u8],
    entries: BTreeMap<String, (Range<usize>, u32)>,
}

/// A number of `N` bytes at a place.
fn number<const N: usize>(bytes: &[u8], at: usize) -> Option<u64> {
    let word = bytes.get(at..)?.first_chunk::<N>()?;
    Some(word.iter().rev().fold(0, |sum, byte| (sum << 8) | u64::from(*byte)))
}

/// The same as an offset or a length.
fn size<const N: usize>(bytes: &[u8], at: usize) -> Option<usize> {
    usize::try_from(number::<N>(bytes, at)?).ok()
}

fn is_record(bytes: &[u8], at: usize, signature: u32) -> bool {
    number::<4>(bytes, at) == Some(u64::from(signature))
}

impl<'a> Archive<'a> {
    /// The archive in these bytes.
    pub(super) fn of(bytes: &'a [u8]) -> Result<Self, String> {
        let damaged = || "it is a damaged zip archive".to_owned();
        let (mut at, end) =
            directory(bytes).ok_or_else(|| "its zip archive has no end, so it was cut off".to_owned())?;
        let mut entries = BTreeMap::new();
        while at < end {
            let (name, range, crc, next) = entry(bytes, at).ok_or_else(damaged)??;
            if entries.insert(name.clone(), (range, crc)).is_some() {
                return Err(format!("its zip archive has two entries {name}"));
            }
            at = next;
        }
        Ok(Archive { bytes, entries })
    }

    /// The name of the entry that ends so and stands highest, if there is one.
    pub(super) fn ending(&self, end: &str) -> Option<&str> {
        let is_it =
            |name: &&str| name.strip_suffix(end).is_some_and(|folder| folder.is_empty() || folder.ends_with('/'));
        self.entries.keys().map(String::as_str).filter(is_it).min_by_key(|name| name.len())
    }

    /// Where an entry's bytes lie.
    pub(super) fn range(&self, name: &str) -> Option<Range<usize>> {
        self.entries.get(name).map(|(range, _)| range.clone())
    }

    /// The bytes of an entry, if they are those that were written.
    pub(super) fn read(&self, name: &str) -> Result<&'a [u8], String> {
        let (range, crc) = self.entries.get(name).ok_or_else(|| format!("it has no {name}"))?;
        let bytes = &self.bytes[range.clone()];
        if crc32fast::hash(bytes) == *crc { Ok(bytes) } else { Err(format!("{name} in it is damaged")) }
    }
}

/// Where the list of entries begins and ends.
fn directory(bytes: &[u8]) -> Option<(usize, usize)> {
    let last = bytes.len().checked_sub(END_LEN)?;
    let end = (last.saturating_sub(COMMENT)..=last).rev().find(|&at| is_record(bytes, at, END))?;
    let (mut len, mut begin) = (number::<4>(bytes, end + 12)?, number::<4>(bytes, end + 16)?);
    let locator = end.checked_sub(LOCATOR_LEN).filter(|&at| is_record(bytes, at, LOCATOR_64));
    if let (true, Some(locator)) = (len == ELSEWHERE || begin == ELSEWHERE, locator) {
        let long = size::<8>(bytes, locator + 8).filter(|&at| is_record(bytes, at, END_64))?;
        (len, begin) = (number::<8>(bytes, long.checked_add(40)?)?, number::<8>(bytes, long + 48)?);
    }
    let begin = usize::try_from(begin).ok()?;
    let end = begin.checked_add(usize::try_from(len).ok()?)?;
    (end <= bytes.len()).then_some((begin, end))
}

/// Name, place and checksum of an entry, and where the next one is listed.
type Entry = (String, Range<usize>, u32, usize);

/// The entry that is listed at a place. None for numbers that lead out of the file.
fn entry(bytes: &[u8], at: usize) -> Option<Result<Entry, String>> {
    let record = bytes.get(at..)?;
    if !is_record(record, 0, CENTRAL) {
        return None;
    }
    let (flags, method) = (number::<2>(record, 8)?, number::<2>(record, 10)?);
    let crc = number::<4>(record, 16)? as u32;
    let mut sizes = [number::<4>(record, 24)?, number::<4>(record, 20)?, number::<4>(record, 42)?];
    let [name_len, extra_len, comment_len] = [size::<2>(record, 28)?, size::<2>(record, 30)?, size::<2>(record, 32)?];
    let (name, rest) = record.get(CENTRAL_LEN..)?.split_at_checked(name_len)?;
    long_sizes(rest.get(..extra_len)?, &mut sizes);
    let name = String::from_utf8_lossy(name).into_owned();
    if method != 0 || flags & 1 != 0 || sizes[0] != sizes[1] {
        return Some(Err(format!("{name} in it is compressed or encrypted, which PyTorch does not do")));
    }
    let [len, _, local] = sizes.map(usize::try_from);
    let (len, local) = (len.ok()?, local.ok()?);
    let head = bytes.get(local..)?;
    if !is_record(head, 0, LOCAL) {
        return None;
    }
    let begin = local + LOCAL_LEN + size::<2>(head, 26)? + size::<2>(head, 28)?;
    let end = begin.checked_add(len).filter(|end| *end <= bytes.len())?;
    Some(Ok((name, begin..end, crc, at + CENTRAL_LEN + name_len + extra_len + comment_len)))
}

/// Puts the numbers of Zip64 where they are said to be elsewhere.
fn long_sizes(mut extra: &[u8], sizes: &mut [u64; 3]) {
    while let (Some(id), Some(len)) = (number::<2>(extra, 0), size::<2>(extra, 2)) {
        if id == 1 {
            let mut place = 4;
            for value in sizes.iter_mut().filter(|value| **value == ELSEWHERE) {
                *value = number::<8>(extra, place).unwrap_or(*value);
                place += 8;
            }
        }
        extra = extra.get(4 + len..).unwrap_or_default();
    }
}
