// A box above the page: Escape closes it, and the focus goes back to where it was.

import { button, element } from "../../page/element.js";

export function openDialog(title, ...children) {
  const heading = element("h2", { id: "dialog-title", tabindex: -1, autofocus: true }, title);
  const close = button("×", () => dialog.close(), { class: "close", "aria-label": "Close" });
  const dialog = element(
    "dialog",
    { "aria-labelledby": "dialog-title" },
    element("header", {}, heading, close),
    ...children,
  );
  dialog.addEventListener("close", () => dialog.remove());
  dialog.addEventListener("click", ({ target }) => target === dialog && dialog.close());
  document.body.append(dialog);
  dialog.showModal();
  return dialog;
}

// Disabled while its work goes on; what fails is said beside it.
export function doing(label, work, { problem, ...attributes } = {}) {
  const made = button(
    label,
    async () => {
      made.disabled = true;
      problem?.replaceChildren();
      try {
        await work();
      } catch (error) {
        if (!problem) throw error;
        problem.replaceChildren(element("span", {}, error.message));
      } finally {
        made.disabled = false;
      }
    },
    attributes,
  );
  return made;
}

export function problemLine() {
  return element("p", { class: "problem-line", role: "alert" });
}
