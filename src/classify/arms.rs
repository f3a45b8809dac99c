//! A challenger beside the model that decides: which of them a record belongs to, and what each of them remembers.

use std::sync::Arc;

use xxhash_rust::xxh3::xxh3_64;

use crate::config::{ChallengerMode, ChallengerSettings};
use crate::model::FastModel;
use crate::record::Arm;

use super::cache::TemplateCache;

/// A model with the answers that it gave, by log template.
#[derive(Debug)]
pub(super) struct Tier {
    pub(super) model: Arc<FastModel>,
    pub(super) cache: Option<TemplateCache>,
}

/// The challenger of one kind of records.
#[derive(Debug)]
pub(super) struct Contest {
    pub(super) challenger: Tier,
    pub(super) mode: ChallengerMode,
    /// Hashes below it belong to the challenger.
    share: f64,
}

impl Contest {
    pub(super) fn new(challenger: Tier, settings: &ChallengerSettings) -> Self {
        let share = match settings.mode {
            ChallengerMode::Shadow => 0.0,
            ChallengerMode::Split => settings.share,
        };
        Contest { challenger, mode: settings.mode, share }
    }

    /// Whose record it is. It follows from the key alone, so it is the same on every instance and after every replay, and a
    /// larger share takes nobody away from the challenger.
    pub(super) fn arm_of(&self, key: &[u8]) -> Arm {
        // 53 bits are what a float holds exactly.
        let place = (xxh3_64(key) >> 11) as f64 / (1u64 << 53) as f64;
        if place < self.share { Arm::Challenger } else { Arm::Champion }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::DeviceKind;

    fn contest(mode: ChallengerMode, share: f64) -> Contest {
        let model = FastModel::load("builtin:logs", DeviceKind::Flex).expect("shipped").into();
        let settings = ChallengerSettings { ticket: None, log: None, mode, share };
        Contest::new(Tier { model, cache: None }, &settings)
    }

    #[test]
    fn the_share_is_kept_and_grows_without_moving_anybody_back() {
        let keys: Vec<String> = (0..20_000).map(|number| format!("TKT-{number}")).collect();
        let of = |share| {
            let contest = contest(ChallengerMode::Split, share);
            keys.iter().map(|key| contest.arm_of(key.as_bytes()) == Arm::Challenger).collect::<Vec<_>>()
        };
        let (tenth, half) = (of(0.1), of(0.5));
        let count = |arms: &[bool]| arms.iter().filter(|arm| **arm).count() as f64 / keys.len() as f64;
        // Five standard deviations of a binomial share.
        assert!((count(&tenth) - 0.1).abs() < 0.011, "{}", count(&tenth));
        assert!((count(&half) - 0.5).abs() < 0.018, "{}", count(&half));
        assert!(tenth.iter().zip(&half).all(|(tenth, half)| !tenth || *half));
        assert_eq!((count(&of(0.0)), count(&of(1.0))), (0.0, 1.0));
    }

    #[test]
    fn in_the_shadow_the_champion_decides_all() {
        let contest = contest(ChallengerMode::Shadow, 1.0);
        assert!((0..1_000u32).all(|key| contest.arm_of(&key.to_le_bytes()) == Arm::Champion));
    }
}
