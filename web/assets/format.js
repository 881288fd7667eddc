// Numbers and times for people.

import { number as count, t } from "./i18n.js";

export { count };

const UNITS = ["B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];

export function bytes(amount) {
  let unit = 0;
  while (Math.abs(amount) >= 1024 && unit < UNITS.length - 1) {
    amount /= 1024;
    unit += 1;
  }
  const digits = unit === 0 || amount >= 100 ? 0 : amount >= 10 ? 1 : 2;
  return `${amount.toFixed(digits)} ${UNITS[unit]}`;
}

export const rate = (amount) => `${bytes(amount)}/s`;

export const perSecond = (number) => `${number > 0 && number < 10 ? number.toFixed(1) : count(number)}/s`;

export const percent = (part, whole) => `${whole > 0 ? Math.round((100 * part) / whole) : 0}%`;

// Microseconds, as latencies are told.
export function latency(us) {
  if (us < 1000) return `${Math.round(us)} µs`;
  return us < 1e6 ? `${(us / 1000).toFixed(us < 10_000 ? 1 : 0)} ms` : `${(us / 1e6).toFixed(1)} s`;
}

const LENGTHS = [["d", 86400], ["h", 3600], ["min", 60], ["s", 1]];

export function duration(ms) {
  const seconds = Math.max(0, Math.round(ms / 1000));
  const first = LENGTHS.findIndex(([, length]) => seconds >= length);
  if (first < 0) return `0 ${t("unit.s")}`;
  const [unit, length] = LENGTHS[first];
  const whole = `${Math.floor(seconds / length)} ${t(`unit.${unit}`)}`;
  const next = LENGTHS[first + 1];
  const rest = next ? Math.floor((seconds % length) / next[1]) : 0;
  return rest ? `${whole} ${rest} ${t(`unit.${next[0]}`)}` : whole;
}

const two = (number) => String(number).padStart(2, "0");

export function clock(unixMs) {
  const at = new Date(unixMs);
  return `${two(at.getHours())}:${two(at.getMinutes())}:${two(at.getSeconds())}`;
}

export function when(unixMs) {
  const at = new Date(unixMs);
  return `${at.getFullYear()}-${two(at.getMonth() + 1)}-${two(at.getDate())} ${clock(unixMs).slice(0, 5)}`;
}

export function ago(unixMs) {
  const ms = Date.now() - unixMs;
  return ms < 3000 ? t("time.now") : t("time.ago", { time: duration(ms) });
}

// A word as a shell takes it, for the commands that are shown.
export const quoted = (word) => (/^[\w@%+=:,./-]+$/.test(word) ? word : `'${word.replaceAll("'", "'\\''")}'`);

export const volumeName = (volume) => volume.directory || volume.id.slice(0, 8);
