// The words of the pages in English and German. This file has what both pages say; each page adds its own table.

/** Every table that was added; a test checks that the languages of each have the same keys. */
export const TABLES = [];

const LANGUAGE = "hunyuan-custom language";
const LANGUAGES = ["en", "de"];
const words = { en: {}, de: {} };
let chosen = LANGUAGES.includes(remembered()) ? remembered() : preferred();

function remembered() {
  return globalThis.localStorage?.getItem(LANGUAGE) ?? "";
}

function preferred() {
  const wanted = (globalThis.navigator?.languages ?? []).map((name) => name.slice(0, 2).toLowerCase());
  return wanted.find((name) => LANGUAGES.includes(name)) ?? "en";
}

/** Add a page's words: {en: {key: text}, de: {key: text}}. */
export function addMessages(table) {
  TABLES.push(table);
  for (const language of LANGUAGES) Object.assign(words[language], table[language]);
}

export const language = () => chosen;

/** Another language, remembered for the next visit; the pages hear "language" on the document. */
export function setLanguage(name) {
  chosen = name;
  localStorage.setItem(LANGUAGE, name);
  localise(document);
  document.dispatchEvent(new Event("language"));
}

export const hasMessage = (key) => key in words.en;

/** The text of a key; `{name}` in it is replaced by `values.name`. */
export function t(key, values = {}) {
  const text = words[chosen][key] ?? words.en[key] ?? key;
  return text.replace(/\{(\w+)\}/g, (whole, name) => (name in values ? String(values[name]) : whole));
}

/** A text with one form for 1 and one for the rest: keys `KEY.one` and `KEY.other`; `{n}` is the number. */
export function tn(key, n, values = {}) {
  return t(`${key}.${n === 1 ? "one" : "other"}`, { n: n.toLocaleString(chosen), ...values });
}

const ATTRIBUTES = { "data-t-label": "aria-label", "data-t-title": "title", "data-t-placeholder": "placeholder" };

/** Write the texts of all elements below `root` that name a key: `data-t`, `data-t-label`, `-title`, `-placeholder`. */
export function localise(root) {
  document.documentElement.lang = chosen;
  for (const element of root.querySelectorAll("[data-t]")) element.textContent = t(element.dataset.t);
  for (const [source, target] of Object.entries(ATTRIBUTES)) {
    for (const element of root.querySelectorAll(`[${source}]`)) {
      element.setAttribute(target, t(element.getAttribute(source)));
    }
  }
}

addMessages({
  en: {
    "page.playground": "Playground",
    "page.admin": "Operator",
    "page.skip": "Skip to content",
    "page.pages": "Pages",
    "theme.toggle": "Light or dark",
    "theme.auto": "Colours: as the system",
    "theme.light": "Colours: light",
    "theme.dark": "Colours: dark",
    "language.toggle": "Deutsch",
    "key.title": "Key",
    "key.why":
      "This server asks for a key: the one that it showed at its first start, or one that its operator made. It stays in this tab and is forgotten when the tab is closed.",
    "key.label": "Key",
    "key.placeholder": "id:secret",
    "key.use": "Use this key",
    "key.wrong": "The server does not know this key.",
    "key.ended": "The server does not accept this key any more. Enter another one.",
    "key.signOut": "Sign out",
    "key.owner": "Signed in as {owner}",
    "connection.lost": "No connection to the server. Trying again …",
    "connection.back": "Connected again.",
    "error.requestId": "Request id {id}",
    close: "Close",
    cancel: "Cancel",
  },
  de: {
    "page.playground": "Playground",
    "page.admin": "Betrieb",
    "page.skip": "Zum Inhalt",
    "page.pages": "Seiten",
    "theme.toggle": "Hell oder dunkel",
    "theme.auto": "Farben: wie das System",
    "theme.light": "Farben: hell",
    "theme.dark": "Farben: dunkel",
    "language.toggle": "English",
    "key.title": "Schlüssel",
    "key.why":
      "Dieser Server verlangt einen Schlüssel: den, den er beim ersten Start gezeigt hat, oder einen, den der Betrieb erstellt hat. Er bleibt in diesem Tab und wird vergessen, wenn der Tab geschlossen wird.",
    "key.label": "Schlüssel",
    "key.placeholder": "id:geheimnis",
    "key.use": "Diesen Schlüssel verwenden",
    "key.wrong": "Der Server kennt diesen Schlüssel nicht.",
    "key.ended": "Der Server nimmt diesen Schlüssel nicht mehr an. Bitte einen anderen eingeben.",
    "key.signOut": "Abmelden",
    "key.owner": "Angemeldet als {owner}",
    "connection.lost": "Keine Verbindung zum Server. Neuer Versuch …",
    "connection.back": "Wieder verbunden.",
    "error.requestId": "Anfrage-ID {id}",
    close: "Schließen",
    cancel: "Abbrechen",
  },
});
