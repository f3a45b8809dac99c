//! What the API decides with and shows, as one value: a request takes it once, so that its answer is that of one
//! configuration.

use std::path::PathBuf;

use crate::arms::ArmPair;
use crate::classify::Desk;
use crate::config::Config;
use crate::model::promoted_name;
use crate::record::{Arm, Kind};

/// One configuration of the API.
#[derive(Debug)]
pub struct Serving {
    desk: Desk,
    /// Models that are compared.
    pairs: Vec<ArmPair>,
    /// The folder of trained versions.
    registry: Option<PathBuf>,
    /// Names in the registry whose promoted version is in use, and for what.
    followed: Vec<(String, Kind, Arm)>,
}

impl Serving {
    pub fn new(config: &Config, desk: Desk) -> Self {
        let (settings, challenger) = (&config.model, &config.model.challenger);
        let models = desk.classifier().models();
        let pair = |kind| {
            let (champion, other) = (models.of(kind)?.id().to_owned(), models.challenger_of(kind)?.id().to_owned());
            Some(ArmPair { kind, mode: challenger.mode, champion, challenger: other })
        };
        let specs = [
            (Kind::Ticket, Arm::Champion, &settings.ticket),
            (Kind::Log, Arm::Champion, &settings.log),
            (Kind::Ticket, Arm::Challenger, &challenger.ticket),
            (Kind::Log, Arm::Challenger, &challenger.log),
        ];
        let follows = |(kind, arm, spec): (Kind, Arm, &Option<String>)| {
            Some((promoted_name(spec.as_deref()?)?.to_owned(), kind, arm))
        };
        Serving {
            pairs: Kind::ALL.into_iter().filter_map(pair).collect(),
            registry: settings.registry.clone(),
            followed: specs.into_iter().filter_map(follows).collect(),
            desk,
        }
    }

    pub fn desk(&self) -> &Desk {
        &self.desk
    }

    pub(super) fn pairs(&self) -> &[ArmPair] {
        &self.pairs
    }

    pub(super) fn registry(&self) -> Option<&PathBuf> {
        self.registry.as_ref()
    }

    /// For what the promoted version of a name is in use.
    pub(super) fn uses_of<'n>(&'n self, name: &'n str) -> impl Iterator<Item = (Kind, Arm)> + 'n {
        self.followed.iter().filter(move |(known, ..)| known == name).map(|(_, kind, arm)| (*kind, *arm))
    }
}
