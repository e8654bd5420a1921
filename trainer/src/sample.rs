//! Batched sampling with a cache.
//!
//! Every prompt is run once and shared by its samples. Rows leave the batch as they end. The
//! random numbers of a sample depend on the seed and its place alone, not on who shares its batch.

use tch::{Device, Kind, Tensor};

use crate::cache::Cache;
use crate::model::{Model, ModelError};
use crate::rng::Rng;
use crate::tokenizer::Tokenizer;

/// Rows decoded together: beyond this a CPU's matrix products gain nothing more.
const MAX_ROWS: usize = 256;
/// Prompt tokens run together.
const MAX_PROMPT_TOKENS: usize = 4096;
/// A draw first picks a block of this many tokens, then a token in it: two short sums instead of
/// one over the whole vocabulary.
const BLOCK: i64 = 256;

/// How to draw.
#[derive(Clone, Debug, PartialEq)]
pub struct SampleParams {
    /// Logits are divided by it; 0 takes the likeliest token.
    pub temperature: f64,
    /// Draws from the likeliest tokens that together have this probability; 1 draws from all.
    pub top_p: f64,
    /// Ends a sample after this many tokens.
    pub max_tokens: usize,
    /// Ends a sample once its text holds any of these.
    pub stop: Vec<String>,
    /// The same seed gives the same samples.
    pub seed: u64,
}

/// Why a sample ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FinishReason {
    /// Its text holds a stop string.
    Stop,
    /// It reached `max_tokens` or the model's last position.
    Length,
    /// It drew an end-of-text token.
    Eos,
}

/// One sample.
#[derive(Clone, Debug, PartialEq)]
pub struct Completion {
    /// What it started from.
    pub prompt_tokens: Vec<i64>,
    /// Every token that was drawn: an end-of-text token and the one that completed a stop string
    /// are among them.
    pub tokens: Vec<i64>,
    /// Log-prob of each token in nats, temperature applied (1 when it is 0), top-p not.
    pub log_probs: Vec<f32>,
    /// Text of the tokens, special tokens left out; ends with the stop string where one was met.
    pub text: String,
    /// Why it ended.
    pub finish_reason: FinishReason,
}

/// Draws `n` samples for each prompt; the result has them by prompt and sample. `on_finished`
/// hears of each (prompt, sample) as soon as it ends.
///
/// # Errors
/// When a prompt is empty, leaves no room for a token, or has a token outside the vocabulary; when
/// the model's output is not finite.
pub fn sample(
    model: &Model,
    tokenizer: &Tokenizer,
    prompts: &[Vec<i64>],
    n: usize,
    params: &SampleParams,
    on_finished: &mut dyn FnMut(usize, usize, &Completion),
) -> Result<Vec<Vec<Completion>>, ModelError> {
    let _guard = tch::no_grad_guard();
    for prompt in prompts {
        if prompt.is_empty() {
            return Err(ModelError::EmptyPrompt);
        }
        model.check_tokens(prompt)?;
        model.check_length(prompt.len() + 1)?;
    }
    let mut done: Vec<Vec<Option<Completion>>> = vec![vec![None; n]; prompts.len()];
    for wave in waves(prompts, n) {
        let mut batch = Batch::new(model, tokenizer, prompts, wave, params);
        batch.run(&mut |prompt, index, completion| {
            on_finished(prompt, index, &completion);
            done[prompt][index] = Some(completion);
        })?;
    }
    let whole = |samples: Vec<Option<Completion>>| samples.into_iter().flatten().collect();
    Ok(done.into_iter().map(whole).collect())
}

/// (prompt, sample) pairs that are decoded together; a prompt's samples stay together where they
/// fit.
fn waves(prompts: &[Vec<i64>], n: usize) -> Vec<Vec<(usize, usize)>> {
    let mut waves: Vec<Vec<(usize, usize)>> = Vec::new();
    let (mut wave, mut tokens) = (Vec::new(), 0);
    for (prompt, ids) in prompts.iter().enumerate() {
        let fits =
            wave.len() + n.min(MAX_ROWS) <= MAX_ROWS && tokens + ids.len() <= MAX_PROMPT_TOKENS;
        if !fits && !wave.is_empty() {
            waves.push(std::mem::take(&mut wave));
            tokens = 0;
        }
        tokens += ids.len();
        for index in 0..n {
            if wave.len() == MAX_ROWS {
                waves.push(std::mem::take(&mut wave));
                tokens = ids.len();
            }
            wave.push((prompt, index));
        }
    }
    waves.extend((!wave.is_empty()).then_some(wave));
    waves
}

