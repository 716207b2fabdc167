/** Reads what stands in the input field as one row of a query. */

import { whole } from "./numbers.js";

// The kinds of a row, as `inputs` of a model names them, in the order in which they are offered.
const KINDS = {
  text: { name: "text", help: () => "Any text." },
  named: { name: "ids", help: namedHelp },
  hidden: {
    name: "numbers",
    help: (model) => `${whole(model.hidden_size)} numbers: a CSV line, a JSON list, or a whole query in JSON.`,
  },
};

export const kindsOf = (model) => Object.keys(KINDS).filter((kind) => model.inputs.includes(kind));
export const kindName = (kind) => KINDS[kind].name;
export const kindHelp = (kind, model) => KINDS[kind].help(model);

function namedHelp(model) {
  const inputs = model.encoder.inputs.map(({ name, shape }) => `${name} [${shape.join(", ")}]`);
  return `A JSON object with one row of each input of the encoder: ${inputs.join("; ")}.`;
}

export class InputError extends Error {}

/** Returns the row in a text, or null if the text is empty. Throws InputError. */
export function parseRow(kind, text) {
  if (!text.trim()) return null;
  switch (kind) {
    case "text": return text.replace(/[\r\n]+$/, ""); // a text is one line
    case "named": return parseNamed(text);
    default: return parseNumbers(text);
  }
}

/** Returns the field `inputs` of a query with these rows. */
export function toInputs(kind, rows) {
  if (kind !== "named") return rows;
  const names = Object.keys(rows[0]);
  return Object.fromEntries(names.map((name) => [name, rows.map((row) => row[name])]));
}

function parseNamed(text) {
  const read = parseJson(text, "input: expected a JSON object such as {\"tokens\": [1, 2]}");
  const row = firstRow(read);
  if (row === null || typeof row !== "object" || Array.isArray(row)) {
    throw new InputError("input: expected a JSON object with the names of the encoder's inputs");
  }
  return row;
}

/** Returns numbers with commas, semicolons or spaces between them, or those of JSON. */
function parseNumbers(text) {
  if (/^\s*[[{]/.test(text)) return firstRow(parseJson(text, "input: expected JSON"));
  const parts = text.trim().split(/[\s,;]+/).filter((part) => part !== "");
  return parts.map(parseNumber);
}

function parseNumber(text, position) {
  const number = Number(text);
  if (!Number.isFinite(number)) {
    throw new InputError(`input: expected numbers, got ${JSON.stringify(text.slice(0, 40))} at position ${position}`);
  }
  return number;
}

function parseJson(text, expectation) {
  try {
    return JSON.parse(text);
  } catch {
    throw new InputError(`${expectation}, got text that is no whole JSON`);
  }
}

/** Returns the first row of a query or of a list of rows, and any other value as it is. */
function firstRow(value) {
  if (value && typeof value === "object" && "inputs" in value) return firstRow(value.inputs);
  if (Array.isArray(value) && Array.isArray(value[0])) return value[0];
  return value;
}

/** Returns a text for the input field that the model can answer. */
export function exampleText(kind, model) {
  switch (kind) {
    case "text": return "the quick brown fox";
    case "named": return JSON.stringify(exampleNamed(model.encoder.inputs));
    default: return exampleNumbers(model.hidden_size).join(", ");
  }
}

export function exampleNumbers(length) {
  return Array.from({ length }, () => Math.round((Math.random() * 2 - 1) * 1000) / 1000);
}

function exampleNamed(inputs) {
  return Object.fromEntries(inputs.map((port) => [port.name, exampleArray(port, port.shape)]));
}

function exampleArray(port, [size, ...rest]) {
  if (size === undefined) return port.dtype === "bool" ? true : Math.min(1, (port.num_ids ?? 2) - 1);
  return Array.from({ length: typeof size === "number" ? size : 3 }, () => exampleArray(port, rest));
}
