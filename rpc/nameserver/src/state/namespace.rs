//! Names: a tree of directories and files by inode, in which a rename moves one entry.
//!
//! Knows no blocks: a file points at a version by id.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;

use blockyard_wire::{Problem, ProblemKind, Result};
use serde::{Deserialize, Serialize};

use super::table::Table;
use crate::path;

/// The root's inode.
pub const ROOT: u64 = 1;
/// The parent of what lies in the trash: no inode.
pub const NOWHERE: u64 = 0;

/// What a name stands for.
#[derive(Clone, Debug)]
pub struct Inode {
    /// Inode of the directory that holds it; of the root its own.
    pub parent: u64,
    /// Last part of the path, shared with the directory's entry.
    pub name: Arc<str>,
    /// First made, milliseconds since 1970.
    pub created_unix_ms: u64,
    /// File or directory.
    pub body: Body,
}

/// File or directory.
#[derive(Clone, Debug)]
pub enum Body {
    /// What is in a directory: boxed, because nearly all inodes are files.
    Directory(Box<Directory>),
    /// The current version of a file.
    File {
        /// Its id.
        version: u64,
    },
}

/// What is in a directory.
#[derive(Clone, Debug, Default)]
pub struct Directory {
    /// Inodes by name.
    pub entries: BTreeMap<Arc<str>, u64>,
    /// When they last changed, milliseconds since 1970.
    pub modified_unix_ms: u64,
}

const _: () = assert!(size_of::<Inode>() <= 48);

/// An inode as a snapshot holds it: entries follow from the inodes' parents.
#[derive(Serialize, Deserialize)]
pub struct InodeRow<'a> {
    parent: u64,
    name: &'a str,
    created_unix_ms: u64,
    /// The version of a file, or `None` and when a directory's entries changed.
    version: Option<u64>,
    modified_unix_ms: u64,
}

/// What was found at a path.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Found {
    /// A directory's inode.
    Directory(u64),
    /// A file's inode and version.
    File(u64, u64),
}

/// The tree.
#[derive(Clone, Debug)]
pub struct Namespace {
    inodes: Table<Inode>,
    next: u64,
    files: u64,
}

impl Default for Namespace {
    fn default() -> Self {
        let mut inodes = Table::default();
        inodes.insert(ROOT, directory(ROOT, "".into(), 0));
        Self {
            inodes,
            next: ROOT + 1,
            files: 0,
        }
    }
}

fn directory(parent: u64, name: Arc<str>, at_unix_ms: u64) -> Inode {
    let body = Body::Directory(Box::new(Directory {
        entries: BTreeMap::new(),
        modified_unix_ms: at_unix_ms,
    }));
    Inode {
        parent,
        name,
        created_unix_ms: at_unix_ms,
        body,
    }
}

impl Namespace {
    /// Files there are.
    pub fn files(&self) -> u64 {
        self.files
    }

    /// Directories there are, the root not counted.
    pub fn directories(&self) -> u64 {
        self.inodes.len() as u64 - self.files - 1
    }

    /// The inode of `id`.
    pub fn get(&self, id: u64) -> Option<&Inode> {
        self.inodes.get(id)
    }

    /// What is at `parts`.
    ///
    /// # Errors
    /// `NotFound`; `Invalid` when a part before the last is a file.
    pub fn find(&self, parts: &[&str]) -> Result<Found> {
        match self.walk(parts)? {
            (found, 0) => Ok(found),
            (_, left) => {
                let (there, missing) = parts.split_at(parts.len() - left);
                let where_ = path::joined(there);
                Err(Problem::not_found(format!(
                    "no such file or directory: {} ('{where_}' has no '{}')",
                    path::joined(parts),
                    missing[0]
                )))
            }
        }
    }

