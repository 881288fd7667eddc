//! Commands and answers about names: make, move, remove, describe, list.

use std::collections::BTreeMap;
use std::ops::Bound;

use blockyard_wire::types::{BlockId, FileInfo};
use blockyard_wire::{Problem, ProblemKind, Result};

use super::blocks::REPLICATION_MAX;
use super::namespace::{Body, Found, Inode, ROOT, taken};
use super::{Outcome, State};
use crate::path;

/// Entries of the longest list.
pub const LIST_MAX: usize = 1000;
/// Bytes of paths after which a list ends: an answer has to fit into a message of 1 MiB.
const LIST_BYTES_MAX: usize = 512 * 1024;

impl State {
    /// What is at `path`.
    ///
    /// # Errors
    /// `NotFound`, or `Invalid` for a path that can't be.
    pub fn lookup(&self, path: &str) -> Result<FileInfo> {
        match self.names.find(&path::parts(path)?)? {
            Found::Directory(id) | Found::File(id, _) => Ok(self.info(id)),
        }
    }

    /// Entries below the directory `path`: its children in the order of their names, or, `recursive`, all
    /// below it in the order of their paths, part by part. `prefix` filters on the path below `path`, `after`
    /// is the last one already seen. Whether there are more than `limit` (at most [`LIST_MAX`]).
    ///
    /// # Errors
    /// `NotFound`; `Invalid` for a path that can't be or is a file's.
    pub fn list(
        &self,
        path: &str,
        prefix: &str,
        after: &str,
        limit: usize,
        recursive: bool,
    ) -> Result<(Vec<FileInfo>, bool)> {
        let mut base_parts = path::parts(path)?;
        let Found::Directory(mut base) = self.names.find(&base_parts)? else {
            return Err(Problem::invalid(format!(
                "{} is a file, not a directory",
                path::joined(&base_parts)
            )));
        };
        let mut after = path::parts(after)?;
        let mut name_prefix = prefix;
        if recursive && let Some((folders, name)) = prefix.rsplit_once('/') {
            // Only one folder can hold what fits: go there, and skip what `after` has left behind.
            let folders = path::parts(folders)?;
            base_parts.extend(&folders);
            match self.names.find(&base_parts) {
                Ok(Found::Directory(id)) => base = id,
                _ => return Ok((Vec::new(), false)),
            }
            after = match after.get(..folders.len()) {
                Some(head) if head == folders => after.split_off(folders.len()),
                _ if after > folders => return Ok((Vec::new(), false)),
                _ => Vec::new(),
            };
            name_prefix = name;
        }
        if after
            .first()
            .is_some_and(|first| *first < name_prefix && !first.starts_with(name_prefix))
        {
            after = Vec::new();
        }
        let depth = base_parts.len();
        let limit = limit.clamp(1, LIST_MAX);
        let mut entries = Vec::new();
        let mut path_bytes = 0;
        for id in self.from(base, name_prefix, &after, recursive) {
            let info = self.info(id);
            let fits = info
                .path
                .split('/')
                .nth(depth + 1)
                .is_some_and(|name| name.starts_with(name_prefix));
            if !fits {
                break;
            }
            if entries.len() == limit || path_bytes > LIST_BYTES_MAX {
                return Ok((entries, true));
            }
            path_bytes += info.path.len() + info.content_type.len();
            entries.push(info);
        }
        Ok((entries, false))
    }

