// Texts by key, in the language the user chose or the browser asks for.

import en from "./lang/en.js";
import zh from "./lang/zh.js";
import { recall, remember } from "./prefs.js";

const TEXTS = { en, zh };
export const LANGUAGES = [["en", "English"], ["zh", "中文"]];

export let language = TEXTS[recall("lang")] ? recall("lang") : navigator.language.startsWith("zh") ? "zh" : "en";
let rules;
let numbers;
const listeners = new Set();

function settle() {
  rules = new Intl.PluralRules(language);
  numbers = new Intl.NumberFormat(language, { maximumFractionDigits: 0 });
  document.documentElement.lang = language === "zh" ? "zh-Hans" : "en";
}
settle();

export function setLanguage(chosen) {
  language = chosen;
  remember("lang", chosen);
  settle();
  listeners.forEach((listener) => listener(chosen));
}

export function onLanguage(listener) {
  listeners.add(listener);
  return () => listeners.delete(listener);
}

export const known = (key) => key in TEXTS[language];

function pattern(key, given) {
  const text = TEXTS[language][key];
  if (text === undefined) return key;
  return typeof text === "string" ? text : text[rules.select(given?.n ?? 0)] ?? text.other;
}

export const number = (value) => numbers.format(value);

const shown = (value) => (typeof value === "number" ? number(value) : value);

// t("files.deleted", {n: 3}): a text with {names} replaced; by `n` one of its plural forms is chosen.
export function t(key, given) {
  return pattern(key, given).replace(/\{(\w+)\}/g, (all, name) => String(shown(given?.[name] ?? all)));
}

// The same with elements among what is given: a list of texts and elements.
export function rich(key, given) {
  return pattern(key, given).split(/\{(\w+)\}/).map((piece, at) => (at % 2 ? shown(given[piece]) : piece));
}
