//! What to try after a run, on data like its own.

use bigmac::data::{Dataset, Sample};
use bigmac::train::Session;
use std::path::Path;

/// Samples that are looked at for a description.
const LOOKED_AT: usize = 1000;
/// Letters of a description that still reads well on a line.
const SHORT: usize = 120;

/// Commands that a run can be tried with, a line each.
pub(super) fn commands(session: &Session, run: &Path) -> String {
    let shown = argument(&run.display().to_string());
    let mut out = String::new();
    let mut line = |command: String| out += &format!("  bigmac {command}\n");
    if let Some(text) = description(session) {
        // What begins like a flag comes after a mark that there are no more flags.
        let dashes = if text.starts_with('-') { "-- " } else { "" };
        line(format!("imagine {shown} --out picture.png {dashes}{}", quoted(&text)));
    }
    if let Some(picture) = picture(session) {
        line(format!("caption {shown} {picture}"));
    }
    let (schedule, said) = match session.config.pipeline.schedule.as_str() {
        "monolithic" => ("nested", "nested"),
        _ => ("monolithic", "without nesting"),
    };
    let config = argument(&run.join("config.toml").display().to_string());
    let other = argument(&format!("{}-{schedule}", run.display()));
    line(format!("train {config} --schedule {schedule} --out {other}    (the same model {said})"));
    line(
        "simulate --schedule nested,monolithic --ranks 4 --microbatches 16 --cost F=1,B=1,W=1,Ef=2,Eb=4 --timeline \
         timeline.html"
            .to_owned(),
    );
    out
}

/// A text that a picture is drawn from: one that was not trained on, where there is one. `imagine` takes no pictures,
/// so one without them.
fn description(session: &Session) -> Option<String> {
    let of = |dataset: &Dataset| {
        let drawn = dataset.samples.iter().filter(|sample| sample.draw.is_some() && sample.images.is_empty());
        let texts = drawn.take(LOOKED_AT).filter_map(|sample| described(dataset, sample));
        let fit = texts.filter(|text| !text.trim().is_empty() && !text.contains(is_unseen));
        fit.min_by_key(|text| (text.contains('\n'), text.chars().count().saturating_sub(SHORT)))
    };
    session.heldout.as_deref().and_then(of).or_else(|| of(session.planner.dataset()))
}

/// Characters that a terminal acts on instead of showing them.
fn is_unseen(letter: char) -> bool {
    letter.is_control() && letter != '\n' && letter != '\t'
}

fn described(dataset: &Dataset, sample: &Sample) -> Option<String> {
    if let Some(written) = &sample.written {
        return Some(written.description.clone());
    }
    let draw = dataset.tokenizer.specials().draw;
    let end = sample.tokens.iter().position(|&token| token == draw)?;
    dataset.tokenizer.decode(sample.tokens.get(1..end)?).ok()
}

/// What `caption` is given to see a picture of the data and, where its samples ask one, the question; none where no
/// picture is read.
fn picture(session: &Session) -> Option<String> {
    let heldout = session.heldout.as_deref().into_iter().flat_map(|dataset| &dataset.samples);
    let samples = heldout.chain(&session.planner.dataset().samples);
    let mut read = samples.filter(|sample| sample.draw.is_none() && !sample.images.is_empty()).peekable();
    read.peek()?;
    let of_file = |sample: &Sample| {
        let path = match &sample.images[..] {
            [one] => one.picture.path()?.display().to_string(),
            _ => return None,
        };
        let path = if path.starts_with('-') { format!("./{path}") } else { path };
        let question = sample.written.as_ref().map_or("", |written| &written.question);
        if path.contains(is_unseen) || question.contains(is_unseen) {
            return None;
        }
        let prompt =
            if question.is_empty() { String::new() } else { format!(" --prompt={}", quoted(question)) };
        Some(argument(&path) + &prompt)
    };
    Some(read.find_map(of_file).unwrap_or_else(|| "PICTURE.png".to_owned()))
}

/// A word of a command line; in quotes where a shell would read something into it.
pub(super) fn argument(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "_-./:=,+@%".contains(c);
    if !word.is_empty() && word.chars().all(plain) { word.to_owned() } else { quoted(word) }
}

/// In single quotes, within which a shell leaves everything but a quote as it is.
fn quoted(word: &str) -> String {
    format!("'{}'", word.replace('\'', "'\\''"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    #[test]
    #[cfg(unix)]
    fn a_shell_reads_words_as_they_are() {
        for word in
            ["plain/word-1.png", "", "it's $HOME `ls` \"x\" \\ !", "two\nlines", "'", "-x", "~", "é*?;&|<>"]
        {
            let script = format!("printf %s {}", argument(word));
            let said = Command::new("sh").args(["-c", &script]).output().unwrap();
            assert_eq!(String::from_utf8(said.stdout).unwrap(), word, "{script}");
        }
        assert_eq!(argument("runs/shapes"), "runs/shapes");
    }
}
