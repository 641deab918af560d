// Finished pictures and the library, in a real browser.

import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { DRAW, buttons, finished, image, isSound, quick, shot, show, tab, text } from "./chat.mjs";

let known;

describe("a picture", () => {
  it("is shown small at once and whole once it is in sight", async () => {
    const drawn = await tab.ask("call", DRAW, quick());
    known = drawn.structuredContent.images[0];
    await tab.until("img[data-whole]");
    const shown = await tab.look(() => {
      const { naturalWidth, naturalHeight, alt } = document.querySelector("img");
      return { naturalWidth, naturalHeight, alt };
    });
    assert.deepEqual(shown, { naturalWidth: 512, naturalHeight: 640, alt: "waving on the beach" });
    const facts = await text(".facts");
    for (const said of ["Drawn in", "512 × 640", "free", "by local"]) assert.ok(facts.includes(said));
    assert.equal(await text("#status"), "The picture is finished.");
    await isSound();
    await shot("finished");
  });

  it("is downloaded, its seed copied, and the next scene asked for, where the host lets", async () => {
    await show();
    await tab.click("Download");
    await tab.until("img[data-whole]");
    await tab.page.waitForFunction("chat.seen.downloads.length");
    await tab.click("Open");
    await tab.click("Seed 7");
    await tab.until("#status", { text: "Copied 7" });
    const field = await (await tab.view()).$(".scene input");
    await field.type("asleep in a boat");
    await field.press("Enter");
    await tab.until("#status", { text: "Asked for in the chat" });
    const { downloads, links, messages } = await tab.seen();
    const { uri, mimeType, blob } = downloads[0].resource;
    assert.match(uri, /^file:\/\/\/castmate-img_\w+-0\.png$/);
    assert.equal(mimeType, "image/png");
    assert.equal(Buffer.from(blob, "base64").subarray(1, 4).toString(), "PNG");
    assert.match(links[0], /^http/);
    const [{ text: said }] = messages[0].content;
    assert.match(said, /asleep in a boat/);
    assert.match(said, /image img_\w+-0\)$/);
  });

  it("has no button that the host cannot serve, and the preview is enough", async () => {
    await show({ capabilities: {} });
    await tab.until("img[src^='data:image/jpeg']");
    const shown = await buttons();
    assert.deepEqual(shown, ["Seed 7", "Copy id", "Copy path"]);
    assert.equal(await tab.look(() => document.querySelector("input")), null);
  });

  it("of view_image is shown whole too", async () => {
    await tab.ask("call", "view_image", { image_id: known.image_id });
    await tab.until("img[data-whole]");
    assert.deepEqual((await buttons()).slice(0, 1), ["Copy id"]);
    await isSound();
  });

  it("that is unsafe is held back, and said to be", async () => {
    await tab.ask("pretend", DRAW, quick(), finished({ has_nsfw: true }));
    await tab.until(".withheld", { text: "found unsafe" });
    assert.equal(await tab.look(() => document.querySelector("img")), null);
    await isSound();
  });

  it("fills the screen and comes back with Escape", async () => {
    const context = { availableDisplayModes: ["inline", "fullscreen"] };
    await show({ context });
    await tab.click("Full screen");
    await tab.until("html[data-display=fullscreen]");
    await tab.until("img[data-whole]");
    await isSound();
    await shot("fullscreen");
    await tab.page.keyboard.press("Escape");
    await tab.until("html[data-display=inline]");
  });
});

describe("the library", () => {
  it("is a grid of pictures, each of which opens and closes by the keyboard", async () => {
    await show();
    await tab.ask("call", "list_library", { kind: "images" });
    await tab.until(".card img:not(.empty)");
    assert.match(await text("h1"), /^Pictures \d+, newest first$/);
    await isSound();
    await shot("gallery");
    await tab.look(() => document.querySelector(".card").focus());
    await tab.page.keyboard.press("Enter");
    await tab.until("figure img[data-whole]");
    assert.equal(await tab.look(() => document.activeElement.localName), "h1");
    await isSound();
    await tab.click("Back");
    await tab.until(".grid");
    assert.equal(await tab.look(() => document.activeElement.className), "card image");
  });

  it("lists characters and jobs, and says when there is nothing", async () => {
    await tab.page.evaluate(
      (args) => client.callTool({ name: "create_character", arguments: args }),
      { name: "Mira <b>the</b> first", references: [image] },
    );
    await tab.ask("call", "list_library", { kind: "characters" });
    await tab.until(".face", { text: "M" });
    await isSound();
    await shot("characters");
    await tab.click("Mira <b>the</b> first");
    await tab.click("Copy id");
    await tab.until("#status:not(.unseen)", { text: "Copied chr_" });
    await isSound();
    await shot("character");
    await tab.ask("call", "list_library", { kind: "jobs" });
    await tab.until(".rows .card", { text: "Completed" });
    await isSound();
    await tab.ask("call", "list_library", { query: "no prompt says this" });
    await tab.until("h1", { text: "Nothing yet" });
    await isSound();
  });
});
