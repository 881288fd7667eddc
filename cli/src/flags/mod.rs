//! The command line: every mode, flag and help text, defined once.
//!
//! Nothing is resolved here: `config` turns flags into addresses, secrets and clients.

mod look;
mod operate;
mod trash;

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use blockyard_wire::types::ClusterId;
use clap::{Args, Parser, Subcommand};

pub use self::look::{Du, Find, Kind, Locate, Tree};
use self::operate::REPLICATION_MAX;
pub use self::operate::{
    Balance, Drain, Listing, Maintain, Node, Remove, Repair, Scrub, Scrubbed, SetReplication, Targets,
    Volume, VolumeIn,
};
pub use self::trash::{EmptyTrash, RestoreTrash, Trash};
use crate::values::{ByteRange, CpuList, duration, size};

const EXIT_CODES: &str = "\
Exit codes:
  0    done
  1    failed
  2    usage: the command line or a name in it is wrong
  3    not found
  4    already there (see --overwrite)
  5    worth retrying: nobody answers, or the cluster is busy or not complete
  130  interrupted

Environment:
  BLOCKYARD_NAMESERVER      HOST:PORT of the nameserver; several with commas
  BLOCKYARD_CLUSTER_SECRET  file with the cluster's secret
  BLOCKYARD_ZONE            zone of this client: replicas there are read first
  BLOCKYARD_LOG             what to log to stderr: error, warn, info, debug, or 'target=level' lists

PPYDFS's spellings work too: client upload FILE [REMOTE], client download REMOTE [LOCAL], client list, \
client delete REMOTE, nameserver [WEB_PORT], dataserver [HOST] [PORT] [DIR] [NAMESERVER].";

const START: &str = "Start with: blockyard up        (a whole cluster in one process)\n\
                     Then:       blockyard upload FILE\n\nExit codes and environment: blockyard --help";

/// Blockyard: a replicated file and block store.
#[derive(Parser, Debug)]
#[command(name = "blockyard", version, propagate_version = true, max_term_width = 100)]
#[command(after_help = START, after_long_help = EXIT_CODES)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub mode: Mode,
}

/// Roles and commands.
#[derive(Subcommand, Debug)]
pub enum Mode {
    /// Run a whole cluster in one process: nameserver, page and dataservers.
    Up(Up),
    /// Run a nameserver and its page.
    Nameserver(Nameserver),
    /// Run a dataserver with one or more volumes.
    Dataserver(Dataserver),
    /// Make a cluster secret, which servers that listen beyond this machine need.
    Init(Init),
    /// Upload files, folders (-r) or stdin (-).
    #[command(visible_alias = "put")]
    Upload(Upload),
    /// Download files or folders (-r), to a file, a folder or stdout (-).
    #[command(visible_alias = "get")]
    Download(Download),
    /// List a folder.
    #[command(visible_alias = "ls")]
    List(List),
    /// Delete files, or folders with all in them (-r): they go into the trash.
    #[command(visible_alias = "rm")]
    Delete(Delete),
    /// Look into the trash, restore from it, empty it.
    #[command(subcommand)]
    Trash(Trash),
    /// Make folders, with their parents.
    Mkdir(Mkdir),
    /// Rename or move files and folders.
    Mv(Mv),
    /// Write files, or a range of them, to stdout.
    Cat(Cat),
    /// Show what is known of files and folders.
    Stat(Stat),
    /// Show a file's blocks: chain, checksum, servers and volumes.
    Info(Info),
    /// Show where blocks are, and which files hold them.
    Locate(Locate),
    /// Show how much folders hold.
    Du(Du),
    /// Find files and folders by name, size, age or copies.
    Find(Find),
    /// Draw a folder with all below it.
    Tree(Tree),
    /// Show the health of the cluster, its servers and its volumes.
    Status(Status),
    /// Show what volumes do per second, the busiest first, until interrupted.
    Top(Top),
    /// Show the space of the cluster, volume by volume.
    Df(Df),
    /// Set how many copies of each block files are to have.
    Setrep(SetReplication),
    /// Look after dataservers: list, drain, maintain, resume, remove.
    #[command(subcommand)]
    Node(Node),
    /// Look after volumes: list, drain, maintain, resume, remove, replace; fsck for a folder on this machine.
    #[command(subcommand)]
    Volume(Volume),
    /// Look after repair: status, pause, resume, pace.
    #[command(subcommand)]
    Repair(Repair),
    /// Look after the scrub, which verifies all replicas in the background: status, start, pause.
    #[command(subcommand)]
    Scrub(Scrub),
    /// Even out how full volumes are: status, on, off.
    #[command(subcommand)]
    Balance(Balance),
    /// Copy the nameserver's metadata into a folder, while it runs.
    Backup(Backup),
    /// Make a nameserver's folder of a backup.
    Restore(Restore),
    /// Make a nameserver's folder of what volumes hold, when its own data and all backups are lost.
    Rebuild(Rebuild),
    /// Check names against volumes: missing, under-replicated, damaged, unknown blocks.
    Fsck(Fsck),
}

