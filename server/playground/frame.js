// What both pages have around their content: colours, language, the key, and the line that says the connection is lost.

import { byId } from "./dom.js";
import { calls, keepKey, storedKey } from "./http.js";
import { language, localise, setLanguage, t } from "./messages.js";

const THEME = "hunyuan-custom theme";
const THEMES = ["auto", "light", "dark"];

/** Show the header's controls and translate the page; call it once, first. */
export function openFrame() {
  const theme = byId("theme");
  const language_ = byId("language");
  applyTheme(localStorage.getItem(THEME) ?? "auto");
  theme.addEventListener("click", () => applyTheme(THEMES[(THEMES.indexOf(currentTheme()) + 1) % THEMES.length]));
  language_.addEventListener("click", () => setLanguage(language() === "en" ? "de" : "en"));
  document.addEventListener("language", () => applyTheme(currentTheme()));
  calls.addEventListener("lost", () => showConnection("lost"));
  calls.addEventListener("back", () => showConnection("back"));
  localise(document);
}

const currentTheme = () => document.documentElement.dataset.theme ?? "auto";

function applyTheme(name) {
  document.documentElement.dataset.theme = name;
  localStorage.setItem(THEME, name);
  const button = byId("theme");
  button.title = t(`theme.${name}`);
  button.setAttribute("aria-label", t(`theme.${name}`));
}

let hidden;

function showConnection(news) {
  const line = byId("connection");
  clearTimeout(hidden);
  line.textContent = t(`connection.${news}`);
  line.dataset.news = news;
  line.hidden = false;
  if (news === "back") hidden = setTimeout(() => (line.hidden = true), 2500);
}

/**
 * The panel that asks for a key, in place of the page's content until one works.
 *
 * `check` is called with the key in place and answers whether the server knows it; it may throw, with a `messageKey`
 * where there is more to say. `news` is the key of a message that is shown first.
 * Resolves when it does. The page must be shown again by its caller.
 */
export function askForKey(check, { wasUsed = false, news = wasUsed ? "key.ended" : "" } = {}) {
  const panel = byId("key-panel");
  const form = byId("key-form");
  const input = byId("key");
  const error = byId("key-error");
  const say = (key) => {
    error.textContent = key ? t(key) : "";
    input.setAttribute("aria-invalid", key ? "true" : "false");
  };
  panel.hidden = false;
  document.body.dataset.key = "asked";
  say(news);
  input.focus();
  return new Promise((resolve) => {
    form.onsubmit = async (event) => {
      event.preventDefault();
      const before = storedKey();
      const entered = input.value.trim().replace(/^Key\s+/i, "");
      try {
        if (!/^[!-~]+$/.test(entered)) throw new Error("no header can hold it");
        keepKey(entered);
        if (!(await check())) throw new Error("unknown");
      } catch (error) {
        keepKey(before);
        say(error.messageKey ?? "key.wrong");
        input.select();
        return;
      }
      input.value = "";
      say("");
      panel.hidden = true;
      delete document.body.dataset.key;
      resolve();
    };
  });
}

/** Say who is signed in, with a way out; nothing where the server asks for no key. */
export function showOwner(owner) {
  const button = byId("sign-out");
  button.hidden = !storedKey();
  button.title = owner ? t("key.owner", { owner }) : "";
  button.onclick = () => {
    sessionStorage.clear(); // what was entered goes with the key
    location.reload();
  };
}
