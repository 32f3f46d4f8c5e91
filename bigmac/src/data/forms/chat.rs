//! Conversations: LLaVA's and ShareGPT's `conversations` (`from`, `value`), and `messages` (`role`, `content`); loss on
//! the answers only.
//!
//! Turns are written as LLaVA-1.5's template has them: `USER: question ASSISTANT: answer<eos>USER: ...`, after a system
//! text and a space if there is one (`conv_vicuna_v1` in LLaVA's conversation.py; the chat template of
//! `llava-hf/llava-1.5-7b-hf`). Images that no mark takes come first in the first question, as LLaVA puts them.

use super::keys::{SYSTEM, check, check_among, has_content, string};
use super::marks::Pieces;
use super::parts::{Content, Part, content};
use super::{Named, RawRecord, Record, kind, pictures, wrong_type};
use bigmac_schedule::names;
use serde_json::{Map, Value};

/// Names of roles, other projects' among them.
const ROLES: [(&str, Role); 5] = [
    ("system", Role::System),
    ("human", Role::Human),
    ("user", Role::Human),
    ("gpt", Role::Answer),
    ("assistant", Role::Answer),
];
/// Roles of turns that call tools.
const TOOL_ROLES: [&str; 7] =
    ["tool", "tool_call", "tool_response", "function", "function_call", "observation", "ipython"];

#[derive(Clone, Copy, PartialEq)]
enum Role {
    System,
    Human,
    Answer,
}

struct Turn<'a> {
    role: Role,
    content: Content<'a>,
}

/// Reads a record whose turns are under the key `list`.
pub(super) fn record(raw: &RawRecord, list: &'static str, named: Named<'_>) -> Result<Record, String> {
    let object = &raw.object;
    check(object, &[list, SYSTEM])?;
    let images = pictures::listed(raw, named)?;
    let draw = pictures::drawn(raw, named)?;
    let turns = turns(object, list, named)?;
    let last_asks = turns.last().is_some_and(|turn| turn.role == Role::Human);
    if last_asks && draw.is_none() {
        return Err(wrong_turn(
            list,
            turns.len(),
            "a question without an answer; give one, or a picture to 'draw'",
        ));
    }

    let mut pieces = Pieces::default();
    if let Some(system) = string(object, SYSTEM)?.filter(|text| !text.is_empty()) {
        if turns.first().is_some_and(|turn| turn.role == Role::System) {
            return Err(wrong_turn(list, 1, "a second system text, as 'system' holds one; keep one of them"));
        }
        pieces.marked(system, false);
        pieces.text(" ", false);
    }
    let first_question = turns.iter().position(|turn| turn.role == Role::Human);
    for (i, turn) in turns.iter().enumerate() {
        match turn.role {
            Role::System => {
                write_question(&mut pieces, &turn.content);
                pieces.text(" ", false);
            }
            Role::Human => {
                pieces.text("USER: ", false);
                if first_question == Some(i) {
                    pieces.images_go_here();
                }
                write_question(&mut pieces, &turn.content);
                pieces.text(" ASSISTANT:", false);
            }
            Role::Answer => {
                pieces.text(" ", true);
                write_answer(&mut pieces, &turn.content, list, i + 1)?;
                // The mark of a picture to draw takes the place of the last end, as in every form.
                if draw.is_none() || i + 1 < turns.len() {
                    pieces.end();
                }
            }
        }
    }
    if draw.is_some() {
        pieces.draw();
    } else if !pieces.learns() {
        return Err(format!("nothing to learn: '{list}' has no answer and there is no picture to 'draw'"));
    }
    let (segments, images) = pieces.assemble(images)?;
    Ok(Record { segments, images, draw, file: raw.file.clone(), place: raw.place.clone() })
}

/// Writes what carries no loss. In a content that has image parts, `<image>` in a text is text.
fn write_question(pieces: &mut Pieces, content: &Content<'_>) {
    let has_pictures = content.has_pictures();
    for part in content.parts() {
        match part {
            Part::Text(text) if has_pictures => {
                pieces.unmarked(text, false);
            }
            Part::Text(text) => pieces.marked(text, false),
            Part::Next => pieces.mark(),
            Part::Picture(picture) => pieces.picture(picture.clone()),
        }
    }
}

