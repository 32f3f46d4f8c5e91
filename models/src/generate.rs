//! Text generation with a key-value cache, and the log-probability of given text.

use crate::qwen3::{KvCache, Qwen3, positions};
use bigmac_autograd::{Graph, Parameters, Var};
use bigmac_kernels::{Float, Real, for_float, gather_rows::GatherRows, view::Narrow};
use bigmac_runtime::rng::{Philox, Purpose};
use bigmac_runtime::{Context, Error, Result, Tensor};
use std::ops::Range;
use std::sync::Arc;

/// Rows of logits that [`score`] holds at a time.
const SCORED_ROWS: usize = 256;

/// What is read before generation: tokens, and embeddings of images in place of some of them.
#[derive(Clone, Debug, Default)]
pub struct Prompt {
    /// The tokens; where an image goes any token of the vocabulary stands.
    pub tokens: Vec<i32>,
    /// Ranges of tokens and the embeddings `[tokens of the range, width]` that take their place.
    pub images: Vec<(Range<usize>, Tensor)>,
}

/// How the next token is chosen.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Sampling {
    /// The most probable one; the first of several.
    Greedy,
    /// At random, with probabilities of the logits divided by a temperature.
    Random {
        /// Above 0; 1 leaves the model's probabilities.
        temperature: f64,
        /// Among that many of the most probable ones only; 0: among all.
        top_k: usize,
        /// Seed. What prompt number `i` is continued by depends on (seed, `i`) alone.
        seed: u64,
    },
}

/// When to stop, and how to choose.
#[derive(Clone, Debug, PartialEq)]
pub struct Options {
    /// At most that many new tokens for each prompt.
    pub max_tokens: usize,
    /// Tokens that end a text; they are not part of the answer.
    pub stop: Vec<i32>,
    /// How the next token is chosen.
    pub sampling: Sampling,
}

/// Continues each prompt, all of them side by side, and returns the new tokens of each.
///
/// `model` is the uncut LLM.
///
/// # Errors
/// [`Error::Argument`] for an empty prompt or a temperature that is not positive; those of the model.
pub fn generate(
    ctx: &Context,
    model: &Qwen3,
    parameters: &Parameters,
    prompts: &[Prompt],
    options: &Options,
) -> Result<Vec<Vec<i32>>> {
    if let Sampling::Random { temperature, .. } = options.sampling
        && (temperature.is_nan() || temperature <= 0.0)
    {
        let message =
            format!("got temperature {temperature}, expected a positive number, or greedy sampling");
        return Err(Error::argument("generate", message));
    }
    let mut answers = vec![Vec::new(); prompts.len()];
    let mut running: Vec<usize> = (0..prompts.len()).collect();
    let mut cache = KvCache::new(model.config().num_hidden_layers, prompts.len());
    let mut input: Vec<Prompt> = prompts.to_vec();
    for step in 0..options.max_tokens {
        if running.is_empty() {
            break;
        }
        let mut g = Graph::inference(ctx, parameters);
        let logits = next_logits(&mut g, model, &input, &mut cache)?;
        let mut keep = Vec::new();
        input.clear();
        for (row, &prompt) in running.iter().enumerate() {
            let token = choose(&row_f64(ctx, &logits, row)?, options.sampling, step, prompt);
            let goes_on = !options.stop.contains(&token);
            keep.push(goes_on);
            if goes_on {
                answers[prompt].push(token);
                input.push(Prompt { tokens: vec![token], images: Vec::new() });
            }
        }
        cache.retain(&mut g, &keep)?;
        let mut flags = keep.into_iter();
        running.retain(|_| flags.next().unwrap_or(false));
    }
    Ok(answers)
}

