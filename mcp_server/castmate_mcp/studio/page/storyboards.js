// Series of pictures: a new one above, those that were drawn below, one of them opened.

import { element } from "../../page/element.js";
import { day } from "../../page/words.js";
import { ask, own } from "./api.js";
import { Board, titleOf } from "./board.js";
import { newStory } from "./story.js";

export function storyboardsView() {
  const node = element("div", { class: "storyboards" });
  const list = element("ul", { class: "boards" });
  const empty = element(
    "div",
    { class: "nothing", hidden: true },
    element("h2", {}, "No storyboards yet"),
    element(
      "p",
      {},
      "Write a scene in each line above: one character, up to twelve pictures, one sheet.",
    ),
  );
  let opened = null;
  const open = (board) => {
    opened?.stop();
    opened = new Board(board, close);
    node.replaceChildren(opened.node);
    opened.node.querySelector("h1").focus();
  };
  const close = async () => {
    opened?.stop();
    opened = null;
    node.replaceChildren(editor, empty, list);
    await look();
  };
  const editor = newStory(open);
  const look = async () => {
    const boards = await ask("GET", "/storyboards");
    empty.hidden = boards.length > 0;
    list.replaceChildren(
      ...boards.map((board) =>
        element(
          "li",
          {},
          card(board, () => open(board)),
        ),
      ),
    );
  };
  node.replaceChildren(editor, empty, list);
  return { title: "Storyboards", node, shown: () => opened ?? look() };
}

function card(board, open) {
  const pictures = board.scenes.filter(({ output }) => output).slice(0, 4);
  return element(
    "button",
    { type: "button", class: "board-card", click: open },
    element(
      "span",
      { class: "faces" },
      ...pictures.map(({ output }) =>
        element("img", { src: own(output), alt: "", loading: "lazy" }),
      ),
    ),
    element("span", { class: "about" }, titleOf(board)),
    element(
      "span",
      { class: "quiet" },
      `${board.scenes.length} scenes · ${board.status} · ${day(board.created_at)}`,
    ),
  );
}
