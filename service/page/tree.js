/** Divides probabilities into the cells of an icicle: the way to a node, its children, theirs, and so on. */

import { probability, whole } from "./numbers.js";

const LEAST_PIXELS = 4; // cells that would be narrower share one cell

export const ROOT = "root";

/** Returns the key of the cell of a node or a target of an answer. */
export const keyOf = ({ node, target }) => (target !== undefined ? `target-${target}` : node === null ? ROOT : `node-${node}`);

/**
 * Returns the cells.
 *
 * `tree` has `path` (the items from the whole tree to the node that is zoomed), `parts` (a map from the key
 * of a node to `{ items, total }`, its likeliest children and the number of all) and `lit` (the items from the
 * whole tree to the chosen target). An item has `node` or `target`, `name`, `title`, `mass` (a probability) and
 * `num_targets`. `width` is in pixels. `actions` has `zoom(node, or null for the whole tree)` and
 * `choose(target)`.
 */
export function cellsOf(tree, width, actions) {
  const lit = new Set(tree.lit.map(keyOf));
  const above = tree.path.map((item, row) => ({
    ...cellOf(item, actions), row, from: 0, to: 1, lit: lit.has(keyOf(item)), ...wayBack(tree.path, row, actions),
  }));
  const last = tree.path.length - 1;
  return [...above, ...below({ tree, lit, width, actions }, tree.path[last], above[last])];
}

/** Returns where a cell of the way leads: to its node, and the last one to the node above it. */
function wayBack(path, row, actions) {
  const isLast = row === path.length - 1;
  if (row === 0) {
    const title = isLast ? "all targets" : "back to the whole tree";
    return { probability: null, number: null, title, choose: isLast ? null : () => actions.zoom(null) };
  }
  return { choose: () => actions.zoom(path[isLast ? row - 1 : row].node) };
}

/** Returns the cells below the cell of an item, row by row to the end of what is known. */
function below(drawing, item, cell) {
  const { tree, lit, width, actions } = drawing;
  const { items, total } = partOf(tree, item);
  if (!items.length) return [];
  const area = { row: cell.row + 1, from: cell.from, to: cell.to, mass: item.mass, width, key: keyOf(item), total };
  return divide(items, lit, area).flatMap((one) =>
    one.item ? [{ ...cellOf(one.item, actions), ...one }, ...below(drawing, one.item, one)] : [{ ...one, ...othersCell(one) }],
  );
}

/** Returns the known children of an item: those that were asked for, and the next one of the lit path. */
function partOf({ parts, lit }, item) {
  const known = parts.get(keyOf(item)) ?? { items: [], total: null };
  const place = lit.findIndex((one) => keyOf(one) === keyOf(item));
  const next = place < 0 ? undefined : lit[place + 1];
  const isKnown = next === undefined || known.items.some((one) => keyOf(one) === keyOf(next));
  return isKnown ? known : { ...known, items: [...known.items, next] };
}

/**
 * Returns one cell for each item that has enough room or is lit, in the order of items, and one for all
 * others, unless `total`, the number of all items, is not known.
 */
function divide(items, lit, { row, from, to, mass, width, key, total }) {
  const scale = mass > 0 ? (to - from) / mass : 0;
  const shown = items.filter((item) => lit.has(keyOf(item)) || item.mass * scale * width >= LEAST_PIXELS);
  let at = from;
  const cells = shown.map((item) => {
    const cell = { item, row, from: at, to: Math.min(to, at + item.mass * scale), lit: lit.has(keyOf(item)) };
    at = cell.to;
    return cell;
  });
  const others = total === null ? 0 : total - shown.length;
  if (others > 0 && (to - at) * width >= 1) {
    cells.push({ key: `others-${key}`, row, from: at, to, count: others, mass: (to - at) / scale });
  }
  return cells;
}

function cellOf(item, actions) {
  const { node, target, name, title, mass, num_targets } = item;
  const many = target === undefined ? `, ${whole(num_targets)} ${num_targets === 1 ? "target" : "targets"}` : "";
  return {
    key: keyOf(item), label: name, number: probability(mass), probability: mass,
    title: `${title}: ${probability(mass)}${many}`,
    choose: target === undefined ? () => actions.zoom(node) : () => actions.choose(target),
  };
}

function othersCell({ count, mass }) {
  const label = `${whole(count)} ${count === 1 ? "other" : "others"}`;
  return { label, title: `${label}: ${probability(mass)}`, number: probability(mass), probability: mass };
}
