//! The packed forward against the Burn module, which is the reference for it.

use crate::config::DeviceKind;

use super::super::small_model::{FAMILIES, SmallModel};
use super::super::{Encoder, EncoderModule, Precision};
use super::{TEXTS, cpus};

/// What the two may differ by in f32.
const TOLERANCE: f32 = 1e-4;

fn module(model: &SmallModel, device: DeviceKind) -> EncoderModule {
    EncoderModule::load(model.folder(), device).expect("a good folder")
}

fn tokens(model: &SmallModel) -> Vec<Vec<u32>> {
    Encoder::load(model.folder(), Precision::F32).expect("a good folder").tokenise(&TEXTS).expect("good texts")
}

#[track_caller]
fn assert_close(found: &[f32], expected: &[f32], tolerance: f32, what: &str) {
    assert_eq!(found.len(), expected.len(), "{what}");
    assert!(found.iter().any(|value| *value != 0.0), "{what}: nothing but zeros");
    let difference = found.iter().zip(expected).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    assert!(difference < tolerance, "{what}: {difference}");
}

#[test]
fn the_packed_forward_equals_the_burn_module() {
    for family in FAMILIES {
        let model = SmallModel::write(family);
        let tokens = tokens(&model);
        let expected = module(&model, DeviceKind::Flex).embed_tokens(&tokens);
        for cpu in cpus() {
            let packed = Encoder::load_on(model.folder(), Precision::F32, cpu).expect("a good folder");
            let found = packed.embed_tokens(&tokens).expect("good tokens");
            assert_close(&found, &expected, TOLERANCE, &format!("{family:?} on {cpu:?}"));
        }
    }
}

#[test]
fn all_ways_of_pooling_equal_those_of_the_burn_module() {
    for way in ["cls_token", "mean_tokens", "max_tokens"] {
        for family in FAMILIES {
            let model = SmallModel::write(family);
            model.edit("1_Pooling/config.json", "mean_tokens", way);
            model.edit("modules.json", "Normalize", "Pooling");
            model.edit("modules.json", "2_Pooling", "1_Pooling");
            let tokens = tokens(&model);
            let expected = module(&model, DeviceKind::Flex).embed_tokens(&tokens);
            let packed = Encoder::load(model.folder(), Precision::F32).expect("a good folder");
            let found = packed.embed_tokens(&tokens).expect("good tokens");
            assert_close(&found, &expected, TOLERANCE, &format!("{way} of {family:?}"));
        }
    }
}

#[test]
fn flex_equals_ndarray() {
    for family in FAMILIES {
        let model = SmallModel::write(family);
        let tokens = tokens(&model);
        let flex = module(&model, DeviceKind::Flex).embed_tokens(&tokens);
        let ndarray = module(&model, DeviceKind::NdArray).embed_tokens(&tokens);
        assert_close(&flex, &ndarray, TOLERANCE, &format!("{family:?}"));
    }
}

#[test]
fn a_batch_gives_what_its_texts_give_alone_and_padding_changes_nothing() {
    for family in FAMILIES {
        let model = SmallModel::write(family);
        let module = module(&model, DeviceKind::Flex);
        let mut tokens = tokens(&model);
        tokens.push(Vec::new());
        let batch = module.embed_tokens(&tokens);
        let width = batch.len() / tokens.len();
        assert_eq!(batch[batch.len() - width..], vec![0.0; width], "no tokens");
        for (at, (tokens, found)) in tokens.iter().zip(batch.chunks(width)).enumerate().rev().skip(1) {
            let alone = module.embed_tokens(&[tokens]);
            assert_close(found, &alone, 1e-5, &format!("text {at} of {family:?}"));
            let padded = module.embed_padded(&[tokens], tokens.len() + 9);
            assert_close(&padded, &alone, 1e-5, &format!("text {at} of {family:?}, padded"));
        }
    }
}

#[test]
fn names_of_old_files_and_half_precision_fill_the_module() {
    let model = SmallModel::write(FAMILIES[0]);
    let tokens = tokens(&model);
    let expected = module(&model, DeviceKind::Flex).embed_tokens(&tokens);
    model.rename_tensors(|name| {
        let old = name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta");
        format!("bert.{old}")
    });
    let found = module(&model, DeviceKind::Flex).embed_tokens(&tokens);
    assert_close(&found, &expected, 1e-6, "old names");
    model.rewrite_as(safetensors::Dtype::BF16);
    let found = module(&model, DeviceKind::Flex).embed_tokens(&tokens);
    assert_close(&found, &expected, 0.05, "half precision");
}

#[test]
fn a_file_that_does_not_fill_the_module_is_refused() {
    let model = SmallModel::write(FAMILIES[0]);
    model.edit("config.json", r#""num_hidden_layers": 2"#, r#""num_hidden_layers": 3"#);
    let error = EncoderModule::load(model.folder(), DeviceKind::Flex).expect_err("a layer is missing").to_string();
    assert!(error.contains("`layers.2."), "{error}");
    let model = SmallModel::write(FAMILIES[0]);
    model.edit("config.json", r#""hidden_size": 48"#, r#""hidden_size": 96"#);
    let error = EncoderModule::load(model.folder(), DeviceKind::Flex).expect_err("other sizes").to_string();
    assert!(error.contains("expected"), "{error}");
}
