//! Sizes of memory as people write them.

use bigmac_schedule::Budget;
use serde::{Deserialize, Serialize};

/// A size of memory: in a configuration a number with its unit, as in `512MiB`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Bytes(pub u64);

impl TryFrom<String> for Bytes {
    type Error = String;

    fn try_from(text: String) -> Result<Bytes, String> {
        match text.parse() {
            Ok(Budget::Bytes(bytes)) => Ok(Bytes(bytes)),
            _ => Err(format!("'{text}' is not a size of memory; give a number with its unit, as in 512MiB")),
        }
    }
}

impl From<Bytes> for String {
    /// In the largest unit that divides it.
    fn from(Bytes(bytes): Bytes) -> String {
        let units = [("GiB", 30), ("MiB", 20), ("KiB", 10)];
        let (unit, shift) = units
            .into_iter()
            .find(|(_, shift)| bytes > 0 && bytes.trailing_zeros() >= *shift)
            .unwrap_or(("B", 0));
        format!("{}{unit}", bytes >> shift)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_written_as_they_are_read() {
        for text in ["512MiB", "3GiB", "1KiB", "1025B", "0B"] {
            assert_eq!(String::from(Bytes::try_from(text.to_owned()).unwrap()), text);
        }
        assert_eq!(Bytes::try_from("0.5KiB".to_owned()), Ok(Bytes(512)));
        for text in ["512", "2mb", "-1B", "", "12 eggs"] {
            assert!(Bytes::try_from(text.to_owned()).unwrap_err().contains("as in 512MiB"), "{text}");
        }
    }
}
