//! JSON and TOML: values of other types and extremes, keys deleted, doubled, renamed, swapped.

use crate::attempt::Attempt;
use crate::commands::{Base, NEWEST};
use crate::random::Random;
use crate::tree::{Change, Form, Node, mutate};
use anyhow::{Context as _, Result};

/// Keys that say how much work there is: any number is right, and the work may be long.
const WORK: &[&str] = &["steps", "rounds", "samples", "final_samples", "sample_steps", "shapes"];
/// Keys that are a user's own: they are known, and may have any value.
const FREE: &[&str] = &["id"];

/// `tiny.toml`, and the resolved configuration of a run.
pub fn configuration(attempt: &mut Attempt, random: &mut Random) -> Result<()> {
    attempt.choose(random, |base| base.needs("tiny.toml"));
    document(attempt, "tiny.toml", Form::Toml, random)?;
    // Without a path, 24,000 pictures are drawn.
    attempt.long |= attempt.notes.iter().any(|note| note.contains("deleted") || note.contains("'path'"));
    Ok(())
}

/// Data sets of all forms, a record at a time.
pub fn records(attempt: &mut Attempt, random: &mut Random) -> Result<()> {
    let sets =
        ["set/train.jsonl", "llava/train.json", "chat/train.jsonl", "imagefolder/train/metadata.jsonl"];
    let file = random.pick(&sets);
    attempt.choose(random, |base| base.needs(file));
    if file.ends_with("json") {
        return document(attempt, file, Form::Json, random);
    }
    let path = attempt.folder.join(file);
    let text = std::fs::read_to_string(&path)?;
    let mut lines: Vec<String> = text.lines().map(ToOwned::to_owned).collect();
    let count = random.few();
    for number in 1..=count {
        let at = random.place(&lines);
        if random.one_in(8) {
            let line = lines[at].clone();
            lines.insert(random.below(lines.len()), line.replacen(':', "", 1));
            attempt.broke(file, "has a line that is not JSON");
            attempt.notes.push(format!("{file}: a line without a colon"));
            continue;
        }
        let Some(mut root) = Node::read(&lines[at], Form::Json) else { continue };
        let change = mutate(&mut root, random);
        lines[at] = root.write(Form::Json);
        note(attempt, file, &change, number == count);
    }
    std::fs::write(path, lines.join("\n"))?;
    Ok(())
}

/// The documents of a checkpoint, `state.json` most of all, and of a data set.
pub fn checkpoint(attempt: &mut Attempt, random: &mut Random) -> Result<()> {
    let name =
        random.pick(&["state.json", "state.json", "state.json", "config.json", "generator/config.json"]);
    let file = format!("{NEWEST}/{name}");
    attempt.choose(random, Base::loads);
    document(attempt, &file, Form::Json, random)?;
    // A checkpoint whose files were changed is noticed by their sums; here the values are to be looked at.
    if name != "state.json" && random.one_in(2) {
        crate::state::sign_again(&attempt.folder.join(NEWEST))?;
    }
    Ok(())
}

/// What `simulate`, `compare`, `plan` and `profile` read: models, devices, workloads, profiles.
pub fn descriptions(attempt: &mut Attempt, random: &mut Random) -> Result<()> {
    let file = random.pick(&["model.toml", "device.toml", "workload.toml", "profile.toml"]);
    attempt.choose(random, |base| base.needs(file));
    document(attempt, file, Form::Toml, random)
}

/// `tokenizer.json`.
pub fn tokenizer(attempt: &mut Attempt, random: &mut Random) -> Result<()> {
    let file = random.pick(&["tokenizer.json", "bpe.json", "bpe.json"]);
    attempt.choose(random, |base| base.needs(file));
    document(attempt, file, Form::Json, random)
}

/// One to three mutations of a document.
fn document(attempt: &mut Attempt, file: &str, form: Form, random: &mut Random) -> Result<()> {
    let path = attempt.folder.join(file);
    let text = std::fs::read_to_string(&path)?;
    let mut root = Node::read(&text, form).with_context(|| format!("{file} can't be read"))?;
    let count = random.few();
    for number in 1..=count {
        let change = mutate(&mut root, random);
        note(attempt, file, &change, form == Form::Toml && number == count);
    }
    std::fs::write(path, root.write(form))?;
    Ok(())
}

/// `tells`: keys that no one knows are errors in such a file, and no later mutation takes the place away again.
fn note(attempt: &mut Attempt, file: &str, change: &Change, tells: bool) {
    let key = change.key.as_str();
    attempt.notes.push(format!("{file}: {}", change.what));
    attempt.long |= WORK.contains(&key);
    if change.never_right && tells && !FREE.contains(&key) {
        attempt.broke(file, "has a value or key that can't be right");
    }
}
