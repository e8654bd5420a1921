//! The loop: draw tasks, sample groups, have them evaluated, learn, again.

use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, bail};
use serde::Serialize;

use crate::batch::{Rollout, assemble};
use crate::checkpoint::{self, Checkpoints, Resume};
use crate::config::{Config, ConfigError};
use crate::embedded::Embedded;
use crate::environment::{Environment, Phase, Task};
use crate::evaluate::{Evaluation, evaluate};
use crate::learner::Learner;
use crate::metrics::{self, Console, MetricsFile, Seconds, StepMetrics};
use crate::policy::{self, Policy};
use crate::rng::Rng;
use crate::rollout::{Draw, Spent, rollout};
use crate::service::Service;
use crate::stop::Stop;
use crate::tokenizer::Tokenizer;
use crate::toy::Toy;

/// Everything that a run holds: policy, environment, output. Lives on one thread.
pub struct Session {
    config: Config,
    learner: Learner,
    tokenizer: Tokenizer,
    environment: Box<dyn Environment>,
    console: Console,
    stop: Stop,
    checkpoints: Checkpoints,
    /// Steps that are done.
    step: u64,
}

/// How a run ended.
#[derive(Clone, Debug, Serialize)]
pub struct Ended {
    /// Steps done, those before a resume included.
    pub step: u64,
    /// Optimizer steps behind the weights.
    pub updates: u64,
    /// "steps", "time" or "stopped".
    pub reason: &'static str,
    /// The last checkpoint.
    pub checkpoint: PathBuf,
    /// Seconds of this process's training.
    pub seconds: f64,
}

impl Session {
    /// Loads the policy and reaches the service, which it starts when it is to be embedded.
    ///
    /// With `resume` the latest checkpoint under `run.out` takes the policy's place, where there is
    /// one.
    pub fn open(config: Config, resume: bool, json: bool, stop: Stop) -> anyhow::Result<Self> {
        let out = &config.run.out;
        std::fs::create_dir_all(out).with_context(|| format!("make {}", out.display()))?;
        let console = Console::new(json);
        // The service gets ready while the weights are read.
        let environment = environment(&config, out)?;
        let checkpoints = Checkpoints::of(out, config.run.keep_checkpoints);
        let from = if resume { checkpoints.latest()? } else { None };
        if let Some((folder, state)) = &from
            && state.seed != config.seed
        {
            let message = format!(
                "seed is {}, but {} was begun with {}",
                config.seed,
                folder.display(),
                state.seed
            );
            return Err(ConfigError::Value { place: "resume".into(), message }.into());
        }
        let folder = from.as_ref().map(|(folder, _)| folder.as_path());
        let Policy { model, masters, tokenizer } =
            policy::load(&config.policy, config.seed, folder)?;
        let reference = match config.loss.kl {
            0.0 => None,
            _ => Some(policy::load(&config.policy, config.seed, None)?.model),
        };
        let (shape, kind, device) = (model.config(), model.kind(), model.device());
        console.say(&format!(
            "policy {}: {:.1}M parameters, {kind:?} on {device:?}, {} threads",
            folder.map_or(config.policy.path.clone(), |folder| folder.display().to_string()),
            shape.parameter_count() as f64 / 1e6,
            tch::get_num_threads(),
        ));
        let mut learner = Learner::new(model, &masters, reference, &config);
        let mut step = 0;
        if let Some((folder, state)) = &from {
            checkpoint::restore(folder, state, &mut learner.adam)?;
            step = state.step;
            console.say(&format!("resumed after step {step}"));
        }
        Ok(Self { config, learner, tokenizer, environment, console, stop, checkpoints, step })
    }

