//! The Llama family: Llama, SmolLM2, Qwen2 (bias on q, k, v) and Qwen3 (norm of q and k per head).
//!
//! A decoder block is `x + attention(norm(x))`, then `x + mlp(norm(x))`. The block is written once;
//! who attends to what is given by the caller: whole segments ([`Model::hidden`]), groups that
//! share a prompt ([`crate::score`]) or a cache ([`crate::sample`]).
//!
//! Weights are stored fused (q, k and v in one matrix, gate and up in another), which makes fewer
//! and larger matrix products; [`Model::parameters`] shows them under their Hugging Face names.

use tch::{Device, Kind, Tensor};

use crate::attention::{self, Rope};
use crate::rng::Rng;

/// Tensors by Hugging Face name, in the model's order.
pub type NamedTensors = Vec<(String, Tensor)>;

/// Which member of the family, as `model_type` in config.json and `general.architecture` in GGUF.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arch {
    /// Llama and SmolLM2.
    Llama,
    /// Qwen2 and Qwen2.5.
    Qwen2,
    /// Qwen3, dense.
    Qwen3,
}

/// The shape of a model.
#[derive(Clone, Debug, PartialEq)]
pub struct ModelConfig {
    /// Which member of the family.
    pub arch: Arch,
    /// Rows of the embedding.
    pub vocab: i64,
    /// Width of the residual stream.
    pub hidden: i64,
    /// Width of the MLP.
    pub intermediate: i64,
    /// Decoder blocks.
    pub layers: i64,
    /// Query heads.
    pub heads: i64,
    /// Key and value heads; divides `heads`.
    pub kv_heads: i64,
    /// Width of a head; not always `hidden / heads`.
    pub head_dim: i64,
    /// Base of the rotary embedding's frequencies.
    pub rope_theta: f64,
    /// Added to the mean square in every norm.
    pub rms_eps: f64,
    /// The output projection is the embedding.
    pub tied: bool,
    /// q, k and v have a bias.
    pub qkv_bias: bool,
    /// q and k are normalised per head.
    pub qk_norm: bool,
    /// Longest sequence.
    pub max_positions: i64,
    /// Begins a text, where the tokenizer has such a token.
    pub bos: Option<i64>,
    /// Any of these ends a generation.
    pub eos: Vec<i64>,
}

/// Why a model can't be made of these tensors or run on these tokens.
#[derive(Debug, thiserror::Error)]
pub enum ModelError {
    /// The configuration contradicts itself.
    #[error("model configuration: {0}")]
    Config(String),
    /// A tensor that the configuration asks for is not there.
    #[error("tensor `{0}` is missing")]
    Missing(String),
    /// A tensor has another shape than the configuration asks for.
    #[error("tensor `{name}`: expected shape {expected:?}, found {found:?}")]
    Shape {
        /// Its name.
        name: String,
        /// What the configuration asks for.
        expected: Vec<i64>,
        /// What was given.
        found: Vec<i64>,
    },
    /// A tensor that the model has no place for.
    #[error("tensor `{0}` is not part of this model")]
    Unexpected(String),
    /// A token id outside the vocabulary.
    #[error("token {token} is outside the vocabulary of {vocab}")]
    Token {
        /// The id.
        token: i64,
        /// Rows of the embedding.
        vocab: i64,
    },
    /// A sequence longer than the model's positions.
    #[error("a sequence of {length} tokens exceeds the model's {limit} positions")]
    TooLong {
        /// Its tokens.
        length: usize,
        /// The model's positions.
        limit: i64,
    },
    /// There is nothing to start from.
    #[error("a sequence needs at least one prompt token")]
    EmptyPrompt,
    /// A weight or an activation overflowed.
    #[error("the model's output is not finite (damaged weights, or training diverged)")]
    NotFinite,
}

/// One weight as it is stored: the fused matrix, and what each range of its rows is called.
pub(crate) struct Stored {
    /// The leaf that autograd knows.
    pub(crate) tensor: Tensor,
    /// Name and rows of each part; a single part covers the whole tensor.
    parts: Vec<(String, i64)>,
}

/// Indices into [`Model::stored`] of one block's weights.
struct Block {
    input_norm: usize,
    qkv: usize,
    qkv_bias: Option<usize>,
    q_norm: Option<usize>,
    k_norm: Option<usize>,
    output: usize,
    post_norm: usize,
    gate_up: usize,
    down: usize,
}

