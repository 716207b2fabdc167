/** The request on the page as a command for a shell, and as a program in Python. */

export const KEY = "HSOFTMAX_API_KEY"; // the key itself is never written into a command

/** Returns a command for curl. */
export function curlCommand({ base, model, body, needsKey }) {
  const lines = [
    `curl ${shellQuoted(`${base}v1/models/${encodeURIComponent(model)}/top_k`)}`,
    "-H 'content-type: application/json'",
  ];
  if (needsKey) lines.push(`-H "authorization: Bearer $${KEY}"`);
  lines.push(`-d ${shellQuoted(JSON.stringify(body))}`);
  return lines.join(" \\\n  ");
}

/** Returns a program that asks with hsoftmax.Client. */
export function pythonProgram({ base, model, body, needsKey }) {
  const url = pythonLiteral(base.replace(/\/$/, ""));
  const client = needsKey ? `${url}, api_key=os.environ["${KEY}"]` : url;
  const version = body.version === undefined ? "" : `, version=${pythonLiteral(body.version)}`;
  const threshold = body.threshold === undefined ? "" : `, threshold=${body.threshold}`;
  return [
    ...(needsKey ? ["import os", ""] : []),
    "import hsoftmax",
    "",
    `inputs = ${pythonLiteral(body.inputs)}`,
    `with hsoftmax.Client(${client}) as client:`,
    `    model = client.model(${pythonLiteral(model)}${version})`,
    `    [row] = model.top_k(inputs, k=${body.k}${threshold})`,
    "for target, probability in zip(row.labels or row.targets, row.probabilities):",
    "    print(target, probability)",
    "",
  ].join("\n");
}

function shellQuoted(text) {
  return `'${text.replaceAll("'", "'\\''")}'`;
}

/** Returns a JSON value in Python's syntax; JSON's strings and numbers are Python's, too. */
export function pythonLiteral(value) {
  if (Array.isArray(value)) return `[${value.map(pythonLiteral).join(", ")}]`;
  if (value === null) return "None";
  if (typeof value === "boolean") return value ? "True" : "False";
  if (typeof value === "object") {
    const fields = Object.entries(value).map(([name, one]) => `${JSON.stringify(name)}: ${pythonLiteral(one)}`);
    return `{${fields.join(", ")}}`;
  }
  return JSON.stringify(value);
}

/** Copies a text, also where the page has no right to the clipboard because it came over HTTP. */
export async function copyText(text, shown) {
  if (navigator.clipboard) {
    try {
      await navigator.clipboard.writeText(text);
      return true;
    } catch {
      // the browser refused: the way of old follows
    }
  }
  getSelection().selectAllChildren(shown);
  return document.execCommand("copy");
}
