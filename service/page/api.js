/** Requests to the service. The key is in this module's memory only. */

let key = "";

/** Called without arguments when the service wants a key, or another one. */
export const onKeyNeeded = { call: () => {} };

export class ServiceError extends Error {
  constructor(sentence, status) {
    super(sentence);
    this.status = status;
  }
}

export function setKey(text) {
  key = text.trim();
}

export const hasKey = () => key !== "";

/**
 * Sends a request and returns its JSON, with the times and the digest in the answer's headers.
 * Throws ServiceError with the service's own sentence.
 */
export async function ask(path, body = null, { signal } = {}) {
  const started = performance.now();
  const response = await send(path, body, { signal, accept: "application/json" });
  if (!response.ok) throw await refusal(response);
  const data = await response.json();
  return {
    data,
    digest: response.headers.get("x-hsoftmax-digest"),
    queueMs: Number(response.headers.get("x-queue-time-ms")),
    computeMs: Number(response.headers.get("x-compute-time-ms")),
    roundTripMs: performance.now() - started,
  };
}

/** Returns the text of a page, such as the metrics. */
export async function askText(path) {
  const response = await send(path, null, { accept: "*/*" });
  if (!response.ok) throw await refusal(response);
  return response.text();
}

async function send(path, body, { signal, accept }) {
  const headers = { accept };
  if (key) headers.authorization = `Bearer ${asHeaderText(key)}`;
  if (body !== null) headers["content-type"] = "application/json";
  const method = body === null ? "GET" : "POST";
  const content = body === null ? null : JSON.stringify(body);
  try {
    return await fetch(path, { method, headers, body: content, signal });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ServiceError("The service does not answer. Is it still running?", 0);
  }
}

async function refusal(response) {
  if (response.status === 401) onKeyNeeded.call();
  const fallback = `The service answered with status ${response.status}.`;
  try {
    const { error } = await response.json();
    return new ServiceError(error?.message ?? error ?? fallback, response.status);
  } catch {
    return new ServiceError(fallback, response.status);
  }
}

/** Returns the UTF-8 bytes of a text as the characters that a header may have. */
function asHeaderText(text) {
  return String.fromCharCode(...new TextEncoder().encode(text));
}

export const modelPath = (name) => `v1/models/${encodeURIComponent(name)}`;
