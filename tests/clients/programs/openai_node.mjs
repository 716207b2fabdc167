// Uses OpenAI's client in Node. Arguments: the server's URL, and a folder.
import assert from "node:assert/strict";
import fs from "node:fs";
import path from "node:path";
import { createRequire } from "node:module";

const require = createRequire(path.join(process.cwd(), "package.json"));
const OpenAI = require("openai");
const { toFile } = OpenAI;

const [url, folder] = process.argv.slice(2);
const client = new OpenAI({ baseURL: `${url}/v1`, apiKey: "any" });
const row = Array(8).fill(0.5);
const topK = "/v1/models/words/top_k";
const queries = [1, 2, 3, 99]
  .map((k) => JSON.stringify({ custom_id: `k${k}`, method: "POST", url: topK, body: { inputs: [row], k } }))
  .join("\n");

async function refused(call, status, code, sentence, param = null) {
  const began = Date.now();
  const error = await call().then(() => assert.fail("expected an error"), (one) => one);
  assert.equal(error.status, status, error.message);
  assert.equal(error.code, code);
  assert.equal(error.param, param);
  assert.ok(error.message.includes(sentence), error.message);
  assert.ok(error.requestID);
  assert.ok(Date.now() - began < 10_000, "the client waited");
}

async function untilEnded(id, ...statuses) {
  const ended = statuses.length ? statuses : ["completed", "failed", "expired", "cancelled"];
  for (;;) {
    const batch = await client.batches.retrieve(id);
    if (ended.includes(batch.status)) return batch;
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
}

const lines = async (id) => (await (await client.files.content(id)).text()).trim().split("\n").map((one) => JSON.parse(one));

// models
const models = [];
for await (const model of client.models.list()) models.push(model.id);
assert.deepEqual(models, ["plain", "words"]);
assert.equal((await client.models.retrieve("words")).object, "model");

// files
const file = path.join(folder, "queries.jsonl");
fs.writeFileSync(file, queries);
const sources = [
  fs.createReadStream(file),
  await toFile(Buffer.from(queries)),
  await toFile(Buffer.from(queries), "queries.jsonl"),
  new File([queries], "upload"),
];
for (const one of sources) {
  const created = await client.files.create({ file: one, purpose: "batch" });
  assert.equal(created.bytes, queries.length);
  assert.equal(await (await client.files.content(created.id)).text(), queries);
}
const uploaded = await client.files.create({
  file: fs.createReadStream(file),
  purpose: "batch",
  expires_after: { anchor: "created_at", seconds: 3600 },
});
assert.equal(uploaded.expires_at, uploaded.created_at + 3600);
let listed = 0;
for await (const _ of client.files.list({ limit: 2 })) listed++;
assert.equal(listed, 5);

// errors
await refused(() => client.files.retrieve("file-0"), 404, "unknown_file", "expected one that is here");
await refused(() => client.batches.create({ input_file_id: uploaded.id, endpoint: topK, completion_window: "1y" }),
  422, "invalid_query", "expected a number and", "completion_window");

// a batch
const create = (endpoint, input_file_id, more = {}) =>
  client.batches.create({ input_file_id, endpoint, completion_window: "24h", ...more });
const batch = await create(topK, uploaded.id, { output_expires_after: { anchor: "created_at", seconds: 7200 } });
const done = await untilEnded(batch.id);
assert.deepEqual({ ...done.request_counts }, { total: 4, completed: 3, failed: 1 });
for (const line of await lines(done.output_file_id)) {
  assert.equal(line.response.status_code, 200);
  assert.equal(line.response.body.results[0].targets.length, Number(line.custom_id.slice(1)));
}
const [failed] = await lines(done.error_file_id);
assert.equal(failed.response.body.error.code, "invalid_query");

// a running job is cancelled; too many jobs are refused at once
const rows = Array.from({ length: 20_000 }, (_, i) => JSON.stringify({ custom_id: `r${i}`, input: row })).join("\n");
const slow = await client.files.create({ file: await toFile(Buffer.from(rows)), purpose: "batch" });
const start = () => create("/v1/models/words/score", slow.id, { task: "sample", num_samples: 2000 });
const jobs = [await start(), await start(), await start()];
await refused(start, 429, "too_many_jobs", "expected at most 3");
await untilEnded(jobs[0].id, "in_progress");
for (const job of jobs) await client.batches.cancel(job.id);
for (const job of jobs) assert.equal((await untilEnded(job.id)).status, "cancelled");
const ids = new Set();
for await (const one of client.batches.list({ limit: 2 })) ids.add(one.id);
assert.equal(ids.size, 4);
