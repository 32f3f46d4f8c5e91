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
//! `R` recomputation (the letters of torch.distributed.pipelining). `hidden(m,c)` names microbatch and consuming
//! chunk, `embeds(m.i)` an item. White space separates, `#` starts a comment.

use std::fmt;
use std::str::FromStr;

use thiserror::Error;

use crate::step::table::{Chunk, Item, Microbatch, Module, Op, Phase, Piece, Rank, Table, Unit, Value, Work};

/// Text that is no table, and where.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("line {line}, column {column}: {source}")]
pub struct TextError {
    /// From 1.
    pub line: usize,
    /// The character at which the word starts, from 1.
    pub column: usize,
    /// What is wrong there.
    pub source: ParseError,
}

/// What is wrong with a word of a table's text.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ParseError {
    /// A word that is no op.
    #[error(
        "`{word}` is no op: wanted a module (E, L, G), its chunk, a phase (F, B, I, W, R) and a microbatch or [items], \
         as in L0F3 or E0F[3.0,3.1]; or send:VALUE>RANK, recv:VALUE<RANK, step"
    )]
    Op {
        /// The word.
        word: String,
    },
    /// A word that is no value.
    #[error(
        "`{word}` is no value: wanted hidden(microbatch,chunk), hidden_grad(microbatch,chunk), embeds(item), \
         embed_grad(item), cond(item), cond_grad(item), or encoder_hidden(item,chunk), encoder_hidden_grad(item,chunk), \
         generator_hidden(item,chunk), generator_hidden_grad(item,chunk), an item being microbatch.index"
    )]
    Value {
        /// The word.
        word: String,
    },
    /// A rank out of turn.
    #[error("`{line}` starts rank {found} where rank {wanted} comes next: list every rank, from 0, once")]
    Rank {
        /// The line.
        line: String,
        /// The rank it names.
        found: usize,
        /// The rank whose turn it is.
        wanted: usize,
    },
    /// An op before any `rank 0:`.
    #[error("`{word}` belongs to no rank: start each rank's ops with `rank NUMBER:`")]
    NoRank {
        /// The word.
        word: String,
    },
}

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
        let letter = match self {
            Module::Encoder(_) => 'E',
            Module::Llm(_) => 'L',
            Module::Generator(_) => 'G',
        };
        write!(f, "{letter}{}", self.chunk().0)
    }
}

