//! Names for content.

use std::fmt;

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

/// The SHA-256 of some content, `sha256:` and 64 lower-case hexadecimal digits. Images may use
/// other algorithms; none that we have seen does, and they are refused.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Digest(String);

impl Digest {
    /// Returns the digest of `bytes`.
    #[must_use]
    pub fn of(bytes: impl AsRef<[u8]>) -> Self {
        Self::finish(Sha256::new_with_prefix(bytes))
    }

    pub(crate) fn finish(hasher: Sha256) -> Self {
        use fmt::Write as _;
        let mut text = String::with_capacity(71);
        text.push_str("sha256:");
        for byte in hasher.finalize() {
            let _ = write!(text, "{byte:02x}");
        }
        Self(text)
    }

    /// Returns the chain id of layers, lowest first: the digest that names their sum.
    ///
    /// Source: the OCI image specification, config.md, "Layer ChainID".
    #[must_use]
    pub fn chain(diff_ids: &[Self]) -> Option<Self> {
        let mut ids = diff_ids.iter().cloned();
        let first = ids.next()?;
        Some(ids.fold(first, |below, id| Self::of(format!("{below} {id}"))))
    }

    /// Returns the 64 digits without the prefix; a file name, for one.
    #[must_use]
    pub fn hex(&self) -> &str {
        &self.0["sha256:".len()..]
    }

    /// Returns the whole text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl From<Digest> for String {
    fn from(digest: Digest) -> Self {
        digest.0
    }
}

impl TryFrom<String> for Digest {
    type Error = InvalidDigest;

    fn try_from(text: String) -> Result<Self, InvalidDigest> {
        let hex = text.strip_prefix("sha256:").unwrap_or_default();
        let digits = |b: u8| b.is_ascii_digit() || (b'a'..=b'f').contains(&b);
        if hex.len() == 64 && hex.bytes().all(digits) { Ok(Self(text)) } else { Err(InvalidDigest) }
    }
}

/// The text is no [`Digest`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a digest: expected `sha256:` and 64 lower-case hexadecimal digits")]
pub struct InvalidDigest;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chain_is_as_the_specification_says() {
        let (a, b, c) = (Digest::of("a"), Digest::of("b"), Digest::of("c"));
        let ab = Digest::of(format!("{a} {b}"));
        assert_eq!(Digest::chain(&[]), None);
        assert_eq!(Digest::chain(std::slice::from_ref(&a)), Some(a.clone()));
        assert_eq!(Digest::chain(&[a, b, c.clone()]), Some(Digest::of(format!("{ab} {c}"))));
    }

    #[test]
    fn only_sha256_is_a_digest() {
        let hex = "0123456789abcdef".repeat(4);
        for (text, good) in [
            (format!("sha256:{hex}"), true),
            (format!("sha256:{}", hex.to_uppercase()), false),
            (format!("sha512:{hex}"), false),
            (format!("sha256:../{}", &hex[3..]), false),
            (format!("sha256:{}", &hex[1..]), false),
            (String::new(), false),
        ] {
            assert_eq!(Digest::try_from(text.clone()).is_ok(), good, "{text}");
        }
    }
}