/// Which cluster, and how to prove that one belongs to it.
#[derive(Args, Debug, Clone)]
pub struct Cluster {
    /// The nameserver; several with commas.
    #[arg(
        long,
        value_name = "HOST:PORT",
        env = "BLOCKYARD_NAMESERVER",
        hide_env_values = true
    )]
    #[arg(default_value = "127.0.0.1:9000", value_delimiter = ',', action = clap::ArgAction::Set, num_args = 1)]
    pub nameserver: Vec<String>,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub secret: Secret,
}

/// The cluster's secret.
#[derive(Args, Debug, Clone)]
pub struct Secret {
    /// File with the cluster's secret [default: the copy that a nameserver on this machine keeps for you].
    #[arg(
        long,
        value_name = "FILE",
        env = "BLOCKYARD_CLUSTER_SECRET",
        hide_env_values = true
    )]
    pub cluster_secret: Option<PathBuf>,
}

/// JSON or text.
#[derive(Args, Debug, Clone, Copy)]
pub struct Form {
    /// Print JSON.
    #[arg(long)]
    pub json: bool,
}

/// `up`
#[derive(Args, Debug)]
pub struct Up {
    /// Where all data lies [default: ~/.local/share/blockyard].
    #[arg(long, value_name = "DIR")]
    pub dir: Option<PathBuf>,
    /// Port of the nameserver; dataservers take the ports after it. 0: any free ones.
    #[arg(long, default_value_t = 9000, value_name = "PORT")]
    pub port: u16,
    /// Port of the page. 0: any free one.
    #[arg(long, default_value_t = 8080, value_name = "PORT")]
    pub web_port: u16,
    /// How many dataservers, each with one volume.
    #[arg(long, default_value_t = 2, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=64))]
    pub dataservers: u16,
    /// Address to listen on; beyond loopback it needs --cluster-secret.
    #[arg(long, default_value = "127.0.0.1", value_name = "HOST")]
    pub host: String,
    /// Copies of each block [default: 2, or 1 with a single dataserver].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u8).range(1..=REPLICATION_MAX))]
    pub replication: Option<u8>,
    /// Bytes that each volume may fill, such as 10GiB [default: an equal share of most of the free space].
    #[arg(long, value_name = "SIZE", value_parser = size)]
    pub capacity: Option<u64>,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub secret: Secret,
}

