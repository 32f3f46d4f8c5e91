//! What has to hold between the values of a configuration.

use super::{Config, ParameterGroup, memory};
use crate::value::{MOST, ValueError, all_counts, counts, divisor, require};
use bigmac_runtime::Device;
use bigmac_schedule::{PerModule, check_extent, module_budgets};
use std::path::{Component, Path};

impl Config {
    /// Checks what types alone do not: counts that must be at least one, widths that must agree.
    pub fn check(&self) -> Result<(), ValueError> {
        let (e, l, g, t, p) =
            (&self.model.encoder, &self.model.llm, &self.model.generator, &self.train, &self.pipeline);
        e.check().and_then(|()| l.check()).map_err(|error| error.within("model"))?;
        all_counts("model.generator", g)?;
        self.check_counts()?;
        // What plans alone have: a file cannot say it, but a checkpoint's state could.
        for (key, plans) in [
            ("model.encoder.merge", e.merge != 1),
            ("model.encoder.output_width", e.output_width.is_some()),
            ("model.llm.experts", l.experts.is_some()),
            ("model.llm.vocabulary", l.vocabulary != 0),
        ] {
            require(!plans, key, "a value", "none, since it is for 'bigmac plan' alone")?;
        }
        let name = Path::new(&self.run.name);
        let stays = name.components().all(|part| matches!(part, Component::Normal(_)))
            && name.components().next().is_some()
            && !self.run.name.contains('\0');
        let wanted = "a name of a directory below runs/, without '..' in it";
        require(stays, "run.name", format!("'{}'", self.run.name), wanted)?;
        let even = "an even number, since its channels rotate in pairs";
        require(l.head_dim % 2 == 0, "model.llm.head_dim", l.head_dim, even)?;
        divisor("model.generator.patch", g.patch, "model.generator.image_size", g.image_size)?;
        let sum = g.rope_axes.iter().fold(0, |sum: usize, axis| sum.saturating_add(*axis));
        let axes = sum == g.head_dim && g.rope_axes.iter().all(|a| a % 2 == 0);
        let given = format!("{:?}", g.rope_axes);
        require(axes, "model.generator.rope_axes", given, "three even numbers that add up to head_dim")?;
        let wanted = match p.dp {
            1 => "at most train.batch, so that each has a sample".to_owned(),
            dp => format!(
                "at most train.batch / pipeline.dp = {}, so that each of every replica has a sample",
                t.batch / dp
            ),
        };
        let least = t.microbatches.saturating_mul(p.dp);
        require(t.batch >= least, "train.microbatches", t.microbatches, wanted)?;
        self.check_learning()?;
        require(
            p.chunks == 1 || l.layers / p.chunks >= p.ranks,
            "pipeline.chunks",
            p.chunks,
            format!(
                "at most {}, since model.llm.layers = {} are cut into pipeline.ranks = {} times as many chunks of \
                 at least one layer each",
                (l.layers / p.ranks).max(1),
                l.layers,
                p.ranks
            ),
        )?;
        if let Err(error) = p.device.parse::<Device>() {
            require(false, "pipeline.device", format!("'{}'", p.device), error)?;
        }
        if let Err(error) = module_budgets(&p.budget) {
            require(
                false,
                "pipeline.budget",
                format!("'{}'", p.budget),
                format!("sizes of modules: {error}"),
            )?;
        }
        for (key, value, fits, wanted) in [
            ("train.lr", t.lr, t.lr > 0.0, "a positive number"),
            ("train.final_lr", t.final_lr, (0.0..=1.0).contains(&t.final_lr), "a share from 0 to 1"),
            ("train.beta1", t.beta1, (0.0..1.0).contains(&t.beta1), "a number from 0 to below 1"),
            ("train.beta2", t.beta2, (0.0..1.0).contains(&t.beta2), "a number from 0 to below 1"),
            ("train.epsilon", t.epsilon, t.epsilon as f32 > 0.0, "a positive number that fits 32-bit floats"),
            ("train.weight_decay", t.weight_decay, t.weight_decay >= 0.0, "a number from 0"),
            ("train.clip", t.clip, t.clip >= 0.0, "a number from 0"),
            ("train.drawing_weight", t.drawing_weight, t.drawing_weight >= 0.0, "a number from 0"),
            ("train.noise_mean", t.noise_mean, t.noise_mean.is_finite(), "a finite number"),
            ("model.llm.rope_theta", l.rope_theta, l.rope_theta > 0.0, "a positive number"),
            // Clocks cannot count much further than 1e9 seconds, which are 30 years.
            (
                "pipeline.timeout",
                p.timeout,
                p.timeout > 0.0 && p.timeout <= 1e9,
                "seconds, above 0 and at most 1e9",
            ),
        ] {
            require(fits && value.is_finite(), key, value, wanted)?;
        }
        memory::check_countable(self)
    }

