// The viewer in a real browser, in a host made of the official parts, over a server that draws.
// CASTMATE_URL: where it serves MCP; CASTMATE_REFERENCE: a picture; CASTMATE_SHOTS: a folder, where
// pictures of the page are wanted.

import assert from "node:assert/strict";
import { mkdirSync, readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { after, afterEach, before, beforeEach, describe, it } from "node:test";
import { Stage } from "./stage.mjs";

const { CASTMATE_URL, CASTMATE_REFERENCE, CASTMATE_SHOTS } = process.env;
const AXE = readFileSync(createRequire(import.meta.url).resolve("axe-core"), "utf8");
const DRAW = "generate_character_image";
const PICTURE = { job_id: "job_1", image_id: `img_${"0".repeat(32)}-0`, width: 512, height: 512 };
const HOSTILE = `<img src=x onerror="document.title='owned'"><script>document.title='owned'</script>`;

let stage, tab, image, known;

const quick = (changed = {}) => ({
  prompt: "waving on the beach",
  image,
  size: "512*640",
  num_inference_steps: 4,
  seed: 7,
  ...changed,
});
const long = (changed = {}) =>
  quick({ size: "1536*1536", num_inference_steps: 50, num_images: 4, cache: "off", ...changed });

function result(data, isError = false) {
  const content = [{ type: "text", text: typeof data === "string" ? data : JSON.stringify(data) }];
  return isError ? { content, isError } : { content, structuredContent: data };
}

function finished(changed = {}) {
  const { job_id, ...picture } = PICTURE;
  const images = [{ ...picture, image_uri: `image://${picture.image_id}`, seed: 7, ...changed }];
  return result({ status: "completed", job_id, images, client: "local", cost_usd: 0, next_step: "" });
}

async function shot(name) {
  if (!CASTMATE_SHOTS) return;
  mkdirSync(CASTMATE_SHOTS, { recursive: true });
  await tab.page.screenshot({ path: `${CASTMATE_SHOTS}/${name}.png`, fullPage: true });
}

const text = (selector) => tab.look((one) => document.querySelector(one)?.innerText, selector);
const buttons = () => tab.look(() => [...document.querySelectorAll("button")].map((b) => b.innerText));
const cancelAll = () =>
  tab.page.evaluate(async () => {
    const list = { name: "list_library", arguments: { kind: "jobs" } };
    const { items } = (await client.callTool(list)).structuredContent;
    for (const { id, status } of items) {
      if (["created", "running"].includes(status)) {
        await client.callTool({ name: "cancel_job", arguments: { job_id: id } });
      }
    }
  });

// What the accessibility checker finds, and what does not fit into the width.
async function isSound() {
  const frame = await tab.view();
  await frame.evaluate(AXE);
  const violations = await frame.evaluate(async () =>
    (await axe.run()).violations.map(({ id, nodes }) => `${id}: ${nodes[0].html}`),
  );
  assert.deepEqual(violations, []);
  const [needed, given] = await tab.look(() => [document.documentElement.scrollWidth, innerWidth]);
  assert.ok(needed <= given, `${needed} px are needed, there are ${given}`);
}

before(async () => {
  stage = await Stage.open(CASTMATE_URL);
  image = `data:image/png;base64,${readFileSync(CASTMATE_REFERENCE).toString("base64")}`;
});
after(() => stage?.close());
beforeEach(async () => {
  tab = await stage.chat();
});
afterEach(async () => {
  await cancelAll();
  assert.deepEqual(tab.complaints, [], "errors on the console, broken policies among them");
  await tab.page.close();
});

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
    await tab.ask("call", DRAW, quick());
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
    await tab.ask("call", DRAW, quick(), { capabilities: {} });
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
    await tab.ask("call", DRAW, quick(), { context });
    await tab.click("Full screen");
    await tab.until("html[data-display=fullscreen]");
    await tab.until("img[data-whole]");
    await isSound();
    await shot("fullscreen");
    await tab.page.keyboard.press("Escape");
    await tab.until("html[data-display=inline]");
  });
});

