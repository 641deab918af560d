// Seeds across and one parameter down: the same request, drawn once for each place.

import { element } from "../../page/element.js";
import { own } from "./api.js";
import { doing, openDialog, problemLine } from "./dialog.js";
import { priceOf } from "./estimate.js";
import { labelled, parameters } from "./fields.js";
import { identityBadge } from "./identity.js";
import { submit, unfinished } from "./predictions.js";
import { character, state, watch } from "./store.js";

const VARIED = ["subject_scale", "guidance_scale", "true_cfg_scale", "num_inference_steps"];
const MOST = 16; // pictures at once
const VALUES = "Values are numbers with commas between them, such as 0.6, 0.8, 1.";

export function openGrid(item) {
  const { properties } = parameters();
  const problem = problemLine();
  const table = element("div", { class: "sheet" });
  const seeds = element(
    "select",
    { id: "grid-seeds" },
    ...[1, 2, 3, 4].map((count) =>
      element("option", { value: count, selected: count === 2 }, count),
    ),
  );
  const name = element(
    "select",
    {
      id: "grid-name",
      change: () => (values.value = around(properties[name.value], item.input[name.value])),
    },
    ...VARIED.map((one) => element("option", { value: one }, one)),
  );
  const values = element("input", { id: "grid-values", autocomplete: "off" });
  const texts = () =>
    values.value
      .split(",")
      .map((text) => text.trim())
      .filter(Boolean);
  const price = element("p", { class: "quiet", role: "status" });
  const count = () => (price.textContent = priceOf(texts().length * seeds.value));
  const draw = doing("Draw them", () => begin(), { class: "primary", problem });
  const begin = async () => {
    const columns = Array.from({ length: Number(seeds.value) }, (_, index) => item.seed + index);
    const rows = texts().map(Number);
    const count = rows.length * columns.length;
    if (!count || rows.some(Number.isNaN)) throw new Error(VALUES);
    if (count > MOST) throw new Error(`${count} pictures are too many: ${MOST} at most are drawn.`);
    await fill(table, item, { columns, rows, name: name.value });
  };
  const dialog = openDialog(
    "Seeds and scales",
    element(
      "div",
      { class: "row" },
      labelled("Seeds", seeds),
      labelled("Parameter", name),
      labelled("Values", values),
      draw,
      price,
    ),
    problem,
    table,
  );
  dialog.classList.add("wide", "comparing");
  for (const event of ["input", "change"]) dialog.addEventListener(event, count);
  values.value = around(properties.subject_scale, item.input.subject_scale);
  count();
}

// A little less, the same, a little more.
function around(
  { minimum, maximum, default: standard, type },
  value = standard ?? (minimum + maximum) / 2,
) {
  const step = type === "integer" ? Math.max(1, Math.round(value / 4)) : 0.25 * value || 0.25;
  const near = [value - step, value, value + step].filter(
    (one) => one >= minimum && one <= maximum,
  );
  return near.map((one) => Number(one.toFixed(2))).join(", ");
}

async function fill(table, item, { columns, rows, name }) {
  const places = new Map(); // by the id of what is drawn there
  const who = character(item.character?.id) ?? character(state.chosen);
  if (!who) throw new Error("Choose a character on the left first.");
  const cells = rows.map((value) =>
    columns.map((seed) => ({ seed, value, node: element("td", {}, "…") })),
  );
  table.replaceChildren(
    element(
      "table",
      {},
      element("caption", {}, item.name),
      element(
        "thead",
        {},
        element(
          "tr",
          {},
          element("th", { scope: "col" }, name),
          ...columns.map((seed) => element("th", { scope: "col" }, `seed ${seed}`)),
        ),
      ),
      element(
        "tbody",
        {},
        ...cells.map((row) =>
          element(
            "tr",
            {},
            element("th", { scope: "row" }, row[0].value),
            ...row.map(({ node }) => node),
          ),
        ),
      ),
    ),
  );
  const show = ({ predictions }) => {
    for (const one of predictions) {
      const node = places.get(one.id);
      if (!node || unfinished(one)) continue;
      places.delete(one.id);
      node.replaceChildren(...shown(one));
    }
  };
  table.closest("dialog").addEventListener("close", watch(["predictions"], show));
  const about = { id: who.id, name: who.name };
  for (const { seed, value, node } of cells.flat()) {
    const inputs = { ...item.input, image: who.id, num_images: 1, seed, [name]: value };
    for (const choosing of ["num_candidates", "min_identity"]) delete inputs[choosing];
    places.set(await submit(inputs, about), node);
    show(state); // it may be finished already
  }
}

function shown({ status, error, outputs, identity, seeds }) {
  if (status !== "completed") return [element("span", { class: "quiet" }, error || status)];
  return [
    element("img", { src: own(outputs[0]), alt: `Seed ${seeds[0]}` }),
    identityBadge(identity[0]),
  ];
}
