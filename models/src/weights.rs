//! Named tensors in files: the safetensors format, and what can be wrong with such a file.

mod stored;

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::{fmt, fs};

use lara_runtime::Parameters;
use safetensors::{Dtype, SafeTensors};
use serde::de::{IgnoredAny, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::{Map, Value, json};

use crate::error::{Error, Result, nearest};
pub(crate) use stored::Stored;

/// Text that travels with the tensors.
pub type Metadata = BTreeMap<String, String>;

/// A tensor to be written.
#[derive(Clone, Debug)]
pub struct TensorView<'a> {
    /// Its name, timm's for weights.
    pub name: Cow<'a, str>,
    /// Its sizes.
    pub shape: &'a [usize],
    /// Row-major values, as many as `shape` says.
    pub data: &'a [f32],
}

/// Writes a safetensors file. The bytes depend on nothing but the arguments; tensors stand in the order given.
///
/// Fails with [`io::ErrorKind::InvalidInput`] if a name comes twice or a shape and its data disagree.
pub fn write(out: &mut dyn Write, tensors: &[TensorView<'_>], metadata: &Metadata) -> io::Result<()> {
    let mut header = Map::new();
    if !metadata.is_empty() {
        header.insert("__metadata__".into(), json!(metadata));
    }
    let mut offset = 0usize;
    for tensor in tensors {
        let count: usize = tensor.shape.iter().product();
        if count != tensor.data.len() {
            let sentence = format!("{} has shape {:?} but {} values", tensor.name, tensor.shape, tensor.data.len());
            return Err(io::Error::new(io::ErrorKind::InvalidInput, sentence));
        }
        let end = offset + 4 * count;
        let info = json!({ "dtype": "F32", "shape": tensor.shape, "data_offsets": [offset, end] });
        if header.insert(tensor.name.to_string(), info).is_some() {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, format!("two tensors are named {}", tensor.name)));
        }
        offset = end;
    }
    write_header(out, &header)?;
    let mut bytes = Vec::with_capacity(4 * CHUNK);
    for tensor in tensors {
        for values in tensor.data.chunks(CHUNK) {
            bytes.clear();
            bytes.extend(values.iter().flat_map(|value| value.to_le_bytes()));
            out.write_all(&bytes)?;
        }
    }
    Ok(())
}

/// What a file begins with: the length of its header, and the header.
fn write_header(out: &mut dyn Write, header: &Map<String, Value>) -> io::Result<()> {
    let mut header = serde_json::to_vec(header)?;
    // The format asks for the data to begin at a multiple of 8.
    header.resize(header.len().next_multiple_of(8), b' ');
    out.write_all(&(header.len() as u64).to_le_bytes())?;
    out.write_all(&header)
}

/// Values converted at a time.
const CHUNK: usize = 16 * 1024;

/// A safetensors file in memory, known to be whole.
#[derive(Clone, Debug)]
pub struct TensorFile {
    path: PathBuf,
    metadata: Metadata,
    tensors: BTreeMap<String, Stored>,
}

/// Whether a name is that of a weight that other libraries keep and nothing here needs: DINOv2's mask in training, the pooler
/// in front of a classifier that was not trained.
fn is_not_needed(name: &str) -> bool {
    name == "mask_token" || name.starts_with("pooler.dense.") || name.starts_with("pre_logits.")
}

/// Whether a name is that of a weight which depends on the attention mechanism.
pub(crate) fn is_of_a_mechanism(name: &str) -> bool {
    let path = format!(".{name}");
    [".attn.q_landmarks.", ".attn.k_landmarks.", ".attn.projection", ".attn.features."]
        .iter()
        .any(|part| path.contains(part))
}

