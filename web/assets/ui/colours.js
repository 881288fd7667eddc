// The page's colours for what is drawn on a canvas, and word of their change.

import { useEffect, useState } from "../html.js";

const probe = document.createElement("span");

// The colour a custom property stands for now, in the chosen theme.
export function colour(name) {
  if (!probe.isConnected) {
    probe.hidden = true;
    document.body.append(probe);
  }
  probe.style.color = `var(--${name})`;
  return getComputedStyle(probe).color;
}

// A number that changes with the theme.
export function useTheme() {
  const [round, set] = useState(0);
  useEffect(() => {
    const changed = () => set((last) => last + 1);
    const system = matchMedia("(prefers-color-scheme: dark)");
    addEventListener("themechange", changed);
    system.addEventListener("change", changed);
    return () => {
      removeEventListener("themechange", changed);
      system.removeEventListener("change", changed);
    };
  }, []);
  return round;
}
