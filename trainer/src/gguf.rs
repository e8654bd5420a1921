//! GGUF version 3: a memory-mapped file of metadata and quantised tensors.
//!
//! Layout: magic, version, counts, metadata pairs, tensor descriptions, padding, tensor data; all
//! little-endian. A file from outside leads to an error, never to a panic or an allocation that
//! its own length does not justify.

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::path::{Path, PathBuf};

use half::{bf16, f16};
use memmap2::Mmap;

/// Metadata arrays may nest this deep; no known writer nests at all.
const MAX_DEPTH: usize = 4;
/// More elements than any vocabulary has: a value takes more memory than its byte in the file.
const MAX_ARRAY: usize = 1 << 22;
/// GGUF allows four dimensions.
const MAX_DIMENSIONS: u32 = 4;

/// Why weights or a tokenizer could not be loaded. Every message names the file.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The file can't be opened or read.
    #[error("cannot read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the operating system said.
        source: std::io::Error,
    },
    /// The file can't be written.
    #[error("cannot write {}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// What the operating system said.
        source: std::io::Error,
    },
    /// The file is not what its format says it should be.
    #[error("{}: {detail}", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What was expected and what stands there.
        detail: String,
    },
    /// The file is sound but asks for something that is not implemented.
    #[error("{}: {detail} is not supported", path.display())]
    Unsupported {
        /// The file.
        path: PathBuf,
        /// The feature.
        detail: String,
    },
}

impl LoadError {
    pub(crate) fn malformed(path: &Path, detail: impl Into<String>) -> Self {
        Self::Malformed { path: path.to_owned(), detail: detail.into() }
    }

    pub(crate) fn unsupported(path: &Path, detail: impl Into<String>) -> Self {
        Self::Unsupported { path: path.to_owned(), detail: detail.into() }
    }
}

/// A metadata value. All integers widen to 64 bits.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// Any unsigned integer.
    Unsigned(u64),
    /// Any signed integer.
    Signed(i64),
    /// f32 or f64.
    Float(f64),
    /// A boolean.
    Bool(bool),
    /// UTF-8 text; other bytes are an error.
    String(String),
    /// Values of one type.
    Array(Vec<Value>),
}

/// How a tensor's elements are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encoding {
    /// 32-bit floats.
    F32,
    /// IEEE half precision.
    F16,
    /// bfloat16.
    Bf16,
    /// Blocks of 32: f16 scale d, 16 bytes of nibbles q; w = d (q - 8).
    Q4_0,
    /// Blocks of 32: f16 scale d, f16 minimum m, 16 bytes of nibbles q; w = d q + m.
    Q4_1,
    /// Blocks of 32: f16 scale d, 32 signed bytes q; w = d q.
    Q8_0,
}

impl Encoding {
    fn from_id(id: u32) -> Option<Self> {
        Some(match id {
            0 => Self::F32,
            1 => Self::F16,
            2 => Self::Q4_0,
            3 => Self::Q4_1,
            8 => Self::Q8_0,
            30 => Self::Bf16,
            _ => return None,
        })
    }

    /// Elements and bytes of one block.
    const fn block(self) -> (usize, usize) {
        match self {
            Self::F32 => (1, 4),
            Self::F16 | Self::Bf16 => (1, 2),
            Self::Q4_0 => (32, 18),
            Self::Q4_1 => (32, 20),
            Self::Q8_0 => (32, 34),
        }
    }
}

/// Where a tensor lies and what it looks like.
#[derive(Clone, Debug)]
pub struct TensorInfo {
    /// Its name in the file, such as `blk.0.attn_q.weight`.
    pub name: String,
    /// Row-major shape, outermost first (the file stores it innermost first).
    pub shape: Vec<i64>,
    /// How its elements are stored.
    pub encoding: Encoding,
    start: usize,
    bytes: usize,
}

