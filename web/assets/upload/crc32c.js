// CRC32C: of bytes, eight at a time, and of parts that follow each other.

const POLYNOMIAL = 0x82f63b78;

// TABLES[n][byte]: what a byte does to the checksum that n more bytes come after.
const TABLES = [new Int32Array(256)];
for (let byte = 0; byte < 256; byte += 1) {
  let crc = byte;
  for (let bit = 0; bit < 8; bit += 1) crc = crc & 1 ? (crc >>> 1) ^ POLYNOMIAL : crc >>> 1;
  TABLES[0][byte] = crc;
}
for (let n = 1; n < 8; n += 1) TABLES.push(TABLES[n - 1].map((crc) => (crc >>> 8) ^ TABLES[0][crc & 255]));
const [T0, T1, T2, T3, T4, T5, T6, T7] = TABLES;

export function crc32c(buffer) {
  const words = new Int32Array(buffer, 0, (buffer.byteLength >>> 3) * 2);
  let crc = -1;
  for (let at = 0; at < words.length; at += 2) {
    const low = crc ^ words[at]; // all browsers' machines are little-endian
    const high = words[at + 1];
    crc = T7[low & 255] ^ T6[(low >>> 8) & 255] ^ T5[(low >>> 16) & 255] ^ T4[low >>> 24]
      ^ T3[high & 255] ^ T2[(high >>> 8) & 255] ^ T1[(high >>> 16) & 255] ^ T0[high >>> 24];
  }
  for (const byte of new Uint8Array(buffer, words.byteLength)) crc = (crc >>> 8) ^ T0[(crc ^ byte) & 255];
  return ~crc >>> 0;
}

// A matrix over GF(2): 32 columns, each a word.
function times(matrix, vector) {
  let sum = 0;
  for (let at = 0; vector; at += 1, vector >>>= 1) if (vector & 1) sum ^= matrix[at];
  return sum >>> 0;
}

const after = (first, second) => first.map((column) => times(second, column));

const ZEROS = new Map();

// What `length` zero bytes do to a checksum.
function zeros(length) {
  const kept = ZEROS.get(length);
  if (kept) return kept;
  let power = Array.from({ length: 32 }, (_, at) => (at ? 2 ** (at - 1) : POLYNOMIAL)); // one zero bit
  for (let twice = 0; twice < 3; twice += 1) power = after(power, power); // one zero byte
  let all = Array.from({ length: 32 }, (_, at) => 2 ** at);
  for (let left = length; left > 0; left = Math.floor(left / 2)) {
    if (left % 2) all = after(all, power);
    power = after(power, power);
  }
  ZEROS.set(length, all);
  return all;
}

// The checksum of two parts from theirs.
export const combined = (first, second, secondLength) => (times(zeros(secondLength), first) ^ second) >>> 0;

export const hex = (crc) => crc.toString(16).padStart(8, "0");
