// The page in a real browser, on a real cluster: each view, transfers, names that look like markup, a server that dies.

import { mkdtempSync, mkdirSync, rmSync, writeFileSync } from "node:fs";
import { randomFillSync } from "node:crypto";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { ask, at, audit, call, encode, launch, must, open, page, picture, servers, show, store, tell, until } from "./browser.mjs";

const MIB = 1 << 20;
const BLOCK = 4 * MIB;
const FILES = Number(process.env.FILES ?? 300);
const NASTY = ["<img src=x onerror=alert(1)>", "\"><script>alert(2)<", "a'b\"c&d;e", "\u202egnp.exe", "📦 päckchen #1?", `${"long".repeat(60)}.txt`, "..hidden", "100% & +plus"];

// Each language says all that the other says, with the same figures in it.
async function languages() {
  const [en, zh] = await Promise.all(["en", "zh"].map(async (name) => (await import(`../../assets/lang/${name}.js`)).default));
  const holes = (text) => [...new Set(JSON.stringify(text).match(/\{\w+\}/g) ?? [])].sort().join();
  for (const [one, other] of [[en, zh], [zh, en]]) {
    for (const key of Object.keys(one)) must(key in other && holes(one[key]) === holes(other[key]), `the languages differ in ${key}`);
  }
}

const browser = await launch();
const local = mkdtempSync(join(tmpdir(), "blockyard-browser-"));
const file = (name, bytes) => {
  const data = Buffer.alloc(bytes);
  randomFillSync(data);
  const path = join(local, name);
  mkdirSync(join(path, ".."), { recursive: true });
  writeFileSync(path, data);
  return { path, data };
};

async function fill() {
  const names = Array.from({ length: FILES }, (_, at) => `/many/${String(at % 40).padStart(2, "0")}/file-${String(at).padStart(5, "0")}.dat`);
  const lanes = Array.from({ length: 16 }, async () => {
    for (let name = names.pop(); name; name = names.pop()) await store(name, `the file ${name}`);
  });
  await Promise.all(lanes);
  for (const name of NASTY) await store(`/names/${name}`, `the file ${name}`);
  await store("/docs/readme.txt", "Some text to look at.\n".repeat(40));
  await call("PUT", "content/docs/picture.svg", "<svg xmlns='http://www.w3.org/2000/svg' width='240' height='120'><rect width='240' height='120' fill='#3b6fd4'/></svg>",
    { "content-type": "image/svg+xml" });
  await store("/docs/large.bin", file("large.bin", 6 * BLOCK + 123).data);
  await store("/docs/gone.txt", "soon in the trash");
  await call("DELETE", "content/docs/gone.txt");
}

const volume = async () => Object.keys((await ask("status")).volumes)[0];

async function views() {
  const list = [
    ["overview", "", "overview"], ["servers", "servers", "servers"], ["volume", `volume/${await volume()}`, "volume"],
    ["blocks", "blocks", "blocks"], ["pipeline", "pipeline", "pipeline"], ["files", "files/docs", "files"],
    ["many", "files/many/07", "files"], ["names", "files/names", "files"], ["file", "file/docs/large.bin", "file"],
    ["text", "file/docs/readme.txt", "file"], ["image", "file/docs/picture.svg", "file"],
    ["trash", "trash", "trash"], ["repair", "repair", "repair"], ["whatif", "whatif", "whatif"],
  ];
  for (const theme of ["light", "dark"]) {
    for (const [lang, width] of [["en", 1440], ["zh", 1440], ["en", 390]]) {
      const { tab, context, errors } = await open(browser, { width, height: width < 500 ? 844 : 900, theme, lang });
      for (const [name, address, view] of list) {
        await show(tab, address, view);
        const what = `${name} in ${lang}, ${theme}, ${width} wide`;
        const wide = await tab.evaluate(() => document.documentElement.scrollWidth - innerWidth);
        must(wide <= 0, `${what} is ${wide} pixels too wide`);
        await audit(tab, what);
        await picture(tab, `${name}-${theme}-${lang}-${width}`);
      }
      must(errors.length === 0, `${lang}, ${theme}, ${width} wide: ${errors.join("; ")}`);
      await context.close();
    }
  }
}

