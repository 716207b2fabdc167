/** The facts of a bundle, as `GET /v1/models/{name}` describes it. */

import { element } from "./dom.js";
import { whole } from "./numbers.js";

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
