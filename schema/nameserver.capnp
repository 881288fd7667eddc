@0x9829f3ed74c81f52;
# What the nameserver offers: a gate, and behind it sessions for clients and registrations for dataservers.

using Types = import "types.capnp";
using Dataserver = import "dataserver.capnp";

interface Gate {
  login @0 () -> (session :Session, cluster :ClusterInfo);
  join @1 (server :ServerInfo, control :Dataserver.Dataserver) -> (registration :Registration, cluster :ClusterInfo);
  # For dataservers. Volumes must belong to this cluster; a volume id already served elsewhere is refused.
}

struct ClusterInfo {
  cluster @0 :Types.Id128;
  epoch @1 :Types.Epoch;
  replication @2 :UInt8;       # the default factor
  minReplicas @3 :UInt8;
  blockBytes @4 :UInt32;       # the longest block
  heartbeatMs @5 :UInt32;
  leaseMs @6 :UInt32;
  nowUnixMs @7 :UInt64;
  address @8 :Text;
}

struct ServerInfo {
  address @0 :Text;            # HOST:PORT: the dataserver's name in the cluster
  zone @1 :Text;
  version @2 :Text;
  host @3 :Text;               # host name, for people
  volumes @4 :List(Dataserver.VolumeReport);
}

interface Registration {
  heartbeat @0 (volumes :List(Dataserver.VolumeReport), host :Dataserver.HostReport) -> (nowUnixMs :UInt64);
  reportBad @1 (volume :Types.Id128, blocks :List(Types.Replica)) -> ();
  # Replicas that the dataserver found suspect or corrupt by itself.
}

struct RequestId {
  # Names a mutation, so that a retry applies once. Zeroes: not retried.
  client @0 :UInt64;           # random, of the session
  number @1 :UInt64;           # counts up
}

struct FileInfo {
  path @0 :Text;
  directory @1 :Bool;
  version @2 :UInt64;          # also the ETag; 0 for a directory
  sizeBytes @3 :UInt64;
  crc32c @4 :UInt32;           # of the whole file
  blocks @5 :UInt32;
  createdUnixMs @6 :UInt64;
  modifiedUnixMs @7 :UInt64;
  replication @8 :UInt8;
  contentType @9 :Text;
  name @10 :Text;              # last part of the path
  children @11 :UInt32;        # of a directory
}

struct BlockInfo {
  block @0 :UInt64;
  index @1 :UInt32;
  length @2 :UInt32;
  crc32c @3 :UInt32;
  replicas @4 :List(Location); # the best to read from first
}

struct Location {
  hop @0 :Types.Hop;           # with a read ticket
  state @1 :Types.ReplicaState;
  live @2 :Bool;               # the volume is being heard from
  zone @3 :Text;
}

struct NewBlock {
  block @0 :UInt64;
  chain @1 :List(Types.Hop);   # with a write ticket for each hop
}

struct AddedBlock {
  block @0 :UInt64;
  index @1 :UInt32;            # in the file
  length @2 :UInt32;
  crc32c @3 :UInt32;
  proofs @4 :List(Types.ReplicaProof);
}

struct NewFile {
  # A file of few blocks, all durable: made and published in one step.
  path @0 :Text;
  overwrite @1 :Bool;
  replication @2 :UInt8;       # 0: the cluster's default
  contentType @3 :Text;
  blocks @4 :List(AddedBlock); # at most 64, none for an empty file
  lengthBytes @5 :UInt64;
  crc32c @6 :UInt32;
  request @7 :RequestId;
}

struct Published {
  union {
    file @0 :FileInfo;
    refusal @1 :Refusal;       # this file was not published; others of the call may be
  }
  degraded @2 :UInt32;         # blocks with fewer replicas than asked for
}

struct Refusal {
  kind @0 :Types.ProblemKind;
  message @1 :Text;
}

struct Sought {
  path @0 :Text;
  blocksMax @1 :UInt32;
}

struct Found {
  union {
    file @0 :FileInfo;
    refusal @1 :Refusal;
  }
  blocks @2 :List(BlockInfo);
}

interface Session {
  cluster @0 () -> (cluster :ClusterInfo);

  lookup @1 (sought :List(Sought)) -> (found :List(Found));
  # The current versions at some paths (at most 64) and their first blocks with read tickets, in their order; at most
  # 256 blocks a call, the later paths get fewer.

  blocks @2 (version :UInt64, from :UInt32, max :UInt32) -> (blocks :List(BlockInfo));
  # More blocks of a version that a lookup has named; `gone` once it is no longer kept.