fn write_answer(pieces: &mut Pieces, content: &Content<'_>, list: &str, turn: usize) -> Result<(), String> {
    for part in content.parts() {
        match part {
            Part::Text(text) => pieces.answer(text, turn),
            Part::Next | Part::Picture(_) => {
                let problem =
                    "an image in an answer; images go into human turns, a picture to be drawn under 'draw'";
                return Err(wrong_turn(list, turn, problem));
            }
        }
    }
    Ok(())
}

/// The turns, in an order that makes sense: a system text first if any, then human and answer in turn.
fn turns<'a>(object: &'a Map<String, Value>, list: &str, named: Named<'_>) -> Result<Vec<Turn<'a>>, String> {
    let Some(Value::Array(items)) = object.get(list) else {
        let found = object.get(list).map_or("missing", kind);
        return Err(wrong_type(list, found, "a list of turns"));
    };
    let mut turns: Vec<Turn<'a>> = Vec::with_capacity(items.len());
    for (i, item) in items.iter().enumerate() {
        let fail = |problem: String| wrong_turn(list, i + 1, &problem);
        let Value::Object(item) = item else {
            let example = match list {
                "messages" => r#"{"role": ..., "content": ...}"#,
                _ => r#"{"from": ..., "value": ...}"#,
            };
            return Err(fail(format!("{}, where {example} is expected", kind(item))));
        };
        let turn = turn(item, list, named, turns.last().map(|turn| turn.role)).map_err(fail)?;
        turns.push(turn);
    }
    Ok(turns)
}

fn turn<'a>(
    item: &'a Map<String, Value>,
    list: &str,
    named: Named<'_>,
    before: Option<Role>,
) -> Result<Turn<'a>, String> {
    check_among(item, &["from", "value", "role", "content"], &["id"], |_, _| None)?;
    let (own_role, own_content) = if list == "messages" { ("role", "content") } else { ("from", "value") };
    let role_key = either(item, ["from", "role"], own_role)?;
    let content_key = either(item, ["value", "content"], own_content)?;
    let name = string(item, role_key)?.ok_or_else(|| format!("'{role_key}' is missing"))?;
    let role = role(role_key, name, list)?;
    let content = content(item, content_key, named)?;
    let follows = match role {
        Role::System => before.is_none(),
        Role::Human => before != Some(Role::Human),
        Role::Answer => before == Some(Role::Human),
    };
    if !follows {
        let (human, answer) = role_names(list);
        let advice = match (role, before) {
            (Role::Answer, None | Some(Role::System)) => "; text without a question is written as 'text'",
            (Role::System, _) => "; a system text comes first",
            _ => "",
        };
        return Err(format!(
            "{role_key} '{name}' out of turn; {human} and {answer} alternate, {human} first{advice}"
        ));
    }
    Ok(Turn { role, content })
}

/// Which of two keys for one thing a turn uses; `default` where it has neither.
fn either(
    item: &Map<String, Value>,
    keys: [&'static str; 2],
    default: &'static str,
) -> Result<&'static str, String> {
    match keys.map(|key| has_content(item, key)) {
        [true, true] => Err(format!("'{}' and '{}' say the same thing; keep one of them", keys[0], keys[1])),
        // An empty text is a text, where nothing else is given.
        [false, false] => {
            let there = keys.into_iter().find(|key| item.get(*key).is_some_and(|value| !value.is_null()));
            Ok(there.unwrap_or(default))
        }
        [true, false] => Ok(keys[0]),
        [false, true] => Ok(keys[1]),
    }
}

fn role(key: &str, name: &str, list: &str) -> Result<Role, String> {
    if let Some((_, role)) = ROLES.iter().find(|(known, _)| *known == name) {
        return Ok(*role);
    }
    if TOOL_ROLES.contains(&name) {
        return Err(format!(
            "{key} '{name}': tool calls are not read; write them into the texts, or take the record out"
        ));
    }
    let (human, answer) = role_names(list);
    let hint = names::hint(names::nearest(name, ROLES.map(|(known, _)| known)));
    Err(format!("{key} '{name}', where {human} or {answer} is expected{hint}"))
}

fn role_names(list: &str) -> (&'static str, &'static str) {
    if list == "messages" { ("user", "assistant") } else { ("human", "gpt") }
}

/// Turns count from 1.
fn wrong_turn(list: &str, turn: usize, problem: &str) -> String {
    format!("turn {turn} of '{list}': {problem}")
}
