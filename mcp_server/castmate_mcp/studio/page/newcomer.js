// A new character: its pictures as the model will see them, and a name.

import { button, element } from "../../page/element.js";
import { upload } from "./api.js";
import { saveCharacter } from "./cast.js";
import { cropper } from "./crop.js";
import { doing, openDialog, problemLine } from "./dialog.js";
import { framed } from "./framed.js";

let addToIt = null; // while the dialog is open: more pictures are of the same character

export function openNewCharacter(files) {
  if (addToIt) return addToIt(files);
  const problem = problemLine();
  const pictures = element("ul", { class: "references" });
  const name = element("input", {
    id: "character-name",
    maxlength: 80,
    placeholder: "Mira",
    autocomplete: "off",
    keydown: ({ key, isComposing }) => key === "Enter" && !isComposing && save.click(),
  });
  const addresses = new Map(); // by their rows; each is a promise
  const save = doing(
    "Save the character",
    async () => {
      const rows = [...pictures.children];
      if (!rows.length) throw new Error("No picture is left. Drop or paste one here.");
      if (pictures.querySelector(".crop"))
        throw new Error("Keep the part that you have chosen, or leave the picture as it was.");
      if (!name.value.trim())
        throw new Error("Give the character a name, so that you find it again.");
      const references = await Promise.all(rows.map((one) => addresses.get(one)));
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
  addToIt = (more) => pictures.append(...more.map((file) => row(file, addresses)));
  dialog.addEventListener("close", () => (addToIt = null));
  addToIt(files);
  name.focus();
}

function row(file, addresses) {
  const name = file.name || "The picture";
  const shown = element("div", { class: "framed" });
  let view = null; // what is seen but for the cropping
  let part; // the one that was kept last
  const show = (node) => {
    view = node;
    if (!crop.hidden) shown.replaceChildren(view);
  };
  const take = async (picture) => {
    show(element("p", { class: "quiet" }, "Uploading…"));
    const address = upload(picture).then(({ download_url: url }) => url);
    addresses.set(made, address);
    const arrived = await address.then(
      (url) => framed(url, URL.createObjectURL(picture), name),
      (error) => element("p", { class: "message" }, error.message),
    );
    if (addresses.get(made) === address) show(arrived); // and not a part of it since
  };
  const end = () => {
    crop.hidden = false;
    show(view);
    crop.focus();
  };
  const keep = (picture, chosen) => {
    part = chosen;
    end();
    take(picture);
  };
  const begin = () => {
    crop.hidden = true;
    shown.replaceChildren(cropper(file, { name, part, keep, leave: end }));
    shown.querySelector(".cut").focus();
  };
  const crop = button("Crop", begin, { class: "chip", "aria-label": `Crop ${name}` });
  const remove = button("Remove", () => made.remove(), {
    class: "chip",
    "aria-label": `Remove ${name}`,
  });
  const made = element("li", {}, shown, element("p", { class: "actions" }, crop, remove));
  take(file);
  return made;
}
