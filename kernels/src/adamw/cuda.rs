//! AdamW on a GPU: tables of chunks, and the launch over one.

use super::member::{Clip, Member, State};
use super::{AdamW, Coefficients, OP};
use bigmac_gpu::{Arg, Launch, Source, Variants};
use bigmac_runtime::memory::scopes;
use bigmac_runtime::{Context, DType, Error, Result, Spec, Tensor};

static SOURCE: Source = Source::new("adamw/kernel.cu", include_str!("kernel.cu"));

/// See [`programs`](crate::programs::programs).
pub(crate) fn programs() -> Vec<Variants> {
    vec![Variants::new(&SOURCE).with([("MASTER", false)]).with([("MASTER", true)])]
}

const THREADS: usize = 256;
/// Elements of a chunk: enough that a block's start costs little beside its work, few enough that all multiprocessors
/// are busy with a small module.
pub(super) const CHUNK: usize = 8192;

/// Where a parameter lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Span {
    weight: u64,
    dtype: DType,
    offset: usize,
    len: usize,
    decays: bool,
}

impl Span {
    pub(super) fn new(member: Member<'_>) -> Result<Self> {
        let Arg::Pointer(weight) = member.weight.arg_mut()? else {
            return Err(Error::argument(OP, "the weight has no address on the device"));
        };
        let dtype = member.weight.dtype();
        Ok(Span { weight, dtype, offset: member.range.start, len: member.range.len(), decays: member.decays })
    }

    /// Appends its chunks as the kernel reads them: address, offset, length, decays.
    fn chunks(&self, bytes: &mut Vec<u8>) {
        for start in (0..self.len).step_by(CHUNK) {
            let weight = self.weight + (start * self.dtype.size()) as u64;
            bytes.extend(weight.to_ne_bytes());
            bytes.extend(((self.offset + start) as i64).to_ne_bytes());
            bytes.extend((CHUNK.min(self.len - start) as i32).to_ne_bytes());
            bytes.extend(i32::from(self.decays).to_ne_bytes());
        }
    }
}

/// The chunks of all parameters of a dtype, on the device.
#[derive(Debug)]
struct Table {
    dtype: DType,
    chunks: Tensor,
    count: usize,
}

/// A table per dtype, and what they were made of.
#[derive(Debug, Default)]
pub(super) struct Tables {
    spans: Vec<Span>,
    list: Vec<Table>,
}

impl Tables {
    /// Bytes of a chunk.
    const ROW: usize = 24;

    /// Updates the parameters at `spans`.
    pub(super) fn step(
        &mut self,
        ctx: &Context,
        adamw: AdamW,
        clip: Option<Clip<'_>>,
        spans: &[Span],
        gradients: &Tensor,
        state: &mut State<'_>,
    ) -> Result<()> {
        if self.spans != spans {
            self.write(ctx, spans)?;
        }
        let c = Coefficients::of(adamw);
        let (squares, max_norm) = match clip {
            Some(clip) => (clip.squares.arg()?, clip.max_norm),
            None => (Arg::NULL, f64::INFINITY),
        };
        for table in &self.list {
            let launch = Launch::new(&SOURCE, "adamw_step")
                .element(table.dtype.in_kernels(OP)?)
                .knob("MASTER", state.master.is_some())
                .grid([table.count, 1, 1])
                .block(THREADS);
            let master = state.master.as_mut().map_or(Ok(Arg::NULL), |m| m.arg_mut())?;
            let buffers = [
                table.chunks.arg()?,
                gradients.arg()?,
                state.first.arg_mut()?,
                state.second.arg_mut()?,
                master,
            ];
            let numbers = [
                Arg::f32(max_norm),
                Arg::F32(c.grad_scale),
                Arg::F32(c.one_minus_beta[0]),
                Arg::F32(c.one_minus_beta[1]),
                Arg::F32(c.beta2),
                Arg::F32(c.inverse_root),
                Arg::F32(c.eps),
                Arg::F32(c.keep),
                Arg::F32(c.rate),
            ];
            let args: Vec<Arg> = buffers.into_iter().chain([squares]).chain(numbers).collect();
            ctx.launch(&launch, &args)?;
        }
        Ok(())
    }

    fn write(&mut self, ctx: &Context, spans: &[Span]) -> Result<()> {
        // What is there is good for nothing if writing the new one fails.
        *self = Tables::default();
        let mut dtypes: Vec<DType> = Vec::new();
        for span in spans.iter().filter(|s| s.len > 0) {
            if !dtypes.contains(&span.dtype) {
                dtypes.push(span.dtype);
            }
        }
        for dtype in dtypes {
            let mut bytes = Vec::new();
            spans.iter().filter(|s| s.dtype == dtype).for_each(|s| s.chunks(&mut bytes));
            let spec = Spec::new(&[bytes.len()], DType::U8);
            let chunks = Tensor::from_bytes(&ctx.in_scope(scopes::OPTIMIZER), &bytes, &spec)?;
            self.list.push(Table { dtype, chunks, count: bytes.len() / Self::ROW });
        }
        self.spans = spans.to_vec();
        Ok(())
    }
}
