//! What is searched: layers, their candidates, and the bytes there are.

use crate::SearchError;

/// One way to store a layer.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Candidate {
    /// Bytes it takes.
    pub bytes: u64,
    /// Error that is predicted for it, weighted so that errors of layers can be added; finite and at least 0.
    pub error: f64,
}

impl Candidate {
    /// A candidate of so many bytes and that error.
    pub fn new(bytes: u64, error: f64) -> Self {
        Self { bytes, error }
    }
}

/// The index of a candidate for each layer.
pub type Genome = Vec<u16>;

/// Layers with their candidates, and how many bytes a plan may take.
#[derive(Debug, Clone)]
pub struct Problem {
    layers: Vec<Vec<Candidate>>,
    budget: u64,
    floor: u64,
    families: Vec<Vec<usize>>,
    /// The place of each candidate in its layer by bytes.
    ranks: Vec<Vec<u16>>,
}

impl Problem {
    /// Checks `layers` against a budget of bytes. Plans below `floor` bytes are filled up where candidates allow that.
    ///
    /// # Errors
    /// When a layer has no candidates, a predicted error is not finite or negative, or the smallest candidates do not fit the budget.
    ///
    /// # Panics
    /// When a layer has more than 65,536 candidates.
    pub fn new(layers: Vec<Vec<Candidate>>, floor: u64, budget: u64) -> Result<Self, SearchError> {
        check(&layers)?;
        let least = layers.iter().map(|layer| layer.iter().map(|c| c.bytes).min().unwrap_or(0)).sum();
        if least > budget {
            return Err(SearchError::Budget { least, budget });
        }
        assert!(layers.iter().all(|layer| layer.len() <= 1 << 16), "a gene has 16 bits");
        let ranks = layers.iter().map(|layer| ranks(layer)).collect();
        Ok(Self { layers, budget, floor: floor.min(budget), families: Vec::new(), ranks })
    }

    /// The same problem with sets of layers that are likely to matter alike, which the search may move together.
    #[must_use]
    pub fn with_families(self, families: Vec<Vec<usize>>) -> Self {
        let layers = self.layers.len();
        let inside = |family: &Vec<usize>| !family.is_empty() && family.iter().all(|&layer| layer < layers);
        Self { families: families.into_iter().filter(inside).collect(), ..self }
    }

    /// The candidates of each layer.
    pub fn layers(&self) -> &[Vec<Candidate>] {
        &self.layers
    }

    /// The most bytes of a plan.
    pub fn budget(&self) -> u64 {
        self.budget
    }

    /// Bytes of a plan.
    pub fn bytes(&self, genome: &[u16]) -> u64 {
        self.chosen(genome).map(|c| c.bytes).sum()
    }

    /// Sum of the errors that are predicted for a plan.
    pub fn error(&self, genome: &[u16]) -> f64 {
        self.chosen(genome).map(|c| c.error).sum()
    }

    pub(crate) fn floor(&self) -> u64 {
        self.floor
    }

    pub(crate) fn families(&self) -> &[Vec<usize>] {
        &self.families
    }

    /// The place of a candidate in its layer by bytes.
    pub(crate) fn rank(&self, layer: usize, gene: u16) -> u16 {
        self.ranks[layer][usize::from(gene)]
    }

    /// The candidate of a layer that is `steps` further up by bytes, or down where that is negative; the last one at the ends.
    pub(crate) fn stepped(&self, layer: usize, gene: u16, steps: i32) -> u16 {
        let last = self.ranks[layer].len() as i32 - 1;
        let rank = (i32::from(self.rank(layer, gene)) + steps).clamp(0, last) as u16;
        self.ranks[layer].iter().position(|&r| r == rank).unwrap_or(usize::from(gene)) as u16
    }

    /// Whether a genome has one candidate for each layer.
    pub(crate) fn has(&self, genome: &[u16]) -> bool {
        let known = genome.iter().zip(&self.layers).all(|(&gene, layer)| usize::from(gene) < layer.len());
        genome.len() == self.layers.len() && known
    }

    fn chosen<'a>(&'a self, genome: &'a [u16]) -> impl Iterator<Item = &'a Candidate> {
        self.layers.iter().zip(genome).map(|(layer, &gene)| &layer[usize::from(gene)])
    }
}

/// Checks that every layer has candidates and every error is a number that can be added.
pub(crate) fn check(layers: &[Vec<Candidate>]) -> Result<(), SearchError> {
    for (layer, candidates) in layers.iter().enumerate() {
        if candidates.is_empty() {
            return Err(SearchError::NoCandidates { layer });
        }
        let wrong = |c: &Candidate| !(c.error.is_finite() && c.error >= 0.0);
        if let Some(candidate) = candidates.iter().position(wrong) {
            return Err(SearchError::Error { layer, candidate, error: candidates[candidate].error });
        }
    }
    Ok(())
}

fn ranks(layer: &[Candidate]) -> Vec<u16> {
    let mut order: Vec<usize> = (0..layer.len()).collect();
    order.sort_by_key(|&i| layer[i].bytes);
    let mut ranks = vec![0; layer.len()];
    order.iter().enumerate().for_each(|(rank, &i)| ranks[i] = rank as u16);
    ranks
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn problems_are_checked() {
        let layer = |bytes: u64, error: f64| vec![Candidate::new(bytes, error)];
        let refused = |layers, budget| Problem::new(layers, 0, budget).expect_err("refused");
        assert_eq!(refused(vec![vec![]], 1), SearchError::NoCandidates { layer: 0 });
        assert_eq!(refused(vec![layer(9, 0.0)], 8), SearchError::Budget { least: 9, budget: 8 });
        assert!(matches!(
            refused(vec![layer(1, 0.0), layer(1, f64::NAN)], 9),
            SearchError::Error { layer: 1, .. }
        ));
        assert!(matches!(refused(vec![layer(1, -1.0)], 9), SearchError::Error { .. }));
    }

    #[test]
    fn steps_follow_bytes_and_stop_at_the_ends() {
        let layer = [30, 10, 20].map(|bytes| Candidate::new(bytes, 1.0)).to_vec();
        let problem = Problem::new(vec![layer], 0, 100).expect("good");
        assert_eq!([0, 1, 2].map(|gene| problem.rank(0, gene)), [2, 0, 1]);
        assert_eq!([-9, -1, 1, 2].map(|steps| problem.stepped(0, 2, steps)), [1, 1, 0, 0]);
        assert_eq!((problem.bytes(&[2]), problem.error(&[2])), (20, 1.0));
        assert!(problem.has(&[2]) && !problem.has(&[3]) && !problem.has(&[]));
    }
}