    /// Entries from the first whose name begins with `prefix`, or behind `after`.
    fn from<'a>(
        &'a self,
        base: u64,
        prefix: &str,
        after: &[&str],
        recursive: bool,
    ) -> Box<dyn Iterator<Item = u64> + 'a> {
        if !after.is_empty() || prefix.is_empty() {
            return Box::new(self.names.below(base, after, recursive));
        }
        let entries: &BTreeMap<_, _> = self.names.entries(base);
        let range = (Bound::Included(prefix), Bound::Unbounded);
        let tops = entries.range::<str, _>(range).map(|(_, &id)| id);
        Box::new(tops.flat_map(move |id| {
            let below = recursive.then(|| self.names.below(id, &[], true));
            std::iter::once(id).chain(below.into_iter().flatten())
        }))
    }

    /// What people are told of an inode.
    pub(crate) fn info(&self, id: u64) -> FileInfo {
        let Some(Inode {
            name,
            created_unix_ms,
            body,
            ..
        }) = self.names.get(id)
        else {
            return FileInfo::default();
        };
        let info = FileInfo {
            path: self.names.path_of(id),
            name: name.to_string(),
            created_unix_ms: *created_unix_ms,
            ..FileInfo::default()
        };
        match body {
            Body::Directory(inside) => FileInfo {
                directory: true,
                modified_unix_ms: inside.modified_unix_ms,
                children: inside.entries.len() as u32,
                ..info
            },
            Body::File { version } => {
                let Some(row) = self.versions.get(*version) else {
                    return info;
                };
                FileInfo {
                    version: *version,
                    size_bytes: row.size_bytes,
                    crc32c: row.crc32c,
                    blocks: row.blocks.ids().len() as u32,
                    modified_unix_ms: row.published_unix_ms,
                    replication: row.replication,
                    content_type: row.content_type.as_deref().unwrap_or_default().to_owned(),
                    ..info
                }
            }
        }
    }

    pub(super) fn set_replication(
        &mut self,
        path: &str,
        recursive: bool,
        replication: u8,
    ) -> Result<Outcome> {
        self.can_set_replication(path, recursive, replication)?;
        let (Found::Directory(top) | Found::File(top, _)) = self.names.find(&path::parts(path)?)?;
        let all = std::iter::once(top).chain(self.names.below(top, &[], true));
        let versions: Vec<u64> = all
            .filter_map(|id| match self.names.get(id)?.body {
                Body::File { version } => Some(version),
                Body::Directory(_) => None,
            })
            .collect();
        for version in &versions {
            let Some(row) = self.versions.get_mut(*version) else {
                continue;
            };
            row.replication = replication;
            row.blocks
                .ids()
                .iter()
                .for_each(|block| self.blocks.want(BlockId(*block), replication));
        }
        Ok(Outcome::Replicated {
            files: versions.len() as u64,
        })
    }

    /// Refuses another number of replicas that can't be.
    ///
    /// # Errors
    /// `NotFound`; `Invalid` for a number that is too high or low, or a directory that was not meant.
    pub fn can_set_replication(&self, path: &str, recursive: bool, replication: u8) -> Result<()> {
        if replication == 0 || replication > REPLICATION_MAX {
            return Err(Problem::invalid(format!(
                "replication {replication} is not between 1 and {REPLICATION_MAX}"
            )));
        }
        let parts = path::parts(path)?;
        match self.names.find(&parts)? {
            Found::Directory(_) if !recursive => Err(Problem::invalid(format!(
                "{} is a directory; set the replication of all files below it recursively (-r)",
                path::joined(&parts)
            ))),
            _ => Ok(()),
        }
    }

    pub(super) fn mkdir(&mut self, path: &str, parents: bool, at_unix_ms: u64) -> Result<Outcome> {
        let parts = path::parts(path)?;
        let (found, left) = self.names.walk(&parts)?;
        match (found, left) {
            (Found::Directory(_), 0) if parents => {}
            (found, 0) => return Err(taken(&path::joined(&parts), found)),
            (_, 1) => {}
            (_, _) if parents => {}
            (_, left) => return Err(no_parent(&parts, left)),
        }
        let id = self.names.make_directories(&parts, at_unix_ms)?;
        Ok(Outcome::Made {
            file: Box::new(self.info(id)),
        })
    }

    pub(super) fn rename(
        &mut self,
        from: &str,
        to: &str,
        overwrite: bool,
        at_unix_ms: u64,
    ) -> Result<Outcome> {
        let (from, to) = (path::parts(from)?, path::parts(to)?);
        let (Found::Directory(id) | Found::File(id, _)) = self.names.find(&from)?;
        let found = self.names.find(&from)?;
        let Some((name, _)) = to.split_last().filter(|_| id != ROOT) else {
            return Err(Problem::invalid("the root can't be moved or replaced"));
        };
        let (at, left) = self.names.walk(&to)?;
        let parent = match (at, left) {
            (Found::Directory(there) | Found::File(there, _), 0) if there == id => return Ok(Outcome::Done),
            (Found::File(there, version), 0) if overwrite && matches!(found, Found::File(..)) => {
                let parent = self.names.get(there).map_or(ROOT, |inode| inode.parent);
                self.names.remove(there, at_unix_ms);
                self.condemn(version, at_unix_ms);
                parent
            }
            (there, 0) => return Err(taken(&path::joined(&to), there)),
            (Found::Directory(parent), 1) => parent,
            (_, left) => return Err(no_parent(&to, left)),
        };
        if self.names.is_within(parent, id) {
            return Err(Problem::invalid(format!(
                "{} can't be moved into itself ({})",
                path::joined(&from),
                path::joined(&to)
            )));
        }
        self.names.rename(id, parent, name, at_unix_ms);
        Ok(Outcome::Done)
    }

    /// What is at a path that may be removed.
    ///
    /// # Errors
    /// `NotFound`; `Invalid` for the root, and for a directory with entries unless `recursive`.
    pub fn removable(&self, path: &str, recursive: bool) -> Result<u64> {
        let parts = path::parts(path)?;
        match self.names.find(&parts)? {
            Found::Directory(ROOT) => Err(Problem::invalid("the root can't be removed")),
            Found::Directory(id) if !recursive && !self.names.entries(id).is_empty() => Err(Problem::new(
                ProblemKind::Invalid,
                format!(
                    "{} is a directory with entries; remove it recursively (-r)",
                    path::joined(&parts)
                ),
            )),
            Found::Directory(id) | Found::File(id, _) => Ok(id),
        }
    }

    pub(super) fn remove(&mut self, path: &str, recursive: bool, at_unix_ms: u64) -> Result<Outcome> {
        let id = self.removable(path, recursive)?;
        let versions = self.names.remove(id, at_unix_ms);
        let files = versions.len() as u64;
        let bytes = versions
            .into_iter()
            .map(|version| self.condemn(version, at_unix_ms))
            .sum();
        Ok(Outcome::Removed { files, bytes })
    }
}

fn no_parent(parts: &[&str], left: usize) -> Problem {
    Problem::not_found(format!(
        "there is no directory {}",
        path::joined(&parts[..parts.len() - left + 1])
    ))
}
