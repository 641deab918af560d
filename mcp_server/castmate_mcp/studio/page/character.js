// One character: its pictures, what was drawn of it, its name, and its end.

import { element } from "../../page/element.js";
import { own } from "./api.js";
import { deleteCharacter, renameCharacter } from "./cast.js";
import { doing, openDialog, problemLine } from "./dialog.js";
import { identityBadge } from "./identity.js";
import { state } from "./store.js";

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
    const drawn = state.drawn.get(one.id) ?? [];
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
        drawn.length
            ? element(
                  "ul",
                  { class: "strip" },
                  ...drawn
                      .slice(0, 12)
                      .map((item) =>
                          element(
                              "li",
                              {},
                              element("img", { src: own(item.thumbnail_url), alt: item.name }),
                              identityBadge(item.identity),
                          ),
                      ),
              )
            : element("p", { class: "quiet" }, "Nothing yet: choose it, and write a prompt."),
        element("label", { for: "new-name" }, "Name"),
        element("div", { class: "row" }, name, rename),
        problem,
        element("p", { class: "actions" }, remove),
    );
}