    /// Checks that counts are at least 1, and none so far beyond use that it can only be a typing error, which would
    /// ask for all memory, or all time, at once.
    fn check_counts(&self) -> Result<(), ValueError> {
        let (model, t, p) = (&self.model, &self.train, &self.pipeline);
        counts(&[
            ("train.batch", t.batch),
            ("train.microbatches", t.microbatches),
            ("train.tokens_per_microbatch", t.tokens_per_microbatch),
            ("pipeline.ranks", p.ranks),
            ("pipeline.dp", p.dp),
            ("pipeline.threads", p.threads),
            ("pipeline.chunks", p.chunks),
            ("output.keep", self.output.keep),
            ("data.max_tiles", self.data.max_tiles),
        ])?;
        for (key, value, most, wanted) in [
            ("model.encoder.layers", model.encoder.layers, MOST_LAYERS, "at most 10000"),
            ("model.llm.layers", model.llm.layers, MOST_LAYERS, "at most 10000"),
            ("model.generator.layers", model.generator.layers, MOST_LAYERS, "at most 10000"),
            ("model.generator.sample_steps", model.generator.sample_steps, 10_000, "at most 10000"),
            ("train.batch", t.batch, 1_000_000, "at most 1000000"),
            ("pipeline.ranks", p.ranks, 1024, "at most 1024"),
            ("pipeline.dp", p.dp, 1024, "at most 1024"),
            ("pipeline.threads", p.threads, 1024, "at most 1024"),
            ("data.shapes", self.data.shapes, 1_000_000, "at most 1000000"),
            ("data.max_tiles", self.data.max_tiles, 1000, "at most 1000"),
            ("pipeline.group", p.group, MOST, "at most 10000000"),
            ("pipeline.llm_group", p.llm_group, MOST, "at most 10000000"),
            ("output.samples", self.output.samples, MOST, "at most 10000000"),
            ("output.final_samples", self.output.final_samples, MOST, "at most 10000000"),
        ] {
            require(value <= most, key, value, wanted)?;
        }
        let ranks = p.ranks.saturating_mul(p.dp);
        let wanted = format!("at most 4096 ranks together with pipeline.ranks = {}", p.ranks);
        require(ranks <= 4096, "pipeline.dp", p.dp, wanted)?;
        let together = ranks.saturating_mul(p.threads);
        let wanted = format!("at most 4096 threads together on the {ranks} ranks");
        require(together <= 4096, "pipeline.threads", p.threads, wanted)?;
        let units = p.ranks.saturating_mul(p.chunks).saturating_mul(t.microbatches);
        match check_extent(p.ranks, p.chunks, t.microbatches, units) {
            Ok(()) => Ok(()),
            Err(error) => {
                let wanted = format!("fewer, or fewer ranks or chunks: {error}");
                require(false, "train.microbatches", t.microbatches, wanted)
            }
        }
    }

    /// Checks that something may learn, and at what rates.
    fn check_learning(&self) -> Result<(), ValueError> {
        let frozen = self.model.frozen();
        require(
            frozen.learns() != PerModule::all(false),
            "model.generator.frozen",
            frozen.generator,
            "false where encoder, projector and LLM are frozen too, since something has to learn; \
             model.projector.frozen = false trains the projector alone",
        )?;
        ParameterGroup::ALL.into_iter().try_for_each(|group| {
            let (name, scale) = (group.name(), self.train.lr_scale[group]);
            let key = format!("train.lr_scale.{name}");
            let wanted =
                format!("a finite number above 0; to keep its weights set model.{name}.frozen = true");
            require(scale.is_finite() && scale > 0.0, &key, scale, wanted)
        })
    }
}

/// Layers of a module: each has a dozen parameters with their names and gradients.
const MOST_LAYERS: usize = 10_000;
