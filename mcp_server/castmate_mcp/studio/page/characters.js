// The characters on the left: which one is drawn, and how well those drawn before resemble it.

import { button, element } from "../../page/element.js";
import { own } from "./api.js";
import { openCharacter } from "./character.js";
import { chooseFiles } from "./drop.js";
import { identityBadge } from "./identity.js";
import { change, state, watch } from "./store.js";

export function showCharacters(aside) {
  const list = element("ul", { class: "cast" });
  const add = button("Add a character", chooseFiles, { class: "add" });
  aside.replaceChildren(
    element("h2", {}, "Characters"),
    list,
    add,
    element("p", { class: "quiet hint" }, "Or drop or paste a picture anywhere."),
  );
  watch(["characters", "chosen", "drawn"], ({ characters }) => {
    const focused = list.contains(document.activeElement) && document.activeElement.dataset.of;
    list.replaceChildren(...(characters ?? []).map((one) => element("li", {}, ...entry(one))));
    aside.classList.toggle("nobody", characters?.length === 0);
    if (focused) list.querySelector(`[data-of="${focused}"]`)?.focus();
  });
}

function entry(one) {
  const chosen = one.id === state.chosen;
  const drawn = state.drawn.get(one.id) ?? [];
  const scores = drawn.map(({ identity }) => identity?.score).filter((score) => score != null);
  const mean = scores.length && scores.reduce((sum, score) => sum + score, 0) / scores.length;
  const pictures = drawn.length === 1 ? "1 picture" : `${drawn.length} pictures`;
  return [
    element(
      "button",
      {
        type: "button",
        class: "member",
        "data-of": one.id,
        "aria-pressed": String(chosen),
        click: () => change({ chosen: one.id }),
      },
      element("img", { src: own(one.references?.[0]), alt: "", width: 44, height: 44 }),
      element("span", { class: "name" }, one.name),
      element(
        "span",
        { class: "quiet" },
        drawn.length ? pictures : "Not drawn yet",
        scores.length > 0 && identityBadge(mean),
      ),
    ),
    button("Edit", () => openCharacter(one), {
      class: "chip edit",
      "aria-label": `Edit ${one.name}`,
    }),
  ];
}
