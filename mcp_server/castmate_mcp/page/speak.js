// What is said about what happens, in live regions: "status", and "toast" where a page has one for
// what is seen for a moment.

import { element } from "./element.js";

// For those who do not see the page.
export function announce(text) {
  const status = document.getElementById("status");
  if (status.textContent !== text) status.textContent = text;
}

// For all, for a moment; with something that can be done about it, if there is.
export function notice(text, action = null) {
  const toast = document.getElementById("toast") ?? document.getElementById("status");
  toast.replaceChildren(...(action ? [element("span", {}, text), action] : [text]));
  toast.classList.remove("unseen");
  clearTimeout(notice.timer);
  notice.timer = setTimeout(() => toast.classList.add("unseen"), action ? 10_000 : 4000);
}
