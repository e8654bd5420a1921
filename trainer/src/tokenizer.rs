//! Text to token ids and back, and chat messages to text.
//!
//! Wraps the Hugging Face `tokenizers` crate, so ids equal those of the Python library. A GGUF's
//! byte-level BPE is rebuilt from its tokens and merges; the chat template is the one that the
//! model was trained with, rendered as Hugging Face renders it.

use std::path::{Path, PathBuf};

use minijinja::{Environment, ErrorKind, context};
use serde::Serialize;
use tokenizers::decoders::byte_level::ByteLevel;
use tokenizers::models::bpe::{BPE, Vocab};
use tokenizers::pre_tokenizers::PreTokenizerWrapper;
use tokenizers::pre_tokenizers::digits::Digits;
use tokenizers::pre_tokenizers::sequence::Sequence;
use tokenizers::pre_tokenizers::split::{Split, SplitPattern};
use tokenizers::{AddedToken, SplitDelimiterBehavior};

use crate::gguf::{Gguf, LoadError};

/// GGUF token types that stand for themselves and are never split.
const CONTROL: i64 = 3;
const USER_DEFINED: i64 = 4;
/// How Qwen2's tokenizer cuts text before BPE, as its tokenizer.json says.
const QWEN2_PATTERN: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";

/// Why text can't become tokens.
#[derive(Debug, thiserror::Error)]
pub enum TokenizerError {
    /// The vocabulary has nothing for a part of the text.
    #[error("cannot tokenize: {0}")]
    Encode(String),
    /// The model has no chat template, so it takes no messages.
    #[error("the model has no chat template")]
    NoTemplate,
    /// The template refused the messages or uses something unknown.
    #[error("chat template: {0}")]
    Template(String),
}

/// A tokenizer with its special tokens and chat template.
#[derive(Clone, Debug)]
pub struct Tokenizer {
    inner: tokenizers::Tokenizer,
    template: Option<String>,
    bos: Option<i64>,
    eos: Vec<i64>,
    pad: Option<i64>,
}

#[derive(Serialize)]
struct Message<'a> {
    role: &'a str,
    content: &'a str,
}

impl Tokenizer {
    /// Rebuilds the tokenizer that a GGUF describes.
    ///
    /// # Errors
    /// When the file has none, it contradicts itself, or it is of an unknown kind.
    pub fn from_gguf(gguf: &Gguf) -> Result<Self, LoadError> {
        let path = gguf.path();
        let missing = |key: &str| LoadError::malformed(path, format!("expected `{key}`"));
        let key = "tokenizer.ggml.model";
        let model = gguf.string(key)?.ok_or_else(|| missing(key))?;
        if model != "gpt2" {
            return Err(LoadError::unsupported(path, format!("tokenizer model `{model}`")));
        }
        let key = "tokenizer.ggml.tokens";
        let tokens = gguf.strings(key)?.ok_or_else(|| missing(key))?;
        let key = "tokenizer.ggml.merges";
        let merges = gguf.strings(key)?.ok_or_else(|| missing(key))?;
        let merges = merges
            .iter()
            .map(|merge| match merge.split_once(' ') {
                Some((left, right)) => Ok((left.to_owned(), right.to_owned())),
                None => {
                    let detail = format!("expected two tokens in merge `{merge}`");
                    Err(LoadError::malformed(path, detail))
                }
            })
            .collect::<Result<Vec<_>, _>>()?;
        let vocab: Vocab =
            tokens.iter().enumerate().map(|(id, token)| ((*token).to_owned(), id as u32)).collect();
        if vocab.len() != tokens.len() {
            let twice = tokens.len() - vocab.len();
            return Err(LoadError::malformed(path, format!("{twice} tokens occur twice")));
        }
        let bpe = BPE::builder()
            .vocab_and_merges(vocab, merges)
            .build()
            .map_err(|error| LoadError::malformed(path, format!("tokenizer: {error}")))?;

        let mut inner = tokenizers::Tokenizer::new(bpe);
        let key = "tokenizer.ggml.pre";
        let pre = gguf.string(key)?.unwrap_or("gpt-2");
        let Some(pre_tokenizer) = pre_tokenizer(pre) else {
            return Err(LoadError::unsupported(path, format!("pre-tokenizer `{pre}`")));
        };
        inner.with_pre_tokenizer(Some(pre_tokenizer));
        inner.with_decoder(Some(ByteLevel::default()));
        let key = "tokenizer.ggml.token_type";
        let types = gguf.integers(key)?.unwrap_or_default();
        if !types.is_empty() && types.len() != tokens.len() {
            let detail =
                format!("expected {} values under `{key}`, found {}", tokens.len(), types.len());
            return Err(LoadError::malformed(path, detail));
        }
        let added: Vec<AddedToken> = tokens
            .iter()
            .zip(&types)
            .filter(|(_, kind)| matches!(**kind, CONTROL | USER_DEFINED))
            .map(|(token, kind)| AddedToken::from(*token, *kind == CONTROL).normalized(false))
            .collect();
        inner.add_tokens(&added);

        let id = |name: &str| -> Result<Option<i64>, LoadError> {
            let key = format!("tokenizer.ggml.{name}_token_id");
            match gguf.unsigned(&key)? {
                None => Ok(None),
                Some(id) if id < tokens.len() as u64 => Ok(Some(id as i64)),
                Some(id) => {
                    let detail = format!("`{key}` is {id}, but there are {} tokens", tokens.len());
                    Err(LoadError::malformed(path, detail))
                }
            }
        };
        let tokenizer = Self {
            inner,
            template: gguf.string("tokenizer.chat_template")?.map(str::to_owned),
            bos: id("bos")?,
            eos: id("eos")?.into_iter().collect(),
            pad: id("padding")?,
        };
        tokenizer.check_template(path)?;
        Ok(tokenizer)
    }