impl TensorFile {
    /// Reads and checks a file. One that is truncated, damaged or not of this format is refused with the reason; what
    /// does not begin as one is not read any further.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let mut file = fs::File::open(path).map_err(Error::io("read", path))?;
        let mut bytes = Vec::new();
        (&file).take(PREFIX).read_to_end(&mut bytes).map_err(Error::io("read", path))?;
        header_end(&bytes).map_err(|problem| Error::input(path, problem))?;
        file.read_to_end(&mut bytes).map_err(Error::io("read", path))?;
        Self::from_bytes(path, bytes)
    }

    /// These tensors, as if the file at `path` held them.
    pub(crate) fn of(path: impl AsRef<Path>, tensors: BTreeMap<String, Stored>) -> Self {
        Self { path: path.as_ref().to_path_buf(), metadata: Metadata::new(), tensors }
    }

    /// Checks the bytes of a file; `path` names them in errors.
    pub fn from_bytes(path: impl AsRef<Path>, bytes: Vec<u8>) -> Result<Self> {
        let path = path.as_ref().to_path_buf();
        let data = check_whole(&bytes).map_err(|problem| Error::input(&path, problem))?;
        let damaged = |error| Error::input(&path, format!("is a damaged safetensors file ({error}); use another copy"));
        let (_, header) = SafeTensors::read_metadata(&bytes).map_err(damaged)?;
        let metadata = header.metadata().clone().unwrap_or_default().into_iter().collect();
        let bytes = Arc::new(bytes);
        let stored = |info: &safetensors::tensor::TensorInfo| Stored {
            dtype: info.dtype,
            shape: info.shape.clone(),
            pieces: vec![(bytes.clone(), data + info.data_offsets.0..data + info.data_offsets.1)],
        };
        let tensors = header.tensors().into_iter().map(|(name, info)| (name, stored(info))).collect();
        Ok(Self { path, metadata, tensors })
    }

    /// The file's path, for messages.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The text that came with the tensors.
    pub fn metadata(&self) -> &Metadata {
        &self.metadata
    }

    /// Names, sorted.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.tensors.keys().map(String::as_str)
    }

    /// The sizes of a tensor.
    pub fn shape(&self, name: &str) -> Option<&[usize]> {
        self.tensors.get(name).map(|stored| stored.shape.as_slice())
    }

    /// The values of one tensor of the given shape. F32 as stored; F16 and BF16 converted (exactly).
    ///
    /// Errors name the tensor, both shapes or the dtype, and for a missing one the nearest name.
    pub fn get(&self, name: &str, shape: &[usize]) -> Result<Vec<f32>> {
        let stored = self.of_shape(name, shape)?;
        let bytes = stored.bytes();
        let halves = || bytes.as_chunks::<2>().0.iter().map(|&half| u16::from_le_bytes(half));
        match stored.dtype {
            Dtype::F32 => Ok(bytes.as_chunks::<4>().0.iter().map(|&word| f32::from_le_bytes(word)).collect()),
            Dtype::F16 => Ok(halves().map(f16_to_f32).collect()),
            Dtype::BF16 => Ok(halves().map(|half| f32::from_bits(u32::from(half) << 16)).collect()),
            other => Err(Error::BadInput(format!(
                "{name} has dtype {other:?} in {} but the model needs F32 (F16 and BF16 are converted)",
                self.path.display()
            ))),
        }
    }

    /// The tensor of a name, which has these sizes.
    fn of_shape(&self, name: &str, shape: &[usize]) -> Result<&Stored> {
        let Some(stored) = self.tensors.get(name) else {
            let near = nearest(name, self.names()).map(|near| format!("; the nearest name there is {near}"));
            let near = near.unwrap_or_default();
            let what = format!("has no tensor {name}, which the model needs (its shape is {shape:?}{near})");
            return Err(self.problem(what));
        };
        if stored.shape != shape {
            let found = &stored.shape;
            return Err(Error::BadInput(format!(
                "{name} has shape {found:?} in {} but the model needs {shape:?}; is it a checkpoint of another model?",
                self.path.display()
            )));
        }
        Ok(stored)
    }

    /// Fails if one of the `wanted` tensors (name, shape) is not there, or something else is ([`Self::refuse_others`]).
    pub fn check_all(&self, wanted: &[(String, Vec<usize>)]) -> Result<()> {
        wanted.iter().try_for_each(|(name, shape)| self.of_shape(name, shape).map(drop))?;
        self.refuse_others(wanted.iter().map(|(name, _)| name.as_str()))
    }

    /// The sizes and values of a tensor of whatever number type: halves as they are, doubles and integers rounded to
    /// f32, truth values as 0 and 1.
    ///
    /// # Errors
    /// A tensor that is not there (with the nearest name), or of a type that is no number.
    pub fn numbers(&self, name: &str) -> Result<(Vec<usize>, Vec<f32>)> {
        let Some(stored) = self.tensors.get(name) else {
            let hint = nearest(name, self.names()).map(|near| format!(" (the nearest name there is {near})"));
            return Err(self.problem(format!("has no tensor {name}{}", hint.unwrap_or_default())));
        };
        let bytes = stored.bytes();
        let words = || bytes.as_chunks::<4>().0.iter();
        let doubles = || bytes.as_chunks::<8>().0.iter();
        let halves = || bytes.as_chunks::<2>().0.iter();
        let values = match stored.dtype {
            Dtype::F32 | Dtype::F16 | Dtype::BF16 => self.get(name, &stored.shape)?,
            Dtype::F64 => doubles().map(|&x| f64::from_le_bytes(x) as f32).collect(),
            Dtype::I64 => doubles().map(|&x| i64::from_le_bytes(x) as f32).collect(),
            Dtype::U64 => doubles().map(|&x| u64::from_le_bytes(x) as f32).collect(),
            Dtype::I32 => words().map(|&x| i32::from_le_bytes(x) as f32).collect(),
            Dtype::U32 => words().map(|&x| u32::from_le_bytes(x) as f32).collect(),
            Dtype::I16 => halves().map(|&x| f32::from(i16::from_le_bytes(x))).collect(),
            Dtype::U16 => halves().map(|&x| f32::from(u16::from_le_bytes(x))).collect(),
            Dtype::I8 => bytes.iter().map(|&x| f32::from(x.cast_signed())).collect(),
            Dtype::U8 | Dtype::BOOL => bytes.iter().map(|&x| f32::from(x)).collect(),
            other => {
                return Err(self.problem(format!(
                    "has tensor {name} as {other:?}; write it as a float (F64, F32, F16, BF16), an integer or a truth value"
                )));
            }
        };
        Ok((stored.shape.clone(), values))
    }

    /// The values of all `wanted` tensors (name, shape), in that order, and nothing else may be in the file.
    pub fn get_all<N: AsRef<str>, S: AsRef<[usize]>>(&self, wanted: &[(N, S)]) -> Result<Vec<Vec<f32>>> {
        let values =
            wanted.iter().map(|(name, shape)| self.get(name.as_ref(), shape.as_ref())).collect::<Result<_>>()?;
        self.refuse_others(wanted.iter().map(|(name, _)| name.as_ref()))?;
        Ok(values)
    }

    /// Fails if the file has a tensor that is not among `known`. Weights that only another attention mechanism has (its
    /// landmarks, its projection) are passed over with a warning, so that a trained model can be run with this one.
    pub fn refuse_others<'a>(&self, known: impl Iterator<Item = &'a str>) -> Result<()> {
        let known: BTreeSet<&str> = known.collect();
        let (mechanism, others): (Vec<&str>, Vec<&str>) = self
            .names()
            .filter(|name| !known.contains(name) && !is_not_needed(name))
            .partition(|name| is_of_a_mechanism(name));
        if let Some(first) = mechanism.first() {
            let count = mechanism.len();
            tracing::warn!("{}: {count} weights of another attention are not used ({first}, ..)", self.path.display());
        }
        let mut others = others.into_iter();
        let Some(first) = others.next() else { return Ok(()) };
        let more = others.count();
        let more = if more > 0 { format!(" and {more} more") } else { String::new() };
        let near = nearest(first, known.iter().copied()).map(|near| format!("; the nearest name there is {near}"));
        let (shape, near) = (self.shape(first).unwrap_or_default(), near.unwrap_or_default());
        Err(self
            .problem(format!("has tensor {first}{more}, which the model does not have (its shape is {shape:?}{near})")))
    }

    /// A tensor as it is stored.
    pub(crate) fn stored(&self, name: &str) -> Option<&Stored> {
        self.tensors.get(name)
    }

    /// A file at the same path with these tensors instead.
    pub(crate) fn with_tensors(&self, tensors: BTreeMap<String, Stored>) -> Self {
        Self { path: self.path.clone(), metadata: self.metadata.clone(), tensors }
    }

    /// All tensors as they are stored, by name.
    pub(crate) fn into_tensors(self) -> BTreeMap<String, Stored> {
        self.tensors
    }

    /// Writes the tensors as they are, sorted by name, with other text beside them. [`write()`] is for numbers of one's own.
    ///
    /// # Errors
    /// What writing fails with.
    pub fn write_to(&self, out: &mut dyn Write, metadata: &Metadata) -> io::Result<()> {
        let (mut header, mut offset) = (Map::new(), 0);
        if !metadata.is_empty() {
            header.insert("__metadata__".into(), json!(metadata));
        }
        for (name, stored) in &self.tensors {
            let end = offset + stored.pieces.iter().map(|(_, range)| range.len()).sum::<usize>();
            let info = json!({ "dtype": stored.dtype, "shape": stored.shape, "data_offsets": [offset, end] });
            header.insert(name.clone(), info);
            offset = end;
        }
        write_header(out, &header)?;
        for (bytes, range) in self.tensors.values().flat_map(|stored| &stored.pieces) {
            out.write_all(&bytes[range.clone()])?;
        }
        Ok(())
    }

    pub(crate) fn problem(&self, problem: impl Into<String>) -> Error {
        Error::input(&self.path, problem)
    }
}

