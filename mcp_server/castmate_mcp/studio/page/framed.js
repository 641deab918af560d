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
    element("img", { src: picture, alt: `${name}, as it came` }),
    box,
  );
  const seen = element("img", {
    class: "seen",
    alt: `${name}, as the model sees it`,
    hidden: true,
  });
  const words = element("p", { class: "quiet", role: "status" }, "Looking for the character…");
  const look = async (matting) => {
    try {
      const found = await ask("POST", "/characters/preview", {
        image: url,
        enable_matting: matting,
      });
      const [left, top, right, bottom] = found.box;
      Object.assign(box.style, {
        left: `${100 * left}%`,
        top: `${100 * top}%`,
        width: `${100 * (right - left)}%`,
        height: `${100 * (bottom - top)}%`,
      });
      seen.src = found.image;
      seen.hidden = box.hidden = false;
      words.textContent = [
        `It is ${FOUND[found.framing] ?? found.framing}.`,
        ...(found.warnings ?? []),
      ].join(" ");
    } catch (error) {
      words.textContent = error.message;
    }
  };
  look("auto");
  return element(
    "div",
    { class: "framing" },
    element("div", { class: "pair" }, whole, seen),
    words,
    choice(look),
  );
}

// The words of the parameter are the API's.
function choice(look) {
  const { enum: names, description } =
    state.model.api_schema.api_schemas[0].request_schema.properties.enable_matting;
  const select = element(
    "select",
    { change: () => look(select.value) },
    ...names.map((name) => element("option", { value: name }, name)),
  );
  return element(
    "label",
    { class: "inline", title: description },
    element("code", {}, "enable_matting"),
    select,
  );
}
