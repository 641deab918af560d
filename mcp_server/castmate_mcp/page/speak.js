// What is said about what happens: in the live region "status", and in the popover "toast" where a
// page has one.

import { element } from "./element.js";

// For those who do not see the page.
export function announce(text) {
  const status = document.getElementById("status");
  if (status.textContent !== text) status.textContent = text;
}

// For all, for a moment; with something that can be done about it, if there is.
export function notice(text, action = null) {
  const toast = document.getElementById("toast");
  announce(text);
  (toast ?? document.getElementById("status")).classList.remove("unseen");
  if (toast) {
    toast.replaceChildren(element("span", {}, text), action ?? "");
    toast.hidePopover();
    toast.showPopover(); // above a dialog, too
  }
  clearTimeout(notice.timer);
  notice.timer = setTimeout(silence, action ? 10_000 : 4000);
}

function silence() {
  const toast = document.getElementById("toast");
  if (toast) toast.hidePopover();
  else document.getElementById("status").classList.add("unseen");
}
