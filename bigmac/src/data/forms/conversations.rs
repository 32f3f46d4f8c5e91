//! LLaVA's own files: `image` and `conversations`, loss on the answers only.
//!
//! Turns are written as LLaVA-1.5's template has them, without a system text:
//! `USER: question ASSISTANT: answer<eos>USER: ...` (`conv_vicuna_v1` in LLaVA's conversation.py; the chat template of
//! `llava-hf/llava-1.5-7b-hf`).

use super::super::picture::PictureRef;
use super::{
    IMAGE_MARK, RawRecord, Record, Segment, kind, nothing_to_learn, string, strings, with_images, wrong_type,
};
use serde_json::{Map, Value};

#[derive(Clone, Copy, PartialEq)]
enum Role {
    System,
    Human,
    Answer,
}

/// Reads one element of a LLaVA file; keys other than `image` and `conversations` are left alone.
pub(super) fn record(
    raw: &RawRecord,
    named: &dyn Fn(&str) -> Result<PictureRef, String>,
) -> Result<Record, String> {
    let object = &raw.object;
    if object.get("video").is_some_and(|v| !v.is_null()) {
        return Err("videos are not read; take the line out, or give frames of it as images".into());
    }
    let images: Vec<PictureRef> =
        strings(object, "image")?.into_iter().map(named).collect::<Result<_, _>>()?;
    let turns = turns(object)?;

    let mut texts = Vec::with_capacity(turns.len());
    for (i, (role, value)) in turns.iter().enumerate() {
        match role {
            Role::System => texts.push((format!("{value} "), false)),
            Role::Human => texts.push((format!("USER: {value} ASSISTANT:"), false)),
            Role::Answer if value.contains(IMAGE_MARK) => {
                return Err(format!("{IMAGE_MARK} in answer {}; images go into human turns", i + 1));
            }
            Role::Answer => texts.push((format!(" {}", value.trim_start()), true)),
        }
    }
    if !texts.iter().any(|(_, learned)| *learned) {
        return Err(nothing_to_learn());
    }
    let borrowed: Vec<(&str, bool)> = texts.iter().map(|(text, learned)| (text.as_str(), *learned)).collect();
    let cut = with_images(&borrowed, images.len())?;
    let mut segments = Vec::with_capacity(cut.len() + turns.len());
    for segment in cut {
        let answer = matches!(segment, Segment::Text { learned: true, .. });
        segments.push(segment);
        if answer {
            segments.push(Segment::End);
        }
    }
    Ok(Record { segments, images, draw: None, file: raw.file.clone(), place: raw.place.clone() })
}

/// The turns, in an order that makes sense: a system text first if any, then human and answer in turn.
fn turns(object: &Map<String, Value>) -> Result<Vec<(Role, &str)>, String> {
    let list = match object.get("conversations") {
        Some(Value::Array(list)) => list,
        other => {
            return Err(wrong_type("conversations", other.map_or("missing", kind), "a list of turns"));
        }
    };
    let mut turns: Vec<(Role, &str)> = Vec::with_capacity(list.len());
    for (i, turn) in list.iter().enumerate() {
        let fail = |problem: String| wrong_turn(i + 1, &problem);
        let Value::Object(turn) = turn else {
            return Err(fail(format!("{}, where {{\"from\": ..., \"value\": ...}} is expected", kind(turn))));
        };
        let from = string(turn, "from")?.ok_or_else(|| fail("'from' is missing".into()))?;
        let value = string(turn, "value")?.ok_or_else(|| fail("'value' is missing".into()))?;
        let role = match from {
            "system" => Role::System,
            "human" | "user" => Role::Human,
            "gpt" | "assistant" => Role::Answer,
            other => return Err(fail(format!("from '{other}', where human or gpt is expected"))),
        };
        let before = turns.last().map(|(role, _)| *role);
        let follows = match role {
            Role::System => before.is_none(),
            Role::Human => before != Some(Role::Human),
            Role::Answer => before == Some(Role::Human),
        };
        if !follows {
            return Err(fail(format!("from '{from}' out of turn; human and gpt alternate, human first")));
        }
        turns.push((role, value));
    }
    if turns.last().is_some_and(|(role, _)| *role == Role::Human) {
        return Err(wrong_turn(turns.len(), "a question without an answer"));
    }
    Ok(turns)
}

/// Turns count from 1.
fn wrong_turn(turn: usize, problem: &str) -> String {
    format!("turn {turn} of 'conversations': {problem}")
}
