/** A small line chart as SVG: the last readings, from 0 to the largest of them. */

import { element, svgElement } from "./dom.js";

const [WIDTH, HEIGHT] = [300, 70];

/**
 * Returns a chart with a title, its newest values in words, and one line for each list of values.
 * All lists have `length` values at most; null is a gap.
 */
export function chart(title, words, lists, length) {
  const largest = Math.max(...lists.flat().map((value) => value ?? 0), Number.MIN_VALUE);
  const lines = lists.map((values, i) => svgElement("path", { class: `line line-${i}`, d: pathOf(values, largest, length) }));
  const svg = svgElement(
    "svg",
    { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, preserveAspectRatio: "none", role: "img", "aria-label": `${title}: ${words}` },
    svgElement("path", { class: "axis", d: `M0 ${HEIGHT - 1}H${WIDTH}` }),
    ...lines,
  );
  return element("figure", {}, element("figcaption", {}, `${title} `, element("b", {}, words)), svg);
}

function pathOf(values, largest, length) {
  const step = WIDTH / (length - 1);
  const start = WIDTH - (values.length - 1) * step;
  let isOn = false;
  const parts = values.map((value, i) => {
    if (value === null) {
      isOn = false;
      return "";
    }
    const point = `${(start + i * step).toFixed(1)} ${(HEIGHT - 2 - (value / largest) * (HEIGHT - 6)).toFixed(1)}`;
    const part = isOn ? `L${point}` : `M${point}h.01`; // a single value is a dot
    isOn = true;
    return part;
  });
  return parts.join("");
}
