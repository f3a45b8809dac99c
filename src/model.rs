//! Placeholder until the fast model lands.
use crate::config::DeviceKind;
use crate::record::Record;
use std::sync::Arc;
#[derive(Debug, thiserror::Error)]
#[error("no models yet")]
pub struct PackageError;
#[derive(Debug)]
pub struct FastModel {
    labels: Vec<Arc<str>>,
}
#[derive(Debug, Default)]
pub struct Scratch;
#[derive(Debug)]
pub struct Prediction<'a> {
    pub probabilities: &'a [f32],
}
impl FastModel {
    pub fn load(_: &str, _: DeviceKind) -> Result<Self, PackageError> {
        Err(PackageError)
    }
    pub fn labels(&self) -> &[Arc<str>] {
        &self.labels
    }
    pub fn id(&self) -> &str {
        ""
    }
    pub fn classify<'a>(&self, _: &Record<'_>, _: &'a mut Scratch) -> Prediction<'a> {
        Prediction { probabilities: &[] }
    }
}