    /// The deepest entry on the way to `parts`, and how many parts are missing below it.
    ///
    /// # Errors
    /// `Invalid` when a part before the last is a file.
    pub fn walk(&self, parts: &[&str]) -> Result<(Found, usize)> {
        let mut at = ROOT;
        for (depth, part) in parts.iter().enumerate() {
            let left = parts.len() - depth;
            let Some(&id) = self.entries(at).get(*part) else {
                return Ok((Found::Directory(at), left));
            };
            match self.found(id) {
                Found::Directory(directory) => at = directory,
                file if left == 1 => return Ok((file, 0)),
                Found::File(..) => {
                    return Err(Problem::invalid(format!(
                        "'{}' is a file, not a directory",
                        path::joined(&parts[..=depth])
                    )));
                }
            }
        }
        Ok((Found::Directory(at), 0))
    }

    /// The path of an inode; empty when there is none.
    pub fn path_of(&self, mut id: u64) -> String {
        let mut names = Vec::new();
        while id != ROOT {
            let Some(inode) = self.inodes.get(id) else {
                return String::new();
            };
            names.push(&*inode.name);
            id = inode.parent;
        }
        names.reverse();
        path::joined(&names)
    }

    /// The entries of a directory; none of a file.
    pub fn entries(&self, id: u64) -> &BTreeMap<Arc<str>, u64> {
        static NONE: BTreeMap<Arc<str>, u64> = BTreeMap::new();
        match self.inodes.get(id).map(|inode| &inode.body) {
            Some(Body::Directory(directory)) => &directory.entries,
            _ => &NONE,
        }
    }

    /// Whether an inode is a directory or a file.
    fn found(&self, id: u64) -> Found {
        match self.inodes.get(id).map(|inode| &inode.body) {
            Some(Body::File { version }) => Found::File(id, *version),
            _ => Found::Directory(id),
        }
    }

    /// Makes the directories of `parts` that are missing; the last one's inode.
    ///
    /// # Errors
    /// `Invalid` when a part is a file; nothing is made then.
    pub fn make_directories(&mut self, parts: &[&str], at_unix_ms: u64) -> Result<u64> {
        let (found, left) = self.walk(parts)?;
        let Found::Directory(mut at) = found else {
            return Err(Problem::invalid(format!(
                "'{}' is a file, not a directory",
                path::joined(parts)
            )));
        };
        for part in &parts[parts.len() - left..] {
            let name: Arc<str> = (*part).into();
            at = self.add(directory(at, name, at_unix_ms), at_unix_ms);
        }
        Ok(at)
    }

    /// Adds a file to the directory `parent`, which has no such entry.
    pub fn add_file(&mut self, parent: u64, name: &str, version: u64, at_unix_ms: u64) -> u64 {
        let body = Body::File { version };
        self.files += 1;
        self.add(
            Inode {
                parent,
                name: name.into(),
                created_unix_ms: at_unix_ms,
                body,
            },
            at_unix_ms,
        )
    }

    /// Points a file at another version; the one before.
    pub fn switch(&mut self, file: u64, version: u64) -> Option<u64> {
        match &mut self.inodes.get_mut(file)?.body {
            Body::File { version: current } => Some(std::mem::replace(current, version)),
            Body::Directory(_) => None,
        }
    }

    /// Takes an entry and all below it out; the versions of the files that were there.
    pub fn remove(&mut self, id: u64, at_unix_ms: u64) -> Vec<u64> {
        let mut versions = Vec::new();
        self.unlink(id, at_unix_ms);
        let mut left = vec![id];
        while let Some(id) = left.pop() {
            match self.inodes.remove(id).map(|inode| inode.body) {
                Some(Body::File { version }) => {
                    self.files -= 1;
                    versions.push(version);
                }
                Some(Body::Directory(directory)) => left.extend(directory.entries.values()),
                None => {}
            }
        }
        versions
    }

    /// Moves an entry to the directory `parent` under `name`, where there is none.
    pub fn rename(&mut self, id: u64, parent: u64, name: &str, at_unix_ms: u64) {
        self.unlink(id, at_unix_ms);
        let name: Arc<str> = name.into();
        if let Some(inode) = self.inodes.get_mut(id) {
            inode.parent = parent;
            inode.name = name.clone();
        }
        self.link(parent, name, id, at_unix_ms);
    }