    /// Learns until the steps, the time or the user's patience are used up, and saves.
    pub fn train(&mut self) -> anyhow::Result<Ended> {
        let started = Instant::now();
        let ids = self.environment.task_ids(&self.config.tasks.set, &self.config.tasks.split)?;
        if ids.is_empty() {
            let message = format!(
                "no valid task in set `{}`, split `{}`",
                self.config.tasks.set, self.config.tasks.split
            );
            return Err(ConfigError::Value { place: "tasks".into(), message }.into());
        }
        let metrics_path = metrics::path(&self.config.run.out);
        let mut file = MetricsFile::open(&metrics_path, self.step)
            .with_context(|| format!("write {}", metrics_path.display()))?;
        let limit_s = self.config.run.max_minutes * 60.0;
        let mut saved = None;
        let reason = loop {
            if self.stop.requested() {
                break "stopped";
            }
            if self.step >= self.config.run.steps {
                break "steps";
            }
            if limit_s > 0.0 && started.elapsed().as_secs_f64() >= limit_s {
                break "time";
            }
            let metrics = self.one_step(&ids)?;
            file.push(&metrics).with_context(|| format!("write {}", metrics_path.display()))?;
            self.console.step(&metrics, self.config.run.steps);
            let every = self.config.run.checkpoint_every;
            if every > 0 && self.step.is_multiple_of(every) {
                saved = Some((self.step, self.save()?));
            }
        };
        let checkpoint = match saved {
            Some((step, folder)) if step == self.step => folder,
            _ => self.save()?,
        };
        let ended = Ended {
            step: self.step,
            updates: self.learner.adam.steps,
            reason,
            checkpoint,
            seconds: started.elapsed().as_secs_f64(),
        };
        self.console.say(&format!(
            "{} after step {}: {}",
            ended.reason,
            ended.step,
            ended.checkpoint.display()
        ));
        Ok(ended)
    }

    fn one_step(&mut self, ids: &[String]) -> anyhow::Result<StepMetrics> {
        let started = Instant::now();
        let number = self.step + 1;
        let drawn = draw_tasks(ids, self.config.seed, self.step, self.config.sampling.prompts);
        let tasks = drawn
            .into_iter()
            .map(|id| self.environment.task(id))
            .collect::<Result<Vec<Task>, _>>()?;
        let (rollouts, spent) = self.sample(&tasks, number)?;
        let mut rng = Rng::derive(self.config.seed, number, "shuffle");
        let (samples, stats) = assemble(&rollouts, &self.config.loss, &mut rng);
        if stats.valid == 0 {
            bail!(
                "no sample of step {number} has a reward ({:?}): the service can't evaluate",
                stats.outcomes
            );
        }
        let lr = self.learner.adam.config.lr_at(self.learner.adam.steps);
        let train = Instant::now();
        let update =
            self.learner.update(&samples).with_context(|| format!("train step {number}"))?;
        self.step = number;
        let seconds = Seconds {
            sample: spent.sample_s,
            wait: spent.wait_s,
            train: train.elapsed().as_secs_f64(),
            total: started.elapsed().as_secs_f64(),
        };
        Ok(StepMetrics::new(number, lr, stats, &update, seconds))
    }

    fn sample(&mut self, tasks: &[Task], number: u64) -> anyhow::Result<(Vec<Rollout>, Spent)> {
        let label = format!("train-{number}");
        let draw = Draw {
            tasks,
            samples: self.config.sampling.samples,
            temperature: self.config.sampling.temperature,
            sampling: &self.config.sampling,
            seed: Rng::derive(self.config.seed, number, "sampling").next_u64(),
            phase: Phase::Train,
            policy_version: self.learner.adam.steps,
            label: &label,
        };
        let progress = |done, total| self.console.progress("sampling", done, total);
        rollout(&self.learner.model, &self.tokenizer, &mut *self.environment, &draw, &progress)
            .with_context(|| format!("sample step {number}"))
    }