/// A sample in the making.
struct Row {
    prompt: usize,
    index: usize,
    rng: Rng,
    tokens: Vec<i64>,
    log_probs: Vec<f32>,
}

struct Batch<'a> {
    model: &'a Model,
    tokenizer: &'a Tokenizer,
    prompts: &'a [Vec<i64>],
    params: &'a SampleParams,
    /// Rows in the order of the cache; None for those that ended since it was last compacted.
    rows: Vec<Option<Row>>,
    /// Every stop string completed by the newest token ends in this many of the last tokens.
    window: usize,
}

impl<'a> Batch<'a> {
    fn new(
        model: &'a Model,
        tokenizer: &'a Tokenizer,
        prompts: &'a [Vec<i64>],
        wave: Vec<(usize, usize)>,
        params: &'a SampleParams,
    ) -> Self {
        let rows = wave
            .into_iter()
            .map(|(prompt, index)| {
                let rng = Rng::derive(params.seed, (prompt << 20 | index) as u64, "sample");
                Some(Row { prompt, index, rng, tokens: Vec::new(), log_probs: Vec::new() })
            })
            .collect();
        // A token is at least one byte, save special ones, which are left out of the text.
        let window = params.stop.iter().map(String::len).max().unwrap_or(0) + 4;
        Self { model, tokenizer, prompts, params, rows, window }
    }

    /// Draws until every row has ended.
    fn run(
        &mut self,
        finished: &mut dyn FnMut(usize, usize, Completion),
    ) -> Result<(), ModelError> {
        if self.params.max_tokens == 0 {
            for row in std::mem::take(&mut self.rows).into_iter().flatten() {
                self.finish(row, FinishReason::Length, finished);
            }
            return Ok(());
        }
        let (mut cache, mut hidden) = self.prefill();
        loop {
            let drawn = self.draw(&hidden)?;
            for (slot, (token, log_prob)) in drawn.into_iter().enumerate() {
                let Some(row) = &mut self.rows[slot] else { continue };
                row.tokens.push(token);
                row.log_probs.push(log_prob);
                if let Some(reason) = self.ended(slot) {
                    let row = self.rows[slot].take().expect("it was alive a moment ago");
                    self.finish(row, reason, finished);
                }
            }
            let alive: Vec<usize> =
                (0..self.rows.len()).filter(|slot| self.rows[*slot].is_some()).collect();
            if alive.is_empty() {
                return Ok(());
            }
            // Compaction copies the cache: worth it once an eighth of the rows is gone.
            if (self.rows.len() - alive.len()) * 8 >= self.rows.len() {
                cache.retain(&alive);
                self.rows.retain(Option::is_some);
            }
            hidden = self.step(&mut cache);
        }
    }

    /// Runs the prompts; gives their cache and the hidden state [rows, hidden] of each row's last
    /// prompt token.
    fn prefill(&self) -> (Cache, Tensor) {
        let rows = self.rows.iter().flatten();
        let mut used: Vec<usize> = rows.clone().map(|row| row.prompt).collect();
        let prompt_of: Vec<usize> = used.clone();
        used.dedup();
        let prompt_of: Vec<usize> = prompt_of
            .iter()
            .map(|prompt| used.binary_search(prompt).expect("one of the used prompts"))
            .collect();
        let lengths: Vec<i64> = used.iter().map(|i| self.prompts[*i].len() as i64).collect();
        let tokens: Vec<i64> = used.iter().flat_map(|i| self.prompts[*i].iter().copied()).collect();
        let (hidden, keys) = self.model.prefill(&self.index(&tokens), &lengths);
        let mut end = 0;
        let ends: Vec<i64> = lengths
            .iter()
            .map(|length| {
                end += length;
                end - 1
            })
            .collect();
        let last: Vec<i64> = prompt_of.iter().map(|prompt| ends[*prompt]).collect();
        (Cache::new(&lengths, &keys, prompt_of), hidden.index_select(0, &self.index(&last)))
    }

