// How every view is made. Text from prompts and servers becomes text nodes only, never HTML.

export function element(tag, attributes, ...children) {
  return filled(document.createElement(tag), attributes, ...children);
}

// Functions among the attributes are listeners; null and false are left out.
export function filled(made, attributes = {}, ...children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (typeof value === "function") made.addEventListener(name, value);
    else if (value === true) made.setAttribute(name, "");
    else if (value !== false && value != null) made.setAttribute(name, value);
  }
  made.append(...children.flat().filter((child) => child != null && child !== false));
  return made;
}

export function button(label, click, attributes = {}) {
  return element("button", { type: "button", click, ...attributes }, label);
}
