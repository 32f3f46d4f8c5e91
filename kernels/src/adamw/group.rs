//! AdamW over all parameters of a module.

use super::cuda::{Span, Tables};
use super::member::{Clip, Member, State};
use super::{AdamW, OP};
use bigmac_runtime::{Context, DType, Error, Result, Tensor};

/// The parameters that are updated together: one launch for all of a dtype.
///
/// It keeps where the parameters lie in a table on the device, which is written again only when they have moved.
#[derive(Debug, Default)]
pub struct Group {
    tables: Tables,
}

impl Group {
    /// One step of every member; see [`AdamW`].
    ///
    /// Each element's result is what [`step`](super::step) gives for its parameter alone, to the bit, on CPU and GPU
    /// (clipping on the device rounds its factor to f32). [`AdamW::grad_scale`] applies beside `clip`. Elements move
    /// once through memory: 16 bytes in and 12 out for an F32 weight, 16 in and 14 out for a BF16 one with a master.
    /// Nothing waits for the device.
    ///
    /// # Errors
    /// [`Error::Argument`] for step 0 and for ranges that do not fit the weights or the buffers or are not in ascending
    /// order; [`Error::Shape`], [`Error::DType`], [`Error::NotContiguous`], [`Error::Shared`]. An error may come when
    /// some members are updated already.
    pub fn step<'a>(
        &mut self,
        ctx: &Context,
        adamw: AdamW,
        clip: Option<Clip<'_>>,
        members: impl IntoIterator<Item = Member<'a>>,
        gradients: &Tensor,
        mut state: State<'_>,
    ) -> Result<()> {
        adamw.check()?;
        check_buffers(gradients, &state, clip)?;
        let len = gradients.len();
        let mut end = 0;
        let members = members.into_iter().map(|member| {
            member.check(end, len)?;
            end = member.range.end;
            Ok(member)
        });
        if ctx.is_gpu() {
            let spans = members.map(|m| m.and_then(Span::new)).collect::<Result<Vec<Span>>>()?;
            return self.tables.step(ctx, adamw, clip, &spans, gradients, &mut state);
        }
        let Some(adamw) = clipped(adamw, clip)? else { return Ok(()) };
        let gradients = gradients.as_slice::<f32>()?;
        let (first, second) = (state.first.as_mut_slice::<f32>()?, state.second.as_mut_slice::<f32>()?);
        let mut master = state.master.as_mut().map(|m| m.as_mut_slice::<f32>()).transpose()?;
        for member in members {
            let Member { weight, range, decays } = member?;
            let adamw = AdamW { weight_decay: if decays { adamw.weight_decay } else { 0.0 }, ..adamw };
            let (m, v) = (&mut first[range.clone()], &mut second[range.clone()]);
            let master = master.as_mut().map(|m| &mut m[range.clone()]);
            super::step(ctx, adamw, weight, master, &gradients[range], m, v)?;
        }
        Ok(())
    }
}

/// The step with its gradients scaled down; `None` when the norm is not finite.
fn clipped(adamw: AdamW, clip: Option<Clip<'_>>) -> Result<Option<AdamW>> {
    let Some(Clip { squares, max_norm }) = clip else { return Ok(Some(adamw)) };
    let norm = squares.as_slice::<f32>()?.iter().map(|&s| f64::from(s)).sum::<f64>().sqrt();
    let factor = if norm > max_norm { max_norm / norm } else { 1.0 };
    Ok(norm.is_finite().then_some(AdamW { grad_scale: adamw.grad_scale * factor, ..adamw }))
}

fn check_buffers(gradients: &Tensor, state: &State<'_>, clip: Option<Clip<'_>>) -> Result<()> {
    let buffers = [gradients, &*state.first, &*state.second].into_iter().chain(state.master.as_deref());
    for (buffer, len) in buffers.map(|b| (b, gradients.len())).chain(clip.map(|c| (c.squares, 1))) {
        if buffer.shape() != [len] {
            return Err(Error::shape(OP, buffer.shape(), format!("a flat buffer [{len}]")));
        }
        if buffer.dtype() != DType::F32 {
            return Err(Error::DType {
                op: OP,
                given: buffer.dtype(),
                wanted: "f32 for flat buffers and norms".into(),
            });
        }
    }
    match clip {
        Some(clip) if clip.max_norm.is_nan() || clip.max_norm <= 0.0 => {
            Err(Error::argument(OP, format!("expected a largest norm above 0, got {}", clip.max_norm)))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests;
