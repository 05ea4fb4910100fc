// Surfaces that a reader turns, with relief.js: axes, paths, the bar, and what the reader does.

function along(ctx, cam, a, b, marks, name, middle) { // an axis: marks are [place from 0 to 1, text]
  const [P, Q, M] = [a, b, middle].map(q => cam.see(...q)), dx = Q[0] - P[0], dy = Q[1] - P[1];
  const size = Math.hypot(dx, dy);
  if (size < 46) return; // seen from its end
  let [nx, ny] = [-dy / size, dx / size], deep = 0;
  if (nx * (P[0] + dx / 2 - M[0]) + ny * (P[1] + dy / 2 - M[1]) < 0) [nx, ny] = [-nx, -ny];
  const every = marks.length > 1 ? Math.ceil(40 / (size * (marks[1][0] - marks[0][0]))) : 1;
  ctx.font = `12px ${FONT}`; ctx.fillStyle = SOFT; ctx.strokeStyle = SOFT; ctx.lineWidth = 1;
  ctx.textAlign = Math.abs(nx) < 0.3 ? "center" : nx > 0 ? "left" : "right"; ctx.textBaseline = "middle";
  marks.forEach(([t, text], k) => {
    if (k % every) return;
    const X = P[0] + t * dx, Y = P[1] + t * dy;
    ctx.beginPath(); ctx.moveTo(X, Y); ctx.lineTo(X + 5 * nx, Y + 5 * ny); ctx.stroke();
    ctx.fillText(text, X + 9 * nx, Y + 13 * ny);
    deep = Math.max(deep, Math.abs(nx) * ctx.measureText(text).width + Math.abs(ny) * 12);
  });
  if (!name) return;
  const angle = Math.atan2(dy, dx);
  ctx.save();
  ctx.translate(P[0] + dx / 2 + (deep + 20) * nx, P[1] + dy / 2 + (deep + 20) * ny);
  ctx.rotate(Math.abs(angle) > Math.PI / 2 ? angle + Math.PI : angle);
  ctx.font = `13px ${FONT}`; ctx.fillStyle = INK; ctx.textAlign = "center"; ctx.fillText(name, 0, 0);
  ctx.restore();
}

function axes(ctx, p, cam, given) {
  const [A, B, C] = p.sides.map(s => s / 2), x = cam.eye[0] > 0 ? A : -A, y = cam.eye[1] > 0 ? B : -B; // the near sides
  const places = (marks, [low, high]) => marks.map(([v, text]) => [(v - low) / (high - low), text]), under = [0, 0, -C];
  along(ctx, cam, [-A, y, -C], [A, y, -C], places(ticks(p.x[0], p.x[1], 5), p.x), p.labels[0], under);
  along(ctx, cam, [x, -B, -C], [x, B, -C], places(ticks(p.y[0], p.y[1], 5), p.y), p.labels[1], under);
  const corners = [[-A, -B], [A, -B], [A, B], [-A, B]], left = q => cam.see(...q, 0)[0];
  const corner = corners.reduce((q, r) => left(r) < left(q) ? r : q), top = cam.see(...corner, C);
  along(ctx, cam, [...corner, -C], [...corner, C], places(given.ticks, given.range), "", [0, 0, 0]);
  if (Math.abs(cam.see(...corner, -C)[1] - top[1]) >= 46) {
    ctx.font = `13px ${FONT}`; ctx.fillStyle = INK; ctx.textAlign = "center";
    ctx.fillText(given.label, top[0], top[1] - 13);
  }
}

function dense(p, path) { // the line over the surface, with points between those of the path
  const found = [], step = 0.5 * Math.min(p.sides[0] / (p.nx - 1), p.sides[1] / (p.ny - 1));
  let last = [NaN, NaN];
  for (const [x, y] of path.points) {
    const gap = Math.hypot(x - last[0], y - last[1]), n = gap > step ? Math.ceil(gap / step) : 1;
    if (gap < 0.1 * step) continue;
    for (let k = 1; k <= n; k++) {
      const q = n > 1 ? [0, 1].map(c => last[c] + k / n * ([x, y][c] - last[c])) : [x, y];
      found.push([...q, height(p, ...q)]);
    }
    last = [x, y];
  }
  return found;
}

