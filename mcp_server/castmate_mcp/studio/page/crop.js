// The part of a picture that is kept: a rectangle over it, which pointers drag and keys move.

import { button, element } from "../../page/element.js";
import { doing, problemLine } from "./dialog.js";

const ARROWS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
const GRIPS = ["n", "e", "s", "w", "nw", "ne", "sw", "se"]; // the edges that move with each
const BEGIN = { left: 0.1, top: 0.1, right: 0.9, bottom: 0.9 }; // shares of the picture
const STEP = 0.02;
const LEAST = 0.1;
const MOST_PX = 2048; // a model looks at less

// `keep` gets the part as a picture and as shares; `leave` is called where nothing is changed.
export function cropper(file, { name, part = BEGIN, keep, leave }) {
  let kept = part;
  const size = element("p", { class: "quiet", role: "status" });
  const image = element("img", {
    src: URL.createObjectURL(file),
    alt: `${name}, as it came`,
    load: () => show(kept),
  });
  const show = (rectangle) => {
    kept = rectangle;
    const { left, top, width, height } = pixels(kept, image.naturalWidth, image.naturalHeight);
    size.textContent = `${width} × ${height} pixels, from ${left}, ${top}`;
    for (const [edge, share] of Object.entries(kept))
      cut.style[edge] = `${100 * (edge === "right" || edge === "bottom" ? 1 - share : share)}%`;
  };
  const press = (event) => {
    if (event.key === "Escape") leave();
    else if (event.key === "Enter") done.click();
    else if (ARROWS[event.key]) {
      const [x, y] = ARROWS[event.key];
      show(moved(kept, event.shiftKey ? "se" : "", STEP * x, STEP * y));
    } else return;
    event.preventDefault(); // Escape would close the dialog, too
  };
  const drag = (event) => {
    if (event.button) return;
    event.preventDefault();
    cut.focus();
    cut.setPointerCapture(event.pointerId);
    const { width, height } = image.getBoundingClientRect();
    const { edges = "" } = event.target.dataset;
    const from = kept;
    const follow = ({ clientX, clientY }) => {
      const [x, y] = [(clientX - event.clientX) / width, (clientY - event.clientY) / height];
      show(moved(from, edges, x, y));
    };
    cut.addEventListener("pointermove", follow);
    const end = () => cut.removeEventListener("pointermove", follow);
    cut.addEventListener("lostpointercapture", end, { once: true });
  };
  const cut = element(
    "div",
    {
      class: "cut",
      role: "application",
      tabindex: 0,
      "aria-label":
        "The part to keep: arrow keys move it, with Shift they resize it, Enter keeps it",
      keydown: press,
      pointerdown: drag,
    },
    ...GRIPS.map((edges) => element("span", { class: "grip", "data-edges": edges })),
  );
  const problem = problemLine();
  const done = doing("Keep this part", async () => keep(await cutOut(file, kept), kept), {
    problem,
  });
  return element(
    "div",
    { class: "crop" },
    element("div", { class: "whole" }, image, cut),
    size,
    problem,
    element("p", { class: "actions" }, done, button("Leave it as it was", leave)),
  );
}

// As a whole, or only the edges that are named; it stays within the picture.
function moved({ left, top, right, bottom }, edges, x, y) {
  const within = (low, value, high) => Math.min(Math.max(value, low), high);
  if (!edges) {
    const across = within(-left, x, 1 - right);
    const down = within(-top, y, 1 - bottom);
    return { left: left + across, top: top + down, right: right + across, bottom: bottom + down };
  }
  return {
    left: edges.includes("w") ? within(0, left + x, right - LEAST) : left,
    top: edges.includes("n") ? within(0, top + y, bottom - LEAST) : top,
    right: edges.includes("e") ? within(left + LEAST, right + x, 1) : right,
    bottom: edges.includes("s") ? within(top + LEAST, bottom + y, 1) : bottom,
  };
}

function pixels(part, across, down) {
  const [left, right] = [part.left, part.right].map((share) => Math.round(share * across));
  const [top, bottom] = [part.top, part.bottom].map((share) => Math.round(share * down));
  return { left, top, width: Math.max(1, right - left), height: Math.max(1, bottom - top) };
}

// The picture is turned as its file says, as it is seen.
async function cutOut(file, part) {
  const bitmap = await createImageBitmap(file);
  const { left, top, width, height } = pixels(part, bitmap.width, bitmap.height);
  const scale = Math.min(1, MOST_PX / Math.max(width, height));
  const size = [width, height].map((side) => Math.max(1, Math.round(scale * side)));
  const canvas = new OffscreenCanvas(...size);
  const context = canvas.getContext("2d");
  context.imageSmoothingQuality = "high";
  context.drawImage(bitmap, left, top, width, height, 0, 0, ...size);
  bitmap.close();
  return new File([await canvas.convertToBlob()], "part.png", { type: "image/png" });
}
