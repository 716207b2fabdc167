/** The facts of a bundle, as `GET /v1/models/{name}` describes it. */

import { element } from "./dom.js";
import { count, logError, share, whole } from "./numbers.js";

export function drawFacts(list, model) {
  const rows = factsOf(model).filter(([, value]) => value !== null && value !== "");
  list.replaceChildren(...rows.flatMap(([name, value]) => [element("dt", {}, name), element("dd", {}, value)]));
}

function factsOf(model) {
  const native = new Set(model.native);
  const graphs = model.tasks.filter((task) => !native.has(task));
  return [
    ["family", model.family],
    ["targets", model.num_targets === null ? null : whole(model.num_targets)],
    ["clusters", model.num_clusters === null ? "none" : whole(model.num_clusters)],
    ["hidden size", model.hidden_size === null ? null : whole(model.hidden_size)],
    ["precision", model.precision],
    ["measured error", model.accuracy.map(accuracyText).join("; ")],
    ["checks", checksText(model.verification)],
    ["size", `${whole(model.size_bytes)} bytes`],
    ["padding", model.padding ?? ""],
    ["labels", model.labels ? "yes" : "no"],
    ["takes", model.inputs.join(", ")],
    ["version", `${model.version} of ${model.versions.join(", ")}`],
    ["refused", Object.entries(model.refused).map(([version, reason]) => `${version}: ${reason}`).join("; ")],
    ["digest", model.digest],
    ["device", `${model.device} (${model.providers.join(", ")})`],
    ["native kernels", model.native.join(", ") || "none"],
    ["ONNX graphs", graphs.join(", ") || "none"],
  ];
}

/** Says how far the answers are from those of the trained weights, which the export measured. */
function accuracyText({ rows_from, rows, max_error, mean_error, top1_agreement }) {
  const kind = rows_from === "drawn" ? "random row" : "calibration row";
  return (
    `log p differs from the trained weights in float64 by at most ${logError(max_error)}, ` +
    `${logError(mean_error)} on average, over ${count(rows, kind)}; ` +
    `the likeliest target is the same in ${share(top1_agreement)}`
  );
}

function checksText(checks) {
  if (!checks.length) return "none";
  const largest = Math.max(...checks.map(({ max_error, tolerance }) => max_error / tolerance));
  return `${checks.length} passed at export, the largest error is ${share(largest)} of its tolerance`;
}
