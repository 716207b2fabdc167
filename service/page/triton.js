/** The request on the page as a Python program with Triton's client, over the routes of `/v2`. */

import { KEY, pythonLiteral } from "./commands.js";

const DATATYPES = { int64: "INT64", int32: "INT32", float32: "FP32", bool: "BOOL" };
const NUMPY_TYPES = { INT64: "np.int64", INT32: "np.int32", FP32: "np.float32", BOOL: "bool", BYTES: "object" };

/** Returns a program that needs `tritonclient[http]`. */
export function tritonProgram({ base, model, body, needsKey, encoder, hasLabels }) {
  const { protocol, host, pathname } = new URL(base);
  const server = pythonLiteral(host + pathname.replace(/\/$/, ""));
  const secure = protocol.startsWith("https") ? ", ssl=True" : "";
  const answer = hasLabels ? "top_k_label" : "top_k_target";
  const names = [answer, "top_k_prob", "found"];
  const version = body.version === undefined ? "" : `, model_version=${pythonLiteral(String(body.version))}`;
  const parameters = { k: body.k, ...(body.threshold === undefined ? {} : { threshold: body.threshold }) };
  const headers = needsKey ? [`    headers={"authorization": "Bearer " + os.environ["${KEY}"]},`] : [];
  return [
    ...(needsKey ? ["import os", ""] : []),
    "import numpy as np",
    "import tritonclient.http as triton",
    "",
    "inputs = []",
    ...tensorsOf(body.inputs, encoder).flatMap(tensorLines),
    `client = triton.InferenceServerClient(${server}${secure})`,
    "answer = client.infer(",
    `    ${pythonLiteral(model)}, inputs${version},`,
    `    outputs=[triton.InferRequestedOutput(name) for name in ${pythonLiteral(names)}],`,
    `    parameters=${pythonLiteral(parameters)},`,
    ...headers,
    ")",
    'found = answer.as_numpy("found")[0]',
    `targets = answer.as_numpy("${answer}")[0][:found]`,
    'for target, probability in zip(targets, answer.as_numpy("top_k_prob")[0]):',
    `    print(target${hasLabels ? ".decode()" : ""}, probability)`,
    "",
  ].join("\n");
}

/** Returns the name, the datatype and the rows of each input tensor. */
function tensorsOf(inputs, encoder) {
  if (!Array.isArray(inputs)) {
    const types = Object.fromEntries((encoder?.inputs ?? []).map(({ name, dtype }) => [name, DATATYPES[dtype]]));
    return Object.entries(inputs).map(([name, rows]) => ({ name, rows, datatype: types[name] }));
  }
  return [typeof inputs[0] === "string" ? { name: "text", rows: inputs, datatype: "BYTES" } : { name: "hidden", rows: inputs, datatype: "FP32" }];
}

function tensorLines({ name, rows, datatype }) {
  const dtype = NUMPY_TYPES[datatype];
  return [
    `rows = np.array(${pythonLiteral(rows)}, ${dtype})`,
    `inputs.append(triton.InferInput(${pythonLiteral(name)}, list(rows.shape), "${datatype}"))`,
    "inputs[-1].set_data_from_numpy(rows)",
  ];
}