impl Phase {
    /// What it is called in messages and pictures.
    pub fn words(self) -> &'static str {
        match self {
            Phase::Forward => "forward",
            Phase::Backward => "backward",
            Phase::BackwardInput => "input gradient",
            Phase::BackwardWeight => "weight gradient",
            Phase::Recompute => "recomputation",
        }
    }

    /// The letter that stands for the phase in the text form.
    pub fn letter(self) -> char {
        match self {
            Phase::Forward => 'F',
            Phase::Backward => 'B',
            Phase::BackwardInput => 'I',
            Phase::BackwardWeight => 'W',
            Phase::Recompute => 'R',
        }
    }

    /// The phase that a letter of the text form stands for.
    pub fn from_letter(letter: char) -> Option<Phase> {
        Phase::ALL.into_iter().find(|phase| phase.letter() == letter)
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

impl FromStr for Item {
    type Err = ParseError;

    fn from_str(word: &str) -> Result<Item, ParseError> {
        let parse = || {
            let (microbatch, index) = word.split_once('.')?;
            Some(Item { microbatch: Microbatch(number(microbatch)?), index: number(index)? })
        };
        parse().ok_or_else(|| ParseError::Value { word: word.to_owned() })
    }
}

impl FromStr for Value {
    type Err = ParseError;

    fn from_str(word: &str) -> Result<Value, ParseError> {
        let parse = || {
            let (name, inner) = word.strip_suffix(')')?.split_once('(')?;
            let hidden = || {
                let (microbatch, chunk) = inner.split_once(',')?;
                Some((Microbatch(number(microbatch)?), Chunk(number(chunk)?)))
            };
            let item = || inner.parse::<Item>().ok();
            let cut = || {
                let (item, chunk) = inner.split_once(',')?;
                Some((item.parse::<Item>().ok()?, Chunk(number(chunk)?)))
            };
            Some(match name {
                "hidden" => hidden().map(|(microbatch, chunk)| Value::Hidden { microbatch, chunk })?,
                "hidden_grad" => {
                    hidden().map(|(microbatch, chunk)| Value::HiddenGrad { microbatch, chunk })?
                }
                "embeds" => Value::Embeds(item()?),
                "embed_grad" => Value::EmbedGrad(item()?),
                "cond" => Value::Cond(item()?),
                "cond_grad" => Value::CondGrad(item()?),
                "encoder_hidden" => cut().map(|(item, chunk)| Value::EncoderHidden { item, chunk })?,
                "encoder_hidden_grad" => {
                    cut().map(|(item, chunk)| Value::EncoderHiddenGrad { item, chunk })?
                }
                "generator_hidden" => cut().map(|(item, chunk)| Value::GeneratorHidden { item, chunk })?,
                "generator_hidden_grad" => {
                    cut().map(|(item, chunk)| Value::GeneratorHiddenGrad { item, chunk })?
                }
                _ => return None,
            })
        };
        parse().ok_or_else(|| ParseError::Value { word: word.to_owned() })
    }
}

impl FromStr for Op {
    type Err = ParseError;

    fn from_str(word: &str) -> Result<Op, ParseError> {
        let wrong = || ParseError::Op { word: word.to_owned() };
        if word == "step" {
            return Ok(Op::Step);
        }
        if let Some(rest) = word.strip_prefix("send:") {
            let (value, to) = rest.split_once('>').ok_or_else(wrong)?;
            return Ok(Op::Send { value: value.parse()?, to: Rank(number(to).ok_or_else(wrong)?) });
        }
        if let Some(rest) = word.strip_prefix("recv:") {
            let (value, from) = rest.split_once('<').ok_or_else(wrong)?;
            return Ok(Op::Recv { value: value.parse()?, from: Rank(number(from).ok_or_else(wrong)?) });
        }
        compute(word).ok_or_else(wrong)
    }
}

fn compute(word: &str) -> Option<Op> {
    let mut letters = word.chars();
    let letter = letters.next()?;
    let rest = letters.as_str();
    let phase_at = rest.find(|c: char| !c.is_ascii_digit())?;
    let chunk = Chunk(number(rest.get(..phase_at)?)?);
    let module = match letter {
        'E' => Module::Encoder(chunk),
        'L' => Module::Llm(chunk),
        'G' => Module::Generator(chunk),
        _ => return None,
    };
    let mut tail = rest.get(phase_at..)?.chars();
    let phase = Phase::from_letter(tail.next()?)?;
    let work = match tail.as_str().strip_prefix('[') {
        None => Work::Microbatch(Microbatch(number(tail.as_str())?)),
        Some(list) => {
            let items = list.strip_suffix(']')?.split(',').map(|item| item.parse::<Item>().ok());
            Work::Items(items.collect::<Option<_>>()?)
        }
    };
    Some(Op::Compute { module, phase, work })
}

impl FromStr for Table {
    type Err = TextError;

    fn from_str(text: &str) -> Result<Table, TextError> {
        let mut table = Table::default();
        for (index, full) in text.lines().enumerate() {
            let at = |part: &str, source| TextError { line: index + 1, column: column(full, part), source };
            let line = full.split('#').next().unwrap_or_default().trim();
            let head = line.strip_prefix("rank ").and_then(|rest| rest.split_once(':'));
            let words = match head.and_then(|(rank, words)| Some((number(rank)?, words))) {
                None => line,
                Some((found, words)) => {
                    let wanted = table.ranks.len();
                    if found != wanted {
                        return Err(at(line, ParseError::Rank { line: line.to_owned(), found, wanted }));
                    }
                    table.ranks.push(Vec::new());
                    words
                }
            };
            for word in words.split_whitespace() {
                let ops = table.ranks.last_mut();
                let ops = ops.ok_or_else(|| at(word, ParseError::NoRank { word: word.to_owned() }))?;
                ops.push(word.parse().map_err(|error| at(word, error))?);
            }
        }
        Ok(table)
    }
}

/// The character, from 1, at which a part of a line starts.
pub(crate) fn column(line: &str, part: &str) -> usize {
    let bytes = (part.as_ptr() as usize).saturating_sub(line.as_ptr() as usize);
    line.get(..bytes).map_or(1, |before| before.chars().count() + 1)
}

/// Decimal digits and nothing else: `parse` alone would take a leading `+`.
fn number(text: &str) -> Option<usize> {
    if text.bytes().all(|byte| byte.is_ascii_digit()) { text.parse().ok() } else { None }
}
