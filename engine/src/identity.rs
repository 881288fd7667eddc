//! volume.toml: who a volume is. Written beside and renamed in, once at formatting and once per opening.

use std::fs;
use std::io;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::core::hex;
use crate::error::{Error, Result};
use crate::folder::Folder;
use crate::layout::FORMAT;
use crate::types::Identity;

/// The file's name.
pub(crate) const FILE: &str = "volume.toml";
const COMMENT: &str = "# A Blockyard volume. Don't edit: the volume's data is tied to these ids.\n";

#[derive(Serialize, Deserialize)]
struct Text {
    format: u32,
    cluster: String,
    volume: String,
    incarnation: String,
    generation: u64,
}

/// The identity as the file's text.
pub(crate) fn encode(identity: &Identity) -> Result<String> {
    let text = Text {
        format: identity.format,
        cluster: hex(&identity.cluster),
        volume: hex(&identity.volume),
        incarnation: hex(&identity.incarnation),
        generation: identity.generation,
    };
    let body = toml::to_string(&text).map_err(|error| Error::damaged(format!("{FILE}: {error}")))?;
    Ok(format!("{COMMENT}{body}"))
}

/// Reads the file's text.
pub(crate) fn decode(bytes: &[u8]) -> Result<Identity> {
    let damaged = |what: String| Error::damaged(format!("{FILE}: {what}"));
    let text = std::str::from_utf8(bytes).map_err(|error| damaged(error.to_string()))?;
    let text: Text = toml::from_str(text).map_err(|error| damaged(error.to_string()))?;
    if text.format != FORMAT {
        return Err(Error::Format {
            found: text.format,
            supported: FORMAT,
        });
    }
    let id = |digits: &str| unhex(digits).ok_or_else(|| damaged(format!("{digits:?} is no id")));
    Ok(Identity {
        cluster: id(&text.cluster)?,
        volume: id(&text.volume)?,
        incarnation: id(&text.incarnation)?,
        generation: text.generation,
        format: text.format,
    })
}

fn unhex(digits: &str) -> Option<[u8; 16]> {
    let valid = digits.len() == 32 && digits.bytes().all(|digit| digit.is_ascii_hexdigit());
    valid.then(|| u128::from_str_radix(digits, 16).ok().map(u128::to_be_bytes))?
}

/// Makes `dir` (made where it is missing, empty otherwise) a volume.
pub(crate) fn format(dir: &Path, cluster: [u8; 16]) -> Result<Identity> {
    let at = |doing: &str| format!("{doing} {}", dir.display());
    fs::create_dir_all(dir).map_err(Error::io(at("making")))?;
    let mut names = Vec::new();
    for entry in fs::read_dir(dir).map_err(Error::io(at("listing")))? {
        names.push(entry.map_err(Error::io(at("listing")))?.file_name());
    }
    // `lost+found` is what a fresh ext4 has; `lock` and the temporary what an interrupted formatting leaves.
    let ours = ["lost+found", "lock", "volume.toml.new"];
    if names.iter().any(|name| !ours.iter().any(|known| name == known)) {
        return Err(Error::ForeignFolder { dir: dir.to_owned() });
    }
    let folder = Folder::lock(dir)?;
    let mut random = [0; 32];
    getrandom::fill(&mut random)
        .map_err(|error| Error::io("drawing ids")(io::Error::other(error.to_string())))?;
    let identity = new_identity(cluster, &random);
    folder
        .replace(FILE, encode(&identity)?.as_bytes())
        .map_err(Error::io(at("writing volume.toml in")))?;
    Ok(identity)
}

/// A fresh volume's identity, from 32 random bytes.
pub(crate) fn new_identity(cluster: [u8; 16], random: &[u8; 32]) -> Identity {
    let mut identity = Identity {
        cluster,
        volume: [0; 16],
        incarnation: [0; 16],
        generation: 0,
        format: FORMAT,
    };
    identity.volume.copy_from_slice(&random[..16]);
    identity.incarnation.copy_from_slice(&random[16..]);
    identity
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identities_come_back() {
        let identity = new_identity([0xab; 16], &[0x0c; 32]);
        assert_eq!(decode(encode(&identity).unwrap().as_bytes()).unwrap(), identity);
    }

    #[test]
    fn nonsense_is_refused() {
        assert!(matches!(decode(b"\xff\xfe"), Err(Error::Damaged { .. })));
        assert!(matches!(decode(b"format = 1"), Err(Error::Damaged { .. })));
        let text = encode(&new_identity([1; 16], &[2; 32])).unwrap();
        let newer = text.replace("format = 1", "format = 99");
        assert!(matches!(
            decode(newer.as_bytes()),
            Err(Error::Format { found: 99, .. })
        ));
        let short = text.replace("0202", "02");
        assert!(matches!(decode(short.as_bytes()), Err(Error::Damaged { .. })));
        let signed = text.replacen("01010101", "+1010101", 1);
        assert!(matches!(decode(signed.as_bytes()), Err(Error::Damaged { .. })));
    }

    #[test]
    fn only_empty_folders_are_formatted() {
        let dir = tempfile::tempdir().unwrap();
        format(&dir.path().join("new"), [1; 16]).unwrap();
        assert!(matches!(
            format(&dir.path().join("new"), [1; 16]),
            Err(Error::ForeignFolder { .. })
        ));
        assert!(matches!(
            format(dir.path(), [1; 16]),
            Err(Error::ForeignFolder { .. })
        ));
    }
}
