// The few words and elements that all views are made of. Text from prompts and servers becomes text
// nodes only, never HTML.

const view = document.getElementById("view");
const status = document.getElementById("status");

function element(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (typeof value === "function") made.addEventListener(name, value);
    else if (value === true) made.setAttribute(name, "");
    else if (value !== false && value != null) made.setAttribute(name, value);
  }
  made.append(...children.filter((child) => child != null && child !== false));
  return made;
}

function button(label, click, attributes = {}) {
  return element("button", { type: "button", click, ...attributes }, label);
}

// What has the focus goes away with the old view: the new one takes it, so that keyboards go on.
function show(...children) {
  const focused = view.contains(document.activeElement);
  view.replaceChildren(...children);
  if (!focused) return;
  const heading = view.querySelector("h1");
  heading?.setAttribute("tabindex", "-1");
  heading?.focus({ preventScroll: true });
}

// For those who do not see the page.
function announce(text) {
  if (status.textContent !== text) status.textContent = text;
}

// For all, below the view, for a moment.
function notice(text) {
  announce(text);
  status.classList.remove("unseen");
  clearTimeout(notice.timer);
  notice.timer = setTimeout(() => status.classList.add("unseen"), 4000);
}

// What only the host can do; null where it does not.
async function asked(host, method, params) {
  try {
    const result = await host.request(method, params);
    if (!result.isError) return result;
    notice("The host did not do it.");
  } catch (error) {
    notice(error.message);
  }
  return null;
}

function duration(seconds) {
  if (seconds < 10 && !Number.isInteger(seconds)) return `${seconds.toFixed(1)} s`;
  const whole = Math.round(seconds);
  return whole < 60 ? `${whole} s` : `${Math.floor(whole / 60)} min ${whole % 60} s`;
}

function money(usd) {
  return usd > 0 ? `$${usd.toFixed(usd < 0.1 ? 3 : 2)}` : "free";
}

// Frames may not touch the clipboard unless the host lets them; the old way needs no permission.
async function copy(text, from) {
  try {
    await navigator.clipboard.writeText(text);
  } catch {
    const field = element("textarea", { class: "unseen", readonly: true }, text);
    document.body.append(field);
    field.select();
    const copied = document.execCommand("copy");
    field.remove();
    from.focus();
    if (!copied) return notice(`The host does not allow copying: ${text}`);
  }
  notice(`Copied ${text}`);
}

function copyButton(label, text) {
  const title = `Copy ${text}`;
  const made = button(label, () => copy(String(text), made), { class: "chip", title });
  return made;
}
