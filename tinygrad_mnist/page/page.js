// What the page does: it sends drawings and settings to the server, and shows what it answers.

const byId = (id) => document.getElementById(id);
const digit = byId("digit");
const ink = digit.getContext("2d");
const sent = new OffscreenCanvas(140, 140).getContext("2d", { willReadFrequently: true });
Object.assign(ink, { lineWidth: 22, lineCap: "round", lineJoin: "round", strokeStyle: "#fff" });
let picked = null; // the pixels of a test image, until it is drawn on
let wanted = null; // the settings that were chosen last
let run = null; // the training that this tab has started, and what is known of it

const wait = (ms) => new Promise((resolve) => setTimeout(resolve, ms));
const percent = (part) => (part == null ? "" : `${(100 * part).toFixed(1)} %`);
const running = () => run?.state === "checking" || run?.state === "training";

/** Change what an element says, if it differs: a screen reader reads every change. */
function say(id, words) {
  if (byId(id).textContent !== `${words ?? ""}`) byId(id).textContent = words ?? "";
}

/** Return what the server answers, or null if it refuses; as long as it is gone, ask again. */
async function ask(path, body) {
  const headers = { "Content-Type": "application/json" };
  const keepalive = path === "/end"; // and be it the last that a tab asks
  const request = body && { method: "POST", headers, keepalive, body: JSON.stringify(body) };
  const answer = await fetch(path, request).then((response) => response.json()).catch(() => null);
  const gone = "The server does not answer: is it still running? Trying again ...";
  if (!answer) {
    say("trouble", gone);
    return wait(1000).then(() => ask(path, body));
  }
  if (byId("trouble").textContent === gone) say("trouble");
  if (!answer.error) return answer;
  const lost = body?.run; // the server has let it go
  if (lost && lost !== run?.id) return null; // as this tab has
  say("trouble", `${lost ? "This training is gone, Train starts another: " : ""}${answer.error}`);
  if (lost) watch(null);
  return null;
}

function paintGrey(canvas, pixels) {
  canvas.width = canvas.height = 28;
  const bytes = Uint8ClampedArray.from(pixels.flatMap((grey) => [grey, grey, grey, 255]));
  canvas.getContext("2d").putImageData(new ImageData(bytes, 28), 0, 0);
}

/** Paint numbers from -100 to 100, maps side by side: positive ones full, negative ones striped. */
function paintSigned(canvas, values, [height, width, maps], across) {
  const size = 2 * Math.ceil(360 / (across * width));
  canvas.width = (across * (width + 1) - 1) * size;
  canvas.height = (Math.ceil(maps / across) * (height + 1) - 1) * size;
  const g = canvas.getContext("2d");
  const style = getComputedStyle(document.body);
  const colors = ["--blue", "--orange"].map((name) => style.getPropertyValue(name));
  values.forEach((value, i) => {
    const [pixel, map] = [Math.floor(i / maps), i % maps];
    const x = (pixel % width) + (map % across) * (width + 1);
    const y = Math.floor(pixel / width) + Math.floor(map / across) * (height + 1);
    g.globalAlpha = Math.abs(value) / 100;
    g.fillStyle = colors[Number(value < 0)];
    g.fillRect(x * size, y * size, size, value < 0 ? size / 2 : size);
  });
}

function activationItem({ path, name, shape, values }) {
  const [item, canvas] = ["li", "canvas"].map((name) => document.createElement(name));
  const width = Math.ceil(Math.sqrt(10 * shape[0])); // of a strip, ten times its height
  if (shape.length === 3) paintSigned(canvas, values, shape, 8);
  else paintSigned(canvas, values, [Math.ceil(shape[0] / width), width, 1], 1);
  item.append(`${path}: ${name}`, canvas);
  return item;
}

/** Have the drawing read: one request at a time, and after it the newest drawing. */
async function read() {
  read.again = true;
  if (read.busy) return;
  read.busy = true;
  while (read.again) {
    read.again = false;
    const reader = run;
    sent.drawImage(digit, 0, 0, 140, 140); // half as fine, for a quarter of the bytes
    const drawn = sent.getImageData(0, 0, 140, 140).data.filter((_, i) => i % 4 === 0);
    const pixels = picked ?? Array.from(drawn);
    const answer = await ask("/read", { pixels, run: reader && reader.id });
    if (answer && reader === run) showReading(answer);
  }
  read.busy = false;
}

function showReading({ prediction, scores, image, layers, speaks, broken }) {
  say("prediction", prediction);
  const step = run?.points.at(-1)?.[0] ?? 0;
  say("reader", run ? `by the model in training, step ${step}` : "by the model opened");
  say("right-reads", run && prediction);
  say("broken-reads", broken);
  [...byId("scores").children].forEach((item, i) => {
    item.style.setProperty("--score", `${100 * scores[i]}%`);
    item.classList.toggle("best", i === prediction);
    item.title = percent(scores[i]);
  });
  paintGrey(byId("prepared"), image);
  paintSigned(byId("speaks"), speaks, [28, 28, 1], 1);
  byId("activations").replaceChildren(...layers.map(activationItem));
}

/** Replace the drawing by a test image, or by nothing. */
function pick(pixels, picture) {
  picked = pixels;
  ink.fillRect(0, 0, 280, 280);
  if (picture) ink.drawImage(picture, 0, 0, 280, 280);
  read();
}

