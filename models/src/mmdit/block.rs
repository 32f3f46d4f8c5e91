//! One block: two streams with weights of their own, image and text, that attend to both together.

use super::modulation::{BlockModulation, zero_dense};
use super::rope::Rotations;
use super::{MmditConfig, Streams};
use crate::init::{ParameterSpec, find};
use crate::layers::Dense;
use bigmac_autograd::{Graph, ParamId, Parameters, Var};
use bigmac_kernels::attention::Attention;
use bigmac_kernels::concat::Concat;
use bigmac_kernels::gelu::Gelu;
use bigmac_kernels::rms_norm::RmsNorm;
use bigmac_kernels::view::{Narrow, Reshape};
use bigmac_runtime::{Error, Result};

/// What the two streams' parameters are called in one block.
struct Names {
    modulation: &'static str,
    query: &'static str,
    key: &'static str,
    value: &'static str,
    query_norm: &'static str,
    key_norm: &'static str,
    output: &'static str,
    mlp_in: &'static str,
    mlp_out: &'static str,
}

const IMAGE: Names = Names {
    modulation: "img_mod.1",
    query: "attn.to_q",
    key: "attn.to_k",
    value: "attn.to_v",
    query_norm: "attn.norm_q.weight",
    key_norm: "attn.norm_k.weight",
    output: "attn.to_out.0",
    mlp_in: "img_mlp.net.0.proj",
    mlp_out: "img_mlp.net.2",
};

const TEXT: Names = Names {
    modulation: "txt_mod.1",
    query: "attn.add_q_proj",
    key: "attn.add_k_proj",
    value: "attn.add_v_proj",
    query_norm: "attn.norm_added_q.weight",
    key_norm: "attn.norm_added_k.weight",
    output: "attn.to_add_out",
    mlp_in: "txt_mlp.net.0.proj",
    mlp_out: "txt_mlp.net.2",
};

/// One stream's parameters.
#[derive(Clone, Copy, Debug)]
struct Stream {
    modulation: Dense,
    query: Dense,
    key: Dense,
    value: Dense,
    query_norm: ParamId,
    key_norm: ParamId,
    output: Dense,
    mlp_in: Dense,
    mlp_out: Dense,
    heads: [usize; 2],
}

impl Stream {
    fn parameters(config: &MmditConfig, block: &str, names: &Names) -> Vec<ParameterSpec> {
        let (dim, hidden, head) = (config.inner_dim(), config.mlp_dim(), config.attention_head_dim);
        let name = |part: &str| format!("{block}.{part}");
        let dense = |part: &str, outputs, inputs| Dense::parameters(&name(part), outputs, inputs, true);
        let mut specs = zero_dense(&name(names.modulation), 6 * dim, dim);
        for projection in [names.query, names.key, names.value] {
            specs.extend(dense(projection, dim, dim));
        }
        for norm in [names.query_norm, names.key_norm] {
            specs.push(ParameterSpec::ones(name(norm), &[head]));
        }
        specs.extend(dense(names.output, dim, dim));
        specs.extend(dense(names.mlp_in, hidden, dim));
        specs.extend(dense(names.mlp_out, dim, hidden));
        specs
    }

    fn new(config: &MmditConfig, block: &str, names: &Names, parameters: &Parameters) -> Result<Self> {
        let dense = |part: &str| Dense::find(parameters, &format!("{block}.{part}"), true);
        let norm = |part: &str| find(parameters, &format!("{block}.{part}"));
        Ok(Stream {
            modulation: dense(names.modulation)?,
            query: dense(names.query)?,
            key: dense(names.key)?,
            value: dense(names.value)?,
            query_norm: norm(names.query_norm)?,
            key_norm: norm(names.key_norm)?,
            output: dense(names.output)?,
            mlp_in: dense(names.mlp_in)?,
            mlp_out: dense(names.mlp_out)?,
            heads: [config.num_attention_heads, config.attention_head_dim],
        })
    }

    /// A projection of `x` [T, D], as heads [T, H, d].
    fn project(&self, g: &mut Graph<'_>, dense: &Dense, x: &Var) -> Result<Var> {
        let y = dense.forward(g, x)?;
        let shape = [y.shape()[0], self.heads[0], self.heads[1]];
        g.apply(Reshape::new(&shape), &[&y], &[])
    }

    /// The same, each head normalised.
    fn project_normed(&self, g: &mut Graph<'_>, dense: &Dense, norm: ParamId, x: &Var) -> Result<Var> {
        let y = self.project(g, dense, x)?;
        g.apply(RmsNorm { eps: MmditConfig::EPS }, &[&y], &[norm])
    }

    /// What follows attention: output projection and hidden layer, each added through its gate.
    fn finish(
        &self,
        g: &mut Graph<'_>,
        x: &Var,
        attended: &Var,
        modulation: &BlockModulation<'_>,
    ) -> Result<Var> {
        let mut y = self.output.forward(g, attended)?;
        let x = modulation.add(g, x, &y, 0)?;
        // Assigned, not shadowed: what only the tape may need is freed at once when there is none.
        y = modulation.norm(g, &x, 1)?;
        y = self.mlp_in.forward(g, &y)?;
        y = g.apply(Gelu { tanh: true }, &[&y], &[])?;
        y = self.mlp_out.forward(g, &y)?;
        modulation.add(g, &x, &y, 1)
    }
}

/// A block of the MMDiT (Esser et al., *Scaling Rectified Flow Transformers*, arXiv 2403.03206, figure 2b) as
/// Qwen-Image has it: RMS-normed queries and keys, rotary positions, joint attention over [text, image].
#[derive(Clone, Copy, Debug)]
pub(super) struct Block {
    image: Stream,
    text: Stream,
    /// The last block: nothing reads the text stream after it, so its part of the output is not computed.
    last: bool,
}

