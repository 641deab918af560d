// Predictions until they are final. A browser holds few connections to one server, so one of them
// is followed by server-sent events, and the others are looked at now and then; nothing is while
// nobody looks.

import { announce } from "../../page/speak.js";
import { ask, once } from "./api.js";
import { change, state } from "./store.js";

const LOOK_MS = 3000;
const KEPT = 20;
const NOT_SEEN = { step: 0, total: 0, previews: [], waiting: null };

let stream = null; // an EventSource, and the id of the prediction that it follows
let timer = null;

export const unfinished = ({ status }) => status === "created" || status === "processing";

export async function submit(inputs, about) {
  const path = `/${state.model.model_id}`;
  const made = await ask("POST", path, inputs, once());
  merge([{ ...made, input: inputs, character: about }]);
  announce("Accepted.");
  follow();
  return made.id;
}

export async function cancel(id) {
  merge([await ask("POST", `/predictions/${id}/cancel`)]);
}

export async function forget(id) {
  await ask("DELETE", `/predictions/${id}`);
  change({ predictions: state.predictions.filter((one) => one.id !== id) });
}

// Now, and whenever somebody looks again; another tab or an agent may have asked for some.
export async function keepUp() {
  document.addEventListener("visibilitychange", () => (document.hidden ? rest() : look()));
  addEventListener("online", look);
  await look();
}

async function look() {
  clearTimeout(timer);
  if (document.hidden) return;
  try {
    const asked = { page_size: KEPT, include_inputs: true };
    const { items } = await ask("POST", "/predictions", asked);
    merge(items);
    connected(true);
  } catch (error) {
    if (error.status === 401 || error.status === 403) throw error;
    connected(false);
  }
  follow();
}

// The oldest is drawn first, so its steps are the next to come.
function follow() {
  clearTimeout(timer);
  const open = state.predictions.filter(unfinished);
  const first = open.findLast(({ status }) => status === "processing") ?? open.at(-1);
  if (first && !stream && state.online) listen(first.id);
  const unseen = open.length > (stream ? 1 : 0);
  if (unseen || !state.online) timer = setTimeout(look, LOOK_MS);
}

function listen(id) {
  const source = new EventSource(`/api/v3/predictions/${id}/events`);
  stream = { id, source };
  const on = (name, take) =>
    source.addEventListener(name, ({ data }) => {
      connected(true);
      take(JSON.parse(data));
    });
  on("status", ({ status, waiting_for: waiting }) => patch(id, { status }, { waiting }));
  on("step", ({ step, total }) => patch(id, { status: "processing" }, { step, total }));
  on("preview", (preview) => {
    const others = live(id).previews.filter(({ number }) => number !== preview.number);
    patch(id, {}, { previews: [...others, preview] });
  });
  on("end", async ({ status }) => {
    hangUp();
    announce(status === "completed" ? "A picture is finished." : "A picture was not drawn.");
    await look(); // which also knows whether it was cancelled
  });
  source.onopen = () => connected(true);
  source.onerror = () => {
    connected(false);
    hangUp();
    follow();
  };
}

function hangUp() {
  stream?.source.close();
  stream = null;
}

function rest() {
  hangUp();
  clearTimeout(timer);
}

function connected(online) {
  if (state.online !== online) change({ online });
}

function live(id) {
  return state.predictions.find((one) => one.id === id)?.live ?? NOT_SEEN;
}

function patch(id, changes, seen = {}) {
  change({
    predictions: state.predictions.map((one) =>
      one.id === id ? { ...one, ...changes, live: { ...NOT_SEEN, ...one.live, ...seen } } : one,
    ),
  });
}

// What the server says, onto what is known here: who is drawn, and what is seen while it is drawn.
function merge(items) {
  const known = new Map(state.predictions.map((one) => [one.id, one]));
  for (const item of items) {
    const before = known.get(item.id);
    const input = before?.input ?? item.input;
    known.set(item.id, { live: NOT_SEEN, ...before, ...item, input });
  }
  const newest = (one, other) => (one.id < other.id ? 1 : -1); // ids begin with the time
  change({ predictions: [...known.values()].sort(newest).slice(0, 3 * KEPT) });
}
