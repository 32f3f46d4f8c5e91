//! The text form of tables: one line per rank, one word per op, in order. It is what `--table` writes, what golden
//! tests compare and what error messages name ops by.
//!
//! ```text
//! rank 0: E0F[0.0,0.1] L0F0 send:hidden(0,1)>1 recv:hidden_grad(0,0)<1 L0B0 E0B[0.0,0.1] step
//! rank 1: recv:hidden(0,1)<0 L1F0 G0F[0.0] G0B[0.0] L1B0 send:hidden_grad(0,0)>0 step
//! ```
//!
//! `L1F0` is chunk 1 of the LLM, forward, microbatch 0; `E0F[0.0,0.1]` the encoder's forward on items 0 and 1 of
//! microbatch 0. Modules are `E`, `L`, `G`; phases `F` forward, `B` backward, `I` input gradient, `W` weight gradient,
//! `R` recomputation (the letters of torch.distributed.pipelining). `(L0F7;L7B3)` runs a forward and a backward of the LLM
//! at once. `hidden(m,c)` names microbatch and consuming
//! chunk, `embeds(m.i)` an item. White space separates, `#` starts a comment.

use super::FileError;
use crate::step::{
    Chunk, Item, Microbatch, Module, ModuleKind, Op, Phase, Piece, Rank, Table, Unit, Value, Work,
};
use std::fmt;
use std::str::FromStr;

impl fmt::Display for Rank {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "rank {}", self.0)
    }
}

impl fmt::Display for Item {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.microbatch.0, self.index)
    }
}

impl fmt::Display for Module {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.kind().letter(), self.chunk().0)
    }
}

impl fmt::Display for Work {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Work::Microbatch(microbatch) => write!(f, "{}", microbatch.0),
            Work::Items(items) => {
                f.write_str("[")?;
                for (i, item) in items.iter().enumerate() {
                    write!(f, "{}{item}", if i == 0 { "" } else { "," })?;
                }
                f.write_str("]")
            }
        }
    }
}

impl fmt::Display for Unit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.piece {
            Piece::Microbatch(microbatch) => write!(f, "{} on microbatch {}", self.module, microbatch.0),
            Piece::Item(item) => write!(f, "{} on item {item}", self.module),
        }
    }
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Value::Hidden { microbatch, chunk } => write!(f, "hidden({},{})", microbatch.0, chunk.0),
            Value::HiddenGrad { microbatch, chunk } => write!(f, "hidden_grad({},{})", microbatch.0, chunk.0),
            Value::Embeds(item) => write!(f, "embeds({item})"),
            Value::EmbedGrad(item) => write!(f, "embed_grad({item})"),
            Value::Cond(item) => write!(f, "cond({item})"),
            Value::CondGrad(item) => write!(f, "cond_grad({item})"),
            Value::EncoderHidden { item, chunk } => write!(f, "encoder_hidden({item},{})", chunk.0),
            Value::EncoderHiddenGrad { item, chunk } => write!(f, "encoder_hidden_grad({item},{})", chunk.0),
            Value::GeneratorHidden { item, chunk } => write!(f, "generator_hidden({item},{})", chunk.0),
            Value::GeneratorHiddenGrad { item, chunk } => {
                write!(f, "generator_hidden_grad({item},{})", chunk.0)
            }
        }
    }
}

impl fmt::Display for Op {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Op::Compute { module, phase, work } => write!(f, "{module}{}{work}", phase.letter()),
            Op::Overlap { forward, backward, phase } => {
                write!(f, "({};{})", forward.op(Phase::Forward), backward.op(*phase))
            }
            Op::Send { value, to } => write!(f, "send:{value}>{}", to.0),
            Op::Recv { value, from } => write!(f, "recv:{value}<{}", from.0),
            Op::Step => f.write_str("step"),
        }
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (rank, ops) in self.ranks.iter().enumerate() {
            write!(f, "rank {rank}:")?;
            for op in ops {
                write!(f, " {op}")?;
            }
            writeln!(f)?;
        }
        Ok(())
    }
}

/// What is wrong with a word: a sentence that names it.
type WordError = String;

fn item(word: &str) -> Option<Item> {
    let (microbatch, index) = word.split_once('.')?;
    Some(Item { microbatch: Microbatch(number(microbatch)?), index: number(index)? })
}

fn value(word: &str) -> Result<Value, WordError> {
    let parse = || {
        let (name, inner) = word.strip_suffix(')')?.split_once('(')?;
        // What crosses between chunks names the chunk that reads it.
        let (of, chunk) = match inner.split_once(',') {
            Some((of, chunk)) => (of, Some(Chunk(number(chunk)?))),
            None => (inner, None),
        };
        Some(match (name, chunk) {
            ("hidden", Some(chunk)) => Value::Hidden { microbatch: Microbatch(number(of)?), chunk },
            ("hidden_grad", Some(chunk)) => Value::HiddenGrad { microbatch: Microbatch(number(of)?), chunk },
            ("embeds", None) => Value::Embeds(item(of)?),
            ("embed_grad", None) => Value::EmbedGrad(item(of)?),
            ("cond", None) => Value::Cond(item(of)?),
            ("cond_grad", None) => Value::CondGrad(item(of)?),
            ("encoder_hidden", Some(chunk)) => Value::EncoderHidden { item: item(of)?, chunk },
            ("encoder_hidden_grad", Some(chunk)) => Value::EncoderHiddenGrad { item: item(of)?, chunk },
            ("generator_hidden", Some(chunk)) => Value::GeneratorHidden { item: item(of)?, chunk },
            ("generator_hidden_grad", Some(chunk)) => Value::GeneratorHiddenGrad { item: item(of)?, chunk },
            _ => return None,
        })
    };
    parse().ok_or_else(|| {
        format!(
            "'{word}' is not a valid value: expected hidden(microbatch,chunk), hidden_grad(microbatch,chunk), \
             embeds(item), embed_grad(item), cond(item), cond_grad(item), or encoder_hidden(item,chunk), \
             encoder_hidden_grad(item,chunk), generator_hidden(item,chunk), generator_hidden_grad(item,chunk), where \
             an item is microbatch.index"
        )
    })
}