    /// Whether `id` is `directory` or lies below it.
    pub fn is_within(&self, mut id: u64, directory: u64) -> bool {
        loop {
            if id == directory {
                return true;
            }
            match self.inodes.get(id) {
                Some(inode) if id != ROOT => id = inode.parent,
                _ => return false,
            }
        }
    }

    /// Entries below the directory `base`, in the order of their paths part by part, after the entry at
    /// `after` (parts below `base`; it need not be there any more). `descend` goes into directories, each
    /// behind its own entry.
    pub fn below<'a>(&'a self, base: u64, after: &[&str], descend: bool) -> Below<'a> {
        let mut stack = Vec::new();
        let mut at = base;
        for (depth, part) in after.iter().enumerate() {
            let range = (Bound::Excluded(*part), Bound::Unbounded);
            stack.push(self.entries(at).range::<str, _>(range));
            match self.entries(at).get(*part) {
                Some(&id) if descend && matches!(self.found(id), Found::Directory(_)) => at = id,
                _ => {
                    return Below {
                        names: self,
                        stack,
                        descend,
                    };
                }
            }
            if depth + 1 == after.len() {
                break;
            }
        }
        stack.push(self.entries(at).range::<str, _>(..));
        Below {
            names: self,
            stack,
            descend,
        }
    }

    /// Rows for a snapshot.
    pub fn rows(&self) -> impl Iterator<Item = (u64, InodeRow<'_>)> + '_ {
        self.inodes.iter().map(|(id, inode)| {
            let (version, modified_unix_ms) = match &inode.body {
                Body::File { version } => (Some(*version), 0),
                Body::Directory(directory) => (None, directory.modified_unix_ms),
            };
            let row = InodeRow {
                parent: inode.parent,
                name: &inode.name,
                created_unix_ms: inode.created_unix_ms,
                version,
                modified_unix_ms,
            };
            (id, row)
        })
    }

    /// The id that the next inode gets.
    pub fn next(&self) -> u64 {
        self.next
    }

    /// Takes an entry with all below it off its directory; it is nowhere then, and can be put somewhere.
    pub fn take_off(&mut self, id: u64, at_unix_ms: u64) {
        self.unlink(id, at_unix_ms);
        if let Some(inode) = self.inodes.get_mut(id) {
            inode.parent = NOWHERE;
        }
    }

    /// Files and directories at and below an entry: how many, and the files' versions.
    pub fn count(&self, id: u64) -> (Vec<u64>, u64) {
        let (mut versions, mut directories) = (Vec::new(), 0);
        let mut left = vec![id];
        while let Some(id) = left.pop() {
            match self.inodes.get(id).map(|inode| &inode.body) {
                Some(Body::File { version }) => versions.push(*version),
                Some(Body::Directory(directory)) => {
                    directories += 1;
                    left.extend(directory.entries.values());
                }
                None => {}
            }
        }
        (versions, directories)
    }

    /// A tree that a snapshot's rows are to be put into; its next inode gets this id.
    pub fn restoring(next: u64) -> Self {
        Self {
            inodes: Table::default(),
            next,
            files: 0,
        }
    }

    /// Puts a row of a snapshot in, in which children may come before their parents; [`Namespace::restored`] ends it.
    ///
    /// # Errors
    /// `Invalid` for an inode that can't be.
    pub fn restore(&mut self, id: u64, row: InodeRow<'_>) -> Result<()> {
        let body = match row.version {
            Some(version) => {
                self.files += 1;
                Body::File { version }
            }
            None => Body::Directory(Box::new(Directory {
                entries: BTreeMap::new(),
                modified_unix_ms: row.modified_unix_ms,
            })),
        };
        let inode = Inode {
            parent: row.parent,
            name: row.name.into(),
            created_unix_ms: row.created_unix_ms,
            body,
        };
        match id < self.next && self.inodes.insert(id, inode).is_none() {
            true => Ok(()),
            false => Err(broken(format!("inode {id}"))),
        }
    }

    /// Makes a tree of the rows, now that all are there; what is nowhere.
    ///
    /// # Errors
    /// `Invalid` when they are no tree.
    pub fn restored(&mut self) -> Result<Vec<u64>> {
        let mut nowhere = Vec::new();
        let mut children: Vec<(u64, u64)> = Vec::with_capacity(self.inodes.len());
        for (id, inode) in self.inodes.iter() {
            match inode.parent {
                _ if id == ROOT => {}
                NOWHERE => nowhere.push(id),
                parent => children.push((parent, id)),
            }
        }
        children.sort_unstable();
        for siblings in children.chunk_by(|one, next| one.0 == next.0) {
            let parent = siblings[0].0;
            let named = siblings
                .iter()
                .filter_map(|(_, id)| Some((self.inodes.get(*id)?.name.clone(), *id)));
            // All at once: the map's nodes are full then, and take half as much memory.
            let entries: BTreeMap<_, _> = named.collect();
            match self.inodes.get_mut(parent).map(|inode| &mut inode.body) {
                Some(Body::Directory(directory)) if entries.len() == siblings.len() => {
                    directory.entries = entries;
                }
                _ => return Err(broken(format!("what is in inode {parent}"))),
            }
        }
        match self.inodes.get(ROOT).map(|inode| &inode.body) {
            Some(Body::Directory(_)) => Ok(nowhere),
            _ => Err(broken("no root".to_owned())),
        }
    }

    fn add(&mut self, inode: Inode, at_unix_ms: u64) -> u64 {
        let id = self.next;
        self.next += 1;
        let (parent, name) = (inode.parent, inode.name.clone());
        self.inodes.insert(id, inode);
        self.link(parent, name, id, at_unix_ms);
        id
    }

    fn link(&mut self, parent: u64, name: Arc<str>, id: u64, at_unix_ms: u64) {
        if let Some(Inode {
            body: Body::Directory(directory),
            ..
        }) = self.inodes.get_mut(parent)
        {
            directory.entries.insert(name, id);
            directory.modified_unix_ms = at_unix_ms;
        }
    }

    fn unlink(&mut self, id: u64, at_unix_ms: u64) {
        let Some((parent, name)) = self
            .inodes
            .get(id)
            .map(|inode| (inode.parent, inode.name.clone()))
        else {
            return;
        };
        if let Some(Inode {
            body: Body::Directory(directory),
            ..
        }) = self.inodes.get_mut(parent)
        {
            directory.entries.remove(&name);
            directory.modified_unix_ms = at_unix_ms;
        }
    }
}

fn broken(what: String) -> Problem {
    Problem::invalid(format!("the snapshot's names are no tree: {what}"))
}

/// Refuses to put something where `found` is.
pub fn taken(path: &str, found: Found) -> Problem {
    let what = match found {
        Found::Directory(_) => "a directory",
        Found::File(..) => "a file; overwrite it or choose another name",
    };
    Problem::new(ProblemKind::Exists, format!("{path} is already there: {what}"))
}

/// Entries below a directory: inode ids in the order of their paths.
pub struct Below<'a> {
    names: &'a Namespace,
    stack: Vec<std::collections::btree_map::Range<'a, Arc<str>, u64>>,
    descend: bool,
}

impl Iterator for Below<'_> {
    type Item = u64;

    fn next(&mut self) -> Option<u64> {
        while let Some(top) = self.stack.last_mut() {
            let Some((_, &id)) = top.next() else {
                self.stack.pop();
                continue;
            };
            if self.descend {
                let entries = self.names.entries(id);
                if !entries.is_empty() {
                    self.stack.push(entries.range::<str, _>(..));
                }
            }
            return Some(id);
        }
        None
    }
}

#[cfg(test)]
mod tests;
