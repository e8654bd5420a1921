//! A byte-level toy task, evaluated in this process: spell a short word backwards.
//!
//! With a model of random weights it shows within a minute that the loop learns, needing neither
//! a service nor a pretrained model.

use std::collections::VecDeque;

use crate::environment::{
    Answers, Environment, EnvironmentError, Message, Task, Verdict, Verdicts,
};

/// Letters of a word.
pub const LENGTH: usize = 2;
/// The alphabet.
const LETTERS: &[u8] = b"abcdef";

/// Every word of the alphabet is a task; a third of them is held out.
#[derive(Debug, Default)]
pub struct Toy {
    verdicts: VecDeque<Verdicts>,
}

impl Environment for Toy {
    fn task_ids(&mut self, _set: &str, split: &str) -> Result<Vec<String>, EnvironmentError> {
        let words = (0..LETTERS.len().pow(LENGTH as u32)).map(|number| {
            let letter = |place: usize| number / LETTERS.len().pow(place as u32) % LETTERS.len();
            let letters: Vec<usize> = (0..LENGTH).map(letter).collect();
            // By the sum, so that every letter is trained on in every place.
            let held_out = letters.iter().sum::<usize>().is_multiple_of(3);
            (
                held_out,
                letters.into_iter().map(|letter| char::from(LETTERS[letter])).collect::<String>(),
            )
        });
        Ok(words
            .filter(|(held_out, _)| match split {
                "train" => !held_out,
                "held_out" => *held_out,
                _ => true,
            })
            .map(|(_, word)| format!("reverse.{word}"))
            .collect())
    }

    fn task(&mut self, id: &str) -> Result<Task, EnvironmentError> {
        let content = format!("{}>", word(id)?);
        Ok(Task { id: id.to_owned(), messages: vec![Message { role: "user".into(), content }] })
    }

    fn submit(&mut self, group: Answers) -> Result<(), EnvironmentError> {
        let expected: Vec<u8> = word(&group.task_id)?.bytes().rev().collect();
        let verdicts =
            group.answers.iter().map(|answer| verdict(&expected, answer.text.as_bytes())).collect();
        self.verdicts.push_back(Verdicts { index: group.index, verdicts, masked: false });
        Ok(())
    }

    fn collect(&mut self) -> Result<Verdicts, EnvironmentError> {
        let nothing = || EnvironmentError::Refused {
            what: "collect".into(),
            detail: "nothing was submitted".into(),
        };
        self.verdicts.pop_front().ok_or_else(nothing)
    }
}

fn word(id: &str) -> Result<&str, EnvironmentError> {
    id.strip_prefix("reverse.")
        .filter(|word| word.len() == LENGTH && word.bytes().all(|letter| LETTERS.contains(&letter)))
        .ok_or_else(|| EnvironmentError::Refused {
            what: format!("task {id}"),
            detail: "no such task".into(),
        })
}

/// The share of letters in their place.
fn verdict(expected: &[u8], answer: &[u8]) -> Verdict {
    let right = expected.iter().zip(answer).filter(|(a, b)| a == b).count();
    let reward = right as f64 / expected.len().max(answer.len()) as f64;
    let tests = Some([right as u32, expected.len() as u32]);
    Verdict { outcome: "scored".into(), reward: Some(reward), tests, ..Verdict::default() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_and_verdicts() {
        let mut toy = Toy::default();
        let all = toy.task_ids("", "").unwrap();
        let train = toy.task_ids("", "train").unwrap();
        let held_out = toy.task_ids("", "held_out").unwrap();
        assert_eq!((all.len(), train.len(), held_out.len()), (36, 24, 12));
        assert!(train.iter().all(|id| !held_out.contains(id)));
        assert_eq!(toy.task("reverse.ab").unwrap().messages[0].content, "ab>");
        assert!(toy.task("reverse.xy").is_err() && toy.task("ab").is_err());
        for (answer, reward) in [("ba", 1.0), ("bx", 0.5), ("", 0.0), ("babb", 0.5), ("ab", 0.0)] {
            assert_eq!(verdict(b"ba", answer.as_bytes()).reward, Some(reward), "{answer}");
        }
    }
}
