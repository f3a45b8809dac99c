//! Verdicts of the model by log template: lines that differ only in what is masked share one answer.

use std::sync::Arc;

use quick_cache::sync::Cache;

use super::decide::Answer;

/// A bounded cache, shared by all workers.
#[derive(Debug)]
pub struct TemplateCache {
    answers: Cache<u64, Arc<Answer>>,
    /// Every so many hits the model is asked again; 0: never.
    recheck_every: u64,
}

impl TemplateCache {
    /// `recheck_share` is the share of hits to be classified again, 0 to 1.
    pub fn new(capacity: usize, recheck_share: f64) -> Self {
        let recheck_every = if recheck_share > 0.0 { (1.0 / recheck_share).round().max(1.0) as u64 } else { 0 };
        TemplateCache { answers: Cache::new(capacity), recheck_every }
    }

    pub fn get(&self, template: u64) -> Option<Arc<Answer>> {
        self.answers.get(&template)
    }

    pub fn insert(&self, template: u64, answer: Arc<Answer>) {
        self.answers.insert(template, answer);
    }

    pub fn remove(&self, template: u64) {
        self.answers.remove(&template);
    }

    /// Whether the hit with this number is one to look at again.
    pub(super) fn is_due(&self, hit: u64) -> bool {
        self.recheck_every > 0 && hit.is_multiple_of(self.recheck_every)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_share_of_rechecks_is_kept() {
        let cache = TemplateCache::new(8, 0.25);
        assert_eq!((1..=100).filter(|&hit| cache.is_due(hit)).count(), 25);
        assert!(!(0..100).any(|hit| TemplateCache::new(8, 0.0).is_due(hit)));
        assert!((0..100).all(|hit| TemplateCache::new(8, 1.0).is_due(hit)));
    }
}
