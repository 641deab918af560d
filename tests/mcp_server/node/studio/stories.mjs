// A storyboard from its lines to its files, in a real browser.

import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { api, tab } from "./visit.mjs";

describe("a storyboard", () => {
  it("is written line by line, drawn, put in another order, and one panel is redrawn", async () => {
    await tab.write("");
    await tab.click("nav a", "Storyboards");
    await tab.fill(".scenes textarea", "waving on the beach");
    await tab.page.keyboard.press("Enter");
    await tab.page.keyboard.type("running in a neon city");
    await tab.isSound();
    await tab.click("button", "Draw the story");
    await tab.until(".board .button", { text: "PDF" });
    await tab.isSound();
    await tab.shot("storyboard");
    const captions = () =>
      tab.look(() =>
        [...document.querySelectorAll(".panel figcaption")].map((one) => one.textContent),
      );
    await tab.look(() => document.querySelector(".panel .handle").focus());
    await tab.page.keyboard.press("ArrowRight");
    await tab.holds(() =>
      document.querySelector(".panel figcaption").textContent.startsWith("running"),
    );
    const kept = async () => {
      await tab.until(".panel:first-child [aria-label='Redraw scene 1']"); // as the server counts
      const [{ scenes }] = await api("GET", "/storyboards");
      assert.deepEqual(
        scenes.map(({ text }) => text),
        await captions(),
      );
    };
    await kept();
    await tab.holds(() => document.activeElement.matches(".panel:nth-child(2) .handle"));
    const [handle, other] = await Promise.all(
      [".panel:nth-child(2) .handle", ".panel:nth-child(1) figure"].map((one) => tab.page.$(one)),
    );
    await other.drop(handle);
    await tab.holds(() =>
      document.querySelector(".panel figcaption").textContent.startsWith("waving"),
    );
    await kept();
    await tab.click(".panel button", "Redraw");
    await tab.fill("#scene-text", "running home");
    await tab.click("dialog .primary", "Redraw");
    await tab.until(".panel figcaption", { text: "running home" });
    await tab.until(".board .button", { text: "ZIP" });
  });

  it("is exported as a picture, a document and all of its pictures", async () => {
    const page = await tab.to("#storyboards");
    await page.click(".board-card");
    await page.until(".board .button", { text: "PNG" });
    const kinds = await page.look(() =>
      Promise.all(
        [...document.querySelectorAll(".board a.button")].map(async ({ href }) =>
          (await fetch(href)).headers.get("content-type"),
        ),
      ),
    );
    assert.deepEqual(kinds, ["image/png", "application/pdf", "application/zip"]);
    await page.click(".board button", "Delete");
    await page.until(".nothing h2", { text: "No storyboards yet" });
  });
});
