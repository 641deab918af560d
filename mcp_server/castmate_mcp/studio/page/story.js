// A new series: one line a scene, which can be moved, and what all scenes share.

import { button, element } from "../../page/element.js";
import { announce } from "../../page/speak.js";
import { ask, schema } from "./api.js";
import { doing, problemLine } from "./dialog.js";
import { labelled } from "./fields.js";
import { movable } from "./moving.js";
import { shapeButtons } from "./sizes.js";
import { character, state, watch } from "./store.js";

const PROMPTS = [
  "waking up in a tent",
  "walking through a forest",
  "finding a lantern",
  "looking at the stars",
];
const SHARED = [
  "size",
  "style",
  "seed",
  "negative_prompt",
  "guidance_scale",
  "num_inference_steps",
  "subject_scale",
  "true_cfg_scale",
  "cache",
  "enable_matting",
  "output_format",
];

export function newStory(open) {
  const problem = problemLine();
  const title = element("h2", {});
  watch(["chosen", "characters"], ({ chosen }) => {
    const name = character(chosen)?.name;
    title.textContent = name ? `A story with ${name}` : "A story; choose a character first";
  });
  const scenes = element("ol", { class: "scenes" });
  const words = element("input", {
    id: "style-words",
    autocomplete: "off",
    placeholder: "watercolour",
  });
  const layout = element("select", { id: "layout" });
  const add = (text = "", after = null) => {
    const made = sceneRow(text, { next: () => add("", made), gone: () => number() });
    if (after) after.after(made);
    else scenes.append(made);
    number();
    return made;
  };
  const number = () => {
    [...scenes.children].forEach((row, index) => {
      row.querySelector("textarea").setAttribute("aria-label", `Scene ${index + 1}`);
      row.querySelector("textarea").placeholder = PROMPTS[index] ?? "";
    });
    more.disabled = scenes.children.length >= (limits.maxItems ?? 12);
  };
  const limits = {};
  const more = button("Add a scene", () => add().querySelector("textarea").focus(), {
    class: "chip",
  });
  const send = async () => {
    const texts = [...scenes.querySelectorAll("textarea")]
      .map(({ value }) => value.trim())
      .filter(Boolean);
    if (!state.chosen) throw new Error("Choose a character on the left first.");
    if (!texts.length) throw new Error("Write at least one scene.");
    const shared = Object.fromEntries(
      SHARED.filter((name) => name in state.draft).map((name) => [name, state.draft[name]]),
    );
    const story = {
      ...shared,
      scenes: texts,
      image: state.chosen,
      layout: layout.value || undefined,
      style_words: words.value.trim() || undefined,
    };
    const board = await ask("POST", "/storyboards", story, {
      "idempotency-key": crypto.randomUUID(),
    });
    scenes.replaceChildren();
    add();
    announce("The story is being drawn.");
    open({ ...board, character: character(state.chosen) });
  };
  const draw = doing("Draw the story", send, { class: "primary", problem });
  movable(scenes, number);
  add();
  add();
  schema("StoryboardRequest").then(({ properties, $defs }) => {
    limits.maxItems = properties.scenes.maxItems;
    words.title = properties.style_words.description;
    const names = properties.layout.enum ?? $defs?.Layout?.enum ?? [];
    layout.replaceChildren(...names.map((name) => element("option", { value: name }, name)));
    layout.title = properties.layout.description;
  });
  return element(
    "section",
    { class: "compose" },
    element("h1", { class: "unseen" }, "Storyboards"),
    title,
    scenes,
    element("p", {}, more),
    element(
      "div",
      { class: "choices" },
      shapeButtons(),
      labelled("Sheet", layout),
      labelled("In every scene", words),
    ),
    problem,
    element(
      "div",
      { class: "go" },
      element(
        "p",
        { class: "estimate quiet" },
        "What is set under Draw, Advanced, holds for every scene.",
      ),
      draw,
    ),
  );
}

function sceneRow(text, { next, gone }) {
  const remove = () => {
    if (row.parentNode.children.length > 1) row.remove();
    gone();
  };
  const field = element(
    "textarea",
    {
      rows: 1,
      maxlength: 2000,
      keydown: (event) => {
        if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
        event.preventDefault();
        next().querySelector("textarea").focus();
      },
    },
    text,
  );
  const row = element(
    "li",
    { class: "scene-row" },
    field,
    button("×", remove, { class: "close", "aria-label": "Remove the scene" }),
  );
  return row;
}
