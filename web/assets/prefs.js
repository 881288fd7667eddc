// What this browser remembers of the user's choices, where it remembers anything at all.

export function recall(name) {
  try {
    return localStorage.getItem(`blockyard.${name}`);
  } catch {
    return null; // storage is switched off
  }
}

export function remember(name, value) {
  try {
    localStorage.setItem(`blockyard.${name}`, value);
  } catch { /* the choice lasts as long as the page */ }
}

export const THEMES = ["auto", "light", "dark"];

export function theme() {
  const chosen = recall("theme");
  return THEMES.includes(chosen) ? chosen : "auto";
}

export function setTheme(chosen) {
  remember("theme", chosen);
  document.documentElement.dataset.theme = chosen;
  dispatchEvent(new Event("themechange"));
}
