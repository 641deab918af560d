// What was drawn is found, compared and drawn again, in a real browser.

import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { api, tab, visit } from "./visit.mjs";

describe("the gallery", () => {
  it("finds pictures by words, and says so when there are none", async () => {
    const gallery = await visit({ hash: "#gallery" });
    await gallery.until(".shelf .tile img");
    await gallery.isSound();
    await gallery.shot("gallery");
    await gallery.fill("[type=search]", "waving");
    await gallery.holds(() => document.querySelectorAll(".shelf .tile").length === 1);
    await gallery.fill("[type=search]", "nobody drew this");
    await gallery.until(".nothing h2", { text: "No picture is like that" });
    await gallery.isSound();
  });

  it("lays two pictures over each other, and the arrow keys move the slider", async () => {
    const gallery = await tab.to("#gallery");
    await gallery.click("button", "Compare two");
    await gallery.click(".shelf li:nth-child(1) .tile");
    await gallery.click(".shelf li:nth-child(2) .tile");
    await gallery.until(".compared .upper");
    await gallery.page.keyboard.press("ArrowLeft");
    const cut = await gallery.look(() => document.querySelector(".compared .upper").style.clipPath);
    assert.equal(cut, "inset(0px 51% 0px 0px)");
    await gallery.isSound();
    await gallery.shot("compare");
  });

  it("opens a picture, whose request goes back into the form with one thing changed", async () => {
    const gallery = await tab.to("#gallery");
    await gallery.fill("[type=search]", "waving");
    await gallery.holds(() => document.querySelectorAll(".shelf .tile").length === 1);
    await gallery.click(".shelf .tile");
    await gallery.until(".side a[download]", { text: "Download" });
    const href = await gallery.look(() =>
      document.querySelector(".side a[download]").getAttribute("href"),
    );
    assert.match(href, /^\/files\//);
    await gallery.click(".side button", "Redo with changes");
    await gallery.until("#prompt");
    assert.equal(
      await gallery.look(() => document.querySelector("#prompt").value),
      "waving on the beach",
    );
    assert.equal(await gallery.look(() => document.querySelector("#field-seed").value), "7");
    await gallery.fill("#field-seed", "8");
    await gallery.send();
    await gallery.holds(() => {
      const prompts = [...document.querySelectorAll(".done h2")].map((one) => one.textContent);
      return prompts.filter((prompt) => prompt === "waving on the beach").length === 2;
    });
  });

  it("deletes a picture, and brings it back", async () => {
    const gallery = await tab.to("#gallery");
    await gallery.until(".shelf .tile");
    const count = () => gallery.look(() => document.querySelectorAll(".shelf .tile").length);
    const before = await count();
    await gallery.click(".shelf .tile");
    await gallery.click(".side .danger", "Delete");
    await gallery.holds((n) => document.querySelectorAll(".shelf .tile").length === n, before - 1);
    await gallery.click(".toast button", "Undo");
    await gallery.holds((n) => document.querySelectorAll(".shelf .tile").length === n, before);
  });

  it("draws a grid of seeds and one scale", async () => {
    const gallery = await tab.to("#gallery");
    await gallery.fill("[type=search]", "waving");
    await gallery.holds(() => document.querySelectorAll(".shelf .tile").length === 2);
    await gallery.click(".shelf .tile");
    await gallery.click(".side button", "Try seeds and scales");
    await gallery.fill("#grid-values", "0.5, 1");
    await gallery.click("dialog .primary", "Draw them");
    await gallery.holds(() => document.querySelectorAll(".sheet td img").length === 4);
    await gallery.isSound();
    await gallery.shot("grid");
  });

  it("restores the request of a picture that is dropped, and takes others as characters", async () => {
    const drop = async (url) => tab.give("drop", Buffer.from(await (await fetch(url)).bytes()));
    const { items } = await api("GET", "/pictures?query=waving");
    const [{ references }] = await api("GET", "/characters");
    await drop(items.at(-1).url);
    await tab.until("dialog h2", { text: "Drawn by Castmate" });
    await tab.isSound();
    await tab.click("dialog button", "Restore its request");
    await tab.holds(() => document.querySelector("#field-seed").value === "7");
    assert.equal(
      await tab.look(() => document.querySelector("#prompt").value),
      "waving on the beach",
    );
    await drop(references[0]);
    await tab.until(".pair .seen");
    await tab.isSound();
    await tab.shot("newcomer");
  });
});

describe("a character", () => {
  it("is renamed, deleted, and back again", async () => {
    await tab.click(".edit");
    await tab.until(".strip img");
    await tab.isSound();
    await tab.fill("#new-name", "Mira the Brave");
    await tab.click("dialog button", "Rename");
    await tab.until(".member", { text: "Mira the Brave" });
    await tab.click(".edit");
    await tab.click("dialog button", "Delete");
    await tab.until("#characters.nobody");
    await tab.click(".toast button", "Undo");
    await tab.until(".member[aria-pressed=true]", { text: "Mira the Brave" });
  });

  it("is shown framed before it is saved, and hostile names and prompts stay text", async () => {
    const hostile = `<img src=x onerror="document.title='owned'"><b>`;
    await tab.add(hostile);
    await tab.until(".member .name", { text: "<img src=x" });
    await tab.write(`${hostile}<script>document.title='owned'</script>`);
    await tab.send();
    await tab.until(".done h2", { text: "<script>" });
    await tab.click(".done .tile");
    await tab.until(".side h3", { text: "onerror" });
    assert.doesNotMatch(await tab.look(() => document.title), /owned/);
    assert.equal(
      await tab.look(() => document.querySelector("[onerror], main script, .side b")),
      null,
    );
    const [{ id }] = await api("GET", "/characters");
    await api("DELETE", `/characters/${id}?forever=true`);
  });
});

describe("the page", () => {
  it("fits 360 pixels in the dark, without a barrier in any view, and keeps still for who asks", async () => {
    const features = [
      { name: "prefers-color-scheme", value: "dark" },
      { name: "prefers-reduced-motion", value: "reduce" },
    ];
    const narrow = await visit({ width: 360, features });
    for (const [name, sign] of [
      ["Draw", ".done img"],
      ["Gallery", ".shelf img"],
      ["Storyboards", ".scenes textarea"],
      ["Status", ".panel-box"],
    ]) {
      await narrow.click("nav a", name);
      await narrow.until(sign);
      await narrow.isSound();
      await narrow.shot(`narrow-${name.toLowerCase()}`);
      assert.equal(await narrow.look(() => document.getAnimations().length), 0);
    }
  });
});
