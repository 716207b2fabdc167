/** A list of bars with labels. Rows are kept and only changed, so that focus stays where it is. */

import { element } from "./dom.js";

/**
 * Draws one bar for each item in an ordered list.
 *
 * An item has `label`, `title`, `share` (0 to 1, the width), `text` and `key`. With `onChoose` the rows
 * are buttons that call it with the item, and the item with `chosenKey` is marked.
 */
export function drawBars(list, items, { onChoose = null, chosenKey = null } = {}) {
  while (list.children.length > items.length) list.lastElementChild.remove();
  while (list.children.length < items.length) list.append(element("li", {}, newRow(onChoose)));
  items.forEach((item, index) => drawRow(list.children[index].firstElementChild, item, onChoose, chosenKey));
}

function newRow(onChoose) {
  const row = onChoose ? element("button", { type: "button" }) : element("div");
  row.className = "bar";
  row.append(
    element("span", { class: "bar-label" }),
    element("span", { class: "bar-track" }, element("span", { class: "bar-fill" })),
    element("span", { class: "bar-number" }),
  );
  return row;
}

function drawRow(row, item, onChoose, chosenKey) {
  const [label, track, number] = row.children;
  label.textContent = item.label;
  row.title = item.title ?? item.label;
  track.firstElementChild.style.width = `${Math.max(0, Math.min(1, item.share)) * 100}%`;
  number.textContent = item.text;
  if (onChoose) {
    row.onclick = () => onChoose(item);
    row.setAttribute("aria-pressed", String(item.key === chosenKey));
  }
}
