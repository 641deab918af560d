// What a request will cost, in money and time, before it is sent.

import { element } from "../../page/element.js";
import { duration, money } from "../../page/words.js";
import { ask } from "./api.js";
import { parameters } from "./fields.js";
import { state, watch } from "./store.js";

const PAUSE_MS = 250;
const PRICED = ["num_images", "num_candidates", "min_identity"];

export function estimate() {
  const line = element("p", { class: "estimate quiet", role: "status" });
  let timer = null;
  watch(["draft", "predictions"], () => {
    clearTimeout(timer);
    timer = setTimeout(async () => {
      const words = [await price(), time()].filter(Boolean).join(" · ");
      if (line.textContent !== words) line.textContent = words;
    }, PAUSE_MS);
  });
  return line;
}

// Of so many pictures, where each is drawn and paid for.
export function priceOf(count) {
  return said(state.model.base_price * count);
}

function said(usd) {
  return usd ? `Up to ${money(usd)}, if the hosted model draws it` : "Free, on this server";
}

async function price() {
  const { model, draft } = state;
  if (!model.base_price) return said(0);
  const inputs = Object.fromEntries(PRICED.map((name) => [name, draft[name]]));
  const { price: usd } = await ask("POST", "/model/price", {
    model_id: model.model_id,
    inputs,
  }).catch(() => ({}));
  return usd == null ? null : said(usd);
}

// From the latest picture: time grows with pixels, steps and pictures.
function time() {
  const last = state.predictions.find(
    ({ status, executionTime }) => status === "completed" && executionTime,
  );
  if (!last) return null;
  const seconds =
    ((last.executionTime / 1000) * work(state.draft)) / work({ ...last.drawn_with, ...last.input });
  return `about ${duration(Math.max(1, Math.round(seconds)))}`;
}

function work(request) {
  const { properties } = parameters();
  const value = (name) => request[name] ?? properties[name].default ?? 1;
  const [width, height] = value("size").split("*").map(Number);
  return (
    width *
    height *
    value("num_inference_steps") *
    Math.max(value("num_images"), value("num_candidates"))
  );
}
