// A picture that was drawn here says how: its request can be taken up again.

import { button, element } from "../../page/element.js";
import { openDialog } from "./dialog.js";
import { openNewCharacter } from "./newcomer.js";
import { redo } from "./redo.js";

export function openRead(file, request) {
  const picture = URL.createObjectURL(file);
  const { prompt, seed, size } = request.input ?? request;
  const restore = () => {
    dialog.close();
    redo(request.input ?? request);
  };
  const save = () => {
    dialog.close();
    openNewCharacter([file]);
  };
  const dialog = openDialog(
    "Drawn by Castmate",
    element("img", { class: "preview", src: picture, alt: "The picture that was dropped" }),
    element("p", { class: "said" }, prompt),
    element("p", { class: "quiet" }, [size, seed != null && `seed ${seed}`].filter(Boolean).join(", ")),
    element(
      "p",
      { class: "actions" },
      button("Restore its request", restore, { class: "primary" }),
      button("Save it as a character", save),
    ),
  );
}
