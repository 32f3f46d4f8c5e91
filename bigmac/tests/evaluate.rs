//! Evaluation of random models: what is asked of them, and what they are given.

use bigmac::config::Config;
use bigmac::eval::{beginning, evaluate, prompt, read};
use bigmac::model::{Placement, RankModules};
use bigmac::train::Session;
use image::{Rgb, RgbImage};
use std::path::Path;

/// A small model over a set whose unseen samples are `lines`; `a.png` and `b.png` differ.
fn session(folder: &Path, lines: &[&str]) -> Session {
    for (name, color) in [("a.png", [250, 10, 10]), ("b.png", [10, 10, 250])] {
        RgbImage::from_pixel(32, 32, Rgb(color)).save(folder.join(name)).unwrap();
    }
    std::fs::write(folder.join("train.jsonl"), r#"{"text": "x"}"#.to_owned() + "\n").unwrap();
    std::fs::write(folder.join("heldout.jsonl"), lines.join("\n")).unwrap();
    let mut config = Config::default();
    config.data.path = folder.to_string_lossy().into_owned();
    let model = &mut config.model;
    (model.encoder.layers, model.llm.layers, model.generator.layers) = (1, 2, 1);
    Session::open(&config, &|_| ()).unwrap()
}

fn random(session: &Session) -> RankModules {
    let ctx = session.context(0, 1).unwrap();
    RankModules::random(&ctx, &session.shape, &Placement::whole(&session.shape).unwrap(), 0, 3).unwrap()
}

#[test]
fn a_drawing_is_made_from_the_pictures_of_its_text_too() {
    let folder = tempfile::tempdir().unwrap();
    let of =
        |image: &str| format!(r#"{{"prompt": "<image>in blue", "images": ["{image}"], "draw": "b.png"}}"#);
    let session = session(folder.path(), &[&of("a.png"), &of("b.png"), &of("a.png")]);
    let (modules, ctx) = (random(&session), session.context(0, 1).unwrap());
    let dataset = session.heldout.as_deref().unwrap();
    // A generator that has learned nothing draws the same from everything: what it is given is compared.
    let given = |sample: usize| {
        let expanded = dataset.expand(sample);
        let end = expanded.draw_at.unwrap();
        let prompt = beginning(&ctx, &modules, &session.shape, dataset, &expanded, end).unwrap();
        assert_eq!((prompt.tokens.len(), prompt.images.len()), (end, 1));
        read(&ctx, &modules, &session.shape, &prompt).unwrap().to_vec::<f32>(&ctx).unwrap()
    };
    assert!(given(0) == given(2) && given(0) != given(1));
}

#[test]
fn only_pictures_are_captioned_up_to_the_answer_that_is_compared() {
    let folder = tempfile::tempdir().unwrap();
    let chat = r#"{"image": "a.png", "conversations": [{"from": "human", "value": "<image>\nq"},
        {"from": "gpt", "value": "first"}, {"from": "human", "value": "r"}, {"from": "gpt", "value": "second"}]}"#
        .replace('\n', "");
    let lines = [
        r#"{"text": "words alone"}"#,
        r#"{"text": "a <image> is red", "images": ["a.png"]}"#,
        &chat,
        r#"{"text": "nothing after <image>", "images": ["a.png"]}"#,
    ];
    let session = session(folder.path(), &lines);
    let (mut modules, ctx) = (random(&session), session.context(0, 1).unwrap());
    let dataset = session.heldout.as_deref().unwrap();
    for (sample, before, wanted) in [(1, "a ", " is red"), (2, "USER: \nq ASSISTANT:", " first")] {
        let (prompt, tokens) = prompt(&ctx, &modules, &session.shape, dataset, sample).unwrap();
        let text = |tokens: &[i32]| {
            dataset.tokenizer.decode(&tokens.iter().map(|&t| t as u32).collect::<Vec<_>>()).unwrap()
        };
        assert_eq!((text(&prompt.tokens).as_str(), text(&tokens).as_str()), (before, wanted));
        assert_eq!(prompt.images.len(), 1);
    }
    let evaluation = evaluate(&session, &mut modules, 10, 2).unwrap();
    let wanted: Vec<&str> = evaluation.captions.iter().map(|caption| caption.wanted.as_str()).collect();
    assert_eq!(wanted, [" is red", " first"]);
    assert_eq!((evaluation.summary.samples, evaluation.summary.caption_exact), (4, Some(0.0)));
    assert!(evaluation.summary.drawn_exact.is_none());
}