function drawTo({ offsetX, offsetY }) {
  const scale = 280 / digit.clientWidth;
  ink.lineTo(offsetX * scale, offsetY * scale);
  ink.stroke();
  picked = null;
  read();
}

function galleryButton(pixels, label, i) {
  const [button, canvas] = ["button", "canvas"].map((name) => document.createElement(name));
  paintGrey(canvas, pixels);
  canvas.className = "ink";
  button.append(canvas);
  button.ariaLabel = `Test image of a ${label}`;
  button.tabIndex = i ? -1 : 0; // the arrows lead to the others
  button.onclick = () => pick(pixels, canvas);
  return button;
}

digit.onpointerdown = (event) => {
  if (!event.isPrimary || event.button !== 0) return;
  digit.setPointerCapture(event.pointerId);
  ink.beginPath();
  drawTo(event);
  drawTo(event); // a point is a line to itself
};
digit.onpointermove = (event) => digit.hasPointerCapture(event.pointerId) && drawTo(event);
byId("clear").onclick = () => pick(null);
byId("gallery").onkeydown = (event) => {
  const steps = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -10, ArrowDown: 10 };
  const buttons = [...byId("gallery").children];
  const next = buttons[buttons.indexOf(event.target) + steps[event.key]];
  if (!next) return;
  event.preventDefault();
  event.target.tabIndex = -1;
  next.tabIndex = 0;
  next.focus();
};

/** Start what is chosen; if something else is chosen before the server answers, that counts. */
async function start() {
  say("trouble");
  const settings = (wanted = {});
  for (const name in choices) settings[name] = choices[name][byId(name).selectedIndex];
  const answer = await ask("/run", settings);
  if (answer && wanted !== settings) ask("/end", { run: answer.run });
  else if (answer) watch({ ...answer, id: answer.run, state: "checking", points: [] });
}

/** End the run, and watch another one, or none. */
async function watch(next) {
  if (run) ask("/end", { run: run.id });
  run = next;
  showRun();
  read();
  while (next && ["checking", "training", "stopped"].includes(next.state)) {
    const answer = await ask("/progress", { run: next.id, since: next.points.length });
    if (run !== next) return;
    Object.assign(next, answer, { points: [...next.points, ...answer.points] });
    showRun();
    if (answer.points.length) read(); // at each point of the curves, the model to read with is new
    await wait(200);
  }
}

function showRun() {
  const { state, points = [], verdict, model, source, epoch, steps_per_second } = run ?? {};
  const [, right, broken] = points.at(-1) ?? [];
  byId("stop").disabled = !running() && state !== "stopped";
  say("stop", state === "stopped" ? "Go on" : "Stop");
  say("state", state);
  say("accuracy", percent(right?.[1]));
  say("broken-accuracy", broken && percent(broken[1]) + (broken[0] == null ? ", diverged" : ""));
  say("epoch", epoch?.toFixed(1));
  say("speed", steps_per_second?.toFixed(0));
  say("model", model);
  say("source", source);
  say("first", verdict?.split(":")[0]);
  say("rest", verdict?.slice(verdict.split(":")[0].length));
  drawCurves("accuracy-curve", points, 1, ["right"]);
  drawCurves("loss-curve", points, 0, ["right"]);
  drawCurves("both-curves", points, 1, ["right", "broken"]);
}

/** Draw the loss (part 0) or the accuracy (part 1) of these models over the steps. */
function drawCurves(id, points, part, models) {
  const top = part || Math.max(0.1, ...points.map(([, right]) => right[part]));
  const end = points.at(-1)?.[0] || 100;
  const x = (step) => 48 + (290 * step) / end;
  const y = (value) => 130 - (120 * value) / top;
  const ticks = [0, 0.5, 1].map((half) => {
    const value = part ? `${100 * half} %` : (half * top).toFixed(2);
    return `<path class="axis" d="M48 ${y(half * top)}h290"/>
      <text x="22" y="${y(half * top) + 4}">${value}</text>
      <text x="${x(half * end)}" y="146">${Math.round(half * end)}</text>`;
  });
  const curves = models.map((name, m) => {
    const there = points.filter((point) => Number.isFinite(point[m + 1]?.[part]));
    const path = there.map((point) => `${x(point[0])},${y(point[m + 1][part])}`);
    return `<polyline class="${name}" points="${path.join(" ")}"/>`;
  });
  byId(id).innerHTML = `${ticks.join("")}<text x="193" y="164">steps</text>${curves.join("")}`;
}

const { choices, gallery, labels } = await ask("/start");
for (const name in choices) byId(name).append(...choices[name].map((value) => new Option(value)));
byId("gallery").append(...gallery.map((pixels, i) => galleryButton(pixels, labels[i], i)));
byId("scores").innerHTML = [...Array(10).keys()].map((i) => `<li>${i}</li>`).join("");

byId("train").onclick = start;
byId("stop").onclick = () => ask(running() ? "/stop" : "/go_on", { run: run.id });
byId("fault").onchange = (event) => {
  wanted = null;
  event.target.selectedIndex ? start() : watch(null);
};
window.onpagehide = () => watch(null);
watch(null);
