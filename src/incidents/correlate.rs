//! Which events belong together: one joins an incident that shares a token with it, had an event within the window of its
//! own, and is not too long; of several the one whose first event is the earliest. Else it opens one. Pure.

use std::collections::{HashMap, HashSet};

use uuid::Uuid;

use crate::config::IncidentSettings;
use crate::record::incident_id_of;
use crate::volumes::IncidentEventRow;

/// Tokens that an incident is found by; what comes later is counted and makes it no wider.
const MOST_TOKENS: usize = 1_000;

/// What is known of the incidents that may still take events. Times are milliseconds of event time.
#[derive(Debug)]
pub(super) struct Correlator {
    window: i64,
    longest: i64,
    scopes: HashMap<Uuid, Scope>,
    by_token: HashMap<String, Vec<Uuid>>,
}

#[derive(Debug)]
struct Scope {
    first: i64,
    last: i64,
    /// When it was resolved: what occurs later is another incident.
    closed_at: Option<i64>,
    tokens: HashSet<String>,
}

impl Correlator {
    pub(super) fn new(settings: &IncidentSettings) -> Self {
        Correlator {
            window: settings.window.as_millis() as i64,
            longest: settings.longest.as_millis() as i64,
            scopes: HashMap::new(),
            by_token: HashMap::new(),
        }
    }

    /// The incident of an event, and whether the event opens it.
    pub(super) fn place(&mut self, event: &IncidentEventRow) -> (Uuid, bool) {
        let at = event.occurred_at;
        let candidates = event.tokens.iter().filter_map(|token| self.by_token.get(token)).flatten();
        let open = candidates.filter_map(|id| self.scopes.get(id).map(|scope| (scope.first, id, scope)));
        let fitting = open.filter(|(.., scope)| self.takes(scope, at)).map(|(first, id, _)| (first, *id)).min();
        let (id, opens) = match fitting {
            Some((_, id)) => (id, false),
            None => (incident_id_of(event.event_id), true),
        };
        self.widen(id, (at, at), &event.tokens);
        (id, opens)
    }

    fn takes(&self, scope: &Scope, at: i64) -> bool {
        (scope.first - self.window..=scope.last + self.window).contains(&at)
            && scope.last.max(at) - scope.first.min(at) <= self.longest
            && scope.closed_at.is_none_or(|closed_at| at <= closed_at)
    }

    /// An incident has events from the first to the last of these times, with these tokens.
    pub(super) fn widen(&mut self, id: Uuid, (first, last): (i64, i64), tokens: &[String]) {
        let scope =
            self.scopes.entry(id).or_insert_with(|| Scope { first, last, closed_at: None, tokens: HashSet::new() });
        scope.first = scope.first.min(first);
        scope.last = scope.last.max(last);
        for token in tokens {
            if scope.tokens.len() < MOST_TOKENS && scope.tokens.insert(token.clone()) {
                self.by_token.entry(token.clone()).or_default().push(id);
            }
        }
    }

    /// An incident was resolved: it takes only what occurred before.
    pub(super) fn close(&mut self, id: Uuid, at: i64) {
        if let Some(scope) = self.scopes.get_mut(&id) {
            scope.closed_at = Some(at);
        }
    }

    pub(super) fn forget(&mut self, id: Uuid) {
        let Some(scope) = self.scopes.remove(&id) else { return };
        for token in scope.tokens {
            if let Some(ids) = self.by_token.get_mut(&token) {
                ids.retain(|known| *known != id);
                if ids.is_empty() {
                    self.by_token.remove(&token);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::sighting::tests::{NOW, event, sightings};
    use super::*;
    use crate::config::Config;

    const MINUTE: i64 = 60_000;

    fn correlator() -> Correlator {
        Correlator::new(&Config::from_toml("").expect("settings").incidents)
    }

    fn row(offset: i64, at: i64, ips: &[&str]) -> IncidentEventRow {
        sightings("incidents.max_event_age = \"7d\"").of(&event(offset, at, ips), NOW).expect("it counts")
    }

    #[test]
    fn a_shared_indicator_joins_and_another_one_does_not() {
        let mut correlator = correlator();
        let (first, opens) = correlator.place(&row(1, NOW, &["203.0.113.7", "198.51.100.1"]));
        assert!(opens);
        assert_eq!(correlator.place(&row(2, NOW + 1, &["203.0.113.7", "198.51.100.2"])), (first, false));
        assert_eq!(correlator.place(&row(3, NOW + 2, &["198.51.100.2"])), (first, false), "by what the second brought");
        let (other, opens) = correlator.place(&row(4, NOW + 3, &["192.0.2.1"]));
        assert!(opens && other != first);
        assert_eq!(correlator.place(&row(5, NOW, &["203.0.113.7", "192.0.2.1"])).0, first, "the earlier of two");
    }

    #[test]
    fn the_window_slides_and_ends() {
        let mut correlator = correlator();
        let ip = ["203.0.113.7"];
        let (first, _) = correlator.place(&row(1, NOW, &ip));
        assert_eq!(correlator.place(&row(2, NOW + 15 * MINUTE, &ip)), (first, false));
        assert_eq!(correlator.place(&row(3, NOW + 30 * MINUTE, &ip)), (first, false), "from its last event on");
        assert_eq!(correlator.place(&row(4, NOW - 15 * MINUTE, &ip)), (first, false), "late, and earlier");
        let (second, opens) = correlator.place(&row(5, NOW + 45 * MINUTE + 1, &ip));
        assert!(opens && second != first);
    }

    #[test]
    fn an_incident_ends_when_it_is_too_long_or_resolved() {
        let mut correlator = correlator();
        let ip = ["203.0.113.7"];
        let start = NOW - 5 * 1440 * MINUTE;
        let ids: HashSet<Uuid> =
            (0..=144).map(|step| correlator.place(&row(step, start + step * 15 * MINUTE, &ip)).0).collect();
        assert_eq!(ids.len(), 2, "a day and a half are two incidents");
        let (first, _) = correlator.place(&row(1000, NOW, &ip));
        correlator.close(first, NOW + MINUTE);
        assert_eq!(correlator.place(&row(1001, NOW + MINUTE, &ip)).0, first, "it occurred before");
        assert_ne!(correlator.place(&row(1002, NOW + MINUTE + 1, &ip)).0, first);
    }

    #[test]
    fn what_is_forgotten_takes_nothing_any_more() {
        let mut correlator = correlator();
        let (first, _) = correlator.place(&row(1, NOW, &["203.0.113.7"]));
        correlator.forget(first);
        assert!(correlator.by_token.is_empty());
        assert!(correlator.place(&row(2, NOW, &["203.0.113.7"])).1);
    }

    proptest! {
        /// However a burst is cut into looks, it is one incident.
        #[test]
        fn a_burst_is_one_incident(times in prop::collection::vec(0..15 * MINUTE, 1..60)) {
            let mut correlator = correlator();
            let ids: HashSet<Uuid> = times
                .iter()
                .enumerate()
                .map(|(offset, at)| correlator.place(&row(offset as i64, NOW + at, &["203.0.113.7"])).0)
                .collect();
            prop_assert_eq!(ids.len(), 1);
        }
    }
}
