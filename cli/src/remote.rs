//! Paths in the cluster as users type them; the nameserver alone decides which are allowed.

/// A path and whether it was written as a folder.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Remote {
    /// From the root, without a slash at its end (the root itself is `/`).
    pub path: String,
    /// It ended in a slash.
    pub folder: bool,
}

impl Remote {
    /// Reads what the user typed: the leading slash may be missing.
    pub fn parse(text: &str) -> Self {
        let parts = text.trim_matches('/');
        Self {
            path: format!("/{parts}"),
            folder: parts.is_empty() || text.ends_with('/'),
        }
    }

    /// The path of `name` in this folder.
    pub fn join(&self, name: &str) -> Self {
        Self {
            path: join(&self.path, name),
            folder: false,
        }
    }

    /// The last part of the path; empty for the root.
    pub fn name(&self) -> &str {
        name(&self.path)
    }
}

/// `folder` + `name`
pub fn join(folder: &str, name: &str) -> String {
    format!("{}/{name}", folder.trim_end_matches('/'))
}

/// The last part of `path`; empty for the root.
pub fn name(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or_default()
}

/// The folder that holds `path`.
pub fn parent(path: &str) -> &str {
    match path.rsplit_once('/') {
        Some((folder, _)) if !folder.is_empty() => folder,
        _ => "/",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths() {
        for (text, path, folder) in [
            ("a", "/a", false),
            ("/a/b", "/a/b", false),
            ("a/", "/a", true),
            ("/", "/", true),
            ("", "/", true),
            ("//a//", "/a", true),
        ] {
            assert_eq!(
                Remote::parse(text),
                Remote {
                    path: path.into(),
                    folder
                },
                "{text}"
            );
        }
        assert_eq!(Remote::parse("/").join("x").path, "/x");
        assert_eq!(Remote::parse("a/b").join("x").path, "/a/b/x");
        assert_eq!(name("/a/b"), "b");
        assert_eq!(name("/"), "");
        assert_eq!(parent("/a/b"), "/a");
        assert_eq!(parent("/a"), "/");
    }
}
