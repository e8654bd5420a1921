//! Log-probs of completions with their gradient, and the head's pass in chunks.
//!
//! A group's prompt is run once for all its completions: the gradient is the same and the work a
//! fraction. Logits [tokens, vocab] are made a chunk at a time and never kept in fp32. No loss
//! needs them afterwards: the caller turns log-probs into dLoss/dlog_prob by formula, and
//! [`Scored::backward`] takes it from there. With logits z, temperature T, p = softmax(z / T) and
//! derivative g of a token's log-prob, dLoss/dz = g (onehot - p) / T.

use tch::{Device, Kind, Tensor};

use crate::attention::{self, Suffixes};
use crate::model::{Model, ModelError};

/// Rows of logits that are kept or recomputed together: a matrix product of a good size.
const CHUNK: i64 = 1024;
/// Rows that go through softmax together: 128 x 49,152 fp32 numbers fit a 32 MiB cache.
const ROWS: i64 = 128;
/// Logits up to this many bytes are kept for the backward pass; beyond, they are made again.
const KEEP_BYTES: i64 = 512 << 20;

/// Completions of one prompt.
#[derive(Clone, Debug)]
pub struct Group<'a> {
    /// Tokens that they all start from; at least one.
    pub prompt: &'a [i64],
    /// Tokens of each completion.
    pub completions: Vec<&'a [i64]>,
}

/// The forward pass of a micro-batch, kept for its backward pass.
pub struct Scored {
    /// Log-prob of every completion token, in nats: groups, then completions, then tokens.
    pub log_probs: Vec<f32>,
    /// Entropy of the distribution that each token was drawn from; empty unless asked for.
    pub entropy: Vec<f32>,
    /// Hidden states [N, hidden] that predict the tokens; records the graph while training.
    hidden: Tensor,
    targets: Tensor,
    /// log sum exp(z / T) [N].
    normalizer: Tensor,
    /// Logits of each chunk, where they are few enough to keep.
    logits: Vec<Tensor>,
    temperature: f64,
    head: Tensor,
    head_gradient: Option<Tensor>,
}

/// Log-probs of tokens, without a graph. See [`Model::log_probs`].
#[derive(Debug)]
pub struct LogProbs {
    /// Log-prob [N] in nats, fp32.
    pub values: Tensor,
    /// Entropy [N] in nats, fp32, when asked for.
    pub entropy: Option<Tensor>,
}

