@0xd2a182c5c5d255ba;
# The control interface that a dataserver hands to the nameserver when it joins,
# so that commands go down the connection that the dataserver opened.

using Types = import "types.capnp";

interface Dataserver {
  digest @0 (volume :Types.Id128) -> (buckets :List(UInt64));
  # What the volume holds, in 256 buckets by block id modulo 256: the wrapping sum over the bucket's
  # replicas of a 64-bit mix of id, length, CRC and state (FORMAT.md). Equal digests need no list.

  replicas @1 (volume :Types.Id128, bucket :UInt16, after :UInt64, limit :UInt32)
      -> (replicas :List(Types.Replica), more :Bool);
  # The replicas of one bucket with ids above `after`, ascending; bucket 256 means all of them.

  delete @2 (volume :Types.Id128, blocks :List(UInt64), epoch :Types.Epoch) -> (deleted :List(UInt64));
  # Deletes replicas; the answer comes when the deletion is durable and names those that were there.

  copy @3 (volume :Types.Id128, block :UInt64, version :UInt64, index :UInt32, length :UInt32,
           crc32c :UInt32, source :Types.Hop, epoch :Types.Epoch, besideClients :Bool)
      -> (proof :Types.ReplicaProof);
  # Pulls one block from `source`, verifies it, and stores it on `volume`; the answer comes when it is durable. Beside
  # clients it is read and written in pieces, so that they wait behind none for long.

  verify @4 (volume :Types.Id128, block :UInt64) -> (state :Types.ReplicaState);
  # Reads the whole replica and checks every byte; notFound where there is none.

  settle @5 (volume :Types.Id128, block :UInt64, wanted :Bool, epoch :Types.Epoch) -> ();
  # The nameserver's word on a suspect: verify and serve it, or forget it.

  scrub @6 (volume :Types.Id128, order :Types.ScrubOrder) -> ();
  # Begins a pass at once (or goes on with the one that is paused), or pauses until told to start, also after restarts.
}

struct VolumeReport {
  id @0 :Types.Id128;
  incarnation @1 :Types.Id128;
  generation @2 :UInt64;
  address @3 :Text;            # HOST:PORT of its data listener
  state @4 :VolumeState;
  reason @5 :Text;             # why it failed, empty otherwise
  capacityBytes @6 :UInt64;
  usedBytes @7 :UInt64;        # slots in use, headers and padding included
  freeBytes @8 :UInt64;        # what new blocks can still take
  replicas @9 :UInt64;
  corrupt @10 :UInt64;         # replicas known to be damaged
  suspects @11 :UInt64;
  writeBytes @12 :UInt64;      # since the process started
  readBytes @13 :UInt64;
  flushes @14 :UInt64;
  poolUsedBytes @15 :UInt64;
  poolBytes @16 :UInt64;
  inFlight @17 :UInt32;        # requests being served
  ioErrors @18 :UInt64;
  directory @19 :Text;
  corruptBlocks @20 :List(UInt64);  # at most 256 of them, lowest ids first
  epoch @21 :Types.Epoch;      # the highest that it has seen
  write @22 :LatencyReport;    # from the last packet until slot and record were written
  flush @23 :LatencyReport;    # from there until all was durable
  read @24 :LatencyReport;     # from the request until the disk had answered
  clientRequests @25 :UInt64;  # reads for clients and writes, since the process started; copies for repair are not in it
  scrub @26 :ScrubReport;
  flows @27 :List(Flow);       # at most 32 of them, the busiest
}

struct Flow {
  # Blocks that are written through this volume, of one sender and to one next hop.
  from @0 :Text;               # address of the client's host, or of the hop before this one
  head @1 :Bool;               # it comes from a client
  next @2 :Types.Id128;        # 0 at the end of the chain
  inFlight @3 :UInt32;
  blocks @4 :UInt64;           # written since the flow began
  bytes @5 :UInt64;
  lagUs @6 :UInt32;            # how much later than this volume the next ones had the block durable, of late
}

struct ScrubReport {
  state @0 :ScrubState;
  passes @1 :UInt64;           # that have ended
  lastPassUnixMs @2 :UInt64;   # when the last one ended; 0: none has
  passBytes @3 :UInt64;        # that this pass found whole
  damaged @4 :UInt64;          # findings of this pass
  bytesPerS @5 :UInt64;        # its pace
}

enum ScrubState {
  off @0;                      # without a pace
  waiting @1;                  # for its next pass
  running @2;
  paused @3;
}

struct LatencyReport {
  # Of the last minute or two.
  count @0 :UInt64;            # none: nothing is known
  p50Us @1 :UInt32;
  p99Us @2 :UInt32;
}

struct HostReport {
  # What could be measured of the machine; the highest value stands for "not known".
  cpuBusyPermille @0 :UInt16 = 65535;      # of all cores, since the last heartbeat
  load1Permille @1 :UInt32 = 4294967295;   # the kernel's load average, times 1000
  cores @2 :UInt32 = 4294967295;
  memoryBytes @3 :UInt64 = 18446744073709551615;
  memoryAvailableBytes @4 :UInt64 = 18446744073709551615;
  netInBytesPerS @5 :UInt64 = 18446744073709551615;   # over all interfaces but loopback, since the last heartbeat
  netOutBytesPerS @6 :UInt64 = 18446744073709551615;
}

enum VolumeState {
  serving @0;
  full @1;                     # reads and deletes only
  failed @2;                   # an I/O error has latched: reads where they still succeed
}
