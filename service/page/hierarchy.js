/** The card of the hierarchy: asks for the clusters and the targets of one of them, and draws both. */

import { ask, modelPath } from "./api.js";
import { askBlocks, clusterOf } from "./blocks.js";
import { byId, showText } from "./dom.js";
import { drawIcicle, shortened } from "./icicle.js";
import { askClusterNames } from "./names.js";
import { newestOnly } from "./newest.js";
import { logProbability, probability } from "./numbers.js";
import { cellsOf } from "./tree.js";

const MAX_MEMBERS = 4096; // targets of a cluster that are asked about; of a larger one only the likeliest
const MAX_NAME = 40; // characters of a cluster's name in the sentence of a path
const MAX_LABELS = 100; // labels that are asked for at once

const HELP = "Width and colour are probability. Choose a cluster to see its targets, and a target to see its path.";
const NO_BLOCKS = "Width and colour are probability. Which targets a cluster has is not known here, so there are no paths.";

/**
 * Returns `{ show(query) }`. A query has `model`, `version` (a field of a body, or none), `inputs`,
 * `best` (the likeliest targets), `labels` (a map, to which labels are added) and `chosen`.
 * `choose` is called with a target.
 */
export function hierarchyCard(choose) {
  const card = { blocks: null, names: new Map(), blocksOf: null, zoomed: null, query: null, answer: null };
  const draw = () => card.answer && drawTree(card, { zoom, choose });
  const refresh = newestOnly(async (query, signal) => {
    try {
      await findBlocks(card, query);
      await askForTree(card, query, signal);
      if (query.model.digest === card.query.model.digest) draw();
    } catch (error) {
      if (error.name === "AbortError") throw error;
      showText(byId("path"), error.message);
    }
  });
  const update = () => card.query && refresh(card.query);
  function zoom(cluster) {
    card.zoomed = cluster;
    update();
  }
  new ResizeObserver(draw).observe(byId("icicle"));
  return {
    show(query) {
      if (card.query?.model.digest !== query.model.digest) Object.assign(card, { zoomed: null, answer: null });
      card.query = query;
      byId("hierarchy-card").hidden = query.model.num_clusters === null;
      if (query.model.num_clusters !== null) update();
    },
  };
}

async function findBlocks(card, { model, version }) {
  if (card.blocksOf === model.digest) return;
  card.blocks = await askBlocks(modelPath(model.name), model, version);
  card.names = await askClusterNames(modelPath(model.name), model, version);
  card.blocksOf = model.digest;
  byId("hierarchy-help").textContent = card.blocks ? HELP : NO_BLOCKS;
}

async function askForTree(card, query, signal) {
  const { model, version, inputs, best, chosen } = query;
  const wanted = new Set([...best, ...(chosen === null ? [] : [chosen])]);
  for (const cluster of clustersToOpen(card, chosen)) {
    for (let target = card.blocks[cluster]; target < card.blocks[cluster + 1]; target += 1) wanted.add(target);
  }
  const targets = [...wanted];
  const body = { inputs, targets: [targets], clusters: true, log: true, ...version };
  const { data } = await ask(`${modelPath(model.name)}/probabilities`, body, { signal });
  const logProbs = new Map(targets.map((target, i) => [target, data.log_probabilities[0][i] ?? -Infinity]));
  const clusters = data.cluster_log_probabilities[0].map((value) => value ?? -Infinity);
  card.answer = { query, logProbs, clusters };
  await askForLabels(card.answer);
}

/** Returns the clusters all of whose targets are needed: the zoomed one, and that of the path. */
function clustersToOpen({ blocks, zoomed }, chosen) {
  if (blocks === null) return [];
  const clusters = [zoomed, chosen === null ? null : clusterOf(blocks, chosen)];
  const isSmall = (cluster) => blocks[cluster + 1] - blocks[cluster] <= MAX_MEMBERS;
  return clusters.filter((cluster) => cluster !== null && isSmall(cluster));
}

/** Asks for the labels of the likeliest targets that have none yet. */
async function askForLabels({ query, logProbs }) {
  const { model, labels, version } = query;
  if (!model.labels) return;
  const sorted = [...logProbs].sort((a, b) => b[1] - a[1]).map(([target]) => target);
  const missing = sorted.slice(0, MAX_LABELS).filter((target) => !labels.has(target));
  if (query.chosen !== null && !labels.has(query.chosen)) missing.push(query.chosen);
  if (!missing.length) return;
  const parameters = new URLSearchParams({ ids: missing.join(","), ...version });
  const { data } = await ask(`${modelPath(model.name)}/labels?${parameters}`);
  data.targets.forEach((target, i) => labels.set(target, data.labels[i]));
}

function drawTree(card, actions) {
  const { query, logProbs, clusters } = card.answer;
  const tree = {
    clusters: clusters.map(Math.exp),
    targets: new Map([...logProbs].map(([target, value]) => [target, Math.exp(value)])),
    bounds: card.blocks,
    zoomed: card.zoomed,
    chosen: query.chosen,
    labelOf: (target) => query.labels.get(target) ?? String(target),
    nameOf: (cluster) => card.names.get(cluster) ?? `cluster ${cluster}`,
  };
  drawIcicle(byId("icicle"), cellsOf(tree, byId("icicle").clientWidth, actions));
  showText(byId("path"), card.blocks && query.chosen !== null ? pathText(card, tree) : "");
}

/** Returns the local log-probabilities of the chosen target's path, and their sum. */
function pathText(card, { labelOf, nameOf }) {
  const { query, logProbs, clusters } = card.answer;
  const cluster = clusterOf(card.blocks, query.chosen);
  const [first, end] = [card.blocks[cluster], card.blocks[cluster + 1]];
  const name = labelOf(query.chosen);
  if (end - first === 1) {
    return `log p(${name}) = ${logProbability(clusters[cluster])}, a row of level 0; p = ${probability(Math.exp(clusters[cluster]))}`;
  }
  const local = localLogProb(card.answer, first, end, clusters[cluster]);
  const sum = clusters[cluster] + local;
  const above = shortened(nameOf(cluster), MAX_NAME);
  return (
    `log p(${name}) = log p(${above}) + log p(${name} | ${above}) = ` +
    `${logProbability(clusters[cluster])} + (${logProbability(local)}) = ${logProbability(sum)}; p = ${probability(Math.exp(sum))}`
  );
}

/**
 * Returns the log-probability of the chosen target in its cluster, from all of the cluster's targets. If
 * they are not all known, or padding shares the cluster, it is what the two other numbers leave.
 */
function localLogProb({ query, logProbs }, first, end, clusterLogProb) {
  const members = [];
  for (let one = first; one < end; one += 1) if (logProbs.has(one)) members.push(logProbs.get(one));
  const own = logProbs.get(query.chosen);
  if (members.length < end - first || query.model.padding === "theano") return own - clusterLogProb;
  const largest = Math.max(...members);
  const sum = members.reduce((total, value) => total + Math.exp(value - largest), 0);
  return own - largest - Math.log(sum);
}