/// An open GGUF file.
#[derive(Debug)]
pub struct Gguf {
    path: PathBuf,
    map: Mmap,
    metadata: HashMap<String, Value>,
    tensors: BTreeMap<String, TensorInfo>,
}

impl Gguf {
    /// Maps `path` and reads everything but the tensor data.
    ///
    /// # Errors
    /// When the file can't be read, is truncated or damaged, or stores a tensor in an encoding
    /// other than those of [`Encoding`].
    pub fn open(path: &Path) -> Result<Self, LoadError> {
        let read = |source| LoadError::Read { path: path.to_owned(), source };
        let file = File::open(path).map_err(read)?;
        // JUSTIFICATION: a copy would double the memory that loading needs.
        // SAFETY: the mapping is private and read-only. A program that truncates the file
        // meanwhile could still end this one with SIGBUS, as for every mapped model.
        #[expect(unsafe_code, reason = "there is no safe way to map a file")]
        let map = unsafe { Mmap::map(&file) }.map_err(read)?;
        let (metadata, tensors) = parse(path, &map)?;
        Ok(Self { path: path.to_owned(), map, metadata, tensors })
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Every tensor, by name.
    pub fn tensors(&self) -> &BTreeMap<String, TensorInfo> {
        &self.tensors
    }

    /// A metadata value, if present.
    pub fn get(&self, key: &str) -> Option<&Value> {
        self.metadata.get(key)
    }

    /// A metadata string, if present.
    ///
    /// # Errors
    /// When the value is of another type; so with the other typed getters.
    pub fn string(&self, key: &str) -> Result<Option<&str>, LoadError> {
        match self.get(key) {
            None => Ok(None),
            Some(Value::String(s)) => Ok(Some(s)),
            Some(other) => Err(self.mistyped(key, "a string", other)),
        }
    }

    /// A metadata integer that is not negative, if present.
    pub fn unsigned(&self, key: &str) -> Result<Option<u64>, LoadError> {
        match self.get(key) {
            None => Ok(None),
            Some(Value::Unsigned(n)) => Ok(Some(*n)),
            Some(Value::Signed(n)) if *n >= 0 => Ok(Some(n.unsigned_abs())),
            Some(other) => Err(self.mistyped(key, "an unsigned integer", other)),
        }
    }

    /// A metadata number, if present.
    pub fn float(&self, key: &str) -> Result<Option<f64>, LoadError> {
        match self.get(key) {
            None => Ok(None),
            Some(Value::Float(x)) => Ok(Some(*x)),
            Some(other) => Err(self.mistyped(key, "a float", other)),
        }
    }

    /// A metadata boolean, if present.
    pub fn boolean(&self, key: &str) -> Result<Option<bool>, LoadError> {
        match self.get(key) {
            None => Ok(None),
            Some(Value::Bool(b)) => Ok(Some(*b)),
            Some(other) => Err(self.mistyped(key, "a boolean", other)),
        }
    }

    /// A metadata array of strings, if present.
    pub fn strings(&self, key: &str) -> Result<Option<Vec<&str>>, LoadError> {
        let Some(value) = self.get(key) else { return Ok(None) };
        let Value::Array(items) = value else {
            return Err(self.mistyped(key, "an array of strings", value));
        };
        let strings = items.iter().map(|item| match item {
            Value::String(s) => Ok(s.as_str()),
            other => Err(self.mistyped(key, "an array of strings", other)),
        });
        strings.collect::<Result<_, _>>().map(Some)
    }

    /// A metadata array of integers, if present.
    pub fn integers(&self, key: &str) -> Result<Option<Vec<i64>>, LoadError> {
        let Some(value) = self.get(key) else { return Ok(None) };
        let Value::Array(items) = value else {
            return Err(self.mistyped(key, "an array of integers", value));
        };
        let integers = items.iter().map(|item| match item {
            Value::Signed(n) => Ok(*n),
            Value::Unsigned(n) if i64::try_from(*n).is_ok() => Ok(*n as i64),
            other => Err(self.mistyped(key, "an array of integers", other)),
        });
        integers.collect::<Result<_, _>>().map(Some)
    }

    /// The elements of a tensor as 32-bit floats, row-major.
    pub fn dequantize(&self, info: &TensorInfo) -> Vec<f32> {
        // `parse` checked that the range lies inside the file.
        dequantize(info.encoding, &self.map[info.start..info.start + info.bytes])
    }

    fn mistyped(&self, key: &str, expected: &str, found: &Value) -> LoadError {
        let found = match found {
            Value::Unsigned(_) => "an unsigned integer",
            Value::Signed(_) => "a signed integer",
            Value::Float(_) => "a float",
            Value::Bool(_) => "a boolean",
            Value::String(_) => "a string",
            Value::Array(_) => "an array",
        };
        LoadError::malformed(
            &self.path,
            format!("expected {expected} under `{key}`, found {found}"),
        )
    }
}

/// Little-endian pairs of bytes as a half-precision float.
fn half_at(bytes: &[u8], at: usize) -> f32 {
    f16::from_le_bytes([bytes[at], bytes[at + 1]]).to_f32()
}

/// `bytes` must be whole blocks of `encoding`.
fn dequantize(encoding: Encoding, bytes: &[u8]) -> Vec<f32> {
    let (elements, size) = encoding.block();
    let mut out = vec![0.0; bytes.len() / size * elements];
    let blocks = bytes.chunks_exact(size).zip(out.chunks_exact_mut(elements));
    match encoding {
        Encoding::F32 => {
            blocks.for_each(|(b, o)| o[0] = f32::from_le_bytes([b[0], b[1], b[2], b[3]]));
        }
        Encoding::F16 => blocks.for_each(|(b, o)| o[0] = half_at(b, 0)),
        Encoding::Bf16 => {
            blocks.for_each(|(b, o)| o[0] = bf16::from_le_bytes([b[0], b[1]]).to_f32());
        }
        // A byte holds elements i (low nibble) and i + 16 (high nibble) of its block.
        Encoding::Q4_0 => blocks.for_each(|(b, o)| {
            let d = half_at(b, 0);
            for (i, q) in b[2..].iter().enumerate() {
                o[i] = d * (f32::from(q & 0xf) - 8.0);
                o[i + 16] = d * (f32::from(q >> 4) - 8.0);
            }
        }),
        Encoding::Q4_1 => blocks.for_each(|(b, o)| {
            let (d, m) = (half_at(b, 0), half_at(b, 2));
            for (i, q) in b[4..].iter().enumerate() {
                o[i] = d * f32::from(q & 0xf) + m;
                o[i + 16] = d * f32::from(q >> 4) + m;
            }
        }),
        Encoding::Q8_0 => blocks.for_each(|(b, o)| {
            let d = half_at(b, 0);
            for (o, q) in o.iter_mut().zip(&b[2..]) {
                *o = d * f32::from(q.cast_signed());
            }
        }),
    }
    out
}

type Parsed = (HashMap<String, Value>, BTreeMap<String, TensorInfo>);

fn parse(path: &Path, bytes: &[u8]) -> Result<Parsed, LoadError> {
    let mut reader = Reader { path, bytes, at: 0 };
    if reader.take(4, "the magic `GGUF`")? != b"GGUF" {
        return Err(LoadError::malformed(path, "expected the magic `GGUF` at byte 0"));
    }
    let version = reader.u32("the version")?;
    if version != 3 {
        let swapped = if version.swap_bytes() == 3 { " (big-endian)" } else { "" };
        return Err(LoadError::unsupported(path, format!("GGUF version {version}{swapped}")));
    }
    // The least a description and a pair can take: length, dimensions, type, offset; length, type.
    let tensor_count = reader.count("tensor count", 24)?;
    let pair_count = reader.count("metadata count", 13)?;

    let mut metadata = HashMap::with_capacity(pair_count);
    for _ in 0..pair_count {
        let key = reader.string("a metadata key")?;
        let kind = reader.u32("a value type")?;
        let value = reader.value(kind, 0)?;
        if metadata.insert(key.clone(), value).is_some() {
            return Err(LoadError::malformed(path, format!("metadata key `{key}` occurs twice")));
        }
    }
    let alignment = match metadata.get("general.alignment") {
        None => 32,
        Some(Value::Unsigned(n)) if n.is_power_of_two() && *n <= 1 << 20 => *n as usize,
        Some(other) => {
            let detail =
                format!("expected a power of two under `general.alignment`, found {other:?}");
            return Err(LoadError::malformed(path, detail));
        }
    };

    let mut described = Vec::with_capacity(tensor_count);
    for _ in 0..tensor_count {
        described.push(reader.tensor()?);
    }
    let data = reader.at.next_multiple_of(alignment);
    let mut tensors = BTreeMap::new();
    for (mut info, offset) in described {
        let end = data
            .checked_add(offset)
            .and_then(|start| Some((start, start.checked_add(info.bytes)?)))
            .filter(|(start, end)| start % alignment == 0 && *end <= bytes.len());
        let Some((start, _)) = end else {
            let detail = format!(
                "tensor `{}`: expected {} aligned bytes at offset {offset} of the data, but the file has {} from there (truncated?)",
                info.name,
                info.bytes,
                bytes.len().saturating_sub(data.saturating_add(offset)),
            );
            return Err(LoadError::malformed(path, detail));
        };
        info.start = start;
        let name = info.name.clone();
        if tensors.insert(name.clone(), info).is_some() {
            return Err(LoadError::malformed(path, format!("tensor `{name}` occurs twice")));
        }
    }
    Ok((metadata, tensors))
}

/// Reads forward and never past the end.
struct Reader<'a> {
    path: &'a Path,
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    fn error(&self, detail: String) -> LoadError {
        LoadError::malformed(self.path, detail)
    }

