// What the model will see of a picture: it is scaled to fit into the video's frame and centred on white.
// The same arithmetic as `pipeline/conditioning/identity_image.py`, so that the preview is the truth.

/** Where a picture of w x h lies in a frame of width x height. */
export function fitOnWhite(w, h, width, height) {
  const isTall = width / w > height / h;
  const fittedWidth = Math.max(1, isTall ? Math.floor((w / h) * height) : width);
  const fittedHeight = Math.max(1, isTall ? height : Math.floor((h / w) * width));
  return {
    x: Math.floor((width - fittedWidth) / 2),
    y: Math.floor((height - fittedHeight) / 2),
    width: fittedWidth,
    height: fittedHeight,
  };
}

/** How much of the frame the picture covers, 0 to 1. */
export function coverage(box, width, height) {
  return (box.width * box.height) / (width * height);
}

/** Draw the frame into a canvas of the page, at a size that is enough for it. */
export function drawFrame(canvas, picture, width, height) {
  const scale = Math.min(1, 640 / Math.max(width, height));
  canvas.width = Math.round(width * scale);
  canvas.height = Math.round(height * scale);
  const context = canvas.getContext("2d");
  context.imageSmoothingQuality = "high";
  context.fillStyle = "#fff";
  context.fillRect(0, 0, canvas.width, canvas.height);
  const box = fitOnWhite(picture.width, picture.height, width, height);
  context.drawImage(picture, box.x * scale, box.y * scale, box.width * scale, box.height * scale);
  return box;
}
