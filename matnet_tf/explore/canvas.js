// Copyright 2026 The matnet-tf authors.
// SPDX-License-Identifier: Apache-2.0
//
// A canvas of the model's size, to draw on and to hide pixels of. Gradio calls this with `element`,
// `props` and `watch`. Its value is { image, hidden }, see pictures.py.

const canvas = element.querySelector("canvas");
const cursor = element.querySelector(".cursor");
const brush = element.querySelector("input[type=range]");
const colour = element.querySelector("input[type=color]");
const pens = [...element.querySelectorAll("button[data-pen]")];
const context = canvas.getContext("2d", { willReadFrequently: true });
const { width, height } = canvas;
let pixels = context.createImageData(width, height);
let hidden = new Uint8Array(width * height);
let pen = pens[0].dataset.pen;
let last = null; // Where a stroke goes on.
let place = [width >> 1, height >> 1]; // Of the cursor, which keys move.
let sent = "";
let given; // The last value that came from the server, for Reset.
pixels.data.fill(255);

function show() {
  const shown = new ImageData(new Uint8ClampedArray(pixels.data), width, height);
  for (let i = 0; i < hidden.length; i++) {
    if (!hidden[i]) continue;
    const grey = ((i % width) + Math.floor(i / width)) % 2 ? 96 : 160;
    shown.data.fill(grey, 4 * i, 4 * i + 3);
  }
  context.putImageData(shown, 0, 0);
}

function url(image) {
  const aside = document.createElement("canvas");
  aside.width = width;
  aside.height = height;
  aside.getContext("2d").putImageData(image, 0, 0);
  return aside.toDataURL("image/png");
}

function send() {
  const mask = context.createImageData(width, height);
  mask.data.fill(255);
  hidden.forEach((value, i) => mask.data.fill(value ? 255 : 0, 4 * i, 4 * i + 3));
  const value = { image: url(pixels), hidden: url(mask) };
  sent = JSON.stringify(value);
  props.value = value; // Gradio tells of the change.
}

async function data(address) {
  const image = new Image();
  image.src = address;
  await image.decode();
  const aside = document.createElement("canvas");
  aside.width = width;
  aside.height = height;
  const own = aside.getContext("2d");
  own.drawImage(image, 0, 0);
  return own.getImageData(0, 0, width, height);
}

async function receive() {
  if (!props.value || JSON.stringify(props.value) === sent) return;
  given = props.value;
  sent = JSON.stringify(given);
  await load(given);
}

async function load(value) {
  const mask = await data(value.hidden);
  pixels = await data(value.image);
  hidden = hidden.map((_, i) => (mask.data[4 * i] >= 128 ? 1 : 0));
  show();
}

function paint(x, y) {
  const radius = Number(brush.value) / 2;
  const rgb = { white: [255, 255, 255], black: [0, 0, 0] }[pen] ||
    (colour && pen === "colour" && [1, 3, 5].map((i) => parseInt(colour.value.substr(i, 2), 16)));
  for (let row = 0; row < height; row++) {
    for (let column = 0; column < width; column++) {
      if (Math.hypot(column + 0.5 - x, row + 0.5 - y) > Math.max(radius, 0.5)) continue;
      const i = row * width + column;
      hidden[i] = pen === "hide" ? 1 : 0;
      if (rgb) rgb.forEach((value, c) => (pixels.data[4 * i + c] = value));
    }
  }
}

function position(event) {
  const box = canvas.getBoundingClientRect();
  return [
    ((event.clientX - box.left) * width) / box.width,
    ((event.clientY - box.top) * height) / box.height,
  ];
}

function stroke(to) {
  const from = last || to;
  const steps = Math.max(1, Math.ceil(2 * Math.hypot(to[0] - from[0], to[1] - from[1])));
  for (let i = 1; i <= steps; i++) {
    paint(...[0, 1].map((c) => from[c] + ((to[c] - from[c]) * i) / steps));
  }
  last = to;
  show();
}

function moveCursor() {
  cursor.style.left = (100 * place[0]) / width + "%";
  cursor.style.top = (100 * place[1]) / height + "%";
}

canvas.addEventListener("pointerdown", (event) => {
  canvas.setPointerCapture(event.pointerId);
  last = null;
  stroke(position(event));
  event.preventDefault();
});
canvas.addEventListener("pointermove", (event) => {
  if (canvas.hasPointerCapture(event.pointerId)) stroke(position(event));
});
canvas.addEventListener("lostpointercapture", send);
canvas.addEventListener("keydown", (event) => {
  const move = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
  const [dx, dy] = move[event.key] || [0, 0];
  if (!dx && !dy && event.key !== " ") return;
  event.preventDefault();
  place = [
    Math.min(width - 1, Math.max(0, place[0] + dx)),
    Math.min(height - 1, Math.max(0, place[1] + dy)),
  ];
  moveCursor();
  if (event.key === " " || event.shiftKey) {
    last = null;
    stroke([place[0] + 0.5, place[1] + 0.5]);
    send();
  }
});
pens.forEach((button) =>
  button.addEventListener("click", () => {
    pen = button.dataset.pen;
    pens.forEach((other) => other.setAttribute("aria-pressed", String(other === button)));
  }),
);
element.querySelector("[data-do=clear]").addEventListener("click", () => {
  pixels.data.forEach((_, i) => (pixels.data[i] = i % 4 === 3 ? 255 : 0));
  hidden.fill(0);
  show();
  send();
});
element.querySelector("[data-do=reset]").addEventListener("click", async () => {
  await load(given);
  send();
});
element.querySelector("[data-do=invert]").addEventListener("click", () => {
  pixels.data.forEach((value, i) => i % 4 !== 3 && (pixels.data[i] = 255 - value));
  show();
  send();
});
moveCursor();
watch("value", receive);
receive();