async function names() {
  const { tab, context, errors } = await open(browser);
  await show(tab, "files/names", "files");
  for (const name of NASTY) {
    const row = tab.locator(`${at("file-row")}[data-path=${JSON.stringify(`/names/${name}`)}]`);
    await row.waitFor();
    const shown = name.replace("\u202e", "\\u{202e}");
    must((await row.textContent()).includes(shown), `${shown} stands there as text`);
    await row.getByRole("link", { name: shown, exact: true }).click();
    await tab.waitForSelector(at("view-file"));
    await tab.getByText("crc32c", { exact: false }).first().waitFor();
    const said = await (await fetch(`${page}/api/v1/content/names/${encodeURIComponent(name)}`)).text();
    must(said === `the file ${name}`, `${name} is read back`);
    await tab.goBack();
  }
  await tab.fill(at("search"), "SCRIPT");
  await until("the search finds one", async () => (await tab.locator(at("file-row")).count()) === 1);
  await show(tab, "file/docs/picture.svg", "file");
  await until("the picture is drawn", () => tab.locator(at("preview-image")).evaluate((image) => image.naturalWidth === 240));
  must(errors.length === 0, errors.join("; "));
  await context.close();
}

// Counts what is sent to `uploads/…/blocks/…`.
function counter(tab) {
  const sent = new Map();
  tab.on("requestfinished", (request) => {
    const found = request.method() === "PUT" && /\/blocks\/(\d+)$/.exec(request.url());
    if (found) sent.set(found[1], (sent.get(found[1]) ?? 0) + 1);
  });
  return sent;
}

const job = (path) => `${at("upload-job")}[data-path=${JSON.stringify(path)}]`;
const done = (tab, path) => tab.waitForSelector(`${job(path)}[data-state="done"]`, { timeout: 120_000 });

async function resume() {
  const { path, data } = file("sixty-four.bin", 16 * BLOCK);
  const { tab, context, errors } = await open(browser);
  await tellFolder("up");
  await show(tab, "files/up", "files");
  const before = counter(tab);
  await tab.setInputFiles(at("file-input"), path);
  await until("some blocks have been sent", () => before.size >= 4);
  await tab.reload();
  await tab.waitForSelector(`${job("/up/sixty-four.bin")}[data-state="lost"]`);
  const after = counter(tab);
  const id = (await tab.evaluate(() => new Promise((resolve, reject) => {
    const opened = indexedDB.open("blockyard");
    opened.onerror = () => reject(opened.error);
    opened.onsuccess = () => {
      const names = [...opened.result.objectStoreNames];
      const all = opened.result.transaction(names).objectStore(names[0]).getAll();
      all.onsuccess = () => resolve(all.result[0].id);
    };
  })));
  const there = (await ask(`uploads/${id}`)).blocks.map(({ index }) => String(index));
  must(there.length >= 4 && there.length < 16, `${there.length} of 16 blocks are there before it goes on`);
  await picture(tab, "upload-interrupted", false);
  await audit(tab, "an upload that was interrupted");
  await tab.setInputFiles(at("again-input"), path);
  await done(tab, "/up/sixty-four.bin");
  const sent = [...after.keys()].sort((one, other) => one - other);
  const missing = Array.from({ length: 16 }, (_, index) => String(index)).filter((index) => !there.includes(index));
  must(JSON.stringify(sent) === JSON.stringify(missing), `sent ${sent}, and missing were ${missing}`);
  must([...after.values()].every((times) => times === 1), "each of them once");
  const back = Buffer.from(await (await call("GET", "content/up/sixty-four.bin")).arrayBuffer());
  must(back.equals(data), "what is stored is what was sent");
  const told = await tab.textContent(job("/up/sixty-four.bin"));
  must(told.includes((await ask("file?path=/up/sixty-four.bin")).crc32c), `the checksum is shown: ${told}`);
  console.log(`  ${there.length} of 16 blocks were there after the reload, ${sent.length} were sent`);
  must(errors.length === 0, errors.join("; "));
  await context.close();
}

const tellFolder = (path) => fetch(`${page}/api/v1/folders/${encode(path)}`, { method: "POST" });

async function folder() {
  for (const [name, bytes] of [["tree/a.txt", 10], ["tree/deep/er/b.bin", BLOCK + 5], ["tree/deep/empty", 0], ["tree/<b>c</b>.txt", 20]]) file(name, bytes);
  const { tab, context, errors } = await open(browser);
  await tellFolder("up");
  await show(tab, "files/up", "files");
  await tab.setInputFiles(at("folder-input"), join(local, "tree"));
  for (const name of ["a.txt", "deep/er/b.bin", "deep/empty", "<b>c</b>.txt"]) await done(tab, `/up/tree/${name}`);
  must((await ask(`file?path=${encodeURIComponent("/up/tree/deep/er/b.bin")}`)).size === BLOCK + 5, "the deepest is there");
  await audit(tab, "finished uploads");
  must(errors.length === 0, errors.join("; "));
  await context.close();
}

