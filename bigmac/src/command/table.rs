//! Tables for people.

/// Bytes of a GiB.
pub(super) const GIB: f64 = 1073741824.0;

/// A line of cells, each as wide as its place in `widths` says: to the left where that is negative, else to the right.
pub(super) fn line<const N: usize>(widths: [isize; N], cells: [String; N]) -> String {
    let cell = |(width, cell): (isize, String)| match width {
        ..0 => format!("{cell:<0$}", width.unsigned_abs()),
        _ => format!("{cell:>0$}", width.unsigned_abs()),
    };
    widths.into_iter().zip(cells).map(cell).collect::<String>() + "\n"
}

/// The line of a table's heads, which `names` has between bars.
pub(super) fn heads<const N: usize>(widths: [isize; N], names: &str) -> String {
    let mut names = names.split('|').map(str::to_owned);
    line(widths, [(); N].map(|()| names.next().unwrap_or_default()))
}

/// A share of 1, with one decimal.
pub(super) fn percent(share: f64) -> String {
    format!("{:.1}%", 100.0 * share)
}

/// At most three decimals, without trailing zeros.
pub(super) fn short(value: f64) -> String {
    let text = format!("{value:.3}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// Milliseconds below a second.
pub(super) fn seconds(seconds: f64) -> String {
    if seconds < 1.0 { format!("{:.2} ms", 1e3 * seconds) } else { format!("{seconds:.3} s") }
}
