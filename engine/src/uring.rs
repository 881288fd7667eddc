//! The disk as an io_uring: registered buffers and files, one thread, completions run only when asked for.
//!
//! Queued and in-kernel operations are counted apart. At most as many are in the kernel as the completion queue
//! holds, so it can't overflow. Each operation's buffer stays here until the kernel has let go of it.

use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;

use io_uring::{IoUring, opcode, squeue, types};
use rustix::event::EventfdFlags;
use rustix::process::{Resource, Rlimit};

use crate::device::{Completion, Device, FileId, Files, How, Op};
use crate::error::{Error, Result};
use crate::folder::Folder;
use crate::pool::Pool;

/// The kernel registers at most this much as one buffer.
const REGISTERED_BYTES_MAX: usize = 1 << 30;
const NO_FILE: i32 = -1;

/// An operation and how far it was before this submission.
struct Flight {
    token: u64,
    op: Op,
    done_bytes: usize,
}

/// Where the kernel finds a file.
enum Handle {
    /// Under its number in the ring's table.
    Registered,
    Open(File),
}

/// The real disk.
pub(crate) struct Uring {
    // Dropped first: no operation is in flight then, or its buffers were leaked.
    ring: IoUring,
    flights: Vec<Option<Flight>>,
    free_flights: Vec<usize>,
    queued: VecDeque<Flight>,
    in_kernel: usize,
    in_kernel_max: usize,
    files: Vec<Option<Handle>>,
    registered_files: usize,
    registered_buffers: bool,
    event: OwnedFd,
    notes: Vec<String>,
    folder: Folder,
    /// The arena outlives the ring.
    _pool: Pool,
}

impl Uring {
    /// Takes the lock of the volume in `root` and sets up its ring for up to `files_max` files.
    pub(crate) fn new(root: &Path, queue_depth: u32, files_max: u32, pool: Pool) -> Result<Self> {
        let folder = Folder::lock(root)?;
        let mut notes = Vec::new();
        let ring = build_ring(queue_depth.clamp(8, 4096), &mut notes)?;
        let event = rustix::event::eventfd(0, EventfdFlags::NONBLOCK | EventfdFlags::CLOEXEC)
            .map_err(|errno| Error::io("making an eventfd")(errno.into()))?;
        ring.submitter()
            .register_eventfd(event.as_raw_fd())
            .map_err(Error::io("registering an eventfd"))?;
        let registered_files = register_files(&ring, files_max, &mut notes);
        let registered_buffers = register_buffers(&ring, &pool, &mut notes);
        let in_kernel_max = ring.params().cq_entries() as usize;
        let mut uring = Self {
            ring,
            flights: Vec::new(),
            free_flights: Vec::new(),
            queued: VecDeque::new(),
            in_kernel: 0,
            in_kernel_max,
            files: Vec::new(),
            registered_files,
            registered_buffers,
            event,
            notes,
            folder,
            _pool: pool,
        };
        uring.arm(false);
        Ok(uring)
    }

    fn add_file(&mut self, file: File) -> io::Result<FileId> {
        let number = self.files.iter().position(Option::is_none).unwrap_or_else(|| {
            self.files.push(None);
            self.files.len() - 1
        });
        let registered = number < self.registered_files
            && self
                .ring
                .submitter()
                .register_files_update(number as u32, &[file.as_raw_fd()])
                .is_ok();
        // The ring holds a registered file by itself: its descriptor need not count against the process's limit.
        self.files[number] = Some(if registered {
            Handle::Registered
        } else {
            Handle::Open(file)
        });
        Ok(FileId(number as u32))
    }

