// All finished pictures, found by words, character, style and date; more come while one scrolls.

import { button, element } from "../../page/element.js";
import { announce } from "../../page/speak.js";
import { ask, own, query } from "./api.js";
import { compare } from "./compare.js";
import { tile } from "./feed.js";
import { openPicture } from "./picture.js";
import { state, watch } from "./store.js";

const PAGE = 40;
const TYPING_MS = 300; // of somebody who types

export function galleryView() {
  const shelf = new Shelf();
  return { title: "Gallery", node: shelf.node, shown: () => shelf.look() };
}

class Shelf {
  #items = [];
  #cursor = null;
  #asked = 0; // an answer to an older question is late
  #picked = null; // those to compare, while two are being chosen
  #filters = filters(() => this.look());
  #grid = element("ul", { class: "tiles shelf" });
  #empty = element("div", { class: "nothing", hidden: true });
  #end = element("p", { class: "quiet", role: "status" });
  #pick = button("Compare two", () => this.#choose(this.#picked ? null : []), {
    class: "chip",
    "aria-pressed": "false",
  });

  constructor() {
    this.node = element(
      "section",
      { class: "gallery-view" },
      element(
        "header",
        { class: "bar" },
        element("h1", {}, "Gallery"),
        this.#filters.node,
        this.#pick,
      ),
      this.#grid,
      this.#empty,
      this.#end,
    );
    new IntersectionObserver(
      ([{ isIntersecting }]) => isIntersecting && this.#cursor && this.#more(),
      { rootMargin: "600px" },
    ).observe(this.#end);
  }

  async look() {
    this.#items = [];
    this.#cursor = null;
    await this.#more();
    announce(
      this.#items.length
        ? `${this.#items.length}${this.#cursor ? " or more" : ""} pictures.`
        : "No pictures.",
    );
  }

  async #more() {
    const asked = ++this.#asked;
    const wanted = this.#filters.values();
    const page = await ask(
      "GET",
      `/pictures${query({ ...wanted, cursor: this.#cursor, limit: PAGE })}`,
    );
    if (asked !== this.#asked) return;
    const first = this.#cursor === null;
    this.#cursor = page.next_cursor ?? null;
    this.#items.push(
      ...page.items.map((item) => ({ ...item, name: item.name || item.input.prompt })),
    );
    const fresh = this.#items
      .slice(first ? 0 : -page.items.length)
      .map((item) => element("li", {}, this.#tile(item)));
    if (first) this.#grid.replaceChildren(...fresh);
    else this.#grid.append(...fresh);
    this.#end.textContent = this.#cursor ? "More below" : "";
    this.#pick.hidden = this.#items.length < 2;
    this.#show(Object.values(wanted).some(Boolean));
  }

  #show(searched) {
    const words = searched
      ? ["No picture is like that", "Try fewer words, another character or an earlier day."]
      : ["No pictures yet", "What is drawn, here or by an agent, will be here."];
    this.#empty.hidden = this.#items.length > 0;
    this.#empty.replaceChildren(element("h2", {}, words[0]), element("p", {}, words[1]));
  }

  #tile(item) {
    const open = () => {
      if (this.#picked) return this.#choose([...this.#picked, item]);
      openPicture(this.#items, this.#items.indexOf(item), { gone: () => this.look() });
    };
    const shown = tile({ ...item, thumbnail_url: own(item.thumbnail_url) }, open);
    shown.dataset.picture = item.id;
    return shown;
  }

  #choose(picked) {
    this.#picked = picked;
    this.#pick.setAttribute("aria-pressed", String(picked !== null));
    this.#pick.textContent = picked ? `Choose ${2 - picked.length} more` : "Compare two";
    for (const shown of this.#grid.querySelectorAll(".tile")) {
      shown.classList.toggle("picked", !!picked?.some(({ id }) => id === shown.dataset.picture));
    }
    if (picked?.length !== 2) return;
    this.#choose(null);
    compare(picked[0], [picked[1]]);
  }
}

function filters(changed) {
  let timer = null;
  const later = () => {
    clearTimeout(timer);
    timer = setTimeout(changed, TYPING_MS);
  };
  const words = element("input", {
    type: "search",
    placeholder: "Search",
    "aria-label": "Words of the prompt or name",
    input: later,
  });
  const who = element("select", { "aria-label": "Character", change: changed });
  const style = element(
    "select",
    { "aria-label": "Style", change: changed },
    option("", "Any style"),
    ...state.model.styles.map((name) => option(name)),
  );
  const since = element("input", {
    type: "date",
    "aria-label": "From this day on",
    change: changed,
  });
  const until = element("input", {
    type: "date",
    "aria-label": "Before this day",
    change: changed,
  });
  watch(["characters"], ({ characters }) => {
    const { value } = who;
    who.replaceChildren(
      option("", "Anyone"),
      ...(characters ?? []).map(({ id, name }) => option(id, name)),
    );
    who.value = value;
  });
  return {
    node: element(
      "div",
      { class: "filters", role: "search" },
      words,
      who,
      state.model.styles.length > 0 && style,
      element("span", { class: "range" }, since, "–", until),
    ),
    values: () => ({
      query: words.value.trim(),
      character: who.value,
      style: style.value,
      since: since.value,
      until: until.value,
    }),
  };
}

function option(value, label = value) {
  return element("option", { value }, label);
}
