// One character: its pictures, what was drawn of it, its name, and its end.

import { element } from "../../page/element.js";
import { own } from "./api.js";
import { deleteCharacter, renameCharacter } from "./cast.js";
import { doing, openDialog, problemLine } from "./dialog.js";
import { identityBadge } from "./identity.js";
import { watch } from "./store.js";

const SHOWN = 12;

export function openCharacter(one) {
  const problem = problemLine();
  const name = element("input", {
    id: "new-name",
    value: one.name,
    maxlength: 80,
    autocomplete: "off",
    keydown: ({ key, isComposing }) => key === "Enter" && !isComposing && rename.click(),
  });
  const rename = doing(
    "Rename",
    async () => {
      await renameCharacter(one.id, name.value.trim());
      dialog.close();
    },
    { problem },
  );
  const remove = doing(
    "Delete",
    async () => {
      await deleteCharacter(one);
      dialog.close();
    },
    { class: "danger", problem },
  );
  const drawn = element("div", {});
  const end = watch(["drawn"], (known) => drawn.replaceChildren(strip(known.drawn.get(one.id))));
  const dialog = openDialog(
    one.name,
    element(
      "ul",
      { class: "references" },
      ...one.references.map((url, number) =>
        element(
          "li",
          {},
          element("img", { src: own(url), alt: `Picture ${number + 1} of ${one.name}` }),
        ),
      ),
    ),
    element("h3", {}, "Drawn of it"),
    drawn,
    element("label", { for: "new-name" }, "Name"),
    element("div", { class: "row" }, name, rename),
    problem,
    element("p", { class: "actions" }, remove),
  );
  dialog.addEventListener("close", end);
}

function strip(items) {
  if (!items) {
    return element("p", { class: "quiet" }, "Nothing yet: choose it, and write a prompt.");
  }
  const shown = items.slice(0, SHOWN).map(({ thumbnail_url: url, name, input, identity }) => {
    const picture = element("img", { src: own(url), alt: name || input.prompt });
    return element("li", {}, picture, identityBadge(identity));
  });
  return element("ul", { class: "strip" }, ...shown);
}