/// `nameserver`
#[derive(Args, Debug)]
pub struct Nameserver {
    /// Port of the page, the PPYDFS way.
    #[arg(value_name = "WEB_PORT", conflicts_with = "web")]
    pub web_port: Option<u16>,
    /// Where journal and snapshots lie [default: ~/.local/share/blockyard/nameserver].
    #[arg(long, value_name = "DIR")]
    pub dir: Option<PathBuf>,
    /// A second folder, best on another disk, that gets all that the first one gets: each change is durable in both
    /// before it counts, and one of them is enough to start from.
    #[arg(long, value_name = "DIR")]
    pub mirror: Option<PathBuf>,
    /// How many snapshots are kept, the journal from the oldest of them on.
    #[arg(long, default_value_t = 2, value_name = "N", value_parser = clap::value_parser!(u16).range(2..=1000))]
    pub snapshots: u16,
    /// Take the cluster over with the state of a backup: reign above the highest epoch that a volume has seen, and keep
    /// what came after the backup until 'fsck --release-quarantine'. Only when no newer nameserver runs, and not in a
    /// unit file: each start with it takes over anew.
    #[arg(long)]
    pub adopt: bool,
    /// Where clients and dataservers connect; beyond loopback it needs --cluster-secret.
    #[arg(long, default_value = "127.0.0.1:9000", value_name = "HOST:PORT")]
    pub listen: String,
    /// How long what was deleted stays in the trash, such as 12h or 7d; sooner it goes when space is short.
    #[arg(long, value_name = "TIME", value_parser = duration, default_value = "24h")]
    pub trash: Duration,
    /// Silence after which a dataserver gets no new blocks and is read from last.
    #[arg(long, value_name = "TIME", value_parser = duration, default_value = "5s")]
    pub suspect: Duration,
    /// Silence after which what a dataserver has counts as lost, and is copied elsewhere.
    #[arg(long, value_name = "TIME", value_parser = duration, default_value = "30s")]
    pub dead: Duration,
    /// With more than this part of all volumes silent for so long, repair waits for a word: it is rather the network.
    #[arg(long, value_name = "PERCENT", value_parser = clap::value_parser!(u8).range(0..=100), default_value_t = 50)]
    pub outage: u8,
    /// Where the page is served; 'off' for none.
    #[arg(long, default_value = "127.0.0.1:8080", value_name = "HOST:PORT")]
    pub web: String,
    /// Copies of each block, unless an upload says otherwise.
    #[arg(long, default_value_t = 2, value_name = "N", value_parser = clap::value_parser!(u8).range(1..=REPLICATION_MAX))]
    pub replication: u8,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub secret: Secret,
}

/// `dataserver`
#[derive(Args, Debug)]
pub struct Dataserver {
    /// Address to listen on, the PPYDFS way.
    #[arg(value_name = "HOST", conflicts_with = "listen")]
    pub host: Option<String>,
    /// Port to listen on, the PPYDFS way.
    #[arg(value_name = "PORT", conflicts_with = "listen")]
    pub port: Option<u16>,
    /// The only volume's folder, the PPYDFS way.
    #[arg(value_name = "DIR", conflicts_with = "volume")]
    pub dir: Option<PathBuf>,
    /// The nameserver, the PPYDFS way.
    #[arg(value_name = "NAMESERVER")]
    pub ppydfs_nameserver: Option<String>,
    /// Folder of a volume; give several, best each on a disk of its own
    /// [default: ~/.local/share/blockyard/volume-PORT].
    #[arg(long, value_name = "DIR")]
    pub volume: Vec<PathBuf>,
    /// Bytes that each volume may fill, such as 500GiB or 2T [default: what the disk has].
    #[arg(long, value_name = "SIZE", value_parser = size)]
    pub capacity: Option<u64>,
    /// Bytes to leave free on each volume's disk, such as 1GiB.
    #[arg(long, value_name = "SIZE", value_parser = size)]
    pub reserve: Option<u64>,
    /// Memory of each volume's read cache, such as 1GiB; 0 for none.
    #[arg(long, value_name = "SIZE", value_parser = size, default_value = "64MiB")]
    pub read_cache: u64,
    /// Bytes per second at which each volume reads and verifies what it keeps, in the background; 0 for never.
    #[arg(long, value_name = "SIZE", value_parser = size, default_value = "16MiB")]
    pub scrub_rate: u64,
    /// Don't fill free space with zeros while nobody uses a volume: saves a fresh disk one write of each byte, and
    /// makes the first writes to it slower.
    #[arg(long)]
    pub no_zero_fill: bool,
    /// Tell figures for Prometheus at http://HOST:PORT/metrics.
    #[arg(long, value_name = "HOST:PORT")]
    pub metrics: Option<String>,
    /// CPUs to pin the volumes' threads to, such as 0,2-5.
    #[arg(long, value_name = "LIST")]
    pub cpus: Option<CpuList>,
    /// Host name or address that others reach this server by [default: that of --listen].
    #[arg(long, value_name = "HOST")]
    pub advertise: Option<String>,
    /// Where the first volume listens, the next one a port higher; beyond loopback it needs --cluster-secret.
    #[arg(long, default_value = "127.0.0.1:9001", value_name = "HOST:PORT")]
    pub listen: String,
    /// Failure zone, such as a rack: copies of a block go to different zones where there are several.
    #[arg(long, default_value = "default", value_name = "NAME")]
    pub zone: String,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub cluster: Cluster,
}

