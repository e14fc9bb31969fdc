//! Checkpoints of PyTorch (`torch.save` since version 1.6: a zip archive with a pickle in it), read without running anything.
//!
//! What a dictionary of tensors needs is understood, in dictionaries within dictionaries, too; everything else is refused.

mod archive;
mod pickle;

use std::collections::BTreeMap;
use std::fs;
use std::io::Read;
use std::path::Path;
use std::sync::Arc;

use crate::error::{Error, Result};
use crate::weights::{Stored, TensorFile};
use archive::Archive;
use pickle::{Id, Pickle, Strided, Value};

/// Where a model lies among what else training keeps: the first of them that is there.
const MODELS: [&str; 4] = ["state_dict_ema", "model_ema", "state_dict", "model"];

/// How often a dictionary is looked for in another.
const DEPTH: usize = 3;

/// The longest pickle; the tensors are not in it.
const LONGEST: usize = 1 << 26;

/// Whether these are the first bytes of a file of PyTorch: a zip archive, or a pickle (before version 1.6).
fn begins(bytes: &[u8]) -> bool {
    is_archive(bytes) || bytes.starts_with(&[0x80, 2]) || bytes.starts_with(&[0x80, 4])
}

/// Whether these are the first bytes of a zip archive, as PyTorch writes since version 1.6.
pub fn is_archive(bytes: &[u8]) -> bool {
    bytes.starts_with(archive::BEGINNING)
}

/// Whether a file begins as those of PyTorch do.
pub fn is_of_pytorch(path: impl AsRef<Path>) -> bool {
    beginning(path.as_ref()).is_ok_and(|bytes| begins(&bytes))
}

fn beginning(path: &Path) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    fs::File::open(path)?.take(4).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// A file of tensors: of PyTorch if it begins as one, else safetensors.
///
/// # Errors
/// A file that is not there, or is damaged, or holds what is no dictionary of tensors.
pub fn open(path: impl AsRef<Path>) -> Result<TensorFile> {
    let path = path.as_ref();
    if !beginning(path).is_ok_and(|bytes| is_archive(&bytes)) {
        return TensorFile::open(path);
    }
    from_bytes(path, fs::read(path).map_err(Error::io("read", path))?)
}

/// The tensors in the bytes of a file; `path` names it in errors.
///
/// # Errors
/// As [`open`].
pub fn from_bytes(path: impl AsRef<Path>, bytes: Vec<u8>) -> Result<TensorFile> {
    let path = path.as_ref();
    let tensors = read(Arc::new(bytes)).map_err(|reason| {
        Error::input(
            path,
            format!(
                "is a file of PyTorch that is not read here: {reason}; `lara convert` of it prints the ten lines of Python that \
                 write its weights as safetensors"
            ),
        )
    })?;
    Ok(TensorFile::of(path, tensors))
}

type Tensors = BTreeMap<String, Stored>;

fn read(bytes: Arc<Vec<u8>>) -> Result<Tensors, String> {
    let archive = Archive::of(&bytes)?;
    let name = archive.ending("data.pkl").ok_or("its zip archive has no data.pkl")?;
    let folder = name.trim_end_matches("data.pkl");
    let order = format!("{folder}byteorder");
    if archive.range(&order).is_some() && archive.read(&order)? != b"little" {
        return Err("its numbers do not begin with their lowest byte".into());
    }
    let text = archive.read(name)?;
    if text.len() > LONGEST {
        return Err(format!("its pickle has {} bytes, more than {LONGEST}", text.len()));
    }
    let pickle = Pickle::read(text)?;
    let dict = state_dict(&pickle)?;
    let mut reader =
        Reader { archive: &archive, bytes: &bytes, folder, whole: BTreeMap::new(), left: bytes.len(), copied: 0 };
    let mut tensors = Tensors::new();
    for (name, strided) in dict {
        tensors.insert(name.to_owned(), reader.tensor(name, strided)?);
    }
    Ok(tensors)
}

