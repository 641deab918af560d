// One series: its panels as they are drawn, redrawn one by one, put in another order, and exported.

import { button, element } from "../../page/element.js";
import { announce, notice } from "../../page/speak.js";
import { ask, own, pictureId } from "./api.js";
import { character, state } from "./store.js";
import { doing, openDialog, problemLine } from "./dialog.js";
import { identityBadge } from "./identity.js";
import { movable } from "./moving.js";
import { openPicture } from "./picture.js";
import { unfinished } from "./predictions.js";

const FORMATS = ["png", "pdf", "zip"];
const AGAIN_MS = 3000;

export function titleOf(board) {
  const name = shownIn(board)?.name;
  return [name, board.scenes[0].text].filter(Boolean).join(": ");
}

// The API does not say it of a series, but of each of its latest pictures.
function shownIn({ scenes, character: chosen }) {
  const known = chosen ?? scenes.map((one) => state.whose.get(one.prediction_id)).find(Boolean);
  return character(known?.id) ?? known;
}

export class Board {
  #board;
  #stream = null;
  #timer = null;
  #ordering = false;
  #panels = element("ol", { class: "panels" });
  #bar = element("progress", { "aria-label": "Progress of the story" });
  #line = element("p", { class: "quiet", role: "status" });
  #exports = element("p", { class: "actions" });
  #problem = problemLine();
  #stop;
  #remove;

