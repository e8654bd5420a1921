//! Rotary positions and attention of queries to keys, grouped-query heads included.
//!
//! On the CPU this is two batched matrix products around a softmax. torch's fused kernel measured
//! 7 times slower in bf16 with its backward pass (48 queries, 176 keys, 8 x 9 heads: 10.9 ms
//! against 1.6 ms), since oneDNN's products use the CPU's bf16 instructions and it does not. The
//! query heads of one key-value head are stacked as further rows, so that keys and values are
//! never repeated.

use tch::{Device, Kind, Tensor};

use crate::model::ModelConfig;

/// Tables of the rotary embedding: fp32 [positions, head size].
pub(crate) struct Rope {
    cos: Tensor,
    /// The first half negated, so that rotating is `x cos + roll(x) sin`.
    sin: Tensor,
}

impl Rope {
    /// The half-split layout of Hugging Face: element i turns with element i + head size / 2.
    pub(crate) fn new(config: &ModelConfig, device: Device) -> Self {
        let half = config.head_dim / 2;
        let float = (Kind::Float, device);
        let exponents = Tensor::arange(half, float) * (2.0 / config.head_dim as f64);
        let base = Tensor::from(config.rope_theta as f32).to_device(device);
        let frequencies = base.pow(&exponents).reciprocal();
        let angles = Tensor::arange(config.max_positions, float).outer(&frequencies);
        let (cos, sin) = (angles.cos(), angles.sin());
        Self { cos: Tensor::cat(&[&cos, &cos], -1), sin: Tensor::cat(&[&-&sin, &sin], -1) }
    }

    /// The rows of these positions [T].
    pub(crate) fn rows(&self, positions: &Tensor) -> RopeRows {
        let rows = |table: &Tensor| table.index_select(0, positions).unsqueeze(1);
        RopeRows { cos: rows(&self.cos), sin: rows(&self.sin) }
    }
}

/// [`Rope`] at given positions: [T, 1, head size].
pub(crate) struct RopeRows {
    cos: Tensor,
    sin: Tensor,
}

impl RopeRows {
    /// Rotates x [T, heads, d] in fp32 and casts back.
    pub(crate) fn rotate(&self, x: &Tensor) -> Tensor {
        let wide = x.to_kind(Kind::Float);
        let half = x.size()[2] / 2;
        let turned = (&wide * &self.cos).addcmul(&wide.roll([half], [-1]), &self.sin);
        turned.to_kind(x.kind())
    }
}

/// An additive mask [length, length]: 0 where a query sees the key, minus infinity after it.
pub(crate) fn causal_mask(length: i64, kind: Kind, device: Device) -> Tensor {
    Tensor::full([length, length], f64::NEG_INFINITY, (kind, device)).triu(1)
}

/// Splits heads by their key-value head: [T, heads, d] to [kv heads, heads / kv heads, T, d].
fn by_kv_head(x: &Tensor, kv_heads: i64) -> Tensor {
    let [length, heads, width] = x.size()[..] else { unreachable!("rows, heads, width") };
    x.view([length, kv_heads, heads / kv_heads, width]).permute([1, 2, 0, 3])
}

/// One sequence: q [T, heads, d], k and v [T, kv heads, d], mask [T, T] to [T, heads * d].
pub(crate) fn sequence(q: &Tensor, k: &Tensor, v: &Tensor, mask: &Tensor) -> Tensor {
    let [length, heads, width] = q.size()[..] else { unreachable!("rows, heads, width") };
    let kv_heads = k.size()[1];
    let rows = heads / kv_heads * length;
    let stacked = by_kv_head(q, kv_heads).reshape([kv_heads, rows, width]);
    let scores = stacked.bmm(&k.permute([1, 2, 0])) * scale(width);
    let scores = scores.view([kv_heads, -1, length, length]) + mask;
    let weights = scores.softmax(-1, None).view([kv_heads, rows, length]);
    let out = weights.bmm(&v.permute([1, 0, 2]));
    let out = out.view([kv_heads, heads / kv_heads, length, width]).permute([2, 0, 1, 3]);
    out.reshape([length, heads * width])
}

/// Sequences one after the other, each with its mask; shapes as for [`sequence`].
pub(crate) fn segments(
    q: &Tensor,
    k: &Tensor,
    v: &Tensor,
    lengths: &[i64],
    masks: &[Tensor],
) -> Tensor {
    let mut start = 0;
    let mut out = Vec::with_capacity(lengths.len());
    for (length, mask) in lengths.iter().zip(masks) {
        let part = |x: &Tensor| x.narrow(0, start, *length);
        out.push(sequence(&part(q), &part(k), &part(v), mask));
        start += length;
    }
    Tensor::cat(&out, 0)
}

