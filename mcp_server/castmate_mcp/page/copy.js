// Text to the clipboard.

import { button, element } from "./element.js";
import { notice } from "./speak.js";

// Frames may not touch the clipboard unless the host lets them; the old way needs no permission.
async function copy(text, from) {
  try {
    await navigator.clipboard.writeText(text);
  } catch {
    const field = element("textarea", { class: "unseen", readonly: true }, text);
    document.body.append(field);
    field.select();
    const copied = document.execCommand("copy");
    field.remove();
    from.focus();
    if (!copied) return notice(`The host does not allow copying: ${text}`);
  }
  notice(`Copied ${text}`);
}

export function copyButton(label, text) {
  const title = `Copy ${text}`;
  const made = button(label, () => copy(String(text), made), { class: "chip", title });
  return made;
}
