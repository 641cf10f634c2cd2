// The page of a node. It asks for what the node does once a second and shows it; nothing can be changed. What comes from peers
// and endpoints is put into the page as text only.
"use strict";

const MISSING = 0;
const FIRST_SOURCE = 5;
const FIXED = ["not here yet", "kept from an earlier run", "reused from another model in the cache", "rebuilt from parity", "from further peers"];
const PERIOD_MS = 1000;
const LAST_PERIOD_MS = 8000;
const MAX_HEIGHT = 420;
const MAX_SHARD_ROWS = 64;
const GAP = 4;

const at = (id) => document.getElementById(id);
const dark = matchMedia("(prefers-color-scheme: dark)");

// ---- words ----

function size(bytes) {
  if (bytes === null || bytes === undefined) return "";
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let unit = 0;
  while (bytes >= 1024 && unit < units.length - 1) { bytes /= 1024; unit += 1; }
  return `${unit === 0 || bytes >= 100 ? Math.round(bytes) : bytes.toFixed(1)} ${units[unit]}`;
}

function span(seconds) {
  seconds = Math.max(0, Math.round(seconds));
  if (seconds < 60) return `${seconds} s`;
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min ${seconds % 60} s`;
  if (seconds < 172800) return `${Math.floor(seconds / 3600)} h ${Math.floor(seconds % 3600 / 60)} min`;
  return `${Math.floor(seconds / 86400)} days`;
}

const clock = (seconds) => (seconds ? new Date(seconds * 1000).toLocaleTimeString() : "");
const count = (number) => number.toLocaleString("en");
const short = (name) => (name.length > 20 ? `${name.slice(0, 8)}…${name.slice(-8)}` : name);

// Sets text only where it changed: what is selected, or read aloud, stays.
function say(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

// Brings the children of `parent` in line with `items`: one of `tag` for each.
function each(parent, tag, items, fill) {
  while (parent.children.length > items.length) parent.lastElementChild.remove();
  items.forEach((item, index) => {
    const child = parent.children[index] ?? parent.appendChild(document.createElement(tag));
    fill(child, item);
  });
}

function row(tr, labels, texts) {
  each(tr, "td", texts, (td, text) => say(td, text));
  labels.forEach((label, index) => { tr.children[index].dataset.label = label; });
}

// ---- the grid ----

const grid = { load: null, next: null, shards: [], starts: [], cells: new Uint8Array(0), dataShards: 0, names: new Map(), counts: new Map(), plan: null, cursor: 0 };

function colour(cell) {
  const style = getComputedStyle(document.documentElement);
  if (cell === MISSING) return style.getPropertyValue("--missing");
  if (cell === 1) return dark.matches ? "#8d99a3" : "#7b8791";
  if (cell === 2) return dark.matches ? "#c9b458" : "#9a7b00";
  if (cell === 3) return dark.matches ? "#f28bd0" : "#b0247f";
  if (cell === 4) return dark.matches ? "#bdbdbd" : "#5c5c5c";
  // The golden angle keeps neighbours apart, however many there are.
  return `hsl(${Math.round((210 + (cell - FIRST_SOURCE) * 137.508) % 360)} 65% ${dark.matches ? 62 : 42}%)`;
}

// How large a cell is, and how many pieces it stands for, so that all of them fit.
function plan(width) {
  const shards = grid.shards;
  const gap = shards.length <= MAX_SHARD_ROWS ? GAP : 0;
  for (const side of [14, 10, 8, 6, 5, 4, 3, 2]) {
    const columns = Math.floor(width / side);
    if (columns < 1) continue;
    let rows = 0;
    if (gap) shards.forEach((pieces) => { rows += Math.ceil(pieces / columns); });
    else rows = Math.ceil(grid.cells.length / columns);
    const height = rows * side + gap * shards.length;
    if (height <= MAX_HEIGHT) return layOut(width, side, columns, gap, 1);
  }
  const columns = Math.max(1, Math.floor(width / 2));
  const room = columns * Math.floor(MAX_HEIGHT / 2);
  return layOut(width, 2, columns, 0, Math.max(1, Math.ceil(grid.cells.length / room)));
}

function layOut(width, side, columns, gap, per) {
  const tops = [];
  let y = 0;
  if (gap) {
    grid.shards.forEach((pieces) => { tops.push(y); y += Math.ceil(pieces / columns) * side + gap; });
  } else {
    y = Math.ceil(Math.ceil(grid.cells.length / per) / columns) * side;
  }
  return { width, height: Math.max(y, side), side, columns, gap, per, tops };
}

// The last shard that begins at or before this piece.
function shardOf(piece) {
  let low = 0;
  let high = grid.starts.length - 1;
  while (low < high) {
    const middle = (low + high + 1) >> 1;
    if (grid.starts[middle] <= piece) low = middle; else high = middle - 1;
  }
  return low;
}

function place(piece) {
  const { side, columns, gap, per, tops } = grid.plan;
  if (!gap) {
    const cell = Math.floor(piece / per);
    return [(cell % columns) * side, Math.floor(cell / columns) * side];
  }
  const shard = shardOf(piece);
  const within = piece - grid.starts[shard];
  return [(within % columns) * side, tops[shard] + Math.floor(within / columns) * side];
}

function draw(pieces) {
  const canvas = at("grid");
  const context = canvas.getContext("2d");
  const { side, per } = grid.plan;
  const inset = side > 4 ? 1 : 0;
  const colours = new Map();
  for (const piece of pieces) {
    // Of several pieces in one cell, the first one that is missing.
    let cell = grid.cells[piece];
    if (per > 1) {
      const first = piece - piece % per;
      cell = grid.cells[first];
      for (let other = first; other < Math.min(first + per, grid.cells.length); other += 1) {
        if (grid.cells[other] === MISSING) { cell = MISSING; break; }
      }
    }
    if (!colours.has(cell)) colours.set(cell, colour(cell));
    const [x, y] = place(piece);
    const isParity = piece >= (grid.starts[grid.dataShards] ?? Infinity);
    context.clearRect(x, y, side, side);
    context.fillStyle = cell === MISSING && isParity ? getComputedStyle(document.documentElement).getPropertyValue("--parity") : colours.get(cell);
    if (isParity && inset && cell !== MISSING) {
      // Parity is drawn as a ring.
      context.fillRect(x, y, side - inset, side - inset);
      context.clearRect(x + 2, y + 2, side - inset - 4, side - inset - 4);
    } else {
      context.fillRect(x, y, side - inset, side - inset);
    }
  }
}

function* range(end, step) {
  for (let number = 0; number < end; number += step) yield number;
}

function redraw() {
  const canvas = at("grid");
  const width = at("grid-frame").clientWidth;
  if (!width || !grid.cells.length) return;
  grid.plan = plan(width);
  const ratio = window.devicePixelRatio || 1;
  canvas.width = Math.round(width * ratio);
  canvas.height = Math.round(grid.plan.height * ratio);
  canvas.style.height = `${grid.plan.height}px`;
  canvas.getContext("2d").scale(ratio, ratio);
  draw(range(grid.cells.length, grid.plan.per));
}

function recount() {
  grid.counts = new Map();
  for (const cell of grid.cells) grid.counts.set(cell, (grid.counts.get(cell) ?? 0) + 1);
}

function take(pieces) {
  if (pieces.cells !== undefined) {
    const text = atob(pieces.cells);
    grid.cells = Uint8Array.from(text, (letter) => letter.charCodeAt(0));
    grid.shards = pieces.shards;
    let start = 0;
    grid.starts = pieces.shards.map((size) => { const at = start; start += size; return at; });
    recount();
    redraw();
  } else {
    const changed = [];
    for (let index = 0; index + 1 < pieces.changes.length; index += 2) {
      const piece = pieces.changes[index];
      const cell = pieces.changes[index + 1];
      if (piece >= grid.cells.length || grid.cells[piece] === cell) continue;
      const before = grid.cells[piece];
      grid.counts.set(before, grid.counts.get(before) - 1);
      grid.counts.set(cell, (grid.counts.get(cell) ?? 0) + 1);
      grid.cells[piece] = cell;
      changed.push(piece);
    }
    if (grid.plan) draw(changed);
  }
  grid.next = pieces.next;
  tellGrid();
}

function nameOf(cell) {
  return cell < FIRST_SOURCE ? FIXED[cell] : `from ${short(grid.names.get(cell) ?? "a peer")}`;
}

function tellGrid() {
  const all = grid.cells.length;
  const missing = grid.counts.get(MISSING) ?? 0;
  const parity = grid.shards.length - grid.dataShards;
  say(at("grid-text"), `${count(all - missing)} of ${count(all)} pieces are here, of ${count(grid.dataShards)} data and ${count(parity)} parity shards, which are rings. Parity is fetched only where data is missing.`);
  const cells = [...grid.counts.entries()].filter(([, number]) => number > 0).sort(([a], [b]) => a - b);
  each(at("legend"), "li", cells, (li, [cell, number]) => {
    if (li.children.length === 0) {
      li.append(document.createElement("span"), document.createElement("span"));
      li.firstElementChild.className = "swatch";
    }
    li.firstElementChild.style.background = colour(cell);
    say(li.lastElementChild, `${nameOf(cell)}: ${count(number)}`);
  });
  if (at("shards").closest("details").open) tellShards();
}

function tellShards() {
  const shown = Math.min(grid.shards.length, MAX_SHARD_ROWS);
  say(at("shards-caption"), shown < grid.shards.length ? `The first ${shown} of ${count(grid.shards.length)} shards.` : "");
  const rows = Array.from({ length: shown }, (_, shard) => {
    const counts = new Map();
    const start = grid.starts[shard];
    for (let piece = start; piece < start + grid.shards[shard]; piece += 1) {
      counts.set(grid.cells[piece], (counts.get(grid.cells[piece]) ?? 0) + 1);
    }
    const here = grid.shards[shard] - (counts.get(MISSING) ?? 0);
    const from = [...counts.entries()].filter(([cell]) => cell !== MISSING).sort(([a], [b]) => a - b);
    return [String(shard), shard < grid.dataShards ? "data" : "parity", `${count(here)} of ${count(grid.shards[shard])}`, from.map(([cell, number]) => `${nameOf(cell)}: ${count(number)}`).join("; ")];
  });
  each(at("shards"), "tr", rows, (tr, texts) => row(tr, ["Shard", "Kind", "Here", "From"], texts));
}

function point(piece) {
  if (!(piece >= 0 && piece < grid.cells.length)) return;
  grid.cursor = piece;
  const shard = shardOf(piece);
  const kind = shard < grid.dataShards ? "data" : "parity";
  say(at("grid-cell"), `Shard ${shard} (${kind}), piece ${count(piece - grid.starts[shard])}: ${nameOf(grid.cells[piece])}.`);
}

function pieceAt(x, y) {
  const { side, columns, gap, per, tops } = grid.plan;
  const column = Math.min(columns - 1, Math.floor(x / side));
  if (!gap) return (Math.floor(y / side) * columns + column) * per;
  let shard = tops.findLastIndex((top) => top <= y);
  if (shard < 0) shard = 0;
  const within = Math.floor((y - tops[shard]) / side) * columns + column;
  return within < grid.shards[shard] ? grid.starts[shard] + within : -1;
}

at("grid").addEventListener("pointermove", (event) => grid.plan && point(pieceAt(event.offsetX, event.offsetY)));
at("grid").addEventListener("click", (event) => grid.plan && point(pieceAt(event.offsetX, event.offsetY)));
at("grid").addEventListener("keydown", (event) => {
  if (!grid.plan) return;
  const { columns, per } = grid.plan;
  const end = grid.cells.length - 1;
  const steps = { ArrowLeft: -per, ArrowRight: per, ArrowUp: -columns * per, ArrowDown: columns * per, Home: -end, End: end };
  const step = steps[event.key];
  if (step === undefined || event.ctrlKey || event.metaKey || event.altKey) return;
  event.preventDefault();
  point(Math.max(0, Math.min(end, grid.cursor + step)));
});
at("shards").closest("details").addEventListener("toggle", tellShards);

// ---- everything else ----

// By name: what had come when, for rates.
const meters = new Map();

function rate(name, bytes, now) {
  const before = meters.get(name);
  if (bytes === null || bytes === undefined) { meters.delete(name); return null; }
  if (!before || bytes < before.bytes) { meters.set(name, { bytes, now, rate: null }); return null; }
  const seconds = (now - before.now) / 1000;
  if (seconds < 0.2) return before.rate;
  const fresh = (bytes - before.bytes) / seconds;
  const smooth = before.rate === null ? fresh : before.rate * 0.5 + fresh * 0.5;
  meters.set(name, { bytes, now, rate: smooth });
  return smooth;
}

function tellLoad(load, now) {
  at("load-progress").hidden = !load;
  at("grid-section").hidden = !load || grid.cells.length === 0;
  if (!load) {
    say(at("load-what"), "Nothing is being loaded, and nothing was since this node started.");
    say(at("load-how"), "");
    say(at("load-alarm"), "");
    return;
  }
  const total = load.total_size_bytes;
  const done = load.done_bytes;
  const kind = load.model ? `${load.model.kind}, ` : "";
  say(at("load-what"), `Model ${load.manifest} (${kind}${total === null ? "the manifest is not here yet" : `${size(done)} of ${size(total)}`})`);
  at("load-progress").value = total ? done / total : 0;
  const speed = rate(`load ${load.number}`, done, now);
  const isOver = load.steps.mapped_at !== null || load.error !== null;
  const parts = [];
  if (load.steps.mapped_at !== null) parts.push(`mapped at ${clock(load.steps.mapped_at)}`);
  else if (load.steps.complete_at !== null) parts.push("all is here: it is brought to the disk");
  else if (load.waits_for_another) parts.push("another process fetches this model: waiting for it");
  if (!isOver && speed !== null) {
    parts.push(`${size(speed)} a second`);
    if (total && speed > 0) parts.push(`${span((total - done) / speed)} to go`);
  }
  for (const [word, bytes] of [["fetched", load.fetched_bytes], ["rebuilt", load.rebuilt_bytes], ["reused", load.reused_bytes], ["kept from an earlier run", load.resumed_bytes], ["wrong and dropped", load.wrong_bytes]]) {
    if (bytes > 0) parts.push(`${size(bytes)} ${word}`);
  }
  if (load.scarcity) parts.push(`of the rarest column ${load.scarcity.rarest} parts can be had, ${load.scarcity.needed} are needed`);
  say(at("load-how"), parts.join(" · "));
  let alarm = load.error ?? "";
  if (!isOver && load.scarcity && load.scarcity.rarest < load.scarcity.needed) alarm = "Nobody who is connected has enough of this model: it cannot be completed now.";
  else if (!isOver && load.is_starved) alarm = "Nobody who is connected can be asked for what is missing.";
  say(at("load-alarm"), alarm);
}

function tellPeers(swarm, load, now) {
  const order = { connected: 0, banned: 1, gone: 2 };
  const sources = load ? [...load.sources].sort((a, b) => order[a.state] - order[b.state] || b.good_bytes - a.good_bytes) : [];
  const up = sources.filter((source) => source.state === "connected").length;
  say(at("peers-text"), `Sources: ${up}. Other connected peers: ${swarm.other_peers}. Sent to peers: ${size(swarm.sent_bytes)}. Requests of theirs that wait: ${swarm.queued_requests}.`);
  at("peers-table").hidden = sources.length === 0;
  const labels = ["Peer", "State", "Rate", "Round trip", "Gave", "Wrong", "Note"];
  each(at("peers"), "tr", sources.slice(0, 200), (tr, source) => {
    const speed = rate(`peer ${source.name}`, source.received_bytes, now);
    const note = [];
    if (source.duplicate_bytes > 0) note.push(`${size(source.duplicate_bytes)} twice`);
    if (source.state !== "connected" && source.reason) note.push(source.reason);
    row(tr, labels, [
      short(source.name),
      source.transport && source.state === "connected" ? `connected over ${source.transport.toUpperCase()}` : source.state,
      speed === null ? "" : `${size(speed)}/s`,
      source.round_trip_ms === null ? "" : `${source.round_trip_ms < 10 ? source.round_trip_ms.toFixed(1) : Math.round(source.round_trip_ms)} ms`,
      source.pieces > 0 ? `${size(source.good_bytes)} in ${count(source.pieces)} pieces` : "",
      source.wrong_bytes > 0 ? size(source.wrong_bytes) : "",
      note.join("; "),
    ]);
    tr.children[0].title = source.name;
    tr.children[0].classList.add("mono");
    tr.children[1].className = source.state === "banned" ? "alarm" : "";
  });
}

function tellTrust(swarm, load) {
  const links = [];
  for (const chain of swarm.chains) {
    const named = chain.memory?.last_good;
    links.push(["Contract", `${chain.contract}, read at ${chain.block_tag}; ${chain.quorum} of ${chain.endpoints.length} endpoints must agree`, !chain.trouble, chain.trouble]);
    links.push(["Block", chain.block ? `${count(chain.block.number)}, ${span(chain.block.age_s)} old: a quorum has it` : "none is agreed on yet", chain.block !== null]);
    links.push(["String", named ? `names ${named.manifest}; last confirmed at ${clock(named.confirmed_at)}${chain.proof?.is_proven ? "; proven in the contract's storage" : ""}` : "not read yet", Boolean(named)]);
  }
  if (swarm.chains.length === 0) {
    links.push(["Contract", "none: the digest was given by whoever started this node", true]);
  }
  if (load) {
    const { steps, model } = load;
    links.push(["Manifest", steps.manifest_at ? `has the digest ${load.manifest}; checked at ${clock(steps.manifest_at)}` : `${load.manifest} is being looked for`, steps.manifest_at !== null]);
    links.push(["Shards", model ? `${count(model.data_shards)} data and ${model.parity} parity (${model.codec}); ${model.piece_size_bytes ? `pieces of ${size(model.piece_size_bytes)} are proven one by one by the piece index` : "each is proven as a whole"}` : "not known yet", model !== null]);
    const all = grid.cells.length;
    const here = all - (grid.counts.get(MISSING) ?? 0);
    links.push(["Pieces", all ? `${count(here)} of ${count(all)} have their SHA-256${steps.last_piece_at ? `; the last was checked at ${clock(steps.last_piece_at)}` : ""}` : "none yet", steps.complete_at !== null || steps.mapped_at !== null]);
    links.push(["Weights", steps.mapped_at ? `mapped, read-only, at ${clock(steps.mapped_at)}` : "not mapped yet", steps.mapped_at !== null, load.error]);
  }
  each(at("trust"), "li", links, (li, [name, text, isDone, trouble]) => {
    if (li.children.length === 0) li.append(document.createElement("b"), document.createElement("span"), document.createElement("span"));
    say(li.children[0], name);
    say(li.children[1], trouble ? "✗ " : isDone ? "✓ " : "… ");
    li.children[1].className = trouble ? "alarm" : isDone ? "good" : "quiet";
    say(li.children[2], trouble ? `${text}: ${trouble}` : text);
  });
}

function tellPast(swarm) {
  say(at("past-text"), swarm.past.length === 0 ? "No load has ended since this node started." : "");
  at("past-table").hidden = swarm.past.length === 0;
  const labels = ["When", "Model", "Took", "Fetched", "Rebuilt", "Reused", "Came of it"];
  each(at("past"), "tr", swarm.past, (tr, past) => {
    const reused = past.reused_from.map((one) => `${size(one.bytes)} of ${short(one.manifest)}`);
    if (past.resumed_bytes > 0) reused.push(`${size(past.resumed_bytes)} of an earlier run`);
    row(tr, labels, [clock(past.ended_at), short(past.manifest), past.took_ms < 1000 ? `${past.took_ms} ms` : span(past.took_ms / 1000), size(past.fetched_bytes), size(past.rebuilt_bytes), reused.join("; ") || "nothing", past.error ?? "mapped"]);
    tr.children[1].title = past.manifest;
  });
  each(at("models"), "li", swarm.models.length ? swarm.models : ["nothing"], (li, model) => { say(li, model); li.className = "mono"; });
}

function tellQuarrels(swarm) {
  const quarrels = swarm.chains.flatMap((chain) => chain.recent_disagreements).sort((a, b) => b.at - a.at);
  const lines = quarrels.map((one) => `${new Date(one.at * 1000).toLocaleString()}: ${one.said.join("; ")}`);
  each(at("quarrels"), "li", lines.length ? lines : [swarm.chains.length ? "None." : "No contract is read."], (li, line) => say(li, line));
}

function tell(swarm, now) {
  say(at("node"), `${short(swarm.peer_id)} · version ${swarm.version} · up ${span(swarm.uptime_s)}`);
  const load = swarm.loads[0];
  grid.names = new Map((load?.sources ?? []).map((source) => [source.cell, source.name]));
  grid.dataShards = load?.model?.data_shards ?? 0;
  tellLoad(load, now);
  tellPeers(swarm, load, now);
  tellTrust(swarm, load);
  tellPast(swarm);
  tellQuarrels(swarm);
}

// ---- asking ----

let isPaused = false;
let period = PERIOD_MS;
let timer = null;
let lastHeard = null;

async function ask(path) {
  const reply = await fetch(path, { cache: "no-store", signal: AbortSignal.timeout(5000) });
  if (reply.status === 404) return null;
  if (!reply.ok) throw new Error(`the node answers ${reply.status}`);
  return reply.json();
}

async function look() {
  timer = null;
  try {
    const swarm = await ask("/swarm.json");
    if (!swarm) throw new Error("the node does not show this page any more");
    const load = swarm.loads[0];
    if (load && load.number !== grid.load) {
      Object.assign(grid, { load: load.number, next: null, cells: new Uint8Array(0), shards: [], starts: [], counts: new Map(), plan: null, cursor: 0 });
    }
    tell(swarm, performance.now());
    if (load) {
      const pieces = await ask(`/pieces.json?load=${load.number}${grid.next === null ? "" : `&since=${grid.next}`}`);
      if (pieces) {
        at("grid-section").hidden = false;
        take(pieces);
        tellTrust(swarm, load);
      }
    }
    period = PERIOD_MS;
    lastHeard = new Date();
    say(at("live"), "Live");
    at("live").className = "good";
  } catch (error) {
    period = Math.min(period * 2, LAST_PERIOD_MS);
    const heard = lastHeard ? `; this is of ${lastHeard.toLocaleTimeString()}` : "";
    say(at("live"), `The node does not answer${heard}`);
    at("live").className = "alarm";
  }
  next();
}

function next() {
  if (timer === null && !isPaused && !document.hidden) timer = setTimeout(look, period);
}

at("pause").addEventListener("click", () => {
  isPaused = !isPaused;
  at("pause").setAttribute("aria-pressed", String(isPaused));
  say(at("pause"), isPaused ? "Go on" : "Pause");
  if (isPaused) {
    clearTimeout(timer);
    timer = null;
    say(at("live"), "Paused");
  } else {
    next();
  }
});
document.addEventListener("visibilitychange", next);
dark.addEventListener("change", () => { redraw(); tellGrid(); });
new ResizeObserver(() => redraw()).observe(at("grid-frame"));
look();
