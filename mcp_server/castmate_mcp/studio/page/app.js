// The page: its views by their addresses, and what is loaded before any of them.

import { element } from "../../page/element.js";
import { notice } from "../../page/speak.js";
import { ask, whenLocked } from "./api.js";
import { keepDrawn, loadCharacters } from "./cast.js";
import { showCharacters } from "./characters.js";
import { drawView } from "./draw.js";
import { takeFiles } from "./drop.js";
import { galleryView } from "./gallery.js";
import { keepUp } from "./predictions.js";
import { askForKey, showAccount } from "./session.js";
import { statusView } from "./status.js";
import { change } from "./store.js";
import { storyboardsView } from "./storyboards.js";

const VIEWS = {
  draw: drawView,
  gallery: galleryView,
  storyboards: storyboardsView,
  status: statusView,
};
const opened = new Map();
const main = document.getElementById("view");

function route() {
  const name = location.hash.slice(1) || "draw";
  if (!VIEWS[name]) return;
  const moved = main.contains(document.activeElement);
  if (!opened.has(name)) opened.set(name, VIEWS[name]());
  const view = opened.get(name);
  main.replaceChildren(view.node);
  view.shown?.();
  document.title = `${view.title} · Castmate`;
  for (const link of document.querySelectorAll("nav a")) {
    if (link.hash === `#${name}`) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  if (moved) main.focus({ preventScroll: true });
}

// A slash leads to where words go, as in other tools.
function shortcuts(event) {
  const writes = event.target.closest("input, textarea, select, [contenteditable]");
  if (event.key !== "/" || writes || event.ctrlKey || event.metaKey || event.altKey) return;
  const field = main.querySelector("textarea, input[type=search]");
  if (!field) return;
  event.preventDefault();
  field.focus();
}

async function begin() {
  whenLocked(askForKey);
  addEventListener("unhandledrejection", (event) => {
    event.preventDefault();
    notice(event.reason?.message ?? String(event.reason));
  });
  try {
    const [model] = await ask("GET", "/models");
    change({ model });
  } catch (error) {
    const again = element(
      "button",
      { type: "button", click: () => location.reload() },
      "Try again",
    );
    main.replaceChildren(
      element(
        "section",
        { class: "problem" },
        element("h1", {}, "Not open"),
        element("p", { class: "message" }, error.message),
        element("p", {}, again),
      ),
    );
    return;
  }
  showCharacters(document.getElementById("characters"));
  await showAccount(
    document.getElementById("account"),
    document.querySelector('a[href="#status"]'),
  );
  takeFiles(document.documentElement);
  addEventListener("hashchange", route);
  addEventListener("keydown", shortcuts);
  route();
  await loadCharacters();
  await keepUp();
  keepDrawn();
}

begin();
