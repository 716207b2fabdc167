/**
 * Finds which targets each cluster has, as no route says so.
 *
 * In most bundles a cluster's targets stand side by side, in the order of the clusters. Then the
 * probabilities of its targets sum to its own, for every input. So the division is found from a few
 * random inputs, and it is taken only if no other division fits all of them.
 */

import { askMatrix } from "./api.js";
import { exampleNumbers } from "./inputs.js";

const [MIN_INPUTS, MAX_INPUTS] = [4, 8];
const MAX_TARGETS = 1_000_000; // beyond it, the distributions are too long for a page
const MAX_VALUES = 4_000_000; // of all distributions, if there are more than MIN_INPUTS
const SCALE = 0.5; // of the inputs: the smaller they are, the fewer targets are too unlikely to see
const TOLERANCE = 5e-6; // of a cluster's probability: float32 sums of the service
const MAX_TRIES = 3; // with new inputs: of large bundles, one try in ten has inputs that leave a bound open
const MAX_ENDS = 64; // possible ends of one cluster; with more the division is not clear

/**
 * Returns the first target of each cluster and, at the end, the number of targets. Returns null if
 * they cannot be found.
 */
export async function askBlocks(path, model, version) {
  const has = (task) => model.tasks.includes(task);
  if (!has("log_probs") || !has("cluster_log_probs") || model.num_targets > MAX_TARGETS) return null;
  for (let tries = 0; tries < MAX_TRIES; tries += 1) {
    const inputs = randomInputs(model);
    const [targets, clusters] = await Promise.all([
      askMatrix(`${path}/probabilities`, { inputs, ...version }),
      askMatrix(`${path}/clusters`, { inputs, ...version }),
    ]);
    const blocks = findBlocks(targets, clusters);
    if (blocks !== null) return blocks;
  }
  return null;
}

function randomInputs({ num_targets, hidden_size }) {
  const length = Math.max(MIN_INPUTS, Math.min(MAX_INPUTS, Math.floor(MAX_VALUES / num_targets)));
  return Array.from({ length }, () => exampleNumbers(hidden_size).map((number) => number * SCALE));
}

/** Does the same from the probabilities of targets and clusters for some inputs. */
export function findBlocks(targetRows, clusterRows) {
  const sums = targetRows.map(prefixSums);
  const numClusters = clusterRows[0].length;
  const numTargets = targetRows[0].length;
  // For each cluster, its possible ends, each with the starts that lead to it.
  const steps = [];
  let starts = new Map([[0, []]]);
  for (let cluster = 0; cluster < numClusters; cluster += 1) {
    const ends = new Map();
    for (const start of starts.keys()) {
      const masses = clusterRows.map((row) => row[cluster]);
      const isLast = cluster === numClusters - 1;
      const [first, last] = isLast ? lastEnd(sums, masses, start) : possibleEnds(sums, masses, start);
      for (let end = Math.max(first, start + 1); end <= last; end += 1) {
        if (!ends.has(end)) ends.set(end, []);
        ends.get(end).push(start);
      }
      if (ends.size > MAX_ENDS) return null;
    }
    steps.push(ends);
    starts = ends;
  }
  return onlyWay(steps, numTargets);
}

function prefixSums(row) {
  const sums = new Float64Array(row.length + 1);
  for (let i = 0; i < row.length; i += 1) sums[i + 1] = sums[i] + row[i];
  return sums;
}

/** Returns the last target as the only end of the last cluster, whose mass padding may share. */
function lastEnd(sums, masses, start) {
  const end = sums[0].length - 1;
  const fits = sums.every((sum, row) => sum[end] - sum[start] <= masses[row] * (1 + TOLERANCE));
  return fits ? [end, end] : [end, start];
}

/** Returns the first and the last end for which the sums of all inputs fit. */
function possibleEnds(sums, masses, start) {
  let [first, last] = [start, sums[0].length - 1];
  sums.forEach((sum, row) => {
    const [mass, from] = [masses[row], sum[start]];
    first = Math.max(first, firstAtLeast(sum, from + mass * (1 - TOLERANCE)));
    last = Math.min(last, firstAtLeast(sum, from + mass * (1 + TOLERANCE), true) - 1);
  });
  return [first, last];
}

/** Returns the first index whose sum is at least, or above, a value. */
function firstAtLeast(sums, value, above = false) {
  let [low, high] = [0, sums.length];
  while (low < high) {
    const middle = (low + high) >> 1;
    if (above ? sums[middle] <= value : sums[middle] < value) low = middle + 1;
    else high = middle;
  }
  return low;
}

/** Returns the bounds of the clusters if exactly one way leads to the last target. */
function onlyWay(steps, numTargets) {
  const bounds = [numTargets];
  for (const ends of steps.toReversed()) {
    const starts = ends.get(bounds[0]);
    if (starts?.length !== 1) return null;
    bounds.unshift(starts[0]);
  }
  return bounds;
}

/** Returns the cluster of a target. */
export function clusterOf(bounds, target) {
  let [low, high] = [0, bounds.length - 2];
  while (low < high) {
    const middle = (low + high + 1) >> 1;
    if (bounds[middle] <= target) low = middle;
    else high = middle - 1;
  }
  return low;
}
