// Numbers and times as people read them, and sizes as people write them.
const UNITS = ['B', 'KiB', 'MiB', 'GiB', 'TiB', 'PiB', 'EiB'];

/** 1536 → "1.5 KiB". */
export function bytes(value) {
  if (value === null || value === undefined) return '–';
  let unit = 0, left = Number(value);
  while (left >= 1024 && unit < UNITS.length - 1) { left /= 1024; unit += 1; }
  const digits = unit === 0 || left >= 100 || Number.isInteger(left) ? 0 : left >= 10 ? 1 : 2;
  return `${left.toFixed(digits)} ${UNITS[unit]}`;
}

/** "10G", "1.5 TiB" or "4096" → bytes; NaN for what is no size. */
export function parseSize(text) {
  const found = /^\s*([0-9]+(?:\.[0-9]+)?)\s*([KMGTPE]?)(?:i?B)?\s*$/i.exec(text);
  if (!found) return NaN;
  return Math.round(Number(found[1]) * 1024 ** ' KMGTPE'.indexOf(found[2].toUpperCase() || ' '));
}

/** The same, for what somebody has typed. Throws an Error for him. */
export function sizeOf(text) {
  const found = parseSize(text);
  if (!(found > 0)) throw new Error(`“${text}” is not a size: write for example 10G`);
  return found;
}

/** 12345 → "12.3 k". */
export function count(value) {
  if (value === null || value === undefined) return '–';
  if (value >= 1e6) return `${(value / 1e6).toFixed(1)} M`;
  if (value >= 1e4) return `${(value / 1e3).toFixed(1)} k`;
  return value >= 100 || Number.isInteger(value) ? String(Math.round(value)) : value.toFixed(1);
}

/** Seconds that a command takes → "250 µs", "3.1 ms". */
export function latency(seconds) {
  if (seconds === null || seconds === undefined) return '–';
  if (seconds < 1e-3) return `${Math.round(seconds * 1e6)} µs`;
  return seconds < 1 ? `${Number((seconds * 1e3).toPrecision(3))} ms` : `${Number(seconds.toPrecision(3))} s`;
}

export function plural(number, noun) { return `${number} ${noun}${number === 1 ? '' : 's'}`; }

/** Seconds since 1970, or RFC 3339, → a Date. */
export function date(value) { return typeof value === 'number' ? new Date(value * 1000) : new Date(value); }

export function when(value) {
  if (value === null || value === undefined || value === '') return '–';
  return date(value).toLocaleString(undefined, { dateStyle: 'medium', timeStyle: 'medium' });
}

export function clock(value, fine = false) {
  return date(value).toLocaleTimeString(undefined, { hour: '2-digit', minute: '2-digit', second: '2-digit', ...(fine ? { fractionalSecondDigits: 3 } : {}) });
}

/** How long ago, roughly: "5 min ago". */
export function ago(value) {
  const seconds = (Date.now() - date(value).getTime()) / 1000;
  if (seconds < 45) return 'just now';
  return `${duration(seconds)} ago`;
}

/** Seconds → "5 min", "3 h", "12 days". */
export function duration(seconds) {
  if (seconds < 90) return `${Math.round(seconds)} s`;
  if (seconds < 5400) return `${Math.round(seconds / 60)} min`;
  if (seconds < 172800) return `${Math.round(seconds / 3600)} h`;
  return `${Math.round(seconds / 86400)} days`;
}

export function percent(part, whole) { return whole > 0 ? Math.min(100, (100 * part) / whole) : 0; }