function behind(p, cam, [X, Y, w]) { // whether the surface hides this point of it
  return !!first(p, cam, X, Y, w - 0.02, FAR - 0.85, 90, 1);
}

function lines(ctx, p, cam, box) {
  const ends = [];
  for (const path of p.paths) {
    path.line ||= dense(p, path);
    path.at = path.points.map(q => cam.see(...q));
    const points = path.line.map(q => cam.see(...q));
    const hidden = points.map(q => behind(p, cam, q));
    const draw = (wanted, width, colour, dash) => {
      ctx.beginPath();
      for (let k = 1; k < points.length; k++) {
        const [[a, b], [c, d]] = [points[k - 1], points[k]];
        if (hidden[k] !== wanted || isNaN(a + b + c + d)) continue;
        ctx.moveTo(a, b); ctx.lineTo(c, d);
      }
      ctx.lineWidth = width; ctx.strokeStyle = colour; ctx.setLineDash(dash);
      ctx.stroke();
      ctx.setLineDash([]);
    };
    ctx.lineCap = "round";
    draw(true, 1.6, `${path.colour}90`, [1, 4]);
    draw(false, 5, "rgba(255, 255, 255, .85)", []);
    draw(false, 2.4, path.colour, []);
    const there = path.at.filter(q => !isNaN(q[0]));
    if (there.length) ends.push({ ...path, from: there[0], to: there.at(-1) });
  }
  ends.forEach(({ from, colour }) => dot(ctx, from, 3.5, "#fff", colour));
  ends.forEach(({ to, colour }) => dot(ctx, to, 4.5, colour, "#fff"));
  names(ctx, ends, box);
}

function dot(ctx, [X, Y], radius, fill, ring) {
  ctx.beginPath(); ctx.arc(X, Y, radius, 0, 7);
  ctx.fillStyle = fill; ctx.fill();
  ctx.strokeStyle = ring; ctx.lineWidth = 1.6; ctx.stroke();
}

function names(ctx, ends, box) { // of paths, beside their ends, moved down where they would overlap
  ctx.font = `600 12.5px ${FONT}`; ctx.textBaseline = "middle"; ctx.textAlign = "left";
  const put = [];
  for (const { name, to, colour } of ends.sort((a, b) => a.to[1] - b.to[1])) {
    const wide = ctx.measureText(name).width, X = to[0] + 9 + wide > box.x + box.w ? to[0] - 9 - wide : to[0] + 9;
    let Y = to[1] - 2;
    for (const [x, y, w] of put) if (X < x + w && x < X + wide && Y < y + 15) Y = y + 15;
    put.push([X, Y, wide]);
    ctx.lineWidth = 4; ctx.strokeStyle = "rgba(255, 255, 255, .9)"; ctx.strokeText(name, X, Y);
    ctx.fillStyle = colour; ctx.fillText(name, X, Y);
  }
}

function bar(ctx, given, shade, box) {
  const [low, high] = given.range, place = v => box.y + box.h * (1 - (v - low) / (high - low));
  for (let k = 0; k < box.h; k++) {
    ctx.fillStyle = shade(1 - k / box.h, 0.8);
    ctx.fillRect(box.x, box.y + k, 15, 1.5);
  }
  ctx.font = `12px ${FONT}`; ctx.textAlign = "left"; ctx.textBaseline = "middle";
  ctx.strokeStyle = ctx.fillStyle = SOFT; ctx.lineWidth = 1;
  for (const [v, text] of given.ticks) {
    ctx.beginPath(); ctx.moveTo(box.x + 15, place(v)); ctx.lineTo(box.x + 19, place(v)); ctx.stroke();
    ctx.fillText(text, box.x + 23, place(v));
  }
  ctx.save();
  ctx.translate(box.x + box.deep - 9, box.y + box.h / 2); ctx.rotate(-Math.PI / 2);
  ctx.font = `13px ${FONT}`; ctx.fillStyle = INK; ctx.textAlign = "center"; ctx.fillText(given.label, 0, 0);
  ctx.restore();
}

