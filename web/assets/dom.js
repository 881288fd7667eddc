// Builds elements. Text is only ever set as text: a name can't become markup.

// h("a", {href, class, onclick, …}, child, …): strings become text nodes, null and false are left out.
export function h(tag, attributes, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes ?? {})) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else element.setAttribute(name, value === true ? "" : String(value));
  }
  element.append(...children.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== false));
  return element;
}

// Puts `children` in place of what `root` holds, keeping the focus where it was by data-key.
export function replace(root, ...children) {
  const focused = root.contains(document.activeElement) ? document.activeElement.dataset.key : undefined;
  root.replaceChildren(...children.flat(Infinity).filter(Boolean));
  if (focused) root.querySelector(`[data-key="${CSS.escape(focused)}"]`)?.focus({ preventScroll: true });
}

// Whether the user is marking text in `root`: then it should be left alone.
export function selecting(root) {
  const selection = getSelection();
  return Boolean(selection && !selection.isCollapsed && root.contains(selection.anchorNode));
}

const STATES = {
  alive: ["good", "●", "alive"],
  serving: ["good", "●", "serving"],
  good: ["good", "●", "good"],
  ok: ["good", "✓", "healthy"],
  suspect: ["warn", "▲", "silent"],
  full: ["warn", "■", "full"],
  warning: ["warn", "▲", "attention"],
  dead: ["bad", "✕", "lost"],
  failed: ["bad", "✕", "failed"],
  corrupt: ["bad", "✕", "damaged"],
  critical: ["bad", "✕", "action needed"],
  unknown: ["", "?", "unknown"],
};

// The colour class, sign and word of a state: never the colour alone.
export function look(state) {
  return STATES[state] ?? ["", "?", state];
}

export function badge(state, word) {
  const [tone, sign, usual] = look(state);
  return h("span", { class: `badge ${tone}` }, h("span", { "aria-hidden": "true" }, sign), word ?? usual);
}

export function meter(part, whole, label) {
  const share = whole > 0 ? Math.min(1, part / whole) : 0;
  const fill = h("span");
  fill.style.width = `${share * 100}%`;
  return h("div", {
    class: share > 0.9 ? "meter high" : "meter", role: "meter", "aria-label": label,
    "aria-valuemin": 0, "aria-valuemax": 100, "aria-valuenow": Math.round(share * 100),
  }, fill);
}

export function empty(title, text) {
  return h("p", { class: "empty" }, h("b", {}, title), text);
}

export function trouble(error) {
  return h("p", { class: "trouble", role: "alert" }, error.message);
}

// A question in a dialog. Resolves to the button's value ("" when dismissed), or with `input` to the text.
export function ask({ title, text, input, yes, danger }) {
  return new Promise((resolve) => {
    const field = input === undefined ? null : h("input", { value: input.value, required: true, id: "answer", autocomplete: "off" });
    const form = h("form", { method: "dialog" },
      h("h2", { id: "question" }, title),
      text ? h("p", {}, text) : null,
      field ? [h("label", { for: "answer" }, input.label), field] : null,
      h("div", { class: "choices" },
        h("button", { type: "button", onclick: () => dialog.close("") }, "Cancel"),
        h("button", { class: danger ? "primary danger" : "primary", value: "yes" }, yes)));
    const dialog = h("dialog", { "aria-labelledby": "question" }, form);
    dialog.addEventListener("close", () => {
      const confirmed = dialog.returnValue === "yes";
      dialog.remove();
      resolve(confirmed ? (field ? field.value : "yes") : "");
    });
    document.body.append(dialog);
    dialog.showModal();
    field?.select();
  });
}