  list @3 (path :Text, prefix :Text, after :Text, limit :UInt32, recursive :Bool)
      -> (entries :List(FileInfo), more :Bool);
  # Children of a directory in the order of their names; recursive: files and directories below, by path.
  # `prefix` filters names (recursive: the path below `path`), `after` is the last one already seen, limit at most 1000.

  mkdir @4 (path :Text, parents :Bool, request :RequestId) -> (file :FileInfo);
  rename @5 (from :Text, to :Text, overwrite :Bool, request :RequestId) -> ();
  remove @6 (path :Text, recursive :Bool, request :RequestId) -> (files :UInt64, bytes :UInt64);

  begin @7 (path :Text, overwrite :Bool, replication :UInt8, contentType :Text, request :RequestId)
      -> (lease :UInt64, version :UInt64, leaseMs :UInt32, replication :UInt8);
  # Opens an upload: missing parent folders are made at commit. Replication 0: the cluster's default.

  allocate @8 (lease :UInt64, count :UInt32, avoid :List(Types.Id128)) -> (blocks :List(NewBlock));
  # At most 64 blocks. `avoid`: volumes that have just failed for this client.

  addBlocks @9 (lease :UInt64, blocks :List(AddedBlock), request :RequestId) -> ();
  # At most 256 blocks: from now on they are wanted. Also renews the lease.

  commit @10 (lease :UInt64, blocks :UInt32, lengthBytes :UInt64, crc32c :UInt32, request :RequestId)
      -> (file :FileInfo, degraded :UInt32);
  # Publishes the file at once, or not at all. `degraded`: blocks with fewer replicas than asked for.

  renew @11 (lease :UInt64) -> (leaseMs :UInt32);
  abandon @12 (lease :UInt64, request :RequestId) -> ();

  reportBad @13 (block :UInt64, volume :Types.Id128, kind :Types.ProblemKind, message :Text) -> ();
  # A read failed: the nameserver has the volume checked before it believes it.

  status @14 () -> (status :ClusterStatus);
  replicasOf @15 (volume :Types.Id128, after :UInt64, limit :UInt32)
      -> (blocks :List(HeldBlock), more :Bool);
  # What a volume should hold, by block id; limit at most 1000.
  locate @16 (block :UInt64) -> (info :BlockInfo, path :Text, version :UInt64);

  reserve @17 (count :UInt32, replication :UInt8, avoid :List(Types.Id128)) -> (blocks :List(NewBlock));
  # Blocks for files that are not opened as uploads: at most 64, to be published before their tickets expire.

  publish @18 (files :List(NewFile)) -> (results :List(Published));
  # Files whose blocks were reserved, each published at once or not at all: at most 64 files. Results in their order.

  assign @19 (volumes :List(Types.Id128), duty :Duty, force :Bool, request :RequestId) -> ();
  # The operator's word on some volumes, at most 1024. To remove one that still holds what is nowhere else takes force.

  setReplication @20 (path :Text, recursive :Bool, replication :UInt8, request :RequestId) -> (files :UInt64);
  # From now on so many replicas of a file's current version, or of all below a directory.

  tune @21 (tuning :Tuning, request :RequestId) -> ();
  # How repair and balance are to work.

  discard @22 (path :Text, recursive :Bool, request :RequestId) -> (files :UInt64, bytes :UInt64);
  # Puts a file or directory into the trash.

  trash @23 (after :UInt64, limit :UInt32) -> (entries :List(Trashed), more :Bool);
  # What lies in the trash, by number; limit at most 1000.

  restore @24 (entry :UInt64, to :Text, request :RequestId) -> (file :FileInfo);
  # Takes something out of the trash: to where it was, or to `to`.

  emptyTrash @25 (entries :List(UInt64), all :Bool, request :RequestId) -> (files :UInt64, bytes :UInt64);
  # Removes what lies in the trash: some of it (at most 1000), or all.

  custody @26 () -> (custody :Custody);

  scrub @27 (volumes :List(Types.Id128), order :Types.ScrubOrder) -> ();
  # To some volumes (at most 1024), or to all that are connected.
}

struct Trashed {
  entry @0 :UInt64;            # its number in the trash
  file @1 :FileInfo;           # with the path where it was, and the bytes of all that is in it
  atUnixMs @2 :UInt64;         # since when
  files @3 :UInt64;            # in it
}

interface Custody {
  # What an operator asks of the nameserver's own data, and of what volumes hold beside it.

