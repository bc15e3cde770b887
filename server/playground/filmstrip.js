// A video as a row of its frames, drawn here from the video itself; a click goes there.

import { el } from "./dom.js";
import { duration } from "./format.js";
import { language, t } from "./messages.js";

const FRAMES = 8;
const HEIGHT = 120; // pixels of a drawn frame

/** Buttons with frames of the video at `source`, for `player`; filled one after the other. */
export function filmstrip(source, player, signal) {
  const frames = Array.from({ length: FRAMES }, () => el("button", { type: "button" }, el("canvas")));
  // It has its place from the start: what is below must not move under a mouse.
  const strip = el("div", { className: "strip unseen", role: "group", "aria-label": t("result.frames") }, frames);
  draw(strip, source, player, signal).catch(() => strip.remove()); // a browser that cannot: the player is there
  return strip;
}

async function draw(strip, source, player, signal) {
  const video = el("video", { muted: true, preload: "auto", playsInline: true, src: source });
  await happens(video, "loadeddata", signal);
  const width = Math.round((video.videoWidth / video.videoHeight) * HEIGHT);
  const times = Array.from({ length: FRAMES }, (_, i) => (video.duration * (i + 0.5)) / FRAMES);
  const canvases = [...strip.children].map((button, i) => {
    button.setAttribute("aria-label", t("result.goTo", { time: duration(times[i], language()) }));
    button.addEventListener("click", () => (player.currentTime = times[i]));
    return Object.assign(button.firstChild, { width, height: HEIGHT });
  });
  strip.classList.remove("unseen");
  const mark = () => {
    const at = Math.min(FRAMES - 1, Math.floor((player.currentTime / player.duration) * FRAMES));
    [...strip.children].forEach((button, i) => button.classList.toggle("now", i === at));
  };
  player.addEventListener("timeupdate", mark, { signal });
  for (const [i, time] of times.entries()) {
    video.currentTime = time;
    await happens(video, "seeked", signal);
    canvases[i].getContext("2d").drawImage(video, 0, 0, width, HEIGHT);
  }
  video.removeAttribute("src");
  video.load(); // lets go of the file
}

function happens(video, event, signal) {
  return new Promise((resolve, reject) => {
    video.addEventListener(event, resolve, { once: true, signal });
    video.addEventListener("error", () => reject(video.error), { once: true, signal });
    signal.addEventListener("abort", () => reject(signal.reason), { once: true });
  });
}