/// Names and shapes of a model's parameters, as checkpoints want them.
pub fn names_and_shapes(parameters: &Parameters) -> Vec<(String, Vec<usize>)> {
    parameters.entries().iter().map(|e| (e.name.clone(), e.shape.dims().to_vec())).collect()
}

/// The length of the header, and its first byte.
const PREFIX: u64 = 9;

/// The longest header that the format allows, bytes.
const MAX_HEADER: usize = 100_000_000;

/// What is said of a file of PyTorch.
const PICKLE: &str = "is a file of PyTorch, a pickle, which can run any program and is not read here; `lara convert` of it \
     prints the ten lines of Python that write its weights as safetensors";

/// Whether a file begins as those of PyTorch: a zip archive, or a pickle (before PyTorch 1.6).
fn is_pickle(bytes: &[u8]) -> bool {
    bytes.starts_with(b"PK\x03\x04") || bytes.starts_with(&[0x80, 2]) || bytes.starts_with(&[0x80, 4])
}

/// Where the header ends and the data begins, from the first bytes of a file.
fn header_end(bytes: &[u8]) -> std::result::Result<usize, String> {
    let Some(length) = bytes.first_chunk::<8>() else {
        let have = bytes.len();
        return Err(format!("is truncated: {have} bytes cannot be a safetensors file; use another copy"));
    };
    // A header begins with a brace; anything else was never one, however long it claims to be.
    let length = usize::try_from(u64::from_le_bytes(*length)).ok();
    match length.filter(|_| bytes.get(8).is_none_or(|&byte| byte == b'{')) {
        Some(length) if length <= MAX_HEADER => Ok(8 + length),
        Some(length) => Err(format!(
            "is not a safetensors file: its header would have {length} bytes, and the format allows {MAX_HEADER}"
        )),
        None if is_pickle(bytes) => Err(PICKLE.into()),
        None => Err("is not a safetensors file".into()),
    }
}

