/** Divides probabilities into the cells of an icicle: all targets, their clusters, their targets. */

import { clusterOf } from "./blocks.js";
import { probability, whole } from "./numbers.js";

const LEAST_PIXELS = 4; // cells that would be narrower share one cell

/**
 * Returns the cells.
 *
 * `tree` has `clusters` (a probability each), `targets` (a map from target to probability), `bounds` (see
 * blocks.js, or null), `zoomed` and `chosen` (a cluster and a target, or null), `labelOf(target)` and
 * `nameOf(cluster)`; `width` is in pixels. `actions` has `zoom(cluster or null)` and `choose(target)`.
 */
export function cellsOf(tree, width, actions) {
  const path = tree.bounds && tree.chosen !== null ? clusterOf(tree.bounds, tree.chosen) : null;
  const root = {
    key: "root", row: 0, from: 0, to: 1, probability: null, lit: path !== null,
    label: tree.zoomed === null ? "all targets" : "all targets: back to the clusters",
    title: tree.zoomed === null ? "all targets" : "back to all clusters",
    choose: tree.zoomed === null ? null : () => actions.zoom(null),
  };
  const rows = tree.zoomed === null ? allClusters(tree, width, path, actions) : oneCluster(tree, width, path, actions);
  return [root, ...rows];
}

function allClusters(tree, width, path, actions) {
  const items = tree.clusters.map((mass, cluster) => ({ cluster, mass, lit: cluster === path }));
  const cells = divide(items, { row: 1, from: 0, to: 1, total: 1, width, prefix: "clusters" }).map((cell) =>
    cell.item ? { ...cell, ...clusterCell(tree, cell.item, actions) } : { ...cell, ...othersCell(cell, "clusters") },
  );
  const below = tree.bounds ? cells.filter((cell) => cell.item).flatMap((cell) => knownTargets(tree, cell, width, actions)) : [];
  return [...cells, ...below];
}

/** Returns the targets of a cluster whose probabilities are known, in the part of it that they fill. */
function knownTargets(tree, cell, width, actions) {
  const { cluster, mass } = cell.item;
  const targets = membersOf(tree, cluster);
  const items = targets.map(([target, one]) => ({ target, mass: one, lit: target === tree.chosen }));
  const area = { row: 2, from: cell.from, to: cell.to, total: mass, width, prefix: `rest-${cluster}` };
  return divide(items, area).filter((one) => one.item).map((one) => ({ ...one, ...targetCell(tree, one.item, actions) }));
}

function oneCluster(tree, width, path, actions) {
  const cluster = tree.zoomed;
  const mass = tree.clusters[cluster];
  const top = {
    ...clusterCell(tree, { cluster, mass }, actions),
    row: 1, from: 0, to: 1, lit: cluster === path, choose: () => actions.zoom(null),
  };
  const items = membersOf(tree, cluster).map(([target, one]) => ({ target, mass: one, lit: target === tree.chosen }));
  const area = { row: 2, from: 0, to: 1, total: mass, width, prefix: "targets" };
  const cells = divide(items, area).map((cell) =>
    cell.item ? { ...cell, ...targetCell(tree, cell.item, actions) } : { ...cell, ...othersCell(cell, "targets") },
  );
  return [top, ...cells];
}

function membersOf(tree, cluster) {
  const [first, end] = [tree.bounds[cluster], tree.bounds[cluster + 1]];
  return [...tree.targets].filter(([target]) => target >= first && target < end);
}

/** Returns one cell for each item with enough room, the largest first, and one for all others. */
function divide(items, { row, from, to, total, width, prefix }) {
  const scale = total > 0 ? (to - from) / total : 0;
  const sorted = [...items].sort((a, b) => b.mass - a.mass);
  const wide = sorted.filter((item) => item.mass * scale * width >= LEAST_PIXELS);
  let at = from;
  const cells = wide.map((item) => {
    const cell = { item, row, from: at, to: Math.min(to, at + item.mass * scale), lit: item.lit };
    at = cell.to;
    return cell;
  });
  const narrow = sorted.slice(wide.length);
  if (narrow.length && (to - at) * width >= 1) {
    const mass = narrow.reduce((sum, item) => sum + item.mass, 0);
    cells.push({ key: `${prefix}-others`, row, from: at, to, mass, number: narrow.length, lit: narrow.some((item) => item.lit) });
  }
  return cells;
}

function clusterCell(tree, { cluster, mass }, actions) {
  const size = tree.bounds ? tree.bounds[cluster + 1] - tree.bounds[cluster] : null;
  const name = size === 1 ? tree.labelOf(tree.bounds[cluster]) : tree.nameOf(cluster);
  const many = size === null ? "" : `, ${whole(size)} ${size === 1 ? "target" : "targets"}`;
  return {
    key: `cluster-${cluster}`, label: name, number: probability(mass), probability: mass,
    title: `${name}: ${probability(mass)}${many}`,
    choose: tree.bounds ? () => actions.zoom(cluster) : null,
  };
}

function targetCell(tree, { target, mass }, actions) {
  const label = tree.labelOf(target);
  return {
    key: `target-${target}`, label, number: probability(mass), probability: mass,
    title: `${label}: ${probability(mass)}`, choose: () => actions.choose(target),
  };
}

function othersCell(cell, noun) {
  const label = `${whole(cell.number)} other ${noun}`;
  return { label, title: `${label}: ${probability(cell.mass)}`, number: probability(cell.mass), probability: cell.mass };
}
