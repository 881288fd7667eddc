//! The cluster's secret: made, kept in files that only their owner may read, and derived into keys.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use hkdf::Hkdf;
use sha2::Sha256;

use crate::error::{Problem, ProblemKind, Result};

/// 32 random bytes that every member of a cluster holds. Never shown, never sent.
#[derive(Clone, PartialEq, Eq)]
pub struct ClusterSecret([u8; 32]);

impl std::fmt::Debug for ClusterSecret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ClusterSecret(…)")
    }
}

impl ClusterSecret {
    /// A fresh secret.
    ///
    /// # Panics
    /// When the operating system has no randomness to give.
    pub fn generate() -> Self {
        let mut bytes = [0; 32];
        getrandom::fill(&mut bytes).expect("the operating system gives random bytes");
        Self(bytes)
    }

    /// Reads a secret: 64 hexadecimal digits in a file that only its owner may read.
    ///
    /// # Errors
    /// `NotFound` without the file; `Denied` when others may read it; `Invalid` when it holds something else.
    pub fn load(path: &Path) -> Result<Self> {
        let shown = path.display();
        let meta = fs::metadata(path).map_err(|error| match error.kind() {
            std::io::ErrorKind::NotFound => Problem::not_found(format!("no cluster secret at {shown}")),
            _ => Problem::new(
                ProblemKind::Denied,
                format!("cannot read the cluster secret {shown}: {error}"),
            ),
        })?;
        if meta.permissions().mode() & 0o077 != 0 {
            return Err(Problem::new(
                ProblemKind::Denied,
                format!("others may read the cluster secret {shown}; run: chmod 600 {shown}"),
            ));
        }
        let text = fs::read_to_string(path)
            .map_err(|error| Problem::new(ProblemKind::Denied, format!("cannot read {shown}: {error}")))?;
        Self::parse(text.trim()).ok_or_else(|| {
            Problem::invalid(format!("{shown} is not a cluster secret (64 hexadecimal digits)"))
        })
    }

    /// Writes the secret to a new file, 0600, with its folder.
    ///
    /// # Errors
    /// `Exists` when there is a file already; `Failed` when it can't be written.
    pub fn save_new(&self, path: &Path) -> Result<()> {
        self.write(path, fs::OpenOptions::new().create_new(true))
    }

    /// Writes the secret, 0600, in place of what may be there.
    ///
    /// # Errors
    /// `Failed` when it can't be written.
    pub fn save(&self, path: &Path) -> Result<()> {
        // A file of wider rights would keep them: make it anew.
        match fs::remove_file(path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(unwritable(path, &error)),
            _ => self.save_new(path),
        }
    }

    fn write(&self, path: &Path, how: &mut fs::OpenOptions) -> Result<()> {
        if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
            fs::create_dir_all(folder).map_err(|error| unwritable(path, &error))?;
        }
        let mut file = how
            .write(true)
            .mode(0o600)
            .open(path)
            .map_err(|error| unwritable(path, &error))?;
        let text: String = self.0.iter().map(|byte| format!("{byte:02x}")).collect();
        writeln!(file, "{text}")
            .and_then(|()| file.sync_all())
            .map_err(|error| unwritable(path, &error))
    }

    fn parse(text: &str) -> Option<Self> {
        if text.len() != 64 || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return None;
        }
        let mut bytes = [0; 32];
        for (byte, digits) in bytes.iter_mut().zip(text.as_bytes().chunks(2)) {
            *byte = u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?;
        }
        Some(Self(bytes))
    }

    /// A key for one purpose (HKDF-SHA256, RFC 5869, without salt).
    pub fn derive(&self, purpose: &str) -> [u8; 32] {
        let mut key = [0; 32];
        Hkdf::<Sha256>::new(None, &self.0)
            .expand(purpose.as_bytes(), &mut key)
            .expect("32 bytes are within HKDF's limit");
        key
    }

    /// Where a user keeps the secret of the nameserver at `address`: `~/.config/blockyard/ADDRESS.secret`
    /// (`$XDG_CONFIG_HOME` honoured); `None` without a home.
    pub fn user_path(address: &str) -> Option<PathBuf> {
        let config = std::env::var_os("XDG_CONFIG_HOME")
            .filter(|folder| !folder.is_empty())
            .map(PathBuf::from)
            .or_else(|| std::env::var_os("HOME").map(|home| Path::new(&home).join(".config")))?;
        let name: String = address
            .chars()
            .map(|c| if c.is_alphanumeric() || c == '.' { c } else { '_' })
            .collect();
        Some(config.join("blockyard").join(format!("{name}.secret")))
    }
}

fn unwritable(path: &Path, error: &std::io::Error) -> Problem {
    let kind = match error.kind() {
        std::io::ErrorKind::AlreadyExists => ProblemKind::Exists,
        _ => ProblemKind::Failed,
    };
    Problem::new(
        kind,
        format!("cannot write the cluster secret {}: {error}", path.display()),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_keeps_the_secret_and_its_rights() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("deep/cluster.secret");
        let secret = ClusterSecret::generate();
        secret.save_new(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert!(ClusterSecret::load(&path).unwrap() == secret);
        assert_eq!(secret.save_new(&path).unwrap_err().kind, ProblemKind::Exists);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        assert_eq!(ClusterSecret::load(&path).unwrap_err().kind, ProblemKind::Denied);
        let other = ClusterSecret::generate();
        other.save(&path).unwrap();
        assert!(ClusterSecret::load(&path).unwrap() == other);
        fs::write(&path, "short").unwrap();
        assert_eq!(ClusterSecret::load(&path).unwrap_err().kind, ProblemKind::Invalid);
        assert_eq!(
            ClusterSecret::load(&folder.path().join("none")).unwrap_err().kind,
            ProblemKind::NotFound
        );
    }

    #[test]
    fn nothing_prints_it() {
        let secret = ClusterSecret([0xab; 32]);
        assert!(!format!("{secret:?}").contains("ab"));
        assert_ne!(secret.derive("a"), secret.derive("b"));
    }
}
