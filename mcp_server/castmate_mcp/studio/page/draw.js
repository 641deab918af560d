// The view in which pictures are asked for: the form above, what comes of it below.

import { element } from "../../page/element.js";
import { composer } from "./compose.js";
import { feed } from "./feed.js";

export function drawView() {
  return {
    title: "Draw",
    node: element(
      "div",
      { class: "draw" },
      element("h1", { class: "unseen" }, "Draw"),
      composer(),
      feed(),
    ),
  };
}
