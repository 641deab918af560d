// From the first visit to a picture, in a real browser.

import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { CASTMATE_PAID_URL, LONG, api, tab, visit } from "./visit.mjs";

describe("the studio draws", () => {
  it("a picture on the first visit: a character, a prompt, a picture", async () => {
    await tab.until(".nothing h2", { text: "Begin with a character" });
    await tab.isSound();
    await tab.add("Mira");
    await tab.until(".member[aria-pressed=true]", { text: "Mira" });
    await tab.write("waving on the beach");
    await tab.send();
    await tab.until(".done .tile img");
    await tab.until(".done .identity");
    assert.match(await tab.text(".done .said"), /waving on the beach/);
    await tab.until(".member .identity"); // under the character, too
    await tab.isSound();
    await tab.shot("drawn");
  });

  it("step by step, until somebody cancels it", async () => {
    await tab.write("dancing in the snow", LONG);
    await tab.send();
    await tab.until(".feed .between", { text: "Step" });
    await tab.holds(() => document.querySelector(".feed progress").value > 0);
    await tab.isSound();
    await tab.shot("drawing");
    await tab.click(".feed button", "Cancel");
    await tab.until(".feed .eyebrow", { text: "Cancelled" });
  });

  it("several pictures, each of which is seen while the next is drawn", async () => {
    await tab.write("reading a book", { size: "1024*1024" });
    await tab.page.select("#choice-num_images", "2");
    await tab.send();
    await tab.until(".feed .previews img");
    await tab.holds(() => document.querySelectorAll(".done .tile").length === 3);
  });

  it("candidates, of which the best is kept", async () => {
    await tab.write("reading a book");
    await tab.page.select("#choice-num_candidates", "3");
    await tab.send();
    await tab.until(".done .said", { text: "best of 3" });
    await tab.click(".done .tile");
    await tab.until(".candidates li", { text: "chosen" });
    assert.equal(await tab.look(() => document.querySelectorAll(".candidates li").length), 3);
    await tab.isSound();
    await tab.shot("picture");
    await tab.page.keyboard.press("Escape");
    await tab.gone("dialog");
  });

  it("on while the connection is lost, and shows the rest when it is back", async () => {
    await tab.write("skating on a lake", LONG);
    await tab.send();
    await tab.until(".feed .between", { text: "Step" });
    await tab.page.setOfflineMode(true);
    await tab.look(() => dispatchEvent(new Event("online"))); // it looks, and nobody answers
    await tab.until(".away", { text: "The connection is lost" });
    await tab.page.setOfflineMode(false);
    await tab.look(() => dispatchEvent(new Event("online")));
    await tab.holds(() => document.querySelector(".away").hidden);
    await tab.until(".feed .between", { text: "Step" });
    await tab.page.reload();
    await tab.until(".feed .between", { text: "Step" });
    await tab.click(".feed button", "Cancel");
    await tab.until(".feed .eyebrow", { text: "Cancelled" });
    tab.complaints = tab.complaints.filter((one) => !one.includes("ERR_INTERNET_DISCONNECTED"));
  });

  it("in two tabs at once: each shows what the other has asked for", async () => {
    await tab.write("fishing at night", LONG);
    await tab.send();
    await tab.until(".feed .between", { text: "Step" });
    const other = await visit();
    await other.until(".feed .between", { text: "Step" });
    await other.click(".feed button", "Cancel");
    await other.until(".feed .eyebrow", { text: "Cancelled" });
    await tab.page.bringToFront();
    await tab.until(".feed .eyebrow", { text: "Cancelled" });
  });

  it("for money only after it has said what that may cost", async () => {
    await tab.until(".estimate", { text: "Free, on this server" });
    const paid = await visit({ server: CASTMATE_PAID_URL });
    await paid.until(".estimate", { text: "Up to $0.10, if the hosted model draws it" });
    await paid.page.select("#choice-num_images", "2");
    await paid.until(".estimate", { text: "Up to $0.20, if the hosted model draws it" });
    await paid.shot("paid");
    await paid.click("nav a", "Storyboards");
    await paid.fill(".scenes textarea", "waving on the beach");
    await paid.until(".estimate", { text: "Up to $0.10, if the hosted model draws it" });
  });

  it("nothing that is not there: an error says what to do", async () => {
    await tab.write("flying", { size: "99*99" });
    await tab.send();
    await tab.until(".problem-line", { text: "size" });
    assert.equal((await api("POST", "/predictions", { status: "processing" })).items.length, 0);
    tab.complaints = tab.complaints.filter((one) => !one.includes("422"));
  });
});
