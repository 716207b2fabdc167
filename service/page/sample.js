/** The card that draws random targets, and counts how often each was drawn. */

import { ask, modelPath } from "./api.js";
import { drawBars } from "./bars.js";
import { byId, showText } from "./dom.js";
import { count, probability } from "./numbers.js";

const MAX_BARS = 30;

/** Returns `{ show(query) }`; a query has `model`, `version` and `inputs`. */
export function sampleCard() {
  let query = null;
  byId("sample-form").addEventListener("submit", async (event) => {
    event.preventDefault();
    if (query === null) return;
    try {
      drawSamples(await draw(query));
      showText(byId("sample-error"), "");
    } catch (error) {
      showText(byId("sample-error"), error.message);
    }
  });
  return {
    show(next) {
      query = next;
    },
  };
}

async function draw({ model, version, inputs }) {
  const body = { inputs, num_samples: byId("draws").valueAsNumber, ...version };
  const seed = byId("seed").value;
  if (seed !== "") body.seed = Number(seed);
  return (await ask(`${modelPath(model.name)}/sample`, body)).data;
}

function drawSamples({ seed, results: [{ targets, labels, probabilities }] }) {
  const drawn = new Map();
  targets.forEach((target, i) => {
    const label = labels?.[i] ?? String(target);
    const one = drawn.get(target) ?? { key: target, label, times: 0, probability: probabilities[i] };
    drawn.set(target, { ...one, times: one.times + 1 });
  });
  const sorted = [...drawn.values()].sort((a, b) => b.times - a.times);
  const items = sorted.slice(0, MAX_BARS).map((one) => ({
    ...one,
    share: one.times / targets.length,
    text: String(one.times),
    title: `${one.label}: drawn ${count(one.times, "time")}, probability ${probability(one.probability)}`,
  }));
  drawBars(byId("draw-bars"), items);
  const rest = sorted.length > items.length ? `, the first ${items.length} shown` : "";
  byId("sample-facts").textContent = `${count(targets.length, "draw")} of ${count(sorted.length, "target")}${rest}; seed ${seed}`;
}
