// Two pictures over each other: a slider, which the arrow keys move, decides how much of each is seen.

import { element } from "../../page/element.js";
import { own } from "./api.js";
import { openDialog } from "./dialog.js";

export function compare(first, others) {
  const upper = element("img", { src: own(first.url), alt: first.name, class: "upper" });
  const lower = element("img", {});
  const slider = element("input", {
    type: "range",
    min: 0,
    max: 100,
    value: 50,
    "aria-label": "How much of the first picture is seen",
    input: () => cut(),
  });
  const cut = () => {
    upper.style.clipPath = `inset(0 ${100 - slider.value}% 0 0)`;
    line.style.left = `${slider.value}%`;
  };
  const line = element("span", { class: "line", "aria-hidden": "true" });
  const choose = (other) => {
    lower.src = own(other.url);
    lower.alt = other.name;
  };
  const names = others.map((other, number) =>
    element("option", { value: number }, `${other.name} (seed ${other.seed})`),
  );
  const which = element(
    "select",
    { id: "compared", change: () => choose(others[which.value]) },
    ...names,
  );
  const dialog = openDialog(
    "Compare",
    element(
      "div",
      { class: "sliding" },
      element("div", { class: "compared" }, lower, upper, line),
      slider, // as wide as the pictures
    ),
    element(
      "div",
      { class: "row" },
      element("span", {}, `${first.name} (seed ${first.seed})`),
      element("label", { for: "compared", class: "unseen" }, "With"),
      which,
    ),
  );
  dialog.classList.add("wide", "comparing");
  choose(others[0]);
  cut();
  slider.focus();
}
