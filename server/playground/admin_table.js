// Tables that are filled again every few seconds: rows keep their elements, so focus, selection and screen readers stay.

import { el } from "./dom.js";
import { t } from "./messages.js";

/** Write a text only where it has changed. */
export function put(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

/**
 * A table in `host` that `labelledBy` names. A column is {t, n, wide, make(td), fill(td, item, index), minor(item)}: `t`
 * the key of its heading, `n` for figures, `wide` for what needs room; `make` puts its elements into a new cell, once; `minor(item)` says
 * where a phone has no room for it. Returns what fills it: items, each with its `key(item)`.
 */
export function table(host, { labelledBy, columns, key, empty }) {
  const body = el("tbody", { role: "rowgroup" });
  const head = el(
    "tr",
    { role: "row" },
    columns.map((column) => el("th", { role: "columnheader", scope: "col", className: kind(column), t: column.t })),
  );
  const made = el("table", { role: "table", "aria-labelledby": labelledBy }, el("thead", { role: "rowgroup" }, head), body);
  const nothing = el("p", { className: "none muted small", t: empty });
  const rows = new Map();
  host.replaceChildren(made, nothing);

  return (items) => {
    made.hidden = items.length === 0;
    nothing.hidden = items.length > 0;
    const wanted = new Set(items.map(key));
    for (const [name, row] of rows) {
      if (wanted.has(name)) continue;
      row.remove();
      rows.delete(name);
    }
    items.forEach((item, index) => {
      const name = key(item);
      if (!rows.has(name)) rows.set(name, newRow(columns));
      const row = rows.get(name);
      if (body.children[index] !== row) body.insertBefore(row, body.children[index] ?? null);
      columns.forEach((column, at) => {
        const cell = row.children[at];
        cell.dataset.label = t(column.t);
        cell.classList.toggle("minor", column.minor?.(item) ?? false);
        column.fill(cell, item, index);
      });
    });
  };
}

function newRow(columns) {
  const cells = columns.map((column) => {
    const cell = el("td", { role: "cell", className: kind(column) });
    column.make?.(cell);
    return cell;
  });
  return el("tr", { role: "row" }, cells);
}

const kind = (column) => ["n", "wide", "act"].filter((name) => column[name]).join(" ");

/** Only text. */
export const text = (name, show, more = {}) => ({ t: name, fill: (cell, item, index) => put(cell, show(item, index)), ...more });

/** Text that is cut off where there is no room, and whole when it is pointed at. */
export const short = (name, show) => ({
  t: name,
  make: (cell) => cell.append(el("span", { className: "cut" })),
  fill: (cell, item) => {
    put(cell.firstChild, show(item));
    cell.firstChild.title = show(item);
  },
});

/** The id of a request: cut off, but whole when it is selected or pointed at. */
export const requestId = (name = "col.request") => ({
  t: name,
  make: (cell) => cell.append(el("code", { className: "cut id" })),
  fill: (cell, item) => {
    put(cell.firstChild, item.request_id);
    cell.firstChild.title = item.request_id;
  },
});

/** A word on a coloured ground; `show` gives [kind, text], with null as the kind of one without. */
export const badge = (name, show, more = {}) => ({
  t: name,
  make: (cell) => cell.append(el("span", { className: "badge" })),
  fill: (cell, item) => {
    const [kind, word] = show(item);
    cell.firstChild.className = kind === null ? "" : `badge ${kind}`;
    put(cell.firstChild, word);
  },
  ...more,
});

/** A button for the row; `can` says for which items there is one, `quiet` for which it is of little use. */
export const action = (label, act, { can = () => true, quiet = () => false, className = "" } = {}) => ({
  t: "col.act",
  act: true,
  make: (cell) => {
    const button = el("button", { type: "button", className: `small-button ${className}`, t: label });
    button.addEventListener("click", async () => {
      button.disabled = true;
      try {
        await act(cell.item);
      } finally {
        button.disabled = false;
      }
    });
    cell.append(button);
  },
  fill: (cell, item) => {
    cell.item = item;
    cell.firstChild.hidden = !can(item);
    cell.firstChild.classList.toggle("quiet", quiet(item));
    const name = `${t(label)}: ${item.request_id}`;
    if (cell.firstChild.getAttribute("aria-label") !== name) cell.firstChild.setAttribute("aria-label", name);
  },
});
