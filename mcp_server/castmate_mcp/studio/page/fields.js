// A parameter of a request as a field: its name, range and words are the API's own.

import { element } from "../../page/element.js";
import { set, state, watch } from "./store.js";

const ELSEWHERE = new Set([
  "prompt",
  "image",
  "style",
  "num_images",
  "num_candidates",
  "enable_sync_mode",
  "enable_base64_output",
]);
const DRAWABLE = new Set(["string", "integer", "number", "boolean"]);

export function parameters() {
  return state.model.api_schema.api_schemas[0].request_schema;
}

// Those that have no place of their own, in the API's order.
export function advancedFields() {
  const { properties, "x-order-properties": order } = parameters();
  const shown = order.filter((name) => !ELSEWHERE.has(name) && DRAWABLE.has(properties[name].type));
  return shown.map((name) => field(name, properties[name]));
}

function field(name, spec) {
  const control = controlOf(name, spec);
  const words = element("span", { class: "quiet", id: `about-${name}` }, spec.description);
  return element(
    "div",
    { class: `field ${spec.type}` },
    element("label", { for: `field-${name}` }, element("code", {}, name)),
    control,
    words,
  );
}

function controlOf(name, spec) {
  const about = { id: `field-${name}`, "aria-describedby": `about-${name}` };
  if (spec.type === "boolean") {
    const box = element("input", {
      ...about,
      type: "checkbox",
      change: () => set(name, box.checked === spec.default ? undefined : box.checked),
    });
    shows(name, box, (value) => (box.checked = value ?? spec.default));
    return box;
  }
  if (spec.enum) return choiceOf(name, spec.enum, { ...about, standard: spec.default });
  const long = spec.maxLength > 1000;
  const input = element(long ? "textarea" : "input", {
    ...about,
    type: long ? null : spec.type === "string" ? "text" : "number",
    rows: long ? 2 : null,
    min: spec.minimum,
    max: spec.maximum,
    step: spec.type === "integer" ? 1 : spec.type === "number" ? "any" : null,
    maxlength: spec.maxLength,
    placeholder: spec.default ?? "the model's own",
    autocomplete: "off",
    input: () =>
      set(
        name,
        spec.type === "string" ? input.value : input.value === "" ? undefined : Number(input.value),
      ),
  });
  shows(name, input, (value) => (input.value = value ?? ""));
  return input;
}

// One of several names; without one the model decides.
export function choiceOf(
  name,
  names,
  { standard = "", label = (value) => value, ...attributes } = {},
) {
  const select = element(
    "select",
    {
      ...attributes,
      change: () => set(name, select.value === String(standard) ? undefined : typed(select.value)),
    },
    ...names.map((value) => element("option", { value }, label(value))),
  );
  const typed = (value) => (names.some((one) => typeof one === "number") ? Number(value) : value);
  shows(name, select, (value) => (select.value = value ?? standard));
  return select;
}

// What somebody writes in is left alone.
function shows(name, control, display) {
  watch(["draft"], ({ draft }) => {
    if (document.activeElement !== control) display(draft[name]);
  });
}

export function labelled(words, control) {
  return element("div", { class: "choice" }, element("label", { for: control.id }, words), control);
}
