//! The name of layers together.

use assay_repos::Digest;

/// Returns the chain id of layers, lowest first: the digest that names their sum.
///
/// Source: the OCI image specification, config.md, "Layer ChainID".
#[must_use]
pub fn chain(diff_ids: &[Digest]) -> Option<Digest> {
    let mut ids = diff_ids.iter().cloned();
    let first = ids.next()?;
    Some(ids.fold(first, |below, id| Digest::of(format!("{below} {id}"))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chain_is_as_the_specification_says() {
        let (a, b, c) = (Digest::of("a"), Digest::of("b"), Digest::of("c"));
        let ab = Digest::of(format!("{a} {b}"));
        assert_eq!(chain(&[]), None);
        assert_eq!(chain(std::slice::from_ref(&a)), Some(a.clone()));
        assert_eq!(chain(&[a, b, c.clone()]), Some(Digest::of(format!("{ab} {c}"))));
    }
}
