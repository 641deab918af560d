// How close a drawn character is to its reference, as a figure and a colour.

import { element } from "../../page/element.js";

const NAMES = { same: "same character", drifted: "drifted", another: "another character" };

// The words are the API's where it gives them; an average has none.
export function identityBadge(identity) {
  if (identity == null) return null;
  const { score, verdict } = typeof identity === "number" ? { score: identity } : identity;
  const title = `Identity ${score.toFixed(2)}${verdict ? `: ${NAMES[verdict] ?? verdict}` : " on average"}`;
  return element(
    "span",
    { class: `identity ${verdict ?? ""}`, title },
    element("span", { class: "unseen" }, "Identity "),
    score.toFixed(2),
  );
}
