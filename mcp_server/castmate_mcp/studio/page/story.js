// The form of a new series: its scenes, and what they all share.

import { element } from "../../page/element.js";
import { announce } from "../../page/speak.js";
import { ask, once, schema } from "./api.js";
import { doing, problemLine } from "./dialog.js";
import { priceOf } from "./estimate.js";
import { labelled, parameters } from "./fields.js";
import { Lines } from "./lines.js";
import { shapeButtons } from "./sizes.js";
import { character, state, watch } from "./store.js";

// What a scene has of its own, or what a series does not take.
const OF_ONE = new Set(["prompt", "image", "num_images", "num_candidates", "min_identity"]);

export function newStory(open) {
  const problem = problemLine();
  const title = element("h2", {});
  watch(["chosen", "characters"], ({ chosen }) => {
    const name = character(chosen)?.name;
    title.textContent = name ? `A story with ${name}` : "A story; choose a character first";
  });
  const price = element("p", { class: "estimate quiet", role: "status" });
  const lines = new Lines((texts) => (price.textContent = priceOf(texts.length)));
  const words = element("input", { id: "style-words", autocomplete: "off", placeholder: "ink" });
  const layout = element("select", { id: "layout" });
  const send = async () => {
    open(await submitted(lines.texts, { layout: layout.value, style_words: words.value.trim() }));
    lines.clear();
  };
  describe(lines, layout, words);
  return element(
    "section",
    { class: "compose" },
    element("h1", { class: "unseen" }, "Storyboards"),
    title,
    lines.node,
    element(
      "div",
      { class: "choices" },
      shapeButtons(),
      labelled("Sheet", layout),
      labelled("In every scene", words),
    ),
    element("p", { class: "quiet" }, "What is set under Draw, Advanced, holds for every scene."),
    problem,
    element(
      "div",
      { class: "go" },
      price,
      doing("Draw the story", send, { class: "primary", problem }),
    ),
  );
}

async function submitted(scenes, { layout, style_words }) {
  const { chosen, draft } = state;
  if (!chosen) throw new Error("Choose a character on the left first.");
  if (!scenes.length) throw new Error("Write at least one scene.");
  const shared = Object.entries(draft).filter(
    ([name]) => parameters().properties[name] && !OF_ONE.has(name),
  );
  const story = { ...Object.fromEntries(shared), scenes, image: chosen, style_words };
  if (layout) story.layout = layout;
  const board = await ask("POST", "/storyboards", story, once());
  announce("The story is being drawn.");
  return { ...board, character: character(chosen) };
}

async function describe(lines, layout, words) {
  const { properties, $defs } = await schema("StoryboardRequest");
  lines.limit(properties.scenes);
  layout.title = properties.layout.description;
  layout.append(...$defs.Layout.enum.map((name) => element("option", { value: name }, name)));
  words.title = properties.style_words.description;
}
