// A picture that was drawn here says how: its request can be taken up again.

import { button, element } from "../../page/element.js";
import { own } from "./api.js";
import { openDialog } from "./dialog.js";
import { openNewCharacter } from "./newcomer.js";
import { redo } from "./redo.js";
import { state } from "./store.js";

export function openRead(file, { request, image, model, client }) {
  const of =
    image &&
    state.characters?.find(({ references }) => references.some((url) => own(url) === own(image)));
  const leave = (work) => () => {
    dialog.close();
    work();
  };
  const dialog = openDialog(
    "Drawn by Castmate",
    element("img", {
      class: "preview",
      src: URL.createObjectURL(file),
      alt: "The picture that was dropped",
    }),
    element("p", {}, request.prompt),
    element(
      "p",
      { class: "quiet" },
      [
        of?.name,
        request.size.replace("*", " × "),
        `seed ${request.seed}`,
        model,
        client && `by ${client}`,
      ]
        .filter(Boolean)
        .join(" · "),
    ),
    !of &&
      element(
        "p",
        { class: "quiet" },
        "Its character is not saved here: the one that is chosen on the left is drawn instead.",
      ),
    element(
      "p",
      { class: "actions" },
      button(
        "Restore its request",
        leave(() => redo(request, { of: of?.id })),
        { class: "primary" },
      ),
      button(
        "Save it as a character",
        leave(() => openNewCharacter([file])),
      ),
    ),
  );
  dialog.classList.add("narrow");
}
