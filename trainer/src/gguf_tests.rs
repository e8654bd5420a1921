use std::io::Write;

use super::*;

/// Writes a GGUF file piece by piece, sound or not.
#[derive(Clone, Default)]
pub(crate) struct Writer(pub(crate) Vec<u8>);

impl Writer {
    pub(crate) fn header(tensors: u64, pairs: u64) -> Self {
        Self(b"GGUF".to_vec()).u32(3).u64(tensors).u64(pairs)
    }
    pub(crate) fn bytes(mut self, bytes: &[u8]) -> Self {
        self.0.extend_from_slice(bytes);
        self
    }
    pub(crate) fn u32(self, n: u32) -> Self {
        self.bytes(&n.to_le_bytes())
    }
    pub(crate) fn u64(self, n: u64) -> Self {
        self.bytes(&n.to_le_bytes())
    }
    pub(crate) fn string(self, s: &str) -> Self {
        self.u64(s.len() as u64).bytes(s.as_bytes())
    }
    pub(crate) fn tensor(self, name: &str, dimensions: &[u64], kind: u32, offset: u64) -> Self {
        let w = self.string(name).u32(dimensions.len() as u32);
        dimensions.iter().fold(w, |w, d| w.u64(*d)).u32(kind).u64(offset)
    }
    pub(crate) fn pad(mut self) -> Self {
        self.0.resize(self.0.len().next_multiple_of(32), 0);
        self
    }
    fn parse(&self) -> Result<Parsed, LoadError> {
        parse(Path::new("test.gguf"), &self.0)
    }
    pub(crate) fn file(&self) -> tempfile::NamedTempFile {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(&self.0).unwrap();
        file
    }
}

fn small() -> Writer {
    let mut w = Writer::header(2, 4);
    w = w.string("general.architecture").u32(8).string("llama");
    w = w.string("n").u32(5).u32(-7_i32 as u32);
    w = w.string("list").u32(9).u32(8).u64(2).string("a").string("b");
    w = w.string("flag").u32(7).bytes(&[1]);
    w = w.tensor("a", &[2, 3], 0, 0).tensor("b", &[32], 8, 32).pad();
    for x in [1.0_f32, 2.0, 3.0, 4.0, 5.0, 6.0] {
        w = w.bytes(&x.to_le_bytes());
    }
    w = w.pad().bytes(&f16::from_f32(0.5).to_le_bytes());
    (0..32_i8).fold(w, |w, q| w.bytes(&(q - 16).to_le_bytes()))
}

#[test]
fn reads_metadata_and_tensors() {
    let file = small().file();
    let gguf = Gguf::open(file.path()).unwrap();
    assert_eq!(gguf.string("general.architecture").unwrap(), Some("llama"));
    assert_eq!(gguf.get("n"), Some(&Value::Signed(-7)));
    assert_eq!(gguf.strings("list").unwrap(), Some(vec!["a", "b"]));
    assert_eq!(gguf.boolean("flag").unwrap(), Some(true));
    assert_eq!(gguf.string("absent").unwrap(), None);
    let error = gguf.string("n").unwrap_err().to_string();
    assert!(error.contains("expected a string under `n`"), "{error}");

    let a = &gguf.tensors()["a"];
    assert_eq!(a.shape, [3, 2], "the innermost dimension comes last");
    assert_eq!(gguf.dequantize(a), [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]);
    let b = gguf.dequantize(&gguf.tensors()["b"]);
    assert_eq!((b[0], b[31]), (-8.0, 7.5));
}

#[test]
fn a_file_cut_anywhere_is_an_error() {
    let whole = small().0;
    for length in 0..whole.len() {
        let error = Writer(whole[..length].to_vec()).parse().expect_err("cut");
        assert!(error.to_string().starts_with("test.gguf: "), "{length}: {error}");
    }
}

#[test]
fn a_file_with_any_byte_changed_does_not_panic() {
    let whole = small().0;
    for at in 0..whole.len() {
        for byte in [0, 1, 0x7f, 0xff] {
            let mut changed = whole.clone();
            changed[at] = byte;
            let _ = Writer(changed).parse();
        }
    }
}