    /// Reads `tokenizer.json` and `tokenizer_config.json` of a Hugging Face folder.
    ///
    /// # Errors
    /// When a file is missing or not what it should be.
    pub fn from_hf(folder: &Path, bos: Option<i64>, eos: Vec<i64>) -> Result<Self, LoadError> {
        let path = folder.join("tokenizer.json");
        let bytes = read(&path)?;
        let inner = tokenizers::Tokenizer::from_bytes(bytes)
            .map_err(|error| LoadError::malformed(&path, error.to_string()))?;
        let mut tokenizer = Self { inner, template: None, bos, eos, pad: None };

        let path = folder.join("tokenizer_config.json");
        if path.exists() {
            let config: serde_json::Value = serde_json::from_slice(&read(&path)?)
                .map_err(|error| LoadError::malformed(&path, error.to_string()))?;
            // A special token is its text, or an object that holds it.
            let id = |key: &str| {
                let token = config.get(key)?;
                let text = token.as_str().or_else(|| token.get("content")?.as_str())?;
                tokenizer.inner.token_to_id(text).map(i64::from)
            };
            let (bos, pad, eos) = (id("bos_token"), id("pad_token"), id("eos_token"));
            tokenizer.bos = tokenizer.bos.or(bos);
            tokenizer.pad = pad;
            if let Some(eos) = eos
                && !tokenizer.eos.contains(&eos)
            {
                tokenizer.eos.push(eos);
            }
            tokenizer.template =
                config.get("chat_template").and_then(|t| t.as_str()).map(str::to_owned);
        }
        // Newer folders keep the template in a file of its own.
        let path = folder.join("chat_template.jinja");
        if path.exists() {
            let text = String::from_utf8(read(&path)?)
                .map_err(|_| LoadError::malformed(&path, "expected UTF-8"))?;
            tokenizer.template = Some(text);
        }
        tokenizer.check_template(&path)?;
        Ok(tokenizer)
    }

    /// One token per byte and one more that ends a text; a chat is its messages' contents behind
    /// each other. What [`crate::toy`] is spelled in.
    pub fn bytes() -> Self {
        let mut alphabet: Vec<char> = ByteLevel::alphabet().into_iter().collect();
        alphabet.sort_unstable();
        let vocab: Vocab =
            alphabet.iter().enumerate().map(|(id, byte)| (byte.to_string(), id as u32)).collect();
        let end = vocab.len() as i64;
        let bpe = BPE::builder().vocab_and_merges(vocab, Vec::new()).build().expect("no merges");
        let mut inner = tokenizers::Tokenizer::new(bpe);
        inner.with_pre_tokenizer(Some(ByteLevel::new(false, true, false)));
        inner.with_decoder(Some(ByteLevel::default()));
        inner.add_special_tokens(&[AddedToken::from("<|end|>", true)]);
        let template = "{% for message in messages %}{{ message.content }}{% endfor %}".to_owned();
        Self { inner, template: Some(template), bos: None, eos: vec![end], pad: None }
    }

    /// Writes `tokenizer.json` and `tokenizer_config.json`.
    ///
    /// # Errors
    /// When a file can't be written.
    pub fn save(&self, folder: &Path) -> Result<(), LoadError> {
        let path = folder.join("tokenizer.json");
        let text = self
            .inner
            .to_string(false)
            .map_err(|error| LoadError::malformed(&path, error.to_string()))?;
        write(&path, text.as_bytes())?;
        let token = |id: Option<i64>| id.and_then(|id| self.inner.id_to_token(id as u32));
        let config = serde_json::json!({
            "tokenizer_class": "PreTrainedTokenizerFast",
            "bos_token": token(self.bos),
            "eos_token": token(self.eos.first().copied()),
            "pad_token": token(self.pad),
            "clean_up_tokenization_spaces": false,
            "chat_template": self.template,
        });
        let text = serde_json::to_string_pretty(&config).expect("plain values");
        write(&folder.join("tokenizer_config.json"), text.as_bytes())
    }

