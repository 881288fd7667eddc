@0xbab4c538949b7650;
# What the control plane and the data plane both speak of.

struct Id128 {
  # 16 bytes of identity (cluster, volume, incarnation): first eight and last eight, big-endian.
  high @0 :UInt64;
  low @1 :UInt64;
}

struct Epoch {
  # The reign of a nameserver. Dataservers refuse a lower number, and the same number of another incarnation.
  number @0 :UInt64;
  incarnation @1 :Id128;
}

enum Operation {
  read @0;
  write @1;
  copy @2;   # repair: one dataserver pulls from another
}

struct Ticket {
  # A signed, expiring right to do one operation on one block at one volume.
  # mac = HMAC-SHA256(key, cluster, block, operation, lengthMax, hop, volume, expiresUnixMs), see FORMAT.md.
  keyId @0 :UInt32;
  lengthMax @1 :UInt32;        # bytes
  hop @2 :UInt8;               # place in the chain, 0 the head
  expiresUnixMs @3 :UInt64;
  mac @4 :Data;                # 32 bytes
}

struct Hop {
  # One place of a chain, or one replica to read from.
  volume @0 :Id128;
  address @1 :Text;            # HOST:PORT of the volume's data listener
  ticket @2 :Ticket;
  server @3 :Text;             # HOST:PORT of the dataserver, for people
}

struct ReplicaProof {
  # HMAC-SHA256(key, block, length, crc32c, volume): what a volume hands out once the replica is durable.
  volume @0 :Id128;
  mac @1 :Data;                # 32 bytes
}

enum ReplicaState {
  good @0;
  suspect @1;                  # recovered past the durable watermark and not verified: not served
  corrupt @2;                  # failed its checksum: not served
}

struct Replica {
  block @0 :UInt64;
  length @1 :UInt32;
  crc32c @2 :UInt32;
  state @3 :ReplicaState;
}

enum ProblemKind {
  # What a caller can do about a refusal. In control calls it stands at the head of the exception's text.
  failed @0;          # nothing but tell the user
  retry @1;           # the same call later
  otherReplica @2;    # the same read elsewhere
  notFound @3;
  exists @4;
  invalid @5;         # the caller's mistake
  noSpace @6;
  denied @7;          # secret, ticket or lease refused
  corrupt @8;         # a checksum did not match
  gone @9;            # the version was replaced or deleted
  stale @10;          # a lower epoch, or a twin
  notLeader @11;      # ask another nameserver
  busy @12;           # a bounded queue is full
}

enum ScrubOrder {
  start @0;
  pause @1;
}
