// Who is here: where the server has keys, the page asks for one and keeps it in a cookie that no
// script can read, never in an address or in the browser's storage.

import { button, element } from "../../page/element.js";
import { ask } from "./api.js";
import { doing, openDialog, problemLine } from "./dialog.js";

export async function askForKey() {
  const problem = problemLine();
  const field = element("input", {
    type: "password",
    id: "key",
    autocomplete: "current-password",
    placeholder: "wsk_…",
    keydown: ({ key }) => key === "Enter" && enter.click(),
  });
  const enter = doing("Open the studio", () => open(field.value.trim()), {
    class: "primary",
    problem,
  });
  const dialog = openDialog(
    "Your key",
    element(
      "p",
      { class: "quiet" },
      "This server has keys: `castmate keys create NAME` makes one. It is kept for this browser alone, and no page can read it.",
    ),
    element("label", { for: "key" }, "Key"),
    field,
    problem,
    element("p", { class: "actions" }, enter),
  );
  dialog.classList.add("narrow");
  field.focus();
  const open = async (key) => {
    await ask("POST", "/session", { key });
    dialog.dataset.open = "true";
    dialog.close();
  };
  await new Promise((opened, refused) => {
    dialog.addEventListener("close", () =>
      dialog.dataset.open
        ? opened()
        : refused(new Error("The studio needs a key. Reload the page to enter one.")),
    );
  });
}

// A way out, where there is a session; what is for operators is for them alone.
export async function showAccount(account, operators) {
  const { key, scopes, expires_at: expires } = await ask("GET", "/session");
  operators.hidden = !scopes.includes("admin");
  if (!expires) return;
  const leave = async () => {
    await ask("DELETE", "/session");
    location.reload();
  };
  account.replaceChildren(
    button("Leave", leave, { class: "chip", title: `Forget the key ${key}` }),
  );
}
