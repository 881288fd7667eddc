// A browser on the page of a running cluster, and what every test asks of it: no error, nothing that axe finds.

import { readFileSync } from "node:fs";
import { join } from "node:path";
import { chromium } from "playwright-core";

const AXE = readFileSync(new URL("./node_modules/axe-core/axe.min.js", import.meta.url), "utf8");

export const page = process.env.PAGE;
export const pictures = process.env.PICTURES;
export const servers = JSON.parse(process.env.SERVERS); // [{address, pid}]

export function must(holds, what) {
  if (!holds) throw new Error(what);
}

export async function call(method, path, body, headers = {}) {
  const response = await fetch(`${page}/api/v1/${path}`, { method, body, headers });
  must(response.ok, `${method} ${path}: ${response.status} ${response.ok ? "" : await response.text()}`);
  return response;
}

export const ask = async (path) => (await call("GET", path)).json();
export const tell = (path, body) => call("POST", path, JSON.stringify(body), { "content-type": "application/json" });
export const encode = (path) => path.split("/").map(encodeURIComponent).join("/");
export const store = (path, body) => call("PUT", `content${encode(path)}`, body);

export async function until(what, holds, ms = 60_000) {
  const end = Date.now() + ms;
  for (;;) {
    const answer = await holds();
    if (answer) return answer;
    must(Date.now() < end, `in vain: ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
}

export const launch = () => chromium.launch({
  executablePath: process.env.BROWSER,
  args: ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--disable-dev-shm-usage"],
});

// A tab of its own; `errors` holds whatever the console complains of, and dialogs that a name has opened.
export async function open(browser, { width = 1440, height = 900, theme = "light", lang = "en", storageState } = {}) {
  const context = await browser.newContext({ viewport: { width, height }, colorScheme: theme, locale: lang === "zh" ? "zh-CN" : "en-GB", storageState });
  const tab = await context.newPage();
  const errors = [];
  tab.on("console", (message) => { if (message.type() === "error") errors.push(message.text()); });
  tab.on("pageerror", (error) => errors.push(String(error)));
  tab.on("dialog", (dialog) => { errors.push(`a dialog: ${dialog.message()}`); dialog.dismiss(); });
  return { tab, context, errors };
}

export const at = (name) => `[data-test="${name}"]`;

export async function show(tab, address, view) {
  await tab.goto(`${page}/#/${address}`);
  await tab.waitForSelector(at(`view-${view}`));
  // Whatever it asks first has been answered.
  await tab.waitForFunction(() => !document.querySelector("[aria-busy=true]"));
}

export async function audit(tab, what) {
  await tab.evaluate(AXE);
  const { violations } = await tab.evaluate(() => globalThis.axe.run(document, { resultTypes: ["violations"] }));
  const told = violations.map(({ id, nodes }) => `${id}: ${nodes.slice(0, 3).map(({ html, failureSummary }) => `${html} ${failureSummary}`).join(" | ")}`);
  must(told.length === 0, `axe, ${what}: ${told.join("; ")}`);
}

export async function picture(tab, name, fullPage = true) {
  await tab.screenshot({ path: join(pictures, `${name}.png`), fullPage, animations: "disabled" });
}
