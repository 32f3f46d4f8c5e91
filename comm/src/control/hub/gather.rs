//! Parts of all ranks that are gathered.

use std::collections::BTreeMap;

/// One gather that is not complete.
struct Gathering {
    what: String,
    /// Who came first.
    first: usize,
    parts: Vec<Option<Vec<u8>>>,
}

/// All gathers that are not complete, by their number.
#[derive(Default)]
pub(super) struct Gatherings(BTreeMap<u64, Gathering>);

impl Gatherings {
    /// Adds the part of `rank` of `world`; all parts, once they are there.
    ///
    /// # Errors
    /// What the rank did otherwise than another one, in words.
    pub fn add(
        &mut self,
        world: usize,
        rank: usize,
        number: u64,
        what: String,
        part: Vec<u8>,
    ) -> Result<Option<Vec<Vec<u8>>>, String> {
        let new = || Gathering { what: what.clone(), first: rank, parts: vec![None; world] };
        let gathering = self.0.entry(number).or_insert_with(new);
        if gathering.what != what {
            return Err(format!(
                "it gathers {what:?} where rank {} gathers {:?}: all ranks must gather the same, in the same order",
                gathering.first, gathering.what
            ));
        }
        if gathering.parts[rank].replace(part).is_some() {
            return Err(format!("it gathers {what:?} twice under the same number"));
        }
        if gathering.parts.iter().any(Option::is_none) {
            return Ok(None);
        }
        Ok(self.0.remove(&number).map(|complete| complete.parts.into_iter().flatten().collect()))
    }

    /// What is gathered and still waits for a part of one of these ranks, and that rank.
    pub fn waits_for(&self, ranks: &[usize]) -> Option<(&str, usize)> {
        self.0.values().find_map(|gathering| {
            let missing = ranks.iter().find(|&&rank| gathering.parts[rank].is_none())?;
            Some((gathering.what.as_str(), *missing))
        })
    }
}
