// A request again, with one thing changed: it fills the form, where everything can be changed.

import { announce } from "../../page/speak.js";
import { change, character, state } from "./store.js";

// What only this page decides, or what says who is drawn.
const NOT_KEPT = new Set(["image", "enable_sync_mode", "enable_base64_output"]);

export function redo(input, { of = null, changes = {} } = {}) {
  const known = state.model.api_schema.api_schemas[0].request_schema.properties;
  const kept = Object.entries({ ...input, ...changes }).filter(
    ([name, value]) =>
      known[name] && !NOT_KEPT.has(name) && value != null && value !== known[name].default,
  );
  const chosen = character(of) ? of : state.chosen;
  change({ draft: Object.fromEntries(kept), chosen });
  location.hash = "#draw";
  announce("The request is in the form.");
  setTimeout(() => {
    const advanced = document.querySelector(".advanced");
    advanced.open ||= kept.some(([name]) => advanced.querySelector(`[id="field-${name}"]`));
    document.getElementById("prompt").focus();
  });
}
