//! One batch in, better weights out: forward, loss, backward, optimizer step.

use tch::{Kind, Tensor};

use crate::batch::Sample;
use crate::config::{Config, LossConfig};
use crate::loss::{self, Sums, Tokens};
use crate::model::{Model, ModelError};
use crate::optim::{AdamW, layout};
use crate::pack::pack;
use crate::score::Group;

/// The weights that learn, with everything that a step needs. Lives on one thread.
pub struct Learner {
    /// Compute weights; equal to the masters, rounded to their kind.
    pub model: Model,
    /// Masters and optimizer state.
    pub adam: AdamW,
    /// The policy that the KL term holds on to.
    reference: Option<Model>,
    /// One view per parameter into `adam.gradient`.
    gradients: Vec<Tensor>,
    loss: LossConfig,
    temperature: f64,
}

/// What one batch did. Sums are over the trained tokens of all its optimizer steps.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Update {
    /// The loss and what belongs to it.
    pub sums: Sums,
    /// Entropy of the policy, in nats.
    pub entropy: f64,
    /// The gradient's norm before clipping, of the last optimizer step.
    pub grad_norm: f64,
    /// Optimizer steps taken.
    pub updates: usize,
    /// Optimizer steps not taken: sampler and trainer disagreed, or the gradient was not finite.
    pub skipped: usize,
    /// Rows that went through the model forward and backward: a group's prompt counts once.
    pub forward_tokens: usize,
}

/// Log-probs of one sample's completion under some weights.
type Stream = Vec<f32>;

impl Learner {
    /// A learner whose masters are `masters`: one tensor per parameter of `model`, in order.
    /// `reference` is the policy that a KL term holds on to; needed where `loss.kl` is not 0.
    pub fn new(
        mut model: Model,
        masters: &[Tensor],
        reference: Option<Model>,
        config: &Config,
    ) -> Self {
        let slots =
            layout(model.parameters().iter().map(|(name, tensor)| (name.as_str(), tensor.size())));
        let flat: Vec<Tensor> = masters
            .iter()
            .map(|master| {
                master.detach().to_kind(Kind::Float).to_device(model.device()).flatten(0, -1)
            })
            .collect();
        let adam = AdamW::new(config.optimizer.clone(), slots, Tensor::cat(&flat, 0));
        model.set_training(true);
        Self {
            gradients: adam.slots.iter().map(|slot| slot.view(&adam.gradient)).collect(),
            model,
            adam,
            reference,
            loss: config.loss.clone(),
            temperature: config.sampling.temperature,
        }
    }

    /// Brings the compute weights up to the masters.
    pub fn refresh(&mut self) {
        self.model.load_parameters_from(&self.adam.master_views());
    }

    /// Learns from `samples`, those of a group behind each other: `loss.epochs` times
    /// `loss.minibatches` optimizer steps.
    ///
    /// # Errors
    /// When the model refuses the tokens, or its output is not finite.
    pub fn update(&mut self, samples: &[Sample]) -> Result<Update, ModelError> {
        let mut update = Update::default();
        if samples.is_empty() {
            return Ok(update);
        }
        let budget = self.loss.micro_batch_tokens;
        let temperature = self.temperature;
        // With a single step the policy at its start is the one that the gradient is taken at.
        let old = match self.loss.updates() {
            1 => None,
            _ => Some(streams(&mut self.model, samples, budget, temperature)?),
        };
        let reference = match &mut self.reference {
            Some(model) if self.loss.kl != 0.0 => {
                Some(streams(model, samples, budget, temperature)?)
            }
            _ => None,
        };
        let parts = minibatches(samples, self.loss.minibatches);
        for _ in 0..self.loss.epochs {
            for part in &parts {
                self.step(samples, part, old.as_deref(), reference.as_deref(), &mut update)?;
            }
        }
        Ok(update)
    }

    /// The loss of `samples` at the present weights and its gradient, which stays in
    /// `adam.gradient`: an update without its optimizer step. Neither is normalised.
    ///
    /// # Errors
    /// As [`Self::update`].
    pub fn accumulate(&mut self, samples: &[Sample]) -> Result<Update, ModelError> {
        let mut update = Update::default();
        let all: Vec<usize> = (0..samples.len()).collect();
        self.gather(samples, &all, None, None, &mut update)?;
        Ok(update)
    }

    fn step(
        &mut self,
        samples: &[Sample],
        part: &[usize],
        old: Option<&[Stream]>,
        reference: Option<&[Stream]>,
        update: &mut Update,
    ) -> Result<(), ModelError> {
        let mut gathered = Update::default();
        self.gather(samples, part, old, reference, &mut gathered)?;
        let tokens = gathered.sums.tokens;
        let mismatch_kl = gathered.sums.mismatch_kl / tokens;
        if mismatch_kl > self.loss.max_mismatch_kl {
            tracing::warn!(mismatch_kl, "step skipped: sampler and trainer disagree");
            let _ = tch::no_grad(|| self.adam.gradient.zero_());
            update.skipped += 1;
        } else {
            update.grad_norm = self.adam.step(1.0 / tokens);
            if update.grad_norm.is_finite() {
                update.updates += 1;
                self.refresh();
            } else {
                tracing::warn!("step skipped: the gradient is not finite");
                update.skipped += 1;
            }
        }
        update.sums += gathered.sums;
        update.entropy += gathered.entropy;
        update.forward_tokens += gathered.forward_tokens;
        Ok(())
    }

