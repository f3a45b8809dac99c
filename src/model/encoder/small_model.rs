//! Small random models in a temporary folder, with everything that real folders have.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use safetensors::Dtype;
use safetensors::tensor::{SafeTensors, TensorView};
use tempfile::TempDir;

use super::Family;

const LAYERS: usize = 2;
const HIDDEN: usize = 48;
const INNER: usize = 112;
const WORDS: usize = 60;
const POSITIONS: usize = 80;

pub(crate) const FAMILIES: [Family; 3] = [Family::Bert, Family::Roberta, Family::DistilBert];

pub(crate) struct SmallModel {
    folder: TempDir,
}

/// Numbers between -1 and 1 that look random and are the same every time.
struct Numbers(u64);

impl Numbers {
    fn next(&mut self) -> f32 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 40) as f32 / (1 << 23) as f32 - 1.0
    }
}

impl SmallModel {
    pub(crate) fn write(family: Family) -> SmallModel {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let at = |name: &str| folder.path().join(name);
        let model_type = format!("{family:?}").to_lowercase();
        let config = match family {
            Family::DistilBert => format!(
                r#"{{"model_type": "{model_type}", "dim": {HIDDEN}, "n_layers": {LAYERS}, "n_heads": 3, "hidden_dim": {INNER},
                "vocab_size": {WORDS}, "max_position_embeddings": {POSITIONS}, "activation": "gelu", "pad_token_id": 0}}"#
            ),
            _ => format!(
                r#"{{"model_type": "{model_type}", "hidden_size": {HIDDEN}, "num_hidden_layers": {LAYERS},
                "num_attention_heads": 3, "intermediate_size": {INNER}, "vocab_size": {WORDS},
                "max_position_embeddings": {POSITIONS}, "hidden_act": "gelu", "layer_norm_eps": 1e-12, "pad_token_id": 1}}"#
            ),
        };
        fs::write(at("config.json"), config).expect("a file");
        fs::write(at("tokenizer.json"), tokenizer()).expect("a file");
        fs::create_dir(at("1_Pooling")).expect("a folder");
        fs::write(at("1_Pooling/config.json"), r#"{"pooling_mode_mean_tokens": true, "word_embedding_dimension": 48}"#)
            .expect("a file");
        let modules = r#"[{"type": "sentence_transformers.models.Transformer", "path": ""},
            {"type": "sentence_transformers.models.Pooling", "path": "1_Pooling"},
            {"type": "sentence_transformers.models.Normalize", "path": "2_Normalize"}]"#;
        fs::write(at("modules.json"), modules).expect("a file");
        write_tensors(&at("model.safetensors"), Dtype::F32, &tensors(family));
        SmallModel { folder }
    }

    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Replaces `from` in a file by `to`.
    pub(crate) fn edit(&self, file: &str, from: &str, to: &str) {
        let path = self.folder().join(file);
        let content = fs::read_to_string(&path).expect("a file");
        assert!(content.contains(from), "{from} in {content}");
        fs::write(path, content.replace(from, to)).expect("a file");
    }

    /// Stores the weights under other names.
    pub(crate) fn rename_tensors(&self, rename: impl Fn(&str) -> String) {
        let path = self.folder().join("model.safetensors");
        let tensors = read_tensors(&path).into_iter().map(|(name, tensor)| (rename(&name), tensor)).collect();
        write_tensors(&path, Dtype::F32, &tensors);
    }

    /// Stores the weights as another type, cut off after the bits that it has.
    pub(crate) fn rewrite_as(&self, kind: Dtype) {
        let path = self.folder().join("model.safetensors");
        write_tensors(&path, kind, &read_tensors(&path));
    }
}

type Tensor = (Vec<usize>, Vec<f32>);

pub(crate) fn read_tensors(path: &Path) -> BTreeMap<String, Tensor> {
    let content = fs::read(path).expect("a file");
    let tensors = SafeTensors::deserialize(&content).expect("safetensors");
    let values =
        |view: &TensorView<'_>| view.data().as_chunks::<4>().0.iter().map(|x| f32::from_le_bytes(*x)).collect();
    let floats = tensors.iter().filter(|(_, view)| view.dtype() == Dtype::F32);
    floats.map(|(name, view)| (name.to_owned(), (view.shape().to_vec(), values(&view)))).collect()
}

fn write_tensors(path: &Path, kind: Dtype, tensors: &BTreeMap<String, Tensor>) {
    let encode = |value: &f32| match kind {
        Dtype::F32 => value.to_le_bytes().to_vec(),
        Dtype::BF16 => value.to_le_bytes()[2..].to_vec(),
        // Exponents of these weights fit; those that are too small become zero.
        Dtype::F16 => {
            let (bits, exponent) = (value.to_bits(), value.to_bits() >> 23 & 0xff);
            let half = if exponent < 113 { 0 } else { (exponent - 112) << 10 | bits >> 13 & 0x3ff };
            ((bits >> 16 & 0x8000 | half) as u16).to_le_bytes().to_vec()
        }
        other => unreachable!("{other:?}"),
    };
    let bytes: Vec<(&String, &Vec<usize>, Vec<u8>)> =
        tensors.iter().map(|(name, (shape, values))| (name, shape, values.iter().flat_map(encode).collect())).collect();
    let views = bytes.iter().map(|(name, shape, bytes)| {
        (name.as_str(), TensorView::new(kind, shape.to_vec(), bytes).expect("the shape of the values"))
    });
    safetensors::serialize_to_file(views, None, path).expect("a file");
}

