/** Reads the page of metrics, and computes what happened between two readings. */

const LINE = /^([a-z_]+)(?:\{(.*)\})? (\S+)/;
const LABEL = /([a-z_]+)="((?:[^"\\]|\\.)*)"/g;

/** Returns the samples of a page in Prometheus' text format: a list of `{ labels, value }` by name. */
export function parseMetrics(text) {
  const found = new Map();
  for (const line of text.split("\n")) {
    const match = line.startsWith("hsoftmax_") ? LINE.exec(line) : null;
    if (match === null) continue;
    const labels = Object.fromEntries([...(match[2] ?? "").matchAll(LABEL)].map(([, name, value]) => [name, value]));
    if (!found.has(match[1])) found.set(match[1], []);
    found.get(match[1]).push({ labels, value: Number(match[3]) });
  }
  return found;
}

/**
 * Returns the figures of the time between two readings, `{ at, samples }` each: requests a second, requests
 * that wait now, median and 95th percentile of a request in milliseconds, and rows of a batch. A figure is
 * null if there was no request or no batch.
 */
export function figuresBetween(before, now) {
  const seconds = (now.at - before.at) / 1000;
  const grown = (name) => sum(now.samples, name) - sum(before.samples, name);
  const batches = grown("hsoftmax_batch_rows_count");
  const latency = (share) => quantile(before.samples, now.samples, "hsoftmax_request_seconds_bucket", share);
  return {
    throughput: grown("hsoftmax_requests_total") / seconds,
    waiting: sum(now.samples, "hsoftmax_queue_depth"),
    median: latency(0.5),
    slow: latency(0.95),
    batchRows: batches > 0 ? grown("hsoftmax_batch_rows_sum") / batches : null,
  };
}

/** Sums a metric; of requests, only those about a bundle, and not those of pages and metrics. */
function sum(samples, name) {
  return ofBundles(samples, name).reduce((total, { value }) => total + value, 0);
}

function ofBundles(samples, name) {
  return (samples.get(name) ?? []).filter(({ labels }) => labels.model !== "");
}

/** Returns the bound in milliseconds below which this share of the new values of a histogram is. */
function quantile(before, now, name, share) {
  const old = byBound(before, name);
  const counts = [...byBound(now, name)].map(([bound, value]) => [bound, value - (old.get(bound) ?? 0)]);
  counts.sort(([a], [b]) => a - b);
  const total = counts.at(-1)?.[1] ?? 0;
  if (total <= 0) return null;
  const [bound] = counts.find(([, value]) => value >= share * total);
  return Number.isFinite(bound) ? bound * 1000 : null;
}

function byBound(samples, name) {
  const totals = new Map();
  for (const { labels, value } of ofBundles(samples, name)) {
    const bound = labels.le === "+Inf" ? Infinity : Number(labels.le);
    totals.set(bound, (totals.get(bound) ?? 0) + value);
  }
  return totals;
}
