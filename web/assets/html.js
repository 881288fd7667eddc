// Markup in templates: htm bound to Preact, and the hooks the views use. Values only ever become text or attributes.

import htm from "./vendor/htm.js";
import { h } from "./vendor/preact.js";

// What is shown has its control characters escaped, and those that turn the direction of writing, as in the terminal:
// a name can't look like another one.
const TRICKS = /[\0-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff]/g;
const escaped = (trick) => `\\u{${trick.charCodeAt(0).toString(16)}}`;

function shown(child) {
  if (Array.isArray(child)) return child.map(shown);
  return typeof child === "string" ? child.replace(TRICKS, escaped) : child;
}

export const html = htm.bind((type, props, ...children) => h(type, props, ...children.map(shown)));
export { Fragment, render } from "./vendor/preact.js";
export { useCallback, useEffect, useId, useLayoutEffect, useMemo, useRef, useState } from "./vendor/hooks.js";