/// Compute weights on a device, in `Float` or `BFloat16`.
pub struct Model {
    pub(crate) config: ModelConfig,
    pub(crate) kind: Kind,
    pub(crate) device: Device,
    stored: Vec<Stored>,
    blocks: Vec<Block>,
    embedding: usize,
    norm: usize,
    head: usize,
    pub(crate) rope: Rope,
    parameters: NamedTensors,
    /// The head's gradient, fp32: its pass is written by hand (`score.rs`), not by autograd.
    pub(crate) head_gradient: Option<Tensor>,
    training: bool,
}

/// What one block needs to know of its weights' names: fused name, parts and rows.
fn block_layout(config: &ModelConfig, layer: i64) -> Vec<Vec<(String, Vec<i64>)>> {
    let c = config;
    let name = |part: &str| format!("model.layers.{layer}.{part}");
    let (q, kv) = (c.heads * c.head_dim, c.kv_heads * c.head_dim);
    let one = |part: &str, shape: &[i64]| vec![(name(part), shape.to_vec())];
    let qkv = |what: &str, inner: &[i64]| -> Vec<(String, Vec<i64>)> {
        [("q", q), ("k", kv), ("v", kv)]
            .map(|(p, rows)| {
                (name(&format!("self_attn.{p}_proj.{what}")), [&[rows], inner].concat())
            })
            .into()
    };
    let mut layout = vec![one("input_layernorm.weight", &[c.hidden]), qkv("weight", &[c.hidden])];
    if c.qkv_bias {
        layout.push(qkv("bias", &[]));
    }
    if c.qk_norm {
        layout.push(one("self_attn.q_norm.weight", &[c.head_dim]));
        layout.push(one("self_attn.k_norm.weight", &[c.head_dim]));
    }
    layout.push(one("self_attn.o_proj.weight", &[c.hidden, q]));
    layout.push(one("post_attention_layernorm.weight", &[c.hidden]));
    layout.push(
        ["gate", "up"]
            .map(|p| (name(&format!("mlp.{p}_proj.weight")), vec![c.intermediate, c.hidden]))
            .into(),
    );
    layout.push(one("mlp.down_proj.weight", &[c.hidden, c.intermediate]));
    layout
}

impl ModelConfig {
    /// Names and shapes of every parameter, in the model's order.
    pub fn parameter_shapes(&self) -> Vec<(String, Vec<i64>)> {
        self.layout().into_iter().flatten().collect()
    }

    /// As [`Self::parameter_shapes`], grouped as they are stored.
    fn layout(&self) -> Vec<Vec<(String, Vec<i64>)>> {
        let table = vec![self.vocab, self.hidden];
        let mut layout = vec![vec![("model.embed_tokens.weight".to_owned(), table.clone())]];
        for layer in 0..self.layers {
            layout.extend(block_layout(self, layer));
        }
        layout.push(vec![("model.norm.weight".to_owned(), vec![self.hidden])]);
        if !self.tied {
            layout.push(vec![("lm_head.weight".to_owned(), table)]);
        }
        layout
    }

    /// Checks what the rest relies on.
    ///
    /// # Errors
    /// When a size is not positive or beyond reason, heads don't divide, or an eos id is no token.
    pub fn check(&self) -> Result<(), ModelError> {
        let error = |detail: String| Err(ModelError::Config(detail));
        let sizes = [
            ("vocabulary size", self.vocab),
            ("hidden size", self.hidden),
            ("intermediate size", self.intermediate),
            ("number of layers", self.layers),
            ("number of heads", self.heads),
            ("number of key-value heads", self.kv_heads),
            ("head size", self.head_dim),
            ("number of positions", self.max_positions),
        ];
        for (what, size) in sizes {
            if !(1..=1 << 24).contains(&size) {
                return error(format!("{what} {size} is out of range"));
            }
        }
        if self.heads % self.kv_heads != 0 {
            return error(format!(
                "{} heads are not a multiple of {} key-value heads",
                self.heads, self.kv_heads
            ));
        }
        if self.head_dim % 2 != 0 {
            return error(format!("head size {} is odd", self.head_dim));
        }
        if !(self.rope_theta.is_finite() && self.rope_theta > 0.0 && self.rms_eps >= 0.0) {
            return error("rope base or norm epsilon is out of range".to_owned());
        }
        if let Some(id) = self.eos.iter().chain(&self.bos).find(|id| !(0..self.vocab).contains(id))
        {
            return error(format!("special token {id} is outside the vocabulary"));
        }
        Ok(())
    }