    fn remaining(&self) -> usize {
        self.bytes.len() - self.at
    }

    fn take(&mut self, count: usize, what: &str) -> Result<&'a [u8], LoadError> {
        if count > self.remaining() {
            return Err(self.error(format!(
                "expected {what} ({count} bytes) at byte {}, but the file ends at byte {} (truncated?)",
                self.at,
                self.bytes.len()
            )));
        }
        let taken = &self.bytes[self.at..self.at + count];
        self.at += count;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self, what: &str) -> Result<[u8; N], LoadError> {
        let mut out = [0; N];
        out.copy_from_slice(self.take(N, what)?);
        Ok(out)
    }

    fn u32(&mut self, what: &str) -> Result<u32, LoadError> {
        self.array(what).map(u32::from_le_bytes)
    }

    fn u64(&mut self, what: &str) -> Result<u64, LoadError> {
        self.array(what).map(u64::from_le_bytes)
    }

    /// A count of things that take at least `least` bytes each: more than fit are an error.
    fn count(&mut self, what: &str, least: usize) -> Result<usize, LoadError> {
        let at = self.at;
        let count = self.u64(what)?;
        let fit = self.remaining() / least;
        usize::try_from(count).ok().filter(|n| *n <= fit).ok_or_else(|| {
            self.error(format!(
                "{what} {count} at byte {at} is more than the file can hold ({fit})"
            ))
        })
    }

    fn string(&mut self, what: &str) -> Result<String, LoadError> {
        let at = self.at;
        let length = self.count("string length", 1)?;
        let bytes = self.take(length, what)?;
        match std::str::from_utf8(bytes) {
            Ok(text) => Ok(text.to_owned()),
            Err(_) => Err(self.error(format!("expected {what} in UTF-8 at byte {at}"))),
        }
    }

    fn value(&mut self, kind: u32, depth: usize) -> Result<Value, LoadError> {
        let what = "a metadata value";
        Ok(match kind {
            0 => Value::Unsigned(self.array::<1>(what)?[0].into()),
            1 => Value::Signed(i8::from_le_bytes(self.array(what)?).into()),
            2 => Value::Unsigned(u16::from_le_bytes(self.array(what)?).into()),
            3 => Value::Signed(i16::from_le_bytes(self.array(what)?).into()),
            4 => Value::Unsigned(self.u32(what)?.into()),
            5 => Value::Signed(i32::from_le_bytes(self.array(what)?).into()),
            6 => Value::Float(f32::from_le_bytes(self.array(what)?).into()),
            7 => match self.array::<1>(what)? {
                [0] => Value::Bool(false),
                [1] => Value::Bool(true),
                [other] => return Err(self.error(format!("expected a boolean, found {other}"))),
            },
            8 => Value::String(self.string(what)?),
            9 if depth == MAX_DEPTH => {
                return Err(self.error(format!("arrays nest deeper than {MAX_DEPTH}")));
            }
            9 => {
                let kind = self.u32("an array's element type")?;
                let least = match kind {
                    0 | 1 | 7 => 1,
                    2 | 3 => 2,
                    4..=6 => 4,
                    8 | 10..=12 => 8,
                    _ => 12,
                };
                let count = self.count("array length", least)?;
                if count > MAX_ARRAY {
                    return Err(self.error(format!("an array of {count} elements is too long")));
                }
                (0..count)
                    .map(|_| self.value(kind, depth + 1))
                    .collect::<Result<_, _>>()
                    .map(Value::Array)?
            }
            10 => Value::Unsigned(self.u64(what)?),
            11 => Value::Signed(i64::from_le_bytes(self.array(what)?)),
            12 => Value::Float(f64::from_le_bytes(self.array(what)?)),
            other => {
                let at = self.at;
                return Err(self.error(format!(
                    "expected a value type 0 to 12 before byte {at}, found {other}"
                )));
            }
        })
    }

    /// A tensor description and its offset into the data; `start` is filled in later.
    fn tensor(&mut self) -> Result<(TensorInfo, usize), LoadError> {
        let name = self.string("a tensor name")?;
        let dimensions = self.u32("the number of dimensions")?;
        if !(1..=MAX_DIMENSIONS).contains(&dimensions) {
            return Err(self.error(format!(
                "tensor `{name}`: expected 1 to {MAX_DIMENSIONS} dimensions, found {dimensions}"
            )));
        }
        let mut sizes = Vec::with_capacity(dimensions as usize);
        for _ in 0..dimensions {
            sizes.push(self.u64("a dimension")?);
        }
        let id = self.u32("a tensor's type")?;
        let offset = self.u64("a tensor's offset")?;
        let Some(encoding) = Encoding::from_id(id) else {
            let detail = format!(
                "type {id} of tensor `{name}` (expected F32, F16, BF16, Q4_0, Q4_1 or Q8_0)"
            );
            return Err(LoadError::unsupported(self.path, detail));
        };
        let (elements, size) = encoding.block();
        let bytes = sizes
            .iter()
            .try_fold(1_usize, |n, d| n.checked_mul(usize::try_from(*d).ok()?))
            .filter(|_| sizes[0] % elements as u64 == 0 && !sizes.contains(&0))
            .and_then(|n| (n / elements).checked_mul(size))
            .filter(|n| i64::try_from(*n).is_ok());
        let (Some(bytes), Ok(offset)) = (bytes, usize::try_from(offset)) else {
            return Err(self.error(format!(
                "tensor `{name}`: no {encoding:?} tensor of dimensions {sizes:?} fits in memory"
            )));
        };
        let shape = sizes.iter().rev().map(|d| *d as i64).collect();
        Ok((TensorInfo { name, shape, encoding, start: 0, bytes }, offset))
    }
}

#[cfg(test)]
#[path = "gguf_tests.rs"]
mod tests;
