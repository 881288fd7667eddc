// Numbers and times for people.

export function bytes(count) {
  const units = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];
  let unit = 0;
  while (count >= 1024 && unit < units.length - 1) {
    count /= 1024;
    unit += 1;
  }
  const digits = unit === 0 || count >= 100 ? 0 : count >= 10 ? 1 : 2;
  return `${count.toFixed(digits)} ${units[unit]}`;
}

export function count(number) {
  return number.toLocaleString("en");
}

export function plural(number, one, many) {
  return `${count(number)} ${number === 1 ? one : many ?? `${one}s`}`;
}

export function duration(ms) {
  const seconds = Math.floor(ms / 1000);
  const parts = [["d", 86400], ["h", 3600], ["min", 60], ["s", 1]];
  const first = parts.findIndex(([, length]) => seconds >= length);
  if (first < 0) return "0 s";
  const [unit, length] = parts[first];
  const whole = `${Math.floor(seconds / length)} ${unit}`;
  const next = parts[first + 1];
  if (!next) return whole;
  const rest = Math.floor((seconds % length) / next[1]);
  return rest ? `${whole} ${rest} ${next[0]}` : whole;
}

export function when(unixMs) {
  if (!unixMs) return "–";
  const at = new Date(unixMs);
  const two = (number) => String(number).padStart(2, "0");
  return `${at.getFullYear()}-${two(at.getMonth() + 1)}-${two(at.getDate())} ${two(at.getHours())}:${two(at.getMinutes())}`;
}

export function ago(ms) {
  return ms < 2000 ? "just now" : `${duration(ms)} ago`;
}

// A volume by the last part of its folder, or the head of its id.
export function volumeName(volume) {
  return volume.directory || `volume ${volume.id.slice(0, 8)}`;
}