/// Where the data begins, if the file is as long as its header says.
fn check_whole(bytes: &[u8]) -> std::result::Result<usize, String> {
    let (data, have) = (header_end(bytes)?, bytes.len());
    let Some(header) = bytes.get(8..data) else {
        return Err(format!("is truncated: its header ends at byte {data} but it has {have} bytes; use another copy"));
    };
    let ends: Ends = serde_json::from_slice(header).map_err(|error| {
        format!("is a damaged safetensors file (its header cannot be read: {error}); use another copy")
    })?;
    let needed = ends.last.saturating_add(data as u64);
    if needed > have as u64 {
        return Err(format!(
            "is truncated: its tensors end at byte {needed} but it has {have} bytes; use another copy"
        ));
    }
    if needed < have as u64 {
        return Err(format!("is damaged: its tensors end at byte {needed} but it has {have} bytes; use another copy"));
    }
    Ok(data)
}

/// What a header says of where its tensors end; nothing else of it is kept. A name that comes twice is an error: each
/// reader would take another one of the two.
#[derive(Default)]
struct Ends {
    last: u64,
}

impl<'de> Deserialize<'de> for Ends {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        struct Header;
        impl<'de> Visitor<'de> for Header {
            type Value = Ends;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object with the tensors' names")
            }

            fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> std::result::Result<Ends, M::Error> {
                let (mut names, mut ends) = (BTreeSet::new(), Ends::default());
                while let Some(name) = map.next_key::<String>()? {
                    if name == "__metadata__" {
                        map.next_value::<IgnoredAny>()?;
                    } else {
                        ends.last = ends.last.max(map.next_value::<Place>()?.data_offsets.1);
                    }
                    if names.contains(&name) {
                        return Err(serde::de::Error::custom(format!("{name} comes twice")));
                    }
                    names.insert(name);
                }
                Ok(ends)
            }
        }
        deserializer.deserialize_map(Header)
    }
}

/// Where a tensor lies, counted from the end of the header.
#[derive(Deserialize)]
struct Place {
    data_offsets: (u64, u64),
}

/// IEEE half to single, exactly, subnormals included.
fn f16_to_f32(half: u16) -> f32 {
    let sign = u32::from(half & 0x8000) << 16;
    let magnitude = u32::from(half & 0x7fff);
    if magnitude >= 0x7c00 {
        // Infinity and NaN keep their fraction.
        return f32::from_bits(sign | 0x7f80_0000 | ((magnitude & 0x3ff) << 13));
    }
    // Read as a single with the half's exponent, a number is 2^112 too small; scaling up is exact and settles
    // subnormals, too.
    let scaled = f32::from_bits(magnitude << 13) * f32::from_bits((127 + 112) << 23);
    f32::from_bits(scaled.to_bits() | sign)
}