impl Block {
    /// The parameters of block `index`. Those that would make the text stream after the last block, which nothing reads,
    /// are frozen.
    pub fn parameters(config: &MmditConfig, index: usize) -> Vec<ParameterSpec> {
        let name = name(index);
        let mut specs = Stream::parameters(config, &name, &IMAGE);
        let text = Stream::parameters(config, &name, &TEXT).into_iter();
        if index + 1 < config.num_layers {
            specs.extend(text);
            return specs;
        }
        let unread = [TEXT.query, TEXT.query_norm, TEXT.output, TEXT.mlp_in, TEXT.mlp_out];
        let unread = unread.map(|part| format!("{name}.{part}"));
        let is_unread = |spec: &ParameterSpec| {
            let after = |part: &String| spec.name.strip_prefix(part.as_str());
            unread.iter().filter_map(after).any(|rest| rest.is_empty() || rest.starts_with('.'))
        };
        specs.extend(text.map(|spec| if is_unread(&spec) { spec.frozen() } else { spec }));
        specs
    }

    /// Block `index` over parameters that hold its own.
    pub fn new(config: &MmditConfig, index: usize, parameters: &Parameters) -> Result<Self> {
        let name = name(index);
        Ok(Block {
            image: Stream::new(config, &name, &IMAGE, parameters)?,
            text: Stream::new(config, &name, &TEXT, parameters)?,
            last: index + 1 == config.num_layers,
        })
    }

    /// Both streams after the block; after the last one the text stream is the one that went in.
    ///
    /// Modulations are not of the layer that may be computed again: each block adds to the gradient of the time, and
    /// the sum is to have the same order either way.
    pub fn forward(&self, g: &mut Graph<'_>, streams: &Streams, rotations: &Rotations) -> Result<Streams> {
        let of_image = self.image.modulation.forward(g, &streams.time)?;
        let of_text = self.text.modulation.forward(g, &streams.time)?;
        let block = *self;
        let inputs = [&streams.image, &streams.text, &of_image, &of_text, &rotations.cos, &rotations.sin];
        let mut outputs = g.layer(&inputs, move |g, inputs| block.modulated(g, inputs))?.into_iter();
        let image = outputs.next().ok_or_else(|| Error::argument("block", "no image came out of it"))?;
        Ok(Streams {
            image,
            text: outputs.next().unwrap_or_else(|| streams.text.clone()),
            time: streams.time.clone(),
        })
    }

    /// The streams, of the last block the image's alone, from those before, their modulations and the rotations.
    fn modulated(&self, g: &mut Graph<'_>, inputs: &[Var]) -> Result<Vec<Var>> {
        let [image_in, text_in, of_image, of_text, cos, sin] = inputs else {
            return Err(Error::argument("block", format!("expected 6 inputs, got {}", inputs.len())));
        };
        let (image, text) = (&self.image, &self.text);
        let rotations = Rotations { cos: cos.clone(), sin: sin.clone() };
        let (image_modulation, text_modulation) = (BlockModulation(of_image), BlockModulation(of_text));
        let x = image_modulation.norm(g, image_in, 0)?;
        let c = text_modulation.norm(g, text_in, 0)?;

        let q = image.project_normed(g, &image.query, image.query_norm, &x)?;
        let k = [
            text.project_normed(g, &text.key, text.key_norm, &c)?,
            image.project_normed(g, &image.key, image.key_norm, &x)?,
        ];
        let mut k = joint(g, k)?;
        k = rotations.apply(g, &k)?;
        let v = [text.project(g, &text.value, &c)?, image.project(g, &image.value, &x)?];
        let v = joint(g, v)?;
        let (patches, tokens) = (image_in.shape()[0], text_in.shape()[0]);

        if self.last {
            let q = rotations.of_image(g, tokens)?.apply(g, &q)?;
            let attended = self.attend(g, &q, &k, &v)?;
            return Ok(vec![image.finish(g, image_in, &attended, &image_modulation)?]);
        }
        let text_q = text.project_normed(g, &text.query, text.query_norm, &c)?;
        let mut q = joint(g, [text_q, q])?;
        q = rotations.apply(g, &q)?;
        let attended = self.attend(g, &q, &k, &v)?;
        let of_text = g.apply(Narrow { dim: 0, start: 0, len: tokens }, &[&attended], &[])?;
        let of_image = g.apply(Narrow { dim: 0, start: tokens, len: patches }, &[&attended], &[])?;
        let image = image.finish(g, image_in, &of_image, &image_modulation)?;
        Ok(vec![image, text.finish(g, text_in, &of_text, &text_modulation)?])
    }

    /// Attention of all queries to all keys, its heads side by side: [T, H d].
    fn attend(&self, g: &mut Graph<'_>, q: &Var, k: &Var, v: &Var) -> Result<Var> {
        let [heads, head] = self.image.heads;
        let attention = Attention {
            bounds_q: [0, q.shape()[0]].into(),
            bounds_k: [0, k.shape()[0]].into(),
            causal: false,
            scale: (head as f64).powf(-0.5),
            variant: None,
        };
        let y = g.apply(attention, &[q, k, v], &[])?;
        g.apply(Reshape::new(&[q.shape()[0], heads * head]), &[&y], &[])
    }
}

/// The rows of the text, then those of the image.
fn joint(g: &mut Graph<'_>, [text, image]: [Var; 2]) -> Result<Var> {
    g.apply(Concat { dim: 0 }, &[&text, &image], &[])
}

fn name(index: usize) -> String {
    format!("transformer_blocks.{index}")
}
