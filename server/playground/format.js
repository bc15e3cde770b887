// Figures as people read them, and where a job is as one number. Pure functions.

/** "4.2 s", "2 min 05 s", "1 h 03 min". */
export function duration(seconds, language = "en") {
  if (seconds < 60) {
    const digits = seconds < 10 ? 1 : 0;
    return `${seconds.toLocaleString(language, { minimumFractionDigits: digits, maximumFractionDigits: digits })} s`;
  }
  const whole = Math.round(seconds);
  const two = (n) => String(n).padStart(2, "0");
  if (whole < 3600) return `${Math.floor(whole / 60)} min ${two(whole % 60)} s`;
  return `${Math.floor(whole / 3600)} h ${two(Math.floor((whole % 3600) / 60))} min`;
}

/** A rough time, as an estimate deserves: whole seconds, then steps of five, then minutes. */
export function roughly(seconds) {
  if (seconds < 10) return `${Math.max(1, Math.round(seconds))} s`;
  if (seconds < 90) return `${Math.round(seconds / 5) * 5} s`;
  if (seconds < 5400) return `${Math.round(seconds / 60)} min`;
  const minutes = Math.round(seconds / 60);
  return `${Math.floor(minutes / 60)} h ${String(minutes % 60).padStart(2, "0")} min`;
}

export function bytes(count, language = "en") {
  const units = ["B", "kB", "MB", "GB"];
  let size = count;
  let unit = 0;
  while (size >= 1000 && unit < units.length - 1) {
    size /= 1000;
    unit += 1;
  }
  const digits = size >= 100 || unit === 0 ? 0 : 1;
  return `${size.toLocaleString(language, { maximumFractionDigits: digits })} ${units[unit]}`;
}

const STEPS = [
  [60, 1, "second"],
  [3600, 60, "minute"],
  [86400, 3600, "hour"],
  [Infinity, 86400, "day"],
];

/** "3 min. ago"; times are Unix seconds. */
export function ago(at, now, language = "en") {
  const past = Math.max(0, now - at);
  const [, size, unit] = STEPS.find(([limit]) => past < limit);
  return new Intl.RelativeTimeFormat(language, { numeric: "auto", style: "short" }).format(
    -Math.floor(past / size),
    unit,
  );
}

export function clock(at, language = "en") {
  return new Date(at * 1000).toLocaleString(language, { dateStyle: "medium", timeStyle: "short" });
}

/** The running step, from 1: `done` of `total` counts transformer blocks. */
export function stepNow(done, total, steps) {
  if (!total || !steps) return 0;
  return Math.min(steps, Math.floor((done / total) * steps) + 1);
}

// Where each stage begins and ends, in percent of the whole: denoising is nearly all of it.
const SPANS = {
  prepare: [0, 2],
  expand: [2, 6],
  encode: [6, 8],
  denoise: [8, 86],
  decode: [86, 98],
  publish: [98, 100],
};

/** 0 to 100 over all stages; it never goes back from one stage to the next. */
export function percent({ stage, done = 0, total = 0 }) {
  const span = SPANS[stage];
  if (!span) return 0;
  const share = total ? Math.min(1, done / total) : 0;
  return span[0] + (span[1] - span[0]) * share;
}
