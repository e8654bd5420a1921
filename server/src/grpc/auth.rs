//! The bearer token that a service needs to be reached from elsewhere.

use std::{fs, io, path::Path, sync::Arc};

use tonic::{Request, Status, service::Interceptor};

const MIN_TOKEN_CHARS: usize = 16;

/// A secret that clients send as `authorization: Bearer ...`.
#[derive(Clone)]
pub struct Token(Arc<str>);

/// Why a token file can't be used.
#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    /// The file can't be read.
    #[error("read the token file {path}")]
    Read {
        /// Its path.
        path: String,
        /// What the system said.
        source: io::Error,
    },
    /// It holds no usable token.
    #[error(
        "{path} holds no token: write at least {MIN_TOKEN_CHARS} printable characters without \
         spaces, such as the output of `openssl rand -hex 32`"
    )]
    Malformed {
        /// Its path.
        path: String,
    },
}

impl Token {
    /// Reads a token from a file; white space around it doesn't count.
    ///
    /// # Errors
    ///
    /// The file can't be read, or holds fewer than 16 printable ASCII characters, or spaces.
    pub fn from_file(path: &Path) -> Result<Self, TokenError> {
        let name = path.display().to_string();
        let text = fs::read_to_string(path)
            .map_err(|source| TokenError::Read { path: name.clone(), source })?;
        let token = text.trim();
        if token.len() < MIN_TOKEN_CHARS || !token.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(TokenError::Malformed { path: name });
        }
        Ok(Self(token.into()))
    }

    /// The value of the `authorization` header.
    pub(crate) fn header(&self) -> String {
        format!("Bearer {}", self.0)
    }
}

impl std::fmt::Debug for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Token(..)")
    }
}

/// Lets requests through that carry the token; all of them where there is none.
#[derive(Clone, Debug)]
pub(crate) struct Guard(pub(crate) Option<Token>);

impl Interceptor for Guard {
    fn call(&mut self, request: Request<()>) -> Result<Request<()>, Status> {
        let Some(token) = &self.0 else { return Ok(request) };
        let given = request.metadata().get("authorization").and_then(|value| value.to_str().ok());
        let given = given.and_then(|value| {
            let (scheme, secret) = value.split_once(' ')?;
            scheme.eq_ignore_ascii_case("bearer").then(|| secret.trim_start())
        });
        match given {
            Some(secret) if same(secret.as_bytes(), token.0.as_bytes()) => Ok(request),
            Some(_) => Err(Status::unauthenticated("this bearer token is not the service's")),
            None => Err(Status::unauthenticated("send `authorization: Bearer <token>`")),
        }
    }
}

/// Compares in a time that tells nothing about where the two differ.
fn same(a: &[u8], b: &[u8]) -> bool {
    a.len() == b.len() && a.iter().zip(b).fold(0, |differ, (a, b)| differ | (a ^ b)) == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_token_gets_through() {
        let mut guard = Guard(Some(Token("0123456789abcdef".into())));
        let cases = [
            ("the token", Some("Bearer 0123456789abcdef"), true),
            ("another case of the scheme", Some("bearer 0123456789abcdef"), true),
            ("nothing", None, false),
            ("no scheme", Some("0123456789abcdef"), false),
            ("another scheme", Some("Basic 0123456789abcdef"), false),
            ("a prefix of it", Some("Bearer 0123456789abcde"), false),
            ("more than it", Some("Bearer 0123456789abcdef0"), false),
            ("an empty one", Some("Bearer "), false),
        ];
        for (name, header, passes) in cases {
            let mut request = Request::new(());
            if let Some(header) = header {
                request.metadata_mut().insert("authorization", header.parse().unwrap());
            }
            assert_eq!(guard.call(request).is_ok(), passes, "{name}");
        }
        assert!(Guard(None).call(Request::new(())).is_ok(), "no token asked for");
    }

    #[test]
    fn a_token_file_holds_one_long_word() {
        let dir = tempfile::tempdir().unwrap();
        let cases = [
            ("with a line end", "0123456789abcdef\n", true),
            ("short", "0123456789abcde", false),
            ("empty", "", false),
            ("two words", "0123456789 abcdef0123", false),
            ("not ASCII", "0123456789abcdefé", false),
        ];
        for (name, text, good) in cases {
            let path = dir.path().join("token");
            fs::write(&path, text).unwrap();
            assert_eq!(Token::from_file(&path).is_ok(), good, "{name}");
        }
        assert!(matches!(Token::from_file(&dir.path().join("none")), Err(TokenError::Read { .. })));
    }
}