    fn entry(&self, flight: &Flight) -> squeue::Entry {
        let (Op::Read { file, .. } | Op::Write { file, .. } | Op::Sync { file } | Op::Allocate { file, .. }) =
            &flight.op;
        // A file closed since is answered with EBADF.
        let (descriptor, flags) = match self.files.get(file.0 as usize) {
            Some(Some(Handle::Open(open))) => (open.as_raw_fd(), squeue::Flags::empty()),
            Some(Some(Handle::Registered)) => (file.0 as i32, squeue::Flags::FIXED_FILE),
            _ => (NO_FILE, squeue::Flags::empty()),
        };
        let (file, done) = (types::Fd(descriptor), flight.done_bytes);
        let entry = match &flight.op {
            Op::Read {
                offset_bytes, into, ..
            } => {
                let (address, length) = (
                    into.as_ptr().wrapping_add(done).cast_mut(),
                    (into.len() - done) as u32,
                );
                let offset = offset_bytes + done as u64;
                match self.buffer_number(into.arena_offset_bytes(), into.len()) {
                    Some(number) => opcode::ReadFixed::new(file, address, length, number)
                        .offset(offset)
                        .build(),
                    None => opcode::Read::new(file, address, length).offset(offset).build(),
                }
            }
            Op::Write {
                offset_bytes, from, ..
            } => {
                let (address, length) = (from.as_ptr().wrapping_add(done), (from.len() - done) as u32);
                let offset = offset_bytes + done as u64;
                match self.buffer_number(from.arena_offset_bytes(), from.len()) {
                    Some(number) => opcode::WriteFixed::new(file, address, length, number)
                        .offset(offset)
                        .build(),
                    None => opcode::Write::new(file, address, length).offset(offset).build(),
                }
            }
            Op::Sync { .. } => opcode::Fsync::new(file)
                .flags(types::FsyncFlags::DATASYNC)
                .build(),
            Op::Allocate { bytes, .. } => opcode::Fallocate::new(file, *bytes).build(),
        };
        entry.flags(flags)
    }

    /// The registered buffer that holds these bytes of the arena, unless they straddle two.
    fn buffer_number(&self, arena_offset_bytes: usize, length_bytes: usize) -> Option<u16> {
        let first = arena_offset_bytes / REGISTERED_BYTES_MAX;
        let last = (arena_offset_bytes + length_bytes.max(1) - 1) / REGISTERED_BYTES_MAX;
        (self.registered_buffers && first == last).then_some(first as u16)
    }

    /// Moves what is queued into the submission ring, as far as it and the completion ring have room.
    fn fill_submission(&mut self) {
        while self.in_kernel < self.in_kernel_max && !self.queued.is_empty() {
            if self.ring.submission().is_full() {
                return;
            }
            let Some(flight) = self.queued.pop_front() else {
                return;
            };
            let at = self.free_flights.pop().unwrap_or_else(|| {
                self.flights.push(None);
                self.flights.len() - 1
            });
            let entry = self.entry(&flight).user_data(at as u64);
            self.flights[at] = Some(flight);
            self.in_kernel += 1;
            // SAFETY: the entry's buffer belongs to the flight, which stays in `flights` until its completion was
            // reaped (or is leaked, in `drop`); the arena's addresses are stable and outlive the ring.
            let pushed = unsafe { self.ring.submission().push(&entry) };
            debug_assert!(pushed.is_ok(), "the submission ring had room");
        }
    }

    fn enter(&mut self, wait: bool) -> io::Result<()> {
        let (pending, taskrun) = {
            let submission = self.ring.submission();
            (
                !submission.is_empty(),
                submission.taskrun() || submission.cq_overflow(),
            )
        };
        let wait = wait && self.ring.completion().is_empty();
        if !(pending || taskrun || wait) {
            return Ok(());
        }
        match self.ring.submitter().submit_and_wait(usize::from(wait)) {
            Ok(_) => Ok(()),
            // EBUSY and EAGAIN ask to reap first, which comes next; EINTR says nothing.
            Err(error)
                if matches!(
                    error.raw_os_error(),
                    Some(libc::EBUSY | libc::EAGAIN | libc::EINTR)
                ) =>
            {
                Ok(())
            }
            Err(error) => Err(error),
        }
    }