#[test]
fn hostile_files() {
    let huge = u64::MAX;
    let nested = (0..8)
        .fold(Writer::header(0, 1).string("k").u32(9), |w, _| w.u32(9).u64(1))
        .bytes(&[0; 99]);
    let cases = [
        ("another magic", Writer(b"GGML\x03\0\0\0".to_vec()), "expected the magic"),
        ("version 2", Writer(b"GGUF".to_vec()).u32(2), "GGUF version 2 is not supported"),
        ("big-endian", Writer(b"GGUF".to_vec()).u32(3 << 24), "(big-endian)"),
        ("endless tensors", Writer::header(huge, 0), "tensor count"),
        ("endless pairs", Writer::header(0, 1 << 40), "metadata count"),
        ("endless key", Writer::header(0, 1).u64(huge).bytes(&[0; 32]), "string length"),
        ("endless array", Writer::header(0, 1).string("k").u32(9).u32(0).u64(huge), "array length"),
        ("nested arrays", nested, "nest deeper"),
        ("no such value type", Writer::header(0, 1).string("k").u32(13).u64(0), "found 13"),
        ("a boolean of 2", Writer::header(0, 1).string("k").u32(7).bytes(&[2; 9]), "found 2"),
        (
            "key twice",
            Writer::header(0, 2).string("k").u32(0).bytes(&[1]).string("k").u32(0).bytes(&[1]),
            "occurs twice",
        ),
        ("not UTF-8", Writer::header(0, 1).u64(2).bytes(&[0xff; 16]), "UTF-8"),
        ("no dimensions", Writer::header(1, 0).tensor("t", &[], 0, 0), "dimensions, found 0"),
        ("five dimensions", Writer::header(1, 0).tensor("t", &[1; 5], 0, 0), "found 5"),
        ("a dimension of 0", Writer::header(1, 0).tensor("t", &[0, 4], 0, 0), "no F32 tensor"),
        (
            "overflowing size",
            Writer::header(1, 0).tensor("t", &[1 << 40, 1 << 40], 0, 0),
            "no F32 tensor",
        ),
        ("half a block", Writer::header(1, 0).tensor("t", &[33], 8, 0), "no Q8_0 tensor"),
        ("k-quants", Writer::header(1, 0).tensor("t", &[256], 12, 0), "type 12 of tensor `t`"),
        (
            "offset past the end",
            Writer::header(1, 0).tensor("t", &[4], 0, huge).pad(),
            "truncated?",
        ),
        ("misaligned offset", Writer::header(1, 0).tensor("t", &[1], 0, 4).pad().u64(0), "aligned"),
        (
            "odd alignment",
            Writer::header(0, 1).string("general.alignment").u32(4).u32(3),
            "general.alignment",
        ),
    ];
    for (name, file, expected) in cases {
        let error = file.parse().expect_err(name).to_string();
        assert!(error.contains(expected), "{name}: {error}");
    }
}

#[test]
fn dequantizes_blocks() {
    // d = 2, m = 0.5; byte i holds q = i low and q = 15 - i high.
    let nibbles: Vec<u8> = (0..16_u8).map(|i| i | (15 - i) << 4).collect();
    let half = |x: f32| f16::from_f32(x).to_le_bytes();
    let q4_1 = [&half(2.0)[..], &half(0.5), &nibbles].concat();
    let w = dequantize(Encoding::Q4_1, &q4_1);
    assert_eq!((w[0], w[1], w[15], w[16], w[31]), (0.5, 2.5, 30.5, 30.5, 0.5));
    let q4_0 = [&half(2.0)[..], &nibbles].concat();
    let w = dequantize(Encoding::Q4_0, &q4_0);
    assert_eq!((w[0], w[15], w[16], w[31]), (-16.0, 14.0, 14.0, -16.0));
    assert_eq!(dequantize(Encoding::F16, &half(-1.5)), [-1.5]);
    assert_eq!(dequantize(Encoding::Bf16, &bf16::from_f32(3.0).to_le_bytes()), [3.0]);
}
