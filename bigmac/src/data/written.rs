//! What a record says as it is written: tokens do not always give it back.

use super::forms::{Record, Segment};

/// The texts that an evaluation compares with and shows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Written {
    /// What is learned up to the first end of a text: the first answer of a conversation, or the text of a caption
    /// after its last picture. Empty where only a picture is drawn.
    pub answer: String,
    /// What stands between the last picture before the answer and the answer, without loss.
    pub question: String,
    /// Everything before the picture that is drawn, without marks; empty where none is.
    pub description: String,
}

impl Written {
    /// Of a record.
    pub fn of(record: &Record) -> Self {
        let segments = &record.segments;
        let text = |segment: &Segment| match segment {
            Segment::Text { text, .. } => Some(text.clone()),
            _ => None,
        };
        let end = segments.iter().position(|segment| *segment == Segment::End);
        let before = &segments[..end.unwrap_or(0)];
        let learned = |segment: &&Segment| matches!(segment, Segment::Text { learned: true, .. });
        let answer = before.len() - before.iter().rev().take_while(learned).count();
        let asked = |segment: &&Segment| matches!(segment, Segment::Text { .. });
        let question = answer - before[..answer].iter().rev().take_while(asked).count();
        let draw = segments.iter().position(|segment| *segment == Segment::Draw);
        Written {
            answer: before[answer..].iter().filter_map(text).collect(),
            question: before[question..answer].iter().filter_map(text).collect(),
            description: segments[..draw.unwrap_or(0)].iter().filter_map(text).collect(),
        }
    }

    /// Whether an answer is the written one. A space before it, which templates put there and decoders take away,
    /// makes no difference.
    pub fn is_answered_by(&self, given: &str) -> bool {
        let bare = |text: &str| text.strip_prefix(' ').unwrap_or(text).to_owned();
        bare(given) == bare(&self.answer)
    }
}

#[cfg(test)]
mod tests {
    use super::super::{PictureRef, Place};
    use super::*;
    use std::path::Path;

    fn written(segments: &[Segment]) -> Written {
        let images =
            segments.iter().filter(|s| **s == Segment::Image).map(|_| PictureRef::new(Path::new("a")));
        let (images, file) = (images.collect(), Path::new("f").into());
        let segments = segments.to_vec();
        Written::of(&Record { segments, images, draw: None, file, place: Place::Line(1) })
    }

    fn text(text: &str, learned: bool) -> Segment {
        Segment::Text { text: text.to_owned(), learned }
    }

    #[test]
    fn the_first_answer_is_what_is_compared() {
        let (image, end) = (Segment::Image, Segment::End);
        let turns = [
            text("USER: ", false),
            image.clone(),
            text("q ASSISTANT:", false),
            text(" a", true),
            end.clone(),
            text("USER: r ASSISTANT:", false),
            text(" b", true),
            end.clone(),
        ];
        let found = written(&turns);
        assert_eq!((found.answer.as_str(), found.question.as_str()), (" a", "q ASSISTANT:"));
        assert!(found.is_answered_by("a") && found.is_answered_by(" a") && !found.is_answered_by("a "));
        assert!(!found.is_answered_by("b") && !found.is_answered_by("  a"));
        // A picture within a text: what is said after it.
        let caption = written(&[text("a ", true), image.clone(), text(" shows", true), end.clone()]);
        assert_eq!((caption.answer.as_str(), caption.question.as_str()), (" shows", ""));
        assert_eq!(written(&[text("red", true), image.clone(), end]).answer, "");
    }

    #[test]
    fn a_description_is_all_text_before_the_drawing() {
        let found = written(&[
            text("like ", false),
            Segment::Image,
            text(" but ", false),
            text("blue", true),
            Segment::Draw,
        ]);
        assert_eq!(found, Written { description: "like  but blue".into(), ..Written::default() });
    }
}