fn tensors(family: Family) -> BTreeMap<String, Tensor> {
    let mut numbers = Numbers(family as u64 + 1);
    let mut tensors = BTreeMap::new();
    let prefix = match family {
        Family::Bert => "",
        Family::Roberta => "roberta.",
        Family::DistilBert => "distilbert.",
    };
    let mut add = |name: String, shape: &[usize], scale: f32, centre: f32| {
        let values = (0..shape.iter().product()).map(|_| centre + scale * numbers.next()).collect();
        tensors.insert(format!("{prefix}{name}"), (shape.to_vec(), values));
    };
    add("embeddings.word_embeddings.weight".into(), &[WORDS, HIDDEN], 1.0, 0.0);
    add("embeddings.position_embeddings.weight".into(), &[POSITIONS, HIDDEN], 0.5, 0.0);
    match family {
        Family::Bert => add("embeddings.token_type_embeddings.weight".into(), &[2, HIDDEN], 0.5, 0.0),
        Family::Roberta => add("embeddings.token_type_embeddings.weight".into(), &[1, HIDDEN], 0.5, 0.0),
        Family::DistilBert => {}
    }
    add("embeddings.LayerNorm.weight".into(), &[HIDDEN], 0.3, 1.0);
    add("embeddings.LayerNorm.bias".into(), &[HIDDEN], 0.3, 0.0);
    let (layer, linears, norms) = names(family);
    for number in 0..LAYERS {
        for (name, outputs, inputs) in linears {
            let name = format!("{layer}.{number}.{name}");
            add(format!("{name}.weight"), &[outputs, inputs], 2.5 / (inputs as f32).sqrt(), 0.0);
            add(format!("{name}.bias"), &[outputs], 0.2, 0.0);
        }
        for name in norms {
            add(format!("{layer}.{number}.{name}.weight"), &[HIDDEN], 0.3, 1.0);
            add(format!("{layer}.{number}.{name}.bias"), &[HIDDEN], 0.3, 0.0);
        }
    }
    tensors
}

/// Name, outputs and inputs of a layer's six linear parts in the order query, key, value, mixing, widening, narrowing;
/// and of its two norms.
pub(crate) type Names = (&'static str, [(&'static str, usize, usize); 6], [&'static str; 2]);

pub(crate) fn names(family: Family) -> Names {
    let sizes =
        [(HIDDEN, HIDDEN), (HIDDEN, HIDDEN), (HIDDEN, HIDDEN), (HIDDEN, HIDDEN), (INNER, HIDDEN), (HIDDEN, INNER)];
    let named = |names: [&'static str; 6]| std::array::from_fn(|at| (names[at], sizes[at].0, sizes[at].1));
    match family {
        Family::DistilBert => (
            "transformer.layer",
            named([
                "attention.q_lin",
                "attention.k_lin",
                "attention.v_lin",
                "attention.out_lin",
                "ffn.lin1",
                "ffn.lin2",
            ]),
            ["sa_layer_norm", "output_layer_norm"],
        ),
        _ => (
            "encoder.layer",
            named([
                "attention.self.query",
                "attention.self.key",
                "attention.self.value",
                "attention.output.dense",
                "intermediate.dense",
                "output.dense",
            ]),
            ["attention.output.LayerNorm", "output.LayerNorm"],
        ),
    }
}

/// Words split at white space, with marks around them.
fn tokenizer() -> String {
    let mut vocabulary: BTreeMap<String, usize> = ["[PAD]", "<pad>", "[CLS]", "[SEP]", "[UNK]"]
        .into_iter()
        .enumerate()
        .map(|(at, mark)| (mark.to_owned(), at))
        .collect();
    vocabulary.extend((1..WORDS - 4).map(|word| (format!("w{word}"), word + 4)));
    let mark = |mark: &str, at: usize| serde_json::json!({"id": mark, "ids": [at], "tokens": [mark]});
    let special = |mark: &str| serde_json::json!({"SpecialToken": {"id": mark, "type_id": 0}});
    let text = serde_json::json!({"Sequence": {"id": "A", "type_id": 0}});
    serde_json::json!({
        "version": "1.0",
        "truncation": null,
        "padding": {
            "strategy": {"Fixed": 32}, "direction": "Right", "pad_to_multiple_of": null, "pad_id": 0, "pad_type_id": 0,
            "pad_token": "[PAD]"
        },
        "added_tokens": [],
        "normalizer": null,
        "pre_tokenizer": {"type": "WhitespaceSplit"},
        "post_processor": {
            "type": "TemplateProcessing",
            "single": [special("[CLS]"), text, special("[SEP]")],
            "pair": [special("[CLS]"), text, special("[SEP]"), {"Sequence": {"id": "B", "type_id": 1}}],
            "special_tokens": {"[CLS]": mark("[CLS]", 2), "[SEP]": mark("[SEP]", 3)}
        },
        "decoder": null,
        "model": {"type": "WordLevel", "vocab": vocabulary, "unk_token": "[UNK]"}
    })
    .to_string()
}
