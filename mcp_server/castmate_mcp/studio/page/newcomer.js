// A new character: its pictures as the model will see them, and a name.

import { button, element } from "../../page/element.js";
import { upload } from "./api.js";
import { saveCharacter } from "./cast.js";
import { doing, openDialog, problemLine } from "./dialog.js";
import { framed } from "./framed.js";

export function openNewCharacter(files) {
  const problem = problemLine();
  const pictures = element("ul", { class: "references" });
  const name = element("input", {
    id: "character-name",
    maxlength: 80,
    placeholder: "Mira",
    autocomplete: "off",
    keydown: ({ key, isComposing }) => key === "Enter" && !isComposing && save.click(),
  });
  const uploaded = new Map(); // the addresses by their rows, in the order of the rows
  const save = doing(
    "Save the character",
    async () => {
      const references = [...pictures.children].map((row) => uploaded.get(row)).filter(Boolean);
      if (!references.length)
        throw new Error("No picture has arrived yet. Wait for one, or choose another.");
      if (!name.value.trim())
        throw new Error("Give the character a name, so that you find it again.");
      await saveCharacter(name.value.trim(), references);
      dialog.close();
    },
    { class: "primary", problem },
  );
  const dialog = openDialog(
    "A new character",
    pictures,
    element(
      "p",
      { class: "quiet" },
      "Up to four pictures are used together, the best first. One character, whole, on a plain background works best.",
    ),
    element("label", { for: "character-name" }, "Name"),
    name,
    problem,
    element("p", { class: "actions" }, save),
  );
  for (const file of files) pictures.append(row(file, uploaded));
  name.focus();
}

function row(file, uploaded) {
  const shown = element("div", { class: "framed" }, element("p", { class: "quiet" }, "Uploading…"));
  const remove = button("Remove", () => made.remove(), { class: "chip" });
  const made = element("li", {}, shown, remove);
  const arrive = async () => {
    const { download_url: url } = await upload(file);
    uploaded.set(made, url);
    shown.replaceChildren(framed(url, URL.createObjectURL(file), file.name));
  };
  arrive().catch((error) =>
    shown.replaceChildren(element("p", { class: "message" }, error.message)),
  );
  return made;
}