// ------------------------------------------------------------------------------------------------------------ the page
class Turning {
  constructor(room) {
    this.room = room; this.figure = room.parentElement;
    const given = this.given = JSON.parse(room.querySelector("script").textContent);
    const [low, high] = given.range, level = ([v]) => ((v - low) / (high - low) - 0.5) * this.tall;
    given.ticks = (given.log ? powers : ticks)(low, high, 5);
    this.start = { azimuth: given.view[0], elevation: given.view[1], zoom: 1 };
    this.view = { ...this.start };
    this.shade = shades(given.colours);
    this.panels = given.panels.map(panel => prepared(panel));
    this.tall = this.panels[0].sides[2];
    const levels = (given.log ? powers : ticks)(low, high, 12).map(level);
    for (const p of this.panels) p.meshes = [12000, 3000].map(cells => mesh(p, cells / given.panels.length, levels));
    this.canvas = room.querySelector("canvas");
    this.tip = room.querySelector(".said"); this.spot = room.querySelector(".spot");
  }

  draw(moving = false) { // with large cells while it moves
    this.asked = 0;
    const ctx = this.canvas.getContext("2d"), { given, panels, shade } = this, n = panels.length;
    const wide = Math.min(this.figure.clientWidth, n > 1 ? 1100 : 680), dots = window.devicePixelRatio || 1;
    ctx.font = `12px ${FONT}`;
    const deep = 52 + Math.max(...given.ticks.map(([, text]) => ctx.measureText(text).width)); // of the bar
    const columns = clamp(Math.floor((wide - deep) / 250), 1, n), w = (wide - deep) / columns;
    const h = clamp(0.9 * w + 20, 240, 540), tall = h * Math.ceil(n / columns);
    this.canvas.style.height = `${tall}px`; this.room.style.maxWidth = `${wide}px`;
    this.canvas.width = Math.round(wide * dots); this.canvas.height = Math.round(tall * dots);
    ctx.setTransform(dots, 0, 0, dots, 0, 0);
    panels.forEach((p, k) => {
      const box = p.box = { x: k % columns * w, y: Math.floor(k / columns) * h, w, h };
      const cam = p.cam = camera(p, this.view, box);
      ctx.save();
      ctx.beginPath(); ctx.rect(box.x, box.y, w, h); ctx.clip();
      floor(ctx, p, cam, given);
      relief(ctx, p.meshes[+moving], p.sides[2], cam, shade);
      axes(ctx, p, cam, given);
      lines(ctx, p, cam, box);
      ctx.font = `600 14px ${FONT}`; ctx.fillStyle = INK; ctx.textAlign = "center";
      ctx.fillText(p.title, box.x + w / 2, box.y + 12);
      ctx.restore();
    });
    const place = { x: wide - deep + 10, y: 50, h: Math.min(h - 100, 300), deep: deep - 10 };
    bar(ctx, given, shade, place);
  }

  again() {
    this.asked ||= requestAnimationFrame(() => this.draw(this.moving));
  }

  move() {
    this.moving = true;
    clearTimeout(this.rests);
    this.rests = setTimeout(() => { this.moving = false; this.again(); }, 150);
    this.again();
  }

  hover(X, Y) { // say the values there
    const p = this.panels.find(({ box }) => X >= box.x && X < box.x + box.w && Y >= box.y && Y < box.y + box.h);
    let point = p && first(p, p.cam, X, Y, FAR - 1.1, FAR + 1.1, 500), words = [];
    for (const path of p ? p.paths : []) path.at.forEach((seen, k) => {
      if (Math.hypot(seen[0] - X, seen[1] - Y) < 7 && !behind(p, p.cam, seen)) {
        point = path.points[k];
        words = [`${path.name}, point ${k} of ${path.at.length - 1}`];
      }
    });
    this.spot.hidden = this.tip.hidden = !point || isNaN(point[2]);
    if (this.tip.hidden) return;
    [...p.labels, this.given.label].forEach((name, k) => {
      const [low, high] = [p.x, p.y, this.given.range][k], value = low + (point[k] / p.sides[k] + 0.5) * (high - low);
      words.push(`${name} = ${said(k === 2 && this.given.log ? 10 ** value : value)}`);
    });
    const [a, b] = p.cam.see(...point), put = (of, x, y) => Object.assign(of.style, { left: `${x}px`, top: `${y}px` });
    this.tip.textContent = words.join("\n");
    put(this.spot, a, b);
    put(this.tip, Math.min(a + 14, this.room.clientWidth - 150), b + 12);
  }

