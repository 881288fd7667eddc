//! All unsafe code of perf: memory lent to the kernel, a bare ring, a mapped file. What is behind is safe to use.

use std::fs::File;
use std::io;
use std::ops::{Deref, DerefMut};
use std::os::fd::AsRawFd as _;

use anyhow::{Context as _, Result, bail, ensure};
use io_uring::{IoUring, opcode, squeue, types};
use memmap2::{Advice, MmapMut};

/// From here on, huge pages are worth asking for.
const HUGE_PAGE_BYTES: usize = 2 << 20;

/// Memory that begins at a page, as O_DIRECT wants it.
pub(super) struct Aligned(MmapMut);

impl Aligned {
    pub(super) fn new(length_bytes: usize) -> io::Result<Self> {
        let map = MmapMut::map_anon(length_bytes)?;
        if length_bytes >= HUGE_PAGE_BYTES {
            // Refused where the kernel has none: then small pages do.
            let _ = map.advise(Advice::HugePage);
        }
        Ok(Self(map))
    }
}

impl Deref for Aligned {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0
    }
}

impl DerefMut for Aligned {
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.0
    }
}

// SAFETY: the mapping stays where it is while the value moves, is zeroed from the start, and is as long as it says.
unsafe impl tokio_uring::buf::IoBuf for Aligned {
    fn stable_ptr(&self) -> *const u8 {
        self.as_ptr()
    }

    fn bytes_init(&self) -> usize {
        self.len()
    }

    fn bytes_total(&self) -> usize {
        self.len()
    }
}

// SAFETY: as above; the mapping is private and writable.
unsafe impl tokio_uring::buf::IoBufMut for Aligned {
    fn stable_mut_ptr(&mut self) -> *mut u8 {
        self.as_mut_ptr()
    }

    unsafe fn set_init(&mut self, _length_bytes: usize) {}
}

// SAFETY: as for tokio-uring.
unsafe impl monoio::buf::IoBuf for Aligned {
    fn read_ptr(&self) -> *const u8 {
        self.as_ptr()
    }

    fn bytes_init(&self) -> usize {
        self.len()
    }
}

// SAFETY: as for tokio-uring.
unsafe impl monoio::buf::IoBufMut for Aligned {
    fn write_ptr(&mut self) -> *mut u8 {
        self.as_mut_ptr()
    }

    fn bytes_total(&mut self) -> usize {
        self.len()
    }

    unsafe fn set_init(&mut self, _length_bytes: usize) {}
}

/// A file mapped for reading and writing.
pub(super) fn map(file: &File) -> io::Result<MmapMut> {
    // SAFETY: the file is this run's own, in its own folder; nobody cuts it while it is mapped.
    unsafe { MmapMut::map_mut(file) }
}

/// One file and as many buffers as there are operations in flight, all registered with one ring.
pub(super) struct Ring {
    /// Before the buffers, so that it is closed before they are unmapped.
    ring: IoUring,
    _file: File,
    buffers: Vec<Aligned>,
    /// Whether the kernel may still use the buffer of this number.
    lent: Vec<bool>,
    syncing: bool,
}

/// What came back.
pub(super) enum Done {
    /// The operation on the buffer of this number, whole.
    Buffer(usize),
    Sync,
}