    /// Token ids of `text`. Special tokens written out in it become their ids; none are added.
    ///
    /// # Errors
    /// When the vocabulary can't express the text, which a byte-level one always can.
    pub fn encode(&self, text: &str) -> Result<Vec<i64>, TokenizerError> {
        let encoding = self
            .inner
            .encode_fast(text, false)
            .map_err(|error| TokenizerError::Encode(error.to_string()))?;
        Ok(encoding.get_ids().iter().copied().map(i64::from).collect())
    }

    /// Text of `tokens` without special tokens. Bytes that are no UTF-8 become U+FFFD.
    pub fn decode(&self, tokens: &[i64]) -> String {
        let ids: Vec<u32> = tokens.iter().filter_map(|id| u32::try_from(*id).ok()).collect();
        self.inner.decode(&ids, true).unwrap_or_default()
    }

    /// The text of (role, content) messages, ending where the assistant's answer begins.
    ///
    /// # Errors
    /// When there is no template, or it refuses the messages.
    pub fn render_chat(&self, messages: &[(&str, &str)]) -> Result<String, TokenizerError> {
        let template = self.template.as_deref().ok_or(TokenizerError::NoTemplate)?;
        let messages: Vec<Message<'_>> =
            messages.iter().map(|(role, content)| Message { role, content }).collect();
        let token = |id: Option<i64>| {
            id.and_then(|id| self.inner.id_to_token(id as u32)).unwrap_or_default()
        };
        let text = |error: minijinja::Error| TokenizerError::Template(error.to_string());
        environment(template)
            .map_err(text)?
            .get_template("chat")
            .map_err(text)?
            .render(context! {
                messages,
                add_generation_prompt => true,
                bos_token => token(self.bos),
                eos_token => token(self.eos.first().copied()),
            })
            .map_err(text)
    }

    /// The same tokenizer with other ids that end a generation.
    pub fn with_eos(self, eos: Vec<i64>) -> Self {
        Self { eos, ..self }
    }

    /// Ids that end a generation.
    pub fn eos(&self) -> &[i64] {
        &self.eos
    }

    /// The id that begins a text, if there is one.
    pub fn bos(&self) -> Option<i64> {
        self.bos
    }

    /// One more than the largest id.
    pub fn size(&self) -> i64 {
        self.inner.get_vocab(true).values().max().map_or(0, |id| i64::from(*id) + 1)
    }

    /// Fails while loading rather than at the first message.
    fn check_template(&self, path: &Path) -> Result<(), LoadError> {
        let Some(template) = &self.template else { return Ok(()) };
        environment(template)
            .map(drop)
            .map_err(|error| LoadError::malformed(path, format!("chat template: {error}")))
    }
}

/// How text is cut before BPE, by the name that GGUF gives it.
fn pre_tokenizer(name: &str) -> Option<PreTokenizerWrapper> {
    let byte_level = |use_regex| ByteLevel::new(false, true, use_regex).into();
    let steps = match name {
        "smollm" => vec![Digits::new(true).into(), byte_level(true)],
        "gpt-2" | "default" => vec![byte_level(true)],
        "qwen2" => {
            let pattern = SplitPattern::Regex(QWEN2_PATTERN.to_owned());
            let split = Split::new(pattern, SplitDelimiterBehavior::Isolated, false).ok()?;
            vec![split.into(), byte_level(false)]
        }
        _ => return None,
    };
    Some(Sequence::new(steps).into())
}

/// The environment that Hugging Face renders templates in: block lines leave no trace, strings
/// have a few of Python's methods, and a template may refuse.
fn environment(template: &str) -> Result<Environment<'_>, minijinja::Error> {
    let mut environment = Environment::new();
    environment.set_trim_blocks(true);
    environment.set_lstrip_blocks(true);
    environment.set_fuel(Some(1_000_000));
    environment.set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
    environment.add_function("raise_exception", |message: String| -> Result<String, _> {
        Err(minijinja::Error::new(ErrorKind::InvalidOperation, message))
    });
    environment.add_template("chat", template)?;
    Ok(environment)
}

pub(crate) fn read(path: &Path) -> Result<Vec<u8>, LoadError> {
    std::fs::read(path).map_err(|source| LoadError::Read { path: path.to_owned(), source })
}

pub(crate) fn write(path: &PathBuf, bytes: &[u8]) -> Result<(), LoadError> {
    std::fs::write(path, bytes).map_err(|source| LoadError::Write { path: path.clone(), source })
}
