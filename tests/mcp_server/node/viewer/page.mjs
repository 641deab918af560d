// The page itself in a real browser: theme, size, and what it lets in.

import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { DRAW, isSound, long, quick, result, shot, show, tab } from "./chat.mjs";

const HOSTILE = `<img src=x onerror="document.title='owned'"><script>document.title='owned'</script>`;

describe("the page", () => {
  it("takes the theme and the colours of the host, and before them those of the system", async () => {
    const ground = () => tab.look(() => getComputedStyle(document.documentElement).backgroundColor);
    await tab.page.emulateMediaFeatures([{ name: "prefers-color-scheme", value: "dark" }]);
    await tab.ask("mount", DRAW);
    assert.equal(await ground(), "rgb(29, 28, 31)");
    await tab.ask("call", DRAW, quick(), { context: { theme: "light" } });
    assert.equal(await ground(), "rgb(255, 255, 255)");
    await tab.page.evaluate(() => chat.bridge.setHostContext({ theme: "dark" }));
    await tab.until("html[style*='dark']");
    assert.equal(await ground(), "rgb(29, 28, 31)");
    await tab.until("img[data-whole]");
    await isSound();
    await shot("dark");
    const variables = { "--color-background-primary": "rgb(1, 2, 3)" };
    await tab.page.evaluate((styles) => chat.bridge.setHostContext({ styles }), { variables });
    await tab.until("html[style*='--color-background-primary']");
    assert.equal(await ground(), "rgb(1, 2, 3)");
  });

  it("fits into 300 pixels, whatever it shows", async () => {
    await tab.page.setViewport({ width: 300, height: 700 });
    await tab.ask("call", DRAW, quick({ prompt: "x".repeat(300), num_images: 2 }));
    await tab.until("img[data-whole]");
    await isSound();
    await shot("narrow");
    await tab.ask("call", "list_library", { kind: "images" });
    await tab.until(".card img:not(.empty)");
    await isSound();
    await tab.ask("call", DRAW, long({ prompt: "x".repeat(300), wait_seconds: 0 }));
    await tab.until(".between", { text: "Step" });
    await isSound();
  });

  it("shows markup in prompts, names and errors as the text that it is", async () => {
    await tab.ask("call", DRAW, quick({ prompt: HOSTILE }));
    await tab.until("img[data-whole]");
    assert.equal(await tab.look(() => document.querySelector("h1").textContent), HOSTILE);
    await tab.ask("call", "list_library", { kind: "images" });
    await tab.until(".about", { text: "<img src=x onerror" });
    await tab.ask("pretend", DRAW, quick(), result(HOSTILE, true));
    await tab.until(".message", { text: "<script>" });
    assert.equal(await tab.look(() => document.title), "Castmate");
    assert.equal(await tab.look(() => document.querySelector("[onerror], main script")), null);
  });

  it("lets in no script but its own, no HTML made of text, nothing from the network", async () => {
    await tab.ask("mount", DRAW);
    const done = await tab.look(async () => {
      const attempts = {
        script: () => (document.createElement("script").textContent = "1"),
        html: () => (document.body.innerHTML = "<b>bold</b>"),
        handler: () => document.body.setAttribute("onclick", "1"),
        network: () => fetch("/"),
      };
      const succeeded = [];
      for (const [name, attempt] of Object.entries(attempts)) {
        await Promise.resolve().then(attempt).then(() => succeeded.push(name), () => {});
      }
      return succeeded;
    });
    assert.deepEqual(done, []);
    assert.ok(tab.complaints.length > 0 && tab.complaints.every((one) => /Polic|Trusted/i.test(one)));
    tab.complaints.length = 0;
  });

  it("does not move for people who ask for reduced motion", async () => {
    await tab.page.emulateMediaFeatures([{ name: "prefers-reduced-motion", value: "reduce" }]);
    await tab.ask("mount", DRAW);
    await tab.page.evaluate((args) => chat.bridge.sendToolInput({ arguments: args }), quick());
    await tab.until(".canvas");
    const moving = await tab.look(() => document.getAnimations().length);
    assert.equal(moving, 0);
  });

  it("reports its height to the host, and again when it shrinks", async () => {
    const height = () => tab.page.evaluate(() => document.querySelector("iframe").clientHeight);
    await show();
    await tab.until("img[data-whole]");
    const tall = await height();
    await tab.page.evaluate(
      (answer) => chat.bridge.sendToolResult(answer),
      result({ items: [], next_step: "" }),
    );
    await tab.until("h1", { text: "Nothing yet" });
    await tab.page.waitForFunction((was) => document.querySelector("iframe").clientHeight < was, {}, tall);
  });
});
