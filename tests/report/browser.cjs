// Opens pages in Chromium and reports what happens, as JSON: node browser.cjs CONFIG, see test_browser.py.
"use strict";
const fs = require("fs");
const { chromium } = require("playwright-core");
const axe = require("axe-core");

const config = JSON.parse(process.argv[2]);
const views = [
  { name: "light", width: 1300, scheme: "light", js: true },
  { name: "dark", width: 1300, scheme: "dark", js: true },
  { name: "narrow", width: 400, scheme: "light", js: true },
  { name: "narrow dark", width: 400, scheme: "dark", js: true },
  { name: "without JavaScript", width: 1000, scheme: "light", js: false },
];

async function open(browser, view, url) {
  const context = await browser.newContext({
    viewport: { width: view.width, height: 900 }, colorScheme: view.scheme, javaScriptEnabled: view.js,
  });
  const page = await context.newPage();
  const seen = { requests: [], errors: [] };
  await context.route("**/*", (route) => {
    const asked = route.request().url();
    const own = asked.startsWith(config.server) || asked.split("#")[0] === url;
    if (!own && !asked.startsWith("data:")) seen.requests.push(asked);
    return own || asked.startsWith("data:") ? route.continue() : route.abort();
  });
  page.on("console", (message) => { if (["error", "warning"].includes(message.type())) seen.errors.push(message.text()); });
  page.on("pageerror", (error) => seen.errors.push(String(error)));
  page.on("dialog", (dialog) => { seen.errors.push("dialog: " + dialog.message()); dialog.dismiss(); });
  const started = Date.now();
  await page.goto(url);
  if (view.js) await page.waitForSelector("html.js");
  seen.milliseconds = Date.now() - started;
  return { context, page, seen };
}

async function look(browser, view, name, url) {
  const { context, page, seen } = await open(browser, view, url);
  if (view.js) {
    seen.overflow = await page.evaluate(() => document.documentElement.scrollWidth - innerWidth);
    seen.charts = await page.locator("canvas").count();
    if (view.width > 1000) await page.evaluate(axe.source);
    const found = view.width > 1000 ? await page.evaluate(() => axe.run({ resultTypes: ["violations"] })) : { violations: [] };
    seen.faults = found.violations.filter((v) => ["serious", "critical"].includes(v.impact))
      .map((v) => `${v.id}: ${v.help} (${v.nodes.slice(0, 3).map((n) => n.html.slice(0, 150)).join(" | ")})`);
  } else {
    seen.pictures = await page.locator("img.static:visible").count();
  }
  if (config.pictures) await page.screenshot({ path: `${config.pictures}/${name}-${view.name.replaceAll(" ", "-")}.png`, fullPage: true });
  await context.close();
  return seen;
}

const steps = async (page, chart) => Number((await page.locator(`[data-chart=${chart}] .u-legend tr:first-child .u-value`).textContent()).replaceAll(",", ""));

async function hover(page, chart, share) {
  const box = await page.locator(`[data-chart=${chart}] .u-over`).boundingBox();
  await page.mouse.move(box.x + box.width * share, box.y + box.height / 2);
  await page.waitForTimeout(60);
}

async function drag(page, chart, from, to) {
  await page.locator(`[data-chart=${chart}] .u-over`).scrollIntoViewIfNeeded();
  await hover(page, chart, from);
  await page.mouse.down();
  await hover(page, chart, (from + to) / 2);
  await hover(page, chart, to);
  await page.mouse.up();
  await page.waitForTimeout(100);
}

async function useRun(browser, url) {
  const { context, page, seen } = await open(browser, views[0], url);
  await page.locator("[data-chart=return]").scrollIntoViewIfNeeded();
  await hover(page, "return", 0.05);
  seen.before = await steps(page, "return");
  await hover(page, "return", 0.5);
  seen.linked = await steps(page, "evaluation");
  await drag(page, "return", 0.5, 0.8);
  await hover(page, "evaluation", 0.05);
  seen.zoomed = await steps(page, "evaluation");
  const box = await page.locator("[data-chart=return] .u-over").boundingBox();
  await page.mouse.dblclick(box.x + box.width / 2, box.y + box.height / 2);
  await page.waitForTimeout(100);
  await hover(page, "return", 0.05);
  seen.after = await steps(page, "return");
  await page.locator("[data-chart=return] .u-legend tr:nth-child(2) .u-label").click();
  seen.hidden = await page.locator("[data-chart=return] .u-legend tr.u-off").count();
  await page.locator(".command button.copy").first().click();
  await page.waitForFunction(() => document.querySelector(".command button.copy").textContent !== "copy");
  await page.emulateMedia({ media: "print" });
  seen.printed = await page.locator("img.static:visible").count();
  await context.close();
  return seen;
}

async function useSweep(browser, url) {
  const { context, page, seen } = await open(browser, views[0], url);
  const first = () => page.locator("#trials tbody tr:visible td:first-child").first().textContent();
  const head = page.locator("#trials th", { hasText: /^return/ });
  await head.locator("button").click();
  seen.ascending = [await first(), await head.getAttribute("aria-sort")];
  await head.locator("button").click();
  seen.descending = [await first(), await head.getAttribute("aria-sort")];
  await page.locator("#filter").fill("pruned");
  seen.filtered = [await page.locator("#trials tbody tr:visible").count(), await page.locator("output").textContent()];
  await context.close();
  return seen;
}

async function watch(browser, url) {
  const { context, page, seen } = await open(browser, views[0], url);
  await drag(page, "evaluation", 0.2, 0.9);
  const text = () => page.locator("#head").textContent();
  seen.before = (await text()).includes("4,321");
  fs.appendFileSync(config.records, JSON.stringify({ kind: "train", step: 4321, episode: 9, "train/loss": 0.5 }) + "\n");
  await page.waitForFunction(() => document.querySelector("#head").textContent.includes("4,321"), null, { timeout: 20000 });
  seen.after = (await text()).includes("4,321");
  await context.close();
  return seen;
}

(async () => {
  const browser = await chromium.launch({ executablePath: config.chromium, args: ["--no-sandbox"] });
  const result = { looks: {} };
  for (const [name, url] of Object.entries(config.pages))
    for (const view of views.slice(0, name === "hostile" ? 1 : views.length))
      if (view.js || url.startsWith("file:")) result.looks[`${name}, ${view.name}`] = await look(browser, view, name, url);
  result.run = await useRun(browser, config.pages.run);
  result.sweep = await useSweep(browser, config.pages.sweep);
  result.live = await watch(browser, config.pages.live);
  await browser.close();
  console.log(JSON.stringify(result));
})().catch((error) => { console.error(error); process.exit(1); });
