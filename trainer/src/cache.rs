//! Keys and values of rows that are being decoded.
//!
//! The prompt of a row lies in a cache that all samples of the prompt share; what the row itself
//! has generated lies in a cache of its own. Rows that ended are dropped from the batch, so that
//! each step costs what the rows still alive cost.

use tch::{Device, Kind, Tensor};

use crate::attention::scale;

/// Columns that a row's own cache grows by.
const GROWTH: i64 = 64;

/// Keys and values of one block.
struct Keys {
    /// Prompts [prompts, kv heads, longest, d], shorter ones padded at their end.
    prompt: (Tensor, Tensor),
    /// Rows [rows, kv heads, capacity, d]; the first `length` columns are in use.
    own: (Tensor, Tensor),
}

/// Where the rows of each prompt stand, as a rectangle of prompts and slots.
struct Slots {
    /// Slots per prompt.
    width: i64,
    /// For each cell a row of its prompt, repeated where a prompt has fewer rows. Absent when the
    /// rows are the cells.
    gather: Option<Tensor>,
    /// For each row its cell.
    scatter: Option<Tensor>,
}

/// The caches of all blocks.
pub(crate) struct Cache {
    blocks: Vec<Keys>,
    /// Prompt of each row; ascending.
    prompt_of: Vec<usize>,
    slots: Slots,
    /// Additive mask [prompts, 1, 1, longest] over the padding; absent without padding.
    mask: Option<Tensor>,
    /// Columns in use of the rows' own caches.
    length: i64,
}

impl Cache {
    /// For packed prompts of these `lengths`; `keys` has k and v [T, kv heads, d] of every block.
    /// `prompt_of` names each row's prompt, in ascending order.
    pub(crate) fn new(lengths: &[i64], keys: &[(Tensor, Tensor)], prompt_of: Vec<usize>) -> Self {
        let (kind, device) = (keys[0].0.kind(), keys[0].0.device());
        let longest = lengths.iter().copied().max().unwrap_or(0);
        let (mut cells, mut mask, mut start) = (Vec::new(), Vec::new(), 0);
        for length in lengths {
            cells.extend((0..longest).map(|i| start + i.min(length - 1)));
            mask.extend((0..longest).map(|i| if i < *length { 0.0 } else { f32::NEG_INFINITY }));
            start += length;
        }
        let cells = Tensor::from_slice(&cells).to_device(device);
        let prompts = lengths.len() as i64;
        let rectangle = |x: &Tensor| {
            let [_, heads, width] = x.size()[..] else { unreachable!("rows, heads, width") };
            x.index_select(0, &cells)
                .view([prompts, longest, heads, width])
                .transpose(1, 2)
                .contiguous()
        };
        let blocks = keys
            .iter()
            .map(|(k, v)| {
                let [_, heads, width] = k.size()[..] else { unreachable!("rows, heads, width") };
                let empty = || {
                    Tensor::empty([prompt_of.len() as i64, heads, GROWTH, width], (kind, device))
                };
                Keys { prompt: (rectangle(k), rectangle(v)), own: (empty(), empty()) }
            })
            .collect();
        let padded = lengths.iter().any(|length| *length != longest);
        let mask = padded.then(|| {
            Tensor::from_slice(&mask).to_device(device).to_kind(kind).view([prompts, 1, 1, longest])
        });
        let slots = Slots::new(&prompt_of, lengths.len(), device);
        Self { blocks, prompt_of, slots, mask, length: 0 }
    }

    /// Makes room for one more column. Call once before the blocks of a step.
    pub(crate) fn advance(&mut self) {
        if self.length > 0 && self.length % GROWTH == 0 {
            for keys in &mut self.blocks {
                for own in [&mut keys.own.0, &mut keys.own.1] {
                    let room = own.narrow(2, 0, GROWTH).empty_like();
                    *own = Tensor::cat(&[&*own, &room], 2);
                }
            }
        }
        self.length += 1;
    }

