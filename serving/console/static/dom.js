// Elements without markup: every text goes in as text, so nothing that somebody wrote is ever read
// as HTML. The policy forbids the other way, too.

export const find = (selector, within = document) => within.querySelector(selector);

export function element(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (key.startsWith("on")) made.addEventListener(key.slice(2), value);
    else if (value === true) made.setAttribute(key, "");
    else if (value !== false && value != null) made.setAttribute(key, value);
  }
  made.append(...children.filter((child) => child != null));
  return made;
}

export function fill(parent, ...children) {
  parent.replaceChildren(...children.filter((child) => child != null));
}

export function show(target, shown = true) {
  target.hidden = !shown;
}

// Said to everybody, also to those who do not see the page.
export function say(text) {
  find("#status").textContent = text;
}

export function debounced(work, milliseconds) {
  let timer;
  return (...given) => {
    clearTimeout(timer);
    timer = setTimeout(() => work(...given), milliseconds);
  };
}
