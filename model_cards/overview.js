"use strict";
// Browses the test rows that stand in this page as JSON. Texts are foreign: they are only ever set as text.
const PAGE = 20;
const HEAD = 280;
const WORDS = /\s*(?:[\p{L}\p{N}_]+|[^\s\p{L}\p{N}_])|\s+/gu;
const byId = (id) => document.getElementById(id);
const number = (value) => value.toLocaleString("en");

let rows;
let texts; // per row, all that is searched, in lower case
let order; // numbers of the rows that are found, as they are shown
let page = 0;

function load() {
  rows = JSON.parse(byId("rows-" + byId("adapter").value).textContent);
  texts = rows.prompt.map((prompt, row) =>
    [prompt, rows.reference[row], rows.schema[row], rows.base[row], rows.adapter[row]].join("\n").toLowerCase());
  find();
}

function find() {
  const wanted = byId("search").value.trim().toLowerCase();
  const seen = byId("seen").value;
  const gain = (row) => rows.score.adapter[row] - rows.score.base[row];
  const orders = {
    gain: (a, b) => gain(b) - gain(a),
    loss: (a, b) => gain(a) - gain(b),
    worst: (a, b) => rows.score.adapter[a] - rows.score.adapter[b],
  };
  order = [...texts.keys()].filter((row) =>
    texts[row].includes(wanted) && (seen === "all" || (seen === "seen") === Boolean(rows.seen[row])));
  const sort = byId("sort").value;
  if (sort in orders) order.sort((a, b) => orders[sort](a, b) || a - b);
  page = 0;
  show();
}

function show() {
  const pages = Math.max(1, Math.ceil(order.length / PAGE));
  page = Math.min(Math.max(page, 0), pages - 1);
  const first = page * PAGE;
  const shown = order.slice(first, first + PAGE);
  const missing = rows.all - texts.length;
  byId("status").textContent = (order.length
    ? `${number(order.length)} of ${number(texts.length)} rows, ${number(first + 1)} to ${number(first + shown.length)} shown.`
    : `None of ${number(texts.length)} rows has that text.`)
    + (missing ? ` The last ${number(missing)} of the test split are not on this page.` : "");
  byId("list").replaceChildren(...shown.map(card));
  byId("page").value = page + 1;
  byId("page").max = pages;
  byId("pages").textContent = `of ${number(pages)}`;
  byId("previous").disabled = page === 0;
  byId("next").disabled = page === pages - 1;
}

function turn(to) {
  page = to;
  show();
  byId("status").scrollIntoView();
}

function element(tag, content, name) {
  const made = document.createElement(tag);
  made.append(...[content].flat());
  if (name) made.className = name;
  return made;
}

function card(row) {
  const [base, adapter] = [rows.score.base[row], rows.score.adapter[row]];
  const told = {
    exact: "an exact copy of its input",
    near: "a near-duplicate of its input",
    prompt: "its prompt",
    disguised: "its input in disguise",
  };
  const head = element("h3", `Test row ${number(row)}`);
  const change = adapter - base;
  const sign = change < 0 ? "−" : "+";
  head.append(element("small", `ROUGE-L ${base.toFixed(3)} → ${adapter.toFixed(3)} (${sign}${Math.abs(change).toFixed(3)})`));
  if (rows.seen[row]) head.append(element("small", `seen in training: ${told[rows.seen[row]] ?? rows.seen[row]}`));
  const [missed, added] = differences(rows.reference[row], rows.adapter[row]);
  const [, addedByBase] = differences(rows.reference[row], rows.base[row]);
  const code = rows.schema[row] ? "code" : "";
  const list = document.createElement("dl");
  const add = (name, kind, parts, style) => {
    const content = parts.length ? [...parts] : [element("i", "(empty)")];
    const characters = rows.cut[kind][row];
    if (characters) content.push(element("i", ` … ${number(characters)} characters in all`));
    list.append(element("dt", name), element("dd", content, style));
  };
  add("Prompt", "prompt", folded(rows.prompt[row]));
  if (code) add("Tables", "schema", folded(rows.schema[row]), code);
  add("Reference", "reference", missed, code);
  add("Base model", "base", addedByBase, code);
  add("Adapter", "adapter", added, code);
  return element("article", [head, list], "card");
}

function folded(text) {
  if (text.length <= HEAD) return text ? [text] : [];
  const summary = element("summary", [element("span", text.slice(0, HEAD) + "… "),
    element("u", [element("span", "the whole text"), element("span", "fold it", "less")])]);
  return [element("details", [summary, text], "fold")];
}

// Both texts word by word, as nodes: words of the reference that the output lacks as <del>, words that it adds as <ins>.
function differences(reference, output) {
  const [old, now] = [reference.match(WORDS) ?? [], output.match(WORDS) ?? []];
  const same = common(old.map((word) => word.trim()), now.map((word) => word.trim()));
  return [marked(old, "del", same.map(([place]) => place)), marked(now, "ins", same.map(([, place]) => place))];
}

// The places of a longest common subsequence, in both lists.
function common(a, b) {
  const wide = b.length + 1;
  const best = new Uint16Array((a.length + 1) * wide);
  for (let i = a.length - 1; i >= 0; i--) {
    for (let j = b.length - 1; j >= 0; j--) {
      best[i * wide + j] = a[i] === b[j] ? best[(i + 1) * wide + j + 1] + 1
        : Math.max(best[(i + 1) * wide + j], best[i * wide + j + 1]);
    }
  }
  const found = [];
  for (let i = 0, j = 0; i < a.length && j < b.length;) {
    if (a[i] === b[j]) found.push([i++, j++]);
    else if (best[(i + 1) * wide + j] >= best[i * wide + j + 1]) i++;
    else j++;
  }
  return found;
}

function marked(words, tag, same) {
  const kept = new Set(same);
  const nodes = [];
  let run = "";
  let runKept = true;
  const end = () => {
    if (!run) return;
    const start = run.length - run.trimStart().length;
    nodes.push(...(runKept || !run.trim() ? [run] : [run.slice(0, start), element(tag, run.slice(start))]));
  };
  words.forEach((word, place) => {
    if (kept.has(place) !== runKept) {
      end();
      [run, runKept] = ["", kept.has(place)];
    }
    run += word;
  });
  end();
  return nodes;
}

byId("browse").addEventListener("submit", (event) => event.preventDefault());
byId("adapter").addEventListener("change", load);
byId("search").addEventListener("input", find);
byId("sort").addEventListener("change", find);
byId("seen").addEventListener("change", find);
byId("previous").addEventListener("click", () => turn(page - 1));
byId("next").addEventListener("click", () => turn(page + 1));
byId("page").addEventListener("change", () => turn((parseInt(byId("page").value, 10) || 1) - 1));
byId("browse").hidden = byId("pager").hidden = false;
load();
