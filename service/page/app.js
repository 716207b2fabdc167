/** The page: reads the fields, asks for the likeliest targets, and hands the query to the cards. */

import { ask, hasKey, modelPath, onKeyNeeded, setKey } from "./api.js";
import { drawBars } from "./bars.js";
import { copyText, curlCommand, pythonProgram } from "./commands.js";
import { compareCard } from "./compare.js";
import { byId, element, showText } from "./dom.js";
import { engineCard } from "./engine.js";
import { drawFacts } from "./facts.js";
import { hierarchyCard } from "./hierarchy.js";
import { exampleText, kindHelp, kindName, kindsOf, parseRow, toInputs } from "./inputs.js";
import { newestOnly } from "./newest.js";
import { count, milliseconds, probability } from "./numbers.js";
import { sampleCard } from "./sample.js";
import { tritonProgram } from "./triton.js";

const MAX_BARS = 200;
const RETRY_MS = 2000; // until a service without bundles is asked again

const state = {
  models: [],
  model: null, // the description of the chosen version
  kind: null,
  result: null, // the newest answer of top_k, and the query that it answers
  chosen: null, // the target that the user chose; null follows the likeliest one
  labels: new Map(), // labels of the model's targets that are known so far
};
const cards = { hierarchy: hierarchyCard(chooseTarget), compare: compareCard(), sample: sampleCard() };

/** Asks which bundles are served, and shows the first one. */
async function load() {
  try {
    state.models = (await ask("v1/models")).data.models.filter((model) => model.tasks.includes("top_k"));
  } catch (error) {
    if (error.status !== 401 || hasKey()) showText(byId("notice"), error.message);
    if (error.status === 0 || error.status === 503) setTimeout(load, RETRY_MS);
    return;
  }
  byId("key-form").hidden = true;
  byId("docs-link").hidden = hasKey(); // a link cannot send the key
  if (!state.models.length) {
    showText(byId("notice"), "The service has no bundle with targets yet. This page looks again every two seconds.");
    setTimeout(load, RETRY_MS);
    return;
  }
  showText(byId("notice"), "");
  byId("main").hidden = false;
  byId("bundle").replaceChildren(...state.models.map(({ name }) => element("option", { value: name }, name)));
  showModel(state.models[0]);
}

function showModel(model) {
  Object.assign(state, { model, result: null, chosen: null, labels: new Map() });
  const versions = model.versions.map((version) => element("option", { value: version }, version));
  byId("version").replaceChildren(...versions);
  byId("version").value = model.version;
  byId("k").max = model.num_targets;
  byId("k").value = Math.min(10, model.num_targets);
  drawFacts(byId("facts"), model);
  const kinds = kindsOf(model);
  byId("kinds").hidden = kinds.length < 2;
  byId("kinds").replaceChildren(byId("kinds").firstElementChild, ...kinds.map(kindChoice));
  showKind(kinds[0]);
  byId("input").focus({ preventScroll: true });
}

async function showVersion(version) {
  try {
    showModel((await ask(`${modelPath(state.model.name)}?${new URLSearchParams({ version })}`)).data);
  } catch (error) {
    showText(byId("notice"), error.message);
  }
}

function kindChoice(kind, index) {
  const radio = element("input", { type: "radio", name: "kind", value: kind });
  radio.checked = index === 0;
  radio.addEventListener("change", () => showKind(kind));
  return element("label", {}, radio, ` ${kindName(kind)}`);
}

function showKind(kind) {
  state.kind = kind;
  byId("input-help").textContent = kindHelp(kind, state.model);
  byId("other-input").value = "";
  showExample();
}

function showExample() {
  byId("input").value = exampleText(state.kind, state.model);
  update();
}

/** Returns the query of the fields, or null if the input is empty. Throws InputError. */
function readQuery() {
  const { model, kind } = state;
  const row = parseRow(kind, byId("input").value);
  if (row === null) return null;
  const version = model.version === model.versions.at(-1) ? {} : { version: model.version };
  const inputs = toInputs(kind, [row]);
  const k = byId("k").valueAsNumber;
  const threshold = byId("threshold").valueAsNumber;
  const body = {
    inputs,
    k: Number.isNaN(k) ? Math.min(10, model.num_targets) : k,
    ...(Number.isNaN(threshold) ? {} : { threshold }),
    ...version,
  };
  return { model, kind, row, inputs, version, body };
}

function update() {
  try {
    const query = readQuery();
    if (query === null) return showAnswerError("");
    showRequest(query);
    return askTopK(query);
  } catch (error) {
    return showAnswerError(error.message);
  }
}

