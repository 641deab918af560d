// What was asked for, newest first: each prediction is one row, which goes on while it is drawn.

import { drawing } from "../../page/drawing.js";
import { button, element } from "../../page/element.js";
import { notice } from "../../page/speak.js";
import { own, pictureId } from "./api.js";
import { identityBadge } from "./identity.js";
import { openPicture } from "./picture.js";
import { cancel, forget, unfinished } from "./predictions.js";
import { redo } from "./redo.js";
import { state, watch } from "./store.js";

export function feed() {
  const rows = new Map(); // by id: the node, what it shows, and how that goes on
  const list = element("ol", { class: "feed" });
  const away = element("p", { class: "message away", role: "status" });
  const empty = element("div", { class: "nothing" });
  watch(["online"], ({ online }) => {
    away.hidden = online;
    away.textContent = online
      ? ""
      : "The connection is lost. What is being drawn goes on; this page comes back by itself.";
  });
  watch(["predictions", "characters", "whose"], ({ predictions, characters, whose }) => {
    const nodes = predictions.map((found) => {
      const one = { character: whose.get(found.id), ...found };
      const kind = unfinished(one) ? "open" : `${one.status} ${one.character?.name}`;
      const known = rows.get(one.id);
      const row =
        known?.kind === kind
          ? known
          : { kind, ...(kind === "open" ? goingOn(one) : { node: ended(one) }) };
      row.update?.(one);
      rows.set(one.id, row);
      return row.node;
    });
    if (
      nodes.some((node, index) => list.children[index] !== node) ||
      nodes.length !== list.children.length
    )
      list.replaceChildren(...nodes);
    empty.hidden = predictions.length > 0 || !characters;
    empty.replaceChildren(
      ...(characters?.length ? READY : WELCOME).map(([tag, words]) => element(tag, {}, words)),
    );
  });
  return element("section", { class: "results", "aria-label": "Pictures" }, away, empty, list);
}

const READY = [
  ["h2", "Nothing drawn yet"],
  ["p", "Write what happens, and press Draw. The picture appears here step by step."],
];
const WELCOME = [
  ["h2", "Begin with a character"],
  [
    "p",
    "Drop or paste one picture of it anywhere on this page. Then write what it does: it stays the same in every picture.",
  ],
];

function goingOn(one) {
  const { section, step, time, cancellable } = drawing({
    prompt: one.input?.prompt,
    size: one.input?.size,
    heading: "h2",
  });
  const previews = element("ul", { class: "previews", "aria-label": "Finished until now" });
  section.querySelector(".facts").append(previews);
  const clock = setInterval(() => {
    if (!section.isConnected && section.dataset.seen) return clearInterval(clock);
    section.dataset.seen = "true";
    time(Math.max(0, Math.floor((Date.now() - Date.parse(one.created_at)) / 1000)));
  }, 1000);
  const stop = () =>
    cancel(one.id).catch((error) => {
      cancellable(stop);
      notice(`Not cancelled: ${error.message}`);
    });
  cancellable(stop);
  const update = ({ id, live }) => {
    if (live.waiting) step(live.waiting);
    else if (live.total) step(`Step ${live.step} of ${live.total}`);
    else step(place(id));
    if (previews.children.length !== live.previews.length)
      previews.replaceChildren(...live.previews.map(preview));
  };
  return { node: element("li", { class: "broad", "data-id": one.id }, section), update };
}

function preview({ image, number, identity, has_nsfw: unsafe }) {
  if (unsafe) return element("li", { class: "withheld" }, "Held back");
  return element(
    "li",
    {},
    element("img", { src: image, alt: `Picture ${number + 1}` }),
    identityBadge(identity),
  );
}

// Of one's own; others' are not seen.
function place(id) {
  const before = state.predictions.filter((one) => unfinished(one) && one.id < id).length;
  if (before === 0) return "Waiting for its turn";
  return before === 1
    ? "Waiting: one of yours is before it"
    : `Waiting: ${before} of yours are before it`;
}

function ended(one) {
  const prompt = one.input?.prompt ?? "A picture";
  const again = () => redo(one.input ?? {}, { of: one.character?.id });
  if (one.status !== "completed") {
    const cancelled = one.status === "cancelled";
    return element(
      "li",
      { class: "problem broad", "data-id": one.id },
      element("p", { class: "eyebrow" }, cancelled ? "Cancelled" : "Not drawn"),
      element("h2", {}, prompt),
      !cancelled && element("p", { class: "message" }, one.error),
      element(
        "p",
        { class: "actions" },
        button("Change and draw again", again, { class: "chip" }),
        button("Remove", () => forget(one.id), { class: "chip" }),
      ),
    );
  }
  const items = one.outputs.map((url, number) => ({
    id: pictureId(one.id, number),
    url: own(url),
    name: prompt,
    seed: one.seeds[number],
    identity: one.identity[number],
    has_nsfw: one.has_nsfw_contents[number],
    input: one.input,
    character: one.character,
    warnings: one.warnings,
    selection: one.selection,
  }));
  return element(
    "li",
    { class: items.length > 1 ? "done broad" : "done", "data-id": one.id },
    element(
      "div",
      { class: "tiles" },
      ...items.map((item, number) => tile(item, () => openPicture(items, number))),
    ),
    element(
      "div",
      { class: "said" },
      element("h2", {}, prompt),
      element("p", { class: "quiet" }, facts(one)),
      button("Redo", again, { class: "chip", "aria-label": `Redo: ${prompt}` }),
    ),
  );
}

function facts({ character, input, selection, cost_usd: usd }) {
  const chosen = selection && `best of ${selection.candidates.length}`;
  return [
    character?.name,
    input?.size?.replace("*", " × "),
    input?.style,
    chosen,
    usd > 0 && `$${usd.toFixed(3)}`,
  ]
    .filter(Boolean)
    .join(" · ");
}

// A picture small enough to stand beside others; it opens.
export function tile(item, open) {
  const [width, height] = (item.input?.size ?? "1024*1024").split("*");
  const shown = item.has_nsfw
    ? element("span", { class: "withheld" }, "Held back: it was found unsafe.")
    : element("img", {
        src: item.thumbnail_url ?? item.url,
        alt: item.name,
        loading: "lazy",
        decoding: "async",
        width,
        height,
      });
  return element(
    "button",
    { type: "button", class: "tile", click: open },
    shown,
    identityBadge(item.identity),
  );
}
