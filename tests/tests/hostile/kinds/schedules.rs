//! Schedule tables, as text and as CSV: ops deleted, doubled, moved, renumbered, misspelt.

use crate::attempt::Attempt;
use crate::random::Random;
use anyhow::Result;

const OPS: &[&str] = &[
    "E0F[0.0]",
    "L0F0",
    "L9F9",
    "G0B[0.0]",
    "L4294967295F0",
    "L0F4294967295",
    "L18446744073709551616F0",
    "L0F-1",
    "LxF0",
    "E0F[]",
    "E0F[0.0,0.0]",
    "E0F[0.4294967295]",
    "E0F[0",
    "E0F[0.0..4294967295]",
    "step",
    "step step",
    "send:hidden(0,1)>1",
    "recv:hidden(0,1)<0",
    "send:hidden(0,1)>99",
    "recv:embeds(0.9)<0",
    "send:>",
    "recv:hidden_grad(4294967295,0)<1",
    "rank",
    "rank 0:",
    "rank 4294967295:",
    "#",
    "//",
    "\u{1F600}",
    "L0R0",
    "L0W0",
    "L0B0",
    "L0BW0",
    "E0R[0.0]",
    "L0I0",
];
const CELLS: &[&str] = &[
    "0F0",
    "1F0",
    "0B0",
    "0W0",
    "0I0",
    "0BW0",
    "0UNSHARD0",
    "0SEND_F0",
    "1RECV_F0",
    "4294967295F0",
    "0F4294967295",
    "18446744073709551616F0",
    "F0",
    "0F",
    "0X0",
    "",
    "-1F0",
    "(0F0;1B0)OVERLAP_F_B",
    "(0F0;0F0)OVERLAP_F_B",
    "(",
    "()",
    "(0F0;(0F0;1B0)OVERLAP_F_B)OVERLAP_F_B",
    "0REDUCE_GRAD",
    "\"0F0\"",
    "\"",
    "0F0 ",
    "\u{1F600}",
    "0f0",
];

/// Changes the table in one to three places.
pub fn mutate(attempt: &mut Attempt, random: &mut Random) -> Result<()> {
    let base = attempt.choose(random, |base| base.line.contains("--from"));
    let file = base.files()[0];
    let (between, ops) = if file.ends_with(".csv") { (',', CELLS) } else { (' ', OPS) };
    let times = random.few();
    attempt.edit(file, |bytes| {
        let text = String::from_utf8_lossy(bytes).into_owned();
        let mut lines: Vec<Vec<String>> =
            text.lines().map(|line| line.split(between).map(ToOwned::to_owned).collect()).collect();
        let done: Vec<String> = (0..times).map(|_| change(&mut lines, ops, random)).collect();
        let between = between.to_string();
        let written: Vec<String> = lines.iter().map(|line| line.join(&between)).collect();
        *bytes = written.join("\n").into_bytes();
        done.join("; ")
    })
}

fn change(lines: &mut Vec<Vec<String>>, ops: &[&str], random: &mut Random) -> String {
    let row = random.place(lines);
    let Some(line) = lines.get_mut(row) else { return "nothing".into() };
    let at = random.place(line);
    match random.below(9) {
        0 if !line.is_empty() => format!("line {row}: {:?} deleted", line.remove(at)),
        1 => {
            let copy = line.get(at).cloned().unwrap_or_default();
            let to = random.below(line.len() + 1);
            line.insert(to, copy.clone());
            format!("line {row}: {copy:?} twice")
        }
        2 if !line.is_empty() => {
            let other = random.place(line);
            line.swap(at, other);
            format!("line {row}: ops {at} and {other} swapped")
        }
        3 | 4 => {
            let op = random.pick(ops).to_owned();
            line.insert(at, op.clone());
            format!("line {row}: {op:?} at {at}")
        }
        5 => {
            let op = random.pick(ops).to_owned();
            if let Some(place) = line.get_mut(at) {
                *place = op.clone();
            }
            format!("line {row}: {op:?} over op {at}")
        }
        6 => {
            lines.remove(row);
            format!("line {row} deleted")
        }
        7 => {
            let copy = line.clone();
            lines.push(copy);
            format!("line {row} twice")
        }
        _ => {
            let many = [1000, 200_000][random.below(2)];
            let op = line.get(at).cloned().unwrap_or_default();
            line.extend(std::iter::repeat_n(op.clone(), many));
            format!("line {row}: {op:?} {many} times")
        }
    }
}
