// A small plot: columns over names, with the figures in words for those who do not see them.

import { element, filled } from "../../page/element.js";

const SVG = "http://www.w3.org/2000/svg";
const [WIDTH, HEIGHT, FOOT] = [320, 90, 14];

// `columns`: pairs of a name and a figure.
export function plot(title, columns, show = String) {
  const most = Math.max(...columns.map(([, figure]) => figure), 0) || 1;
  const wide = WIDTH / columns.length;
  const high = HEIGHT - FOOT;
  const every = Math.ceil(columns.length / 6); // names that have room
  const shapes = columns.flatMap(([name, figure], index) => {
    const height = figure ? Math.max(2, (figure / most) * (high - 4)) : 0;
    const x = index * wide;
    return [
      svg(
        "rect",
        {
          x: x + 1,
          y: high - height,
          width: Math.max(1, Math.min(wide - 2, 28)),
          height,
          rx: 1.5,
        },
        svg("title", {}, `${name}: ${show(figure)}`),
      ),
      index % every === 0 && svg("text", { x: x + 1, y: HEIGHT - 3 }, name),
    ];
  });
  const said = columns.map(([name, figure]) => `${name}: ${show(figure)}`).join(", ");
  return element(
    "figure",
    { class: "plotted" },
    svg(
      "svg",
      {
        viewBox: `0 0 ${WIDTH} ${HEIGHT}`,
        class: "plot",
        role: "img",
        "aria-label": `${title}. ${said}`,
      },
      svg("line", { x1: 0, x2: WIDTH, y1: high, y2: high }),
      ...shapes,
    ),
  );
}

function svg(tag, ...rest) {
  return filled(document.createElementNS(SVG, tag), ...rest);
}
