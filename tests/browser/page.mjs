// Looks at the page of a node that is loading a model, as somebody in a browser does:
//
//     node page.mjs CHROMIUM URL SCREENSHOTS
//
// Prints `seen` when it has seen the model half there, waits to see all of it, and ends with status 0. Anything else that the
// page should not do, or does not show, ends it with an error.

import assert from "node:assert/strict";
import path from "node:path";
import { chromium } from "playwright-core";

const [executablePath, url, screenshots] = process.argv.slice(2);
const PATIENCE_MS = 30_000;

// As root, as in CI, Chromium has no sandbox of its own.
const browser = await chromium.launch({ executablePath, args: ["--no-sandbox"] });
const complaints = [];

async function open(options) {
  const context = await browser.newContext(options);
  const page = await context.newPage();
  page.setDefaultTimeout(PATIENCE_MS);
  page.on("pageerror", (error) => complaints.push(`error: ${error}`));
  page.on("console", (message) => {
    // Of a load that has nothing to show yet.
    const isFound = message.location().url.includes("/pieces.json");
    if (["error", "warning"].includes(message.type()) && !isFound) complaints.push(`${message.type()}: ${message.text()}`);
  });
  page.on("request", (request) => {
    if (!request.url().startsWith(url) && !request.url().startsWith("data:")) complaints.push(`it asks for ${request.url()}`);
    if (!["GET", "HEAD"].includes(request.method())) complaints.push(`it sends ${request.method()}`);
  });
  return page;
}

const says = (page, selector, text) => page.locator(selector).filter({ hasText: text }).first().waitFor();

async function fits(page) {
  // A phone makes its window wider rather than letting something stick out.
  const [content, width] = [await page.evaluate(() => document.documentElement.scrollWidth), page.viewportSize().width];
  assert.ok(content <= width, `${content} pixels in a window of ${width}`);
}

const background = (page) => page.evaluate(() => getComputedStyle(document.body).backgroundColor);

// The colours of the canvas.
const colours = (page) => page.evaluate(() => {
  const canvas = document.getElementById("grid");
  const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
  const found = new Set();
  for (let at = 0; at < data.length; at += 4) if (data[at + 3] === 255) found.add(`${data[at]},${data[at + 1]},${data[at + 2]}`);
  return found.size;
});

// ---- a load that is half done ----

const wide = await open({ viewport: { width: 1280, height: 900 }, colorScheme: "light" });
await wide.goto(url);
await says(wide, "#live", "Live");
await says(wide, "#legend", "rebuilt from parity");
await says(wide, "#legend", "not here yet");
await says(wide, "#peers", "banned");
await says(wide, "#peers", "connected over TCP");
await says(wide, "#peers", " ms");
await says(wide, "#trust", "has the digest");
await says(wide, "#trust", "a quorum has it");
await says(wide, "#grid-text", "10 data and 4 parity shards");
assert.ok(await colours(wide) >= 4, "missing, rebuilt, and two sources at least");
await fits(wide);
const light = await background(wide);

// By keyboard: the first stop skips to the load, pieces are reached by arrows, the table is opened with the space bar.
await wide.keyboard.press("Tab");
assert.equal(await wide.evaluate(() => document.activeElement.className), "skip");
await wide.keyboard.press("Tab");
assert.equal(await wide.evaluate(() => document.activeElement.id), "pause");
await wide.keyboard.press("Enter");
await says(wide, "#live", "Paused");
await wide.keyboard.press("Enter");
await says(wide, "#live", "Live");
await wide.keyboard.press("Tab");
assert.equal(await wide.evaluate(() => document.activeElement.id), "grid");
await wide.keyboard.press("End");
await says(wide, "#grid-cell", "Shard 13 (parity), piece 3");
await wide.keyboard.press("Home");
await says(wide, "#grid-cell", "Shard 0 (data), piece 0: from ");
await wide.keyboard.press("Tab");
await wide.keyboard.press("Space");
await says(wide, "#shards", "rebuilt from parity: 2");
await wide.keyboard.press("Space");
// By pointer.
await wide.locator("#grid").hover({ position: { x: 3, y: 3 } });
await says(wide, "#grid-cell", "Shard 0 (data), piece 0");
await wide.mouse.move(0, 0);
await wide.evaluate(() => document.activeElement.blur());
await wide.screenshot({ path: path.join(screenshots, "panel-light.png"), fullPage: true });