impl Ring {
    pub(super) fn new(file: File, depth: usize, buffer_bytes: usize) -> Result<Self> {
        let ring = IoUring::builder()
            .setup_single_issuer()
            .setup_defer_taskrun()
            .setup_submit_all()
            .build(depth as u32 + 1)
            .context("a ring with SINGLE_ISSUER and DEFER_TASKRUN needs Linux 6.1 and io_uring allowed")?;
        let buffers: Vec<Aligned> = (0..depth)
            .map(|_| Aligned::new(buffer_bytes))
            .collect::<io::Result<_>>()?;
        ring.submitter().register_files(&[file.as_raw_fd()])?;
        let parts: Vec<libc::iovec> = buffers
            .iter()
            .map(|buffer| libc::iovec {
                iov_base: buffer.as_ptr().cast_mut().cast(),
                iov_len: buffer.len(),
            })
            .collect();
        // SAFETY: the buffers live in this value, which drops the ring first and only when nothing is in flight.
        unsafe { ring.submitter().register_buffers(&parts) }
            .context("registering buffers; allow more locked memory (ulimit -l)")?;
        Ok(Self {
            ring,
            _file: file,
            lent: vec![false; buffers.len()],
            buffers,
            syncing: false,
        })
    }

    /// The bytes of a buffer that is not in flight.
    pub(super) fn buffer(&mut self, number: usize) -> &mut [u8] {
        assert!(!self.lent[number], "the kernel still uses the buffer");
        &mut self.buffers[number]
    }

    pub(super) fn write(&mut self, number: usize, offset_bytes: u64) -> Result<()> {
        let (address, length) = self.lend(number);
        let entry = opcode::WriteFixed::new(types::Fixed(0), address, length, number as u16);
        self.push(entry.offset(offset_bytes).build().user_data(number as u64))
    }

    pub(super) fn read(&mut self, number: usize, offset_bytes: u64) -> Result<()> {
        let (address, length) = self.lend(number);
        let entry = opcode::ReadFixed::new(types::Fixed(0), address, length, number as u16);
        self.push(entry.offset(offset_bytes).build().user_data(number as u64))
    }

    /// fdatasync; it covers what has come back before.
    pub(super) fn sync(&mut self) -> Result<()> {
        let entry = opcode::Fsync::new(types::Fixed(0)).flags(types::FsyncFlags::DATASYNC);
        self.syncing = true;
        self.push(entry.build().user_data(u64::MAX))
    }

    fn lend(&mut self, number: usize) -> (*mut u8, u32) {
        let buffer = self.buffer(number);
        let lent = (buffer.as_mut_ptr(), buffer.len() as u32);
        self.lent[number] = true;
        lent
    }

    fn push(&mut self, entry: squeue::Entry) -> Result<()> {
        // SAFETY: the entry's buffer is in `self.buffers`, marked as lent, and drop waits for whatever is lent.
        if unsafe { self.ring.submission().push(&entry) }.is_err() {
            bail!("the submission ring is full");
        }
        // Submitted at once: the disk works while the next block's checksums are computed.
        self.ring.submit()?;
        Ok(())
    }

    /// Waits for at least one operation and tells all that have ended; a short or failed one is an error.
    pub(super) fn wait(&mut self) -> Result<Vec<Done>> {
        self.ring.submit_and_wait(1)?;
        let ended: Vec<(u64, i32)> = self
            .ring
            .completion()
            .map(|entry| (entry.user_data(), entry.result()))
            .collect();
        for &(number, _) in &ended {
            match self.lent.get_mut(number as usize) {
                Some(lent) => *lent = false,
                None => self.syncing = false,
            }
        }
        ended
            .into_iter()
            .map(|(number, result)| {
                if result < 0 {
                    return Err(io::Error::from_raw_os_error(-result).into());
                }
                let Some(buffer) = self.buffers.get(number as usize) else {
                    return Ok(Done::Sync);
                };
                ensure!(result as usize == buffer.len(), "a short transfer: {result} B");
                Ok(Done::Buffer(number as usize))
            })
            .collect()
    }
}

impl Drop for Ring {
    fn drop(&mut self) {
        while self.syncing || self.lent.contains(&true) {
            // A transfer that failed has come back too; when the ring itself fails, the buffers are given up.
            let before = (self.syncing, self.lent.clone());
            if self.wait().is_err() && before == (self.syncing, self.lent.clone()) {
                self.buffers.drain(..).for_each(std::mem::forget);
                return;
            }
        }
    }
}
