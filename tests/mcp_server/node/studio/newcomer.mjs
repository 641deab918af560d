// A new character before it is saved, in a real browser.

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { describe, it } from "node:test";
import { CASTMATE_TURNED, api, tab } from "./visit.mjs";

const TURNED = readFileSync(CASTMATE_TURNED);

describe("a new character", () => {
  it("is pasted, cropped by keys and pointer, and saved as it was shown", async () => {
    const { keyboard, mouse } = tab.page;
    const size = () => tab.text(".crop [role=status]");
    const crop = () => tab.click("dialog .chip", "Crop");
    await tab.give("paste", TURNED);
    await tab.until(".pair .seen");
    await crop();
    await keyboard.press("Escape");
    await tab.until("dialog .pair .seen"); // the dialog is still there
    await crop();
    await tab.until(".crop [role=status]", { text: "256 × 384 pixels, from 32, 48" });
    await keyboard.press("ArrowUp");
    await keyboard.down("Shift");
    for (let times = 0; times < 5; times += 1) await keyboard.press("ArrowLeft");
    await keyboard.up("Shift");
    assert.equal(await size(), "224 × 384 pixels, from 32, 38");
    await tab.isSound();
    await tab.shot("crop");
    const [x, y] = await tab.look(() => {
      const { left, top, width, height } = document
        .querySelector("[data-edges=nw]")
        .getBoundingClientRect();
      return [left + width / 2, top + height / 2];
    });
    await mouse.move(x, y);
    await mouse.down();
    await mouse.move(0, 0, { steps: 3 });
    await mouse.up();
    assert.equal(await size(), "256 × 422 pixels, from 0, 0");
    await tab.fill("#character-name", "Iris");
    await tab.click("dialog .primary", "Save");
    await tab.until(".problem-line", { text: "Keep the part" });
    await tab.click("dialog button", "Keep this part");
    await tab.until(".pair .seen");
    await tab.give("paste", TURNED); // one more of the same character
    await tab.click("dialog li:nth-child(2) .chip", "Remove");
    await tab.click("dialog .primary", "Save");
    await tab.gone("dialog");
    const [{ id, name, references }] = await api("GET", "/characters");
    assert.equal(name, "Iris");
    assert.equal(references.length, 1);
    const saved = await tab.look(async (url) => {
      const blob = await (await fetch(url)).blob();
      const { width, height } = await createImageBitmap(blob);
      return [blob.type, width, height];
    }, references[0]);
    assert.deepEqual(saved, ["image/png", 256, 422]);
    await api("DELETE", `/characters/${id}?forever=true`);
  });
});
