// A job while it is drawn: its progress bar, in words too, and the way to stop it.

import { button, element } from "./element.js";
import { announce } from "./speak.js";
import { capitalised, duration } from "./words.js";

// The view of a job that is not finished, and what may change in it.
export function drawing({ prompt, size, heading = "h1" }) {
  const canvas = element("div", { class: "canvas", "aria-hidden": "true" });
  canvas.style.aspectRatio = (size ?? "1*1").replace("*", " / ");
  const bar = element("progress", { "aria-label": "Progress of the drawing" });
  const step = element("span", {}, "Waiting for its turn");
  const time = element("span", { class: "time" }, "0 s");
  const actions = element("p", { class: "actions" });
  const section = element(
    "section",
    { class: "job", "aria-busy": "true" },
    canvas,
    element(
      "div",
      { class: "facts" },
      element("p", { class: "eyebrow" }, "Drawing"),
      element(heading, {}, prompt ?? "A picture"),
      bar,
      element("p", { class: "quiet between" }, step, time),
      actions,
    ),
  );
  let quarter = 0;
  return {
    section,
    time: (elapsed) => (time.textContent = duration(elapsed)),
    step: (text, done = null, total = null) => {
      const counted = text?.match(/^Step (\d+) of (\d+)/);
      const value = done ?? (counted && Number(counted[1]));
      const max = total ?? (counted && Number(counted[2]));
      if (max) {
        bar.max = max;
        bar.value = Math.max(value, bar.value); // an answer may be older than the last one
        if (Math.floor((4 * bar.value) / max) > quarter) {
          quarter = Math.floor((4 * bar.value) / max);
          announce(`${25 * quarter} percent drawn.`);
        }
      }
      if (text && (max || !bar.hasAttribute("value"))) {
        step.textContent = capitalised(text);
      }
    },
    cancellable: (stop) => {
      const cancelling = button("Cancel", () => {
        cancelling.disabled = true;
        cancelling.textContent = "Cancelling";
        stop();
      });
      actions.replaceChildren(cancelling);
    },
  };
}
