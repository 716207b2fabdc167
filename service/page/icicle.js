/** Draws an icicle: rows of cells below each other, each as wide as its share of the row above. */

import { svgElement } from "./dom.js";

const [ROW_HEIGHT, LOW_ROW_HEIGHT] = [46, 24]; // a low row has no room for a number
const MAX_HIGH_ROWS = 8;
const CHARACTER = 7.4; // pixels of a character, on the average
const SHADES = 6;

/**
 * Draws cells in a container, and keeps the focus on the cell that has it.
 *
 * A cell has `key`, `row`, `from` and `to` (0 to 1), `label`, `title`, `probability`, perhaps `lit`, and
 * `choose`, which a click calls; a cell without it is drawn only.
 */
export function drawIcicle(container, cells) {
  const width = container.clientWidth;
  const focused = container.contains(document.activeElement) ? document.activeElement.dataset.key : null;
  const rows = 1 + Math.max(...cells.map((cell) => cell.row));
  const size = { width, rowHeight: rows > MAX_HIGH_ROWS ? LOW_ROW_HEIGHT : ROW_HEIGHT };
  const height = size.rowHeight * rows;
  const groups = new Map(cells.map((cell) => [cell.key, drawCell(cell, size)]));
  const svg = svgElement("svg", { width, height, role: "group", "aria-label": "hierarchy" });
  // Cells are read in their order; the lit ones are outlined on top of the others.
  svg.append(...cells.map((cell) => groups.get(cell.key)), ...cells.filter((cell) => cell.lit).map((cell) => outline(cell, size)));
  container.replaceChildren(svg);
  moveByArrows(svg);
  if (focused !== null) groups.get(focused)?.focus();
}

function box(cell, { width, rowHeight }) {
  const x = cell.from * width;
  return { x, y: cell.row * rowHeight, width: Math.max(0.5, (cell.to - cell.from) * width - 1), height: rowHeight - 1 };
}

function outline(cell, size) {
  const at = box(cell, size);
  const inside = { x: at.x + 1, y: at.y + 1, width: Math.max(1, at.width - 2), height: at.height - 2 };
  return svgElement("rect", { ...inside, class: "lit" });
}

function drawCell(cell, size) {
  const at = box(cell, size);
  const shade = cell.probability === null ? "none" : Math.min(SHADES - 1, Math.floor(Math.sqrt(cell.probability) * SHADES));
  const attributes = { class: `cell shade-${shade}`, "data-key": cell.key };
  const shown = texts(cell, at);
  if (cell.choose) Object.assign(attributes, { role: "button", tabindex: -1 });
  if (cell.choose && !shown.length) attributes["aria-label"] = cell.title; // else the text names it
  const group = svgElement(
    "g",
    attributes,
    svgElement("title", {}, cell.title),
    svgElement("rect", at),
    ...shown,
  );
  if (cell.choose) {
    group.addEventListener("click", cell.choose);
    group.addEventListener("keydown", (event) => {
      if (event.key !== "Enter" && event.key !== " ") return;
      event.preventDefault();
      cell.choose();
    });
  }
  return group;
}

/** Returns the label and the number below it, as far as the cell has room. */
function texts(cell, at) {
  const room = Math.floor((at.width - 10) / CHARACTER);
  const [x, y] = [at.x + 6, at.y];
  const found = [];
  const label = shortened(cell.label, room);
  const isLow = at.height < ROW_HEIGHT - 1;
  if (label) found.push(svgElement("text", { x, y: y + (isLow ? 16 : 19) }, label));
  if (!isLow && cell.number && cell.number.length <= room) {
    found.push(svgElement("text", { x, y: y + 36, class: "cell-number" }, cell.number));
  }
  return found;
}

/** Returns the text, cut to so many characters; the empty text if there is no room for three. */
export function shortened(text, room) {
  const characters = [...text];
  if (characters.length <= room) return text;
  return room < 3 ? "" : `${characters.slice(0, room - 1).join("")}…`;
}

/** Makes the cells one stop of the tabulator key; arrows move between them. */
function moveByArrows(svg) {
  const stops = [...svg.querySelectorAll("[role=button]")];
  stops[0]?.setAttribute("tabindex", 0);
  const steps = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 };
  svg.addEventListener("keydown", (event) => {
    const step = steps[event.key];
    const index = stops.indexOf(document.activeElement);
    if (step === undefined || index < 0) return;
    event.preventDefault();
    stops[(index + step + stops.length) % stops.length].focus();
  });
}
