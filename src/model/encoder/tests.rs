//! The encoder against a plain computation in f64, on small random models of every family, on every path.

mod module;
mod reference;
mod tune;

use std::path::PathBuf;

use rayon::ThreadPoolBuilder;

use super::small_model::{FAMILIES, SmallModel};
use super::*;
use crate::model::kernels::Cpu;
use reference::Reference;

const TEXTS: [&str; 7] = [
    "w1 w2 w3",
    "",
    "w4",
    "w5 unknown w6 w7 w8 w9 w10 w11 w12 w13 w14 w15 w16 w17 w18 w19 w20 w21 w22",
    "w23 w24 w25 w26 w27 w28 w29 w30 w31 w32 w33 w34 w35 w36 w37 w38 w39 w40 w41 w42 w43 w44 w45 w46 w47 w48 w49 w50 \
     w1 w2 w3 w4 w5 w6 w7 w8 w9 w10 w11 w12 w13 w14 w15 w16 w17 w18 w19 w20",
    "w9 w8 w7",
    "w1 w2 w3",
];

fn cpus() -> impl Iterator<Item = Cpu> {
    InstructionSet::ALL.into_iter().filter_map(Cpu::with)
}

fn with_threads<R: Send>(threads: usize, work: impl FnOnce() -> R + Send) -> R {
    ThreadPoolBuilder::new().num_threads(threads).build().expect("threads").install(work)
}

fn largest_difference(found: &[f32], exact: &[f64]) -> f64 {
    assert_eq!(found.len(), exact.len());
    found.iter().zip(exact).map(|(found, exact)| (f64::from(*found) - exact).abs()).fold(0.0, f64::max)
}

fn cosine(a: &[f32], b: &[f32]) -> f64 {
    let product = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum::<f64>();
    product(a, b) / (product(a, a) * product(b, b)).sqrt()
}

#[test]
fn every_family_gives_the_embeddings_of_the_reference_on_every_path() {
    for family in FAMILIES {
        let model = SmallModel::write(family);
        let reference = Reference::read(model.folder());
        for cpu in cpus() {
            for threads in [1, 2, 3] {
                let encoder = Encoder::load_on(model.folder(), Precision::F32, cpu).expect("a good folder");
                let found = with_threads(threads, || encoder.embed(&TEXTS)).expect("good texts");
                for (tokens, found) in
                    encoder.tokenise(&TEXTS).expect("good texts").iter().zip(found.chunks(encoder.dimension()))
                {
                    let exact = reference.embed(tokens, encoder.pooling(), encoder.settings.unit_length);
                    let difference = largest_difference(found, &exact);
                    assert!(difference < 2e-5, "{family:?} {cpu:?} {threads} threads: {difference}");
                }
            }
        }
    }
}

#[test]
fn eight_bits_point_in_nearly_the_same_direction_and_all_paths_agree() {
    for family in FAMILIES {
        let model = SmallModel::write(family);
        let exact =
            Encoder::load(model.folder(), Precision::F32).expect("a good folder").embed(&TEXTS).expect("good texts");
        let portable = Cpu::with(InstructionSet::Portable).expect("always there");
        let portable = Encoder::load_on(model.folder(), Precision::Int8, portable).expect("a good folder");
        let width = portable.dimension();
        let portable = portable.embed(&TEXTS).expect("good texts");
        for cpu in cpus() {
            let encoder = Encoder::load_on(model.folder(), Precision::Int8, cpu).expect("a good folder");
            let found = encoder.embed(&TEXTS).expect("good texts");
            for ((found, exact), portable) in found.chunks(width).zip(exact.chunks(width)).zip(portable.chunks(width)) {
                assert!(cosine(found, exact) > 0.99, "{family:?} {cpu:?}: {}", cosine(found, exact));
                // Equal but for bytes that rounding in f32 tips over.
                assert!(cosine(found, portable) > 0.9999, "{family:?} {cpu:?}: {}", cosine(found, portable));
            }
        }
    }
}

#[test]
fn a_text_has_the_same_embedding_alone_in_a_batch_and_in_any_order() {
    let model = SmallModel::write(Family::Bert);
    for precision in [Precision::F32, Precision::Int8] {
        let encoder = Encoder::load(model.folder(), precision).expect("a good folder");
        let width = encoder.dimension();
        let many: Vec<&str> = TEXTS.iter().copied().cycle().take(60).collect();
        let backwards: Vec<&str> = many.iter().rev().copied().collect();
        for threads in [1, 2] {
            let (batch, reversed) = with_threads(threads, || (encoder.embed(&many), encoder.embed(&backwards)));
            let (batch, reversed) = (batch.expect("good texts"), reversed.expect("good texts"));
            for (at, text) in many.iter().enumerate() {
                let single = encoder.embed(&[text]).expect("a good text");
                for found in [&batch[at * width..], &reversed[(many.len() - 1 - at) * width..]] {
                    let exact: Vec<f64> = single.iter().map(|value| f64::from(*value)).collect();
                    let difference = largest_difference(&found[..width], &exact);
                    assert!(difference < 1e-5, "{precision:?} {threads} threads, text {at}: {difference}");
                }
            }
        }
    }
}

