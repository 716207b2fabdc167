/**
 * Finds the label of each cluster of a tree, as no route says it.
 *
 * The labels of a tree's inner nodes come after those of the targets, and a query may name a node by its
 * label. A cluster is the node that has the cluster's probability for every input.
 */

import { ask, ServiceError } from "./api.js";
import { exampleNumbers } from "./inputs.js";

const INPUTS = 4;
const MAX_NODES = 10_000; // the most labels of one page of the route; the targets of one request are limited, too
const TOLERANCE = 1e-4; // of a log-probability: the path of a node and a cluster are computed apart

/**
 * Returns a map from a cluster to its label. It is empty for a bundle that is not a tree with labels, and for
 * a tree so large that the service refuses the query: its clusters keep their numbers.
 */
export async function askClusterNames(path, model, version) {
  if (!model.inner_nodes || model.inner_nodes > MAX_NODES) return new Map();
  try {
    return await askNames(path, model, version);
  } catch (error) {
    if (error instanceof ServiceError) return new Map();
    throw error;
  }
}

async function askNames(path, model, version) {
  const labels = await askInnerLabels(path, model, version);
  const inputs = Array.from({ length: INPUTS }, () => exampleNumbers(model.hidden_size));
  const targets = inputs.map(() => labels);
  const { data } = await ask(`${path}/probabilities`, { inputs, targets, clusters: true, log: true, ...version });
  return findNames(labels, data.log_probabilities, data.cluster_log_probabilities);
}

/** Returns the labels that name one inner node: a label of several nodes names none. */
async function askInnerLabels(path, { num_targets }, version) {
  const parameters = new URLSearchParams({ start: num_targets, limit: MAX_NODES, ...version });
  const { labels } = (await ask(`${path}/labels?${parameters}`)).data;
  const counts = new Map();
  for (const label of labels) counts.set(label, (counts.get(label) ?? 0) + 1);
  return labels.filter((label) => counts.get(label) === 1);
}

/** Returns the first label that has the log-probability of each cluster in every row, where there is one. */
export function findNames(labels, labelRows, clusterRows) {
  const names = new Map();
  for (let cluster = 0; cluster < clusterRows[0].length; cluster += 1) {
    const isSame = (_, i) => clusterRows.every((row, r) => Math.abs(row[cluster] - labelRows[r][i]) < TOLERANCE);
    const found = labels.findIndex(isSame);
    if (found >= 0) names.set(cluster, labels[found]);
  }
  return names;
}
