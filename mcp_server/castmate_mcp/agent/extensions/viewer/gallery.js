// What list_library found, as a grid; a card opens what it stands for.

import { copyButton } from "../../../page/copy.js";
import { button, element } from "../../../page/element.js";
import { announce } from "../../../page/speak.js";
import { capitalised, day } from "../../../page/words.js";
import { JobScreen, displayButtons, figure, nextScene } from "./job.js";
import { show } from "./show.js";

const TITLES = { image: "Pictures", character: "Characters", job: "Jobs" };

export class Gallery {
  #host;
  #pictures;
  #items;
  #open = null;
  #section;

  constructor(host, pictures, items) {
    this.#host = host;
    this.#pictures = pictures;
    this.#items = items;
    this.#section = items.length > 0 ? this.#grid() : empty();
    show(this.#section);
    announce(`${items.length} found.`);
  }

  stop() {
    this.#open?.stop?.();
    this.#open = null;
  }

  #grid() {
    const kind = kindOf(this.#items[0]);
    return element(
      "section",
      { class: "gallery" },
      element("h1", {}, TITLES[kind] ?? "Library", " ", element("small", {}, `${this.#items.length}, newest first`)),
      element(
        "ul",
        { class: kind === "job" ? "rows" : "grid" },
        ...this.#items.map((item) => element("li", {}, this.#card(item))),
      ),
      displayButtons(this.#host),
    );
  }

  #card(item) {
    const kind = kindOf(item);
    const made = element(
      "button",
      { type: "button", class: `card ${kind}`, click: () => this.#show(item, made) },
      this.#face(item, kind),
      element("span", { class: "about" }, item.about),
      element("span", { class: "quiet" }, item.status ? capitalised(item.status) : day(item.created)),
    );
    return made;
  }

  #face(item, kind) {
    if (kind === "image") {
      return this.#pictures.image({ uri: `${item.uri}/preview.jpg`, alt: "" });
    }
    const sign = kind === "character" ? [...item.about][0]?.toUpperCase() : "";
    const state = kind === "job" ? ` ${item.status}` : "";
    return element("span", { class: `face${state}`, "aria-hidden": "true" }, sign ?? "");
  }

  #show(item, card) {
    const back = () => {
      this.stop();
      show(this.#section);
      card.focus();
    };
    const about = { prompt: item.about, back };
    if (kindOf(item) === "character" || !this.#host.offers("serverTools")) {
      return showItem(this.#host, this.#pictures, item, about);
    }
    this.#open = new JobScreen(this.#host, this.#pictures, about);
    this.#open.look(item.id.replace(/^img_(\w+)-\d$/, "job_$1"));
  }
}

// A picture or character of which no more is known than its item says.
export function showItem(host, pictures, item, { prompt, back = null, preview = null }) {
  const isImage = kindOf(item) === "image";
  const image = { image_id: item.id, image_uri: item.uri, file_path: item.file_path };
  show(
    ...(back ? [button("Back", back, { class: "chip back" })] : []),
    element(
      "section",
      { class: "job" },
      isImage &&
        element("div", { class: "figures" }, figure(host, pictures, image, { alt: prompt, preview })),
      element(
        "div",
        { class: "facts" },
        item.created && element("p", { class: "eyebrow" }, day(item.created)),
        element("h1", {}, prompt),
        !isImage && element("p", {}, copyButton("Copy id", item.id)),
        nextScene(host, item.id),
        displayButtons(host),
      ),
    ),
  );
}

function empty() {
  const text = "What is drawn or saved will be here.";
  return element(
    "section",
    { class: "problem" },
    element("h1", {}, "Nothing yet"),
    element("p", { class: "message" }, text),
  );
}

function kindOf(item) {
  return item.uri.split(":")[0];
}
