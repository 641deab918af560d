// Rows that change places: dragged, or moved with Alt and an arrow key.

import { element } from "../../page/element.js";
import { announce } from "../../page/speak.js";

const STEPS = { ArrowUp: -1, ArrowLeft: -1, ArrowDown: 1, ArrowRight: 1 };

// `moved` is called after each change; the new order is that of the children.
export function movable(list, moved) {
  let dragged = null;
  const handle = (row) => {
    if (row.querySelector(".handle")) return;
    const step = (by) => move(row, by);
    row.prepend(
      element("button", {
        type: "button",
        class: "handle",
        draggable: "true",
        "aria-label": "Move: drag, or arrow keys",
        keydown: (event) => {
          if (!STEPS[event.key]) return;
          event.preventDefault();
          step(STEPS[event.key]);
        },
        dragstart: (event) => {
          dragged = row;
          event.dataTransfer.effectAllowed = "move";
          event.dataTransfer.setData("text/plain", "");
          event.dataTransfer.setDragImage(row, 10, 10);
        },
        dragend: () => {
          dragged = null;
          moved();
        },
      }),
    );
  };
  const move = (row, by) => {
    const rows = [...list.children];
    const other = rows[rows.indexOf(row) + by];
    if (!other) return;
    if (by < 0) other.before(row);
    else other.after(row);
    row.querySelector(".handle").focus();
    announce(`Now at place ${[...list.children].indexOf(row) + 1} of ${rows.length}.`);
    moved();
  };
  list.addEventListener("dragover", (event) => {
    const over = event.target.closest("li");
    if (!dragged || !over || over.parentNode !== list) return;
    event.preventDefault();
    const rows = [...list.children];
    if (over !== dragged)
      rows.indexOf(over) < rows.indexOf(dragged) ? over.before(dragged) : over.after(dragged);
  });
  list.addEventListener("drop", (event) => {
    if (!dragged) return;
    event.preventDefault();
    event.stopPropagation();
  });
  new MutationObserver(() => [...list.children].forEach(handle)).observe(list, {
    childList: true,
  });
  [...list.children].forEach(handle);
}