/// `init`
#[derive(Args, Debug)]
pub struct Init {
    /// The file to make; never overwritten. --cluster-secret FILE says the same.
    #[arg(value_name = "FILE", conflicts_with = "cluster_secret")]
    pub file: Option<PathBuf>,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub secret: Secret,
}

/// `upload`
#[derive(Args, Debug)]
pub struct Upload {
    /// LOCAL… REMOTE: what to upload, and where to. A REMOTE ending in '/' is a folder; missing folders are
    /// made. A single LOCAL without REMOTE goes to the root under its own name. '-' is stdin.
    #[arg(value_name = "LOCAL… [REMOTE]", required = true)]
    pub paths: Vec<OsString>,
    /// Upload folders with all in them.
    #[arg(short, long)]
    pub recursive: bool,
    /// Replace files that are there already.
    #[arg(long)]
    pub overwrite: bool,
    /// Copies of each block [default: the cluster's].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u8).range(1..=REPLICATION_MAX))]
    pub replication: Option<u8>,
    /// MIME type to keep with the files.
    #[arg(long, value_name = "TYPE", default_value = "", hide_default_value = true)]
    pub content_type: String,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub form: Form,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub cluster: Cluster,
}

/// `download`
#[derive(Args, Debug)]
pub struct Download {
    /// REMOTE… LOCAL: what to download, and the file or folder to write. A single REMOTE without LOCAL goes to
    /// the current folder under its own name. LOCAL '-' is stdout.
    #[arg(value_name = "REMOTE… [LOCAL]", required = true)]
    pub paths: Vec<OsString>,
    /// Download folders with all in them.
    #[arg(short, long)]
    pub recursive: bool,
    /// Replace local files that are there already.
    #[arg(long)]
    pub overwrite: bool,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub form: Form,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub cluster: Cluster,
}

/// `list`
#[derive(Args, Debug)]
pub struct List {
    /// The folder, or a file.
    #[arg(value_name = "REMOTE", default_value = "/")]
    pub path: String,
    /// List what is below, too.
    #[arg(short, long)]
    pub recursive: bool,
    /// Sizes and times also when the output is not a terminal.
    #[arg(short, long)]
    pub long: bool,
    /// Only names that begin so.
    #[arg(long, default_value = "", hide_default_value = true, value_name = "TEXT")]
    pub prefix: String,
    /// Stop after so many.
    #[arg(long, value_name = "N")]
    pub limit: Option<u64>,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub form: Form,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub cluster: Cluster,
}

/// `delete`
#[derive(Args, Debug)]
pub struct Delete {
    /// Files, or folders.
    #[arg(value_name = "REMOTE", required = true)]
    pub paths: Vec<String>,
    /// Delete folders with all in them.
    #[arg(short, long)]
    pub recursive: bool,
    /// Delete for good, past the trash.
    #[arg(long)]
    pub now: bool,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub form: Form,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub cluster: Cluster,
}

/// `mkdir`
#[derive(Args, Debug)]
pub struct Mkdir {
    /// Folders to make.
    #[arg(value_name = "REMOTE", required = true)]
    pub paths: Vec<String>,
    /// A folder that is there already is no failure.
    #[arg(short, long)]
    pub parents: bool,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub cluster: Cluster,
}

/// `mv`
#[derive(Args, Debug)]
pub struct Mv {
    /// FROM… TO: what to rename, and its new name or folder.
    #[arg(value_name = "FROM… TO", required = true, num_args = 2..)]
    pub paths: Vec<String>,
    /// Replace a file that is there already.
    #[arg(long)]
    pub overwrite: bool,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub cluster: Cluster,
}

/// `cat`
#[derive(Args, Debug)]
pub struct Cat {
    /// Files.
    #[arg(value_name = "REMOTE", required = true)]
    pub paths: Vec<String>,
    /// Only these bytes, counted from 0, both ends included: 0-99, 100- (from there on), -100 (the last 100).
    #[arg(long, value_name = "START-END", allow_hyphen_values = true)]
    pub range: Option<ByteRange>,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub cluster: Cluster,
}

