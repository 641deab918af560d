// The one view of the page.

const view = document.getElementById("view");

// What has the focus goes away with the old view: the new one takes it, so that keyboards go on.
export function show(...children) {
  const focused = view.contains(document.activeElement);
  view.replaceChildren(...children);
  if (!focused) return;
  const heading = view.querySelector("h1");
  heading?.setAttribute("tabindex", "-1");
  heading?.focus({ preventScroll: true });
}
