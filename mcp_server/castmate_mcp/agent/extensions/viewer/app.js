// The page: which view a call and its result get, and what the host says about the surroundings.

import { element } from "../../../page/element.js";
import { applyContext } from "./context.js";
import { previews, structured } from "./follow.js";
import { Gallery, showItem } from "./gallery.js";
import { Host } from "./host.js";
import { JobScreen } from "./job.js";
import { Pictures } from "./pictures.js";
import { show } from "./show.js";

const host = new Host(window.parent);
const pictures = new Pictures(host);
let screen = null;
let given = {};

function replaceScreen(made) {
  screen?.stop();
  screen = made;
}

function opened(args) {
  given = args?.scenes ? { ...args, prompt: args.scenes.join(" / ") } : args ?? {};
  if (!given.prompt && !given.job_id) return;
  replaceScreen(new JobScreen(host, pictures, given));
  if (given.job_id) screen.look(given.job_id);
  else screen.begin();
}

function answered(result) {
  const data = structured(result);
  if (data?.items && !result.isError) {
    return replaceScreen(new Gallery(host, pictures, data.items));
  }
  const [preview] = previews(result);
  if (!data && preview && given.image_id) {
    replaceScreen(null);
    const item = { id: given.image_id, uri: `image://${given.image_id}` };
    return showItem(host, pictures, item, { prompt: "A picture", preview });
  }
  if (!(screen instanceof JobScreen)) replaceScreen(new JobScreen(host, pictures, given));
  screen.receive(result);
}

host.on("ui/notifications/tool-input-partial", ({ arguments: typed }) => {
  if (!screen && typed?.prompt) show(element("h1", { class: "typed" }, typed.prompt));
});
host.on("ui/notifications/tool-input", ({ arguments: args }) => opened(args));
host.on("ui/notifications/tool-result", answered);
host.on("ui/notifications/tool-cancelled", ({ reason }) => screen?.interrupted?.(reason));
host.on("ui/notifications/host-context-changed", (changed) => {
  Object.assign(host.context, changed);
  applyContext(changed);
});
host.on("ui/resource-teardown", () => replaceScreen(null));

addEventListener("keydown", ({ key }) => {
  const full = document.documentElement.dataset.display === "fullscreen";
  if (full && key === "Escape") document.querySelector(".when-fullscreen")?.click();
});

await host.connect("castmate-viewer", document.documentElement.dataset.version);
applyContext(host.context);
new ResizeObserver(() => {
  const { height } = document.documentElement.getBoundingClientRect();
  host.notify("ui/notifications/size-changed", { height: Math.ceil(height) });
}).observe(document.documentElement);
