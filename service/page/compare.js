/** The card that compares the likeliest targets of two inputs. */

import { ask, modelPath } from "./api.js";
import { byId, element, showText } from "./dom.js";
import { parseRow, toInputs } from "./inputs.js";
import { newestOnly } from "./newest.js";
import { probability } from "./numbers.js";

const K = 10; // likeliest targets of each input

/** Returns `{ show(query) }`; a query has `model`, `version`, `kind`, `row` and `labels`. */
export function compareCard() {
  const card = byId("compare-card");
  let query = null;
  const refresh = newestOnly(async (current, signal) => {
    try {
      const other = parseRow(current.kind, byId("other-input").value);
      const rows = other === null ? [] : await compareRows(current, other, signal);
      drawComparison(rows);
      showText(byId("compare-error"), "");
    } catch (error) {
      if (error.name === "AbortError") throw error;
      showText(byId("compare-error"), error.message);
    }
  });
  const update = () => card.open && query && refresh(query);
  card.addEventListener("toggle", update);
  byId("other-input").addEventListener("input", update);
  return {
    show(next) {
      query = next;
      update();
    },
  };
}

/** Returns the likeliest targets of both rows, each with its probability in both. */
async function compareRows({ model, version, kind, row, labels }, other, signal) {
  const inputs = toInputs(kind, [row, other]);
  const path = modelPath(model.name);
  const best = await ask(`${path}/top_k`, { inputs, k: Math.min(K, model.num_targets), ...version }, { signal });
  for (const result of best.data.results) result.labels?.forEach((label, i) => labels.set(result.targets[i], label));
  const targets = [...new Set(best.data.results.flatMap((result) => result.targets))];
  const { data } = await ask(`${path}/probabilities`, { inputs, targets: [targets, targets], ...version }, { signal });
  const [first, second] = data.probabilities;
  return targets
    .map((target, i) => ({ label: labels.get(target) ?? String(target), first: first[i], second: second[i] }))
    .sort((a, b) => Math.max(b.first, b.second) - Math.max(a.first, a.second));
}

function drawComparison(rows) {
  if (!rows.length) return byId("comparison").replaceChildren();
  const head = ["target", "input", "the other", "bars"].map((text) => element("th", { scope: "col" }, text));
  const body = rows.map((row) =>
    element(
      "tr",
      {},
      element("th", { scope: "row", title: row.label }, row.label),
      element("td", {}, probability(row.first)),
      element("td", {}, probability(row.second)),
      element("td", { class: "pair" }, bar(row.first, "fill-first"), bar(row.second, "fill-second")),
    ),
  );
  const table = element("table", {}, element("thead", {}, element("tr", {}, ...head)), element("tbody", {}, ...body));
  return byId("comparison").replaceChildren(table);
}

function bar(share, style) {
  const fill = element("span", { class: `bar-fill ${style}` });
  fill.style.width = `${share * 100}%`;
  return element("span", { class: "bar-track" }, fill);
}