    /// Measures the present weights on the held-out split.
    pub fn evaluate(&mut self) -> anyhow::Result<Evaluation> {
        let progress = |done, total| self.console.progress("measuring", done, total);
        let evaluation = evaluate(
            &self.config,
            &self.learner.model,
            &self.tokenizer,
            &mut *self.environment,
            self.learner.adam.steps,
            &progress,
        )
        .context("measure the policy")?;
        if evaluation.tasks.is_empty() {
            let message =
                format!("no valid task in set `{}`, split `{}`", evaluation.set, evaluation.split);
            return Err(ConfigError::Value { place: "eval".into(), message }.into());
        }
        if evaluation.summary.tasks == 0 {
            bail!("no sample has a verdict: the service can't evaluate");
        }
        Ok(evaluation)
    }

    /// Samples one task or the given words; used by `assay-train sample`.
    pub fn sample_task(
        &mut self,
        task: Task,
        temperature: f64,
        samples: usize,
    ) -> anyhow::Result<Rollout> {
        let draw = Draw {
            tasks: &[task],
            samples,
            temperature,
            sampling: &self.config.sampling,
            seed: self.config.seed,
            phase: Phase::Eval,
            policy_version: self.learner.adam.steps,
            label: "sample",
        };
        let (mut rollouts, _) = rollout(
            &self.learner.model,
            &self.tokenizer,
            &mut *self.environment,
            &draw,
            &|_, _| {},
        )?;
        Ok(rollouts.remove(0))
    }

    /// The public view of a task.
    pub fn task(&mut self, id: &str) -> anyhow::Result<Task> {
        Ok(self.environment.task(id)?)
    }

    /// Where this session tells how it goes.
    pub fn console(&self) -> &Console {
        &self.console
    }

    /// What the session was opened with.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Whether the user asked for the end.
    pub fn stopped(&self) -> bool {
        self.stop.requested()
    }

    fn save(&self) -> anyhow::Result<PathBuf> {
        let resume = Resume {
            step: self.step,
            updates: self.learner.adam.steps,
            seed: self.config.seed,
            policy: self.config.policy.path.clone(),
        };
        let model = self.learner.model.config();
        let folder = self.checkpoints.save(model, &self.tokenizer, &self.learner.adam, &resume);
        folder.with_context(|| format!("save the checkpoint of step {}", self.step))
    }
}

fn environment(config: &Config, out: &Path) -> anyhow::Result<Box<dyn Environment>> {
    if config.policy.path == policy::TINY {
        return Ok(Box::new(Toy::default()));
    }
    let embedded = match config.service.server.as_str() {
        "embedded" => {
            Some(Embedded::start(config.service.assay.as_deref(), &config.service.args, out)?)
        }
        _ => None,
    };
    Ok(Box::new(Service::connect(&config.service, embedded)?))
}

/// The tasks of step `step` (from 0): every task comes up once before any comes up again, in an
/// order that is drawn anew for each round.
fn draw_tasks(ids: &[String], seed: u64, step: u64, count: usize) -> Vec<&str> {
    let first = step * count as u64;
    let mut round = (u64::MAX, Vec::new());
    (first..first + count as u64)
        .map(|position| {
            let number = position / ids.len() as u64;
            if round.0 != number {
                let mut order: Vec<&str> = ids.iter().map(String::as_str).collect();
                Rng::derive(seed, number, "tasks").shuffle(&mut order);
                round = (number, order);
            }
            round.1[(position % ids.len() as u64) as usize]
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_task_once_a_round() {
        let ids: Vec<String> = (0..10).map(|number| format!("t{number}")).collect();
        let drawn: Vec<&str> = (0..5).flat_map(|step| draw_tasks(&ids, 1, step, 4)).collect();
        for round in drawn.chunks(10) {
            let mut round = round.to_vec();
            round.sort_unstable();
            assert!(round.iter().eq(ids.iter()));
        }
        assert_ne!(drawn[..10], drawn[10..], "rounds differ in order");
        assert_eq!(draw_tasks(&ids, 1, 3, 4), drawn[12..16], "a function of the step alone");
        assert_eq!(draw_tasks(&ids[..1], 1, 0, 3), ["t0"; 3]);
    }
}
