/** The card of the hierarchy: asks for the children of nodes, level by level, and draws them. */

import { ask, modelPath } from "./api.js";
import { byId, showText } from "./dom.js";
import { drawIcicle, shortened } from "./icicle.js";
import { newestOnly } from "./newest.js";
import { logProbability, probability } from "./numbers.js";
import { cellsOf, keyOf } from "./tree.js";

const MAX_CHILDREN = 300; // of one node: more cells have no room side by side
const MAX_OPENED = 6; // nodes below the zoomed one whose children are asked for, too
const LEAST_OPENED = 0.05; // of the zoomed node's probability: narrower ones have no room for children
const MAX_STEPS = 8; // of a path that is written out
const MAX_NAME = 40; // characters of a name in the sentence of a path

const HELP =
  "Width and colour are probability. Choose a node to open it, and choose it again to go back. " +
  "Choose a target to see its path.";

/**
 * Returns `{ show(query) }`. A query has `model`, `version` (a field of a body, or none), `inputs`, `labels`
 * (a map, to which labels are added) and `chosen`, a target. `choose` is called with a target.
 */
export function hierarchyCard(choose) {
  const card = { zoomed: null, query: null, tree: null };
  const draw = () => card.tree && drawTree(card.tree, { zoom, choose });
  const refresh = newestOnly(async (query, signal) => {
    try {
      const tree = await askForTree(query, card.zoomed, signal);
      if (query.model.digest !== card.query.model.digest) return;
      card.tree = tree;
      draw();
    } catch (error) {
      if (error.name === "AbortError") throw error;
      showText(byId("path"), error.message);
    }
  });
  const update = () => card.query && refresh(card.query);
  function zoom(node) {
    card.zoomed = node;
    update();
  }
  byId("hierarchy-help").textContent = HELP;
  new ResizeObserver(draw).observe(byId("icicle"));
  return {
    show(query) {
      if (card.query?.model.digest !== query.model.digest) Object.assign(card, { zoomed: null, tree: null });
      card.query = query;
      byId("hierarchy-card").hidden = false;
      update();
    },
  };
}

/** Returns the tree as `cellsOf` takes it: the zoomed node, its children, theirs, and the chosen path. */
async function askForTree(query, zoomed, signal) {
  const [answer, lit] = await Promise.all([
    askForChildren(query, { node: zoomed }, signal),
    query.chosen === null ? null : askForPath(query, signal),
  ]);
  const parts = new Map();
  const add = ({ path, items, total }) => parts.set(keyOf(path.at(-1)), { items, total });
  if (lit !== null) add(lit);
  add(answer);
  const opened = nodesToOpen(answer).filter((item) => !parts.has(keyOf(item)));
  const below = await Promise.all(opened.map(({ node }) => askForChildren(query, { node }, signal)));
  below.forEach(add);
  return { path: answer.path, parts, lit: lit === null ? [] : [...lit.path, lit.chosen] };
}

/** Returns the likeliest nodes among the children of an answer. */
function nodesToOpen({ path, items }) {
  const least = LEAST_OPENED * path.at(-1).mass;
  return items.filter((item) => item.target === undefined && item.mass >= least).slice(0, MAX_OPENED);
}

/** Returns the path to the chosen target, the children of its last node, and the item of the target. */
async function askForPath(query, signal) {
  const { model, version, inputs, chosen } = query;
  const body = { inputs, targets: [[chosen]], log: true, ...version };
  const [answer, { data }] = await Promise.all([
    askForChildren(query, { target: chosen }, signal),
    ask(`${modelPath(model.name)}/probabilities`, body, { signal }),
  ]);
  const name = query.labels.get(chosen) ?? String(chosen);
  const found = answer.items.find(({ target }) => target === chosen) ?? { target: chosen, name, title: name, num_targets: 1 };
  const logProb = data.log_probabilities[0][0] ?? -Infinity;
  return { ...answer, chosen: { ...found, logProb, mass: Math.exp(logProb) } };
}

/** Returns the items of the path and of the likeliest children of a node, or of the parent of a target. */
async function askForChildren({ model, version, inputs, labels }, which, signal) {
  const body = { inputs, ...which, order: "probability", limit: MAX_CHILDREN, log: true, ...version };
  const { data } = await ask(`${modelPath(model.name)}/children`, body, { signal });
  const toItems = (nodes, [logProbs], depth) => nodes.map((node, i) => itemOf(node, logProbs[i], depth ?? i));
  const path = toItems(data.path, data.path_log_probabilities, null);
  const items = toItems(data.children, data.log_probabilities, path.length);
  for (const { target, label } of items) if (target !== undefined && label !== undefined) labels.set(target, label);
  return { path, items, total: data.total };
}

/** Returns an item as `cellsOf` takes it. Nodes at depth 1 are the clusters, which have the same numbers. */
function itemOf(described, value, depth) {
  const { node, target, label, chain } = described;
  const number = target ?? (depth === 1 ? `cluster ${node}` : `node ${node}`);
  const name = label ?? (node === null ? "all targets" : String(number));
  const logProb = value ?? -Infinity; // the service writes minus infinity as null
  const title = chain?.join(" > ") ?? name;
  return { ...described, name: target === undefined ? title : name, title, logProb, mass: Math.exp(logProb) };
}

function drawTree(tree, actions) {
  drawIcicle(byId("icicle"), cellsOf(tree, byId("icicle").clientWidth, actions));
  showText(byId("path"), tree.lit.length ? pathText(tree.lit) : "");
}

/** Returns the local log-probabilities of the steps of a path, and their sum. */
function pathText([, ...steps]) {
  const target = steps.at(-1);
  const end = `= ${logProbability(target.logProb)}; p = ${probability(target.mass)}`;
  if (steps.length === 1) return `log p(${target.name}) ${end}`;
  if (steps.length > MAX_STEPS) return `log p(${target.name}), the sum of ${steps.length} steps, ${end}`;
  const name = ({ name: whole }) => shortened(whole, MAX_NAME);
  const terms = steps.map((step, i) => (i === 0 ? `log p(${name(step)})` : `log p(${name(step)} | ${name(steps[i - 1])})`));
  const values = steps.map((step, i) => logProbability(i === 0 ? step.logProb : local(step, steps[i - 1])));
  const sum = values.map((value, i) => (i === 0 ? value : `(${value})`)).join(" + ");
  return `log p(${target.name}) = ${terms.join(" + ")} = ${sum} ${end}`;
}

/** Returns the log-probability of a step, given the one before it. */
const local = (step, above) => (step.logProb === -Infinity ? -Infinity : step.logProb - above.logProb);
