//! Keys and values of tokens already read, for generation.

use bigmac_autograd::{Graph, Var};
use bigmac_kernels::concat::Concat;
use bigmac_runtime::{Error, Result, Tensor};
use std::sync::Arc;

/// Keys and values `[S, Hkv, D]` per layer of one or more sequences, packed one after the other.
///
/// New tokens are put after their own sequence's, which copies what was there: as many bytes as the attention that
/// follows reads.
#[derive(Clone, Debug)]
pub struct KvCache {
    layers: Vec<Option<(Tensor, Tensor)>>,
    /// Starts of the sequences, and the number of tokens.
    bounds: Arc<[usize]>,
}

impl KvCache {
    /// An empty cache for that many layers and sequences.
    pub fn new(layers: usize, sequences: usize) -> Self {
        KvCache { layers: vec![None; layers], bounds: vec![0; sequences + 1].into() }
    }

    /// Number of sequences.
    pub fn sequences(&self) -> usize {
        self.bounds.len() - 1
    }

    /// Tokens of sequence `i` so far.
    pub fn len(&self, i: usize) -> usize {
        match self.bounds.get(i..i + 2) {
            Some(bounds) => bounds[1] - bounds[0],
            None => 0,
        }
    }

    /// True when no sequence has a token.
    pub fn is_empty(&self) -> bool {
        self.bounds.last() == Some(&0)
    }

    /// Where the sequences will lie once the new tokens at `bounds` have been added.
    pub(super) fn extend_bounds(&self, bounds: &[usize], layers: usize) -> Result<Arc<[usize]>> {
        if bounds.len() != self.bounds.len() || layers != self.layers.len() {
            let message = format!(
                "got {} sequences and {layers} layers, expected those of the cache: {} and {}",
                bounds.len().saturating_sub(1),
                self.sequences(),
                self.layers.len()
            );
            return Err(Error::argument("key-value cache", message));
        }
        Ok(self.bounds.iter().zip(bounds).map(|(old, new)| old + new).collect())
    }

    /// Called once all layers have taken the new tokens.
    pub(super) fn set_bounds(&mut self, bounds: Arc<[usize]>) {
        self.bounds = bounds;
    }

    /// Puts the keys and values of new tokens after those of layer `index`, and returns all of them.
    pub(super) fn append(
        &mut self,
        g: &mut Graph<'_>,
        index: usize,
        k: &Var,
        v: &Var,
        bounds: &[usize],
    ) -> Result<(Var, Var)> {
        let (k, v) = match &self.layers[index] {
            Some((old_k, old_v)) => (self.join(g, old_k, k, bounds)?, self.join(g, old_v, v, bounds)?),
            None => (k.clone(), v.clone()),
        };
        self.layers[index] = Some((k.tensor().clone(), v.tensor().clone()));
        Ok((k, v))
    }

    /// For each sequence its old rows and then its new ones.
    fn join(&self, g: &mut Graph<'_>, old: &Tensor, new: &Var, bounds: &[usize]) -> Result<Var> {
        let mut parts = Vec::new();
        for (was, now) in self.bounds.windows(2).zip(bounds.windows(2)) {
            for (tensor, range) in [(old, was), (new.tensor(), now)] {
                if range[1] > range[0] {
                    parts.push(g.constant(tensor.narrow(0, range[0], range[1] - range[0])?));
                }
            }
        }
        g.apply(Concat { dim: 0 }, &parts.iter().collect::<Vec<_>>(), &[])
    }

    /// Forgets the sequences for which `keep` is false; the others move up.
    ///
    /// # Errors
    /// The operators'; [`Error::Argument`] when `keep` is of another length.
    pub fn retain(&mut self, g: &mut Graph<'_>, keep: &[bool]) -> Result<()> {
        if keep.len() != self.sequences() {
            let message = format!("got {} flags for {} sequences", keep.len(), self.sequences());
            return Err(Error::argument("key-value cache", message));
        }
        if keep.iter().all(|&k| k) {
            return Ok(());
        }
        let ranges: Vec<(usize, usize)> = self
            .bounds
            .windows(2)
            .zip(keep)
            .filter(|(_, keep)| **keep)
            .map(|(w, _)| (w[0], w[1] - w[0]))
            .collect();
        for layer in &mut self.layers {
            *layer = match layer.take() {
                Some((k, v)) if !ranges.is_empty() => Some((pick(g, &k, &ranges)?, pick(g, &v, &ranges)?)),
                _ => None,
            };
        }
        let mut end = 0;
        let ends = ranges.iter().map(|(_, len)| {
            end += len;
            end
        });
        self.bounds = [0].into_iter().chain(ends).collect();
        Ok(())
    }
}

/// Those ranges of rows, each a start and a length, one after the other.
fn pick(g: &mut Graph<'_>, tensor: &Tensor, ranges: &[(usize, usize)]) -> Result<Tensor> {
    let parts = ranges
        .iter()
        .map(|&(start, len)| Ok(g.constant(tensor.narrow(0, start, len)?)))
        .collect::<Result<Vec<_>>>()?;
    Ok(g.apply(Concat { dim: 0 }, &parts.iter().collect::<Vec<_>>(), &[])?.into_tensor())
}
