// A reference as the model sees it: what of it is taken, and how that was found.

import { element } from "../../page/element.js";
import { ask } from "./api.js";
import { state } from "./store.js";

const FOUND = {
  alpha: "cut out by its transparency",
  background: "cut out of its plain background",
  matte: "cut out by the model's matte graph",
  none: "taken whole",
};

export function framed(url, picture, name) {
  const box = element("span", { class: "box", hidden: true });
  const whole = element(
    "div",
    { class: "whole" },
    element("img", { src: picture, alt: `${name}, as it is saved` }),
    box,
  );
  const seen = element("img", {
    class: "seen",
    alt: `${name}, as the model sees it`,
    hidden: true,
  });
  const words = element("p", { class: "quiet", role: "status" }, "Looking for the character…");
  framing(url).then(
    (found) => {
      const [left, top, right, bottom] = found.box;
      Object.assign(box.style, {
        left: `${100 * left}%`,
        top: `${100 * top}%`,
        width: `${100 * (right - left)}%`,
        height: `${100 * (bottom - top)}%`,
      });
      seen.src = found.image;
      seen.hidden = false;
      box.hidden = found.framing === "none";
      words.textContent = [
        `It is ${FOUND[found.framing] ?? found.framing}.`,
        ...(found.warnings ?? []),
      ].join(" ");
    },
    (error) => (words.textContent = error.message),
  );
  return element(
    "div",
    { class: "framing" },
    element("div", { class: "pair" }, whole, seen),
    words,
  );
}

// A character is framed whenever it is drawn, as that request says; so the form decides here, too.
function framing(image) {
  return ask("POST", "/characters/preview", {
    image,
    enable_matting: state.draft.enable_matting,
  });
}
