// Pictures that are dropped, pasted or chosen: a picture of ours brings its request back, any other
// one becomes a character.

import { element } from "../../page/element.js";
import { ask, Refused } from "./api.js";
import { openNewCharacter } from "./newcomer.js";
import { openRead } from "./restore.js";

const PICTURE = /^image\//;
const END_BYTES = 65_536; // metadata stand at either end of a file

export function chooseFiles() {
  const input = element("input", {
    type: "file",
    accept: "image/*",
    multiple: true,
    change: () => take([...input.files]),
  });
  input.click();
}

export function takeFiles(root) {
  const files = (transfer) => [...(transfer?.files ?? [])].filter(({ type }) => PICTURE.test(type));
  root.addEventListener("dragover", (event) => {
    if (![...event.dataTransfer.types].includes("Files")) return;
    event.preventDefault();
    root.dataset.dropping = "true";
  });
  for (const name of ["dragleave", "drop"]) {
    root.addEventListener(name, (event) => {
      if (name === "drop" || event.relatedTarget === null) delete root.dataset.dropping;
    });
  }
  root.addEventListener("drop", (event) => {
    event.preventDefault();
    if (files(event.dataTransfer).length) take(files(event.dataTransfer));
  });
  root.addEventListener("paste", (event) => {
    if (files(event.clipboardData).length) take(files(event.clipboardData));
  });
}

async function take(files) {
  const [first] = files;
  const request = files.length === 1 ? await requestOf(first) : null;
  if (request) openRead(first, request);
  else openNewCharacter(files);
}

// What a picture says of itself; most say nothing, which is seen here already.
async function requestOf(file) {
  const ends = [file.slice(0, END_BYTES), file.slice(-END_BYTES)];
  const texts = await Promise.all(ends.map((end) => end.text()));
  if (!texts.some((text) => text.toLowerCase().includes("castmate"))) return null;
  const form = new FormData();
  form.append("file", file, file.name || "pasted.png");
  try {
    return await ask("POST", "/pictures/read", form);
  } catch (error) {
    if (error instanceof Refused && error.status !== 0) return null;
    throw error;
  }
}