const phone = await open({ viewport: { width: 390, height: 844 }, colorScheme: "dark", isMobile: true, hasTouch: true, deviceScaleFactor: 2 });
await phone.goto(url);
await says(phone, "#legend", "rebuilt from parity");
await says(phone, "#peers", "banned");
await fits(phone);
assert.notEqual(await background(phone), light, "it is dark");
await phone.locator("#grid").tap({ position: { x: 3, y: 3 } });
await says(phone, "#grid-cell", "Shard 0 (data), piece 0");
await phone.screenshot({ path: path.join(screenshots, "panel-dark-phone.png") });
await phone.context().close();

console.log("seen");
await says(wide, "#trust", "mapped, read-only");
await says(wide, "#past", "mapped");
await says(wide, "#models", /[0-9a-f]{64}/);
assert.equal(await wide.locator("#legend", { hasText: "from " }).count(), 1);

// ---- what others say is text ----

const real = await (await fetch(new URL("/swarm.json", url))).json();
const many = await open({ viewport: { width: 1280, height: 900 }, colorScheme: "dark" });
const evil = '<img src=x onerror="document.title=1"><b>bold</b>';
const source = (number) => ({ ...real.loads[0].sources[0], name: number === 0 ? evil : `12D3KooW${String(number).padStart(44, "x")}`, cell: 5 + number, state: number % 10 === 9 ? "gone" : "connected", reason: number % 10 === 9 ? evil : null, received_bytes: 1, pieces: 2000, good_bytes: 1e9 + number });

// ---- and 100,000 pieces of 50 peers are no burden ----

const SHARDS = 14;
const PIECES = 7143;
const cells = Uint8Array.from({ length: SHARDS * PIECES }, (_, at) => (at % 3 === 0 ? 0 : 3 + (at * 7919) % 52));
let asked = 0;
await many.route("**/swarm.json", (route) => route.fulfill({
  json: { ...real, loads: [{ ...real.loads[0], number: 99, error: evil, sources: Array.from({ length: 50 }, (_, number) => source(number)) }], chains: [{ ...real.chains[0], recent_disagreements: [{ at: 1, said: [evil] }] }] },
}));
await many.route("**/pieces.json*", (route) => {
  asked += 1;
  const since = new URL(route.request().url()).searchParams.get("since");
  const changes = Array.from({ length: 1000 }, (_, index) => [(asked * 1000 + index) * 3 % cells.length, 5 + index % 50]).flat();
  route.fulfill({ json: since === null ? { load: 99, next: 1, shards: Array(SHARDS).fill(PIECES), cells: Buffer.from(cells).toString("base64") } : { load: 99, next: asked, changes } });
});
await many.goto(url);
await says(many, "#grid-text", "of 100,002 pieces are here");
await says(many, "#peers", evil);
await says(many, "#load-alarm", evil);
await says(many, "#quarrels", evil);
assert.equal(await many.locator("img, b:has-text('bold')").count(), 0, "text of peers became HTML");
assert.equal(await many.title(), "loader");
await many.waitForFunction(() => Number.parseInt(document.getElementById("grid-text").textContent.replaceAll(",", ""), 10) > 68_000);
assert.ok(asked >= 2, "changes are asked for");
const [nodes, height] = await many.evaluate(() => [document.querySelectorAll("*").length, document.getElementById("grid").clientHeight]);
assert.ok(nodes < 1500, `${nodes} elements`);
assert.ok(height <= 480, `a grid of ${height} pixels`);
assert.ok(await colours(many) > 40);
await fits(many);
const client = await many.context().newCDPSession(many);
await client.send("Performance.enable");
const spent = async () => (await client.send("Performance.getMetrics")).metrics.find(({ name }) => name === "TaskDuration").value;
const [before, at] = [await spent(), asked];
while (asked < at + 3) await many.waitForRequest("**/pieces.json*");
console.log(`with 100,002 pieces and 50 peers a second takes ${Math.round((await spent() - before) * 1000 / 3)} ms of the browser's main thread`);
await many.unrouteAll({ behavior: "ignoreErrors" });

assert.deepEqual(complaints, []);
await browser.close();
