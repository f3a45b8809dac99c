//! One forward pass over some sequences, laid end to end: no row is padding.

use std::ops::Range;

use super::layers::{Embeddings, Layers};
use super::settings::Settings;
use crate::model::kernels::{Activation, Attention, Engine, Matrix, QuantisedRows, add_normalise, attend, normalise};

/// Memory of a forward pass. After some passes it has grown to what they need and allocates no more.
#[derive(Debug, Default)]
pub(super) struct Workspace {
    /// One row for each token, and after `run` what the model says about it.
    pub(super) states: Matrix,
    /// The rows of each sequence in `states`.
    pub(super) sequences: Vec<Range<usize>>,
    projected: Matrix,
    mixed: Matrix,
    added: Matrix,
    wide: Matrix,
    rounded: QuantisedRows,
}

impl Workspace {
    /// Fills `states` with the rows of all tokens after the first `count` layers. The sequences were checked: no token
    /// beyond the vocabulary, no position beyond the last.
    pub(super) fn run(
        &mut self,
        engine: Engine<'_>,
        layers: &Layers,
        count: usize,
        settings: &Settings,
        sequences: &[&[u32]],
    ) {
        self.embed(engine, &layers.embeddings, settings, sequences);
        let Workspace { states, sequences, projected, mixed, added, wide, rounded } = self;
        let attention = Attention { heads: settings.heads, head_size: settings.head_size() };
        for layer in layers.layers.iter().take(count) {
            layer.projection.apply(engine, states, rounded, Activation::None, projected);
            attend(engine, attention, projected, sequences, mixed);
            layer.mixing.apply(engine, mixed, rounded, Activation::None, added);
            add_normalise(engine, states, added, &layer.mixing_norm);
            layer.widening.apply(engine, states, rounded, settings.activation, wide);
            layer.narrowing.apply(engine, wide, rounded, Activation::None, added);
            add_normalise(engine, states, added, &layer.narrowing_norm);
        }
    }

    fn embed(&mut self, engine: Engine<'_>, embeddings: &Embeddings, settings: &Settings, sequences: &[&[u32]]) {
        let hidden = settings.hidden;
        let total = sequences.iter().map(|tokens| tokens.len()).sum();
        self.states.reshape(total, hidden);
        self.sequences.clear();
        let mut row = 0;
        for tokens in sequences {
            self.sequences.push(row..row + tokens.len());
            for (token, position) in tokens.iter().zip(positions(tokens, settings.padding)) {
                let word = &embeddings.words[*token as usize * hidden..][..hidden];
                let position = &embeddings.positions[position * hidden..][..hidden];
                let sums = word.iter().zip(position).map(|(word, position)| word + position);
                self.states.row_mut(row).iter_mut().zip(sums).for_each(|(state, sum)| *state = sum);
                row += 1;
            }
        }
        normalise(engine, &mut self.states, &embeddings.norm);
    }
}

/// The row of the position table for each token. RoBERTa does not count padding tokens, wherever they stand.
pub(super) fn positions(tokens: &[u32], padding: Option<u32>) -> impl Iterator<Item = usize> + '_ {
    let mut next = padding.map_or(0, |padding| padding as usize + 1);
    tokens.iter().map(move |token| match padding {
        Some(padding) if *token == padding => padding as usize,
        _ => {
            next += 1;
            next - 1
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_count_from_zero_or_after_the_padding_token() {
        assert!(positions(&[5, 1, 6], None).eq([0, 1, 2]));
        assert!(positions(&[5, 1, 6], Some(1)).eq([2, 1, 3]));
    }
}
