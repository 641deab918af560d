// The public REST API: every request of the page goes through here.

export class Refused extends Error {
  constructor(status, message, problems = []) {
    super(message);
    this.status = status;
    this.problems = problems;
  }
}

const AWAY =
  "The server cannot be reached. What was asked for is kept there; this page tries again.";
// Clients that the server knows are told that something was cancelled, not that it failed.
const WHO = {
  "x-client-name": "castmate-studio",
  "x-client-version": document.body.dataset.version,
};
let unlock = null;
let unlocking = null;
let described = null;

// What lets the caller in where a key is needed; several requests wait for the same one.
export function whenLocked(ask) {
  unlock = ask;
}

export async function ask(method, path, body = undefined, headers = {}) {
  const sent = body instanceof FormData ? body : body && JSON.stringify(body);
  const type = typeof sent === "string" ? { "content-type": "application/json" } : {};
  const options = { method, body: sent, headers: { ...WHO, ...type, ...headers } };
  const answer = await fetch(`/api/v3${path}`, options).catch(() => null);
  if (!answer) throw new Refused(0, AWAY);
  const data = await answer.json().catch(() => ({}));
  if (answer.ok) return data.data;
  if (answer.status === 401 && unlock && path !== "/session") {
    unlocking ??= unlock().finally(() => (unlocking = null));
    await unlocking;
    return ask(method, path, body, headers);
  }
  throw new Refused(
    answer.status,
    data.message ?? `The server answered ${answer.status}.`,
    data.problems,
  );
}

// The same request again, after a lost answer, is the same prediction.
export function once() {
  const bytes = crypto.getRandomValues(new Uint8Array(16)); // randomUUID needs https
  return {
    "idempotency-key": [...bytes].map((byte) => byte.toString(16).padStart(2, "0")).join(""),
  };
}

export async function upload(file) {
  const form = new FormData();
  form.append("file", file, file.name || "pasted.png");
  return ask("POST", "/media/upload/binary", form);
}

// The description of a body, in the words of the API.
export async function schema(name) {
  described ??= fetch("/openapi.json").then((answer) => answer.json());
  const { schemas } = (await described).components;
  return { ...schemas[name], $defs: schemas };
}

export function query(values) {
  const given = Object.entries(values).filter(([, value]) => value != null && value !== "");
  return given.length ? `?${new URLSearchParams(given)}` : "";
}

// An address of this server by its path: a proxy or another host name may stand before it.
export function own(url) {
  if (!url || url.startsWith("data:")) return url;
  const { pathname, search } = new URL(url, location.href);
  return pathname.startsWith("/files/") || pathname.startsWith("/api/") ? pathname + search : url;
}

export function pictureId(predictionId, number) {
  return `img_${predictionId}-${number}`;
}
