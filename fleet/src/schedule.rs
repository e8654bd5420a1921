//! Which waiting request runs next. Plain and synchronous, so that properties can be checked.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    time::Duration,
};

use tokio::time::Instant;

use crate::{Priority, RequestId};

/// Requests that wait for a worker: strictly by priority, first come first served within one.
///
/// Each request is handed out exactly once: by [`pop`](Self::pop), [`remove`](Self::remove) or
/// [`expired`](Self::expired).
#[derive(Debug)]
pub(crate) struct Schedule<T> {
    lanes: [BTreeMap<u64, RequestId>; 3],
    waiting: HashMap<RequestId, Waiting<T>>,
    deadlines: BTreeSet<(Instant, u64, RequestId)>,
    arrivals: u64,
}

#[derive(Debug)]
struct Waiting<T> {
    arrival: u64,
    priority: Priority,
    deadline: Option<Instant>,
    work: T,
}

impl<T> Default for Schedule<T> {
    fn default() -> Self {
        Self {
            lanes: Default::default(),
            waiting: HashMap::new(),
            deadlines: BTreeSet::new(),
            arrivals: 0,
        }
    }
}

impl<T> Schedule<T> {
    /// Adds a request. Returns `work` when one with this id waits already.
    pub(crate) fn push(
        &mut self,
        id: RequestId,
        priority: Priority,
        deadline: Option<Instant>,
        work: T,
    ) -> Result<(), T> {
        if self.waiting.contains_key(&id) {
            return Err(work);
        }
        self.arrivals += 1;
        let arrival = self.arrivals;
        self.lanes[lane(priority)].insert(arrival, id.clone());
        if let Some(deadline) = deadline {
            self.deadlines.insert((deadline, arrival, id.clone()));
        }
        self.waiting.insert(id, Waiting { arrival, priority, deadline, work });
        Ok(())
    }

    /// Takes the request that runs next.
    pub(crate) fn pop(&mut self) -> Option<T> {
        let id = self.lanes.iter().find_map(|lane| lane.values().next())?.clone();
        self.remove(&id)
    }

    /// Takes this request out, wherever it stands.
    pub(crate) fn remove(&mut self, id: &RequestId) -> Option<T> {
        let Waiting { arrival, priority, deadline, work } = self.waiting.remove(id)?;
        self.lanes[lane(priority)].remove(&arrival);
        if let Some(deadline) = deadline {
            self.deadlines.remove(&(deadline, arrival, id.clone()));
        }
        Some(work)
    }

    /// Takes every request whose deadline has come.
    pub(crate) fn expired(&mut self, now: Instant) -> Vec<T> {
        let mut expired = Vec::new();
        while let Some((deadline, _, id)) = self.deadlines.first().cloned() {
            if deadline > now {
                break;
            }
            expired.extend(self.remove(&id));
        }
        expired
    }

    /// Returns when the next deadline comes.
    pub(crate) fn next_deadline(&self) -> Option<Instant> {
        self.deadlines.first().map(|(deadline, ..)| *deadline)
    }

    pub(crate) fn len(&self) -> usize {
        self.waiting.len()
    }
}

fn lane(priority: Priority) -> usize {
    match priority {
        Priority::High => 0,
        Priority::Normal => 1,
        Priority::Low => 2,
    }
}

/// Says how long a refused client should wait: until about `wanted` places are free.
pub(crate) fn retry_after(wanted: usize, workers: usize, service: Duration) -> Duration {
    let rounds = wanted.div_ceil(workers.max(1)).max(1);
    let wait = service.saturating_mul(u32::try_from(rounds).unwrap_or(u32::MAX));
    wait.clamp(Duration::from_millis(100), Duration::from_secs(30))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[derive(Clone, Debug)]
    enum Op {
        Push { id: u8, priority: Priority, deadline_s: Option<u8> },
        Pop,
        Remove(u8),
        Expire(u8),
    }

    fn op() -> impl Strategy<Value = Op> {
        let priority =
            prop_oneof![Just(Priority::High), Just(Priority::Normal), Just(Priority::Low)];
        prop_oneof![
            4 => (any::<u8>(), priority, proptest::option::of(any::<u8>()))
                .prop_map(|(id, priority, deadline_s)| Op::Push { id, priority, deadline_s }),
            2 => Just(Op::Pop),
            1 => any::<u8>().prop_map(Op::Remove),
            1 => any::<u8>().prop_map(Op::Expire),
        ]
    }

    /// What the schedule is compared with: a list, searched from the front.
    type Model = Vec<(u8, Priority, Option<u8>)>;

    proptest! {
        #[test]
        fn agrees_with_a_plain_list(ops in proptest::collection::vec(op(), 1..200)) {
            let start = Instant::now();
            let at = |seconds: u8| start + Duration::from_secs(seconds.into());
            let id = |n: u8| RequestId::new(format!("r{n}")).unwrap();
            let (mut schedule, mut model) = (Schedule::default(), Model::new());
            for op in ops {
                match op {
                    Op::Push { id: n, priority, deadline_s } => {
                        let new = !model.iter().any(|(m, ..)| *m == n);
                        let pushed = schedule.push(id(n), priority, deadline_s.map(at), n);
                        prop_assert_eq!(pushed.is_ok(), new, "a second `{}` got in", n);
                        if new {
                            model.push((n, priority, deadline_s));
                        }
                    }
                    Op::Pop => {
                        let first = [Priority::High, Priority::Normal, Priority::Low]
                            .into_iter()
                            .find_map(|p| model.iter().position(|(_, q, _)| *q == p));
                        prop_assert_eq!(schedule.pop(), first.map(|i| model.remove(i).0));
                    }
                    Op::Remove(n) => {
                        let found = model.iter().position(|(m, ..)| *m == n);
                        prop_assert_eq!(schedule.remove(&id(n)), found.map(|i| model.remove(i).0));
                    }
                    Op::Expire(now) => {
                        let mut expired = schedule.expired(at(now));
                        expired.sort_unstable();
                        let due = |d: &Option<u8>| d.is_some_and(|d| d <= now);
                        let mut wanted: Vec<u8> =
                            model.iter().filter(|(.., d)| due(d)).map(|(n, ..)| *n).collect();
                        wanted.sort_unstable();
                        model.retain(|(.., d)| !due(d));
                        prop_assert_eq!(expired, wanted);
                    }
                }
                prop_assert_eq!(schedule.len(), model.len());
                let next = model.iter().filter_map(|(.., d)| *d).min().map(at);
                prop_assert_eq!(schedule.next_deadline(), next);
            }
            // Nothing is lost: what is left comes out, by priority, then by arrival.
            model.sort_by_key(|(_, priority, _)| lane(*priority));
            let left: Vec<u8> = std::iter::from_fn(|| schedule.pop()).collect();
            prop_assert_eq!(left, model.into_iter().map(|(n, ..)| n).collect::<Vec<_>>());
        }
    }

    #[test]
    fn retry_after_is_bounded_and_grows_with_the_work() {
        let s = Duration::from_secs;
        let cases = [
            ("nothing known yet", 1, 2, Duration::ZERO, Duration::from_millis(100)),
            ("one round", 2, 2, s(1), s(1)),
            ("four rounds", 8, 2, s(1), s(4)),
            ("never more than half a minute", 100_000, 2, s(60), s(30)),
            ("no workers", 1, 0, s(1), s(1)),
        ];
        for (name, wanted, workers, service, expected) in cases {
            assert_eq!(retry_after(wanted, workers, service), expected, "{name}");
        }
    }
}
