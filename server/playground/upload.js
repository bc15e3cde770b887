// Pictures on their way to the server, by fal's upload routes.
//
// Every picture of this machine is uploaded, small ones too, instead of being sent inside of the request: its progress
// can be shown, the request stays small, and code that is copied names the same picture by its URL.

import { address, ApiError, callJson, ConnectionLost, ownFile, ROOT, tellConnection } from "./http.js";

/**
 * Send a file and return its URL. `onProgress` is called with 0 to 1.
 *
 * Throws ApiError, ConnectionLost, AbortError.
 */
export async function upload(file, { onProgress = () => {}, signal } = {}) {
  const described = { content_type: file.type || "application/octet-stream", file_name: file.name || "picture" };
  const urls = await callJson("rest/storage/upload/initiate", { method: "POST", json: described, signal });
  // Under the address of this page: the one that the API names may be another one of the same server.
  const target = new URL(urls.upload_url);
  const path = target.pathname.slice(target.pathname.indexOf("/cdn/upload/"));
  await put(address(path + target.search), file, described.content_type, onProgress, signal);
  return urls.file_url;
}

/** `fetch` cannot tell how much of a body was sent. */
function put(url, file, type, onProgress, signal) {
  return new Promise((resolve, reject) => {
    const request = new XMLHttpRequest();
    const abort = () => request.abort();
    signal?.addEventListener("abort", abort, { once: true });
    request.upload.onprogress = (event) => event.lengthComputable && onProgress(event.loaded / event.total);
    request.onload = () => {
      tellConnection(true);
      if (request.status < 300) resolve();
      else
        reject(
          new ApiError(request.status, parsed(request.responseText), request.getResponseHeader("x-fal-request-id")),
        );
    };
    request.onerror = () => {
      tellConnection(false);
      reject(new ConnectionLost());
    };
    request.onabort = () => reject(new DOMException("aborted", "AbortError"));
    request.open("PUT", url);
    request.setRequestHeader("Content-Type", type);
    request.send(file);
  });
}

function parsed(text) {
  try {
    return JSON.parse(text);
  } catch {
    return null;
  }
}

/** Whether a URL names an upload of this server, whatever the address it was made under. */
export const isOwnUpload = (url) => URL.canParse(url, ROOT) && /\/cdn\/files\/[^/]+\/[^/]+\/[^/?#]+$/.test(url);

/** Whether an upload is still kept. */
export async function isKept(url) {
  try {
    await headOf(url);
    return true;
  } catch (error) {
    if (error instanceof ApiError && (error.status === 404 || error.status === 410)) return false;
    throw error;
  }
}

async function headOf(url) {
  let answer;
  try {
    // Not followed: from an object store it comes by a redirect, which is proof enough.
    answer = await fetch(ownFile(url), { method: "HEAD", redirect: "manual", cache: "no-store" });
  } catch (error) {
    tellConnection(false);
    throw new ConnectionLost(error);
  }
  if (!answer.ok && answer.type !== "opaqueredirect") throw new ApiError(answer.status, null, "");
}

/** Whether a finished video is still kept; true also where that cannot be found out. */
export async function isVideoKept(url) {
  return isKept(url).catch(() => true);
}