const askTopK = newestOnly(async (query, signal) => {
  try {
    const answer = await ask(`${modelPath(query.model.name)}/top_k`, query.body, { signal });
    if (query.model !== state.model) return;
    showAnswer(query, answer);
  } catch (error) {
    if (error.name === "AbortError") throw error;
    if (query.model === state.model) showAnswerError(error.message);
  }
});

function showAnswer(query, answer) {
  const [result] = answer.data.results;
  state.result = { query, result };
  result.labels?.forEach((label, i) => state.labels.set(result.targets[i], label));
  showText(byId("answer-error"), "");
  byId("bars").classList.remove("old");
  showBars();
  byId("answer-facts").textContent = answerFacts(query, result, answer);
  cards.compare.show({ ...query, labels: state.labels });
  cards.sample.show(query);
  showHierarchy();
}

/** Shows an error or, if it is empty, nothing; the bars of before are marked as old. */
function showAnswerError(sentence) {
  showText(byId("answer-error"), sentence);
  byId("bars").classList.toggle("old", sentence !== "");
  byId("answer-facts").textContent = "";
  if (!sentence) byId("bars").replaceChildren();
}

/** Returns the probability of a full bar: the least of 1, 0.5, 0.2, 0.1 and so on that is enough for all. */
function fullBar([largest = 1]) {
  let full = 1;
  for (const step of [2, 2.5, 2, 2, 2.5, 2, 2, 2.5, 2]) {
    if (full / step < largest) break;
    full /= step;
  }
  return full;
}

function showBars() {
  const { result } = state.result;
  const full = fullBar(result.probabilities);
  const items = result.targets.slice(0, MAX_BARS).map((target, i) => ({
    key: target,
    label: result.labels?.[i] ?? String(target),
    title: `target ${target}, probability ${result.probabilities[i]}`,
    share: result.probabilities[i] / full,
    text: probability(result.probabilities[i]),
  }));
  drawBars(byId("bars"), items, { onChoose: ({ key }) => chooseTarget(key), chosenKey: chosenTarget() });
}

function answerFacts({ body }, result, { computeMs, queueMs, roundTripMs }) {
  const facts = [
    result.exact ? "exact" : "not exact",
    `${count(result.blocks, "block")} opened`,
    `${milliseconds(computeMs)} computing`,
    `${milliseconds(queueMs)} waiting`,
    `${milliseconds(roundTripMs)} in all`,
    `a full bar is ${Number(fullBar(result.probabilities).toPrecision(1))}`,
  ];
  if (result.targets.length > MAX_BARS) facts.unshift(`${MAX_BARS} of ${count(result.targets.length, "target")} shown`);
  if (result.truncated) facts.unshift(`more than ${body.k} are above the threshold`);
  if (!result.targets.length) facts.unshift("no target is above the threshold");
  return facts.join(" · ");
}

const chosenTarget = () => state.chosen ?? state.result?.result.targets[0] ?? null;

function chooseTarget(target) {
  state.chosen = target;
  showBars();
  showHierarchy();
}

function showHierarchy() {
  const { query, result } = state.result;
  cards.hierarchy.show({ ...query, labels: state.labels, chosen: chosenTarget() });
}

function showRequest({ model, body }) {
  const base = new URL(".", location.href).href;
  const request = { base, model: model.name, body, needsKey: hasKey(), encoder: model.encoder, hasLabels: model.labels };
  const write = { curl: curlCommand, python: pythonProgram, triton: tritonProgram }[byId("request-language").value];
  byId("request").textContent = write(request);
  byId("copied").textContent = "";
}

async function copyRequest() {
  const done = await copyText(byId("request").textContent, byId("request"));
  byId("copied").textContent = done ? "Copied." : "Select the text and copy it.";
}

function showKeyForm() {
  byId("key-form").hidden = false;
  byId("main").hidden = true;
  byId("key").focus();
}

onKeyNeeded.call = showKeyForm;
byId("key-form").addEventListener("submit", (event) => {
  event.preventDefault();
  setKey(byId("key").value);
  byId("key").value = "";
  load();
});
byId("bundle").addEventListener("change", (event) => {
  showModel(state.models.find(({ name }) => name === event.target.value));
});
byId("version").addEventListener("change", (event) => showVersion(event.target.value));
for (const id of ["input", "k", "threshold", "request-language"]) byId(id).addEventListener("input", update);
byId("example").addEventListener("click", showExample);
byId("copy").addEventListener("click", copyRequest);
engineCard();
load();
