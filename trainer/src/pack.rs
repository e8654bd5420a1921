//! Which samples share a forward pass.

/// Splits samples of these `lengths` into bins of at most `budget` tokens, first fit by decreasing
/// length. A sample longer than the budget has a bin to itself.
///
/// The same input gives the same bins; inside a bin, samples keep the order they came in.
pub fn pack(lengths: &[usize], budget: usize) -> Vec<Vec<usize>> {
    let mut order: Vec<usize> = (0..lengths.len()).collect();
    order.sort_by_key(|&i| (std::cmp::Reverse(lengths[i]), i));
    let mut bins: Vec<(usize, Vec<usize>)> = Vec::new();
    for i in order {
        match bins.iter_mut().find(|(used, _)| used + lengths[i] <= budget) {
            Some((used, members)) => {
                *used += lengths[i];
                members.push(i);
            }
            None => bins.push((lengths[i], vec![i])),
        }
    }
    bins.into_iter()
        .map(|(_, mut members)| {
            members.sort_unstable();
            members
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bins() {
        let cases = [
            ("nothing", vec![], 10, Vec::<Vec<usize>>::new()),
            ("all in one", vec![3, 3, 4], 10, vec![vec![0, 1, 2]]),
            ("the long ones first", vec![2, 9, 8, 1], 10, vec![vec![1, 3], vec![0, 2]]),
            ("longer than the budget", vec![1, 20], 10, vec![vec![1], vec![0]]),
            ("equal lengths keep their order", vec![5, 5, 5], 10, vec![vec![0, 1], vec![2]]),
        ];
        for (name, lengths, budget, expected) in cases {
            assert_eq!(pack(&lengths, budget), expected, "{name}");
        }
    }
}
