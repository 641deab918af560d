// What is said about what happens; the element with the id "status" is a live region.

import { element } from "./element.js";

// For those who do not see the page.
export function announce(text) {
  const status = document.getElementById("status");
  if (status.textContent !== text) status.textContent = text;
}

// For all, for a moment; with something that can be done about it, if there is.
export function notice(text, action = null) {
  const status = document.getElementById("status");
  if (action) status.replaceChildren(element("span", {}, text), action);
  else announce(text);
  status.classList.remove("unseen");
  clearTimeout(notice.timer);
  notice.timer = setTimeout(() => status.classList.add("unseen"), action ? 10_000 : 4000);
}
