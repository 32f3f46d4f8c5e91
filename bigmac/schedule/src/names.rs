//! Names that a user gives: looked up among the known ones, with the nearest of those where none matches.

use thiserror::Error;

/// Names less alike than this (Jaro-Winkler, from 0 to 1) are not meant.
const ALIKE: f64 = 0.7;

/// A name that is not among the known ones.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("'{given}' is not a valid {kind}{}; expected one of: {}", hint(nearest.as_deref()), known.join(", "))]
#[allow(missing_docs)]
pub struct UnknownName {
    pub kind: &'static str,
    pub given: String,
    pub nearest: Option<String>,
    pub known: Vec<&'static str>,
}

/// The one of `all` that has this name.
///
/// # Errors
/// Where no name matches, with the nearest and all known ones.
pub fn find<T: Copy>(
    kind: &'static str,
    given: &str,
    all: &[T],
    name: impl Fn(T) -> &'static str,
) -> Result<T, UnknownName> {
    all.iter().copied().find(|one| name(*one) == given).ok_or_else(|| {
        let known: Vec<&'static str> = all.iter().map(|one| name(*one)).collect();
        let nearest = nearest(given, known.iter().copied()).map(str::to_owned);
        UnknownName { kind, given: given.to_owned(), nearest, known }
    })
}

/// The known name most like what was given, if any is like it.
pub fn nearest<'a>(given: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let alike = known.into_iter().map(|name| (strsim::jaro_winkler(given, name), name));
    alike.filter(|(likeness, _)| *likeness > ALIKE).max_by(|a, b| a.0.total_cmp(&b.0)).map(|(_, name)| name)
}

/// What follows the name that was given in a message: ` (did you mean 'NEAREST'?)`, or nothing.
pub fn hint(nearest: Option<&str>) -> String {
    nearest.map(|name| format!(" (did you mean '{name}'?)")).unwrap_or_default()
}
