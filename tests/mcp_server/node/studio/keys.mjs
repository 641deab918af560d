// Where the server has keys, in a real browser. Last of all: from the first key on, everybody needs
// one.

import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { describe, it } from "node:test";
import { CASTMATE_URL, tab, visit } from "./visit.mjs";

const refused = (one) => one.includes("401");

describe("keys", () => {
  it("are asked for once, and neither scripts nor addresses nor storage hold them", async () => {
    const made = execFileSync("castmate", ["keys", "create", "ann"], {
      encoding: "utf8",
      stdio: ["ignore", "pipe", "ignore"],
    });
    const key = made.trim().split("\n").at(-1);
    const locked = await visit();
    await locked.until("dialog h2", { text: "Your key" });
    await locked.isSound();
    await locked.shot("key");
    await locked.fill("#key", "wsk_wrong");
    await locked.page.keyboard.press("Enter");
    await locked.until(".problem-line", { text: "not valid" });
    await locked.fill("#key", key);
    await locked.page.keyboard.press("Enter");
    await locked.until(".compose");
    await locked.until("#account button", { text: "Leave" });
    const views = () =>
      locked.look(() =>
        [...document.querySelectorAll("nav a")]
          .filter((one) => one.checkVisibility())
          .map((one) => one.textContent),
      );
    assert.deepEqual(await views(), ["Draw", "Gallery", "Storyboards"]); // Status is for `admin`
    const held = await locked.look(() =>
      [
        document.cookie,
        location.href,
        ...Object.values(localStorage),
        ...Object.values(sessionStorage),
      ].join(),
    );
    assert.ok(!held.includes(key) && !held.includes("castmate_session"));
    await locked.page.reload(); // the cookie stays
    await locked.until(".compose");
    await locked.add("Nova");
    await locked.write("waving");
    await locked.send();
    await locked.until(".done .tile img");
    await locked.click("#account button", "Leave");
    await locked.until("dialog h2", { text: "Your key" });
    assert.equal((await fetch(`${CASTMATE_URL}/api/v3/characters`)).status, 401);
    assert.ok(
      locked.complaints.length && locked.complaints.every(refused),
      locked.complaints.join("\n"),
    );
    locked.complaints = [];
    tab.complaints = tab.complaints.filter((one) => !refused(one));
  });
});