    /// Number of parameters.
    pub fn parameter_count(&self) -> i64 {
        self.parameter_shapes().iter().map(|(_, shape)| shape.iter().product::<i64>()).sum()
    }
}

impl Model {
    /// Builds a model of fp32 `tensors` under Hugging Face names, in any order.
    ///
    /// # Errors
    /// When the configuration contradicts itself, or a tensor is missing, superfluous or misshapen.
    pub fn from_tensors(
        config: ModelConfig,
        tensors: &NamedTensors,
        kind: Kind,
        device: Device,
    ) -> Result<Self, ModelError> {
        config.check()?;
        let _guard = tch::no_grad_guard();
        let mut given: std::collections::HashMap<&str, &Tensor> =
            tensors.iter().map(|(name, tensor)| (name.as_str(), tensor)).collect();
        let mut stored = Vec::new();
        for fused in config.layout() {
            let mut parts = Vec::new();
            let mut pieces = Vec::new();
            for (name, shape) in fused {
                let tensor =
                    given.remove(name.as_str()).ok_or_else(|| ModelError::Missing(name.clone()))?;
                if tensor.size() != shape {
                    return Err(ModelError::Shape { name, expected: shape, found: tensor.size() });
                }
                parts.push((name, shape[0]));
                pieces.push(tensor.to_device(device).to_kind(kind));
            }
            // `cat` always copies: the model never shares memory with what it was made of.
            stored.push(Stored { tensor: Tensor::cat(&pieces, 0), parts });
        }
        if let Some(name) = given.into_keys().min() {
            return Err(ModelError::Unexpected(name.to_owned()));
        }
        Ok(Self::assemble(config, stored, kind, device))
    }

    /// A model with random weights: normal with deviation 0.02 (matrices), ones (norms) and zeros
    /// (biases). The same seed gives the same weights.
    ///
    /// # Panics
    /// When the configuration contradicts itself.
    pub fn random(config: ModelConfig, seed: u64, kind: Kind, device: Device) -> Self {
        let tensors: NamedTensors = config
            .parameter_shapes()
            .into_iter()
            .enumerate()
            .map(|(i, (name, shape))| {
                let tensor = if name.ends_with("norm.weight") {
                    Tensor::ones(&shape, (Kind::Float, Device::Cpu))
                } else if name.ends_with("bias") {
                    Tensor::zeros(&shape, (Kind::Float, Device::Cpu))
                } else {
                    let count: i64 = shape.iter().product();
                    let mut rng = Rng::derive(seed, i as u64, "weights");
                    let values: Vec<f32> = (0..count).map(|_| 0.02 * normal(&mut rng)).collect();
                    Tensor::from_slice(&values).reshape(&shape)
                };
                (name, tensor)
            })
            .collect();
        Self::from_tensors(config, &tensors, kind, device).expect("the layout is the model's own")
    }

    fn assemble(config: ModelConfig, stored: Vec<Stored>, kind: Kind, device: Device) -> Self {
        let mut next = 0..stored.len();
        let mut take = || next.next().expect("one stored tensor per entry of the layout");
        let embedding = take();
        let blocks = (0..config.layers)
            .map(|_| Block {
                input_norm: take(),
                qkv: take(),
                qkv_bias: config.qkv_bias.then(&mut take),
                q_norm: config.qk_norm.then(&mut take),
                k_norm: config.qk_norm.then(&mut take),
                output: take(),
                post_norm: take(),
                gate_up: take(),
                down: take(),
            })
            .collect();
        let norm = take();
        let head = if config.tied { embedding } else { take() };
        let rope = Rope::new(&config, device);
        let parameters = stored.iter().flat_map(|s| parts(s, &s.tensor)).collect();
        let head_gradient = None;
        Self {
            config,
            kind,
            device,
            stored,
            blocks,
            embedding,
            norm,
            head,
            rope,
            parameters,
            head_gradient,
            training: false,
        }
    }