#[test]
fn summaries_hold_mean_first_and_largest_values_of_the_last_layer() {
    let model = SmallModel::write(Family::Roberta);
    let reference = Reference::read(model.folder());
    let encoder = Encoder::load(model.folder(), Precision::F32).expect("a good folder");
    let found = encoder.summarise(&TEXTS).expect("good texts");
    for (tokens, found) in
        encoder.tokenise(&TEXTS).expect("good texts").iter().zip(found.chunks(3 * encoder.dimension()))
    {
        let poolings = [Pooling::Mean, Pooling::Cls, Pooling::Max];
        let exact: Vec<f64> = poolings.iter().flat_map(|pooling| reference.embed(tokens, *pooling, false)).collect();
        assert!(largest_difference(found, &exact) < 2e-5);
    }
}

#[test]
fn texts_of_any_length_are_read_up_to_the_limit() {
    let model = SmallModel::write(Family::Bert);
    let encoder = Encoder::load(model.folder(), Precision::F32).expect("a good folder");
    assert!(encoder.embed::<&str>(&[]).expect("nothing").is_empty());
    let long = "w1 w2 w3 w4 w5 ".repeat(200_000);
    let tokens = encoder.tokenise(&[&long, "", " \n\t"]).expect("good texts");
    assert_eq!(tokens.iter().map(Vec::len).collect::<Vec<_>>(), [encoder.max_tokens(), 2, 2]);
    assert!(encoder.embed(&[long.as_str(), ""]).expect("good texts").iter().all(|value| value.is_finite()));
    let cut = encoder.with_max_tokens(12).expect("a limit");
    assert_eq!(cut.tokenise(&[&long]).expect("a good text")[0].len(), 12);
}

#[test]
fn tokens_that_the_model_cannot_have_are_refused() {
    let model = SmallModel::write(Family::Bert);
    let encoder = Encoder::load(model.folder(), Precision::F32).expect("a good folder");
    assert_eq!(encoder.embed_tokens(&[vec![]]).expect("no tokens"), vec![0.0; encoder.dimension()]);
    let refused = encoder.embed_tokens(&[vec![2, 3], vec![2, 60_000, 3]]).expect_err("no such token");
    assert_eq!(refused.to_string(), "sequence 1: has token 60000; the model knows 60");
    let refused = encoder.embed_tokens(&[vec![2; encoder.max_tokens() + 1]]).expect_err("too long");
    assert!(matches!(refused, EncoderError::Sequence { sequence: 0, .. }));
}

#[test]
fn half_precision_weights_are_read() {
    for kind in [safetensors::Dtype::F16, safetensors::Dtype::BF16] {
        let model = SmallModel::write(Family::Bert);
        let expected =
            Encoder::load(model.folder(), Precision::F32).expect("a good folder").embed(&TEXTS).expect("texts");
        model.rewrite_as(kind);
        let encoder = Encoder::load(model.folder(), Precision::F32).expect("a good folder");
        let found = encoder.embed(&TEXTS).expect("texts");
        let width = encoder.dimension();
        assert!(
            found.chunks(width).zip(expected.chunks(width)).all(|(found, expected)| cosine(found, expected) > 0.999)
        );
    }
}

