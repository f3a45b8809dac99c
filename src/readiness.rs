//! Which roles can do their work right now. Roles write it, `ops` shows it.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use prometheus::IntGauge;

use crate::metrics::Metrics;

/// Why each role is not ready; `None` when it is.
type Board = BTreeMap<String, Option<String>>;

/// The readiness of all roles; cloning shares it.
#[derive(Debug, Clone)]
pub struct Readiness {
    board: Arc<Mutex<Board>>,
    metrics: Metrics,
}

impl Readiness {
    pub fn new(metrics: Metrics) -> Self {
        Readiness { board: Arc::default(), metrics }
    }

    /// Enters a role, which is not ready until it says so.
    pub fn role(&self, name: &str) -> RoleReadiness {
        let role = RoleReadiness {
            board: Arc::clone(&self.board),
            name: name.to_owned(),
            gauge: self.metrics.role(name).ready.clone(),
        };
        role.set_not_ready("starting");
        role
    }

    /// True when there is a role and every role is ready.
    pub fn all_ready(&self) -> bool {
        let board = lock(&self.board);
        !board.is_empty() && board.values().all(Option::is_none)
    }

    /// Each role with the reason why it is not ready, by name.
    pub fn snapshot(&self) -> Vec<(String, Option<String>)> {
        lock(&self.board).iter().map(|(name, reason)| (name.clone(), reason.clone())).collect()
    }
}

/// One role's own entry.
#[derive(Debug, Clone)]
pub struct RoleReadiness {
    board: Arc<Mutex<Board>>,
    name: String,
    gauge: IntGauge,
}

impl RoleReadiness {
    pub fn set_ready(&self) {
        if self.replace(None) {
            tracing::info!(role = self.name, "ready");
        }
        self.gauge.set(1);
    }

    /// `reason` is shown to whoever asks for the readiness; it must not hold anything confidential.
    pub fn set_not_ready(&self, reason: impl Into<String>) {
        let reason = reason.into();
        if self.replace(Some(reason.clone())) {
            tracing::info!(role = self.name, reason, "not ready");
        }
        self.gauge.set(0);
    }

    /// Returns whether that is news.
    fn replace(&self, reason: Option<String>) -> bool {
        let mut board = lock(&self.board);
        let changed = board.get(&self.name) != Some(&reason);
        if changed {
            board.insert(self.name.clone(), reason);
        }
        changed
    }
}

/// The board is a plain map that no panic can leave half written.
fn lock(board: &Mutex<Board>) -> std::sync::MutexGuard<'_, Board> {
    board.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_are_ready_only_when_each_is() {
        let metrics = Metrics::new();
        let readiness = Readiness::new(metrics.clone());
        assert!(!readiness.all_ready(), "nothing runs yet");
        let (classify, tally) = (readiness.role("classify"), readiness.role("tally"));
        classify.set_ready();
        assert!(!readiness.all_ready());
        tally.set_ready();
        assert!(readiness.all_ready());
        classify.set_not_ready("broker unreachable");
        assert_eq!(
            readiness.snapshot(),
            [("classify".to_owned(), Some("broker unreachable".to_owned())), ("tally".to_owned(), None)]
        );
        let text = metrics.encode();
        assert!(text.contains(r#"triaged_role_ready{role="classify"} 0"#), "{text}");
        assert!(text.contains(r#"triaged_role_ready{role="tally"} 1"#), "{text}");
    }
}
