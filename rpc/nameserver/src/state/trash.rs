//! The trash: what was deleted, kept whole and out of sight until it is restored or the trash is emptied.

use std::collections::BTreeMap;

use blockyard_wire::types::FileInfo;
use blockyard_wire::{Problem, ProblemKind, Result};
use serde::{Deserialize, Serialize};

use super::namespace::{Found, NOWHERE, Namespace, taken};
use super::{Outcome, State};
use crate::path;

/// Something in the trash.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Trashed {
    /// Where it was.
    pub path: String,
    /// Since when, milliseconds since 1970.
    pub at_unix_ms: u64,
    /// Files.
    pub files: u64,
    /// Directories, itself counted.
    pub directories: u64,
    /// Bytes of the files.
    pub bytes: u64,
}

/// All of it, by the inode that was taken off.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Trash {
    entries: BTreeMap<u64, Trashed>,
    /// Sums over all entries.
    files: u64,
    directories: u64,
    bytes: u64,
}

impl Trash {
    /// By the order in which the inodes were made.
    pub fn entries(&self) -> &BTreeMap<u64, Trashed> {
        &self.entries
    }

    /// Files in it.
    pub fn files(&self) -> u64 {
        self.files
    }

    /// Directories in it.
    pub fn directories(&self) -> u64 {
        self.directories
    }

    /// Bytes of the files in it.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    pub(super) fn put(&mut self, inode: u64, entry: Trashed) {
        self.files += entry.files;
        self.directories += entry.directories;
        self.bytes += entry.bytes;
        self.entries.insert(inode, entry);
    }

    fn take(&mut self, inode: u64) -> Option<Trashed> {
        let entry = self.entries.remove(&inode)?;
        self.files -= entry.files;
        self.directories -= entry.directories;
        self.bytes -= entry.bytes;
        Some(entry)
    }

    /// Refuses a snapshot's trash that is not just what is nowhere.
    pub(super) fn check(&self, names: &Namespace, nowhere: &[u64]) -> Result<()> {
        let is_nowhere = |inode: &u64| names.get(*inode).is_some_and(|inode| inode.parent == NOWHERE);
        match self.entries.len() == nowhere.len() && self.entries.keys().all(is_nowhere) {
            true => Ok(()),
            false => Err(Problem::invalid(
                "the snapshot's trash is not what its names have lost",
            )),
        }
    }
}

impl State {
    /// What lies in the trash.
    pub fn trash(&self) -> &Trash {
        &self.trash
    }

    pub(super) fn discard(&mut self, path: &str, recursive: bool, at_unix_ms: u64) -> Result<Outcome> {
        let id = self.removable(path, recursive)?;
        let entry = self.trashed(id, at_unix_ms);
        let removed = Outcome::Removed {
            files: entry.files,
            bytes: entry.bytes,
        };
        self.names.take_off(id, at_unix_ms);
        self.trash.put(id, entry);
        Ok(removed)
    }

    /// What an entry of the namespace comes to in the trash.
    fn trashed(&self, id: u64, at_unix_ms: u64) -> Trashed {
        let (versions, directories) = self.names.count(id);
        let size = |version: &u64| self.versions.get(*version).map_or(0, |row| row.size_bytes);
        Trashed {
            path: self.names.path_of(id),
            at_unix_ms,
            files: versions.len() as u64,
            directories,
            bytes: versions.iter().map(size).sum(),
        }
    }

    /// Where something in the trash would go: to `to`, or where it was.
    ///
    /// # Errors
    /// `NotFound`; `Exists` when there is something else now; `Invalid` for a path that can't be.
    pub fn can_restore(&self, entry: u64, to: &str) -> Result<()> {
        let known = self.trash.entries.get(&entry).ok_or_else(|| gone(entry))?;
        let to = if to.is_empty() { &known.path } else { to };
        let parts = path::parts(to)?;
        match self.names.walk(&parts)? {
            (found, 0) => Err(taken(&path::joined(&parts), found)),
            (Found::Directory(_), _) => Ok(()),
            (Found::File(..), _) => Err(Problem::invalid(format!("{to} leads through a file"))),
        }
    }

    pub(super) fn restore(&mut self, entry: u64, to: &str, at_unix_ms: u64) -> Result<Outcome> {
        self.can_restore(entry, to)?;
        let known = self.trash.take(entry).ok_or_else(|| gone(entry))?;
        let to = if to.is_empty() { &known.path } else { to };
        let parts = path::parts(to)?;
        let (name, parents) = parts
            .split_last()
            .ok_or_else(|| Problem::invalid("the root is always there"))?;
        let parent = self.names.make_directories(parents, at_unix_ms)?;
        self.names.rename(entry, parent, name, at_unix_ms);
        Ok(Outcome::Made {
            file: Box::new(self.info(entry)),
        })
    }

    pub(super) fn empty(&mut self, entries: &[u64], at_unix_ms: u64) -> Outcome {
        let (mut files, mut bytes) = (0, 0);
        for entry in entries {
            let Some(known) = self.trash.take(*entry) else {
                continue;
            };
            files += known.files;
            bytes += known.bytes;
            for version in self.names.remove(*entry, at_unix_ms) {
                self.condemn(version, at_unix_ms);
            }
        }
        Outcome::Removed { files, bytes }
    }