impl Model {
    /// Log-probs of every completion token at `temperature` (> 0), as one micro-batch.
    ///
    /// Records the graph when the model is [training](Model::set_training) and gradients are on.
    ///
    /// # Errors
    /// When a prompt is empty, a sequence too long, or a token outside the vocabulary.
    pub fn score(
        &mut self,
        groups: &[Group<'_>],
        temperature: f64,
        entropy: bool,
    ) -> Result<Scored, ModelError> {
        let layout = Layout::new(self, groups)?;
        let rows = self.forward(&layout.tokens, &layout.positions, |_, q, k, v| {
            let mut out = Vec::with_capacity(2 * layout.groups.len());
            for group in &layout.groups {
                let prompt = |x: &Tensor| x.narrow(0, group.start, group.prompt);
                let (prompt_k, prompt_v) = (prompt(k), prompt(v));
                out.push(attention::sequence(&prompt(q), &prompt_k, &prompt_v, &group.mask));
                if group.suffix > 0 {
                    let suffix = |x: &Tensor| x.narrow(0, group.start + group.prompt, group.suffix);
                    out.push(attention::shared_prompt(
                        (&prompt_k, &prompt_v),
                        &suffix(q),
                        &suffix(k),
                        &suffix(v),
                        &group.suffixes,
                    ));
                }
            }
            Tensor::cat(&out, 0)
        });
        let hidden = Tensor::embedding(&rows, &layout.predictors, -1, false, false);
        let records = hidden.requires_grad();
        let keep = records && self.logit_bytes(layout.targets.size()[0]) <= KEEP_BYTES;
        let pass = self.head_pass(&hidden, &layout.targets, temperature, entropy, keep);
        let head_gradient = records.then(|| self.head_gradient_buffer());
        let log_probs = to_vec(&pass.log_probs);
        if log_probs.iter().any(|x| !x.is_finite()) {
            return Err(ModelError::NotFinite);
        }
        Ok(Scored {
            log_probs,
            entropy: pass.entropy.as_ref().map(to_vec).unwrap_or_default(),
            hidden,
            targets: layout.targets,
            normalizer: pass.normalizer,
            logits: pass.logits,
            temperature,
            head: self.head().detach(),
            head_gradient,
        })
    }

    /// Log-probs and, when asked, entropy of `targets` (i64 [N]) predicted by `hidden` rows
    /// [N, hidden], at `temperature`. In chunks and without a graph.
    pub fn log_probs(
        &self,
        hidden: &Tensor,
        targets: &Tensor,
        temperature: f64,
        entropy: bool,
    ) -> LogProbs {
        let pass = self.head_pass(hidden, targets, temperature, entropy, false);
        LogProbs { values: pass.log_probs, entropy: pass.entropy }
    }

    fn logit_bytes(&self, rows: i64) -> i64 {
        rows * self.config.vocab * self.kind.elt_size_in_bytes() as i64
    }

    fn head_pass(
        &self,
        hidden: &Tensor,
        targets: &Tensor,
        temperature: f64,
        entropy: bool,
        keep: bool,
    ) -> HeadPass {
        let _guard = tch::no_grad_guard();
        let (head, hidden) = (self.head().detach(), hidden.detach());
        let mut log_probs = Vec::new();
        let mut entropies = Vec::new();
        let mut normalizers = Vec::new();
        let mut kept = Vec::new();
        for (start, rows) in chunks(hidden.size()[0], CHUNK) {
            let logits = hidden.narrow(0, start, rows).linear::<&Tensor>(&head, None);
            let targets = targets.narrow(0, start, rows);
            for (start, rows) in chunks(rows, ROWS) {
                let z = logits.narrow(0, start, rows).to_kind(Kind::Float) / temperature;
                let targets = targets.narrow(0, start, rows).unsqueeze(1);
                let normalizer = z.logsumexp([-1_i64].as_slice(), true);
                log_probs.push((z.gather(1, &targets, false) - &normalizer).squeeze_dim(1));
                if entropy {
                    // H = log Z - sum p z
                    let p = (&z - &normalizer).exp();
                    let mean = (p * z).sum_dim_intlist([-1_i64].as_slice(), false, Kind::Float);
                    entropies.push(normalizer.squeeze_dim(1) - mean);
                }
                normalizers.push(normalizer.squeeze_dim(1));
            }
            if keep {
                kept.push(logits);
            }
        }
        let cat = |parts: &[Tensor]| {
            if parts.is_empty() {
                Tensor::zeros([0], (Kind::Float, self.device))
            } else {
                Tensor::cat(parts, 0)
            }
        };
        HeadPass {
            log_probs: cat(&log_probs),
            entropy: entropy.then(|| cat(&entropies)),
            normalizer: cat(&normalizers),
            logits: kept,
        }
    }

    /// The head's gradient, made when first asked for; shares memory with the model's.
    fn head_gradient_buffer(&mut self) -> Tensor {
        let shape = [self.config.vocab, self.config.hidden];
        let float = (Kind::Float, self.device);
        self.head_gradient.get_or_insert_with(|| Tensor::zeros(shape, float)).shallow_clone()
    }
}

impl Scored {
    /// Adds to the model's gradients, given dLoss/dlog_prob of every token.
    ///
    /// # Panics
    /// When the derivatives are not one per token, or the forward pass recorded no graph.
    pub fn backward(self, derivative: &[f32]) {
        assert_eq!(derivative.len(), self.log_probs.len(), "one derivative per token");
        let mut head_gradient = self.head_gradient.expect("the model was in training");
        let device = self.hidden.device();
        let upstream = Tensor::from_slice(derivative).to_device(device) / self.temperature;
        let mut pushed = Vec::new();
        tch::no_grad(|| {
            let hidden = self.hidden.detach();
            for (i, (start, rows)) in chunks(hidden.size()[0], CHUNK).enumerate() {
                let hidden = hidden.narrow(0, start, rows);
                let logits = match self.logits.get(i) {
                    Some(kept) => kept.shallow_clone(),
                    None => hidden.linear::<&Tensor>(&self.head, None),
                };
                for (at, rows) in chunks(rows, ROWS) {
                    let part = |x: &Tensor| x.narrow(0, start + at, rows).unsqueeze(1);
                    let g = part(&upstream);
                    let mut slot = logits.narrow(0, at, rows);
                    let mut d = slot.to_kind(Kind::Float);
                    let _ = d.g_mul_scalar_(1.0 / self.temperature);
                    let _ = d.g_sub_(&part(&self.normalizer)).exp_().g_mul_(&-&g);
                    let d = d.scatter_add_(1, &part(&self.targets), &g);
                    slot.copy_(&d);
                }
                let _ = head_gradient.g_add_(&logits.transpose(0, 1).matmul(&hidden));
                pushed.push(logits.matmul(&self.head));
            }
        });
        if !pushed.is_empty() {
            // The inner product's gradient is `pushed` itself.
            let pushed = Tensor::cat(&pushed, 0);
            (&self.hidden * pushed).sum(self.hidden.kind()).backward();
        }
    }
}

struct HeadPass {
    log_probs: Tensor,
    entropy: Option<Tensor>,
    normalizer: Tensor,
    logits: Vec<Tensor>,
}

/// One group's place among the rows.
struct Placed {
    start: i64,
    prompt: i64,
    suffix: i64,
    mask: Tensor,
    suffixes: Suffixes,
}

/// Rows of a micro-batch: for each group its prompt, then the completions without their last
/// tokens, which predict nothing.
struct Layout {
    groups: Vec<Placed>,
    tokens: Tensor,
    positions: Tensor,
    /// The row that predicts each target.
    predictors: Tensor,
    targets: Tensor,
}

impl Layout {
    fn new(model: &Model, groups: &[Group<'_>]) -> Result<Self, ModelError> {
        let (kind, device) = (model.kind, model.device);
        let (mut tokens, mut positions) = (Vec::new(), Vec::new());
        let (mut predictors, mut targets) = (Vec::new(), Vec::new());
        let mut placed = Vec::new();
        for group in groups {
            let prompt = group.prompt.len() as i64;
            if prompt == 0 {
                return Err(ModelError::EmptyPrompt);
            }
            model.check_tokens(group.prompt)?;
            let start = tokens.len() as i64;
            tokens.extend_from_slice(group.prompt);
            positions.extend(0..prompt);
            let mut lengths = Vec::new();
            for completion in &group.completions {
                model.check_tokens(*completion)?;
                model.check_length(group.prompt.len() + completion.len())?;
                let Some((_, inputs)) = completion.split_last() else { continue };
                predictors.push(start + prompt - 1);
                predictors.extend((0..inputs.len()).map(|i| (tokens.len() + i) as i64));
                targets.extend_from_slice(completion);
                tokens.extend_from_slice(inputs);
                positions.extend(prompt..prompt + inputs.len() as i64);
                lengths.push(inputs.len() as i64);
            }
            placed.push(Placed {
                start,
                prompt,
                suffix: lengths.iter().sum(),
                mask: attention::causal_mask(prompt, kind, device),
                suffixes: Suffixes::new(&lengths, kind, device),
            });
        }
        let index = |values: &[i64]| Tensor::from_slice(values).to_device(device);
        Ok(Self {
            groups: placed,
            tokens: index(&tokens),
            positions: index(&positions),
            predictors: index(&predictors),
            targets: index(&targets),
        })
    }
}

/// Starts and lengths of at most `size` that cover `total`.
fn chunks(total: i64, size: i64) -> impl Iterator<Item = (i64, i64)> {
    (0..total).step_by(size as usize).map(move |start| (start, size.min(total - start)))
}

fn to_vec(x: &Tensor) -> Vec<f32> {
    let x = x.to_device(Device::Cpu).to_kind(Kind::Float).contiguous();
    Vec::try_from(x).expect("a one-dimensional fp32 tensor")
}