    /// The shape of the model.
    pub fn config(&self) -> &ModelConfig {
        &self.config
    }

    /// What the weights are computed in.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// Where the weights lie.
    pub fn device(&self) -> Device {
        self.device
    }

    /// Every weight under its Hugging Face name, in a fixed order. Views of the compute weights:
    /// read them, and take gradients from [`Self::take_gradients`].
    pub fn parameters(&self) -> &[(String, Tensor)] {
        &self.parameters
    }

    /// Makes the weights record gradients, or stop recording them.
    pub fn set_training(&mut self, on: bool) {
        for stored in &mut self.stored {
            stored.tensor = stored.tensor.detach().set_requires_grad(on);
        }
        self.training = on;
        self.head_gradient = None;
    }

    /// Whether the weights record gradients.
    pub fn training(&self) -> bool {
        self.training
    }

    /// Adds the gradients gathered since the last call to `into` (fp32; order and shapes of
    /// [`Self::parameters`]) and clears them.
    ///
    /// # Panics
    /// When `into` differs from the parameters in number or shape.
    pub fn take_gradients(&mut self, into: &mut [Tensor]) {
        assert_eq!(into.len(), self.parameters.len(), "one gradient per parameter");
        let _guard = tch::no_grad_guard();
        let mut at = 0;
        for (i, stored) in self.stored.iter_mut().enumerate() {
            let gradient = stored.tensor.grad();
            if gradient.defined() {
                for (offset, (_, part)) in parts(stored, &gradient).into_iter().enumerate() {
                    let _ = into[at + offset].g_add_(&part);
                }
                // A leaf of its own without a gradient: the next backward pass then stores its
                // result rather than adding it to zeros.
                stored.tensor = stored.tensor.detach().set_requires_grad(true);
            }
            if i == self.head
                && let Some(gradient) = self.head_gradient.take()
            {
                let _ = into[at].g_add_(&gradient);
            }
            at += stored.parts.len();
        }
    }

    /// Copies fp32 `masters` (order and shapes of [`Self::parameters`]) into the compute weights.
    ///
    /// # Panics
    /// When `masters` differ from the parameters in number or shape.
    pub fn load_parameters_from(&mut self, masters: &[Tensor]) {
        assert_eq!(masters.len(), self.parameters.len(), "one master per parameter");
        let _guard = tch::no_grad_guard();
        for ((_, parameter), master) in self.parameters.iter_mut().zip(masters) {
            parameter.copy_(master);
        }
    }

    /// Hidden states [T, hidden] after the final norm of `tokens` (i64 [T]): sequences one after
    /// the other, of these lengths (sum T). Positions restart and attention is causal in each.
    ///
    /// # Panics
    /// When the lengths don't add up to T, or a token lies outside the vocabulary.
    pub fn hidden(&self, tokens: &Tensor, segments: &[i64]) -> Tensor {
        self.packed(tokens, segments, |_, _| {})
    }

    /// As [`Self::hidden`], with the keys and values [T, kv heads, d] of every block.
    pub(crate) fn prefill(
        &self,
        tokens: &Tensor,
        segments: &[i64],
    ) -> (Tensor, Vec<(Tensor, Tensor)>) {
        let mut keys = Vec::with_capacity(self.blocks.len());
        let keep = |k: &Tensor, v: &Tensor| keys.push((k.shallow_clone(), v.shallow_clone()));
        let hidden = self.packed(tokens, segments, keep);
        (hidden, keys)
    }

    fn packed(
        &self,
        tokens: &Tensor,
        segments: &[i64],
        mut keep: impl FnMut(&Tensor, &Tensor),
    ) -> Tensor {
        let positions: Vec<i64> = segments.iter().flat_map(|length| 0..*length).collect();
        let positions = Tensor::from_slice(&positions).to_device(self.device);
        let mask = |length: &i64| attention::causal_mask(*length, self.kind, self.device);
        let masks: Vec<Tensor> = segments.iter().map(mask).collect();
        self.forward(tokens, &positions, |_, q, k, v| {
            keep(k, v);
            attention::segments(q, k, v, segments, &masks)
        })
    }