/// The log-probability of each token of `prompt` from number `from` (at least 1) on, given those before it.
///
/// # Errors
/// [`Error::Argument`] when there is no such token; those of the model.
pub fn score(
    ctx: &Context,
    model: &Qwen3,
    parameters: &Parameters,
    prompt: &Prompt,
    from: usize,
) -> Result<Vec<f64>> {
    let count = prompt.tokens.len();
    if from == 0 || from >= count {
        let message =
            format!("got {count} tokens to score from number {from}, expected a number in 1..{count}");
        return Err(Error::argument("score", message));
    }
    let mut g = Graph::inference(ctx, parameters);
    let (hidden, bounds) = embed(&mut g, model, std::slice::from_ref(prompt))?;
    let (cos, sin) = rope(&g, model, &hidden, &positions(&bounds))?;
    let hidden = model.layers(&mut g, &hidden, (&cos, &sin), &bounds)?;
    let mut scores = Vec::with_capacity(count - from);
    for start in (from - 1..count - 1).step_by(SCORED_ROWS) {
        let rows = SCORED_ROWS.min(count - 1 - start);
        let block = g.apply(Narrow { dim: 0, start, len: rows }, &[&hidden], &[])?;
        let normed = model.final_norm(&mut g, &block)?;
        let logits = model.logits(&mut g, &normed)?;
        for row in 0..rows {
            let logits = row_f64(ctx, logits.tensor(), row)?;
            // Embedding the prompt has shown that its tokens are in the vocabulary.
            let token = prompt.tokens[start + row + 1] as usize;
            scores.push(logits[token] - log_sum_exp(&logits));
        }
    }
    Ok(scores)
}

/// Packed hidden states of the prompts' tokens, and where each prompt starts.
fn embed(g: &mut Graph<'_>, model: &Qwen3, prompts: &[Prompt]) -> Result<(Var, Arc<[usize]>)> {
    let mut tokens = Vec::new();
    let mut bounds = vec![0];
    let mut images = Vec::new();
    for prompt in prompts {
        if prompt.tokens.is_empty() {
            return Err(Error::argument("generate", "got an empty prompt, expected at least one token"));
        }
        let shift = tokens.len();
        let moved = |range: &Range<usize>| range.start + shift..range.end + shift;
        images.extend(prompt.images.iter().map(|(range, image)| (moved(range), g.constant(image.clone()))));
        tokens.extend_from_slice(&prompt.tokens);
        bounds.push(tokens.len());
    }
    let tokens = g.constant(Tensor::from_slice(g.ctx(), &tokens, &[tokens.len()])?);
    Ok((model.embed(g, &tokens, &images)?, bounds.into()))
}

/// The rotary tables of tokens at these positions.
fn rope(g: &Graph<'_>, model: &Qwen3, hidden: &Var, positions: &[f64]) -> Result<(Var, Var)> {
    let (cos, sin) = model.rope(g.ctx(), positions, hidden.tensor().dtype())?;
    Ok((g.constant(cos), g.constant(sin)))
}

/// Reads tokens that come after the cache's, and returns the logits `[sequences, vocabulary]` of what follows.
fn next_logits(g: &mut Graph<'_>, model: &Qwen3, input: &[Prompt], cache: &mut KvCache) -> Result<Tensor> {
    let (hidden, bounds) = embed(g, model, input)?;
    let counts = bounds.windows(2).map(|w| w[1] - w[0]).enumerate();
    let positions: Vec<f64> = counts
        .flat_map(|(sequence, count)| (cache.len(sequence)..cache.len(sequence) + count).map(|p| p as f64))
        .collect();
    let (cos, sin) = rope(g, model, &hidden, &positions)?;
    let hidden = model.layers_cached(g, &hidden, (&cos, &sin), &bounds, cache)?;
    let last: Arc<[usize]> = bounds[1..].iter().map(|end| end - 1).collect();
    let last = g.apply(GatherRows { rows: last }, &[&hidden], &[])?;
    let normed = model.final_norm(g, &last)?;
    Ok(model.logits(g, &normed)?.into_tensor())
}

