//! The names of files on a simulated disk.

use std::io;

use super::SimDevice;
use super::pages::Durable;
use super::world::{Handle, Inode, NameChange, apply_name, folder_of};
use crate::device::{FileId, Files, How};

impl Files for SimDevice {
    fn open(&mut self, name: &str, how: How) -> io::Result<(FileId, u64)> {
        let world = &mut *self.0.borrow_mut();
        world.name_call(name)?;
        let inode = match (world.names.get(name), how) {
            (Some(&inode), How::Existing) => inode,
            (None, How::Existing) => return Err(io::ErrorKind::NotFound.into()),
            (_, How::Empty) => {
                // An emptied file is a new one here: its old contents stay durable under the name until then.
                world.inodes.push(Inode::default());
                let inode = world.inodes.len() - 1;
                let change = NameChange::Make(name.to_owned(), inode);
                apply_name(&mut world.names, &change);
                world.new_names.push(change);
                world.clock += 1;
                inode
            }
        };
        let length_bytes = world.inodes[inode].length_bytes;
        world.open.push(Some(Handle::File {
            inode,
            name: name.to_owned(),
        }));
        Ok((FileId(world.open.len() as u32 - 1), length_bytes))
    }

    fn open_folder(&mut self, name: &str) -> io::Result<FileId> {
        let world = &mut *self.0.borrow_mut();
        world.name_call(name)?;
        world.open.push(Some(Handle::Folder(name.to_owned())));
        Ok(FileId(world.open.len() as u32 - 1))
    }

    fn close(&mut self, file: FileId) {
        if let Some(handle) = self.0.borrow_mut().open.get_mut(file.0 as usize) {
            *handle = None;
        }
    }

    fn list(&self, folder: &str) -> io::Result<Vec<(String, u64)>> {
        let mut world = self.0.borrow_mut();
        world.name_call(folder)?;
        let within = world.names.iter().filter(|(name, _)| folder_of(name) == folder);
        let short = |name: &String| name.rsplit('/').next().unwrap_or_default().to_owned();
        Ok(within
            .map(|(name, &inode)| (short(name), world.inodes[inode].length_bytes))
            .collect())
    }

    fn read(&self, name: &str) -> io::Result<Vec<u8>> {
        let mut world = self.0.borrow_mut();
        world.name_call(name)?;
        let inode = world.names.get(name).ok_or(io::ErrorKind::NotFound)?;
        let inode = &world.inodes[*inode];
        Ok(inode.current.all(inode.length_bytes))
    }

    fn replace(&mut self, name: &str, bytes: &[u8]) -> io::Result<()> {
        let world = &mut *self.0.borrow_mut();
        world.name_call(name)?;
        let durable = Durable::of(bytes);
        world.clock += 1;
        world.inodes.push(Inode {
            current: durable.pages.clone(),
            length_bytes: durable.length_bytes,
            durable,
            pending: Vec::new(),
        });
        let change = NameChange::Make(name.to_owned(), world.inodes.len() - 1);
        apply_name(&mut world.names, &change);
        apply_name(&mut world.durable_names, &change);
        Ok(())
    }

    fn rename(&mut self, from: &str, to: &str) -> io::Result<()> {
        let world = &mut *self.0.borrow_mut();
        world.name_call(from)?;
        if !world.names.contains_key(from) {
            return Err(io::ErrorKind::NotFound.into());
        }
        world.clock += 1;
        let change = NameChange::Rename(from.to_owned(), to.to_owned());
        apply_name(&mut world.names, &change);
        world.new_names.push(change);
        Ok(())
    }

    fn remove(&mut self, name: &str) -> io::Result<()> {
        let world = &mut *self.0.borrow_mut();
        world.name_call(name)?;
        world.clock += 1;
        let change = NameChange::Remove(name.to_owned());
        apply_name(&mut world.names, &change);
        world.new_names.push(change);
        Ok(())
    }

    fn create_folder(&mut self, _name: &str) -> io::Result<()> {
        self.0.borrow().check()
    }

    fn free_bytes(&self) -> io::Result<u64> {
        let world = self.0.borrow();
        Ok(world.capacity_bytes.saturating_sub(world.allocated_bytes()))
    }

    fn sync_flushes_device(&self) -> bool {
        self.0.borrow().flushes_device
    }

    fn random(&mut self, bytes: &mut [u8]) -> io::Result<()> {
        let world = &mut *self.0.borrow_mut();
        for chunk in bytes.chunks_mut(8) {
            chunk.copy_from_slice(&world.rng.next().to_le_bytes()[..chunk.len()]);
        }
        Ok(())
    }

    fn notes(&self) -> Vec<String> {
        Vec::new()
    }

    fn is_direct(&self) -> bool {
        true
    }

    fn has_registered_buffers(&self) -> bool {
        false
    }
}