/// Scores are divided by the root of the head's width (Vaswani et al. 2017).
pub(crate) fn scale(width: i64) -> f64 {
    (width as f64).sqrt().recip()
}

/// How the completions of one group are laid out as a rectangle.
pub(crate) struct Suffixes {
    /// Completions.
    count: i64,
    /// Rows of the longest.
    longest: i64,
    /// For each cell of the rectangle, a row; cells past a completion's end repeat one of its rows.
    /// Absent when all are equally long.
    gather: Option<Tensor>,
    /// For each row its cell.
    scatter: Option<Tensor>,
    mask: Tensor,
}

impl Suffixes {
    /// For completions of these numbers of rows, none of them all empty.
    pub(crate) fn new(lengths: &[i64], kind: Kind, device: Device) -> Self {
        let longest = lengths.iter().copied().max().unwrap_or(0);
        let (mut gather, mut scatter) = (Vec::new(), Vec::new());
        let mut start = 0;
        for (i, length) in lengths.iter().enumerate() {
            // A completion without rows of its own borrows row 0; its cells are never read.
            let cell = |j: i64| if *length == 0 { 0 } else { start + j.min(length - 1) };
            gather.extend((0..longest).map(cell));
            scatter.extend((0..*length).map(|j| i as i64 * longest + j));
            start += length;
        }
        let ragged = lengths.iter().any(|length| *length != longest);
        let index = |rows: &[i64]| ragged.then(|| Tensor::from_slice(rows).to_device(device));
        Self {
            count: lengths.len() as i64,
            longest,
            gather: index(&gather),
            scatter: index(&scatter),
            mask: causal_mask(longest, kind, device),
        }
    }

    /// Rows [S, heads, d] as a rectangle [kv heads, completions, heads / kv heads, longest, d].
    fn rectangle(&self, x: &Tensor, kv_heads: i64) -> Tensor {
        let [_, heads, width] = x.size()[..] else { unreachable!("rows, heads, width") };
        let x = x.reshape([-1, heads * width]);
        // `embedding`, not `index_select`: its backward pass measured 3 times as fast.
        let x = match &self.gather {
            Some(gather) => Tensor::embedding(&x, gather, -1, false, false),
            None => x,
        };
        x.view([self.count, self.longest, kv_heads, heads / kv_heads, width])
            .permute([2, 0, 3, 1, 4])
    }
}

/// Completions that share a prompt: each of their rows attends to the whole prompt and to its own
/// completion up to itself. `prompt` holds the prompt's k and v [P, kv heads, d]; q, k and v are
/// the completions' rows [S, .., d]. Gives [S, heads * d].
pub(crate) fn shared_prompt(
    prompt: (&Tensor, &Tensor),
    q: &Tensor,
    k: &Tensor,
    v: &Tensor,
    suffixes: &Suffixes,
) -> Tensor {
    let [_, heads, width] = q.size()[..] else { unreachable!("rows, heads, width") };
    let [prompt_length, kv_heads, _] = prompt.0.size()[..] else { unreachable!("as above") };
    let (count, longest) = (suffixes.count, suffixes.longest);
    let rows = heads / kv_heads * longest;

    let q = (suffixes.rectangle(q, kv_heads) * scale(width)).reshape([-1, rows, width]);
    let own_k = suffixes.rectangle(k, kv_heads).reshape([-1, longest, width]);
    let own_v = suffixes.rectangle(v, kv_heads).reshape([-1, longest, width]);

    let to_prompt = q.view([kv_heads, -1, width]).bmm(&prompt.0.permute([1, 2, 0]));
    let to_own = q.bmm(&own_k.transpose(1, 2)).view([-1, heads / kv_heads, longest, longest])
        + &suffixes.mask;
    let scores = Tensor::cat(
        &[to_prompt.view([-1, rows, prompt_length]), to_own.view([-1, rows, longest])],
        -1,
    );
    let weights = scores.softmax(-1, None).split_with_sizes([prompt_length, longest], -1);
    let from_prompt = weights[0]
        .reshape([kv_heads, count * rows, prompt_length])
        .bmm(&prompt.1.permute([1, 0, 2]));
    let out = from_prompt.view([-1, rows, width]) + weights[1].bmm(&own_v);
    let out = out
        .view([kv_heads, count, heads / kv_heads, longest, width])
        .permute([1, 3, 0, 2, 4])
        .reshape([count * longest, heads * width]);
    match &suffixes.scatter {
        Some(scatter) => Tensor::embedding(&out, scatter, -1, false, false),
        None => out,
    }
}