    /// An entry of the trash as it is told.
    pub fn trash_info(&self, inode: u64) -> Option<(FileInfo, &Trashed)> {
        let entry = self.trash.entries.get(&inode)?;
        let info = FileInfo {
            path: entry.path.clone(),
            size_bytes: entry.bytes,
            ..self.info(inode)
        };
        Some((info, entry))
    }
}

fn gone(entry: u64) -> Problem {
    Problem::new(
        ProblemKind::NotFound,
        format!("number {entry} is not in the trash (any more); 'blockyard trash list' shows what is"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::{Command, NewRow};
    use blockyard_wire::types::{BlockId, VolumeId};

    fn apply(state: &mut State, command: Command) -> Result<Outcome> {
        state.apply(&command)
    }

    fn file(state: &mut State, path: &str, block: u64) {
        let command = Command::Publish {
            path: path.into(),
            overwrite: false,
            replication: 1,
            content_type: String::new(),
            blocks: vec![NewRow {
                block: BlockId(block),
                index: 0,
                length: 5,
                crc32c: 0,
                volumes: vec![0],
            }],
            length_bytes: 5,
            crc32c: 0,
            at_unix_ms: 1,
            request: Default::default(),
        };
        apply(state, command).unwrap();
    }

    fn state() -> State {
        let mut state = State::default();
        let row = crate::state::blocks::VolumeRow {
            id: VolumeId([1; 16]),
            ..Default::default()
        };
        apply(&mut state, Command::Join { volumes: vec![row] }).unwrap();
        file(&mut state, "/d/a", 1);
        file(&mut state, "/d/e/b", 2);
        file(&mut state, "/c", 3);
        state
    }

    fn discard(state: &mut State, path: &str) -> Result<Outcome> {
        let command = Command::Discard {
            path: path.into(),
            recursive: true,
            at_unix_ms: 7,
            request: Default::default(),
        };
        apply(state, command)
    }

    fn restore(state: &mut State, entry: u64, to: &str) -> Result<Outcome> {
        let command = Command::Restore {
            entry,
            to: to.into(),
            at_unix_ms: 9,
            request: Default::default(),
        };
        apply(state, command)
    }

    #[test]
    fn what_is_discarded_comes_back_as_it_was() {
        let mut state = state();
        let before = state.list("/", "", "", 100, true).unwrap();
        assert_eq!(
            discard(&mut state, "/d").unwrap(),
            Outcome::Removed { files: 2, bytes: 10 }
        );
        assert!(state.lookup("/d/a").is_err());
        let (&entry, told) = state.trash().entries().iter().next().unwrap();
        assert_eq!(
            (told.path.as_str(), told.files, told.directories, told.at_unix_ms),
            ("/d", 2, 2, 7)
        );
        assert!(state.blocks().get(BlockId(1)).is_some(), "its blocks stay wanted");
        file(&mut state, "/d/new", 4);
        assert_eq!(
            restore(&mut state, entry, "").unwrap_err().kind,
            ProblemKind::Exists
        );
        restore(&mut state, entry, "/old/d").unwrap();
        assert_eq!(state.lookup("/old/d/e/b").unwrap().size_bytes, 5);
        assert_eq!(
            restore(&mut state, entry, "/x").unwrap_err().kind,
            ProblemKind::NotFound
        );
        let moved = Command::Remove {
            path: "/d".into(),
            recursive: true,
            at_unix_ms: 9,
            request: Default::default(),
        };
        apply(&mut state, moved).unwrap();
        discard(&mut state, "/old/d").unwrap();
        restore(&mut state, entry, "/d").unwrap();
        let names = |list: &[FileInfo]| list.iter().map(|file| file.path.clone()).collect::<Vec<_>>();
        let after = state.list("/", "", "", 100, true).unwrap();
        assert_eq!(
            names(&after.0),
            [&names(&before.0)[..], &["/old".to_owned()]].concat()
        );
        assert_eq!((state.trash().files(), state.trash().bytes()), (0, 0));
    }

    #[test]
    fn an_emptied_trash_lets_go_of_versions() {
        let mut state = state();
        discard(&mut state, "/d").unwrap();
        discard(&mut state, "/c").unwrap();
        let entries: Vec<u64> = state.trash().entries().keys().copied().collect();
        let command = Command::Empty {
            entries,
            at_unix_ms: 9,
            request: Default::default(),
        };
        assert_eq!(
            apply(&mut state, command).unwrap(),
            Outcome::Removed { files: 3, bytes: 15 }
        );
        assert_eq!(
            (state.condemned().len(), state.file_bytes(), state.names().files()),
            (3, 0, 0)
        );
        assert!(state.trash().entries().is_empty());
    }

    #[test]
    fn a_snapshot_keeps_the_trash() {
        let mut state = state();
        discard(&mut state, "/d").unwrap();
        let mut reader = crate::state::rows::Reader::default();
        let written: Result<()> = state.write(&mut |section, rows, bytes| reader.chunk(section, rows, bytes));
        written.unwrap();
        let mut again = reader.finish().unwrap();
        assert_eq!((again.bytes(), again.trash()), (state.bytes(), state.trash()));
        let entry = *again.trash().entries().keys().next().unwrap();
        restore(&mut again, entry, "").unwrap();
        assert!(again.lookup("/d/e/b").is_ok());
    }
}