fn op(word: &str) -> Result<Op, WordError> {
    let wrong = || {
        format!(
            "'{word}' is not a valid op: expected a module (E, L, G), its chunk, a phase (F, B, I, W, R) and a \
             microbatch or [items], as in L0F3 or E0F[3.0,3.1]; or (FORWARD;BACKWARD) of the LLM, as in (L0F7;L7B3); or \
             send:VALUE>RANK, recv:VALUE<RANK, step"
        )
    };
    if word == "step" {
        return Ok(Op::Step);
    }
    let peer = |rest: &str, arrow: char| -> Result<(Value, Rank), WordError> {
        let (name, rank) = rest.split_once(arrow).ok_or_else(wrong)?;
        Ok((value(name)?, Rank(number(rank).ok_or_else(wrong)?)))
    };
    if let Some(rest) = word.strip_prefix("send:") {
        return peer(rest, '>').map(|(value, to)| Op::Send { value, to });
    }
    if let Some(rest) = word.strip_prefix("recv:") {
        return peer(rest, '<').map(|(value, from)| Op::Recv { value, from });
    }
    if let Some(pair) = word.strip_prefix('(').and_then(|rest| rest.strip_suffix(')')) {
        return overlap(pair).ok_or_else(wrong);
    }
    compute(word).ok_or_else(wrong)
}

fn overlap(pair: &str) -> Option<Op> {
    let (first, second) = pair.split_once(';')?;
    let (first, second) = (compute(first)?, compute(second)?);
    let single = |op: &Op| {
        let mut runs = op.runs();
        runs.next().filter(|_| runs.next().is_none())
    };
    match (single(&first)?, single(&second)?) {
        ((forward, Phase::Forward), (backward, phase @ (Phase::Backward | Phase::BackwardInput))) => {
            Some(Op::Overlap { forward, backward, phase })
        }
        _ => None,
    }
}

fn compute(word: &str) -> Option<Op> {
    let mut letters = word.chars();
    let letter = letters.next()?;
    let rest = letters.as_str();
    let phase_at = rest.find(|c: char| !c.is_ascii_digit())?;
    let chunk = Chunk(number(rest.get(..phase_at)?)?);
    let module = ModuleKind::ALL.into_iter().find(|kind| kind.letter() == letter)?.module(chunk);
    let mut tail = rest.get(phase_at..)?.chars();
    let phase = phase(tail.next()?)?;
    let work = match tail.as_str().strip_prefix('[') {
        None => Work::Microbatch(Microbatch(number(tail.as_str())?)),
        Some(list) => {
            let items = list.strip_suffix(']')?.split(',').map(item);
            Work::Items(items.collect::<Option<_>>()?)
        }
    };
    Some(Op::Compute { module, phase, work })
}

impl FromStr for Table {
    type Err = FileError;

    fn from_str(text: &str) -> Result<Table, FileError> {
        let mut table = Table::default();
        for (index, full) in text.lines().enumerate() {
            let at = |part: &str, what| FileError::at(index, full, part, what);
            let line = full.split('#').next().unwrap_or_default().trim();
            let head = line.strip_prefix("rank ").and_then(|rest| rest.split_once(':'));
            let words = match head.and_then(|(rank, words)| Some((number(rank)?, words))) {
                None => line,
                Some((found, words)) => {
                    let next = table.ranks.len();
                    if found != next {
                        let what = format!(
                            "'{line}' starts rank {found}, expected rank {next}: list every rank, from 0, once"
                        );
                        return Err(at(line, what));
                    }
                    table.ranks.push(Vec::new());
                    words
                }
            };
            for word in words.split_whitespace() {
                let no_rank =
                    || format!("'{word}' belongs to no rank: start each rank's ops with 'rank NUMBER:'");
                let ops = table.ranks.last_mut().ok_or_else(|| at(word, no_rank()))?;
                ops.push(op(word).map_err(|what| at(word, what))?);
            }
        }
        Ok(table)
    }
}

/// The phase that a letter stands for.
fn phase(letter: char) -> Option<Phase> {
    Phase::ALL.into_iter().find(|phase| phase.letter() == letter)
}

/// Decimal digits and nothing else: `parse` alone would take a leading `+`.
pub(super) fn number(text: &str) -> Option<usize> {
    if text.bytes().all(|byte| byte.is_ascii_digit()) { text.parse().ok() } else { None }
}