/// `stat`
#[derive(Args, Debug)]
pub struct Stat {
    /// Files and folders.
    #[arg(value_name = "REMOTE", required = true)]
    pub paths: Vec<String>,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub form: Form,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub cluster: Cluster,
}

/// `info`
#[derive(Args, Debug)]
pub struct Info {
    /// The file.
    #[arg(value_name = "FILE")]
    pub path: String,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub form: Form,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub cluster: Cluster,
}

/// How often something is shown.
#[derive(Args, Debug)]
pub struct Watch {
    /// Between two looks, such as 500ms or 5s.
    #[arg(long, value_name = "TIME", value_parser = duration, default_value = "1s")]
    pub interval: Duration,
    /// Stop after so many looks.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub times: Option<u64>,
}

/// `top`
#[derive(Args, Debug)]
pub struct Top {
    #[command(flatten)]
    #[allow(missing_docs)]
    pub watch: Watch,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub cluster: Cluster,
}

/// `status`
#[derive(Args, Debug)]
pub struct Status {
    /// Show it again and again, until interrupted.
    #[arg(short, long = "watch", conflicts_with = "json")]
    pub watching: bool,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub watch: Watch,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub form: Form,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub cluster: Cluster,
}

/// `df`
#[derive(Args, Debug)]
pub struct Df {
    #[command(flatten)]
    #[allow(missing_docs)]
    pub form: Form,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub cluster: Cluster,
}

/// `backup`
#[derive(Args, Debug)]
pub struct Backup {
    /// The folder to make; written beside, read back, and renamed in.
    #[arg(value_name = "FOLDER")]
    pub folder: PathBuf,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub form: Form,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub cluster: Cluster,
}

/// `restore`
#[derive(Args, Debug)]
pub struct Restore {
    /// The backup's folder.
    #[arg(value_name = "BACKUP")]
    pub backup: PathBuf,
    /// The nameserver's folder to make; one that holds a nameserver's data is refused.
    #[arg(long, value_name = "DIR")]
    pub dir: PathBuf,
    /// Have its next start take the cluster over, as 'nameserver --adopt' does.
    #[arg(long)]
    pub adopt: bool,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub form: Form,
}

/// `rebuild`
#[derive(Args, Debug)]
pub struct Rebuild {
    /// What 'volume inventory' has printed, of every volume of the cluster.
    #[arg(value_name = "INVENTORY", required = true)]
    pub inventories: Vec<PathBuf>,
    /// The nameserver's folder to make; one that holds a nameserver's data is refused.
    #[arg(long, value_name = "DIR")]
    pub dir: PathBuf,
    /// Copies of each block.
    #[arg(long, default_value_t = 2, value_name = "N", value_parser = clap::value_parser!(u8).range(1..=6))]
    pub replication: u8,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub form: Form,
}

/// `volume inventory`
#[derive(Args, Debug)]
pub struct Inventory {
    /// The volume's folder.
    #[arg(value_name = "DIR")]
    pub dir: PathBuf,
}

/// `fsck`
#[derive(Args, Debug)]
pub struct Fsck {
    /// Wait until what can be repaired is repaired, and check again.
    #[arg(long)]
    pub repair: bool,
    /// Let go of what is quarantined since a restore: it is deleted like other unknown blocks.
    #[arg(long)]
    pub release_quarantine: bool,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub form: Form,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub cluster: Cluster,
}

/// `volume fsck`
#[derive(Args, Debug)]
pub struct VolumeFsck {
    /// The volume's folder.
    #[arg(value_name = "DIR")]
    pub dir: PathBuf,
    /// Read every block too, not only its header.
    #[arg(long)]
    pub data: bool,
    /// Make a new index where the old one can't be read. What it finds is served once the nameserver has confirmed it.
    #[arg(long)]
    pub rebuild: bool,
    /// The cluster of a volume whose volume.toml is lost; `blockyard status` shows it.
    #[arg(long, value_name = "ID", requires = "rebuild")]
    pub cluster_id: Option<ClusterId>,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub form: Form,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_definition_is_sound() {
        Cli::command().debug_assert();
    }
}
