// The scenes of a new series, one a line: Enter begins the next one, and lines can be moved.

import { button, element } from "../../page/element.js";
import { movable } from "./moving.js";

const EXAMPLES = ["waking up in a tent", "walking through a forest", "finding a lantern"];

// `changed` gets the texts whenever they change.
export class Lines {
  #list = element("ol", { class: "scenes" });
  #more = button("Add a scene", () => this.#add(), { class: "chip" });
  #most = Infinity;
  #changed;

  constructor(changed) {
    this.#changed = changed;
    this.node = element(
      "div",
      { input: () => changed(this.texts) },
      this.#list,
      element("p", {}, this.#more),
    );
    movable(this.#list, () => this.#number());
    this.clear();
  }

  get texts() {
    const fields = [...this.#list.querySelectorAll("textarea")];
    return fields.map(({ value }) => value.trim()).filter(Boolean);
  }

  // What the API says of them.
  limit({ maxItems, description }) {
    this.#most = maxItems;
    this.#list.title = description;
    this.#number();
  }

  clear() {
    this.#list.replaceChildren(this.#line(), this.#line());
    this.#number();
  }

  #add(after = this.#list.lastChild) {
    if (this.#list.children.length >= this.#most) return;
    const line = this.#line();
    after.after(line);
    this.#number();
    line.querySelector("textarea").focus();
  }

  #line() {
    const field = element("textarea", {
      rows: 1,
      maxlength: 2000,
      keydown: (event) => {
        if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
        event.preventDefault();
        this.#add(line);
      },
    });
    const remove = button("×", () => this.#remove(line), {
      class: "close",
      "aria-label": "Remove the scene",
    });
    const line = element("li", { class: "scene-row" }, field, remove);
    return line;
  }

  #remove(line) {
    if (this.#list.children.length > 1) line.remove();
    else line.querySelector("textarea").value = "";
    this.#number();
  }

  #number() {
    [...this.#list.children].forEach((line, index) => {
      const field = line.querySelector("textarea");
      field.setAttribute("aria-label", `Scene ${index + 1}`);
      field.placeholder = EXAMPLES[index] ?? "";
    });
    this.#more.disabled = this.#list.children.length >= this.#most;
    this.#changed(this.texts);
  }
}