#[test]
fn folders_that_cannot_be_served_are_refused_with_the_reason() {
    let refusals = [
        (r#""hidden_act": "gelu""#, r#""hidden_act": "silu""#, "activation `silu`; there are gelu, gelu_new and relu"),
        (r#""model_type": "bert""#, r#""model_type": "t5""#, "model_type `t5`; there are bert, roberta and distilbert"),
        (r#""hidden_size": 48"#, r#""hidden_size": 49"#, "hidden_size 49 is no multiple of 3 heads"),
        (r#""hidden_size": 48"#, r#""hidden_size": 96"#, "has shape [60, 48] instead of [60, 96]"),
        (
            r#""num_hidden_layers": 2"#,
            r#""num_hidden_layers": 3"#,
            "`encoder.layer.2.attention.self.query.weight` is missing",
        ),
        (r#""num_hidden_layers": 2"#, r#""num_hidden_layers": 900"#, "num_hidden_layers is 900; at most 128 is served"),
        (r#""vocab_size": 60"#, r#""vocab_size": 50"#, "has token 59; the model knows 50 tokens"),
        (r#""max_position_embeddings": 80"#, r#""max_position_embeddings": 4"#, "max_position_embeddings 4 is too few"),
        (r#""hidden_size": 48"#, r#""hidden": 48"#, "is not the JSON expected there"),
        (
            r#""layer_norm_eps": 1e-12"#,
            r#""position_embedding_type": "relative_key""#,
            "position_embedding_type `relative_key`",
        ),
    ];
    for (from, to, expected) in refusals {
        let model = SmallModel::write(Family::Bert);
        model.edit("config.json", from, to);
        let error = Encoder::load(model.folder(), Precision::F32).expect_err(expected).to_string();
        assert!(error.contains(expected), "{error}");
    }
    let model = SmallModel::write(Family::Bert);
    model.edit("1_Pooling/config.json", "mean_tokens\": true", "lasttoken\": true");
    let error = Encoder::load(model.folder(), Precision::F32).expect_err("a pooling that is not served").to_string();
    assert!(error.contains("`pooling_mode_lasttoken`; there are cls, mean and max"), "{error}");
    for file in ["config.json", "model.safetensors", "tokenizer.json"] {
        let model = SmallModel::write(Family::Bert);
        std::fs::write(model.folder().join(file), b"{\"a\": ").expect("a file");
        assert!(Encoder::load(model.folder(), Precision::F32).expect_err("a broken file").to_string().contains(file));
        std::fs::remove_file(model.folder().join(file)).expect("a file");
        let error = Encoder::load(model.folder(), Precision::F32).expect_err("a missing file");
        assert!(matches!(error, EncoderError::Read { .. }), "{error}");
    }
}

#[test]
fn pooling_is_what_the_folder_says() {
    let model = SmallModel::write(Family::Bert);
    let load = || Encoder::load(model.folder(), Precision::F32).expect("a good folder");
    assert_eq!((load().pooling(), load().settings.unit_length), (Pooling::Mean, true));
    model.edit("1_Pooling/config.json", "mean_tokens", "max_tokens");
    assert_eq!(load().pooling(), Pooling::Max);
    std::fs::remove_dir_all(model.folder().join("1_Pooling")).expect("a folder");
    assert_eq!(load().pooling(), Pooling::Mean);
    std::fs::remove_file(model.folder().join("modules.json")).expect("a file");
    assert_eq!((load().pooling(), load().settings.unit_length), (Pooling::Cls, false));
    std::fs::write(model.folder().join("sentence_bert_config.json"), r#"{"max_seq_length": 33}"#).expect("a file");
    assert_eq!((load().pooling(), load().max_tokens()), (Pooling::Mean, 33));
}

#[test]
fn several_callers_at_once_get_their_own_results() {
    let model = SmallModel::write(Family::DistilBert);
    let encoder = Encoder::load(model.folder(), Precision::Int8).expect("a good folder");
    let expected: Vec<Vec<f32>> = TEXTS.iter().map(|text| encoder.embed(&[text]).expect("a good text")).collect();
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..20 {
                    for (text, expected) in TEXTS.iter().zip(&expected) {
                        assert_eq!(encoder.embed(&[text]).expect("a good text"), *expected);
                    }
                }
            });
        }
    });
}

/// Set `ENCODER_FOLDER` to a model's folder to hold it against the reference; slow.
#[test]
fn a_real_model_gives_the_embeddings_of_the_reference() {
    let Some(folder) = std::env::var_os("ENCODER_FOLDER").map(PathBuf::from) else { return };
    let texts =
        ["Multiple failed logins for admin from 10.1.2.3", "Please reset my password; my account is locked.", ""];
    let reference = Reference::read(&folder);
    let encoder = Encoder::load(&folder, Precision::F32).expect("a good folder");
    let rounded = Encoder::load(&folder, Precision::Int8).expect("a good folder");
    for text in texts {
        let tokens = encoder.tokenise(&[text]).expect("a good text").remove(0);
        let exact = reference.embed(&tokens, encoder.pooling(), encoder.settings.unit_length);
        let found = encoder.embed(&[text]).expect("a good text");
        assert!(largest_difference(&found, &exact) < 1e-5);
        let rounded = rounded.embed(&[text]).expect("a good text");
        assert!(cosine(&rounded, &found) > 0.99, "{}", cosine(&rounded, &found));
    }
}