    /// Stores the newest k and v [rows, kv heads, d] of block `layer`, and attends from q
    /// [rows, heads, d] to prompt and own columns. Gives [rows, heads * d].
    pub(crate) fn attend(&mut self, layer: usize, q: &Tensor, k: &Tensor, v: &Tensor) -> Tensor {
        let keys = &mut self.blocks[layer];
        let [rows, heads, width] = q.size()[..] else { unreachable!("rows, heads, width") };
        let kv_heads = k.size()[1];
        let stacked = heads / kv_heads;
        let last = self.length - 1;
        keys.own.0.select(2, last).copy_(k);
        keys.own.1.select(2, last).copy_(v);
        let own = |x: &Tensor| x.narrow(2, 0, last + 1);
        let by_head = q.reshape([rows, kv_heads, stacked, width]);
        let (own_out, own_lse) = attend(&by_head, &own(&keys.own.0), &own(&keys.own.1), None);

        // The rows of one prompt become further queries to its keys.
        let cells = self.slots.width;
        let flat = q.reshape([rows, heads * width]);
        let flat = match &self.slots.gather {
            Some(gather) => flat.index_select(0, gather),
            None => flat,
        };
        let queries = flat.view([-1, cells, kv_heads, stacked, width]).transpose(1, 2).reshape([
            -1,
            kv_heads,
            cells * stacked,
            width,
        ]);
        let (out, lse) = attend(&queries, &keys.prompt.0, &keys.prompt.1, self.mask.as_ref());
        let back = |x: Tensor, inner: i64| {
            let x = x.reshape([-1, kv_heads, cells, stacked * inner]).transpose(1, 2);
            let x = x.reshape([-1, heads * inner]);
            match &self.slots.scatter {
                Some(scatter) => x.index_select(0, scatter),
                None => x,
            }
        };
        let (out, lse) = (back(out, width), back(lse, 1));

        // Two softmaxes over parts make one over the whole, weighted by their normalisers.
        let weight = (lse.view([rows, kv_heads, stacked]) - own_lse).sigmoid().unsqueeze(-1);
        let out = out.view([rows, kv_heads, stacked, width]).to_kind(Kind::Float);
        let mixed = own_out.to_kind(Kind::Float).lerp_tensor(&out, &weight);
        mixed.to_kind(q.kind()).view([rows, heads * width])
    }

    /// Drops all rows but `keep` (ascending), and the prompts that have none left.
    pub(crate) fn retain(&mut self, keep: &[usize]) {
        let device = self.blocks[0].own.0.device();
        let index = |rows: &[usize]| {
            let rows: Vec<i64> = rows.iter().map(|row| *row as i64).collect();
            Tensor::from_slice(&rows).to_device(device)
        };
        let mut prompts: Vec<usize> = keep.iter().map(|row| self.prompt_of[*row]).collect();
        let kept: Vec<usize> = prompts.clone();
        prompts.dedup();
        self.prompt_of = kept
            .iter()
            .map(|prompt| prompts.binary_search(prompt).expect("one of the kept prompts"))
            .collect();
        let rows = index(keep);
        let fewer = prompts.len() < self.blocks[0].prompt.0.size()[0] as usize;
        let prompt_index = index(&prompts);
        let (count, length) = (keep.len() as i64, self.length);
        for keys in &mut self.blocks {
            for own in [&mut keys.own.0, &mut keys.own.1] {
                let kept = own.narrow(2, 0, length).index_select(0, &rows);
                *own = own.narrow(0, 0, count);
                own.narrow(2, 0, length).copy_(&kept);
            }
            if fewer {
                keys.prompt.0 = keys.prompt.0.index_select(0, &prompt_index);
                keys.prompt.1 = keys.prompt.1.index_select(0, &prompt_index);
            }
        }
        if fewer {
            self.mask = self.mask.as_ref().map(|mask| mask.index_select(0, &prompt_index));
        }
        self.slots = Slots::new(&self.prompt_of, prompts.len(), device);
    }
}

impl Slots {
    fn new(prompt_of: &[usize], prompts: usize, device: Device) -> Self {
        let mut rows_of = vec![Vec::new(); prompts];
        for (row, prompt) in prompt_of.iter().enumerate() {
            rows_of[*prompt].push(row);
        }
        let width = rows_of.iter().map(Vec::len).max().unwrap_or(0);
        if rows_of.iter().all(|rows| rows.len() == width) {
            return Self { width: width as i64, gather: None, scatter: None };
        }
        let (mut gather, mut scatter) = (Vec::new(), Vec::new());
        for (prompt, rows) in rows_of.iter().enumerate() {
            gather.extend((0..width).map(|slot| rows[slot.min(rows.len() - 1)] as i64));
            scatter.extend((0..rows.len()).map(|slot| (prompt * width + slot) as i64));
        }
        let index = |rows: &[i64]| Some(Tensor::from_slice(rows).to_device(device));
        Self { width: width as i64, gather: index(&gather), scatter: index(&scatter) }
    }
}

/// Attention of q [B, h, Q, d] to k and v [B, h, K, d] with an additive mask [B, 1, 1, K]: the
/// result and the log of each softmax's normaliser [B, h, Q] (fp32).
fn attend(q: &Tensor, k: &Tensor, v: &Tensor, mask: Option<&Tensor>) -> (Tensor, Tensor) {
    let factor = scale(q.size()[3]);
    if q.device() == Device::Cpu {
        // Few queries and no backward pass: here the fused kernel is the fast one.
        let queries = q.size()[2];
        let mask = mask.map(|mask| mask.expand([-1, -1, queries, -1], false));
        return Tensor::internal_scaled_dot_product_flash_attention_for_cpu(
            q,
            k,
            v,
            0.0,
            false,
            mask.as_ref(),
            Some(factor),
        );
    }
    let scores = q.matmul(&k.transpose(-2, -1)).to_kind(Kind::Float) * factor;
    let scores = match mask {
        Some(mask) => scores + mask,
        None => scores,
    };
    let normalizer = scores.logsumexp([-1_i64].as_slice(), true);
    let weights = (scores - &normalizer).exp().to_kind(v.kind());
    (weights.matmul(v), normalizer.squeeze_dim(-1))
}