    /// Adds the gradient of `part`, not normalised, micro-batch by micro-batch.
    fn gather(
        &mut self,
        samples: &[Sample],
        part: &[usize],
        old: Option<&[Stream]>,
        reference: Option<&[Stream]>,
        update: &mut Update,
    ) -> Result<(), ModelError> {
        let constants = self.loss.grpo();
        for MicroBatch { units, rows } in micro_batches(samples, part, self.loss.micro_batch_tokens)
        {
            update.forward_tokens += rows;
            let scored = self.model.score(&groups(samples, &units), self.temperature, true)?;
            let members = || units.iter().flatten();
            let select = |streams: &[Stream]| {
                members().flat_map(|&i| streams[i].iter().copied()).collect::<Stream>()
            };
            let sampler: Stream =
                members().flat_map(|&i| samples[i].sampler_log_probs.iter().copied()).collect();
            let advantages: Vec<f32> = members()
                .flat_map(|&i| {
                    std::iter::repeat_n(samples[i].advantage as f32, samples[i].completion.len())
                })
                .collect();
            let old = old.map(select);
            let reference = reference.map(select);
            let (sums, derivative) = loss::grpo(
                &constants,
                &Tokens {
                    log_probs: &scored.log_probs,
                    old: old.as_deref().unwrap_or(&scored.log_probs),
                    sampler: &sampler,
                    reference: reference.as_deref(),
                    advantages: &advantages,
                },
            );
            update.sums += sums;
            update.entropy += scored.entropy.iter().map(|&entropy| f64::from(entropy)).sum::<f64>();
            scored.backward(&derivative);
            self.model.take_gradients(&mut self.gradients);
        }
        Ok(())
    }
}

/// Log-probs of every completion under `model`, without a gradient.
fn streams(
    model: &mut Model,
    samples: &[Sample],
    budget: usize,
    temperature: f64,
) -> Result<Vec<Stream>, ModelError> {
    let _guard = tch::no_grad_guard();
    let all: Vec<usize> = (0..samples.len()).collect();
    let mut streams = vec![Stream::new(); samples.len()];
    for MicroBatch { units, .. } in micro_batches(samples, &all, budget) {
        let scored = model.score(&groups(samples, &units), temperature, false)?;
        let mut rest = scored.log_probs.as_slice();
        for &i in units.iter().flatten() {
            let (own, others) = rest.split_at(samples[i].completion.len());
            streams[i] = own.to_vec();
            rest = others;
        }
    }
    Ok(streams)
}

/// Whole groups in order, about the same number of them in each part.
fn minibatches(samples: &[Sample], count: usize) -> Vec<Vec<usize>> {
    let all: Vec<usize> = (0..samples.len()).collect();
    let by_group: Vec<&[usize]> =
        all.chunk_by(|&a, &b| samples[a].group == samples[b].group).collect();
    by_group.chunks(by_group.len().div_ceil(count).max(1)).map(<[_]>::concat).collect()
}

/// Samples that go through the model together.
struct MicroBatch {
    /// Samples that share a prompt, by index.
    units: Vec<Vec<usize>>,
    /// Rows of the forward pass.
    rows: usize,
}

/// Splits `part` into micro-batches of at most `budget` rows. Samples of a group stay together, so
/// that their prompt is run once, unless they alone exceed the budget.
fn micro_batches(samples: &[Sample], part: &[usize], budget: usize) -> Vec<MicroBatch> {
    // A sample's last token predicts nothing and is no row.
    let own = |i: usize| samples[i].completion.len() - 1;
    let mut units: Vec<(usize, Vec<usize>)> = Vec::new();
    for group in part.chunk_by(|&a, &b| samples[a].group == samples[b].group) {
        let prompt = samples[group[0]].prompt.len();
        let mut unit = (prompt, Vec::new());
        for &i in group {
            if !unit.1.is_empty() && unit.0 + own(i) > budget {
                units.push(std::mem::replace(&mut unit, (prompt, Vec::new())));
            }
            unit.0 += own(i);
            unit.1.push(i);
        }
        units.push(unit);
    }
    let rows: Vec<usize> = units.iter().map(|(rows, _)| *rows).collect();
    pack(&rows, budget)
        .into_iter()
        .map(|bin| MicroBatch {
            rows: bin.iter().map(|&unit| rows[unit]).sum(),
            units: bin.iter().map(|&unit| std::mem::take(&mut units[unit].1)).collect(),
        })
        .collect()
}

fn groups<'a>(samples: &'a [Sample], units: &[Vec<usize>]) -> Vec<Group<'a>> {
    units
        .iter()
        .map(|unit| Group {
            prompt: &samples[unit[0]].prompt,
            completions: unit.iter().map(|&i| samples[i].completion.as_slice()).collect(),
        })
        .collect()
}

#[cfg(test)]
#[path = "../tests/unit/learner.rs"]
mod tests;