    fn reap(&mut self, completions: &mut Vec<Completion>) {
        let mut ended = std::mem::take(&mut self.free_flights);
        let first = ended.len();
        let mut results = Vec::new();
        for entry in self.ring.completion() {
            ended.push(entry.user_data() as usize);
            results.push(entry.result());
        }
        for (&at, result) in ended[first..].iter().zip(results) {
            let Some(Flight { token, op, .. }) = self.flights[at].take() else {
                continue;
            };
            self.in_kernel -= 1;
            let result = if result < 0 {
                Err(io::Error::from_raw_os_error(-result))
            } else {
                Ok(result as usize)
            };
            completions.push(Completion { token, op, result });
        }
        self.free_flights = ended;
    }
}

impl Drop for Uring {
    fn drop(&mut self) {
        self.queued.clear();
        let mut completions = Vec::new();
        while self.in_kernel > 0 {
            if self.enter(true).is_err() {
                // The kernel may still use the buffers of what is in flight: better lost than reused.
                self.flights.drain(..).for_each(std::mem::forget);
                return;
            }
            self.reap(&mut completions);
        }
    }
}

impl Device for Uring {
    fn submit(&mut self, token: u64, op: Op, done_bytes: usize) {
        self.queued.push_back(Flight {
            token,
            op,
            done_bytes,
        });
    }

    fn turn(&mut self, wait: bool, completions: &mut Vec<Completion>) -> io::Result<()> {
        self.fill_submission();
        self.enter(wait && self.in_kernel > 0)?;
        self.reap(completions);
        while !self.queued.is_empty() && self.in_kernel < self.in_kernel_max {
            self.fill_submission();
            self.enter(false)?;
        }
        Ok(())
    }

    fn in_flight(&self) -> usize {
        self.queued.len() + self.in_kernel
    }

    fn event(&self) -> Option<BorrowedFd<'_>> {
        Some(self.event.as_fd())
    }

    fn arm(&mut self, armed: bool) {
        let completion = self.ring.completion();
        if armed {
            completion.enable_eventfd();
        } else {
            completion.disable_eventfd();
        }
    }

    fn drain_event(&mut self) {
        let mut count = [0; 8];
        // Nothing to read is fine: the event was drained before.
        let _ = rustix::io::read(&self.event, &mut count);
    }
}

impl Files for Uring {
    fn open(&mut self, name: &str, how: How) -> io::Result<(FileId, u64)> {
        let was_direct = self.folder.is_direct();
        let (file, length_bytes) = self.folder.open(name, how)?;
        if was_direct && !self.folder.is_direct() {
            self.notes.push(
                "the filesystem refuses O_DIRECT: data goes through the page cache, which costs copies; \
                 put the volume on ext4 or xfs"
                    .to_owned(),
            );
        }
        Ok((self.add_file(file)?, length_bytes))
    }

    fn open_folder(&mut self, name: &str) -> io::Result<FileId> {
        let folder = self.folder.open_folder(name)?;
        self.add_file(folder)
    }

    fn close(&mut self, file: FileId) {
        let number = file.0 as usize;
        if let Some(Handle::Registered) = self.files[number] {
            let _ = self.ring.submitter().register_files_update(file.0, &[NO_FILE]);
        }
        self.files[number] = None;
    }

    fn list(&self, folder: &str) -> io::Result<Vec<(String, u64)>> {
        self.folder.list(folder)
    }

    fn read(&self, name: &str) -> io::Result<Vec<u8>> {
        self.folder.read(name)
    }

    fn replace(&mut self, name: &str, bytes: &[u8]) -> io::Result<()> {
        self.folder.replace(name, bytes)
    }

    fn rename(&mut self, from: &str, to: &str) -> io::Result<()> {
        self.folder.rename(from, to)
    }

    fn remove(&mut self, name: &str) -> io::Result<()> {
        self.folder.remove(name)
    }

    fn create_folder(&mut self, name: &str) -> io::Result<()> {
        self.folder.create_folder(name)
    }

    fn free_bytes(&self) -> io::Result<u64> {
        self.folder.free_bytes()
    }

    fn sync_flushes_device(&self) -> bool {
        self.folder.sync_flushes_device()
    }

    fn random(&mut self, bytes: &mut [u8]) -> io::Result<()> {
        getrandom::fill(bytes).map_err(|error| io::Error::other(error.to_string()))
    }

