// A job while it is drawn, in a real browser.

import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { DRAW, buttons, finished, isSound, long, quick, result, shot, show, tab, text } from "./chat.mjs";

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

  it("that the call left running is followed to its end, and the model hears of it", async () => {
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
    const { job_id } = await show();
    await tab.ask("call", "get_job", { job_id });
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

  it("that failed, and a call that the host gave up, are reported plainly", async () => {
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
