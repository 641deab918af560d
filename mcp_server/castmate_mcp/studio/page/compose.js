// The form of a request: a prompt, what is often chosen beside it, and the rest folded away.

import { button, element } from "../../page/element.js";
import { capitalised } from "../../page/words.js";
import { doing, problemLine } from "./dialog.js";
import { estimate } from "./estimate.js";
import { advancedFields, choiceOf, labelled, parameters } from "./fields.js";
import { submit } from "./predictions.js";
import { shapeButtons } from "./sizes.js";
import { change, character, set, state, watch } from "./store.js";

const BY_KEYBOARD = navigator.platform.startsWith("Mac") ? "⌘ ↵" : "Ctrl ↵";

export function composer() {
  const problem = problemLine();
  const draw = doing("Draw", send, {
    class: "primary",
    title: `${BY_KEYBOARD} in the prompt`,
    problem,
  });
  const who = element("label", { for: "prompt", class: "who" });
  const reset = button("Reset", () => change({ draft: {} }), { class: "chip" });
  watch(
    ["draft"],
    ({ draft }) => (reset.hidden = Object.keys(draft).every((name) => name === "prompt")),
  );
  const made = element(
    "section",
    {
      class: "compose",
      keydown: (event) => event.key === "Enter" && (event.ctrlKey || event.metaKey) && draw.click(),
    },
    who,
    promptField(),
    element("div", { class: "choices" }, shapeButtons(), styles(), numbers()),
    element(
      "details",
      { class: "advanced" },
      element("summary", {}, "Advanced"),
      element("div", { class: "fields" }, ...advancedFields()),
    ),
    problem,
    element("div", { class: "go" }, estimate(), reset, draw),
  );
  watch(["characters", "chosen"], ({ characters, chosen }) => {
    const name = character(chosen)?.name;
    who.textContent = name ? `What does ${name} do, and where?` : "Who is to be drawn?";
    draw.dataset.empty = String(!name);
    made.classList.toggle("nobody", characters?.length === 0);
  });
  return made;
}

function promptField() {
  const { maxLength } = parameters().properties.prompt;
  const field = element("textarea", {
    id: "prompt",
    rows: 2,
    maxlength: maxLength,
    placeholder: "waving on the beach",
    input: () => set("prompt", field.value),
  });
  watch(["draft"], ({ draft }) => {
    if (field.value !== (draft.prompt ?? "")) field.value = draft.prompt ?? "";
  });
  return field;
}

function styles() {
  const names = state.model.styles;
  if (!names.length) return null;
  const label = (name) => (name ? capitalised(name.replaceAll("-", " ")) : "No style");
  return labelled("Style", choiceOf("style", ["", ...names], { id: "choice-style", label }));
}

function numbers() {
  const { num_images: images, num_candidates: candidates } = parameters().properties;
  const upTo = ({ maximum }) => Array.from({ length: maximum }, (_, index) => index + 1);
  return [
    labelled(
      "Pictures",
      choiceOf("num_images", upTo(images), {
        id: "choice-num_images",
        standard: 1,
        title: images.description,
      }),
    ),
    labelled(
      "Best of",
      choiceOf("num_candidates", ["", ...upTo(candidates)], {
        id: "choice-num_candidates",
        label: (value) => value || "–",
        title: candidates.description,
      }),
    ),
  ];
}

async function send() {
  const { draft, chosen } = state;
  if (!chosen)
    throw new Error(
      "Add a character first: drop or paste a picture of it, or choose a file on the left.",
    );
  if (!draft.prompt?.trim()) {
    document.getElementById("prompt").focus();
    throw new Error("Write what happens in the picture.");
  }
  const { id, name } = character(chosen);
  await submit({ ...draft, prompt: draft.prompt.trim(), image: id }, { id, name });
}