/// The tensors of the dictionary that is the model.
fn state_dict(pickle: &Pickle) -> Result<BTreeMap<&str, &Strided>, String> {
    let mut at = pickle.top;
    for _ in 0..DEPTH {
        let Value::Dict(pairs) = pickle.value(at) else {
            return Err("it holds no dictionary".into());
        };
        let named: BTreeMap<&str, Id> =
            pairs.iter().filter_map(|&(key, value)| Some((pickle.text(key)?, value))).collect();
        let is_dict = |id: &Id| matches!(pickle.value(*id), Value::Dict(pairs) if !pairs.is_empty());
        if let Some(within) = MODELS.iter().find_map(|key| named.get(key).copied().filter(is_dict)) {
            at = within;
            continue;
        }
        let mut tensors: BTreeMap<&str, &Strided> = BTreeMap::new();
        for (name, id) in &named {
            if let Value::Tensor(strided) = pickle.value(*id) {
                tensors.insert(name, strided);
            }
        }
        if tensors.is_empty() {
            let keys: Vec<&str> = named.keys().copied().take(8).collect();
            let keys = if keys.is_empty() { "nothing".to_owned() } else { keys.join(", ") };
            return Err(format!("it has no tensors under {} or at its top, where there is {keys}", MODELS.join(", ")));
        }
        return Ok(tensors);
    }
    Err(format!("its dictionaries lie in one another more than {DEPTH} deep"))
}

/// Brings tensors out of an archive.
struct Reader<'a> {
    archive: &'a Archive<'a>,
    bytes: &'a Arc<Vec<u8>>,
    folder: &'a str,
    /// Storages that were looked at: where they lie.
    whole: BTreeMap<String, std::ops::Range<usize>>,
    /// Bytes of the file that no storage has taken.
    left: usize,
    /// Bytes of tensors that were put together anew.
    copied: usize,
}

impl Reader<'_> {
    fn tensor(&mut self, name: &str, strided: &Strided) -> Result<Stored, String> {
        let Strided { storage, offset, shape, strides } = strided;
        let width = storage.dtype.bitsize() / 8;
        let range = self.storage(&storage.key)?;
        if range.len() != storage.len.saturating_mul(width) {
            let (len, bytes) = (storage.len, range.len());
            return Err(format!(
                "{name} is said to lie among {len} numbers, which are not the {bytes} bytes in the file"
            ));
        }
        let outside =
            || format!("{name} of shape {shape:?} reaches beyond the {} numbers that it lies among", storage.len);
        let count = shape.iter().try_fold(1usize, |count, size| count.checked_mul(*size)).ok_or_else(outside)?;
        if count == 0 {
            return Ok(Stored::within(storage.dtype, shape.clone(), self.bytes.clone(), range.start..range.start));
        }
        let reach = shape
            .iter()
            .zip(strides)
            .try_fold(*offset, |end, (size, stride)| end.checked_add((size - 1).checked_mul(*stride)?));
        if reach.is_none_or(|last| last >= storage.len) || count > storage.len {
            return Err(outside());
        }
        let begin = range.start + offset * width;
        if is_contiguous(shape, strides) {
            let place = begin..begin + count * width;
            return Ok(Stored::within(storage.dtype, shape.clone(), self.bytes.clone(), place));
        }
        self.copied += count * width;
        if self.copied > self.bytes.len() {
            return Err("its tensors overlap more than those of a model".into());
        }
        let values = gather(&self.bytes[begin..range.end], shape, strides, width);
        let all = 0..values.len();
        Ok(Stored::within(storage.dtype, shape.clone(), Arc::new(values), all))
    }

    /// Where the numbers of a storage lie, checked once. Storages do not overlap, so they are no more than the file.
    fn storage(&mut self, key: &str) -> Result<std::ops::Range<usize>, String> {
        if let Some(range) = self.whole.get(key) {
            return Ok(range.clone());
        }
        let name = format!("{}data/{key}", self.folder);
        let range = self.archive.range(&name).ok_or_else(|| format!("it has no {name}"))?;
        self.left = self.left.checked_sub(range.len()).ok_or("its entries overlap")?;
        self.archive.read(&name)?;
        self.whole.insert(key.to_owned(), range.clone());
        Ok(range)
    }
}

/// Whether numbers lie one after the other, row by row.
fn is_contiguous(shape: &[usize], strides: &[usize]) -> bool {
    let mut wanted = 1;
    shape.iter().zip(strides).rev().all(|(&size, &stride)| {
        let fits = size == 1 || stride == wanted;
        wanted *= size;
        fits
    })
}

/// The numbers of a view, row by row.
fn gather(bytes: &[u8], shape: &[usize], strides: &[usize], width: usize) -> Vec<u8> {
    let count: usize = shape.iter().product();
    let (mut index, mut at) = (vec![0; shape.len()], 0);
    let mut values = Vec::with_capacity(count * width);
    for _ in 0..count {
        values.extend_from_slice(&bytes[at * width..(at + 1) * width]);
        for axis in (0..shape.len()).rev() {
            index[axis] += 1;
            at += strides[axis];
            if index[axis] < shape[axis] {
                break;
            }
            at -= index[axis] * strides[axis];
            index[axis] = 0;
        }
    }
    values
}
