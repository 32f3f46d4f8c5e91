//! Patterns that name several files, as a shell's braces do: `shards/{000..007}.tar`, `{cats,dogs}/train.jsonl`.

use super::super::error::DataError;
use std::path::{Path, PathBuf};

/// Far more files than one data set has: a slip of the hand above it would ask for all memory at once.
const MOST: usize = 1_000_000;

/// The paths that a pattern stands for, in order; `None` when `path` is not a pattern. Braces hold a range of numbers
/// (`{000..007}`, zeros in front make all equally wide, as in bash; a third number is the step) or a list (`{a,b}`), and
/// may hold braces themselves. What bash would leave alone, such as `{a}`, stays as it is, and so does a path that
/// exists under that very name.
///
/// # Errors
/// When it stands for more than a million paths.
pub(super) fn expand(path: &Path) -> Result<Option<Vec<PathBuf>>, DataError> {
    let Some(text) = path.to_str().filter(|text| text.contains('{')) else { return Ok(None) };
    if path.exists() {
        return Ok(None);
    }
    let many =
        || DataError::contents(path, format!("stands for more than {MOST} files; is the range right?"));
    let names = braces(text).map_err(|TooMany| many())?;
    Ok((names.len() > 1 || names.first().is_some_and(|name| name != text))
        .then(|| names.into_iter().map(PathBuf::from).collect()))
}

/// More paths than anyone means.
struct TooMany;

/// All that `text` stands for, the last braces changing fastest.
fn braces(text: &str) -> Result<Vec<String>, TooMany> {
    let mut from = 0;
    while let Some((open, close)) = pair(text, from) {
        let Some(choices) = choices(&text[open + 1..close])? else {
            from = open + 1;
            continue;
        };
        let rest = braces(&text[close + 1..])?;
        if choices.len().saturating_mul(rest.len()) > MOST {
            return Err(TooMany);
        }
        let head = &text[..open];
        return Ok(choices.iter().flat_map(|c| rest.iter().map(move |r| format!("{head}{c}{r}"))).collect());
    }
    Ok(vec![text.to_owned()])
}

/// The first brace from `from` on that is closed, and where; in bytes.
fn pair(text: &str, from: usize) -> Option<(usize, usize)> {
    let mut start = from;
    while let Some(open) = text[start..].find('{').map(|at| start + at) {
        let mut depth = 0usize;
        for (at, byte) in text.bytes().enumerate().skip(open) {
            match byte {
                b'{' => depth += 1,
                b'}' => depth -= 1,
                _ => continue,
            }
            if depth == 0 {
                return Some((open, at));
            }
        }
        start = open + 1;
    }
    None
}

/// What one pair of braces stands for; `None` when it is neither a range nor a list.
fn choices(inside: &str) -> Result<Option<Vec<String>>, TooMany> {
    if let Some(range) = range(inside)? {
        return Ok(Some(range));
    }
    let (mut parts, mut depth, mut begin) = (Vec::new(), 0usize, 0);
    for (at, byte) in inside.bytes().enumerate() {
        match byte {
            b'{' => depth += 1,
            b'}' => depth = depth.saturating_sub(1),
            b',' if depth == 0 => {
                parts.push(&inside[begin..at]);
                begin = at + 1;
            }
            _ => {}
        }
    }
    if parts.is_empty() {
        return Ok(None);
    }
    parts.push(&inside[begin..]);
    let mut all = Vec::new();
    for part in parts {
        all.extend(braces(part)?);
        if all.len() > MOST {
            return Err(TooMany);
        }
    }
    Ok(Some(all))
}

/// `FIRST..LAST` or `FIRST..LAST..STEP`, all of them digits; it counts down where the last is the smaller.
fn range(inside: &str) -> Result<Option<Vec<String>>, TooMany> {
    let parts: Vec<&str> = inside.split("..").collect();
    let (first, last, step) = match parts[..] {
        [first, last] => (first, last, "1"),
        [first, last, step] => (first, last, step),
        _ => return Ok(None),
    };
    let number =
        |text: &str| text.bytes().all(|b| b.is_ascii_digit()).then(|| text.parse::<u64>().ok()).flatten();
    let (Some(from), Some(to), Some(step)) = (number(first), number(last), number(step)) else {
        return Ok(None);
    };
    let padded = |text: &str| text.len() > 1 && text.starts_with('0');
    let width = if padded(first) || padded(last) { first.len().max(last.len()) } else { 0 };
    // A step of 0 is 1, as in bash.
    let step = step.max(1);
    let count = from.abs_diff(to) / step;
    if count >= MOST as u64 {
        return Err(TooMany);
    }
    let at = |i: u64| if from <= to { from + i * step } else { from - i * step };
    Ok(Some((0..=count).map(|i| format!("{:0width$}", at(i))).collect()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn expanded(text: &str) -> Vec<String> {
        let paths = expand(Path::new(text)).unwrap().unwrap_or_default();
        paths.iter().map(|path| path.to_str().unwrap().to_owned()).collect()
    }

    #[test]
    fn braces_stand_for_what_bash_makes_of_them() {
        for (pattern, wanted) in [
            ("s/{000..003}.tar", "s/000.tar s/001.tar s/002.tar s/003.tar"),
            ("{8..11}.tar", "8.tar 9.tar 10.tar 11.tar"),
            ("{08..11}", "08 09 10 11"),
            ("{8..011}", "008 009 010 011"),
            ("{0..3}", "0 1 2 3"),
            ("{3..0}", "3 2 1 0"),
            ("{00..20..10}", "00 10 20"),
            ("{1..2}-{a,b}", "1-a 1-b 2-a 2-b"),
            (
                "{a,b}{0..1}.{tar,parquet}",
                "a0.tar a0.parquet a1.tar a1.parquet b0.tar b0.parquet b1.tar b1.parquet",
            ),
            ("{a,{0..1}}x", "ax 0x 1x"),
            ("{,x}.tar", ".tar x.tar"),
            ("{a{1,2}", "{a1 {a2"),
            ("{5..5}.tar", "5.tar"),
            ("é{1,ß}.tar", "é1.tar éß.tar"),
            // No pattern: bash leaves these alone too.
            ("plain.tar", ""),
            ("{a}.tar", ""),
            ("{a..}.tar", ""),
            ("{1..2", ""),
            ("}1,2{", ""),
            ("{}", ""),
        ] {
            assert_eq!(expanded(pattern).join(" "), wanted, "{pattern}");
        }
    }

    #[test]
    fn absurd_ranges_are_refused_at_once() {
        for pattern in ["{0..99999999999}", "{0..9999}{0..9999}", "{a,{0..1000000}}"] {
            let error = expand(Path::new(pattern)).unwrap_err().to_string();
            assert!(error.contains("more than 1000000 files"), "{error}");
        }
        // Numbers beyond 64 bits are no numbers.
        assert!(expanded("{0..99999999999999999999999}").is_empty());
    }
}