  turn(azimuth, elevation, zoom = 1) {
    this.view.azimuth += azimuth;
    this.view.elevation = clamp(this.view.elevation + elevation, 0, 90);
    this.view.zoom = clamp(this.view.zoom * zoom, 0.5, 8);
    this.spot.hidden = this.tip.hidden = true;
    this.move();
  }

  reset() {
    Object.assign(this.view, this.start);
    this.turn(0, 0);
  }
}

function pointers(turning, canvas) { // one that is held turns, two zoom; one that is not held, or was not moved, asks
  const held = new Map();
  let moved = 0, hovered = -1e9, scrolled = -1e9;
  const apart = () => { const [a, b] = [...held.values()]; return Math.hypot(a[0] - b[0], a[1] - b[1]); };
  const ask = event => {
    const box = canvas.getBoundingClientRect();
    turning.hover(event.clientX - box.left, event.clientY - box.top);
  };
  canvas.addEventListener("pointerdown", event => {
    held.set(event.pointerId, [event.clientX, event.clientY]);
    moved = 0;
  });
  window.addEventListener("pointermove", event => {
    const before = held.get(event.pointerId);
    if (before && event.buttons) {
      const dx = event.clientX - before[0], dy = event.clientY - before[1], gap = held.size === 2 ? apart() : 0;
      held.set(event.pointerId, [event.clientX, event.clientY]);
      moved += Math.abs(dx) + Math.abs(dy);
      if (gap) turning.turn(0, 0, apart() / gap); else turning.turn(-0.5 * dx, 0.4 * dy);
    } else if (event.target === canvas && event.pointerType !== "touch") {
      hovered = event.timeStamp;
      ask(event);
    }
  });
  for (const name of ["pointerup", "pointercancel"]) window.addEventListener(name, event => {
    if (held.delete(event.pointerId) && moved < 4 && name === "pointerup") ask(event);
  });
  canvas.addEventListener("pointerleave", event => {
    if (event.pointerType !== "touch") turning.hover(-1, -1);
  });
  // A page that is scrolled must not stop at a canvas that comes by: the wheel zooms once the pointer has moved on it.
  window.addEventListener("scroll", event => { scrolled = event.timeStamp; }, { passive: true });
  canvas.addEventListener("wheel", event => {
    if (!event.ctrlKey && document.activeElement !== canvas && hovered < scrolled + 300) return;
    event.preventDefault();
    turning.turn(0, 0, Math.exp(-clamp(event.deltaY, -100, 100) * 0.0025));
  }, { passive: false });
}

const WAYS = { ArrowLeft: [5, 0], ArrowRight: [-5, 0], ArrowUp: [0, 5], ArrowDown: [0, -5] };
Object.assign(WAYS, { "+": [0, 0, 1.15], "-": [0, 0, 1 / 1.15] });

for (const room of document.querySelectorAll(".turn")) {
  const turning = new Turning(room), { canvas, figure } = turning, reset = () => turning.reset();
  pointers(turning, canvas);
  canvas.addEventListener("keydown", event => {
    if (event.key === "Home") reset(); else if (WAYS[event.key]) turning.turn(...WAYS[event.key]); else return;
    event.preventDefault();
  });
  canvas.addEventListener("dblclick", reset);
  room.querySelector("button").addEventListener("click", reset);
  figure.classList.add("turned"); // from here on the picture is for paper only
  try {
    turning.draw();
    new ResizeObserver(() => turning.again()).observe(figure);
  } catch (error) {
    figure.classList.remove("turned");
    throw error;
  }
}