/// One row of a matrix.
fn row_f64(ctx: &Context, matrix: &Tensor, row: usize) -> Result<Vec<f64>> {
    let row = matrix.narrow(0, row, 1)?.to_cpu(ctx)?;
    for_float!("logits", row.dtype(), T => Ok(row.as_slice::<T>()?.iter().map(|x| x.acc().f64()).collect()))
}

/// The largest value; minus infinity of none.
fn largest(values: impl IntoIterator<Item = f64>) -> f64 {
    values.into_iter().fold(f64::NEG_INFINITY, f64::max)
}

fn log_sum_exp(logits: &[f64]) -> f64 {
    let top = largest(logits.iter().copied());
    top + logits.iter().map(|x| (x - top).exp()).sum::<f64>().ln()
}

/// The next token of prompt number `prompt` after `step` new ones.
fn choose(logits: &[f64], sampling: Sampling, step: usize, prompt: usize) -> i32 {
    let Sampling::Random { temperature, top_k, seed } = sampling else {
        let top = largest(logits.iter().copied());
        return logits.iter().position(|&x| x == top).unwrap_or(0) as i32;
    };
    let mut candidates: Vec<usize> = (0..logits.len()).collect();
    if top_k > 0 && top_k < candidates.len() {
        // The most probable first, and of equals the first, so that the choice is the same on every machine.
        candidates.sort_by(|&a, &b| logits[b].total_cmp(&logits[a]).then(a.cmp(&b)));
        candidates.truncate(top_k);
    }
    let top = largest(candidates.iter().map(|&i| logits[i]));
    let weights: Vec<f64> = candidates.iter().map(|&i| ((logits[i] - top) / temperature).exp()).collect();
    let mut rng = Philox::new(seed, Purpose::new("generate"), step as u32, prompt as u32);
    let mut left = f64::from(rng.uniform()) * weights.iter().sum::<f64>();
    let chosen = weights.iter().position(|w| {
        left -= w;
        left < 0.0
    });
    // Rounding may leave nothing: then it is the last one that has any probability.
    let chosen = chosen.or_else(|| weights.iter().rposition(|&w| w > 0.0)).unwrap_or(0);
    candidates.get(chosen).map_or(0, |&token| token as i32)
}

#[cfg(test)]
mod tests {
    use super::*;
    use bigmac_close::{absolute, assert_close};

    #[test]
    fn greedy_takes_the_first_of_the_most_probable() {
        assert_eq!(choose(&[0.0, 3.0, -1.0, 3.0], Sampling::Greedy, 0, 0), 1);
    }

    #[test]
    fn random_choices_have_the_probabilities_of_the_softmax() {
        let logits = [1.0, 2.0, -40.0, 0.5];
        for (temperature, top_k, kept) in [(1.0, 0, vec![0, 1, 2, 3]), (0.7, 2, vec![0, 1])] {
            let sampling = Sampling::Random { temperature, top_k, seed: 5 };
            let draws = 20_000;
            let mut counts = [0.0; 4];
            for step in 0..draws {
                counts[choose(&logits, sampling, step, 3) as usize] += 1.0 / draws as f64;
            }
            let weight = |i: usize| (logits[i] / temperature).exp();
            let sum: f64 = kept.iter().map(|&i| weight(i)).sum();
            for (i, &count) in counts.iter().enumerate() {
                let wanted = if kept.contains(&i) { weight(i) / sum } else { 0.0 };
                assert_close(count, wanted, absolute(0.01));
            }
        }
    }

    #[test]
    fn choices_depend_on_seed_step_and_prompt() {
        let logits = vec![0.0; 1000];
        let draw = |seed, step, prompt| {
            choose(&logits, Sampling::Random { temperature: 1.0, top_k: 0, seed }, step, prompt)
        };
        assert_eq!(draw(1, 0, 0), draw(1, 0, 0));
        assert!(
            draw(1, 0, 0) != draw(2, 0, 0)
                && draw(1, 0, 0) != draw(1, 1, 0)
                && draw(1, 0, 0) != draw(1, 0, 1)
        );
    }
}
