// The size by its shape: about a million pixels in each, within what the model draws.

import { element } from "../../page/element.js";
import { set, state, watch } from "./store.js";

const SHAPES = [
  ["1:1", "Square", 1024, 1024],
  ["4:5", "Portrait", 896, 1120],
  ["2:3", "Tall", 832, 1248],
  ["3:2", "Wide", 1248, 832],
  ["16:9", "Screen", 1360, 768],
];

export function shapeButtons() {
  const radios = SHAPES.map(([ratio, name, width, height]) => {
    const size = `${width}*${height}`;
    const input = element("input", {
      type: "radio",
      name: "shape",
      value: size,
      class: "unseen",
      change: () => set("size", size),
    });
    const outline = element("span", { class: "outline", "aria-hidden": "true" });
    outline.style.aspectRatio = `${width} / ${height}`;
    outline.style[width < height ? "height" : "width"] = "1em";
    return element(
      "label",
      { class: "shape", title: `${name}: ${width} × ${height}` },
      input,
      outline,
      element("span", {}, ratio),
    );
  });
  const standard = state.model.api_schema.api_schemas[0].request_schema.properties.size.default;
  watch(["draft"], ({ draft }) => {
    const size = draft.size ?? standard;
    for (const label of radios) label.firstChild.checked = label.firstChild.value === size;
  });
  return element(
    "fieldset",
    { class: "shapes" },
    element("legend", { class: "unseen" }, "Shape"),
    ...radios,
  );
}