    fn notes(&self) -> Vec<String> {
        self.notes.clone()
    }

    fn is_direct(&self) -> bool {
        self.folder.is_direct()
    }

    fn has_registered_buffers(&self) -> bool {
        self.registered_buffers
    }
}

/// The best ring that this kernel gives.
fn build_ring(entries: u32, notes: &mut Vec<String>) -> Result<IoUring> {
    let best = IoUring::builder()
        .setup_single_issuer()
        .setup_defer_taskrun()
        .setup_taskrun_flag()
        .setup_submit_all()
        .setup_cqsize(entries * 2)
        .dontfork()
        .build(entries);
    let refused = match best {
        Ok(ring) => return Ok(ring),
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => error,
        Err(error) => return Err(explain_refusal(&error)),
    };
    let plain = IoUring::builder()
        .setup_cqsize(entries * 2)
        .dontfork()
        .build(entries);
    let ring = plain.map_err(|error| explain_refusal(&error))?;
    notes.push(format!(
        "the kernel refuses SINGLE_ISSUER with DEFER_TASKRUN ({refused}): the ring works, more slowly; \
         use Linux 6.1 or newer"
    ));
    Ok(ring)
}

fn explain_refusal(error: &io::Error) -> Error {
    let advice = match error.raw_os_error() {
        Some(libc::EPERM | libc::EACCES) => {
            "it is disabled here; set sysctl kernel.io_uring_disabled=0 (or 1 with kernel.io_uring_group), and \
             in a container allow io_uring in its seccomp profile"
        }
        Some(libc::ENOSYS) => {
            "this kernel has none, or a container's seccomp profile hides it; use Linux 5.19 or newer"
        }
        Some(libc::ENOMEM) => "memory for the ring is refused; raise the memlock limit (ulimit -l)",
        Some(libc::EMFILE | libc::ENFILE) => "too many files are open; raise the nofile limit (ulimit -n)",
        _ => "no ring can be made",
    };
    Error::Setup {
        what: format!("{advice} ({error})"),
    }
}

/// Registers a table of files; how many it holds, 0 when it is refused.
fn register_files(ring: &IoUring, files_max: u32, notes: &mut Vec<String>) -> usize {
    // The table, and open files without it, count against the soft limit, which we may raise up to the hard one.
    let limit = rustix::process::getrlimit(Resource::Nofile);
    if limit.current.is_some_and(|soft| soft < u64::from(files_max)) {
        let raised = Rlimit {
            current: limit.maximum,
            maximum: limit.maximum,
        };
        let _ = rustix::process::setrlimit(Resource::Nofile, raised);
    }
    let soft = rustix::process::getrlimit(Resource::Nofile)
        .current
        .unwrap_or(u64::MAX);
    let count = u64::from(files_max).min(soft) as u32;
    match ring.submitter().register_files_sparse(count) {
        Ok(()) => count as usize,
        Err(error) => {
            notes.push(format!(
                "files are not registered with the ring ({error}): slower; raise the nofile limit (ulimit -n)"
            ));
            0
        }
    }
}

fn register_buffers(ring: &IoUring, pool: &Pool, notes: &mut Vec<String>) -> bool {
    let arena = pool.arena();
    let length_bytes = arena.length_bytes();
    let parts: Vec<libc::iovec> = (0..length_bytes)
        .step_by(REGISTERED_BYTES_MAX)
        .map(|offset| libc::iovec {
            iov_base: arena.address().wrapping_add(offset).cast(),
            iov_len: (length_bytes - offset).min(REGISTERED_BYTES_MAX),
        })
        .collect();
    // SAFETY: the parts lie within the arena's mapping, which the pool keeps until after the ring is gone.
    match unsafe { ring.submitter().register_buffers(&parts) } {
        Ok(()) => true,
        Err(error) => {
            notes.push(format!(
                "buffers are not registered with the ring ({error}): slower; allow {} KiB of locked memory \
                 (ulimit -l, LimitMEMLOCK= in a unit, memlock in limits.conf)",
                length_bytes / 1024
            ));
            false
        }
    }
}