describe("a job", () => {
  it("shows its steps while the call of the model is still open", async () => {
    const called = tab.ask("call", DRAW, long({ prompt: " dancing in the snow", wait_seconds: 60 }));
    const stopped = called.catch(() => {});
    await tab.until(".between", { text: "Step" });
    assert.ok((await tab.look(() => document.querySelector("progress").value)) > 0);
    assert.match(await text(".time"), /^\d+ s$/);
    await isSound();
    await shot("running");
    await tab.click("Cancel");
    await tab.until(".eyebrow", { text: "Cancelled" });
    assert.match(await text(".message"), /^Nothing was charged\.$/);
    assert.equal(await text("#status"), "Cancelled. Nothing was charged.");
    await stopped;
    await isSound();
    await shot("cancelled");
  });

  it("that the call left running is followed to its end, and the model is told", async () => {
    await tab.ask("call", DRAW, quick({ prompt: "reading", seed: 11, wait_seconds: 0 }));
    await tab.until("img[data-whole]");
    await tab.page.waitForFunction("chat.seen.contexts.length");
    const { contexts } = await tab.seen();
    assert.match(contexts[0].content[0].text, /is finished and the user sees it: image_id img_/);
  });

  it("shows every step that a host passes on, not only those of its own questions", async () => {
    const args = long({ prompt: "jumping over a puddle", wait_seconds: 0 });
    await tab.ask("call", DRAW, args, { passProgress: true });
    await tab.until(".between", { text: "Step" });
    await tab.look(() => {
      const step = document.querySelector(".between span");
      window.steps = new Set();
      new MutationObserver(() => window.steps.add(step.textContent)).observe(step, {
        childList: true,
      });
    });
    const asked = (await tab.seen()).calls.length;
    await tab.until(".between", { text: "Step 12" });
    const answers = (await tab.seen()).calls.length - asked;
    assert.ok((await tab.look(() => window.steps.size)) > answers + 2);
  });

  it("is not asked for while nobody looks, nor after the host has taken the view down", async () => {
    await tab.ask("call", DRAW, long({ prompt: "fishing", wait_seconds: 0 }));
    await tab.until(".between", { text: "Step" });
    // A view that asks does so in the moment in which it is answered.
    const asks = async () => {
      await tab.page.waitForFunction("chat.open === 0");
      await tab.look(() => new Promise((done) => setTimeout(done, 200)));
      return (await tab.seen()).calls.length;
    };
    const hide = (hidden) =>
      tab.look((value) => {
        Object.defineProperty(document, "hidden", { value, configurable: true });
        document.dispatchEvent(new Event("visibilitychange"));
      }, hidden);
    await hide(true);
    const before = await asks();
    assert.equal(await asks(), before);
    await hide(false);
    await tab.page.waitForFunction((n) => chat.seen.calls.length > n, {}, before);
    await tab.page.evaluate(() => chat.bridge.teardownResource({}));
    const last = await asks();
    assert.equal(await asks(), last);
  });

  it("is not guessed where two calls with one prompt are open: the wrong one might be cancelled", async () => {
    const ask = (seed) => ({ name: DRAW, arguments: long({ prompt: "juggling", seed }) });
    await tab.page.evaluate(
      async (calls) => {
        for (const call of calls) {
          call.arguments.wait_seconds = 0;
          await client.callTool(call);
        }
      },
      [ask(1), ask(2)],
    );
    await tab.ask("mount", DRAW);
    const args = long({ prompt: "juggling", seed: 3 });
    await tab.page.evaluate((given) => chat.bridge.sendToolInput({ arguments: given }), args);
    await tab.page.waitForFunction("chat.seen.calls.includes('list_library') && chat.open === 0");
    assert.deepEqual(await buttons(), []);
    assert.match(await text(".between"), /Waiting for its turn/);
  });

  it("that the host loses is found again when somebody asks for it", async () => {
    await tab.ask("call", DRAW, long({ prompt: "skating", wait_seconds: 0 }));
    await tab.until(".between", { text: "Step" });
    await tab.look(() => {
      const later = window.setTimeout;
      window.setTimeout = (work, ms) => later(work, ms / 20); // it waits longer and longer
    });
    await tab.page.evaluate(() => (chat.broken = true));
    await tab.until(".message", { text: "The server is gone. The job goes on." });
    await isSound();
    await tab.page.evaluate(() => (chat.broken = false));
    await tab.click("Look again");
    await tab.until(".between", { text: "Step" });
  });

  it("of get_job is shown from its id alone, after a reload of the chat too", async () => {
    const drawn = await tab.ask("call", DRAW, quick());
    await tab.ask("call", "get_job", { job_id: drawn.structuredContent.job_id });
    await tab.until("img[data-whole]");
    assert.match(await text(".facts"), /512 × 640/);
  });

  it("that could not begin says why, in the words of the server", async () => {
    await tab.ask("call", DRAW, quick({ image: "nowhere.png" }));
    await tab.until(".eyebrow", { text: "Not drawn" });
    assert.match(await text(".message"), /nothing was generated or charged/);
    await isSound();
    await shot("refused");
  });

  it("that failed, and a call that the host gave up, are told plainly", async () => {
    const why = "Job job_1 failed. The GPU is out of memory. Nothing was charged.";
    await tab.ask("pretend", "get_job", { job_id: "job_1" }, result(why, true));
    await tab.until(".message", { text: "out of memory" });
    await tab.ask("mount", DRAW);
    await tab.page.evaluate(async (args) => {
      await chat.bridge.sendToolInput({ arguments: args });
      await chat.bridge.sendToolCancelled({ reason: "user action" });
    }, quick());
    await tab.until(".message", { text: "The host stopped the call: user action" });
    await tab.page.evaluate((late) => chat.bridge.sendToolResult(late), finished());
    await tab.until(".eyebrow", { text: "Drawn" });
  });
});

describe("the library", () => {
  it("is a grid of pictures, each of which opens and closes by the keyboard", async () => {
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

  it("does not move for those who asked for that", async () => {
    await tab.page.emulateMediaFeatures([{ name: "prefers-reduced-motion", value: "reduce" }]);
    await tab.ask("mount", DRAW);
    await tab.page.evaluate((args) => chat.bridge.sendToolInput({ arguments: args }), quick());
    await tab.until(".canvas");
    const moving = await tab.look(() => document.getAnimations().length);
    assert.equal(moving, 0);
  });

  it("tells its height, which shrinks again", async () => {
    const height = () => tab.page.evaluate(() => document.querySelector("iframe").clientHeight);
    await tab.ask("call", DRAW, quick());
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