    /// Feeds the newest tokens; gives the hidden states [rows, hidden] that predict the next.
    fn step(&self, cache: &mut Cache) -> Tensor {
        // An ended row that is still in the cache goes on with any token.
        let newest = |row: &Option<Row>| match row {
            Some(row) => {
                let position = self.prompts[row.prompt].len() + row.tokens.len() - 1;
                (row.tokens[row.tokens.len() - 1], position as i64)
            }
            None => (0, 0),
        };
        let (tokens, positions): (Vec<i64>, Vec<i64>) = self.rows.iter().map(newest).unzip();
        cache.advance();
        self.model.forward(&self.index(&tokens), &self.index(&positions), |layer, q, k, v| {
            cache.attend(layer, q, k, v)
        })
    }

    fn index(&self, values: &[i64]) -> Tensor {
        Tensor::from_slice(values).to_device(self.model.device)
    }

    /// A token and its log-prob for every row.
    fn draw(&mut self, hidden: &Tensor) -> Result<Vec<(i64, f32)>, ModelError> {
        let logits = hidden.linear::<&Tensor>(&self.model.head().detach(), None);
        let greedy = self.params.temperature == 0.0;
        let temperature = if greedy { 1.0 } else { self.params.temperature };
        let logits = logits.to_kind(Kind::Float) / temperature;
        let p = logits.softmax(-1, Kind::Float);
        let chosen = if greedy {
            p.argmax(-1, false)
        } else if self.params.top_p < 1.0 {
            self.draw_nucleus(&p)?
        } else {
            self.draw_full(&p)?
        };
        let log_probs = p.gather(1, &chosen.unsqueeze(1), false).squeeze_dim(1).log();
        let chosen = Vec::<i64>::try_from(chosen.to_device(Device::Cpu)).expect("one id per row");
        let log_probs = Vec::<f32>::try_from(log_probs.to_device(Device::Cpu)).expect("as many");
        if log_probs.iter().any(|x| !x.is_finite()) {
            return Err(ModelError::NotFinite);
        }
        Ok(chosen.into_iter().zip(log_probs).collect())
    }

    /// One token per row of probabilities [rows, vocab], by the inverse of the cumulative
    /// distribution; torch's `multinomial` takes 30 times as long.
    fn draw_full(&mut self, p: &Tensor) -> Result<Tensor, ModelError> {
        let [rows, vocab] = p.size()[..] else { unreachable!("rows, vocab") };
        let padding = (BLOCK - vocab % BLOCK) % BLOCK;
        let padded = if padding == 0 { p.shallow_clone() } else { p.constant_pad_nd([0, padding]) };
        let blocks = padded.view([rows, -1, BLOCK]);
        let sums = blocks.sum_dim_intlist([-1_i64].as_slice(), false, Kind::Float);
        let uniform: Vec<f64> = self.rows.iter_mut().map(uniform).collect();
        let (block, rest) = pick(&sums, &uniform, None)?;
        let index = self.index(&block).view([rows, 1, 1]).expand([-1, -1, BLOCK], false);
        let inside = blocks.gather(1, &index, false).squeeze_dim(1);
        let (token, _) = pick(&inside, &uniform, Some(&rest))?;
        let tokens: Vec<i64> = block
            .iter()
            .zip(token)
            .map(|(block, token)| (block * BLOCK + token).min(vocab - 1))
            .collect();
        Ok(self.index(&tokens))
    }

    /// As [`Self::draw_full`], from the likeliest tokens that together reach `top_p`.
    fn draw_nucleus(&mut self, p: &Tensor) -> Result<Tensor, ModelError> {
        let (sorted, order) = p.sort(-1, true);
        let before = sorted.cumsum(-1, Kind::Float) - &sorted;
        let kept = sorted.masked_fill(&before.ge(self.params.top_p), 0.0);
        // The likeliest token stays, whatever top-p is.
        kept.select(1, 0).copy_(&sorted.select(1, 0));
        let uniform: Vec<f64> = self.rows.iter_mut().map(uniform).collect();
        let (place, _) = pick(&kept, &uniform, None)?;
        Ok(order.gather(1, &self.index(&place).unsqueeze(1), false).squeeze_dim(1))
    }

    /// Why the row in `slot` has ended with its newest token, if it has.
    fn ended(&self, slot: usize) -> Option<FinishReason> {
        let row = self.rows[slot].as_ref()?;
        let newest = row.tokens.last()?;
        if self.tokenizer.eos().contains(newest) {
            return Some(FinishReason::Eos);
        }
        if !self.params.stop.is_empty() {
            let tail = &row.tokens[row.tokens.len().saturating_sub(self.window)..];
            if self.stop_end(&self.tokenizer.decode(tail)).is_some() {
                return Some(FinishReason::Stop);
            }
        }
        let room = self.model.config.max_positions as usize - self.prompts[row.prompt].len();
        (row.tokens.len() >= self.params.max_tokens.min(room)).then_some(FinishReason::Length)
    }

