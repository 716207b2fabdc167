/** The card with charts of the engine. It reads the metrics only while it is on the screen. */

import { askText } from "./api.js";
import { chart } from "./chart.js";
import { byId, showText } from "./dom.js";
import { figuresBetween, parseMetrics } from "./metrics.js";

const INTERVAL_MS = 2000;
const LENGTH = 60; // readings that are shown

export function engineCard() {
  const card = byId("engine-card");
  const figures = [];
  let before = null;
  let timer = null;
  let isOnScreen = false;

  async function read() {
    try {
      const now = { at: performance.now(), samples: parseMetrics(await askText("metrics")) };
      if (before !== null) figures.push(figuresBetween(before, now));
      figures.splice(0, figures.length - LENGTH);
      before = now;
      drawCharts(figures);
      showText(byId("engine-error"), "");
    } catch (error) {
      showText(byId("engine-error"), error.message);
    }
  }

  function startOrStop() {
    const isSeen = isOnScreen && card.open && document.visibilityState === "visible";
    if (isSeen && timer === null) {
      before = null; // what happened meanwhile is not of one interval
      read();
      timer = setInterval(read, INTERVAL_MS);
    } else if (!isSeen && timer !== null) {
      clearInterval(timer);
      timer = null;
    }
  }

  new IntersectionObserver(([entry]) => {
    isOnScreen = entry.isIntersecting;
    startOrStop();
  }).observe(card);
  card.addEventListener("toggle", startOrStop);
  document.addEventListener("visibilitychange", startOrStop);
}

function drawCharts(figures) {
  const list = (name) => figures.map((one) => one[name]);
  const last = figures.at(-1);
  const text = (value, unit) => (value === null || value === undefined ? "–" : `${Number(value.toPrecision(3))}${unit}`);
  const latency = `median ${text(last?.median, " ms")}, 95% below ${text(last?.slow, " ms")}`;
  byId("charts").replaceChildren(
    chart("throughput", text(last?.throughput, " requests/s"), [list("throughput")], LENGTH),
    chart("waiting", text(last?.waiting, ""), [list("waiting")], LENGTH),
    chart("latency", latency, [list("median"), list("slow")], LENGTH),
    chart("rows of a batch", text(last?.batchRows, ""), [list("batchRows")], LENGTH),
  );
}
