// One picture as large as it fits, beside what it was drawn with and what can be done with it.

import { copyButton } from "../../page/copy.js";
import { button, element, filled } from "../../page/element.js";
import { notice } from "../../page/speak.js";
import { ask, own } from "./api.js";
import { compare } from "./compare.js";
import { openDialog } from "./dialog.js";
import { openGrid } from "./grid.js";
import { identityBadge } from "./identity.js";
import { redo } from "./redo.js";

const ABOUT = [
  "size",
  "style",
  "num_inference_steps",
  "guidance_scale",
  "subject_scale",
  "negative_prompt",
];

// `items`: what to leaf through with the arrow keys; `gone` is called with one that is deleted.
export function openPicture(items, index, { gone = null } = {}) {
  const stage = element("div", { class: "stage" });
  const side = element("div", { class: "side" });
  const dialog = openDialog("Picture", stage, side);
  dialog.classList.add("wide");
  const show = (number) => {
    index = (number + items.length) % items.length;
    const item = items[index];
    stage.replaceChildren(large(item));
    side.replaceChildren();
    filled(side, {}, ...about(item, dialog, { items, gone }));
  };
  dialog.addEventListener("keydown", ({ key, target }) => {
    if (target.closest("input, select, textarea")) return;
    if (key === "ArrowRight") show(index + 1);
    if (key === "ArrowLeft") show(index - 1);
  });
  show(index);
}

function large(item) {
  if (item.has_nsfw)
    return element(
      "p",
      { class: "withheld" },
      "Held back: it was found unsafe and replaced by a black picture.",
    );
  return element("img", { src: own(item.url), alt: item.name });
}

function about(item, dialog, { items, gone }) {
  const { input = {}, character, selection, warnings = [] } = item;
  const leave = (work) => () => {
    dialog.close();
    return work();
  };
  const others = items.filter((one) => one.id !== item.id && !one.has_nsfw);
  return [
    element("h3", {}, item.name),
    element(
      "dl",
      {},
      fact("Character", character?.name),
      item.identity != null && fact("Identity", identityBadge(item.identity)),
      fact("seed", item.seed != null && copyButton(String(item.seed), item.seed)),
      ...ABOUT.map((name) => fact(name, input[name])),
    ),
    selection && candidates(selection),
    ...warnings.map((text) => element("p", { class: "quiet" }, text)),
    element(
      "p",
      { class: "actions" },
      element(
        "a",
        { class: "button primary", href: own(item.url), download: `castmate-${item.id}` },
        "Download",
      ),
      button(
        "Redo with changes",
        leave(() =>
          redo(
            { ...input, seed: item.seed, num_images: 1, num_candidates: null },
            { of: character?.id },
          ),
        ),
      ),
      button(
        "Try seeds and scales",
        leave(() => openGrid(item)),
      ),
      others.length > 0 &&
        button(
          "Compare",
          leave(() => compare(item, others)),
        ),
      button(
        "Delete",
        leave(() => remove(item, gone)),
        { class: "danger" },
      ),
    ),
  ];
}

function fact(name, value) {
  if (value == null || value === "" || value === false) return null;
  return element("div", {}, element("dt", {}, name), element("dd", {}, value));
}

function candidates({ candidates: drawn }) {
  return element(
    "details",
    { open: true },
    element("summary", {}, `${drawn.length} candidates`),
    element(
      "ul",
      { class: "candidates" },
      ...drawn.map(({ seed, identity, chosen }) =>
        element(
          "li",
          {},
          copyButton(`Seed ${seed}`, seed),
          identityBadge(identity),
          chosen && element("span", { class: "quiet" }, "chosen"),
        ),
      ),
    ),
  );
}

async function remove(item, gone) {
  await ask("DELETE", `/pictures/${item.id}`);
  gone?.(item);
  const undo = async () => {
    await ask("POST", `/pictures/${item.id}/restore`);
    gone?.(item, { back: true });
    notice("The picture is back.");
  };
  notice("The picture is deleted.", button("Undo", undo, { class: "chip" }));
}