async function trash() {
  const { tab, context, errors } = await open(browser);
  await store("/bin/one.txt", "one");
  await show(tab, "files/bin", "files");
  await tab.locator(at("file-row")).locator(at("delete")).click();
  await audit(tab, "a question");
  await tab.click(at("confirm"));
  await until("it has left the folder", async () => (await tab.locator(at("file-row")).count()) === 0);
  await show(tab, "trash", "trash");
  await tab.locator(at("trash-row")).filter({ hasText: "/bin/one.txt" }).locator(at("restore")).click();
  await tab.click(at("confirm"));
  await until("it is back", async () => (await fetch(`${page}/api/v1/content/bin/one.txt`)).ok);
  must(errors.length === 0, errors.join("; "));
  await context.close();
}

async function operate() {
  const { tab, context, errors } = await open(browser);
  await show(tab, "repair", "repair");
  await tab.click(at("repair-pause"));
  const confirm = tab.locator(at("confirm"));
  if (await confirm.isVisible().catch(() => false)) await confirm.click();
  await until("repair is paused", async () => (await ask("status")).repair.paused);
  await tab.click(at("repair-resume"));
  if (await confirm.isVisible().catch(() => false)) await confirm.click();
  await until("it goes on", async () => !(await ask("status")).repair.paused);
  await show(tab, "whatif", "whatif");
  await tab.check(at(`whatif-server-${servers[0].address}`));
  await tab.waitForSelector(at("whatif-result"));
  await picture(tab, "whatif-chosen", false);
  await audit(tab, "what a loss would cost");
  await show(tab, "blocks", "blocks");
  await tab.getByText(/blocks in .* cells/).waitFor();
  await tab.focus(at("blockmap"));
  await tab.keyboard.press("ArrowRight");
  await tab.keyboard.press("Enter");
  await tab.waitForSelector(at("block-panel"));
  await picture(tab, "blocks-chosen");
  await audit(tab, "a cell of the block map");
  must(errors.length === 0, errors.join("; "));
  await context.close();
}

// The chains that are writing are seen while they are.
async function pipeline() {
  const { tab, context, errors } = await open(browser);
  await show(tab, "pipeline", "pipeline");
  const data = file("flow.bin", 12 * BLOCK).data;
  let writing = true;
  const writer = (async () => {
    for (let round = 0; writing; round += 1) await call("PUT", `content/flow/${round % 3}?overwrite`, data);
  })();
  await tab.locator(at("chain")).filter({ hasText: /MiB\/s/ }).first().waitFor({ timeout: 60_000 });
  await picture(tab, "pipeline-writing");
  await audit(tab, "a pipeline");
  writing = false;
  await writer;
  must(errors.length === 0, errors.join("; "));
  await context.close();
}

// How long after the death of a server the page shows it, milliseconds.
async function death({ address, pid }) {
  const { tab, context, errors } = await open(browser);
  await show(tab, "", "overview");
  await tab.waitForFunction((health) => document.querySelector(health)?.dataset.level !== "unknown", at("health"));
  const died = Date.now();
  process.kill(pid, "SIGKILL");
  await tab.locator(at("health")).filter({ hasText: /silent|lost/ }).waitFor({ timeout: 60_000 });
  const ms = Date.now() - died;
  await show(tab, "servers", "servers");
  await tab.waitForSelector(`${at(`server-${address}`)}:is([data-state="suspect"], [data-state="dead"])`);
  await picture(tab, "server-killed");
  await audit(tab, "a server that died");
  must(errors.length === 0, errors.join("; "));
  await context.close();
  return ms;
}

async function deaths() {
  const times = [await death(servers[3])];
  // The machine may have been busy with something else: then once more.
  if (times[0] > 2000) times.push(await death(servers[2]));
  console.log(`  seen after ${times.join(" ms, ")} ms`);
  must(Math.min(...times) <= 2000, "a dead server is seen within two seconds");
}

await fill();
try {
  for (const test of [languages, views, names, resume, folder, trash, operate, pipeline, deaths]) {
    const began = Date.now();
    try {
      await test();
    } catch (error) {
      error.message = `${test.name}: ${error.message}`;
      throw error;
    }
    console.log(`ok ${test.name} (${((Date.now() - began) / 1000).toFixed(1)} s)`);
  }
} finally {
  await browser.close();
  rmSync(local, { recursive: true });
}
