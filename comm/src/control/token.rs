//! The secret that the ranks of a job share. It keeps strangers out, and the ranks of other jobs.

use super::error::ControlError;
use sha2::{Digest, Sha256};
use std::fs::File;
use std::io::Read;
use std::path::Path;

/// The longest token, in bytes.
const LONGEST: u64 = 4096;

/// A secret text. It never crosses the network, and printing it shows nothing of it.
#[derive(Clone)]
pub struct Token(String);

impl std::fmt::Debug for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Token(..)")
    }
}

impl Token {
    /// A token that somebody chose; spaces and line ends around it do not count. `from` says in messages where it came
    /// from: "in BIGMAC_TOKEN".
    ///
    /// # Errors
    /// [`ControlError::EmptyToken`].
    pub fn new(text: &str, from: &str) -> Result<Token, ControlError> {
        match text.trim() {
            "" => Err(ControlError::EmptyToken { from: from.into() }),
            text => Ok(Token(text.into())),
        }
    }

    /// The token in a file.
    ///
    /// # Errors
    /// [`ControlError::TokenFile`] for a file that cannot be read, is not text or is longer than 4096 bytes;
    /// [`ControlError::EmptyToken`].
    pub fn from_file(path: &Path) -> Result<Token, ControlError> {
        let wrong = |cause: String| ControlError::TokenFile { path: path.into(), cause };
        let mut text = String::new();
        let file = File::open(path).map_err(|error| wrong(error.to_string()))?;
        let read = file.take(LONGEST + 1).read_to_string(&mut text);
        read.map_err(|error| wrong(error.to_string()))?;
        if text.len() as u64 > LONGEST {
            return Err(wrong(format!("it is longer than {LONGEST} bytes")));
        }
        Token::new(&text, &format!("in {}", path.display()))
    }

    /// A token that no one can guess: 256 random bits as hexadecimal digits.
    ///
    /// # Errors
    /// [`ControlError::System`] when the system has no random numbers.
    pub fn random() -> Result<Token, ControlError> {
        let bits = random().map_err(ControlError::system("random numbers"))?;
        Ok(Token(bits.iter().map(|byte| format!("{byte:02x}")).collect()))
    }

    /// The secret itself, to be handed to a child or an engine: never to be printed or logged.
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// What shows to somebody who knows the token, and drew `nonce`, that the sender knows it too: HMAC-SHA256
    /// (RFC 2104).
    pub(super) fn proof(&self, nonce: &[u8; 32]) -> [u8; 32] {
        let mut key = [0; 64];
        key[..32].copy_from_slice(&Sha256::digest(self.0.as_bytes()));
        let keyed = |pad: u8, message: &[u8]| -> [u8; 32] {
            Sha256::new().chain_update(key.map(|byte| byte ^ pad)).chain_update(message).finalize().into()
        };
        keyed(0x5c, &keyed(0x36, nonce))
    }

    /// Whether `proof` was made with this token, in a time that does not depend on where it differs.
    pub(super) fn proves(&self, nonce: &[u8; 32], proof: &[u8]) -> bool {
        let expected = self.proof(nonce);
        let differing = expected.iter().zip(proof).fold(0, |all, (a, b)| all | (a ^ b));
        proof.len() == expected.len() && std::hint::black_box(differing) == 0
    }
}

/// 256 random bits of the system.
pub(super) fn random() -> std::io::Result<[u8; 32]> {
    let mut bits = [0; 32];
    File::open("/dev/urandom")?.read_exact(&mut bits)?;
    Ok(bits)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_same_token_and_nonce_prove() {
        let (one, other) = (Token::random().unwrap(), Token::random().unwrap());
        let (nonce, another) = (random().unwrap(), random().unwrap());
        let proof = one.proof(&nonce);
        assert!(one.proves(&nonce, &proof));
        assert!(Token::new(one.expose(), "").unwrap().proves(&nonce, &proof));
        assert!(!other.proves(&nonce, &proof));
        assert!(!one.proves(&another, &proof));
        assert!(!one.proves(&nonce, &proof[..31]));
        assert!(!one.proves(&nonce, &[]));
        for place in 0..32 {
            let mut wrong = proof;
            wrong[place] ^= 1;
            assert!(!one.proves(&nonce, &wrong));
        }
    }

    #[test]
    fn what_is_printed_holds_nothing_of_the_secret() {
        let token = Token::new(" sesame\n", "in a test").unwrap();
        assert_eq!(token.expose(), "sesame");
        assert_eq!(format!("{token:?}"), "Token(..)");
        let empty = Token::new(" \n", "in BIGMAC_TOKEN").unwrap_err();
        assert_eq!(
            empty.to_string(),
            "the token in BIGMAC_TOKEN is empty; expected any secret text, the same on all hosts"
        );
        assert_eq!(Token::random().unwrap().expose().len(), 64);
    }

    #[test]
    fn files_that_hold_no_token_are_named() {
        let missing = Token::from_file(Path::new("/nowhere/token")).unwrap_err();
        assert!(missing.to_string().starts_with("cannot read the token from /nowhere/token: "), "{missing}");
        assert!(missing.is_input());
        // Longer than any token, without an end.
        let endless = Token::from_file(Path::new("/dev/zero")).unwrap_err();
        assert!(endless.to_string().ends_with("it is longer than 4096 bytes"), "{endless}");
        let empty = Token::from_file(Path::new("/dev/null")).unwrap_err();
        assert!(matches!(empty, ControlError::EmptyToken { .. }), "{empty}");
    }
}