  state @0 () -> (readOnly :Text, journalTrouble :Text, quarantined :UInt64, quarantinedReigns :UInt64);
  # Why nothing can be changed (empty: it can); which of two journal folders has failed, and why (empty: none);
  # replicas seen of quarantined blocks, and the reigns that they may be of.

  backup @1 () -> (backup :Backup);
  # A consistent copy of all metadata, as of now.

  reconcile @2 () -> (volumes :UInt32);
  # Compares every connected volume with the map now, has doubtful replicas examined, and acts on what it finds.
  # Answers when that is done, with the volumes compared.

  orphans @3 (volume :Types.Id128, after :UInt64, limit :UInt32) -> (orphans :List(Orphan), more :Bool);
  # Blocks seen on a volume that nobody knows, by id above `after`; limit at most 1000.

  release @4 () -> (reigns :UInt64);
  # Lets go of what is quarantined: from now on it is deleted like other orphans. The reigns released.
}

interface Backup {
  # Fixed files, kept until this is dropped.
  describe @0 () -> (cluster :Types.Id128, epoch :Types.Epoch, files :List(BackupFile));
  read @1 (file :UInt32, offset :UInt64, bytes :UInt32) -> (bytes :Data);
  # A piece of the file of this place in the list; at most 512 KiB, less only at its end.
}

struct BackupFile {
  name @0 :Text;               # below the nameserver's folder
  bytes @1 :UInt64;
}

struct Orphan {
  block @0 :UInt64;
  ageMs @1 :UInt64;            # since it was first seen in this reign
  quarantined @2 :Bool;        # kept after a restore, until an operator lets it go
}

struct HeldBlock {
  block @0 :UInt64;
  length @1 :UInt32;
  crc32c @2 :UInt32;
  index @3 :UInt32;
  version @4 :UInt64;
  path @5 :Text;               # empty where no current file holds it
  state @6 :Types.ReplicaState;
}

enum Liveness {
  alive @0;
  suspect @1;
  dead @2;
}

struct VolumeStatus {
  report @0 :Dataserver.VolumeReport;
  liveness @1 :Liveness;
  blocks @2 :UInt64;           # that the nameserver has on it
  pendingDeletes @3 :UInt64;
  duty @4 :Duty;
  returning @5 :Bool;          # back after it counted as lost: being compared
  suspicion @6 :Text;          # why it looks like a copy or an old image; empty where it doesn't
}

struct Duty {
  # The operator's word on a volume.
  union {
    serving @0 :Void;
    maintenance @1 :UInt64;    # until then, milliseconds since 1970
    draining @2 :Void;
    removed @3 :Void;
  }
}

struct Tuning {
  repairPaused @0 :Bool;
  repairForced @1 :Bool;
  repairBytesPerS @2 :UInt64;  # 0: no limit of the operator's
  balanceOff @3 :Bool;
}

struct Backlog {
  blocks @0 :UInt64;
  bytes @1 :UInt64;
}

struct RepairStatus {
  tuning @0 :Tuning;
  held @1 :Text;               # why it does nothing although there is work
  oneLeft @2 :Backlog;
  under @3 :Backlog;
  leaving @4 :Backlog;
  misplaced @5 :Backlog;
  copying @6 :UInt32;
  copied @7 :Backlog;
  balanced @8 :Backlog;
  bytesPerS @9 :UInt64;
  etaMs @10 :UInt64;
  failed @11 :UInt64;
}

struct ServerStatus {
  address @0 :Text;
  zone @1 :Text;
  host @2 :Text;
  version @3 :Text;
  liveness @4 :Liveness;
  sinceHeartbeatMs @5 :UInt64;
  volumes @6 :List(VolumeStatus);
  hostReport @7 :Dataserver.HostReport;
}

struct ClusterStatus {
  cluster @0 :ClusterInfo;
  servers @1 :List(ServerStatus);
  files @2 :UInt64;
  directories @3 :UInt64;
  blocks @4 :UInt64;
  fileBytes @5 :UInt64;
  underReplicatedBlocks @6 :UInt64;
  missingBlocks @7 :UInt64;    # no live replica
  corruptReplicas @8 :UInt64;
  leases @9 :UInt64;
  uptimeMs @10 :UInt64;
  journalBytes @11 :UInt64;    # since the last snapshot
  repairing @12 :UInt64;       # copies under way
  pendingDeletes @13 :UInt64;
  version @14 :Text;
  safeMode @15 :Bool;          # just started: repair and deletion wait for reports
  readOnly @16 :Text;          # why nothing can be changed; empty where it can
  repair @17 :RepairStatus;
  trashFiles @18 :UInt64;
  trashBytes @19 :UInt64;
}
