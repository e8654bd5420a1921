//! Samples groups and has them evaluated, each as soon as its last sample ends.

use std::time::Instant;

use crate::batch::{Rollout, Sampled};
use crate::config::SamplingConfig;
use crate::environment::{Answer, Answers, Environment, EnvironmentError, Phase, Task};
use crate::model::{Model, ModelError};
use crate::sample::{Completion, FinishReason, SampleParams, sample};
use crate::tokenizer::{Tokenizer, TokenizerError};

/// What to draw.
#[derive(Clone, Debug)]
pub struct Draw<'a> {
    /// One group per task, in this order.
    pub tasks: &'a [Task],
    /// Samples of a group.
    pub samples: usize,
    /// 0 takes the likeliest token.
    pub temperature: f64,
    /// Limits, stop strings and prefill.
    pub sampling: &'a SamplingConfig,
    /// Decides every draw.
    pub seed: u64,
    /// What the samples are for.
    pub phase: Phase,
    /// Optimizer steps behind the weights.
    pub policy_version: u64,
    /// Starts every group id; unique in the run.
    pub label: &'a str,
}

/// Where the time of a rollout went.
#[derive(Clone, Copy, Debug, Default)]
pub struct Spent {
    /// Sampling, evaluation going on beside it.
    pub sample_s: f64,
    /// Waiting for verdicts after the last sample.
    pub wait_s: f64,
}

/// Why there is no batch.
#[derive(Debug, thiserror::Error)]
pub enum RolloutError {
    /// The model could not sample.
    #[error("sampling failed")]
    Sample(#[source] ModelError),
    /// The task's messages can't be put to the model.
    #[error("prompt of task {task}")]
    Prompt {
        /// The task's id.
        task: String,
        /// Why.
        source: TokenizerError,
    },
    /// The environment could not evaluate.
    #[error(transparent)]
    Environment(#[from] EnvironmentError),
}

/// Draws, submits and collects; `progress` hears of every sample (done, of how many).
pub fn rollout(
    model: &Model,
    tokenizer: &Tokenizer,
    environment: &mut dyn Environment,
    draw: &Draw<'_>,
    progress: &dyn Fn(usize, usize),
) -> Result<(Vec<Rollout>, Spent), RolloutError> {
    let started = Instant::now();
    let prompts = draw.tasks.iter().map(|task| {
        prompt(tokenizer, task, &draw.sampling.prefill)
            .map_err(|source| RolloutError::Prompt { task: task.id.clone(), source })
    });
    let prompts = prompts.collect::<Result<Vec<_>, _>>()?;
    let params = SampleParams {
        temperature: draw.temperature,
        top_p: 1.0,
        max_tokens: draw.sampling.max_tokens,
        stop: draw.sampling.stop.clone(),
        seed: draw.seed,
    };
    let total = draw.tasks.len() * draw.samples;
    let mut finished: Vec<Vec<Option<Answer>>> = vec![vec![None; draw.samples]; draw.tasks.len()];
    let mut done = 0;
    let mut trouble = None;
    let mut on_finished = |prompt: usize, number: usize, completion: &Completion| {
        finished[prompt][number] = Some(answer(completion, &draw.sampling.prefill));
        done += 1;
        progress(done, total);
        if trouble.is_none() && finished[prompt].iter().all(Option::is_some) {
            let answers = Answers {
                index: prompt,
                group_id: format!("{}/{prompt}", draw.label),
                task_id: draw.tasks[prompt].id.clone(),
                phase: draw.phase,
                policy_version: draw.policy_version,
                answers: finished[prompt].iter().flatten().cloned().collect(),
            };
            trouble = environment.submit(answers).err();
        }
    };
    let completions = sample(model, tokenizer, &prompts, draw.samples, &params, &mut on_finished)
        .map_err(RolloutError::Sample)?;
    if let Some(error) = trouble {
        return Err(error.into());
    }
    let sampled = Instant::now();
    let mut rollouts: Vec<Rollout> = draw
        .tasks
        .iter()
        .zip(prompts)
        .map(|(task, prompt)| Rollout {
            task: task.clone(),
            prompt,
            samples: Vec::new(),
            masked: false,
        })
        .collect();
    let mut completions: Vec<Option<Vec<Completion>>> = completions.into_iter().map(Some).collect();
    for _ in draw.tasks {
        let verdicts = environment.collect()?;
        let rollout = &mut rollouts[verdicts.index];
        rollout.masked = verdicts.masked;
        let completions = completions[verdicts.index].take().unwrap_or_default();
        rollout.samples = completions
            .into_iter()
            .zip(verdicts.verdicts)
            .map(|(completion, verdict)| {
                let Answer { text, truncated, .. } = answer(&completion, &draw.sampling.prefill);
                Sampled {
                    tokens: completion.tokens,
                    log_probs: completion.log_probs,
                    text,
                    truncated,
                    verdict,
                }
            })
            .collect();
    }
    let spent = Spent {
        sample_s: (sampled - started).as_secs_f64(),
        wait_s: sampled.elapsed().as_secs_f64(),
    };
    Ok((rollouts, spent))
}

/// The ids that the policy reads before it answers.
pub fn prompt(
    tokenizer: &Tokenizer,
    task: &Task,
    prefill: &str,
) -> Result<Vec<i64>, TokenizerError> {
    let messages: Vec<(&str, &str)> = task
        .messages
        .iter()
        .map(|message| (message.role.as_str(), message.content.as_str()))
        .collect();
    tokenizer.encode(&(tokenizer.render_chat(&messages)? + prefill))
}

fn answer(completion: &Completion, prefill: &str) -> Answer {
    Answer {
        text: format!("{prefill}{}", completion.text),
        tokens: completion.tokens.len() as u64,
        truncated: completion.finish_reason == FinishReason::Length,
    }
}