    /// Runs every block on rows [T] and returns [T, hidden] after the final norm. `attend` gets
    /// the layer, rotated q [T, heads, d], rotated k and v [T, kv heads, d], and gives
    /// [T, heads * d].
    pub(crate) fn forward(
        &self,
        tokens: &Tensor,
        positions: &Tensor,
        mut attend: impl FnMut(usize, &Tensor, &Tensor, &Tensor) -> Tensor,
    ) -> Tensor {
        let c = &self.config;
        let w = |index: usize| &self.stored[index].tensor;
        let rows = self.rope.rows(positions);
        let mut x = Tensor::embedding(w(self.embedding), tokens, -1, false, false);
        for (layer, block) in self.blocks.iter().enumerate() {
            let normed = self.rms_norm(&x, w(block.input_norm));
            let qkv = normed.linear(w(block.qkv), block.qkv_bias.map(w));
            let total = c.heads + 2 * c.kv_heads;
            let qkv = qkv.view([-1, total, c.head_dim]);
            let (mut qk, v) = {
                let mut split = qkv.split_with_sizes([c.heads + c.kv_heads, c.kv_heads], 1);
                let v = split.pop().expect("two parts");
                (split.pop().expect("two parts"), v)
            };
            if let (Some(q_norm), Some(k_norm)) = (block.q_norm, block.k_norm) {
                let split = qk.split_with_sizes([c.heads, c.kv_heads], 1);
                let q = self.rms_norm(&split[0], w(q_norm));
                let k = self.rms_norm(&split[1], w(k_norm));
                qk = Tensor::cat(&[q, k], 1);
            }
            let qk = rows.rotate(&qk);
            let split = qk.split_with_sizes([c.heads, c.kv_heads], 1);
            let attended = attend(layer, &split[0], &split[1], &v);
            // A new tensor: `+=` works in place, and the norm's backward pass still needs this x.
            x = &x + attended.linear::<&Tensor>(w(block.output), None);

            let normed = self.rms_norm(&x, w(block.post_norm));
            let gate_up = normed.linear::<&Tensor>(w(block.gate_up), None);
            let gate_up = gate_up.chunk(2, -1);
            let activated = gate_up[0].silu() * &gate_up[1];
            x = &x + activated.linear::<&Tensor>(w(block.down), None);
        }
        self.rms_norm(&x, w(self.norm))
    }

    /// The matrix [vocab, hidden] that turns hidden states into logits.
    pub(crate) fn head(&self) -> &Tensor {
        &self.stored[self.head].tensor
    }

    /// Normalised in fp32, cast, then multiplied by the weight: the order that Hugging Face has.
    fn rms_norm(&self, x: &Tensor, weight: &Tensor) -> Tensor {
        let width = *x.size().last().expect("a row has a width");
        x.rms_norm::<&Tensor>([width], None, self.config.rms_eps) * weight
    }

    /// Refuses tokens outside the vocabulary.
    pub(crate) fn check_tokens<'a>(
        &self,
        tokens: impl IntoIterator<Item = &'a i64>,
    ) -> Result<(), ModelError> {
        let vocab = self.config.vocab;
        match tokens.into_iter().find(|token| !(0..vocab).contains(*token)) {
            Some(&token) => Err(ModelError::Token { token, vocab }),
            None => Ok(()),
        }
    }

    /// Refuses sequences that are longer than the model's positions.
    pub(crate) fn check_length(&self, length: usize) -> Result<(), ModelError> {
        let limit = self.config.max_positions;
        if length as i64 > limit { Err(ModelError::TooLong { length, limit }) } else { Ok(()) }
    }
}

/// The named parts of `tensor`, which is `stored` or has its shape.
fn parts(stored: &Stored, tensor: &Tensor) -> NamedTensors {
    let mut start = 0;
    let narrow = |(name, rows): &(String, i64)| {
        start += rows;
        (name.clone(), tensor.detach().narrow(0, start - rows, *rows))
    };
    stored.parts.iter().map(narrow).collect()
}

/// A standard normal number (Box and Muller 1958).
fn normal(rng: &mut Rng) -> f32 {
    let uniform = |bits: u64| ((bits >> 11) as f64 + 0.5) / (1_u64 << 53) as f64;
    let (a, b) = (uniform(rng.next_u64()), uniform(rng.next_u64()));
    ((-2.0 * a.ln()).sqrt() * (std::f64::consts::TAU * b).cos()) as f32
}
