// The saved characters: loaded, made, renamed, deleted and brought back.

import { button } from "../../page/element.js";
import { notice } from "../../page/speak.js";
import { ask, query } from "./api.js";
import { change, state, watch } from "./store.js";

const LATEST = 100;

export async function loadCharacters() {
  const characters = await ask("GET", "/characters");
  const kept = characters.some(({ id }) => id === state.chosen);
  change({ characters, chosen: kept ? state.chosen : (characters[0]?.id ?? null) });
  await loadDrawn();
}

// The latest pictures of each, in one request.
export async function loadDrawn() {
  const { items } = await ask("GET", `/pictures${query({ limit: LATEST })}`);
  const drawn = new Map();
  for (const item of items) {
    const id = item.character?.id;
    if (id) drawn.set(id, [...(drawn.get(id) ?? []), item]);
  }
  change({ drawn, whose: new Map(items.map((item) => [item.prediction_id, item.character])) });
}

// Whenever another prediction is completed, there are new ones.
export function keepDrawn() {
  let known = null;
  watch(["predictions"], ({ predictions }) => {
    const completed = predictions.filter(({ status }) => status === "completed").length;
    if (known !== null && completed > known) loadDrawn();
    known = completed;
  });
}

export async function saveCharacter(name, references) {
  const made = await ask("POST", "/characters", { name, references });
  await loadCharacters();
  change({ chosen: made.id });
  return made;
}

export async function renameCharacter(id, name) {
  await ask("PATCH", `/characters/${id}`, { name });
  await loadCharacters();
}

export async function deleteCharacter({ id, name }) {
  await ask("DELETE", `/characters/${id}`);
  await loadCharacters();
  const undo = async () => {
    await ask("POST", `/characters/${id}/restore`);
    await loadCharacters();
    change({ chosen: id });
    notice(`${name} is back.`);
  };
  notice(
    `${name} is deleted. What was drawn of it stays.`,
    button("Undo", undo, { class: "chip" }),
  );
}