  constructor(board, back) {
    this.#board = { ...board, character: shownIn(board) };
    const remove = doing("Delete", () => this.#delete(back), {
      class: "chip danger",
      problem: this.#problem,
    });
    const stop = doing("Cancel", () => this.#take(`/cancel`), {
      class: "chip",
      problem: this.#problem,
    });
    this.node = element(
      "section",
      { class: "board" },
      element(
        "p",
        { class: "actions" },
        button("All storyboards", back, { class: "chip" }),
        stop,
        remove,
      ),
      element("h1", { tabindex: -1 }, titleOf(board)),
      this.#bar,
      this.#line,
      this.#problem,
      this.#exports,
      this.#panels,
    );
    this.#stop = stop;
    this.#remove = remove;
    movable(this.#panels, () => this.#order());
    this.#show();
    this.#follow();
  }

  stop() {
    this.#stream?.close();
    clearTimeout(this.#timer);
  }

  #show() {
    const { scenes, status, waiting_for: waiting, sheet } = this.#board;
    const open = unfinished(this.#board);
    this.#panels.replaceChildren(...scenes.map((scene) => this.#panel(scene)));
    this.#bar.hidden = !open;
    this.#stop.hidden = !open;
    this.#remove.hidden = open;
    const drawn = scenes.filter(({ output }) => output).length;
    this.#line.textContent =
      waiting ??
      (open
        ? `${drawn} of ${scenes.length} scenes are drawn`
        : `${status}, ${drawn} of ${scenes.length} scenes`);
    this.#exports.replaceChildren(...(sheet ? FORMATS.map((format) => this.#export(format)) : []));
  }

  #export(format) {
    const href = `/api/v3/storyboards/${this.#board.id}/export?format=${format}`;
    return element(
      "a",
      { class: "button", href, download: `castmate-${this.#board.id}.${format}` },
      format.toUpperCase(),
    );
  }

  #panel(scene) {
    const { number, text, output, status, error, identity, has_nsfw: unsafe } = scene;
    const redraw = button("Redraw", () => this.#redraw(scene), {
      class: "chip",
      "aria-label": `Redraw scene ${number}`,
    });
    const shown = unsafe
      ? element("p", { class: "withheld" }, "Held back: it was found unsafe.")
      : output
        ? element(
            "button",
            { type: "button", class: "tile", click: () => this.#openPicture(scene) },
            element("img", { src: own(output), alt: text }),
            identityBadge(identity),
          )
        : element("div", { class: unfinished(scene) ? "canvas" : "canvas still" });
    return element(
      "li",
      { class: "panel", "data-scene": scene.prediction_id },
      element("figure", {}, shown, element("figcaption", {}, text)),
      error && element("p", { class: "message" }, error),
      !unfinished(this.#board) &&
        element(
          "p",
          { class: "actions" },
          redraw,
          element(
            "span",
            { class: "quiet" },
            status === "completed" ? `seed ${scene.seed}` : status,
          ),
        ),
    );
  }

  #openPicture(chosen) {
    const drawn = this.#board.scenes.filter(({ output, has_nsfw: unsafe }) => output && !unsafe);
    const items = drawn.map((scene) => ({
      id: pictureId(scene.prediction_id, 0),
      url: scene.output,
      name: scene.text,
      seed: scene.seed,
      identity: scene.identity,
      character: this.#board.character,
      input: { prompt: scene.text },
    }));
    openPicture(items, drawn.indexOf(chosen), { gone: () => this.#look() });
  }

  #redraw({ number, text }) {
    const problem = problemLine();
    const field = element("textarea", { id: "scene-text", rows: 3, maxlength: 2000 }, text);
    const draw = doing(
      "Redraw",
      async () => {
        await this.#take(`/scenes/${number}/redraw`, { text: field.value.trim() });
        dialog.close();
      },
      { class: "primary", problem },
    );
    const words = "It is drawn with another seed; the others stay as they are.";
    const label = element("label", { for: "scene-text" }, "What it shows");
    const dialog = openDialog(
      `Redraw scene ${number}`,
      element("p", { class: "quiet" }, words),
      label,
      field,
      problem,
      element("p", { class: "actions" }, draw),
    );
    dialog.classList.add("narrow");
  }

  // One change after the other: a scene's number is its place, which each of them changes.
  async #order() {
    if (this.#ordering || !this.#wanted()) return;
    this.#ordering = true;
    try {
      for (let order = this.#wanted(); order; order = this.#wanted())
        this.#board = {
          ...this.#board,
          ...(await ask("PATCH", `/storyboards/${this.#board.id}`, { order })),
        };
    } catch (error) {
      notice(`The order was not kept: ${error.message}`);
    }
    this.#ordering = false;
    const held = document.activeElement.closest(".panel")?.dataset.scene;
    this.#show();
    if (held) queueMicrotask(() => this.#handle(held)?.focus()); // who moves it by keys goes on
  }

  // The scenes as they stand, unless that is their order already.
  #wanted() {
    const { scenes } = this.#board;
    const places = new Map(scenes.map((scene) => [scene.prediction_id, scene.number]));
    const order = [...this.#panels.children].map(({ dataset }) => places.get(dataset.scene));
    return order.every((number, index) => number === scenes[index].number) ? null : order;
  }

  #handle(scene) {
    return this.#panels.querySelector(`[data-scene="${scene}"] .handle`);
  }

  async #take(path, body) {
    this.#board = {
      ...this.#board,
      ...(await ask("POST", `/storyboards/${this.#board.id}${path}`, body)),
    };
    this.#show();
    this.#follow();
  }

  async #delete(back) {
    await ask("DELETE", `/storyboards/${this.#board.id}`);
    await back();
    notice("The storyboard is deleted, with its pictures.");
  }

  async #look() {
    this.#board = { ...this.#board, ...(await ask("GET", `/storyboards/${this.#board.id}`)) };
    this.#show();
    this.#follow();
  }

  #follow() {
    this.stop();
    if (!unfinished(this.#board)) return;
    this.#stream = new EventSource(`/api/v3/storyboards/${this.#board.id}/events`);
    const on = (name, take) =>
      this.#stream.addEventListener(name, ({ data }) => take(JSON.parse(data)));
    on("step", ({ step, total }) => Object.assign(this.#bar, { max: total, value: step }));
    on("status", (status) => Object.assign(this.#board, status));
    on("scene", (scene) => {
      this.#board.scenes = this.#board.scenes.map((one) =>
        one.number === scene.number ? scene : one,
      );
      this.#show();
    });
    on("end", (final) => {
      this.stop();
      this.#board = { ...this.#board, ...final };
      this.#show();
      announce("The story is finished.");
    });
    this.#stream.onerror = () => {
      this.stop();
      this.#line.textContent = "The connection is lost. What is being drawn goes on.";
      this.#timer = setTimeout(() => this.#look().catch(() => this.#stream.onerror()), AGAIN_MS);
    };
  }
}