    /// Where the first stop string in `text` ends.
    fn stop_end(&self, text: &str) -> Option<usize> {
        let ends = self.params.stop.iter().filter(|stop| !stop.is_empty());
        ends.filter_map(|stop| Some(text.find(stop.as_str())? + stop.len())).min()
    }

    fn finish(
        &self,
        row: Row,
        finish_reason: FinishReason,
        finished: &mut dyn FnMut(usize, usize, Completion),
    ) {
        let mut text = self.tokenizer.decode(&row.tokens);
        if finish_reason == FinishReason::Stop
            && let Some(end) = self.stop_end(&text)
        {
            text.truncate(end);
        }
        let completion = Completion {
            prompt_tokens: self.prompts[row.prompt].clone(),
            tokens: row.tokens,
            log_probs: row.log_probs,
            text,
            finish_reason,
        };
        finished(row.prompt, row.index, completion);
    }
}

/// The row's next number in [0, 1); an ended row takes any.
fn uniform(row: &mut Option<Row>) -> f64 {
    row.as_mut().map_or(0.5, |row| (row.rng.next_u64() >> 11) as f64 / (1_u64 << 53) as f64)
}

/// For each row of `weights` [rows, count] the first place where the running sum exceeds a
/// target, and what of the target remains there. The target is `uniform` of the row's sum, or
/// `rest` when given.
fn pick(
    weights: &Tensor,
    uniform: &[f64],
    rest: Option<&[f64]>,
) -> Result<(Vec<i64>, Vec<f64>), ModelError> {
    let count = weights.size()[1] as usize;
    let flat = weights.to_device(Device::Cpu).contiguous().view([-1]);
    let flat = Vec::<f32>::try_from(flat).expect("fp32 weights");
    let mut places = Vec::with_capacity(uniform.len());
    let mut rests = Vec::with_capacity(uniform.len());
    for (row, weights) in flat.chunks_exact(count).enumerate() {
        let total: f64 = weights.iter().map(|w| f64::from(*w)).sum();
        if !(total.is_finite() && total > 0.0) {
            return Err(ModelError::NotFinite);
        }
        let target = rest.map_or(uniform[row] * total, |rest| rest[row]);
        // Rounding can leave the target past the end: then the last place with any weight.
        let (mut sum, mut place, mut before) = (0.0, 0, 0.0);
        for (i, weight) in weights.iter().enumerate() {
            if *weight > 0.0 {
                (place, before) = (i, sum);
                sum += f64::from(*weight);
                if sum > target {
                    break;
                }
            }
        }
        places.push(place as i64);
        rests.push(target - before);
    }
    Ok((places, rests))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn picks_by_weight() {
        let weights = Tensor::from_slice(&[0.0_f32, 0.25, 0.0, 0.75, 0.0]).view([1, 5]);
        for (uniform, expected) in [(0.0, 1), (0.24, 1), (0.25, 3), (0.999_999, 3), (1.0, 3)] {
            let (place, _) = pick(&weights, &[uniform], None).unwrap();
            assert_eq!(place, [expected], "{uniform}");
        }
        let nothing = Tensor::zeros([1, 5], (Kind::Float, Device::Cpu));
        assert!(matches!(pick(&nothing, &[0.5], None), Err(ModelError::NotFinite)));
        let broken = Tensor::full([1, 5], f64::NAN, (Kind::Float, Device::Cpu));
        assert!(matches!(pick(&broken, &[0.5], None), Err(ModelError::NotFinite)));
    }

    #[test]
    fn waves_keep_samples_together_and_bounded() {
        let prompts = vec![vec![1; 10]; 40];
        let sizes = |n| waves(&prompts, n).iter().map(Vec::len).collect::<Vec<_>>();
        assert_eq!(sizes(8), [256, 64]);
        assert_eq!(sizes(100), [200; 20]);
        assert_eq!(sizes(0), [0_usize; 0]);
        assert_eq!(
            waves(&prompts[..1], 600).iter().map(Vec::len).collect::<Vec<_>>(),
            [256, 256, 88]
        );
        let long = vec![vec![1; 3000]; 3];
        assert_eq!(waves(&long, 2).len(), 3);
    }
}
